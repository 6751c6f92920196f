"""Archives (.zip, .tar, .tar.gz …), unpacked into an empty folder so that nothing leaves it and nothing fills the disk.

Only plain files and folders with names inside the folder are written; what a member claims is checked before, and what
comes out is counted while it is written.
"""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from fyi_bench.errors import DataError
from fyi_bench.formats.opening import DAMAGED, check_size, first_line, size_text

MOST_FILES = 500_000  # the largest published sets have 200 pictures of each of 1000 classes
_MOST_HEADER = 2**20  # bytes of a tar header that says names and times; more would only fill the memory
_PART = 2**20
_OF_A_MAC = "__MACOSX"
_BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, RuntimeError,
    NotImplementedError, OverflowError,
)  # fmt: skip
_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)

Member = tuple[str, int, IO[bytes]]  # name, bytes it claims, content


def unpack(path: Path, folder: Path, budget: int) -> None:
    """Write the files of an archive into the folder. budget: bytes they may have together.

    Raises DataError for an archive that is damaged or too large, and for one with links or names that leave the folder.
    """
    total, number = 0, 0
    try:
        for name, claimed, content in _members(path):
            number += 1
            if number > MOST_FILES:
                raise DataError(f"{path} holds more than {MOST_FILES:,} files.\nUnpack it, and name the set inside.")
            check_size(path, total + claimed, budget)
            parts = _parts(path, name)
            if parts and parts[0] != _OF_A_MAC and not any(part.startswith(".") for part in parts):
                total += _write(path, content, folder.joinpath(*parts), budget - total)
    except _BROKEN as error:
        raise DataError(f"{path} is an archive that cannot be unpacked ({first_line(error)}).\n{DAMAGED}") from error
    if not total:
        raise DataError(f"{path} holds no files.\n{DAMAGED}")


def _parts(path: Path, name: str) -> tuple[str, ...]:
    """The folders and the name of a member; DataError where they lead out of the folder."""
    plain = PurePosixPath(name.replace("\\", "/"))
    parts = tuple(part for part in plain.parts if part != ".")
    if plain.is_absolute() or ".." in parts or any(":" in part or "\0" in part for part in parts[:1]):
        raise DataError(
            f"{path} would write outside its folder ('{name[:80]}'), so it was not unpacked.\nDo not use it."
        )
    return parts


def _write(path: Path, content: IO[bytes], target: Path, room: int) -> int:
    """Bytes written; DataError where they are more than there is room for, in the budget or on the disk."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(exist_ok=False)
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(f"{path} holds the name {target.name} twice.\nPack its files again.") from error
    written = 0
    with open(target, "wb") as handle:
        while part := content.read(_PART):
            written += len(part)
            check_size(path, written, room)
            if written > shutil.disk_usage(target.parent).free:
                raise DataError(f"There is no room to unpack {path} in {target.parent}.\nFree some, or set TMPDIR.")
            handle.write(part)
    return written


def _members(path: Path) -> Iterator[Member]:
    with open(path, "rb") as handle:
        zipped = handle.read(2) == b"PK"  # by its beginning: a tar may end with a zip
    yield from _of_zip(path) if zipped else _of_tar(path)


def _of_zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.flag_bits & 1:
                raise DataError(f"{path} is encrypted.\nUnpack it first.")
            if (entry.external_attr >> 28) == 0o12:
                raise _linked(path, entry.filename)
            if not entry.is_dir():
                with archive.open(entry) as content:
                    yield entry.filename, entry.file_size, content


def _of_tar(path: Path) -> Iterator[Member]:
    with tarfile.open(path, "r|*", tarinfo=_Entry) as archive:  # a stream: one member at a time
        for entry in archive:
            archive.members.clear()  # type: ignore[attr-defined]  # which it would keep
            if entry.isdir():
                continue
            content = archive.extractfile(entry) if entry.isreg() and not entry.issparse() else None
            if content is None:
                raise _linked(path, entry.name)
            yield entry.name, entry.size, content


def _linked(path: Path, name: str) -> DataError:
    return DataError(
        f"{path} holds a link or a device ('{name[:80]}'), so it was not unpacked.\nPack plain files and folders alone."
    )


class _Entry(tarfile.TarInfo):
    """A member whose header may not be longer than names are: tarfile reads headers whole."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _HEADERS and self.size > _MOST_HEADER:
            raise tarfile.TarError(f"a header of {size_text(self.size)}")
        return super()._proc_member(archive)  # type: ignore[misc]

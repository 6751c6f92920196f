"""What was named: a file, a folder, an archive or an address of the Hub; its kind, and what lies beside it."""

from __future__ import annotations

import contextlib
import re
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fyi_bench.data.hub import Address, fetch, is_address
from fyi_bench.data.pictures import SUFFIXES
from fyi_bench.errors import DataError
from fyi_bench.files import read_table, sha256_file
from fyi_bench.formats.opening import DAMAGED, LEGACY_MAGIC, check_size, first_line, load_npy, load_npz, load_torch
from fyi_bench.formats.unpacking import unpack

T = TypeVar("T")
FOLDER, ARCHIVE, UNKNOWN = "folder", "archive", "unknown"
_HEAD = 512
_LISTED = 100  # files whose digests are kept in the provenance
_LARGEST_NOTE = 2**20
_LOADERS: dict[str, Callable[[Path, int], Any]] = {"torch": load_torch, "npz": load_npz, "npy": load_npy}
_PLAIN_KINDS = (
    (b"\x93NUMPY", "npy"),
    (b"PAR1", "parquet"),
    (LEGACY_MAGIC, "torch"),
    (b"ARROW1", "arrow"),
    (b"\xff\xff\xff\xff", "arrow"),
)
_PICTURE = "it is one picture.\nName the folder with one sub-folder of pictures a class."
_PACKED = "it is an archive of a kind that is not unpacked here.\nUnpack it and name the set inside."
_NOTES = (".md", ".txt", ".json", ".yaml", ".yml", ".csv", ".gitattributes", ".gitignore", ".lock", ".log")
_LEVELS = 4  # folders above a file whose names may say what it is
_POINTER = "it is a pointer of git-lfs, not the file itself.\nRun `git lfs pull` where it is."
# how a file begins that is not read -> why, and what to do
_REFUSED = {
    (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8"): _PICTURE,
    (b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd"): _PACKED,
    (b"version https://git-lfs",): _POINTER,
}
_HTML = re.compile(rb"\s*<(!doctype html|html|head|\?xml|!--)", re.IGNORECASE)
_PICKLE = re.compile(rb"\x80[\x02-\x05]|\(?(c[\w.]+\n[\w.]+\n|[ldtI]p?\d*\n)")


class InputFiles:
    """One file or folder to import, and its neighbours; nothing is read before it is asked for.

    path: what was named. place: the file or folder of this machine that holds it: of an archive what is inside, of an
    address of the Hub what was fetched. folder: it, or the folder it is in. kind: 'folder', 'torch', 'npz', 'npy',
    'parquet', 'safetensors', 'arrow', 'pickle' or 'unknown'. budget: bytes that a file may unpack to.
    Raises DataError for a path that is absent or cannot be a set (empty, a web page …).
    """

    def __init__(self, path: str | Path, budget: int):
        self.path, self.budget = Path(path), budget
        self._contents: dict[Path, Any] = {}
        self._read: list[Path] = []
        address = Address.of(str(path)) if is_address(path) else None
        if address is None:
            self.path = self.place = Path(path).expanduser()
        else:
            self.place = fetch(address, budget)
            if self.place.is_dir():
                self.place = _inner(self.place)
        self.kind = _kind(self.place)
        if self.kind == FOLDER and (packed := _archive_in(self.place)):
            self.place, self.kind = packed, ARCHIVE
        if self.kind == ARCHIVE:
            self._unpacked = tempfile.TemporaryDirectory(prefix="fyi-bench-")  # gone with this object
            unpack(self.used(self.place), Path(self._unpacked.name), budget)
            self.place = _inner(Path(self._unpacked.name))
            try:
                self.kind = _kind(self.place)
            except DataError as error:
                raise DataError(self.told(str(error))) from error
            if self.kind == ARCHIVE:
                raise DataError(f"{self.path} holds another archive, {self.place.name}.\nUnpack it first.")
        self.folder = self.place if self.kind == FOLDER else self.place.parent
        self.named = self._named(address)

    def _named(self, address: Address | None) -> list[str]:
        """Names that may say what it is, the inner ones first: its own, those of its folders or of its repository."""
        if address is not None:
            return [part for part in (*reversed(Path(address.file).parts), *reversed(address.repo.split("/"))) if part]
        above = [parent.name for parent in list(self.path.resolve().parents)[:_LEVELS]]
        inside = [self.place.name] if self.place != self.path and self.kind != FOLDER else []
        return [*inside, self.path.name, *above]

    @property
    def name(self) -> str:
        """Name of the file, or '' for a folder."""
        return "" if self.kind == FOLDER else self.place.name

    def told(self, text: str) -> str:
        """A message with the name that the user gave, where it speaks of an unpacked or fetched place."""
        if self.place == self.path:
            return text
        root = self._unpacked.name if hasattr(self, "_unpacked") else str(self.folder)
        return text.replace(root, str(self.path))

    @property
    def names(self) -> list[str]:
        """Names of the files in the folder, sorted; where a file was named, it is among them."""
        try:
            return sorted(entry.name for entry in self.folder.iterdir() if entry.is_file())
        except OSError as error:
            raise DataError(f"{self.folder} cannot be read: {error.strerror}.\nCheck its permissions.") from error

    @property
    def folders(self) -> list[str]:
        """Names of the folder and of the three above it, the inner ones first."""
        return self.named[self.kind != FOLDER :][:_LEVELS]

    def has(self, *names: str) -> bool:
        """Whether the folder holds all these files."""
        return all(name and (self.folder / name).is_file() for name in names)

    def only(self, pattern: str) -> str:
        """The name of the file that was named, or of the only one in the folder, if it matches the pattern; else ''."""
        matching = [n for n in (self.names if self.kind == FOLDER else [self.name]) if re.fullmatch(pattern, n)]
        return matching[0] if len(matching) == 1 else ""

    def need(self, found: T | None, what: str, hint: str = "Name another format, or none.") -> T:
        """What was found; where that is nothing, DataError saying that this is not what the named format needs."""
        if not found:
            raise DataError(f"{self.path} is not {what}.\n{hint}")
        return found

    def content(self, name: str = "") -> Any:
        """Parsed content of a file of the folder (default: the one that was named), read once.

        torch: tensors in dicts and lists; npz: dict of arrays; npy: array. Raises DataError for any other kind.
        """
        path = self.folder / name if name else self.place
        if path not in self._contents:
            kind = self.kind if path == self.place else _kind(path)
            if kind not in _LOADERS:
                raise DataError(f"{path} holds no tensors (kind of file: {kind}).\nName another file or format.")
            check_size(path, path.stat().st_size, self.budget)
            self._contents[path] = _LOADERS[kind](path, self.budget)
            self.used(path)
        return self._contents[path]

    def used(self, path: Path) -> Path:
        """Note a file that was read by other means; returns it."""
        self._read.append(path)
        return path

    def head(self) -> bytes:
        """The first bytes of the file."""
        return _head(self.place)[:8]

    def facts(self) -> dict[str, Any]:
        """Names and sha256 of the files that were read, for provenance (the first 100 of a folder of pictures)."""
        listed = {path.name: sha256_file(path) for path in self._read[:_LISTED]}
        return {"files": listed, "file_count": len(self._read)}

    def json_beside(self, name: str) -> dict[str, Any]:
        """A small JSON file of the folder as a dictionary; empty where it is absent or no such thing."""
        try:
            return read_table(self.folder / name, _LARGEST_NOTE)
        except (OSError, ValueError):  # notes that are not JSON are not ours to judge
            return {}


def _kind(path: Path) -> str:
    if path.is_dir():
        return FOLDER
    head = _head(path)
    refused = next((why for starts, why in _REFUSED.items() if head.startswith(starts)), "")
    if refused:
        raise DataError(f"{path} cannot be imported: {refused}")
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")) or head[257:262] == b"ustar":
        return ARCHIVE
    if _HTML.match(head):
        raise DataError(
            f"{path} is a web page that was saved under the name of a set, often a notice about a quota or a login.\n"
            "Download the file itself again, in a browser if need be."
        )
    if head.startswith(b"PK"):
        return _zip_kind(path)
    if plain := next((kind for start, kind in _PLAIN_KINDS if head.startswith(start)), ""):
        return plain
    if head[8:9] == b"{":
        return "safetensors"
    return "pickle" if _PICKLE.match(head) else UNKNOWN


def _head(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is neither a file nor a folder.\nName one.")
    try:
        with open(path, "rb") as handle:
            head = handle.read(_HEAD)
    except FileNotFoundError:
        raise DataError(f"There is no file or folder {path}.\nCheck the path.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.\nCheck its permissions.") from error
    if not head:
        raise DataError(f"{path} is empty.\nThe copy or download stopped at once: do it again.")
    return head


def _zip_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        size = f"{path.stat().st_size:,} bytes"
        raise DataError(f"{path} is not whole: {first_line(error)} ({size}).\n{DAMAGED}") from error
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    return ARCHIVE


def _archive_in(folder: Path) -> Path | None:
    """The archive that is all a folder holds, beside notes; None for none."""
    with contextlib.suppress(OSError, DataError):  # said when its files are asked for
        inner = _inner(folder)
        return inner if inner.is_file() and _kind(inner) == ARCHIVE else None
    return None


def _inner(folder: Path) -> Path:
    """What an archive or a repository holds, without the folders around it and the notes beside it."""
    while True:
        there = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
        there = [entry for entry in there if entry.is_dir() or not entry.name.lower().endswith(_NOTES)]
        if len(there) != 1:
            return folder
        if there[0].is_file():
            return there[0]
        if any(entry.name.lower().endswith(SUFFIXES) for entry in there[0].iterdir()):
            return folder  # the only class
        folder = there[0]

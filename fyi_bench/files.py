"""Files that are whole or absent: atomic writes, reading that nothing can hang, digests, canonical JSON."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from fyi_bench.errors import StoreError

MOST_SMALL = 64 * 2**20  # bytes
# endings of the files that make a package do what it does: code, and the data that comes with it
SOURCES = frozenset(
    (".py", ".pyi", ".c", ".cpp", ".cu", ".h", ".toml", ".csv", ".json", ".j2", ".css", ".js", ".md", ".typed")
)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text, whatever the order of keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_of(value: Any) -> str:
    """First 16 hex digits (64 bits) of the sha256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


@contextlib.contextmanager
def open_regular(path: str | Path) -> Iterator[io.BufferedReader]:
    """A regular file, open for reading. OSError for what could hang or never end: a pipe, a device."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        with open(descriptor, "rb", closefd=False) as handle:
            yield handle
    finally:
        os.close(descriptor)


def sha256_file(path: str | Path) -> str:
    """sha256 of a regular file's bytes, hex."""
    with open_regular(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_small(path: str | Path, most: int = MOST_SMALL) -> bytes:
    """Bytes of a small regular file. OSError for one of more than `most` bytes, and for what is none."""
    with open_regular(path) as handle:
        if os.fstat(handle.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"it is larger than {most // 2**20} MiB", str(path))
        return handle.read()


def read_text(path: str | Path, most: int = MOST_SMALL) -> str:
    """Text (UTF-8, with a byte order mark or without) of a small file. OSError as `read_small`, ValueError for none."""
    try:
        return read_small(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is no text in UTF-8") from None


def json_of(text: str | bytes) -> Any:
    """The value of a JSON text. ValueError where it is none, or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_table(path: str | Path, most: int = MOST_SMALL) -> dict[str, Any]:
    """The JSON object in a small file. OSError as `read_small`, ValueError where it holds no such thing."""
    found = json_of(read_small(path, most).decode())
    if not isinstance(found, dict):
        raise ValueError("it holds no table")
    return found


def tree_digest(places: Iterable[Path]) -> str:
    """First 16 hex digits of the sha256 over names and bytes of the packaged files in these folders (or files)."""
    whole = hashlib.sha256()
    for place in places:
        inside = sorted(path for path in place.rglob("*") if path.suffix in SOURCES) if place.is_dir() else [place]
        for path in inside:
            content = path.read_bytes()
            whole.update(f"{path.relative_to(place.parent).as_posix()}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()[:16]


def legal_json(value: Any) -> Any:
    """The value with NaN and infinities as the strings 'nan', 'inf', '-inf' (JSON has no such numbers)."""
    if isinstance(value, dict):
        return {str(k): legal_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [legal_json(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def is_utf8(path: Path) -> bool:
    """Whether the whole path is text in UTF-8; the library that reads sets takes no other."""
    try:
        path.absolute().as_posix().encode()
    except UnicodeEncodeError:
        return False
    return True


def check_place(path: Path) -> None:
    """Raise StoreError for a device (`/dev/null`, `/dev/stdout`): a file moved there would take it from everybody."""
    place = path.absolute()
    try:
        mode = place.lstat().st_mode
    except OSError:  # nothing there, or what writing will tell
        mode = 0
    if (
        stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
        or place.parent in (Path("/dev"), Path("/dev/fd")) or place.is_relative_to("/proc")
    ):  # fmt: skip
        raise StoreError(f"{path} is a device, not a file.\nName a file.")


def atomic_write(path: str | Path, write: Callable[[Path], None]) -> Path:
    """Call `write(temporary path)`, fsync, then replace `path`: a reader sees the old file or the new one.

    On any failure the old file is untouched and the temporary one removed.
    Raises StoreError with the place and the cause when the disk is full or the folder not writable, or for a device.
    """
    path = Path(path)
    check_place(path)
    temporary = path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))  # less the user's umask
        write(temporary)
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the first cause is told; who sweeps the folder finds what is left
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StoreError(_explain(path, error)) from error
        raise
    return path


def remove(path: Path) -> None:
    """Remove a file, if it is there. Raises StoreError with the place and the cause where that fails."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        remedy = "Nothing was lost: see that its folder and disk are in order, and run the same command."
        raise StoreError(f"Could not remove {path}: {error.strerror or error}.\n{remedy}") from error


def between(page: str, marks: tuple[str, str], text: str) -> str:
    """The page with this text on the lines between its two marks. Raises ValueError where it has not both."""
    before, begin, rest = page.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not end:
        raise ValueError(f"the page has no {marks[0]} … {marks[1]}")
    return f"{before}{begin}\n{text}\n{end}{after}"


def write_text(path: str | Path, text: str) -> Path:
    """Atomic text file (UTF-8)."""
    return atomic_write(path, lambda tmp: _write_bytes(tmp, text.encode()))


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Atomic binary file."""
    return atomic_write(path, lambda tmp: _write_bytes(tmp, data))


def write_json(path: str | Path, value: Any) -> Path:
    """Atomic JSON file, indented, keys in the order given, NaN made legal."""
    return write_text(path, json.dumps(legal_json(value), indent=1, allow_nan=False) + "\n")


def _write_bytes(path: Path, data: bytes) -> None:
    with open(path, "wb") as handle:
        handle.write(data)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some network file systems refuse to sync a folder; the file itself is synced
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EBADF):
            raise
    finally:
        os.close(handle)


def _explain(path: Path, error: OSError) -> str:
    causes = {
        errno.ENOSPC: "the disk is full",
        errno.EFBIG: "the file is larger than this process may write",
        errno.EDQUOT: "the disk quota is used up",
        errno.EACCES: "no permission to write there",
        errno.EROFS: "the file system is read-only",
        errno.ENOTDIR: "a part of the path is not a folder",
        errno.EEXIST: "a part of the path is not a folder",
    }
    cause = causes.get(error.errno or 0, error.strerror or str(error))
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "free some space or choose another --store" if full else "choose another place"
    return f"Could not write {path}: {cause}.\nNothing earlier was lost: {remedy}."

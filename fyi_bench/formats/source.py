"""What was named on the command line: a file or folder, what kind it is by its bytes, and what lies beside it."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fyi_bench.errors import DataError
from fyi_bench.files import sha256_file
from fyi_bench.formats.array_file import load_npy, load_npz
from fyi_bench.formats.common import DAMAGED, check_size, first_line
from fyi_bench.formats.torch_file import LEGACY_MAGIC, load_torch

FOLDER, UNKNOWN = "folder", "unknown"
_HEAD = 512
_PLAIN_KINDS = ((b"\x93NUMPY", "npy"), (b"PAR1", "parquet"), (LEGACY_MAGIC, "torch"))
_PICTURE = "it is one picture.\nName the folder with one sub-folder of pictures a class."
_ARCHIVE = "it is an archive, and archives are not unpacked for you.\nUnpack it and name the set inside."
# how a file begins -> why it is not read, and what to do
_REFUSED = (
    (b"\x89PNG", _PICTURE), (b"\xff\xd8\xff", _PICTURE), (b"RIFF", _PICTURE), (b"GIF8", _PICTURE),
    (b"\x1f\x8b", _ARCHIVE), (b"BZh", _ARCHIVE), (b"\xfd7zXZ", _ARCHIVE), (b"7z\xbc\xaf", _ARCHIVE),
    (b"Rar!", _ARCHIVE),
    (b"version https://git-lfs", "it is a pointer of git-lfs, not the file itself.\nRun `git lfs pull` where it is."),
)  # fmt: skip
_HTML = re.compile(rb"\s*<(!doctype html|html|head|\?xml|!--)", re.IGNORECASE)
_PICKLE = re.compile(rb"\x80[\x02-\x05]|\(?(c[\w.]+\n[\w.]+\n|[ldtI]p?\d*\n)")


class Source:
    """One file or folder to import, and its neighbours; nothing is read before it is asked for.

    path: what was named. folder: it, or the folder it is in. kind: 'folder', 'torch', 'npz', 'npy', 'parquet',
    'safetensors', 'pickle' or 'unknown'. budget: bytes that a file may unpack to.
    Raises DataError for a path that is absent or cannot be a set (empty, a web page, an archive …).
    """

    def __init__(self, path: str | Path, budget: int):
        self.path, self.budget = Path(path).expanduser(), budget
        self.kind = _kind(self.path)
        self.folder = self.path if self.kind == FOLDER else self.path.parent
        self._contents: dict[Path, Any] = {}
        self.read_files: list[Path] = []

    @property
    def name(self) -> str:
        """Name of the file, or '' for a folder."""
        return "" if self.kind == FOLDER else self.path.name

    @property
    def names(self) -> list[str]:
        """Names of the files in the folder, sorted; where a file was named, it is among them."""
        try:
            return sorted(entry.name for entry in self.folder.iterdir() if entry.is_file())
        except OSError as error:
            raise DataError(f"{self.folder} cannot be read: {error.strerror}.\nCheck its permissions.") from error

    def has(self, name: str) -> bool:
        """Whether the folder holds this file."""
        return bool(name) and (self.folder / name).is_file()

    def content(self, name: str = "") -> Any:
        """Parsed content of a file of the folder (default: the one that was named), read once.

        torch: tensors in dicts and lists; npz: dict of arrays; npy: array. Raises DataError for any other kind.
        """
        path = self.folder / name if name else self.path
        if path not in self._contents:
            kind = self.kind if path == self.path else _kind(path)
            if kind not in _LOADERS:
                raise DataError(f"{path} holds no tensors (kind of file: {kind}).\nName another file or format.")
            check_size(path, path.stat().st_size, self.budget)
            self._contents[path] = _LOADERS[kind](path, self.budget)
            self.read_files.append(path)
        return self._contents[path]

    def used(self, path: Path) -> Path:
        """Note a file that was read by other means; returns it."""
        self.read_files.append(path)
        return path

    def head(self) -> bytes:
        """The first bytes of the file."""
        return _head(self.path)[:8]

    def facts(self) -> dict[str, Any]:
        """Names and sha256 of the files that were read, for provenance (the first 100 of a folder of pictures)."""
        files = self.read_files[:100]
        return {"files": {path.name: sha256_file(path) for path in files}, "file_count": len(self.read_files)}

    def json_beside(self, name: str) -> dict[str, Any]:
        """A small JSON file of the folder as a dictionary; empty where it is absent or no such thing."""
        path = self.folder / name
        if not path.is_file() or path.stat().st_size > 2**20:
            return {}
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # notes that are not JSON are not ours to judge
            return {}
        return value if isinstance(value, dict) else {}


_LOADERS: dict[str, Callable[[Path, int], Any]] = {"torch": load_torch, "npz": load_npz, "npy": load_npy}


def _kind(path: Path) -> str:
    if path.is_dir():
        return FOLDER
    head = _head(path)
    for start, reason in _REFUSED:
        if head.startswith(start):
            raise DataError(f"{path} cannot be imported: {reason}")
    if head[257:262] == b"ustar":
        raise DataError(f"{path} cannot be imported: {_ARCHIVE}")
    if _HTML.match(head):
        raise DataError(
            f"{path} is a web page that was saved under the name of a set, often a notice about a quota or a login.\n"
            "Download the file itself again, in a browser if need be."
        )
    plain = next((kind for start, kind in _PLAIN_KINDS if head.startswith(start)), "")
    if plain:
        return plain
    if head.startswith(b"PK"):
        return _zip_kind(path)
    if len(head) > 8 and head[8:9] == b"{":
        return "safetensors"
    if _PICKLE.match(head):
        return "pickle"
    return UNKNOWN


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
        raise DataError(
            f"{path} is not whole: {first_line(error)} ({path.stat().st_size:,} bytes).\n{DAMAGED}"
        ) from error
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    raise DataError(f"{path} cannot be imported: {_ARCHIVE}")

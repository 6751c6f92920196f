"""Files of `torch.save`, opened so that nothing in them can run and nothing can fill the memory.

Three fences: the zip directory is checked against a size budget before anything is unpacked; the pickle inside is
read as text (`pickle_scan`); then torch's restricted reader loads it, with plain stand-ins for the few NumPy names
that published files hold (accuracies as NumPy numbers), so that none of NumPy's own unpickling runs either.
"""

from __future__ import annotations

import io
import mmap
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from fyi_bench.errors import DataError
from fyi_bench.formats.common import DAMAGED, check_size, first_line
from fyi_bench.formats.pickle_scan import Scan, Suspicious, scan

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how files of torch before 1.6 begin
_LEGACY_PICKLES = 5  # magic number, version, facts about the machine, the object, the keys of its storages
_MAX_PICKLE = 64 * 2**20
_MAX_ENTRIES = 100_000
_PART = 2**20


def load_torch(path: Path, budget: int) -> Any:
    """Tensors on the CPU in the dicts and lists they were saved in; NumPy numbers become Python numbers.

    budget: bytes the file may unpack to. Raises DataError for a file that is damaged, too large, or that asks for
    anything but tensors and plain containers.
    """
    with open(path, "rb") as handle:
        legacy = handle.read(len(LEGACY_MAGIC)) == LEGACY_MAGIC
    check_size(path, path.stat().st_size, budget)
    (_check_legacy if legacy else _check_zip)(path, budget)
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises whatever the damaged bytes led it to
        raise DataError(f"{path} cannot be read by torch ({first_line(error)}).\n{DAMAGED}") from error


def _check_zip(path: Path, budget: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_directory(path, entries, budget)
            _check_sums(archive, entries)
            prefix = entries[0].filename.split("/", 1)[0]
            pickled = torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")  # the bytes torch will load
            found = _scanned(path, io.BytesIO(pickled), 1)
            records = {e.filename.removeprefix(f"{prefix}/data/"): e.file_size for e in entries}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{path} cannot be unpacked ({first_line(error)}).\n{DAMAGED}") from error
    for storage in found.storages:
        if storage.nbytes > records.get(storage.key, -1):
            raise DataError(f"{path} declares a tensor that is larger than its data.\n{DAMAGED}")


def _check_directory(path: Path, entries: list[zipfile.ZipInfo], budget: int) -> None:
    """One folder with one `data.pkl`, no name twice, nothing encrypted, everything within the budget."""
    names = [entry.filename for entry in entries]
    tops = {name.split("/", 1)[0] for name in names}
    top = min(tops, default="")
    if f"{top}/constants.pkl" in names:
        raise DataError(
            f"{path} is a TorchScript program, not a file of tensors, and is not opened.\n"
            "Save its tensors with torch.save([images, labels], 'data.pt') where it was made."
        )
    if len(tops) != 1 or len(set(names)) != len(names) or f"{top}/data.pkl" not in names or len(names) > _MAX_ENTRIES:
        raise DataError(
            f"{path} is a zip archive, but not one that torch wrote.\nUnpack it and name the file of images in it."
        )
    if any(entry.flag_bits & 1 for entry in entries):
        raise DataError(f"{path} is encrypted.\nUnpack it first.")
    check_size(path, sum(entry.file_size for entry in entries), budget)
    check_size(path, next(e.file_size for e in entries if e.filename == f"{top}/data.pkl"), _MAX_PICKLE)


def _check_sums(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> None:
    """Compare every entry with its checksum, which torch itself does not; 0 means that none was written."""
    for entry in entries:
        if entry.CRC:
            with archive.open(entry) as handle:
                while handle.read(_PART):
                    pass


def _check_legacy(path: Path, budget: int) -> None:
    size = path.stat().st_size
    with open(path, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = _scanned(path, data, _LEGACY_PICKLES)
    distinct = {storage.key: storage.nbytes for storage in found.storages}
    if max((s.nbytes for s in found.storages), default=0) > size or sum(distinct.values()) > size:
        raise DataError(f"{path} declares more data than it has.\n{DAMAGED}")


def _scanned(path: Path, stream: BinaryIO | mmap.mmap, pickles: int) -> Scan:
    """What the pickles at the stream's place hold; DataError where it is more than tensors and numbers."""
    whole = Scan()
    try:
        for _ in range(pickles):
            part = scan(stream)
            whole.names |= part.names
            whole.storages += part.storages
    except Suspicious as error:
        raise refused(path, str(error)) from error
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise DataError(f"{path} is not whole ({first_line(error)}).\n{DAMAGED}") from error
    if whole.foreign:
        raise refused(path, f"'{whole.foreign[0]}'")
    return whole


def refused(path: Path, what: str) -> DataError:
    """The error for a file that is not opened because it could run a program."""
    return DataError(
        f"{path} asks for {what}: that is no image data and could run a program, so the file was not opened.\n"
        "If you trust its maker, load it where it was made and save plain tensors: "
        "torch.save([images.cpu(), labels.cpu()], 'data.pt')."
    )


class NumpyType:
    """Stands in for `numpy.dtype` of plain numbers."""

    def __init__(self, code: str, align: bool = False, copy: bool = False):
        if not re.fullmatch(r"[biuf][1248]", code):
            raise ValueError(f"NumPy type {code!r} is not one of plain numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(">" if state[1] == ">" else "<")


class NumpyArray:
    """Stands in for `numpy.ndarray`; `value` is a real array built from the file's bytes, their number checked."""

    def __init__(self) -> None:
        self.value = np.zeros(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, data = state
        flat = np.frombuffer(data, dtype=kind.dtype)
        self.value = flat.reshape(shape, order="F" if fortran else "C").astype(kind.dtype.newbyteorder("="))


def numpy_number(kind: NumpyType, data: bytes) -> float | int | bool:
    """Stands in for `numpy.…multiarray.scalar`: the number as a Python one."""
    return np.frombuffer(data, dtype=kind.dtype, count=1)[0].item()


def numpy_empty(kind: type, shape: tuple, code: bytes) -> NumpyArray:
    """Stands in for `numpy.…multiarray._reconstruct`, which makes an array to be filled."""
    return NumpyArray()


_STAND_INS = [
    (NumpyType, "numpy.dtype"),
    (NumpyArray, "numpy.ndarray"),
    *((numpy_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((numpy_empty, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]

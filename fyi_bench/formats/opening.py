"""Files of tensors and pictures, opened so that nothing in them can run and nothing can fill the memory.

What `torch.save` wrote passes three fences: the zip directory is checked against a size budget before anything is
unpacked; the pickle inside is read as text (`pickle_scan`); then torch's restricted reader loads it, with plain
stand-ins for the few NumPy names that published files hold (accuracies as NumPy numbers), so that none of NumPy's
own unpickling runs either. NumPy's files are read without pickles, their headers checked first.
"""

from __future__ import annotations

import io
import math
import mmap
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import torch

from fyi_bench.errors import DataError
from fyi_bench.formats.pickle_scan import Scan, Suspicious, scan
from fyi_bench.reading import MOST_BYTES

SIZE_BUDGET = MOST_BYTES  # bytes a file may unpack to
DAMAGED = "It is truncated or damaged: copy or download it again."
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how files of torch before 1.6 begin
_LEGACY_PICKLES = 5  # magic number, version, facts about the machine, the object, the keys of its storages
_MAX_PICKLE = 64 * 2**20
_MAX_ENTRIES = 100_000
_PART = 2**20
_MAX_SIDE = 4096
_GREY_MODES = {"1", "L", "LA", "I", "I;16"}
_BROKEN = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, OSError, RuntimeError, SyntaxError)
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def check_size(path: Path, nbytes: int, budget: int) -> None:
    """DataError where `nbytes`, declared by a file that is not yet read, are more than the budget."""
    if nbytes > budget:
        raise DataError(
            f"{path} declares {size_text(nbytes)}; at most {size_text(budget)} are read.\n"
            "A condensed set is far smaller: check the file, or raise --max-bytes (max_bytes=) if it is what you want."
        )


def size_text(nbytes: int) -> str:
    """Bytes for people: '12 bytes', '3.1 MiB', '8.0 GiB'."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if nbytes >= size:
            return f"{nbytes / size:,.1f} {unit}"
    return f"{nbytes} bytes"


def first_line(error: Exception) -> str:
    """The first line of an error's text, shortened, without a full stop."""
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")[:200]


def check_pictures(blobs: Sequence[Path | bytes], names: Sequence[object], budget: int) -> int:
    """The number of channels of these pictures (1 if all are grey). DataError where one or all are too large."""
    from PIL import Image

    total, modes = 0, set()
    for blob, name in zip(blobs, names, strict=True):
        try:
            if isinstance(blob, Path) and blob.exists() and not blob.is_file():
                raise ValueError("it is no regular file")
            with Image.open(blob if isinstance(blob, Path) else io.BytesIO(blob)) as picture:
                (width, height), mode = picture.size, picture.mode
        except Exception as error:  # Pillow raises whatever the damaged bytes led it to
            raise DataError(f"{name} is not a picture ({first_line(error)}).\nReplace or remove it.") from error
        if max(width, height) > _MAX_SIDE:
            raise DataError(f"{name} is {width}x{height} pixels; up to {_MAX_SIDE} a side are read.\nCheck the file.")
        modes.add(mode)
        total += width * height * 3
        check_size(Path(str(name)), total, budget)
    return 1 if modes <= _GREY_MODES else 3


def load_npy(path: Path, budget: int) -> np.ndarray:
    """The array of a .npy file. Raises DataError for a damaged or too large one, or one of Python objects."""
    try:
        with open(path, "rb") as handle:
            return _array(path, handle, path.stat().st_size, budget)
    except _BROKEN as error:
        raise DataError(f"{path} is not a readable .npy file ({first_line(error)}).\n{DAMAGED}") from error


def load_npz(path: Path, budget: int) -> dict[str, np.ndarray]:
    """Name -> array of a .npz file; the budget is for all of them. Raises DataError as `load_npy`."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
            check_size(path, sum(entry.file_size for entry in entries), budget)
            arrays = {}
            for entry in entries:
                with archive.open(entry) as handle:
                    arrays[entry.filename.removesuffix(".npy")] = _array(path, handle, entry.file_size, budget)
            return arrays
    except _BROKEN as error:
        raise DataError(f"{path} is not a readable .npz file ({first_line(error)}).\n{DAMAGED}") from error


def _array(path: Path, handle: IO[bytes], available: int, budget: int) -> np.ndarray:
    version = np.lib.format.read_magic(handle)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of the format is not known")
    try:
        shape, fortran, dtype = _HEADERS[version](handle)
    except Exception as error:  # NumPy parses it with Python's own tokenizer, whose errors are of many kinds
        raise ValueError("its header is damaged") from error
    if dtype.hasobject or dtype.names is not None:
        raise DataError(
            f"{path} holds Python objects, which could run a program when they are read, so it was not opened.\n"
            "If you trust its maker, save plain arrays where it was made: np.savez('set.npz', images=…, labels=…)."
        )
    nbytes = math.prod(shape) * dtype.itemsize
    check_size(path, nbytes, budget)
    if nbytes > available:
        raise ValueError(f"it declares {nbytes:,} bytes and has {available:,}")
    data = handle.read(nbytes)
    if len(data) != nbytes:
        raise ValueError(f"{len(data):,} of {nbytes:,} bytes are there")
    if handle.read(1):  # at the end of a zip entry this also compares its checksum
        raise ValueError("there is more data than it declares")
    array = np.frombuffer(bytearray(data), dtype=dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


def load_torch(path: Path, budget: int, more: frozenset[str] = frozenset()) -> Any:
    """Tensors on the CPU in the dicts and lists they were saved in; NumPy numbers become Python numbers.

    budget: bytes the file may unpack to. more: names it may ask for, beside those of plain tensors (`SPARSE_NAMES`).
    Raises DataError for a file that is damaged, too large, or that asks for
    anything but tensors and plain containers.
    """
    with open(path, "rb") as handle:
        legacy = handle.read(len(LEGACY_MAGIC)) == LEGACY_MAGIC
    check_size(path, path.stat().st_size, budget)
    (_check_legacy if legacy else _check_zip)(path, budget, more)
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises whatever the damaged bytes led it to
        raise DataError(f"{path} cannot be read by torch ({first_line(error)}).\n{DAMAGED}") from error


def _check_zip(path: Path, budget: int, more: frozenset[str]) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_directory(path, entries, budget)
            _check_sums(archive, entries)
            prefix = entries[0].filename.split("/", 1)[0]
            pickled = torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")  # the bytes torch will load
            found = _scanned(path, io.BytesIO(pickled), 1, more)
            records = {e.filename.removeprefix(f"{prefix}/data/"): e.file_size for e in entries}
    except (*_BROKEN, IndexError) as error:  # the last is torch's own, of a number in the archive that is none
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


def _check_legacy(path: Path, budget: int, more: frozenset[str]) -> None:
    size = path.stat().st_size
    with open(path, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = _scanned(path, data, _LEGACY_PICKLES, more)
    distinct = {storage.key: storage.nbytes for storage in found.storages}
    if max((s.nbytes for s in found.storages), default=0) > size or sum(distinct.values()) > size:
        raise DataError(f"{path} declares more data than it has.\n{DAMAGED}")


def _scanned(path: Path, stream: BinaryIO | mmap.mmap, pickles: int, more: frozenset[str]) -> Scan:
    """What the pickles at the stream's place hold; DataError where it is more than tensors and numbers."""
    try:
        parts = [scan(stream) for _ in range(pickles)]
    except Suspicious as error:
        raise _refused(path, str(error)) from error
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise DataError(f"{path} is not whole ({first_line(error)}).\n{DAMAGED}") from error
    whole = Scan(set().union(*(part.names for part in parts)), [s for part in parts for s in part.storages])
    if foreign := whole.foreign(more):
        raise _refused(path, f"'{foreign[0]}'")
    return whole


def _refused(path: Path, what: str) -> DataError:
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


_STAND_INS: list[Any] = [
    (NumpyType, "numpy.dtype"),
    (NumpyArray, "numpy.ndarray"),
    *((numpy_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((numpy_empty, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]

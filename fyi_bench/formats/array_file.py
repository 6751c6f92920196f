"""NumPy files (.npy, .npz), read without pickles and within a size budget that is checked before memory is taken."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fyi_bench.errors import DataError
from fyi_bench.formats.common import DAMAGED, check_size, first_line

_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_DAMAGED = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, OSError, RuntimeError, SyntaxError)


def load_npy(path: Path, budget: int) -> np.ndarray:
    """The array of a .npy file. Raises DataError for a damaged or too large one, or one of Python objects."""
    try:
        with open(path, "rb") as handle:
            return _array(path, handle, path.stat().st_size, budget)
    except _DAMAGED as error:
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
    except _DAMAGED as error:
        raise DataError(f"{path} is not a readable .npz file ({first_line(error)}).\n{DAMAGED}") from error


def _header(handle: BinaryIO, version: tuple[int, int]) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        return _READERS[version](handle)
    except Exception as error:  # NumPy parses it with Python's own tokenizer, whose errors are of many kinds
        raise ValueError("its header is damaged") from error


def _array(path: Path, handle: BinaryIO, available: int, budget: int) -> np.ndarray:
    version = np.lib.format.read_magic(handle)
    if version not in _READERS:
        raise ValueError(f"version {version} of the format is not known")
    shape, fortran, dtype = _header(handle, version)
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

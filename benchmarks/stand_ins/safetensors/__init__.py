"""A stand-in for the library safetensors on a lent machine that has no such package: its layout, and what is used here.

A file is the length of the header (8 bytes, little-endian), the header (JSON: type, shape and place of each tensor),
and the tensors' bytes. `gpu_day.sh` puts this folder on the path where the library cannot be imported; the bytes are
those that the library writes, which a test holds.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import TracebackType
from typing import Any

import torch as pytorch  # `torch` is a module of this package

TYPES = {
    "F64": pytorch.float64,
    "F32": pytorch.float32,
    "F16": pytorch.float16,
    "BF16": pytorch.bfloat16,
    "I64": pytorch.int64,
    "I32": pytorch.int32,
    "I16": pytorch.int16,
    "I8": pytorch.int8,
    "U8": pytorch.uint8,
    "BOOL": pytorch.bool,
}


class SafetensorError(Exception):
    """A file that is not whole, or no such file at all."""


class safe_open:
    """A file opened for reading: its tensors by name, its metadata."""

    def __init__(self, path: str | Path, framework: str = "pt"):
        content = Path(path).read_bytes()
        try:
            start = 8 + int.from_bytes(content[:8], "little")
            header: dict[str, Any] = json.loads(content[8:start].decode())
            self._metadata: dict[str, str] | None = header.pop("__metadata__", None)
            ends = [entry["data_offsets"][1] for entry in header.values()]
            if start + max(ends, default=0) != len(content):
                raise ValueError("it has another length than its header says")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SafetensorError(str(error)) from error
        self._header, self._content, self._start = header, bytearray(content), start

    def __enter__(self) -> safe_open:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._content = bytearray()

    def keys(self) -> list[str]:
        """Names of the tensors."""
        return sorted(self._header)

    def metadata(self) -> dict[str, str] | None:
        """Texts by name, None where there are none."""
        return self._metadata

    def get_tensor(self, name: str) -> pytorch.Tensor:
        """One tensor, in memory of its own."""
        entry = self._header[name]
        kind, shape, (begin, _) = TYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        count = math.prod(shape)
        if not count:
            return pytorch.empty(shape, dtype=kind)
        return (
            pytorch.frombuffer(self._content, dtype=kind, count=count, offset=self._start + begin)
            .reshape(shape)
            .clone()
        )

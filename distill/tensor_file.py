"""Named tensors in the `.safetensors` layout (8-byte header length, JSON header, raw little-endian data).

The layout is written and read here, because distillation must also run where the safetensors package is
not installed, and because the package orders header metadata by hash: the same tensors must give
the same bytes. Only data is read, never code. A sha256 of every tensor is kept in the header, since
neither this layout nor torch's notices a flipped byte.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import torch

from fyi_bench.errors import DataError
from fyi_bench.files import atomic_write

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_BY_NAME = {name: dtype for dtype, name in _DTYPES.items()}
_MAX_HEADER = 100 * 2**20
_METADATA_KEY = "fyi_bench"


def save_tensors(path: str | Path, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> Path:
    """Write tensors and JSON metadata atomically; equal input gives equal bytes.

    Raises StoreError when the file cannot be written, ValueError for an unsupported dtype.
    """
    payloads = {name: _to_bytes(name, tensor) for name, tensor in sorted(tensors.items())}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in payloads.items()}
    text = json.dumps({**metadata, "sha256": digests}, sort_keys=True, allow_nan=False)
    header: dict[str, Any] = {"__metadata__": {_METADATA_KEY: text}}
    offset = 0
    for name, data in payloads.items():
        tensor = tensors[name]
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(data)],
        }
        offset += len(data)
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as handle:
            handle.write(struct.pack("<Q", len(head)))
            handle.write(head)
            for data in payloads.values():
                handle.write(data)

    return atomic_write(path, write)


def load_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read tensors and metadata, checking layout and checksums.

    Raises DataError naming the file, what is wrong with it and what to do. Files of other writers have
    no metadata of ours; theirs is returned as it is.
    """
    path = Path(path)
    header, data_start, size = read_header(path)
    spans = {name: entry for name, entry in header.items() if name != "__metadata__"}
    _check_layout(path, spans, size - data_start)
    metadata = _metadata(path, header.get("__metadata__", {}))
    tensors = {}
    with open(path, "rb") as handle:
        for name, entry in spans.items():
            begin, end = entry["data_offsets"]
            handle.seek(data_start + begin)
            # read in place: a copy of a large set would stay in the heap of a process with a tuned allocator
            data = torch.empty(end - begin, dtype=torch.uint8)
            view = data.numpy().data
            if handle.readinto(view) != end - begin:
                raise DataError(f"{path} ended before '{name}' was read.\nIt is being changed: try again.")
            _check_digest(path, name, view, metadata.get("sha256", {}))
            tensors[name] = data.view(_BY_NAME[entry["dtype"]]).reshape(entry["shape"])
    return tensors, metadata


def _metadata(path: Path, raw: Any) -> dict[str, Any]:
    try:
        found = json.loads(raw[_METADATA_KEY]) if _METADATA_KEY in raw else dict(raw)
        if not isinstance(found, dict) or not isinstance(found.get("sha256", {}), dict):
            raise ValueError("not a table")
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{path} is damaged: its header cannot be read ({error}).\nCopy or make the file again."
        ) from error
    return found


def read_header(path: str | Path) -> tuple[dict[str, Any], int, int]:
    """(header, offset of the data, size of the file) without reading the tensors."""
    path = Path(path)
    try:
        size = path.stat().st_size
        with open(path, "rb") as handle:
            length = struct.unpack("<Q", handle.read(8))[0]
            if length > min(_MAX_HEADER, size - 8):
                raise ValueError("the header is longer than the file")
            header = json.loads(handle.read(length))
        if not isinstance(header, dict):
            raise ValueError("the header is not a table")
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.\nCheck the path; `fyi-bench store ls` lists stored sets.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder, not a .safetensors file.\nName the file inside it.") from None
    except (OSError, ValueError, struct.error) as error:
        raise DataError(
            f"{path} is not a readable .safetensors file ({error}).\n"
            "It is truncated or another format: copy it again, or use `fyi-bench import`."
        ) from error
    return header, 8 + length, size


def _to_bytes(name: str, tensor: torch.Tensor) -> bytes:
    if tensor.dtype not in _DTYPES:
        raise ValueError(f"tensor '{name}' has dtype {tensor.dtype}, which the file cannot hold")
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def _check_layout(path: Path, spans: dict[str, Any], available: int) -> None:
    """Every tensor inside the file, none overlapping, no holes (the safetensors rules)."""
    position = 0
    try:
        for name, entry in sorted(spans.items(), key=lambda item: item[1]["data_offsets"]):
            begin, end = entry["data_offsets"]
            count = 1
            for side in entry["shape"]:
                if not isinstance(side, int) or side < 0:
                    raise ValueError(f"tensor '{name}' has an impossible shape")
                count *= side
            if entry["dtype"] not in _BY_NAME:
                raise ValueError(f"tensor '{name}' has the unknown type {entry['dtype']}")
            if begin != position or end - begin != count * _BY_NAME[entry["dtype"]].itemsize:
                raise ValueError(f"tensor '{name}' does not fit its place")
            position = end
        if position != available:
            raise ValueError(f"{available} of {position} bytes of data are there")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is damaged: {error}.\nIt is truncated or was changed: copy or make it again."
        ) from error


def _check_digest(path: Path, name: str, data: memoryview, digests: dict[str, str]) -> None:
    if name in digests and hashlib.sha256(data).hexdigest() != digests[name]:
        raise DataError(
            f"{path} is damaged: the bytes of '{name}' do not match their checksum.\nCopy or make the file again."
        )

"""Writing by the stand-in, see the package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from safetensors import TYPES  # type: ignore[attr-defined]  # the stand-in's own, where this is imported

_NAMES = {kind: name for name, kind in TYPES.items()}
_ORDER = ("BOOL", "U8", "I8", "I16", "F16", "BF16", "I32", "F32", "F64", "I64")  # as the library sorts types


def save(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The content of a file: tensors by type, the widest first, and by name."""

    def place(name: str) -> tuple[int, str]:
        return -_ORDER.index(_NAMES[tensors[name].dtype]), name

    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    blocks, offset = [], 0
    for name in sorted(tensors, key=place):
        block = tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {
            "dtype": _NAMES[tensors[name].dtype], "shape": list(tensors[name].shape),
            "data_offsets": [offset, offset + len(block)],
        }  # fmt: skip
        offset += len(block)
        blocks.append(block)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *blocks])

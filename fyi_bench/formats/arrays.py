"""Numbers in the containers that files have them in (tensors, arrays, lists) as plain tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fyi_bench.errors import DataError
from fyi_bench.formats.opening import NumpyArray, size_text

_WIDER = {"uint16": np.int64, "uint32": np.int64, "uint64": np.int64}  # types torch computes little with


def dims(value: Any) -> int:
    """Number of dimensions of a tensor or array, -1 for anything else."""
    value = value.value if isinstance(value, NumpyArray) else value
    return value.ndim if isinstance(value, torch.Tensor | np.ndarray) else -1


def is_pair(value: Any) -> bool:
    """Whether it is [images, labels]: a tensor of 4 or 5 dimensions and one of 1 or 2."""
    return isinstance(value, list | tuple) and len(value) == 2 and dims(value[0]) in (4, 5) and dims(value[1]) in (1, 2)


def scalar(value: Any) -> float | None:
    """A number, or that in a tensor or array of one element; else None."""
    if isinstance(value, torch.Tensor):
        return float(value.detach().reshape(-1)[0]) if value.numel() == 1 and not value.is_complex() else None
    if dims(value) >= 0:
        array = np.asarray(value.value if isinstance(value, NumpyArray) else value)
        return float(array.reshape(-1)[0]) if array.size == 1 else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def to_tensor(value: Any, what: str, budget: int) -> torch.Tensor:
    """A plain CPU tensor without gradient, of a tensor, array, or list of numbers or equal tensors; else DataError.

    Checked before memory is taken: a stored tensor may be a tiny one that claims to be expanded to any size.
    """
    if isinstance(value, NumpyArray):
        value = value.value
    if isinstance(value, list | tuple) and value:
        if all(isinstance(v, torch.Tensor) for v in value):
            _check_bytes(sum(v.numel() * v.element_size() for v in value), what, budget)
            if len({v.shape for v in value}) != 1:
                raise DataError(
                    f"The {what} are a list of tensors of different shapes.\nStack them into one tensor first."
                )
            value = torch.stack([v.detach() for v in value])
        elif all(type(v) in (int, float) for v in value):
            value = torch.tensor(value)
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
            raise DataError(f"The {what} are of type {value.dtype}, not numbers.\nSave them as float32 or uint8.")
        wide = _WIDER.get(value.dtype.name, value.dtype)
        value = torch.from_numpy(np.ascontiguousarray(value.astype(wide, copy=False)))
    if not isinstance(value, torch.Tensor):
        raise DataError(f"The {what} are a {type(value).__name__}, not a tensor.\nSave them as one tensor.")
    _check_bytes(value.numel() * value.element_size(), what, budget)
    if value.layout != torch.strided or value.is_quantized or value.is_complex():
        raise DataError(f"The {what} are a {value.layout} tensor of {value.dtype}.\nSave them as a plain float tensor.")
    return value.detach().resolve_conj().resolve_neg().cpu()


def _check_bytes(nbytes: int, what: str, budget: int) -> None:
    if nbytes > budget:
        raise DataError(
            f"The {what} would take {size_text(nbytes)}; at most {size_text(budget)} are read.\n"
            "A condensed set is far smaller: check the file, or raise --max-bytes (max_bytes=) if it is what you want."
        )


def type_name(tensor: torch.Tensor) -> str:
    """The type of a tensor's numbers: 'float32', 'int64' …"""
    return str(tensor.dtype).removeprefix("torch.")

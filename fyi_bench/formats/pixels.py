"""Stored images of any layout and type -> float32 or uint8 [N, ch, H, W], saying what was changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fyi_bench.errors import DataError
from fyi_bench.formats.common import size_text
from fyi_bench.formats.torch_file import NumpyArray

CHANNELS = (1, 3)
_MAX_SIDE = 4096
_BYTE = 255
_OVER = 16  # how far interpolation may leave 0 .. 255
_DARKEST = 8  # normalised or whitened values neither reach it nor have half of it as their mean


@dataclass
class Pixels:
    """images [N, ch, H, W], contiguous. per_class: n of a stored [C, n, ch, H, W]. notes: what was changed."""

    images: torch.Tensor
    per_class: int | None = None
    notes: list[str] = field(default_factory=list)


def to_tensor(value: Any, what: str, budget: int) -> torch.Tensor:
    """A plain CPU tensor without gradient, of a tensor, array, or list of numbers or equal tensors; else DataError.

    Checked before memory is taken: a stored tensor may be a tiny one that claims to be expanded to any size.
    """
    if isinstance(value, NumpyArray):
        value = value.value
    if isinstance(value, list | tuple) and value and all(isinstance(v, torch.Tensor) for v in value):
        _check_elements(sum(v.numel() * v.element_size() for v in value), what, budget)
        if len({v.shape for v in value}) != 1:
            raise DataError(f"The {what} are a list of tensors of different shapes.\nStack them into one tensor first.")
        value = torch.stack([v.detach() for v in value])
    if isinstance(value, list | tuple) and value and all(type(v) in (int, float) for v in value):
        value = torch.tensor(value)
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
            raise DataError(f"The {what} are of type {value.dtype}, not numbers.\nSave them as float32 or uint8.")
        wide = {"uint16": np.int64, "uint32": np.int64, "uint64": np.int64}.get(value.dtype.name, value.dtype)
        value = torch.from_numpy(np.ascontiguousarray(value.astype(wide, copy=False)))
    if not isinstance(value, torch.Tensor):
        raise DataError(f"The {what} are a {type(value).__name__}, not a tensor.\nSave them as one tensor.")
    _check_elements(value.numel() * value.element_size(), what, budget)
    if value.layout != torch.strided or value.is_quantized or value.is_complex():
        raise DataError(f"The {what} are a {value.layout} tensor of {value.dtype}.\nSave them as a plain float tensor.")
    return value.detach().resolve_conj().resolve_neg().cpu()


def prepare(value: Any, budget: int) -> Pixels:
    """Images as stored -> Pixels. Raises DataError for shapes, types and numbers that no image has."""
    images = to_tensor(value, "images", budget)
    found = Pixels(images)
    _arrange(found)
    _retype(found)
    found.images = _alone(found.images.contiguous())
    return found


def _alone(images: torch.Tensor) -> torch.Tensor:
    """A copy where the tensor is a part of a larger stored one, which would stay in memory with it."""
    return images.clone() if images.untyped_storage().nbytes() > images.nbytes else images


def _check_elements(nbytes: int, what: str, budget: int) -> None:
    if nbytes > budget:
        raise DataError(
            f"The {what} would take {size_text(nbytes)}; at most {size_text(budget)} are read.\n"
            "A condensed set is far smaller: check the file, or raise max_bytes if it is what you want."
        )


def _arrange(found: Pixels) -> None:
    """[C, n, …] flattened, [N, H, W] given its channel, [N, H, W, ch] turned; DataError for what is none of these."""
    images = found.images
    if images.ndim == 5:
        found.per_class = images.shape[1]
        found.notes.append(f"images were stored as {_text(images)} (class by class) and are flattened")
        images = images.flatten(0, 1)
    if images.ndim == 3 and min(images.shape[1:]) > 4:
        found.notes.append(f"images were stored without channels as {_text(images)}: taken as grey")
        images = images.unsqueeze(1)
    if images.ndim != 4:
        raise DataError(
            f"The images are a tensor of shape {_text(images)}, not [N, channels, height, width].\n"
            "Name the file of the images, or reshape them."
        )
    if images.shape[0] == 0:
        raise DataError("The set holds no images.\nThe run that made it wrote nothing: make or download it again.")
    if images.shape[1] not in CHANNELS and images.shape[3] in CHANNELS:
        found.notes.append(f"images were stored as {_text(images)}, channels last, and are turned to channels first")
        images = images.permute(0, 3, 1, 2)
    if images.shape[1] not in CHANNELS:
        raise DataError(
            f"The images have {images.shape[1]} channels (shape {_text(images)}); 1 or 3 are known.\n"
            "Keep grey or RGB channels."
        )
    if not 2 <= min(images.shape[2:]) <= max(images.shape[2:]) <= _MAX_SIDE:
        raise DataError(
            f"Images of {images.shape[3]}x{images.shape[2]} pixels are not of a size that is known.\nCheck the shape."
        )
    found.images = images


def _retype(found: Pixels) -> None:
    """float32 or uint8; numbers from 0 to 255 become uint8 or are divided by 255."""
    images = found.images
    if images.dtype == torch.uint8:
        return
    if images.dtype == torch.bool:
        raise DataError("The images are of type bool.\nSave them as float32 or uint8.")
    if not images.is_floating_point():
        low, high = int(images.min()), int(images.max())
        if low < 0 or high > _BYTE:
            raise DataError(f"The images are whole numbers from {low} to {high}, not 0 to 255.\nSave them as float32.")
        found.notes.append(f"images were stored as {_name(images)} and are kept as uint8")
        found.images = images.to(torch.uint8)
        return
    bad = int((~torch.isfinite(images)).flatten(1).any(1).sum())
    if bad:
        raise DataError(
            f"{bad} of {len(images)} images hold NaN or infinite values.\n"
            "The run that made them diverged: use an earlier file of it, or lower its lr_img."
        )
    if images.dtype != torch.float32:
        found.notes.append(f"images were stored as {_name(images)} and are kept as float32")
        images = images.float()
    low, high, mean = float(images.min()), float(images.max()), float(images.mean())
    if low >= -_OVER and _DARKEST < high <= _BYTE + _OVER and mean > _DARKEST / 2:
        found.notes.append(f"values reach from {low:.0f} to {high:.0f}: divided by 255")
        images = images / _BYTE
    found.images = images


def _text(images: torch.Tensor) -> str:
    return str(list(images.shape))


def _name(images: torch.Tensor) -> str:
    return str(images.dtype).removeprefix("torch.")

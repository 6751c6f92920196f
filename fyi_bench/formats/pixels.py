"""Stored images of any layout and type -> float32 or uint8 [N, ch, H, W], saying what was changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from fyi_bench.errors import DataError
from fyi_bench.formats.arrays import to_tensor, type_name

CHANNELS = (1, 3)
_DIGITS_SIDE = 28  # of the grey data sets that people save as RGB
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


def prepare(value: Any, budget: int) -> Pixels:
    """Images as stored -> Pixels. Raises DataError for shapes, types and numbers that no image has."""
    notes: list[str] = []
    stored = to_tensor(value, "images", budget)
    images = _retyped(_arranged(stored, notes), notes).contiguous()
    if images.untyped_storage().nbytes() > images.nbytes:  # a part of a larger tensor, which would stay in memory
        images = images.clone()
    return Pixels(images, stored.shape[1] if stored.ndim == 5 else None, notes)


def as_grey(pixels: Pixels, channels: int | None) -> Pixels:
    """One channel where all three are equal and the data set has one (channels: its number, None where not known)."""
    images = pixels.images
    likely = channels == 1 or (channels is None and images.shape[2] == _DIGITS_SIDE)
    if not likely or images.shape[1] != 3 or not bool((images[:, :1] == images).all()):
        return pixels
    note = "three equal channels: taken as grey"
    return Pixels(images[:, :1].contiguous(), pixels.per_class, [*pixels.notes, note])


def _arranged(images: torch.Tensor, notes: list[str]) -> torch.Tensor:
    """[C, n, …] flattened, [N, H, W] given its channel, [N, H, W, ch] turned; DataError for what is none of these."""
    if images.ndim == 5:
        notes.append(f"images were stored as {list(images.shape)} (class by class) and are flattened")
        images = images.flatten(0, 1)
    if images.ndim == 3 and min(images.shape[1:]) > 4:
        notes.append(f"images were stored without channels as {list(images.shape)}: taken as grey")
        images = images.unsqueeze(1)
    shape = list(images.shape)
    if images.ndim != 4:
        raise DataError(
            f"The images are a tensor of shape {shape}, not [N, channels, height, width].\n"
            "Name the file of the images, or reshape them."
        )
    if shape[0] == 0:
        raise DataError("The set holds no images.\nThe run that made it wrote nothing: make or download it again.")
    if shape[1] not in CHANNELS and shape[3] in CHANNELS:
        notes.append(f"images were stored as {shape}, channels last, and are turned to channels first")
        images = images.permute(0, 3, 1, 2)
    elif shape[1] not in CHANNELS:
        raise DataError(
            f"The images have {shape[1]} channels (shape {shape}); 1 or 3 are known.\nKeep grey or RGB channels."
        )
    height, width = images.shape[2:]
    if not 2 <= min(height, width) <= max(height, width) <= _MAX_SIDE:
        raise DataError(f"Images of {width}x{height} pixels are not of a size that is known.\nCheck the shape.")
    return images


def _retyped(images: torch.Tensor, notes: list[str]) -> torch.Tensor:
    """float32 or uint8; numbers from 0 to 255 become uint8 or are divided by 255."""
    if images.dtype == torch.uint8:
        return images
    if images.dtype == torch.bool:
        raise DataError("The images are of type bool.\nSave them as float32 or uint8.")
    if not images.is_floating_point():
        low, high = int(images.min()), int(images.max())
        if low < 0 or high > _BYTE:
            raise DataError(f"The images are whole numbers from {low} to {high}, not 0 to 255.\nSave them as float32.")
        notes.append(f"images were stored as {type_name(images)} and are kept as uint8")
        return images.to(torch.uint8)
    bad = int((~torch.isfinite(images)).flatten(1).any(1).sum())
    if bad:
        raise DataError(
            f"{bad} of {len(images)} images hold NaN or infinite values.\n"
            "The run that made them diverged: use an earlier file of it, or lower its lr_img."
        )
    if images.dtype != torch.float32:
        notes.append(f"images were stored as {type_name(images)} and are kept as float32")
        images = images.float()
    darkest, brightest, mean = float(images.min()), float(images.max()), float(images.mean())
    if darkest >= -_OVER and _DARKEST < brightest <= _BYTE + _OVER and mean > _DARKEST / 2:
        notes.append(f"values reach from {darkest:.0f} to {brightest:.0f}: divided by 255")
        images = images / _BYTE
    return images

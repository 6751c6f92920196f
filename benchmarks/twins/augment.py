"""The augmentation as published: one operation after the other, on the images of one call, through index tensors."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.augment import Draw
from distill.augment_ops import AugmentStrength, cutout_box


def augment(x: Tensor, draw: Draw, group: int, strength: AugmentStrength) -> Tensor:
    """Images [n, ch, H, W] of one group of a draw, changed; the numbers are shared, or one row an image."""
    for names, values in zip(draw.names, draw.values, strict=True):
        x = _OPERATIONS[names[group]](x, values[group].to(x.device), strength)
    return x


def _color(x: Tensor, values: Tensor, s: AugmentStrength) -> Tensor:
    u = values.to(x.dtype).view(-1, 3, 1, 1, 1).unbind(1)
    x = x + (u[0] - 0.5) * s.brightness
    grey = x.mean(dim=1, keepdim=True)
    x = (x - grey) * (u[1] * s.saturation) + grey
    mean = x.mean(dim=[1, 2, 3], keepdim=True)
    return (x - mean) * (u[2] + s.contrast) + mean


def _crop(x: Tensor, values: Tensor, s: AugmentStrength) -> Tensor:
    height, width = x.shape[2:]
    image, row, column = _positions(len(x), height, width, x.device)
    row = (row + values[:, 0].long().view(-1, 1, 1) + 1).clamp(0, height + 1)
    column = (column + values[:, 1].long().view(-1, 1, 1) + 1).clamp(0, width + 1)
    padded = F.pad(x, [1, 1, 1, 1])
    return padded.permute(0, 2, 3, 1).contiguous()[image, row, column].permute(0, 3, 1, 2).contiguous()


def _cutout(x: Tensor, values: Tensor, s: AugmentStrength) -> Tensor:
    height, width = x.shape[2:]
    tall, wide = cutout_box((height, width), s)
    image, row, column = _positions(len(x), tall, wide, x.device)
    row = (row + values[:, 0].long().view(-1, 1, 1) - tall // 2).clamp(0, height - 1)
    column = (column + values[:, 1].long().view(-1, 1, 1) - wide // 2).clamp(0, width - 1)
    mask = torch.ones(len(x), height, width, dtype=x.dtype, device=x.device)
    mask[image, row, column] = 0
    return x * mask.unsqueeze(1)


def _flip(x: Tensor, values: Tensor, s: AugmentStrength) -> Tensor:
    return torch.where(values[:, 0].view(-1, 1, 1, 1) < s.prob_flip, x.flip(3), x)


def _scale(x: Tensor, values: Tensor, s: AugmentStrength) -> Tensor:
    low = 1 / s.scale
    sx, sy = (values[:, k] * (s.scale - low) + low for k in (0, 1))
    return _warped(x, [[sx, 0 * sx], [0 * sx, sy]])


def _rotate(x: Tensor, values: Tensor, s: AugmentStrength) -> Tensor:
    angle = (values[:, 0] - 0.5) * 2 * s.rotate / 180 * math.pi
    return _warped(x, [[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])


def _warped(x: Tensor, matrix: list[list[Tensor]]) -> Tensor:
    rows = [torch.stack([*row, torch.zeros_like(row[0])], dim=1) for row in matrix]
    theta = torch.stack(rows, dim=1).to(x.dtype).expand(len(x), 2, 3)
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=True), align_corners=True)


def _positions(n: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    image, row, column = (torch.arange(side, device=device) for side in (n, height, width))
    image, row, column = torch.meshgrid(image, row, column, indexing="ij")
    return image, row, column


_OPERATIONS: dict[str, Callable[[Tensor, Tensor, AugmentStrength], Tensor]] = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}

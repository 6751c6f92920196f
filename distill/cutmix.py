"""CutMix (Yun et al., ICCV 2019) as IDC uses it: a box of every image comes from another image of the batch.

Drawing and pasting are separate, so that one call serves many networks and recorded draws can be fed in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# raised whenever the same generator would give other images
NUMERICS = 1

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class CutMixDraw:
    """Draws for groups of n images laid out group after group (one group for each network).

    permutation: int64 [groups·n], where the box of each image comes from (inside its own group).
    boxes: int64 [groups, 4], (top, bottom, left, right), ends excluded; empty where a group is not mixed.
    ratios: float64 [groups], the share of its own label that an image keeps.
    """

    permutation: Tensor
    boxes: Tensor
    ratios: Tensor


def cut_box(size: tuple[int, int], lam: float, centre: tuple[int, int]) -> Box:
    """(top, bottom, left, right) of the box that covers 1 - lam of the image, cut off at the border.

    size: (height, width). centre: (row, column). Sides are rounded down to even numbers of pixels.
    """
    edges = []
    for side, middle in zip(size, centre, strict=True):
        half = int(side * math.sqrt(1 - lam)) // 2
        edges += [min(max(middle - half, 0), side), min(max(middle + half, 0), side)]
    return tuple(edges)  # type: ignore[return-value]


def kept_share(size: tuple[int, int], box: Box) -> float:
    """Share of an image outside the box: the weight of its own label."""
    top, bottom, left, right = box
    return 1 - (bottom - top) * (right - left) / (size[0] * size[1])


def draw_cutmix(
    generator: torch.Generator | Sequence[torch.Generator],
    n: int,
    size: tuple[int, int],
    probability: float,
    beta: float,
) -> CutMixDraw:
    """Draws for one group of n images of (height, width) `size`, or for one group a generator of a sequence.

    A group is mixed with `probability`; the kept share before clipping follows Beta(beta, beta). From each CPU
    generator come four uniform numbers (mix?, share, row, column), then the permutation.
    """
    generators = [generator] if isinstance(generator, torch.Generator) else list(generator)
    draws = [_draw_group(g, n, size, probability, beta) for g in generators]
    offsets = range(0, n * len(draws), n)
    return CutMixDraw(
        torch.cat([permutation + start for (permutation, _), start in zip(draws, offsets, strict=True)]),
        torch.tensor([box for _, box in draws]),
        torch.tensor([kept_share(size, box) for _, box in draws], dtype=torch.float64),
    )


def draw_mixup(generator: torch.Generator, n: int, beta: float) -> tuple[Tensor, Tensor]:
    """MixUp of one batch: int64 [n], the partner of each image, and float64 [1], the share of the image itself.

    The share follows Beta(beta, beta). From the CPU generator come one uniform number, then the permutation.
    """
    (share,) = torch.rand(1, generator=generator, dtype=torch.float64).tolist()
    return torch.randperm(n, generator=generator), torch.tensor([_beta_quantile(share, beta)], dtype=torch.float64)


def _draw_group(
    generator: torch.Generator, n: int, size: tuple[int, int], probability: float, beta: float
) -> tuple[Tensor, Box]:
    mixed, share, row, column = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    permutation = torch.randperm(n, generator=generator)
    if mixed >= probability:
        return torch.arange(n), (0, 0, 0, 0)
    return permutation, cut_box(size, _beta_quantile(share, beta), (int(row * size[0]), int(column * size[1])))


def _beta_quantile(u: float, beta: float) -> float:
    """The u-quantile of Beta(beta, beta): torch draws from this distribution only with its global generator."""
    if beta == 1:
        return u
    from scipy.special import betaincinv

    return float(betaincinv(beta, beta, u))


def paste(x: Tensor, permutation: Tensor, boxes: Tensor | Box) -> Tensor:
    """x [N, ch, H, W] with the box of x[permutation] in each image; x itself is not changed.

    boxes: one box, or int64 [groups, 4] for groups of N / groups images.
    """
    boxes = torch.as_tensor(boxes).reshape(-1, 4)
    per_image = boxes.repeat_interleave(len(x) // len(boxes), dim=0).to(x.device, non_blocking=True)
    top, bottom, left, right = (edge.unsqueeze(1) for edge in per_image.unbind(1))
    rows, columns = (torch.arange(side, device=x.device) for side in x.shape[-2:])
    inside = ((rows >= top) & (rows < bottom)).unsqueeze(2) & ((columns >= left) & (columns < right)).unsqueeze(1)
    return torch.where(inside.unsqueeze(1), x[permutation.to(x.device, non_blocking=True)], x)


def mixed_loss(own: Tensor, pasted: Tensor, ratios: Tensor) -> Tensor:
    """Loss of own labels times the kept share, plus that of the pasted boxes' times the rest; ratios: [1]."""
    return own * ratios[0].to(own.dtype) + pasted * (1 - ratios[0]).to(own.dtype)


def cutmix(
    x: Tensor, y: Tensor, generator: torch.Generator, probability: float, beta: float
) -> tuple[Tensor, Tensor, Tensor, float]:
    """One batch mixed with `probability`: (images, own labels, labels of the pasted boxes, share of the own).

    x: [N, ch, H, W], y: [N] or [N, C]; neither is changed. Unmixed, the images come back as they are, both
    labels are y and the share is 1. The loss to train with is that of the own labels times the share, plus that
    of the pasted ones times one minus the share.
    """
    draw = draw_cutmix(generator, len(x), (x.shape[-2], x.shape[-1]), probability, beta)
    share = float(draw.ratios[0])
    if share == 1:
        return x, y, y, share
    return paste(x, draw.permutation, draw.boxes), y, y[draw.permutation.to(y.device)], share

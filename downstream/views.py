"""What a step shows of its images beside the drawn augmentation: resized crops, shuffled patches, mixes.

Drawing and applying are separate, as everywhere: draws are made on the host from a keyed generator, or come from files
of stored soft labels (FKD), and are tensors by name: `boxes`, `columns`, `rows`, `permutation`, `cut`, `ratios`.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from distill.cutmix import draw_cutmix, draw_mixup, paste
from downstream.protocol import Protocol
from fyi_bench import rng

Views = dict[str, Tensor]
Key = tuple[int, int, int]  # seed, epoch, batch number
_ATTEMPTS = 10  # torchvision's, before it takes the whole image
_RATIOS = (3 / 4, 4 / 3)  # of width to height


def draw_views(protocol: Protocol, key: Key, n: int, size: int) -> Views:
    """Draws for n square images of a step, of what the protocol asks for; mostly nothing."""
    views: Views = {}
    if protocol.resized_crop:
        least, most = protocol.resized_crop
        views["boxes"] = draw_boxes(rng.stream(key[0], "resized crop", *key[1:]), n, size, (least, most))
    if protocol.patches > 1:
        generator = rng.stream(key[0], "patches", *key[1:])
        views["columns"], views["rows"] = (draw_strips(generator, n, size, protocol.patches) for _ in range(2))
    if protocol.cutmix:
        mix = draw_cutmix(rng.stream(key[0], "cutmix", *key[1:]), n, (size, size), protocol.cutmix, 1.0)
        views |= {"permutation": mix.permutation, "cut": mix.boxes, "ratios": mix.ratios}
    elif protocol.mixup:
        permutation, ratio = draw_mixup(rng.stream(key[0], "mixup", *key[1:]), n, protocol.mixup)
        views |= {"permutation": permutation, "ratios": ratio}
    return views


def draw_boxes(generator: torch.Generator, n: int, size: int, share: tuple[float, float]) -> Tensor:
    """int64 [n, 4], (top, left, height, width): torchvision's RandomResizedCrop of square images.

    share: least and most of the area. Ten tries at an area and a ratio of sides, uniform and log-uniform; the whole
    image where none fits. An image takes 22 uniform numbers, whatever comes of them.
    """
    u = torch.rand(n, 2 * _ATTEMPTS + 2, generator=generator, dtype=torch.float64)
    area = size**2 * (share[0] + u[:, :_ATTEMPTS] * (share[1] - share[0]))
    low, high = (math.log(ratio) for ratio in _RATIOS)
    ratio = (low + u[:, _ATTEMPTS:-2] * (high - low)).exp()
    widths, heights = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (widths >= 1) & (widths <= size) & (heights >= 1) & (heights <= size)
    first = fits.int().argmax(1, keepdim=True)
    whole = ~fits.any(1)
    width, height = (torch.where(whole, float(size), sides.gather(1, first)[:, 0]) for sides in (widths, heights))
    top, left = (
        torch.minimum((u[:, column] * (size - side + 1)).floor(), size - side)
        for column, side in ((-2, height), (-1, width))
    )
    return torch.stack((top, left, height, width), 1).long()


def draw_strips(generator: torch.Generator, n: int, size: int, strips: int) -> Tensor:
    """int64 [n, size]: places along a side whose strips are in another order (RDED); the last may be wider."""
    edges = [k * (size // strips) for k in range(strips)] + [size]
    ranges = [torch.arange(a, b) for a, b in itertools.pairwise(edges)]
    orders = torch.rand(n, strips, generator=generator, dtype=torch.float64).argsort(1).tolist()
    return torch.stack([torch.cat([ranges[k] for k in order]) for order in orders])


def cropped(x: Tensor, views: Views) -> Tensor:
    """x [n, ch, H, W] with its strips in the drawn order, then the drawn box enlarged to the whole."""
    if "columns" in views:
        x = x.take_along_dim(views["columns"][:, None, None, :], 3).take_along_dim(views["rows"][:, None, :, None], 2)
    return enlarged(x, views["boxes"]) if "boxes" in views else x


def enlarged(x: Tensor, boxes: Tensor) -> Tensor:
    """The box of each image at the size of the image: bilinear, pixels as areas, edges of the box repeated."""
    top, left, height, width = boxes.to(x.dtype).unbind(1)
    rows, columns = (_weights(*box, side).to(x.dtype) for box, side in zip(
        ((top, height), (left, width)), x.shape[-2:], strict=True))  # fmt: skip
    return rows.unsqueeze(1) @ x @ columns.unsqueeze(1).mT


def _weights(first: Tensor, length: Tensor, side: int) -> Tensor:
    """[n, side, side]: what each place of the result takes from each place of the image."""
    places = torch.arange(side, device=first.device, dtype=first.dtype)
    inside = ((places + 0.5) * length[:, None] / side - 0.5).clamp(min=0)
    at = first[:, None] + torch.minimum(inside, length[:, None] - 1)
    return (1 - (at[:, :, None] - places).abs()).clamp(min=0)


def mixed(x: Tensor, views: Views) -> Tensor:
    """The images with a box of another one each (CutMix), or as a weighted mean with it (MixUp)."""
    if "cut" in views:
        return paste(x, views["permutation"], views["cut"])
    if "ratios" in views:
        share = views["ratios"][0].to(x.dtype)
        return share * x + (1 - share) * x[views["permutation"]]
    return x

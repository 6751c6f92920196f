"""Multi-formation: a stored image holds several smaller ones, which are cut out and enlarged whenever it is used.

Paper: Kim et al., "Dataset Condensation via Efficient Synthetic-Data Parameterization", ICML 2022. A decode type
turns the n images of a class into a plan, a list of (which stored images, factor): those images are cut into
factor x factor tiles, and every tile is enlarged to the full size, bilinearly. `pack` is the way back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.image_set import ImageSet
from fyi_bench.errors import UsageError
from fyi_bench.registry import pick

# raised whenever the same stored images would give other decoded ones
NUMERICS = 1

BOUND = 128  # decoded images a class that the type 'bound' does not exceed (published default)
GREY = 0.5  # pixel value of the border where the factor does not divide the size

Plan = list[tuple[slice, int]]


def all_at_one_factor(n: int, factor: int, bound: int) -> Plan:
    """Every image in factor² tiles."""
    return [(slice(0, n), factor)]


def all_at_every_factor(n: int, factor: int, bound: int) -> Plan:
    """Every image at the factors 1, 2 … factor, one after the other."""
    return [(slice(0, n), k) for k in range(1, factor + 1)]


def as_many_as_fit(n: int, factor: int, bound: int) -> Plan:
    """As many images at the largest factor as leave room for the rest, and so on down to 1; at most `bound` in all."""
    plan, first, made = [], 0, 0
    for k in range(factor, 0, -1):
        left = n - first
        count = left if k == 1 else max(0, min((bound - made - left) // k**2, left))
        if count:
            plan.append((slice(first, first + count), k))
        first, made = first + count, made + count * k**2
    return plan


# decode type -> function(stored images n, factor, bound) giving the plan
DECODE_TYPES: dict[str, Callable[[int, int, int], Plan]] = {
    "single": all_at_one_factor, "multi": all_at_every_factor, "bound": as_many_as_fit,
}  # fmt: skip


def plan_of(n: int, factor: int, decode_type: str, bound: int = BOUND) -> Plan:
    """What becomes of n stored images of a class. Raises UnknownNameError for the type."""
    return pick("decode type", decode_type, DECODE_TYPES)(n, factor, bound)


def decode(images: Tensor, factor: int, decode_type: str = "single", bound: int = BOUND) -> Tensor:
    """Stored pixels [C, n, ch, H, W] -> what networks see, [C, n', ch, H, W]; differentiable.

    Inside a class: the steps of the plan in order; in each, the tiles row by row, every tile for all its images
    before the next tile. Where the factor does not divide the size, grey is added at the bottom and the right.
    Raises UnknownNameError for the type, UsageError for a factor below 1 or larger than the image.
    """
    _check(factor, images.shape[-2], images.shape[-1])
    plan = plan_of(images.shape[1], factor, decode_type, bound)
    return torch.cat([_enlarged_tiles(images[:, which], k) for which, k in plan], dim=1)


def decoded_count(n: int, factor: int, decode_type: str = "single", bound: int = BOUND) -> int:
    """Images that n stored ones of a class decode to."""
    return sum((which.stop - which.start) * k**2 for which, k in plan_of(n, factor, decode_type, bound))


def decoded(image_set: ImageSet) -> ImageSet:
    """The set as networks see it: tiles enlarged, stored rows decoded. A set of plain images comes back as it is.

    Classes follow each other in ascending order; soft labels go with their images.
    """
    if image_set.factor == 1:
        return image_set.decoded()
    pixels, images, source = image_set.pixels(), [], []
    for label in image_set.classes:
        index = image_set.indices_of(label)
        images.append(decode(pixels[index].unsqueeze(0), image_set.factor, image_set.decode_type)[0])
        plan = plan_of(len(index), image_set.factor, image_set.decode_type)
        source.append(torch.cat([index[which].repeat(k**2) for which, k in plan]))
    return replace(
        image_set,
        images=image_set.space.encode(torch.cat(images)),
        labels=image_set.labels[torch.cat(source)],
        factor=1,
        decode_type="single",
    )


def pack(images: Tensor, factor: int) -> Tensor:
    """Full-size images [C, factor²·n, ch, H, W] -> stored ones [C, n, ch, H, W], each made of factor² shrunken ones.

    Tile t (row by row) of image m is the image t·n + m, shrunk by taking the nearest pixel; the first tiles are one
    pixel larger where the factor does not divide the size. IDC's initialisation 'mix'.
    """
    _check(factor, images.shape[-2], images.shape[-1])
    if factor == 1:
        return images
    classes, count, channels = images.shape[:3]
    n, (rows, columns) = count // factor**2, (_sides(side, factor) for side in images.shape[-2:])
    tiles = iter(images.unflatten(1, (factor**2, n)).unbind(1))
    grid = [
        torch.cat([_shrunken(next(tiles).flatten(0, 1), (height, width)) for width in columns], dim=3)
        for height in rows
    ]
    return torch.cat(grid, dim=2).view(classes, n, channels, *images.shape[-2:])


def _shrunken(images: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(images, size=size, mode="nearest")


def _sides(side: int, factor: int) -> list[int]:
    return [side // factor + int(k < side % factor) for k in range(factor)]


def _enlarged_tiles(images: Tensor, factor: int) -> Tensor:
    """[C, n, ch, H, W] -> [C, factor²·n, ch, H, W]."""
    if factor == 1:
        return images
    height, width = images.shape[-2:]
    padded = F.pad(images, (0, -width % factor, 0, -height % factor), value=GREY)
    tall, wide = (side // factor for side in padded.shape[-2:])
    tiles = padded.unflatten(4, (factor, wide)).unflatten(3, (factor, tall))  # [C, n, ch, row, tall, column, wide]
    tiles = tiles.permute(0, 3, 5, 1, 2, 4, 6).flatten(1, 3)
    # products with interpolation matrices: on a GPU torch's own bilinear has no reproducible derivative
    like = images.dtype, images.device
    rows, columns = (interpolation(*sides, *like) for sides in ((tall, height), (wide, width)))
    return rows @ tiles @ columns.T


@functools.lru_cache(maxsize=64)
def interpolation(source: int, target: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[target, source]: linear interpolation of a row of pixels, pixel corners aligned; kept where it is used.

    A recorded step on a GPU may not copy it from the host.
    """
    unit = torch.eye(source, dtype=torch.float64).unsqueeze(0)
    return F.interpolate(unit, size=target, mode="linear", align_corners=False)[0].T.contiguous().to(device, dtype)


def _check(factor: int, height: int, width: int) -> None:
    if not 1 <= factor <= min(height, width):
        raise UsageError(f"Images of {height}x{width} pixels cannot hold {factor} x {factor} smaller ones.")

"""How many smaller images a stored image holds: by what is stated, by names, by the seams between them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

_NAMED = re.compile(r"(?<![a-z])factor[-_=]?(\d)(?!\d)")
_FACTORS = (4, 3, 2)
_STEEP = 1.8  # a step between two tiles against the step between neighbours elsewhere
_SAMPLE = 512
_FEWEST = 4


def tiles_of(images: torch.Tensor, stated: int | None, names: Sequence[str], method: str) -> tuple[int, list[str]]:
    """(tiles a side, what is told of it). stated: by the file itself; names: of the file and its folders."""
    seen = seams(images)
    named = next((int(m[1]) for name in names if (m := _NAMED.search(name.lower()))), None)
    factor = stated if stated is not None else named
    if "rded" in (method, *(word for name in names for word in re.split(r"[\W_]+", name.lower()))):
        return factor or 1, ["RDED's pictures are made of parts and are used as they are"] if seen > 1 else []
    if factor is None and seen > 1:
        return seen, [f"factor {seen}: the images have seams of {seen}x{seen} tiles (else state factor=1)"]
    told = [f"factor {factor}: stands in the name"] if stated is None and named else []
    if factor is not None and seen not in (1, factor):
        told.append(f"factor {factor} it says, but the images have seams of {seen}x{seen} tiles (state factor=…)")
    return factor or 1, told


def seams(images: torch.Tensor) -> int:
    """The number of tiles a side whose borders stand out in the images, 1 for none."""
    if len(images) < _FEWEST or images.shape[-1] != images.shape[-2]:
        return 1
    x = images[:: -(-len(images) // _SAMPLE)].float()
    steps = [(x[..., 1:] - x[..., :-1]).abs().mean((0, 1, 2)), (x[..., 1:, :] - x[..., :-1, :]).abs().mean((0, 1, 3))]
    side = x.shape[-1]
    return next((f for f in _FACTORS if side % f == 0 and side // f > 3 and steepness(steps, side, f) > _STEEP), 1)


def steepness(steps: Sequence[torch.Tensor], side: int, factor: int) -> float:
    """The least step at a border of tiles over the median of all others, in both directions."""
    at = torch.arange(1, factor) * (side // factor) - 1
    found = []
    for each in steps:
        others = torch.ones(len(each), dtype=torch.bool)
        others[at] = False
        found.append(float(each[at].min() / each[others].median().clamp_min(1e-12)))
    return min(found)

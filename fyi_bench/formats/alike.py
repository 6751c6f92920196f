"""Images of a set that are alike: equal, mirror images of each other, or nearly equal."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from distill.image_set import ImageSet
from fyi_bench.data.real import image_digests

NEAR = 0.99  # correlation of two images from which they count as nearly the same
EXAMPLES = 5
_POOLED = 16  # side of the small copies that are compared first
_SLACK = 0.01
_BLOCK = 512
_MOST_IMAGES = 20_000  # beyond it comparing every pair takes minutes
_MOST_PAIRS = 200_000


@dataclass
class _Pairs:
    """Pairs of images that are alike: number, how many join two classes, first examples."""

    pairs: int = 0
    across_classes: int = 0
    examples: list[list[float]] = field(default_factory=list)

    def add(self, i: int, j: int, likeness: float, labels: torch.Tensor) -> None:
        self.pairs += 1
        self.across_classes += int(labels[i] != labels[j])
        if len(self.examples) < EXAMPLES:
            self.examples.append([i, j, round(likeness, 4)])


def find_duplicates(s: ImageSet, near: float = NEAR) -> dict[str, Any] | None:
    """Pairs of equal images, of one and another's mirror image, and of nearly equal ones; None for over 20,000 images.

    Nearly equal: correlation of all values, each channel's and image's mean taken out, of at least `near`; found on
    copies of at most 16 px first. Each kind has `pairs`, `across_classes`, `examples` [i, j, correlation].
    `complete` is False where so many are alike that counting stopped.
    """
    if len(s) > _MOST_IMAGES:
        return None
    labels, places = s.hard_labels, _places(s.images)
    exact, mirrored = _Pairs(), _Pairs()
    for first, *others in places.values():  # so n equal images count as n - 1 pairs
        for other in others:
            exact.add(first, other, 1.0, labels)
    for key, group in _places(s.images.flip(-1)).items():
        for i in group:
            for j in places.get(key, []):
                if i < j:
                    mirrored.add(i, j, 1.0, labels)
    distinct = torch.tensor(sorted(group[0] for group in places.values()))
    close, complete = _near_pairs(s.images[distinct], distinct, labels, near)
    found = {"exact": asdict(exact), "mirrored": asdict(mirrored), "near": asdict(close)}
    return {**found, "threshold": near, "complete": complete}


def _places(images: torch.Tensor) -> dict[bytes, list[int]]:
    """Digest of an image -> where it is."""
    found: dict[bytes, list[int]] = {}
    for i, digest in enumerate(image_digests(images)):
        found.setdefault(digest, []).append(i)
    return found


def _near_pairs(images: torch.Tensor, where: torch.Tensor, labels: torch.Tensor, near: float) -> tuple[_Pairs, bool]:
    side = min(_POOLED, *images.shape[2:])
    small = _unit_rows(torch.nn.functional.adaptive_avg_pool2d(images.float(), side))
    found, looked = _Pairs(), 0
    for start in range(0, len(small), _BLOCK):
        likeness = small[start : start + _BLOCK] @ small[start:].T
        rows, columns = (likeness.triu(1) >= near - _SLACK).nonzero(as_tuple=True)
        looked += len(rows)
        for part in torch.arange(len(rows)).split(_BLOCK):
            a, b = rows[part] + start, columns[part] + start
            exact = (_unit_rows(images[a]) * _unit_rows(images[b])).sum(1)
            for i, j, value in zip(where[a].tolist(), where[b].tolist(), exact.tolist()):
                if value >= near:
                    found.add(i, j, value, labels)
        if looked > _MOST_PAIRS:
            return found, False
    return found, True


def _unit_rows(images: torch.Tensor) -> torch.Tensor:
    """[N, F] of length 1, each image's mean taken out; zeros for an image of one colour."""
    rows = images.float().flatten(1)
    centred = rows - rows.mean(1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    flat = length <= 1e-5 * rows.norm(dim=1, keepdim=True)  # what is left of one colour is rounding
    return torch.where(flat, 0.0, centred / length.clamp_min(1e-30))

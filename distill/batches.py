"""Images of several classes in one batch, class after class, not always equally many of each.

sizes: images of each class, in order; known before a step is recorded. Where they are equal, the plain forms are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

NUMERICS = 2  # of runs whose classes give unlike batches; in version 1 the smallest class's size held for all
Sizes = Sequence[int]


def sizes_of(images: Tensor) -> list[int]:
    """Sizes of images [C, n, …] that all count."""
    return [images.shape[1]] * images.shape[0]


def equal(sizes: Sizes) -> bool:
    """Whether every class has as many."""
    return len(set(sizes)) == 1


def joined(images: Tensor, sizes: Sizes) -> Tensor:
    """[N, …]: the first images of each class of [C, K, …], as many as it has."""
    if equal(sizes):
        return images[:, : sizes[0]].flatten(0, 1)
    return torch.cat([row[:size] for row, size in zip(images, sizes, strict=True)])


def for_each(values: Tensor, sizes: Sizes, dim: int = 0) -> Tensor:
    """What belongs to a class, along `dim`, once for each of its images."""
    if equal(sizes):
        return values.repeat_interleave(sizes[0], dim)
    parts = [part.expand(*part.shape[:dim], size, *part.shape[dim + 1 :])
             for part, size in zip(values.split(1, dim), sizes, strict=True)]  # fmt: skip
    return torch.cat(parts, dim)


def class_means(values: Tensor, sizes: Sizes, dtype: torch.dtype) -> Tensor:
    """[C, …]: mean of each class's rows of [N, …]."""
    if equal(sizes):
        return values.unflatten(0, (len(sizes), -1)).mean(1, dtype=dtype)
    return torch.stack([part.mean(0, dtype=dtype) for part in values.split(list(sizes))])


def runs(groups: Iterable[slice], sizes: Sizes) -> Iterator[tuple[slice, int]]:
    """(classes, their size) in turn: the groups, cut where the next class has another number of images."""
    for group in groups:
        first = None
        for c in range(*group.indices(len(sizes))):
            if first is not None and sizes[c] != sizes[first]:
                yield slice(first, c), sizes[first]
                first = None
            first = c if first is None else first
        if first is not None:
            yield slice(first, min(group.stop, len(sizes))), sizes[first]

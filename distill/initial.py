"""Where synthetic images start."""

from __future__ import annotations

from collections.abc import Callable

import torch

from distill.coresets import kmeans_rows, random_embedding
from distill.decode import pack
from distill.problem import Problem
from fyi_bench.registry import pick


def initial_images(problem: Problem, name: str, factor: int = 1) -> torch.Tensor:
    """Initial synthetic images by name; keyed by the problem's seed, so both arms of a comparison share them."""
    return pick("initialisation", name, INITIALISATIONS)(problem, factor)


def real_images(problem: Problem, factor: int = 1) -> torch.Tensor:
    """ipc random real images of each class, without replacement.

    With a factor, factor² times as many, shrunk and put side by side ('mix' of IDC; its code takes the first images
    of a class, here they are drawn). Where a class has too few, they repeat.
    """
    count = problem.ipc * factor**2
    rows = problem.draw_rows(count, "init")
    sizes = torch.tensor(problem.batch_sizes(count)).unsqueeze(1)
    return packed(problem, rows.gather(1, torch.arange(count) % sizes), factor)


def noise(problem: Problem, factor: int = 1) -> torch.Tensor:
    """Standard normal noise in the working space (the DC family); in pixel space 1/2 + noise / 4, clipped (IDC)."""
    shape = (problem.num_classes * problem.ipc, *problem.shape)
    images = torch.randn(shape, generator=problem.stream("init"), dtype=torch.float64)
    if problem.space.kind == "pixel":
        images = (images / 4 + 0.5).clamp_(0, 1)
    return images.to(problem.dtype).to(problem.device)


def representatives(problem: Problem, factor: int = 1) -> torch.Tensor:
    """The real images nearest to the centres of ipc (times factor²) clusters of each class (after DREAM, ICCV 2023).

    DREAM clusters in the embedding of the network it matches; here it is that of a fresh, untrained ConvNet.
    """
    rows = kmeans_rows(problem, random_embedding(problem), problem.ipc * factor**2)
    return packed(problem, rows, factor)


def packed(problem: Problem, rows: torch.Tensor, factor: int) -> torch.Tensor:
    """Real images of these rows [C, factor²·n], `factor`² of them in each stored image, as one batch [C·n, …]."""
    return pack(problem.images_at(rows), factor).flatten(0, 1).clone()


# name -> function(problem, factor) giving float images [C·ipc, ch, H, W], class-major, in the problem's space;
# factor: tiles a side that a stored image holds (IDC), 1 for a plain one
INITIALISATIONS: dict[str, Callable[[Problem, int], torch.Tensor]] = {
    "real": real_images, "mix": real_images, "noise": noise, "kmeans": representatives,
}  # fmt: skip

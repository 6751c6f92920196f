"""Where synthetic images start, and the coresets that are nothing but a choice of real images."""

from __future__ import annotations

from collections.abc import Callable

import torch

from distill.problem import Problem
from fyi_bench.registry import Registry

# name -> function(problem) giving float images [C·ipc, ch, H, W], class-major, in the problem's space
INITIALISATIONS: Registry[Callable[[Problem], torch.Tensor]] = Registry("initialisation")


def initial_images(problem: Problem, name: str) -> torch.Tensor:
    """Initial synthetic images by name; keyed by the problem's seed, so both arms of a comparison share them."""
    return INITIALISATIONS.get(name)(problem)


@INITIALISATIONS.register("real")
def real_images(problem: Problem) -> torch.Tensor:
    """ipc random real images of each class, without replacement."""
    return problem.real_batch(problem.ipc, "init").flatten(0, 1).clone()


@INITIALISATIONS.register("noise")
def noise(problem: Problem) -> torch.Tensor:
    """Standard normal noise in the working space (the DC family's 'noise')."""
    shape = (problem.num_classes * problem.ipc, *problem.shape)
    images = torch.randn(shape, generator=problem.stream("init"), dtype=torch.float64)
    return images.to(problem.dtype).to(problem.device)

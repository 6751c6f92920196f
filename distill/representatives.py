"""Real images that stand for their class: those nearest to the centres of clusters of features, as DREAM chooses them.

Paper: Liu et al., "DREAM: Efficient Dataset Distillation by Representative Matching", ICCV 2023. Clusters are those of
the library its code uses: centres start at features drawn with replacement, and a centre that loses all features
becomes the zero vector. (`coresets.k_means` has other rules: it chooses a coreset once, without repeats.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ROUNDS, MOVEMENT = 100, 1e-4  # Lloyd's rounds at most; summed squared movement of the centres that ends them


def clusters(features: Tensor, centres: Tensor) -> Tensor:
    """Centres [k, F] of features [n, F] after Lloyd's rounds from these centres.

    A GPU would have to be waited for to end early: there, centres that have come to rest stay where they are.
    """
    on_cpu, resting = features.device.type == "cpu", torch.zeros((), dtype=torch.bool, device=features.device)
    numbers = torch.arange(len(centres), device=features.device)
    # of equal starts the first has all features: rounding, which differs between devices, must not share them out
    same = (centres.unsqueeze(1) == centres).all(2).tril(-1).any(1)
    for number in range(ROUNDS):
        away = distances(features, centres)
        owner = (away.masked_fill(same, torch.inf) if number == 0 else away).argmin(1, keepdim=True)
        member = (owner == numbers).to(features.dtype)  # a product: sums by index are not reproducible
        moved = (member.T @ features) / member.sum(0).clamp(min=1).unsqueeze(1)
        movement, centres = (moved - centres).square().sum(), torch.where(resting, centres, moved)
        resting = resting | (movement <= MOVEMENT)
        if on_cpu and resting:
            break
    return centres


def distances(features: Tensor, centres: Tensor) -> Tensor:
    """Squared distances [n, k]."""
    products = features @ centres.T
    return features.square().sum(1, keepdim=True) + centres.square().sum(1) - 2 * products


def nearest_to_each(features: Tensor, centres: Tensor, count: int) -> Tensor:
    """int64 [count]: the same number of features for each centre, the nearest first; one may be chosen twice."""
    each = count // len(centres)
    return distances(features, centres).topk(each, dim=0, largest=False).indices.T.flatten()


def nearest_to_any(features: Tensor, centres: Tensor, count: int) -> Tensor:
    """int64 [count]: the features that are nearest to whichever centre they are nearest to."""
    return distances(features, centres).amin(1).topk(count, largest=False).indices


# name -> function(features [n, F], centres [k, F], count) giving int64 [count]
CHOICES: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {"each": nearest_to_each, "any": nearest_to_any}

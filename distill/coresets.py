"""Choosing real images: herding, k-center and k-means as pure functions of features, and where features come from.

Everything is deterministic: features in float64, ties go to the image that stands first in the data, and what has
to be drawn (the first centres of k-means, networks, training batches) is keyed by the problem's seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import search_space
from distill.optimisers import SGD
from distill.problem import Problem
from search_space.network import embed

LLOYD_STEPS = 100
_BATCH = 256  # images a forward pass

# images [N, ch, H, W] in the problem's space -> features [N, F]
Embedding = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FeatureTraining:
    """How the network behind the features is made: SGD on the real images, cross-entropy, no augmentation."""

    model: str
    steps: int
    batch: int
    lr: float
    momentum: float
    weight_decay: float


def pixel_embedding(problem: Problem, training: FeatureTraining) -> Embedding:
    """The pixels themselves, in the problem's space."""
    return lambda images: images.flatten(1)


def untrained_embedding(problem: Problem, training: FeatureTraining) -> Embedding:
    """A fresh network, not trained."""
    return random_embedding(problem, training.model)


def trained_embedding(problem: Problem, training: FeatureTraining) -> Embedding:
    """A network trained on the real images of the problem's classes (DC, ICLR 2021, Sec. 4.1, for its coresets)."""
    network = _fresh(problem, training.model).train()
    optimiser = SGD(
        network.parameters(), lr=training.lr, momentum=training.momentum, weight_decay=training.weight_decay
    )
    done, epoch = 0, 0
    while done < training.steps:
        for rows, labels in problem.shuffled(training.batch, "coreset training", epoch):
            optimiser.zero_grad(set_to_none=True)
            F.cross_entropy(network(problem.images_at(rows)), labels).backward()
            optimiser.step()
            done += 1
            if done == training.steps:
                break
        epoch += 1
    return partial(embed, network.eval())


# name -> function(problem, training) giving the embedding
FEATURES: dict[str, Callable[[Problem, FeatureTraining], Embedding]] = {
    "pixels": pixel_embedding, "random": untrained_embedding, "trained": trained_embedding,
}  # fmt: skip


def random_embedding(problem: Problem, model: str = "convnet") -> Embedding:
    """Features of a fresh network of `model` for the problem's images; batch norms keep their first statistics."""
    return partial(embed, _fresh(problem, model).eval())


def _fresh(problem: Problem, model: str) -> nn.Module:
    channels, size, _ = problem.shape
    network = search_space.build(model, channels, size, problem.num_classes, problem.stream("coreset network"))
    return network.to(device=problem.device, dtype=problem.dtype)


def chosen_rows(problem: Problem, embedding: Embedding, choose: Callable[[Tensor, int], Tensor], count: int) -> Tensor:
    """int64 [C, count]: rows of the real images that choose(features [n, F] float64, k) picks in each class.

    Where a class has fewer than `count` images, its choice repeats from the start.
    """
    picked = []
    for rows in problem.rows:
        k = min(count, len(rows))
        index = choose(_features(problem, embedding, rows), k).cpu()
        picked.append(rows[index[torch.arange(count) % k]])
    return torch.stack(picked)


def kmeans_rows(problem: Problem, embedding: Embedding, count: int) -> Tensor:
    """int64 [C, count]: the real images nearest to the centres of each class."""
    streams = iter([problem.stream("k-means", c) for c in range(problem.num_classes)])
    return chosen_rows(problem, embedding, lambda features, k: k_means(features, k, next(streams)), count)


@torch.no_grad()
def _features(problem: Problem, embedding: Embedding, rows: Tensor) -> Tensor:
    parts = [embedding(problem.images_at(part)).flatten(1) for part in rows.split(_BATCH)]
    return torch.cat(parts).double()


def herding(features: Tensor, count: int) -> Tensor:
    """int64 [count]: greedily the image that brings the mean of the chosen nearest to the mean of all.

    features: float64 [n, F] of one class. Welling, ICML 2009; Rebuffi et al., CVPR 2017 (Algorithm 4), here without
    scaling features to length 1.
    """
    mean, total = features.mean(0), torch.zeros_like(features[0])
    squares, free = features.square().sum(1), _all_free(features)
    chosen = []
    for k in range(1, count + 1):
        # |k·mean - total - f|² without what is the same for all f
        distance = squares - 2 * (features @ (k * mean - total))
        best = _first_smallest(distance, free)
        chosen.append(best)
        total = total + features[best]
        free[best] = False
    return torch.stack(chosen)


def k_center(features: Tensor, count: int) -> Tensor:
    """int64 [count]: the image nearest to the mean, then always the one farthest from all that are chosen.

    features: float64 [n, F] of one class. Greedy k-center, Sener and Savarese, ICLR 2018; the start at the mean is
    inferred (the literature on condensation does not state one).
    """
    free = _all_free(features)
    chosen = [_first_smallest(_squared_distance(features, features.mean(0)), free)]
    nearest = torch.full_like(features[:, 0], torch.inf)
    while len(chosen) < count:
        free[chosen[-1]] = False
        nearest = torch.minimum(nearest, _squared_distance(features, features[chosen[-1]]))
        chosen.append(_first_smallest(-nearest, free))
    return torch.stack(chosen)


def k_means(features: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """int64 [count]: the image nearest to each of `count` centres; one that is taken already gives way to the next.

    features: float64 [n, F] of one class; generator: a CPU one, for the first centres (k-means++).
    """
    centres = lloyd(features, _first_centres(features, count, generator))
    free, chosen = _all_free(features), []
    for centre in centres:
        chosen.append(_first_smallest(_squared_distance(features, centre), free))
        free[chosen[-1]] = False
    return torch.stack(chosen)


def lloyd(features: Tensor, centres: Tensor, steps: int = LLOYD_STEPS) -> Tensor:
    """Centres [k, F] after Lloyd's iterations, until no feature changes its centre or `steps` are done.

    A centre that loses all its features moves to the feature that is farthest from its own centre.
    """
    owner = torch.full((len(features),), -1, device=features.device)
    for _ in range(steps):
        distance = centres.square().sum(1) - 2 * (features @ centres.T)
        previous, owner = owner, distance.argmin(1)
        owner = _fill_empty(features, centres, owner)
        if torch.equal(owner, previous):
            break
        member = F.one_hot(owner, len(centres)).to(features.dtype)
        centres = (member.T @ features) / member.sum(0).unsqueeze(1)
    return centres


def _fill_empty(features: Tensor, centres: Tensor, owner: Tensor) -> Tensor:
    counts = torch.bincount(owner, minlength=len(centres))
    for empty in (counts == 0).nonzero().flatten().tolist():
        own = (features - centres[owner]).square().sum(1).masked_fill(counts[owner] < 2, -1)
        far = own.argmax()
        counts[owner[far]] -= 1
        owner[far], counts[empty] = empty, 1
    return owner


def _first_centres(features: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """k-means++: each next centre is a feature drawn with probability proportional to its squared distance."""
    u = torch.rand(count, generator=generator, dtype=torch.float64).tolist()
    chosen = [int(u[0] * len(features))]
    nearest = torch.full_like(features[:, 0], torch.inf)
    for k in range(1, count):
        nearest = torch.minimum(nearest, _squared_distance(features, features[chosen[-1]]))
        mass = nearest.cumsum(0)
        place = torch.searchsorted(mass, mass[-1:] * u[k], right=True)
        chosen.append(min(int(place), len(features) - 1))
    return features[chosen]


def _squared_distance(features: Tensor, point: Tensor) -> Tensor:
    return (features - point).square().sum(1)


def _all_free(features: Tensor) -> Tensor:
    return torch.ones(len(features), dtype=torch.bool, device=features.device)


def _first_smallest(values: Tensor, free: Tensor) -> Tensor:
    """Index (scalar tensor) of the smallest value among the free; the first of equals."""
    return values.masked_fill(~free, torch.inf).argmin()

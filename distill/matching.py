"""Distances between what a network sees in real and in synthetic images: pure functions, one row a class.

Gradients come as lists with one tensor a parameter; the leading dimension of the class forms is the class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from fyi_bench.registry import Registry

Gradients = Sequence[torch.Tensor]

# metric name -> function(synthetic, real) of class gradients [C, *parameter shape] giving distances [C]
GRADIENT_METRICS: Registry[Callable[[Gradients, Gradients], torch.Tensor]] = Registry("gradient metric")

# metrics that look at matrices only, so that gradients of biases and affine norms need not be computed
MATRIX_METRICS = frozenset({"ours"})


@GRADIENT_METRICS.register("ours")
def layerwise_cosine(synthetic: Gradients, real: Gradients) -> torch.Tensor:
    """Sum over layers and output nodes of 1 - cosine (Zhao et al., Dataset Condensation, ICLR 2021, eq. 9).

    A node is a row of the weight flattened to two dimensions; vectors (biases, affine norms) count 0. The
    1e-6 is added to the product of the norms, as in the published code. Returns distances [C].
    """
    total = torch.zeros(synthetic[0].shape[0], dtype=synthetic[0].dtype, device=synthetic[0].device)
    for s, r in zip(synthetic, real, strict=True):
        if s.ndim < 3:
            continue
        s, r = s.flatten(2), r.flatten(2)
        cosine = (s * r).sum(2) / (s.norm(dim=2) * r.norm(dim=2) + 1e-6)
        total = total + (1 - cosine).sum(1)
    return total


@GRADIENT_METRICS.register("mse")
def squared_error(synthetic: Gradients, real: Gradients) -> torch.Tensor:
    """Sum of squared differences over all parameters. Returns distances [C]."""
    return sum(((s - r) ** 2).flatten(1).sum(1) for s, r in zip(synthetic, real, strict=True))


@GRADIENT_METRICS.register("cos")
def global_cosine(synthetic: Gradients, real: Gradients) -> torch.Tensor:
    """1 - cosine of the gradients of all parameters as one vector. Returns distances [C]."""
    s = torch.cat([g.flatten(1) for g in synthetic], dim=1)
    r = torch.cat([g.flatten(1) for g in real], dim=1)
    return 1 - (s * r).sum(1) / (s.norm(dim=1) * r.norm(dim=1) + 1e-6)


def gradient_distance(synthetic: Gradients, real: Gradients, metric: str = "ours") -> torch.Tensor:
    """Distance (scalar) between two gradient lists of one class, tensors shaped like the parameters."""
    return GRADIENT_METRICS.get(metric)([g.unsqueeze(0) for g in synthetic], [g.unsqueeze(0) for g in real])[0]


def distribution_distance(mean_synthetic: torch.Tensor, mean_real: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distance of mean features, [C, F] x [C, F] -> [C] (FYI eq. 3; DM, WACV 2023, eq. 5)."""
    return ((mean_real - mean_synthetic) ** 2).flatten(1).sum(1)

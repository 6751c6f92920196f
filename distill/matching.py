"""Distances between what a network sees in real and in synthetic images: pure functions, one row a class.

Gradients come as lists with one tensor a parameter; the leading dimension of the class forms is the class.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from fyi_bench.registry import pick

Gradients = Sequence[torch.Tensor]

NORMS_EPS = 1e-6  # added to the product of two norms, as in the published code


class _RowCosines(torch.autograd.Function):
    """Cosines [C, rows] of the rows of two tensors [C, rows, K], with the first derivative in closed form.

    With q = |s| |r| + eps and c = s·r / q the derivative by s is r / q - s c |r| / (q |s|): two passes, where what
    autograd does for the product and the norm is five. The norm of a row of zeros counts as constant, as it does in
    autograd, which is also who makes the derivative where that is to be differentiated again.
    """

    @staticmethod
    def forward(ctx: Any, synthetic: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        lengths = synthetic.norm(dim=2), real.norm(dim=2)
        scale = lengths[0] * lengths[1] + NORMS_EPS
        cosines = _products(synthetic, real) / scale
        ctx.save_for_backward(synthetic, real, *lengths, scale, cosines)
        return cosines

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        synthetic, real, a, b, scale, cosines = ctx.saved_tensors
        if torch.is_grad_enabled():  # asked for with create_graph
            return _derivatives_with_graph(synthetic, real, grad, ctx.needs_input_grad)
        across = grad / scale
        along = -across * cosines
        sides = ((synthetic, real, a, b), (real, synthetic, b, a))
        wanted = zip(ctx.needs_input_grad, sides, strict=True)
        return tuple(_cosine_derivative(*side, across, along) if needed else None for needed, side in wanted)


def _sum(terms: Iterable[torch.Tensor]) -> torch.Tensor:
    return functools.reduce(torch.add, terms)


def _products(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x * y).sum(2)


def _derivatives_with_graph(
    synthetic: torch.Tensor, real: torch.Tensor, grad: torch.Tensor, wanted: Sequence[bool]
) -> tuple[torch.Tensor | None, ...]:
    cosines = _products(synthetic, real) / (synthetic.norm(dim=2) * real.norm(dim=2) + NORMS_EPS)
    leaves = [x for x, needed in zip((synthetic, real), wanted, strict=True) if needed]
    found = iter(torch.autograd.grad(cosines, leaves, grad, create_graph=True))
    return tuple(next(found) if needed else None for needed in wanted)


def _cosine_derivative(
    x: torch.Tensor, other: torch.Tensor, length: torch.Tensor, other_length: torch.Tensor, across: torch.Tensor,
    along: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    by_length = torch.where(length > 0, along * other_length / length, 0)
    return (other * across.unsqueeze(2)).addcmul_(x, by_length.unsqueeze(2))


# metrics that look at matrices only, so that gradients of biases and affine norms need not be computed
MATRIX_METRICS = frozenset({"ours"})


def layerwise_cosine(synthetic: Gradients, real: Gradients) -> torch.Tensor:
    """Sum over layers and output nodes of 1 - cosine (Zhao et al., Dataset Condensation, ICLR 2021, eq. 9).

    A node is a row of the weight flattened to two dimensions; vectors (biases, affine norms) count 0.
    Returns distances [C].
    """
    total = torch.zeros(synthetic[0].shape[0], dtype=synthetic[0].dtype, device=synthetic[0].device)
    for s, r in zip(synthetic, real, strict=True):
        if s.ndim < 3:
            continue
        total = total + (1 - _RowCosines.apply(s.flatten(2), r.flatten(2))).sum(1)
    return total


def squared_error(synthetic: Gradients, real: Gradients) -> torch.Tensor:
    """Sum of squared differences over all parameters. Returns distances [C]."""
    return _sum(((s - r) ** 2).flatten(1).sum(1) for s, r in zip(synthetic, real, strict=True))


def global_cosine(synthetic: Gradients, real: Gradients) -> torch.Tensor:
    """1 - cosine of the gradients of all parameters as one vector. Returns distances [C]."""
    s = torch.cat([g.flatten(1) for g in synthetic], dim=1)
    r = torch.cat([g.flatten(1) for g in real], dim=1)
    return 1 - (s * r).sum(1) / (s.norm(dim=1) * r.norm(dim=1) + NORMS_EPS)


# metric -> function(synthetic, real) of class gradients [C, *parameter shape] giving distances [C]
GRADIENT_METRICS: dict[str, Callable[[Gradients, Gradients], torch.Tensor]] = {
    "ours": layerwise_cosine, "mse": squared_error, "cos": global_cosine,
}  # fmt: skip


def gradient_distance(synthetic: Gradients, real: Gradients, metric: str = "ours") -> torch.Tensor:
    """Distance (scalar) between two gradient lists of one class, tensors shaped like the parameters."""
    measure = pick("gradient metric", metric, GRADIENT_METRICS)
    return measure([g.unsqueeze(0) for g in synthetic], [g.unsqueeze(0) for g in real])[0]


def distribution_distance(mean_synthetic: torch.Tensor, mean_real: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distance of mean features, [C, F] x [C, F] -> [C] (FYI eq. 3; DM, WACV 2023, eq. 5)."""
    return ((mean_real - mean_synthetic) ** 2).flatten(1).sum(1)


def class_mean_distance(synthetic: Sequence[torch.Tensor], real: Sequence[torch.Tensor]) -> torch.Tensor:
    """Squared distance of class means, one number a layer: lists of means [C, …] -> [layers], summed over classes.

    CAFE's feature alignment (Wang et al., CVPR 2022), and DataDAM's distance of attention maps (ICCV 2023).
    """
    return torch.stack([distribution_distance(s, r).sum() for s, r in zip(synthetic, real, strict=True)])


def discrimination_loss(features: torch.Tensor, labels: torch.Tensor, mean_synthetic: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy of real features [N, F] classified by their products with synthetic class means [C, F].

    CAFE's discrimination loss: the means of the synthetic features serve as the classifier of the real ones.
    """
    return F.cross_entropy(features @ mean_synthetic.T, labels, reduction="sum")


def spatial_attention(maps: torch.Tensor, power: float) -> torch.Tensor:
    """Attention maps [N, h·w] of activations [N, ch, h, w]: sum over channels of |a|^power, each of length 1.

    DataDAM (Sajedi et al., ICCV 2023), Sec. 3.2.
    """
    return F.normalize(maps.abs().pow(power).sum(1).flatten(1), dim=1)


def tensor_squared_error(synthetic: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Sum of squared differences (no mean is taken, whatever the name says)."""
    return (synthetic - real).square().flatten(1).sum(1)


def tensor_absolute_error(synthetic: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Sum of absolute differences."""
    return (synthetic - real).abs().flatten(1).sum(1)


def tensor_row_mean_error(synthetic: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of each row (first dimension of the tensor), summed over rows."""
    return (synthetic - real).abs().unsqueeze(-1).flatten(2).mean(2).sum(1)


def tensor_row_cosine(synthetic: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """1 - cosine of each row (first dimension of the tensor), summed over rows."""
    s, r = (t.unsqueeze(-1).flatten(2) for t in (synthetic, real))
    return (1 - _RowCosines.apply(s, r)).sum(1)


# metric -> function(synthetic, real) of one tensor a class [C, …] giving distances [C]: IDC sums them over a chosen
# part of the gradients, or over features
TENSOR_METRICS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mse": tensor_squared_error, "l1": tensor_absolute_error, "l1_mean": tensor_row_mean_error,
    "cos": tensor_row_cosine,
}  # fmt: skip


def tensors_distance(
    synthetic: Sequence[torch.Tensor], real: Sequence[torch.Tensor], metric: str, skip: frozenset[int] = frozenset()
) -> torch.Tensor:
    """IDC's distance [C]: the metric summed over tensors [C, …]; `skip` leaves out those with so many dimensions.

    IDC skips the gradients of vectors (1) and of the classifier (2) and so matches those of convolutions.
    """
    measure = pick("IDC metric", metric, TENSOR_METRICS)
    pairs = zip(synthetic, real, strict=True)
    return _sum(measure(s, r) for s, r in pairs if s.ndim - 1 not in skip)


# exp(-d² / (bandwidth · m)) for each multiplier m; the squared distances d² times these for "laplace", which is no
# Laplace kernel and whose published constants are float32
GAUSSIAN_MULTIPLIERS, LAPLACE_GAMMAS = (0.25, 0.5, 1.0, 2.0, 4.0), (0.10000000149011612, 1.0, 5.0)


def gaussian_kernel(joint: torch.Tensor) -> torch.Tensor:
    """Sum of five Gaussians; their bandwidth is the mean squared distance of two features, and counts as constant."""
    squares, count = squared_distances(joint), joint.shape[1]
    bandwidth = (squares.detach().sum((1, 2), keepdim=True) / (count**2 - count)).clamp(min=1e-30)
    return _sum(torch.exp(-squares / (bandwidth * m)) for m in GAUSSIAN_MULTIPLIERS)


def linear_kernel(joint: torch.Tensor) -> torch.Tensor:
    """Products of features; the discrepancy is then the squared distance of means, DM's."""
    return joint @ joint.transpose(1, 2)


def polynomial_kernel(joint: torch.Tensor) -> torch.Tensor:
    """Squares of the products plus one."""
    return (linear_kernel(joint) + 1).square()


def laplace_kernel(joint: torch.Tensor) -> torch.Tensor:
    """Sum of three fixed Gaussians, of the published name. For wide networks it is the identity and has no gradient."""
    squares = squared_distances(joint)
    return _sum(torch.exp(-squares * gamma) for gamma in LAPLACE_GAMMAS)


# name -> function of features [C, N, F] giving the kernel of all pairs [C, N, N]
KERNELS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gaussian": gaussian_kernel, "linear": linear_kernel, "polynomial": polynomial_kernel, "laplace": laplace_kernel,
}  # fmt: skip


def mean_discrepancy(synthetic: torch.Tensor, real: torch.Tensor, kernel: str) -> torch.Tensor:
    """Squared maximum mean discrepancy of features [C, n, F] and [C, m, F] -> [C] (M3D, AAAI 2024).

    The biased estimate: means over all pairs, a feature with itself too.
    """
    n = synthetic.shape[1]
    values = pick("kernel", kernel, KERNELS)(torch.cat([synthetic, real], dim=1))
    inside, across, outside = values[:, :n, :n], values[:, :n, n:], values[:, n:, n:]
    return inside.mean((1, 2)) - 2 * across.mean((1, 2)) + outside.mean((1, 2))


def squared_distances(features: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distances [C, N, N] of features [C, N, F], as products; exactly 0 on the diagonal.

    Features are moved to their mean first: distances stay, and float32 loses less.
    """
    moved = features - features.detach().mean(1, keepdim=True)
    lengths = moved.square().sum(2)
    squares = (lengths.unsqueeze(2) + lengths.unsqueeze(1) - 2 * linear_kernel(moved)).clamp(min=0)
    diagonal = torch.eye(features.shape[1], dtype=torch.bool, device=features.device)
    return squares.masked_fill(diagonal, 0)

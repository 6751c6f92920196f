"""Kernels of infinitely wide networks (NNGP and neural tangent kernel), exactly, and regression with a kernel.

Networks have ReLUs, weights of variance `W_STD`² over the fan-in and biases of variance `B_STD`². A layer takes the
covariance k of its inputs to that of its outputs, and the tangent kernel t with it (Jacot et al., NeurIPS 2018):

dense, convolution   k <- W² mean(k) + b², t <- k + W² mean(t); the mean is over the positions a filter sees
ReLU                 with cos a = k12 / √(k11 k22): k12 <- √(k11 k22) (sin a + (π - a) cos a) / 2π, t <- t (π - a) / 2π

An image with itself has a = 0, where the arc cosine has no derivative: these entries are treated apart, and exactly.
All of it is computed in float64: in float32 gradients are wrong in the third digit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from fyi_bench.errors import UnknownNameError, UsageError

# raised whenever the same images would have another kernel
NUMERICS = 1

W_STD, B_STD = math.sqrt(2), 0.1
MOST_NUMBERS = 2**28  # of a layer of a convolutional kernel: pairs of images times pairs of positions (2 GB)
_NEAREST = 1 - 1e-13  # greatest cosine of two different images

_NAME = re.compile(r"(fc|convnet)([1-9])(-plain)?")


@dataclass(frozen=True)
class Covariance:
    """k, t: of all pairs [n, m, …]; own: of each image with itself, [n, …] and [m, …]; same: both sides are the same.

    The further dimensions are pairs of positions [P, P], positions row by row; none after a flattening.
    """

    k: Tensor
    t: Tensor
    own: tuple[Tensor, Tensor]
    same: bool

    def each(self, change: Callable[[Tensor], Tensor]) -> Covariance:
        """Covariances after one linear change, made to all of them alike."""
        return replace(self, k=change(self.k), t=change(self.t), own=(change(self.own[0]), change(self.own[1])))


def kernel(name: str, x: Tensor, y: Tensor | None = None, tangent: bool = True) -> Tensor:
    """Kernel [n, m] of images x [n, ch, H, W] and y (default: x itself), in float64; differentiable in both.

    name: fc<d>, d hidden layers; convnet<d>, a convolution and d blocks of convolution and average pooling;
    convnet<d>-plain, without the first convolution. tangent: the neural tangent kernel, else the NNGP's.
    Raises UsageError for a convolutional kernel that would not fit into memory.
    """
    found = _NAME.fullmatch(name)
    if not found or (found[1] == "fc" and found[3]):
        raise UnknownNameError("kernel", name, ["fc1", "fc2", "fc3", "convnet1", "convnet2", "convnet3"])
    depth, same = int(found[2]), y is None
    x = x.double()
    y = x if y is None else y.double()
    if found[1] == "fc":
        state = _start(x.flatten(1).unsqueeze(2), y.flatten(1).unsqueeze(2), same).each(lambda k: k[..., 0, 0])
        for _ in range(depth):
            state = _relu(_dense(state))
    else:
        _check_size(name, len(x) * len(y), x.shape[-2] * x.shape[-1])
        state = _convolutional(_start(x.flatten(2), y.flatten(2), same), x.shape[-1], depth, prepend=not found[3])
    state = _dense(state)
    return state.t if tangent else state.k


def centred(labels: Tensor, classes: int) -> Tensor:
    """float64 [N, C]: one-hot minus 1 / C."""
    return (labels.unsqueeze(1) == torch.arange(classes, device=labels.device)).double() - 1 / classes


def ridge_answers(cross: Tensor, support: Tensor, labels: Tensor, ridge: float) -> Tensor:
    """Kernel regression: answers [n, C] from kernels [n, m] and [m, m] and labels [m, C].

    ridge: times the mean of the support's diagonal.
    """
    mean = support.diagonal().mean()
    eye = torch.eye(len(support), dtype=support.dtype, device=support.device)
    # without the check, which waits for a GPU: a singular kernel gives no finite loss, which the guard sees
    weights, _ = torch.linalg.solve_ex(support + ridge * mean * eye, labels.to(support.dtype))
    return cross @ weights


def solved_labels(name: str, support: Tensor, real: Iterable[tuple[Tensor, Tensor]], ridge: float) -> Tensor:
    """Labels [m, C] with which regression on the support [m, ch, H, W] answers best for all real images.

    real: (images, labels [n, C]) in parts. ridge: over m, added to both matrices that are solved, as it is.
    """
    own = kernel(name, support)
    products, targets = torch.zeros_like(own), torch.zeros((), dtype=own.dtype, device=own.device)
    for images, labels in real:
        cross = kernel(name, images, support)
        products, targets = products + cross.T @ cross, targets + cross.T @ labels.to(own.dtype)
    eye = ridge / len(own) * torch.eye(len(own), dtype=own.dtype, device=own.device)
    return (own + eye) @ torch.linalg.solve_ex(products + eye, targets)[0]


def _start(x: Tensor, y: Tensor, same: bool) -> Covariance:
    """Of pixels [n, ch, P]: mean products over the channels."""
    channels = x.shape[1]
    k = torch.einsum("icp,jcq->ijpq", x, y) / channels
    own = tuple(torch.einsum("icp,icq->ipq", z, z) / channels for z in (x, y))
    return Covariance(k, torch.zeros_like(k), (own[0], own[1]), same)


def _dense(state: Covariance) -> Covariance:
    changed = state.each(lambda k: W_STD**2 * k)
    k = changed.k + B_STD**2
    return Covariance(k, k + changed.t, (changed.own[0] + B_STD**2, changed.own[1] + B_STD**2), state.same)


def _relu(state: Covariance) -> Covariance:
    first, second = (own if own.ndim == 1 else own.diagonal(dim1=1, dim2=2) for own in state.own)
    k, share = _rectified(state.k, _scale(first, second, state.k.ndim > 2), _identical(state))
    if state.k.ndim == 2:
        return Covariance(k, state.t * share, (first / 2, second / 2), state.same)
    own = []
    for whole, single in zip(state.own, (first, second), strict=True):
        scale = single.unsqueeze(2).sqrt() * single.unsqueeze(1).sqrt()
        equal = torch.eye(single.shape[1], dtype=torch.bool, device=single.device).expand(whole.shape)
        own.append(_rectified(whole, scale, equal)[0])
    return Covariance(k, state.t * share, (own[0], own[1]), state.same)


def _scale(first: Tensor, second: Tensor, positions: bool) -> Tensor:
    """√(k11 k22) of all pairs."""
    if not positions:
        return first.sqrt().unsqueeze(1) * second.sqrt()
    return first.sqrt()[:, None, :, None] * second.sqrt()[None, :, None, :]


def _identical(state: Covariance) -> Tensor:
    """Pairs of an image with itself, at one position."""
    device = state.k.device
    if not state.same:
        return torch.zeros((), dtype=torch.bool, device=device).expand(state.k.shape)
    images = torch.eye(state.k.shape[0], dtype=torch.bool, device=device)
    if state.k.ndim == 2:
        return images
    return images[:, :, None, None] & torch.eye(state.k.shape[2], dtype=torch.bool, device=device)


def _rectified(k: Tensor, scale: Tensor, identical: Tensor) -> tuple[Tensor, Tensor]:
    """(covariance after a ReLU, mean product of its derivatives); for identical pairs half of each, exactly."""
    # masked before the arc cosine, so that no derivative there is infinite
    cosine = (k / scale).masked_fill(identical, 0).clamp(-_NEAREST, _NEAREST)
    angle, sine = torch.arccos(cosine), (1 - cosine.square()).sqrt()
    rectified = scale * (sine + (math.pi - angle) * cosine) / (2 * math.pi)
    share = (math.pi - angle) / (2 * math.pi)
    return torch.where(identical, k / 2, rectified), torch.where(identical, 0.5, share)


def _convolutional(state: Covariance, side: int, depth: int, prepend: bool) -> Covariance:
    if prepend:
        state = _relu(_dense(state.each(lambda k: _neighbours(k, side))))
    for _ in range(depth):
        if side % 2:
            raise UsageError(f"Its layer of {side} x {side} positions cannot be halved.\nUse a kernel fc1, fc2 or fc3.")
        state = _relu(_dense(state.each(partial(_neighbours, side=side))))
        state = state.each(partial(_pooled, side=side))
        side //= 2
    return state.each(lambda k: k.diagonal(dim1=-2, dim2=-1).mean(-1))


def _neighbours(k: Tensor, side: int) -> Tensor:
    """[…, P, P]: mean over the 3 x 3 steps both positions take together; 0 beyond the border."""
    grid = k.unflatten(-1, (side, side)).unflatten(-3, (side, side))
    padded, total = F.pad(grid, (1, 1, 1, 1, 1, 1, 1, 1)), torch.zeros_like(grid)
    for down in range(3):
        for right in range(3):
            rows, columns = slice(down, down + side), slice(right, right + side)
            total = total + padded[..., rows, columns, rows, columns]
    return (total / 9).flatten(-4, -3).flatten(-2)


def _pooled(k: Tensor, side: int) -> Tensor:
    """[…, P, P] -> […, P / 4, P / 4]: means over 2 x 2 positions on both sides."""
    half = side // 2
    grid = k.unflatten(-1, (half, 2, half, 2)).unflatten(-5, (half, 2, half, 2))
    return grid.mean((-7, -5, -3, -1)).flatten(-4, -3).flatten(-2)


def _check_size(name: str, pairs: int, positions: int) -> None:
    if pairs * positions**2 > MOST_NUMBERS:
        raise UsageError(
            f"The kernel '{name}' of {pairs:,} pairs of images compares all {positions}² pairs of positions: more than"
            f" {MOST_NUMBERS:,} numbers a layer.\nUse a kernel fc1, fc2 or fc3, smaller images, or fewer of them."
        )

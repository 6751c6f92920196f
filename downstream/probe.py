"""Linear probe: logistic regression on features of a frozen network, an accuracy of a set without training a network.

Minimised over W [classes, d] and b is the mean cross-entropy plus l2 / 2 |W|², of features that are centred and divided
by their deviations over the images trained on (a set stands for itself), in float64 by L-BFGS on all images at once.
The objective is convex, so nothing is drawn and nothing is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.decode import decoded
from distill.image_set import ImageSet
from downstream.training import HERE, Conditions
from fyi_bench.errors import DivergenceError
from search_space.network import embed

NUMERICS = 1
# best of 0.0001, 0.001 … 1, or within 1.3 points of it, with 1 to 500 real images a class of CIFAR-10: features of a
# ConvNet of width 32, judged on train images that nothing else was fitted to
L2 = 0.1
MOST_STEPS = 1000  # of L-BFGS
TOLERANCE = 1e-6  # of the largest entry of the gradient
_BATCH = 128


@dataclass(frozen=True)
class Probe:
    """A fitted probe: logits = ((features - mean) / std) @ weight.T + bias.

    weight: float64 [classes, d]; bias: [classes]; mean, std: [d]. loss: cross-entropy on what it was fitted to.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor
    loss: float
    steps: int

    def logits(self, features: Tensor) -> Tensor:
        """Float64 [N, classes] of features [N, d]."""
        return ((features.double() - self.mean) / self.std) @ self.weight.T + self.bias


@torch.no_grad()
def features_of(
    network: nn.Module, images: ImageSet, conditions: Conditions = HERE, size: int = 0
) -> tuple[Tensor, Tensor]:
    """What the classifier of a network (in eval mode) reads, float32 [N, d], and the images' labels; on the CPU.

    size: side the images are brought to first, bilinearly (0: none). Raises UsageError for a network without `embed`.
    """
    images = decoded(images)
    network = network.to(conditions.device).eval()
    found = []
    for index in torch.arange(len(images)).split(_BATCH):
        if conditions.stop is not None:
            conditions.stop.check()
        x = images.batch(index, conditions.space).to(conditions.device)
        if size and size != x.shape[-1]:
            x = F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=size < x.shape[-1])
        found.append(embed(network, x).float().cpu())
    return torch.cat(found), images.labels


def shares_of(labels: Tensor, kind: str, hard: bool = False) -> Tensor:
    """What a probe is fitted to: int64 [N], or float64 [N, classes] whose rows sum to 1.

    kind: what soft labels are, as `ImageSet.label_kind` has it; of targets of regression their classes count.
    """
    if labels.ndim == 1:
        return labels
    if hard or kind == "targets":
        return labels.argmax(1)
    rows = labels.double()
    return rows.softmax(1) if kind == "logits" else rows


def fit(features: Tensor, labels: Tensor, classes: int, l2: float = L2) -> Probe:
    """The probe of features [N, d] and labels: int64 [N], or shares [N, classes].

    Raises DivergenceError for features that are not finite.
    """
    import numpy as np
    from scipy.optimize import minimize

    x = features.double()
    if not bool(torch.isfinite(x).all()):
        raise DivergenceError(
            "The network's features are not finite.\nGive weights of a network that was trained.", step=0
        )
    mean, std = x.mean(0), x.std(0, correction=0)
    std = torch.where(
        std > 1e-6 * std.max().clamp(min=1e-30), std, torch.ones_like(std)
    )  # of a dead one nothing is known
    x = (x - mean) / std
    shares = F.one_hot(labels, classes).double() if labels.ndim == 1 else labels.double()

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = _split(torch.from_numpy(flat), classes)
        logits = x @ weight.T + bias
        loss = -(shares * logits.log_softmax(1)).sum() / len(x)
        off = (logits.softmax(1) * shares.sum(1, keepdim=True) - shares) / len(x)
        slope = torch.cat([(off.T @ x + l2 * weight).flatten(), off.sum(0)])
        return float(loss + l2 / 2 * weight.square().sum()), slope.numpy()

    start = np.zeros(classes * (x.shape[1] + 1))
    options = {"maxiter": MOST_STEPS, "maxfun": 2 * MOST_STEPS, "gtol": TOLERANCE, "ftol": 0.0}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    weight, bias = _split(torch.from_numpy(found.x), classes)
    loss = float(found.fun) - l2 / 2 * float(weight.square().sum())
    return Probe(weight, bias, mean, std, loss, int(found.nit))


def _split(flat: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    weight, bias = flat.split([len(flat) - classes, classes])
    return weight.view(classes, -1), bias

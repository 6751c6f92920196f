"""Scores of untrained networks: what a search can rank architectures by without training any of them.

Parameters and operations are counted. Gradient norm and SynFlow are as Abdelfattah et al. (ICLR 2021) compare them:
the former sums the lengths of the gradients of all weights on one batch, the latter (Tanaka et al., NeurIPS 2020)
looks at no data: weights are replaced by their absolute values, norms are taken out, the image is all ones, and the
score sums |weight · gradient of the summed answers|.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

NUMERICS = 1
BATCH = 64  # real images that gradients are taken on
SCORES = ("parameters", "flops", "gradient-norm", "synflow")
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.modules.instancenorm._InstanceNorm)


def gradient_norm(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Sum over weights of the Euclidean length of their gradient of the mean cross-entropy."""
    weights = _weights(network)
    loss = F.cross_entropy(network(images), labels)
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    return float(sum(gradient.double().norm() for gradient in gradients if gradient is not None))


def synflow(network: nn.Module, shape: tuple[int, int, int]) -> float:
    """Sum over weights of |weight · gradient|, in float64. The network is used up: its norms are gone afterwards."""
    _without_norms(network)
    network.double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    weights = _weights(network)
    ones = torch.ones(1, *shape, dtype=torch.float64, device=weights[0].device)
    gradients = torch.autograd.grad(network(ones).sum(), weights, allow_unused=True)
    pairs = zip(weights, gradients, strict=True)
    return float(sum((weight.detach() * gradient).abs().sum() for weight, gradient in pairs if gradient is not None))


def _weights(network: nn.Module) -> list[nn.Parameter]:
    """Kernels and matrices, no biases, no norms."""
    return [parameter for parameter in network.parameters() if parameter.ndim in (2, 4)]


def _without_norms(network: nn.Module) -> None:
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, _NORMS):
                setattr(module, name, nn.Identity())

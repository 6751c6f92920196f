"""The largest step size at which gradient descent is stable where a network starts: KIP's choice of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

IMAGES = 50  # that the kernel is estimated from
_AT_ONCE = 10  # gradients of images in memory, twice


def stable_step(network: nn.Module, images: Tensor, classes: int) -> float:
    """2 · N · C / (largest eigenvalue of the kernel of N images): for half the mean squared error over all answers.

    The kernel is the empirical neural tangent kernel [N, N] of the sum of the answers over sqrt(C), as by
    `neural_tangents.predict.max_learning_rate`. images: [N, channels, size, size], N ≤ 50 or the first 50.
    """
    parts = images[:IMAGES].split(_AT_ONCE)
    rows = []
    for first, part in enumerate(parts):
        own = _gradients(network, part, classes)
        later = (_gradients(network, other, classes) for other in parts[first + 1 :])
        rows.append([own @ own.T, *(own @ one.T for one in later)])
    kernel = torch.cat([
        torch.cat([rows[col][row - col].T if col < row else rows[row][col - row] for col in range(len(parts))], dim=1)
        for row in range(len(parts))
    ]).double()  # fmt: skip
    return 2 * len(kernel) * classes / float(torch.linalg.eigvalsh(kernel)[-1])


def _gradients(network: nn.Module, images: Tensor, classes: int) -> Tensor:
    """[N, parameters]: of the sum of the answers over sqrt(C), for each image."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    found = []
    for image in images:
        answer = network(image.unsqueeze(0)).sum() / classes**0.5
        found.append(torch.cat([part.flatten() for part in torch.autograd.grad(answer, weights)]))
    return torch.stack(found)

"""Accuracy of networks trained on a set; cross-architecture accuracy is the same with a list of architectures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from distill.engine import Stop
from distill.image_set import ImageSet
from distill.spaces import Space
from downstream.protocol import Protocol
from downstream.training import accuracy, train_many

NUMERICS = 1


@dataclass(frozen=True)
class AccuracyResult:
    """Test accuracy in [0, 1] of one network, and the mean loss of its last training epoch."""

    accuracy: float
    last_loss: float


def train_and_test(
    train_set: ImageSet,
    test_set: ImageSet,
    protocol: Protocol,
    seed: int,
    *,
    model: str | None = None,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    space: Space | None = None,
    stop: Stop | None = None,
    report: Callable[[int, float], None] | None = None,
) -> AccuracyResult:
    """Train a fresh network on the set by the protocol and test it once, after the last epoch.

    space: what train and test images are used in (default: the set's own).
    """
    space = space or train_set.space
    trained = train_many(
        train_set, protocol, [seed], model=model, device=device, precision=precision, space=space, stop=stop,
        report=report,
    )[0]  # fmt: skip
    value = accuracy(trained.network, test_set, space, device, precision)
    return AccuracyResult(value, trained.losses[-1])

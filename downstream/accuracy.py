"""Accuracy of networks trained on a set; cross-architecture accuracy is the same with a list of architectures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from distill.engine import Stop
from distill.image_set import ImageSet
from distill.spaces import Space
from downstream.protocol import Protocol
from downstream.training import accuracy, new_network, train

NUMERICS = 1


@dataclass(frozen=True)
class AccuracyResult:
    """Test accuracy in [0, 1] of one network, and the mean loss of its last training epoch.

    tests: every test of a protocol that tests several times, in order; `accuracy` is the best of them.
    """

    accuracy: float
    last_loss: float
    tests: tuple[float, ...]


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
    warm_set: ImageSet | None = None,
    stop: Stop | None = None,
    report: Callable[[int, float], None] | None = None,
) -> AccuracyResult:
    """Train a fresh network on the set by the protocol and test it, once after the last epoch or as the protocol says.

    space: what train and test images are used in (default: the set's own).
    warm_set: images the network is trained on first, by the same protocol (`warm` of it).
    """
    space = space or train_set.space
    network = new_network(model or protocol.eval_model, train_set, seed).to(device)
    rules = {"device": device, "precision": precision, "space": space, "stop": stop}
    if warm_set is not None:
        train(network, warm_set, protocol, seed, **rules)
    epochs = protocol.epochs_for(len(train_set))
    marks = {round(epochs * (k + 1) / protocol.tests) for k in range(protocol.tests)}
    tests = []

    def follow(epoch: int, loss: float) -> None:
        if epoch in marks:
            tests.append(accuracy(network, test_set, space, device, precision))
            network.train()
        if report is not None:
            report(epoch, loss)

    trained = train(network, train_set, protocol, seed, **rules, report=follow)
    return AccuracyResult(max(tests), trained.losses[-1], tuple(tests))

"""Accuracy of networks trained on a set; cross-architecture accuracy is the same with a list of architectures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from distill.contracts import Deadline
from distill.image_set import ImageSet
from distill.spaces import Space
from downstream.protocol import Protocol
from downstream.training import accuracy, new_network, report_of_one, train_together

NUMERICS = 1


@dataclass(frozen=True)
class AccuracyResult:
    """Test accuracy in [0, 1] of one network, and the mean loss of its last training epoch.

    tests: every test of a protocol that tests several times, in order; `accuracy` is the best of them.
    """

    accuracy: float
    last_loss: float
    tests: tuple[float, ...]


def train_and_test_together(
    train_set: ImageSet,
    test_set: ImageSet,
    protocol: Protocol,
    seeds: Sequence[int],
    *,
    model: str | None = None,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    space: Space | None = None,
    warm_set: ImageSet | None = None,
    stop: Deadline | None = None,
    report: Callable[[int, int, float], None] | None = None,
) -> list[AccuracyResult]:
    """Train a fresh network a seed on the set by the protocol and test it, once at the end or as the protocol says.

    space: what train and test images are used in (default: the set's own).
    warm_set: images each is trained on first, by the same protocol (`warm` of it).
    report(network, epochs done, loss) follows each.
    """
    space = space or train_set.space
    networks = [new_network(model or protocol.eval_model, train_set, seed).to(device) for seed in seeds]
    rules = {"device": device, "precision": precision, "space": space, "stop": stop}
    if warm_set is not None:
        train_together(networks, warm_set, protocol, seeds, **rules)
    epochs = protocol.epochs_for(len(train_set))
    marks = {round(epochs * (k + 1) / protocol.tests) for k in range(protocol.tests)}
    tests: list[list[float]] = [[] for _ in seeds]

    def follow(number: int, epoch: int, loss: float) -> None:
        if epoch in marks:
            tests[number].append(accuracy(networks[number], test_set, space, device, precision))
            networks[number].train()
        if report is not None:
            report(number, epoch, loss)

    trained = train_together(networks, train_set, protocol, seeds, **rules, report=follow)
    return [AccuracyResult(max(found), one.losses[-1], tuple(found)) for found, one in zip(tests, trained, strict=True)]


def train_and_test(
    train_set: ImageSet,
    test_set: ImageSet,
    protocol: Protocol,
    seed: int,
    *,
    report: Callable[[int, float], None] | None = None,
    **how: Any,
) -> AccuracyResult:
    """`train_and_test_together` of one network, with its other keywords; report(epochs done, loss)."""
    return train_and_test_together(train_set, test_set, protocol, [seed], **how, report=report_of_one(report))[0]

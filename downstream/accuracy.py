"""Accuracy of networks trained on a set; cross-architecture accuracy is the same with a list of architectures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from distill.decode import decoded
from distill.image_set import ImageSet
from downstream.ordered import initial_weights
from downstream.protocol import Protocol
from downstream.regression import is_kernel, regressed
from downstream.training import HERE, Conditions, Report, accuracy, new_network, train_together

NUMERICS = 1


@dataclass(frozen=True)
class AccuracyResult:
    """Test accuracy in [0, 1] of one network, and the mean loss of its last training epoch.

    validation: accuracy on further images, where there are any. tests: every test of a protocol that tests several
    times, in order; `accuracy` is the best of them.
    """

    accuracy: float
    last_loss: float
    tests: tuple[float, ...]
    validation: float | None = None


def train_and_test(
    train_set: ImageSet,
    test_set: ImageSet,
    protocol: Protocol,
    seeds: Sequence[int],
    conditions: Conditions = HERE,
    report: Report | None = None,
    *,
    warm_set: ImageSet | None = None,
    validation_set: ImageSet | None = None,
) -> list[AccuracyResult]:
    """Train a fresh network a seed on the set by the protocol and test it, once at the end or as the protocol says.

    Train and test images are used in one space, by default the set's own.
    warm_set: images each is trained on first, by the same protocol (`warm` of it). validation_set: each is tested on
    them too, at the end.
    """
    train_set = decoded(train_set)
    conditions = replace(conditions.by(protocol), space=conditions.space or train_set.space)
    if is_kernel(protocol.eval_model):
        assert conditions.space is not None
        value, error = regressed(train_set, test_set, protocol.eval_model, conditions.space)
        return [AccuracyResult(value, error, (value,)) for _ in seeds]
    networks = [new_network(protocol.eval_model, train_set, seed).to(conditions.device) for seed in seeds]
    initial_weights(networks, train_set, protocol, seeds)
    if warm_set is not None:
        train_together(networks, warm_set, protocol, seeds, conditions)
    epochs = protocol.epochs_for(train_set.items)
    marks = {round(epochs * (k + 1) / protocol.tests) for k in range(protocol.tests)}
    tests: list[list[float]] = [[] for _ in seeds]

    def follow(number: int, epoch: int, loss: float) -> None:
        if epoch in marks:
            tests[number].append(accuracy(networks[number], test_set, conditions))
            networks[number].train()
        if report is not None:
            report(number, epoch, loss)

    trained = train_together(networks, train_set, protocol, seeds, conditions, follow)
    held = [None if validation_set is None else accuracy(one, validation_set, conditions) for one in networks]
    return [
        AccuracyResult(max(found), one.losses[-1], tuple(found), validation)
        for found, one, validation in zip(tests, trained, held, strict=True)
    ]

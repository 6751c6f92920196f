"""What predictions of a continual learner are worth: counted here, from the predictions themselves.

Accuracy after a step is over all test images of all classes seen, each counting once; nothing is averaged over steps
before it is told. Names and definitions are Avalanche's (Top1_Acc_Stream, StreamForgetting, StreamBWT), and a test
holds them to Avalanche's own numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from downstream.continual.steps import Steps
from fyi_bench.errors import DataError

ACCURACY, FORGETTING, TRANSFER = "Top1_Acc_Stream", "StreamForgetting", "StreamBWT"


@dataclass(frozen=True)
class StepScore:
    """What a network knows after a step, in [0, 1].

    accuracy: on all test images of the classes seen. per_experience: on those of each step so far. per_class: by class.
    confusion: counts of test images by true group and predicted group, 'old' being classes of earlier steps, 'new' of
    this one; 'right' those classified right: {'old': {'right': …, 'old': …, 'new': …}, 'new': {…}}.
    """

    step: int
    classes_seen: int
    accuracy: float
    per_experience: list[float]
    per_class: dict[int, float]
    confusion: dict[str, dict[str, int]]


def score(steps: Steps, step: int, labels: torch.Tensor, predicted: torch.Tensor) -> StepScore:
    """Count the answers after `step` (0-based).

    labels: int64 [N], classes of the test images, which are those of all classes seen. predicted: int64 [N], answers
    as `Steps.answers` has them. Raises DataError for test images of other classes than those seen.
    """
    seen = steps.seen(step)
    if sorted(labels.unique().tolist()) != sorted(seen):
        strange = sorted(set(labels.unique().tolist()) ^ set(seen))
        raise DataError(
            f"After step {step + 1} a network is tested on the {len(seen)} classes seen, not on others, nor fewer"
            f" (class {strange[0]}).\nGive the test images of these classes, each once."
        )
    right = predicted == steps.answers[labels]
    where = torch.full((len(steps.order),), -1)
    for number, classes in enumerate(steps.classes):
        where[torch.tensor(classes)] = number
    at = where[labels]
    return StepScore(
        step=step,
        classes_seen=len(seen),
        accuracy=_share(right),
        per_experience=[_share(right[at == number]) for number in range(step + 1)],
        per_class={c: _share(right[labels == c]) for c in seen},
        confusion=_confusion(steps, step, at, right, predicted),
    )


def _share(right: torch.Tensor) -> float:
    return float(right.double().mean())


def _confusion(
    steps: Steps, step: int, at: torch.Tensor, right: torch.Tensor, predicted: torch.Tensor
) -> dict[str, dict[str, int]]:
    """Counts; where answers are no classes (domain-incremental), what is wrong is neither old nor new."""
    new = torch.isin(predicted, torch.tensor(steps.classes[step]))
    found = {}
    for name, rows in (("old", at < step), ("new", at == step)):
        found[name] = {"right": int((rows & right).sum())}
        if steps.kind != "domain":
            found[name] |= {"old": int((rows & ~right & ~new).sum()), "new": int((rows & ~right & new).sum())}
    return found


def forgetting(scores: Sequence[Sequence[float]]) -> float:
    """Avalanche's StreamForgetting after the last step: over earlier steps, accuracy when learned minus accuracy now.

    scores: per_experience of each step. 0.0 after the first step, where nothing can be forgotten.
    """
    lost = [row[number] - scores[-1][number] for number, row in enumerate(scores[:-1])]
    return sum(lost) / len(lost) if lost else 0.0


def backward_transfer(scores: Sequence[Sequence[float]]) -> float:
    """Avalanche's StreamBWT after the last step: forgetting with the other sign."""
    return -forgetting(scores) if len(scores) > 1 else 0.0


@dataclass
class Judge:
    """Keeps the answers of somebody's learner step by step, and refuses what is no continual learning.

    steps: the scenario. test: (image, label) of every test image, or their labels alone [N] where images are not to
    be compared. Use: `judge.saw(step, images, labels)` with all that a step was trained on, then
    `judge.after(step, predict)`.
    """

    steps: Steps
    test: Any
    scores: list[StepScore] = field(default_factory=list)

    def saw(self, step: int, images: Iterable[torch.Tensor], labels: Iterable[int]) -> None:
        """Check what is trained on at a step. Raises DataError for test images and for classes of later steps."""
        seen = set(self.steps.seen(step))
        for image, label in zip(images, labels, strict=True):
            if int(label) not in seen:
                raise DataError(
                    f"Step {step + 1} is trained on class {int(label)}, which comes later or never.\n"
                    "Classes are drawn once, before the first step, and kept."
                )
            if _digest(image) in self._tested:
                raise DataError(
                    f"An image that step {step + 1} is trained on is a test image (class {int(label)}).\n"
                    "Train on train images alone."
                )

    def after(self, step: int, predicted: torch.Tensor) -> StepScore:
        """Score the answers [N], for `test_of(step)` in their order. Raises DataError for steps out of order."""
        if step != len(self.scores):
            raise DataError(f"Step {len(self.scores) + 1} comes next, not {step + 1}.\nGive the answers of every step.")
        self.scores.append(score(self.steps, step, self.labels[self.test_of(step)], predicted))
        return self.scores[-1]

    def test_of(self, step: int) -> torch.Tensor:
        """int64 [n]: the test images that count after a step."""
        return torch.isin(self.labels, torch.tensor(self.steps.seen(step))).nonzero().flatten()

    @cached_property
    def labels(self) -> torch.Tensor:
        """int64 [N]: classes of the test images."""
        if isinstance(self.test, torch.Tensor):
            return self.test
        return torch.tensor([int(self.test[index][1]) for index in range(len(self.test))])

    @property
    def metrics(self) -> dict[str, float]:
        """Avalanche's names -> their values after the last step, and the average over steps."""
        return stream_metrics([one.__dict__ for one in self.scores])

    @cached_property
    def _tested(self) -> set[bytes]:
        pictures = [] if isinstance(self.test, torch.Tensor) else range(len(self.test))
        return {_digest(self.test[index][0]) for index in pictures}


def stream_metrics(scores: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Metrics of a stream from the accuracy and per_experience of each of its steps."""
    accuracies, rows = [one["accuracy"] for one in scores], [one["per_experience"] for one in scores]
    return {
        ACCURACY: accuracies[-1],
        "average": sum(accuracies) / len(accuracies),
        FORGETTING: forgetting(rows),
        TRANSFER: backward_transfer(rows),
    }


def _digest(image: torch.Tensor) -> bytes:
    return hashlib.blake2b(image.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data).digest()

"""How long the host needs for a unit of work whose device needs no time.

On a GPU the host prepares a step while the device does the one before, so a run takes as long as the slower of the two.
Here tensors of the device have a shape and no values (PyTorch's meta device), and a recorded step is not replayed: what
is left is the host's share, without handing work to the device. Beside it, what the goal for one H200
(benchmarks/goals.py) leaves a unit.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch.optim import sgd

from benchmarks.case import cases
from benchmarks.goals import H200
from benchmarks.run import Request, Say
from benchmarks.side import Ended
from benchmarks.workloads import WORKLOADS, Setup
from distill import captured, engine, experts
from distill.image_set import ImageSet
from distill.spaces import NormalizedSpace, PixelSpace
from fyi_bench.run.deadline import Deadline
from fyi_bench.run.runtime import prepare

IMAGES = 50_000  # as CIFAR's train images
SPACE = NormalizedSpace((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
SECONDS = 2.0
WARM = {"expert": 4 * 196}  # units until every shape is recorded; the expert's short last batch comes once an epoch
WHOLE = {"expert": 196}  # units that are prepared together


class NoDevice:
    """Runs a step once, for the shapes of its results."""

    @staticmethod
    def warm_up(function: Callable[..., Any], inputs: Sequence[Any]) -> Any:
        return function(*inputs)

    @staticmethod
    def record(function: Callable[..., Any], inputs: Sequence[Any]) -> Callable[..., Any]:
        outputs = function(*inputs)
        return lambda *given: outputs


class Watch:
    """Asked before every unit: lets the first ones go by, then takes the time of some."""

    def __init__(self, warm: int, whole: int):
        self.warm, self.whole, self.units, self.began = warm, whole, -1, 0.0

    def requested(self) -> bool:
        self.units += 1
        if self.units == self.warm:
            self.began = time.perf_counter()
        done = self.units - self.warm
        return done > 0 and done % self.whole == 0 and time.perf_counter() - self.began > SECONDS

    def check(self) -> None:
        self.seconds = (time.perf_counter() - self.began) / (self.units - self.warm)
        raise Ended


@contextlib.contextmanager
def no_device() -> Iterator[None]:
    """Nothing is read from the device, and what knows no tensors without values is left out."""
    autocast = torch.autocast
    with contextlib.ExitStack() as stack:
        for target, name, value in (
            (torch, "autocast", lambda kind, *how, **more: autocast("cpu", *how, **more)),
            (sgd.SGD, "step", lambda self: None),
            (engine._Run, "guard", lambda self: None),
            (experts._Training, "_end_epoch", lambda self, epoch: None),
            (torch.Tensor, "cpu", lambda tensor: torch.zeros(tensor.shape, dtype=tensor.dtype)),
        ):
            stack.enter_context(patch.object(target, name, value))
        stack.enter_context(patch.dict(captured.DEVICES, meta=NoDevice))
        yield


def main(request: Request, stop: Deadline, say: Say) -> dict[str, Any]:
    """Measure each job with a goal on one H200, or those named by --only; one thread, whatever was asked for."""
    prepare(1)
    say("job, data, images a class: host, milliseconds a unit; what the goal for one H200 leaves")
    rows = []
    for case in cases("cuda"):
        goal = H200.get((case.job, case.dataset, case.ipc))
        if goal is None or case.job == "nas" or (request.only and case.job not in request.only):
            continue
        stop.check()
        labels = torch.arange(IMAGES) % case.classes
        shape = IMAGES, 3, case.size, case.size
        images = ImageSet(torch.zeros(shape, dtype=torch.uint8), labels, PixelSpace(), case.classes)
        watch = Watch(WARM.get(case.job, captured.WARM_UP + 2), WHOLE.get(case.job, 1))
        with no_device(), contextlib.suppress(Ended):
            WORKLOADS.get(case.job).prepare(Setup(case, images, SPACE, "meta")).ours(watch)
        row = {"job": case.job, "dataset": case.dataset, "ipc": case.ipc, "host_ms": 1e3 * watch.seconds,
               "goal_ms": 1e3 * goal.goal_s / goal.units}  # fmt: skip
        say(f"{case.title}: {row['host_ms']:.2f}; {row['goal_ms']:.2f}")
        rows.append(row)
    return {"task": "bench host", "rows": rows}

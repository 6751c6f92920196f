"""Expert trajectories: the weights of networks in training on the real images, epoch by epoch.

MTT (Cazenavette et al., CVPR 2022), buffer code: SGD with a constant step size, shuffled batches, one drawn
augmentation a batch with parameters of each image's own; the weights are kept at the start and after each epoch. FTD
(Du et al., CVPR 2023) does the same with GSAM (gsam.py). An expert is a function of (problem, config): its number is
the problem's seed. The published programs' snapshots alias the live weights on a CPU, so that all are the last
ones; here they are copied.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

import search_space
from distill.augment import Augmentation, Draw
from distill.captured import Captured, recordings, upload
from distill.contracts import MOST_LOSS_GROWTH, Checkpointer, Deadline, Tensors, resumed
from distill.expert_file import Trajectory
from distill.gsam import GSAM
from distill.problem import Problem
from distill.trajectory import FlatNetwork
from fyi_bench.errors import DivergenceError
from fyi_bench.registry import pick

# raised whenever an expert of the same problem and config would get other weights
NUMERICS = 1

CHECKPOINT_SECONDS = 60.0  # a checkpoint holds all snapshots so far, tens of megabytes
REPORT_EVERY = 10  # steps between two looks at the loss, which waits for the device

# how snapshots are kept. Half precision halves the disk, but two neighbouring epochs differ by little, and rounding
# (relative 5e-4, bf16 4e-3) enters the distance that is matched: fp32 unless space forbids it
STORAGE = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class ExpertConfig:
    """How experts are trained; the values come from a method's recipe.

    model: network; augment, dispatcher: see `Augmentation`; gsam: None for plain SGD; storage: a key of `STORAGE`.
    """

    model: str
    epochs: int
    lr: float
    momentum: float
    wd: float
    batch: int
    augment: str
    dispatcher: str
    storage: str
    gsam: GSAM | None = None

    def __post_init__(self) -> None:
        pick("expert storage", self.storage, STORAGE)

    def describe(self) -> dict[str, Any]:
        """JSON-able form; `rebuild` is its inverse."""
        return asdict(self)

    @classmethod
    def rebuild(cls, description: dict[str, Any]) -> ExpertConfig:
        gsam = description.get("gsam")
        return cls(**{**description, "gsam": GSAM(**gsam) if gsam else None})


@dataclass(frozen=True)
class Expert:
    """A finished expert: its trajectory, and the mean training loss of each epoch."""

    trajectory: Trajectory
    losses: list[float]


@recordings()
def train_expert(
    problem: Problem,
    config: ExpertConfig,
    *,
    checkpointer: Checkpointer | None = None,
    stop: Deadline | None = None,
    report: Callable[[int, int, float], None] | None = None,
) -> Expert:
    """Train expert number `problem.seed` on all real images of the problem's classes, in the problem's space.

    `report(steps done, steps in all, loss)` follows. Raises DivergenceError when the loss is no longer finite, and what
    `stop.check()` raises when asked to stop: then a checkpoint has been saved, and the same call goes on from it, in
    the middle of an epoch if need be.
    """
    run = resumed(lambda: _Training(problem, config, checkpointer), checkpointer)
    saved_at = time.monotonic()
    while run.done < run.steps:
        if stop is not None and stop.requested():
            run.save()
            stop.check()
        run.step()
        if report is not None and (run.done % REPORT_EVERY == 0 or run.done == run.steps):
            report(run.done, run.steps, float(run.last_loss))
        if checkpointer is not None and time.monotonic() - saved_at > CHECKPOINT_SECONDS:
            run.save()
            saved_at = time.monotonic()
    return Expert(Trajectory(run.snapshots), run.losses[: config.epochs].tolist())


@dataclass(frozen=True)
class _Epoch:
    """What the steps of an epoch take from the host, on the device: int64 [b] into the rows and a draw for each."""

    number: int
    batches: tuple[torch.Tensor, ...]
    draws: list[Draw]


class _Training:
    """State of one training: weights, momentum, snapshots and losses so far."""

    def __init__(self, problem: Problem, config: ExpertConfig, keeper: Checkpointer | None):
        self.problem, self.config, self.keeper = problem, config, keeper
        channels, size, _ = problem.shape
        network = search_space.build(
            config.model, channels, size, problem.num_classes, problem.stream("expert network")
        )
        self.network = FlatNetwork(network.to(device=problem.device, dtype=problem.dtype))
        self.augmentation = Augmentation(config.augment, dispatcher=config.dispatcher)
        self.rows = torch.cat(problem.rows).to(problem.device)
        self.labels = torch.repeat_interleave(torch.tensor([len(r) for r in problem.rows])).to(problem.device)
        self.per_epoch = math.ceil(len(self.rows) / config.batch)
        self.done, self.steps = 0, config.epochs * self.per_epoch
        self.weights = self.network.values()
        self.momentum = torch.zeros_like(self.weights)
        kept = torch.float64 if problem.dtype == torch.float64 else STORAGE[config.storage]
        self.snapshots = torch.zeros(config.epochs + 1, self.network.size, dtype=kept)
        self.snapshots[0] = self.weights.cpu()
        self.losses = torch.zeros(config.epochs, dtype=torch.float64, device=problem.device)
        self.last_loss = torch.zeros(())
        self._epoch = _Epoch(-1, (), [])
        self._walk = Captured(self._step_on)

    def step(self) -> None:
        """One batch; after an epoch's last one, a snapshot."""
        epoch, number = divmod(self.done, self.per_epoch)
        if self._epoch.number != epoch:
            self._epoch = self._drawn(epoch)
        index, draw = self._epoch.batches[number], self._epoch.draws[number]
        self.last_loss = self._walk(index, draw.codes, draw.values)
        self.losses[epoch] += self.last_loss * (len(index) / len(self.rows))
        self.done += 1
        if number == self.per_epoch - 1:
            self._end_epoch(epoch)

    def save(self) -> None:
        """Checkpoint after the steps done so far."""
        if self.keeper is not None:
            self.keeper.save(self.done, {k: v.cpu() for k, v in self.tensors().items()}, {})

    def tensors(self) -> Tensors:
        """What a checkpoint holds now."""
        kept = self.snapshots[: self.done // self.per_epoch + 1]
        return {"snapshots": kept, "weights": self.weights, "momentum": self.momentum, "losses": self.losses}

    def take(self, step: int, tensors: Tensors) -> None:
        """Go on from a checkpoint after `step` steps. Raises ValueError, KeyError … for tensors of another training."""
        if not 0 <= step <= self.steps:
            raise ValueError(f"there is no step {step}")
        self.done = step
        self.snapshots[: len(tensors["snapshots"])] = tensors["snapshots"]
        for name in ("weights", "momentum", "losses"):
            getattr(self, name).copy_(tensors[name])

    def _drawn(self, epoch: int) -> _Epoch:
        """An epoch's order and draws, in one go: step by step they would take the host longer than a GPU the step."""
        p = self.problem
        order = torch.randperm(len(self.rows), generator=p.stream("expert order", epoch))
        batches = upload(order, p.device).split(self.config.batch)
        streams = [p.stream("expert augment", epoch, number) for number in range(len(batches))]
        counts = [len(index) for index in batches]
        return _Epoch(epoch, batches, self.augmentation.draw_ahead(streams, counts, p.shape[-1], p.device))

    def _step_on(self, index: torch.Tensor, codes: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Move the weights, in place, by one augmented batch of these images; returns the loss."""
        c, bf16 = self.config, self.problem.precision == "bf16"
        x, y = self.problem.images_at(self.rows[index]), self.labels[index]
        x = self.augmentation.apply(x, Draw(self.augmentation.stages, codes, values))

        def gradient_at(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.network.gradient(weights, x, y, bf16=bf16)

        loss, direction = gradient_at(self.weights) if c.gsam is None else c.gsam.step(gradient_at, self.weights)
        weights, momentum = sgd_step(self.weights, self.momentum, direction, c.lr, c.momentum, c.wd)
        self.weights.copy_(weights)
        self.momentum.copy_(momentum)
        return loss

    def _end_epoch(self, epoch: int) -> None:
        self.snapshots[epoch + 1] = self.weights.cpu()
        if not (abs(float(self.losses[epoch])) <= MOST_LOSS_GROWTH and bool(torch.isfinite(self.weights).all())):
            lr = self.config.lr
            raise DivergenceError(
                f"Expert {self.problem.seed} diverged in epoch {epoch + 1} of {self.config.epochs}.\n"
                f"Lower its step size: expert_lr is {lr:g} (--set expert_lr={lr / 10:g}).",
                step=epoch + 1,
            )


def sgd_step(
    weights: torch.Tensor, buffer: torch.Tensor, direction: torch.Tensor, lr: float, momentum: float, wd: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(weights, momentum buffer) after one step of SGD as PyTorch takes it; the first buffer is zero."""
    buffer = momentum * buffer + direction + wd * weights
    return weights - lr * buffer, buffer

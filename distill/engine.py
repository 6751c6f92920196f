"""The one outer loop of every method: initialise, draw, FYI, step, checkpoint, guard, budget.

FYI is a switch here, not a method: methods receive synthetic batches already expanded by the flip. A run is a
function of (problem, method, config, flip) alone; a checkpoint holds images, learned extras, the optimiser's state, the
method's and losses, and no generator state, because every draw is keyed by its step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from distill.captured import recordings
from distill.contracts import MOST_LOSS_GROWTH, Checkpointer, Context, Deadline, Stored, Tensors, check_alike, resumed
from distill.fyi import FLIPS, Flip
from distill.image_set import LABEL_KINDS, ImageSet
from distill.method import Method, MethodConfig
from distill.methods import METHODS
from distill.problem import Problem
from fyi_bench.errors import DivergenceError

NUMERICS = 1
CHECKPOINT_SECONDS = 30.0
CHECKPOINT_RATE = 1e6  # bytes a second that checkpoints may write on average: large ones (many networks) come rarely
GUARD_EVERY = 10
MOST_GROWTH = 200.0  # a run diverged when its largest pixel is so many times what it was at the start, or 1 if more
CURVE_POINTS = 200


@recordings()
def distill(
    problem: Problem,
    method: str,
    config: MethodConfig,
    flip: str = "none",
    *,
    checkpointer: Checkpointer | None = None,
    stop: Deadline | None = None,
    report: Callable[[int, float], None] | None = None,
    watch: Callable[[int, Callable[[], ImageSet]], None] | None = None,
    provenance: dict[str, Any] | None = None,
) -> ImageSet:
    """Condense the problem's real images and return the synthetic set, original labels kept.

    `report(iterations done, loss)` is called after every iteration, on a GPU after every tenth, and then
    `watch(iterations done, look)`, where `look()` gives the set as it is at that moment. Raises DivergenceError when
    loss or images are no longer finite or grew beyond all measure (its `last_good` is the last good ImageSet), and
    whatever `stop.check()` raises when asked to stop: then a checkpoint has been saved and the same call goes on from
    it.
    """

    def begin() -> _Run:
        return _Run(problem, METHODS.get(method)(config, problem), FLIPS.get(flip), provenance or {}, checkpointer)

    run = resumed(begin, checkpointer)
    saved_at, pause, on_cpu = time.monotonic(), CHECKPOINT_SECONDS, problem.device.type == "cpu"
    while run.done < config.iterations:
        if stop is not None and stop.requested():
            run.save()
            stop.check()
        run.iterate()
        guarded = run.done % GUARD_EVERY == 0 or run.done == config.iterations
        if guarded:
            run.guard()
        # reading a loss waits for the device: on a GPU only where the guard has read the losses anyway
        if report is not None and (on_cpu or guarded):
            report(run.done, run.last_loss())
        if watch is not None and (on_cpu or guarded):
            watch(run.done, run.set_so_far)
        if checkpointer is not None and time.monotonic() - saved_at > pause:
            pause = max(CHECKPOINT_SECONDS, run.save() / CHECKPOINT_RATE)
            saved_at = time.monotonic()
    return run.image_set()


class _Run:
    """State of one run: the learned tensors, their optimiser, the losses so far."""

    def __init__(self, problem: Problem, method: Method, flip: Flip, provenance: dict, keeper: Checkpointer | None):
        self.problem, self.method, self.flip, self.keeper = problem, method, flip, keeper
        self.provenance = provenance
        images = method.initial_images().detach().to(problem.device).requires_grad_(True)
        each = len(images) // problem.num_classes
        labels = torch.arange(problem.num_classes, device=problem.device).repeat_interleave(each)
        groups = [{"params": [images], "lr": method.config.lr_img, "momentum": method.config.momentum_img}]
        extras = {}
        for name, (value, lr, momentum) in method.extra_parameters().items():
            extras[name] = value.detach().clone().to(problem.device).requires_grad_(True)
            groups.append({"params": [extras[name]], "lr": lr, "momentum": momentum})
        self.ctx = Context(problem, method, flip, images, labels, extras)
        self.optimiser = method.outer_optimiser(groups)
        self.losses = torch.zeros(method.config.iterations, dtype=torch.float64, device=problem.device)
        self.done = 0
        self.good = self._stored()
        self.scale = images.detach().abs().amax().clamp(min=1.0)

    def iterate(self) -> None:
        """One iteration: draw, match one or several times, one optimiser step a match."""
        ctx, matches = self.ctx, 0
        total: torch.Tensor | float = 0.0
        ctx.iteration, ctx.match = self.done, 0
        self.optimiser.param_groups[0]["lr"] = self.method.learning_rate(self.done)
        self.method.begin(ctx)
        while True:
            self.optimiser.zero_grad(set_to_none=True)
            total = total + self.method.backward(ctx)
            self.method.step(ctx, self.optimiser)
            matches += 1
            if not self.method.advance(ctx):
                break
            ctx.match += 1
        self.losses[self.done] = total / matches
        self.done += 1

    def last_loss(self) -> float:
        """Loss of the last iteration, as the method's papers log it."""
        return self.method.logged(float(self.losses[self.done - 1]))

    def guard(self) -> None:
        """Stop a diverged run and keep the last good images."""
        recent = self.losses[max(0, self.done - GUARD_EVERY) : self.done]
        learned = (self.ctx.images, *self.ctx.extras.values(), recent)
        all_finite = torch.stack([torch.isfinite(tensor.detach()).all() for tensor in learned]).all()
        numbers = all_finite, self.ctx.images.detach().abs().amax() / self.scale, self.losses[0], recent.abs().amax()
        # one answer for all: each waits for the device
        finite, growth, first, worst = torch.stack([number.double() for number in numbers]).tolist()
        most = MOST_LOSS_GROWTH * max(1.0, abs(first))
        growth = growth if finite else math.inf
        if growth <= MOST_GROWTH and worst <= most:
            self.good = self._stored()
            return
        bad = (~(recent.abs() <= most)).nonzero().flatten()
        step = self.done - len(recent) + (int(bad[0]) if len(bad) else len(recent) - 1) + 1
        what = "loss or images are no longer finite"
        if finite:
            grown = (
                f"images are {growth:.0e} times as large as" if growth > MOST_GROWTH else "the loss is far from that"
            )
            what = f"{grown} at the start"
        step_size = self.method.config.lr_img
        error = DivergenceError(
            f"{self.method.name} diverged at iteration {step} of {self.method.config.iterations}: {what}.\n"
            f"Lower the step size: lr_img is {step_size:g} (--set lr_img={step_size / 10:g}).",
            step=step,
        )
        error.last_good = self._as_set(self.good, diverged_at=step)
        raise error

    def save(self) -> int:
        """Checkpoint after the iterations done so far; returns its bytes."""
        if self.keeper is None:
            return 0
        tensors = self.tensors()
        self.keeper.save(self.done, {k: v.detach().cpu() for k, v in tensors.items()}, {})
        return sum(tensor.nbytes for tensor in tensors.values())

    def tensors(self) -> Tensors:
        """What a checkpoint holds now."""
        tensors = {"images": self.ctx.images, "losses": self.losses[: self.done]}
        tensors |= {f"extra.{name}": value for name, value in self.ctx.extras.items()}
        tensors |= {f"state.{name}": value for name, value in self.method.state().items()}
        return tensors | _state_of(self.optimiser)

    def take(self, step: int, tensors: Tensors) -> None:
        """Go on from a checkpoint after `step` iterations. Raises ValueError, KeyError … for tensors of another run."""
        if not 0 <= step <= len(self.losses):
            raise ValueError(f"there is no iteration {step}")
        self.done = step
        device = self.problem.device
        with torch.no_grad():
            self.ctx.images.copy_(tensors["images"])
            for name, value in self.ctx.extras.items():
                value.copy_(tensors[f"extra.{name}"])
        self.losses[:step] = tensors["losses"].to(device)
        for name in [name for name in tensors if name.startswith("momentum.")]:  # a checkpoint of an earlier version
            tensors[f"optimiser.{name.removeprefix('momentum.')}.momentum_buffer"] = tensors.pop(name)
        self._take_optimiser({name: value for name, value in tensors.items() if name.startswith("optimiser.")})
        self.method.load_state({k[6:]: v.to(device) for k, v in tensors.items() if k.startswith("state.")})
        self.good = self._stored()

    def _take_optimiser(self, tensors: Tensors) -> None:
        """Take its state back: of each leaf nothing, or all that an optimiser holds that has made a step of nothing."""
        groups = [{**group, "params": [leaf.detach().clone() for leaf in group["params"]]}
                  for group in self.optimiser.param_groups]  # fmt: skip
        for group in groups:
            for leaf in group["params"]:
                leaf.grad = torch.zeros_like(leaf)
        twin = self.method.outer_optimiser(groups)
        twin.step()
        there = {name.split(".")[1] for name in tensors}
        known = {name: value for name, value in _state_of(twin).items() if name.split(".")[1] in there}
        check_alike(tensors, known)
        for name, value in tensors.items():
            _, position, key = name.split(".", 2)
            leaf = self.optimiser.param_groups[int(position)]["params"][0]
            # what is one number (the count of Adam's steps) is the host's
            self.optimiser.state[leaf][key] = value.to(self.problem.device) if value.ndim else value

    def image_set(self) -> ImageSet:
        """The finished set."""
        return self._as_set(self._stored(finished=True))

    def set_so_far(self) -> ImageSet:
        """The set as it is now."""
        return self._as_set(self._stored())

    def _stored(self, finished: bool = False) -> Stored:
        """A copy of what the set would hold now."""
        give = self.method.finished if finished else self.method.stored
        with torch.no_grad():
            found = give(self.ctx.images.detach(), {k: v.detach() for k, v in self.ctx.extras.items()})
            lr, decoder = found.lr, found.decoder
            return replace(
                found,
                images=found.images.clone(),
                lr=None if lr is None else lr.clone(),
                labels=None if found.labels is None else found.labels.clone(),
                decoder=None if decoder is None else decoder.moved(torch.clone),
            )

    def _as_set(self, found: Stored, **facts: Any) -> ImageSet:
        p, real = self.problem, self.problem.real
        return ImageSet(
            images=_on_host(found.images),
            labels=self._labels(found),
            space=p.space,
            num_classes=real.num_classes,
            class_names=real.class_names,
            factor=getattr(self.method.config, "factor", 1),
            decode_type=getattr(self.method.config, "decode_type", "single"),
            lr=None if found.lr is None else tuple(found.lr.tolist()) if found.lr.ndim else float(found.lr),
            provenance={**self.provenance, **self._facts(), **facts},
            label_kind=found.label_kind,
            decoder=None if found.decoder is None else found.decoder.moved(_on_host),
        )

    def _labels(self, found: Stored) -> torch.Tensor:
        """The set's labels: of all classes of the data, where soft ones are learned of the problem's."""
        classes = torch.tensor(list(self.problem.classes))
        if found.labels is None:
            return classes[self.ctx.labels.cpu()]
        soft = _on_host(found.labels)
        least = soft.min(dim=1, keepdim=True).values
        filled = LABEL_KINDS[found.label_kind](least).repeat(1, self.problem.real.num_classes)
        return filled.index_copy(1, classes, soft)

    def _facts(self) -> dict[str, Any]:
        curve = [self.method.logged(v) for v in self.losses[: self.done].tolist()]
        stride = max(1, math.ceil(len(curve) / CURVE_POINTS))
        return {
            "method": self.method.name,
            "flip": self.flip.name,
            "ipc": self.problem.ipc,
            "seed": self.problem.seed,
            "classes": list(self.problem.classes),
            "data_digest": self.problem.data_digest,
            "iterations": self.done,
            "loss_first": _finite(curve[0]) if curve else None,
            "loss_last": _finite(curve[-1]) if curve else None,
            "loss_every": stride,
            "loss_curve": [_finite(v) for v in curve[::stride]],
        }


def _state_of(optimiser: torch.optim.Optimizer) -> Tensors:
    """What an optimiser holds of the one leaf of each of its groups: `optimiser.<group>.<name>`."""
    return {
        f"optimiser.{position}.{key}": torch.as_tensor(value)
        for position, group in enumerate(optimiser.param_groups)
        for key, value in optimiser.state.get(group["params"][0], {}).items()
        if value is not None
    }


def _on_host(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to(torch.float32).cpu().contiguous()


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)

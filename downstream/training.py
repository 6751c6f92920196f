"""THE trainer: retraining on a set, for accuracy, cross-architecture, continual, NAS and full-data numbers alike.

Published procedure (DC family's evaluate_synset; FYI Sec. 4.1): SGD with momentum and weight decay, shuffled batches
with the short last one kept, one drawn augmentation a batch, step size divided by 10 half-way with the momentum lost,
accuracy of the last epoch. Nothing is chosen on test data. All draws are keyed by (seed, epoch, batch). What differs
elsewhere, a teacher's labels too, is an option of the protocol.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import nn

import search_space
from distill.augment import Augmentation, Draw
from distill.captured import Captured, recordings, upload
from distill.contracts import MOST_LOSS_GROWTH, Deadline
from distill.cutmix import mixed_loss
from distill.decode import decoded
from distill.image_set import ImageSet
from distill.spaces import Space
from downstream.ordered import take_steps
from downstream.protocol import Protocol
from downstream.regression import targets
from downstream.schedules import SCHEDULES, schedule
from downstream.stable_step import IMAGES, stable_step
from downstream.teaching import LOSSES, Teaching, loss_of, stored_step
from downstream.views import Views, cropped, draw_views, mixed
from fyi_bench import rng
from fyi_bench.errors import DivergenceError, UsageError

__all__ = ["LOSSES", "SCHEDULES"]  # and what is defined here

NUMERICS = 1
KEEP_AS_FLOAT_BYTES = 128 * 2**20  # sets up to this size as float32 are converted to the working space once
STEPS_AHEAD = 64  # whose order and draws are made at once, and whose losses a GPU is asked for, in whole epochs
EVAL_BATCH = 128  # images a forward pass: fits a CPU's cache, and is HaBa's batch where batches are standardised


@dataclass
class Trained:
    """A trained network and the mean training loss of each epoch."""

    network: nn.Module
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Conditions:
    """Where, in what precision and in which space networks are trained and tested, and when to stop.

    space: of the images as networks see them (default: the set's own). precision: 'fp32' or 'bf16'. teaching: where the
    labels come from, where the protocol says that a teacher gives them. standardised: each batch of images gets mean 0
    and deviation 1 (over all its numbers), before it is augmented or tested.
    """

    device: torch.device | str = "cpu"
    precision: str = "fp32"
    space: Space | None = None
    stop: Deadline | None = None
    teaching: Teaching | None = None
    standardised: bool = False

    def by(self, protocol: Protocol) -> Conditions:
        """As the protocol says."""
        return replace(self, standardised=protocol.standardise)


HERE = Conditions()
Report = Callable[[int, int, float], None]  # number of the network, epochs done, mean loss of the last one


def training_space(image_set: ImageSet, normalized: Space) -> Space:
    """The space to train on a set in: its own, but `normalized` (the data set's) for pixels, as in every protocol."""
    return normalized if image_set.space.kind == "pixel" else image_set.space


def new_network(model: str, train_set: ImageSet, seed: int, classes: int | None = None) -> nn.Module:
    """A freshly initialised network for the set's image size, with a head of `classes` (default: all of the set's)."""
    channels, size, _ = train_set.shape
    return search_space.build(model, channels, size, classes or train_set.num_classes, rng.stream(seed, "evaluation"))


@recordings()
def train_together(
    networks: Sequence[nn.Module],
    train_set: ImageSet,
    protocol: Protocol,
    seeds: Sequence[int],
    conditions: Conditions = HERE,
    report: Report | None = None,
) -> list[Trained]:
    """Train networks in place on the set by the protocol, each by its seed as if it were alone.

    Raises DivergenceError when a loss is not finite or beyond all measure, and what `stop.check()` raises when asked to
    stop.
    """
    train_set, conditions, stop = decoded(train_set), conditions.by(protocol), conditions.stop
    if protocol.order == "steps":
        return _by_steps(networks, train_set, protocol, conditions, report)
    teaching = _teaching(train_set, protocol, conditions)
    if protocol.labels != "own":
        train_set = replace(train_set, labels=train_set.hard_labels)
    if protocol.loss == "squared":
        train_set = replace(train_set, labels=targets(train_set).float(), label_kind="targets")
    images = _Images(train_set, conditions)
    trainings = [
        _Training(network, images, protocol, seed, teaching) for network, seed in zip(networks, seeds, strict=True)
    ]
    for epoch in range(protocol.epochs_for(train_set.items)):
        if stop is not None and stop.requested():
            stop.check()
        # step by step in turn: on a GPU each has a stream of its own, so that small networks fill it together
        for _ in zip(*(training.steps(epoch) for training in trainings), strict=True):
            pass
        for number, training in enumerate(trainings):
            training.end(epoch)
            if report is not None:
                with training.averaged():
                    report(number, epoch + 1, training.losses[-1] if training.losses else math.nan)
    for training in trainings:
        training.take_average()
    return [Trained(training.network, training.losses) for training in trainings]


def train(
    network: nn.Module,
    train_set: ImageSet,
    protocol: Protocol,
    seed: int,
    conditions: Conditions = HERE,
    report: Report | None = None,
) -> Trained:
    """Train one network in place: `train_together` of one."""
    return train_together([network], train_set, protocol, [seed], conditions, report)[0]


def _by_steps(
    networks: Sequence[nn.Module],
    train_set: ImageSet,
    protocol: Protocol,
    conditions: Conditions,
    report: Report | None,
) -> list[Trained]:
    """`train_together` on the set's own ordered steps."""
    images, found = _Images(train_set, conditions), []
    x, y = images[torch.arange(len(train_set))]
    for number, network in enumerate(networks):
        loss = take_steps(network.to(images.device), x, y, train_set, protocol.mirror_steps)
        found.append(Trained(network, [loss]))
        if report is not None:
            report(number, 1, loss)
    return found


def _teaching(train_set: ImageSet, protocol: Protocol, conditions: Conditions) -> Teaching | None:
    """Where a teacher's labels come from, where the protocol asks for them. UsageError where nothing gives them."""
    if protocol.labels != "teacher":
        return None
    teaching = conditions.teaching
    if teaching is None or (teaching.stored is None and not teaching.networks):
        raise UsageError(f"{protocol.name} trains on a teacher's labels, and there is no teacher.\nGive one.")
    teaching.check(protocol, train_set.items, train_set.num_classes)
    return teaching


class _Training:
    """One network on its way: its images, its optimiser, the losses so far."""

    def __init__(self, network: nn.Module, images: _Images, protocol: Protocol, seed: int, teaching: Teaching | None):
        device, lr = images.device, images.source.lr
        self.network = network.to(device).train()
        self.losses: list[float] = []
        self._images, self._protocol, self._seed = images, protocol, seed
        self._device, self._count = device, images.source.items
        self._teaching = teaching
        stored = teaching is not None and teaching.stored is not None
        self._augmentation = (
            Augmentation("flip") if stored else Augmentation(protocol.eval_augment, dispatcher=protocol.eval_dispatcher)
        )
        self._lr = lr if protocol.lr_from_set and isinstance(lr, float) else protocol.lr
        if protocol.lr_stable:
            spread = torch.linspace(0, self._count - 1, min(IMAGES, self._count)).long()
            step = stable_step(self.network, images[spread][0], images.source.num_classes)
            self._lr = protocol.lr_stable * step
        kind = images.source.label_kind if images.labels.ndim == 2 else "hard"
        self._loss = loss_of(protocol, "logits" if teaching is not None else kind)
        # of a network that answers nothing: about 1 where classes are told, the square of what it should answer else
        start = float(images.labels.double().square().mean()) if images.labels.is_floating_point() else 1.0
        self._most = MOST_LOSS_GROWTH * max(1.0, start)
        self._average = [p.detach().clone() for p in self.network.parameters()] if protocol.ema else []
        self._schedule = schedule(self.network, protocol, self._lr, self._count)
        self._total = torch.zeros((), device=device)
        self._unread: list[torch.Tensor] = []  # sums of the losses of whole epochs
        self._recorded: dict[tuple[torch.optim.Optimizer, tuple[str, ...]], Captured] = {}
        self._ahead: dict[int, tuple[tuple[torch.Tensor, ...], list[Draw]]] = {}
        self._stream = torch.cuda.Stream() if device.type == "cuda" else None

    def steps(self, epoch: int) -> Iterator[None]:
        """Each step of an epoch, launched when it is asked for; nothing is waited for."""
        self._total.zero_()
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream())
        shown = enumerate(self._shown(epoch))
        while True:
            # what a step is shown is uploaded on the stream that reads it: no other one waits for it, or keeps it alive
            with contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
                if (step := next(shown, None)) is None:
                    break
                number, (index, draw, views) = step
                self._launch(epoch, number, index, draw, views)
            yield
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)

    def _shown(self, epoch: int) -> Iterator[tuple[torch.Tensor, Draw, Views]]:
        """What each step of an epoch shows: which images, their augmentation, and how else they are seen."""
        size = self._images.source.shape[-1]
        if self._teaching is not None and (stored := self._teaching.stored) is not None:
            for number in range(stored.batches):
                index, draw, views = stored_step(stored.batch(epoch, number), size)
                yield upload(index, self._device), draw.to(self._device), views
            return
        if epoch not in self._ahead:
            self._ahead = self._drawn(epoch)
        for number, (index, draw) in enumerate(zip(*self._ahead[epoch], strict=True)):
            yield index, draw, draw_views(self._protocol, (self._seed, epoch, number), len(index), size)

    def end(self, epoch: int) -> None:
        """Keep the epoch's mean loss. Raises DivergenceError when one is not finite or beyond all measure.

        A GPU would have to be waited for to read it: there, losses are read some epochs together.
        """
        self._unread.append(self._total.clone())
        steps = math.ceil(self._count / self._protocol.batch) * len(self._unread)
        if self._stream is None or steps >= STEPS_AHEAD or epoch + 1 == self._protocol.epochs_for(self._count):
            for total in torch.stack(self._unread).tolist():
                self._add(total / self._count)
            self._unread = []

    def _add(self, loss: float) -> None:
        epoch = len(self.losses)
        self.losses.append(loss)
        if not abs(loss) <= self._most:
            grown = f"{loss:.0e}" if math.isfinite(loss) else "no longer finite"
            raise DivergenceError(
                f"Training diverged in epoch {epoch + 1}: the loss is {grown}.\n"
                f"Lower the step size: lr is {self._lr:g} (--set lr={self._lr / 10:g}).",
                step=epoch,
            )

    def _drawn(self, first: int) -> dict[int, tuple[tuple[torch.Tensor, ...], list[Draw]]]:
        """Of some epochs from `first` on: which images each step takes, int64 [b], and its draw, on the device."""
        steps = math.ceil(self._count / self._protocol.batch)
        epochs = range(first, min(first + math.ceil(STEPS_AHEAD / steps), self._protocol.epochs_for(self._count)))
        orders = [torch.randperm(self._count, generator=rng.stream(self._seed, "shuffle", epoch)) for epoch in epochs]
        if (each := self._images.source.variants) > 1:
            chances = [rng.stream(self._seed, "variant", epoch) for epoch in epochs]
            orders = [
                o * each + torch.randint(each, o.shape, generator=g) for o, g in zip(orders, chances, strict=True)
            ]
        batches = [order.split(self._protocol.batch) for order in upload(torch.stack(orders), self._device)]
        draws = self._augmentation.draw_ahead(
            [rng.stream(self._seed, "augment", epoch, number) for epoch in epochs for number in range(steps)],
            [len(index) for epoch in batches for index in epoch],
            self._images.source.shape[-1],
            self._device,
        )
        return {e: (batches[k], draws[k * steps : (k + 1) * steps]) for k, e in enumerate(epochs)}

    def _launch(self, epoch: int, number: int, index: torch.Tensor, draw: Draw, views: Views) -> None:
        optimiser, names = self._schedule(epoch, number), tuple(views)
        if (optimiser, names) not in self._recorded:
            self._recorded[optimiser, names] = Captured(partial(self._step, optimiser, names))
        self._recorded[optimiser, names](
            index, draw.codes, draw.values, *(upload(views[name], self._device) for name in names)
        )

    def _step(
        self,
        optimiser: torch.optim.Optimizer,
        names: tuple[str, ...],
        index: torch.Tensor,
        codes: torch.Tensor,
        values: torch.Tensor,
        *drawn: torch.Tensor,
    ) -> torch.Tensor:
        """One step on these images; adds its loss, times their number, to the epoch's. drawn: views by name."""
        views = dict(zip(names, drawn, strict=True))
        x, y = self._images[index]
        x = self._augmentation.apply(cropped(x, views), Draw(self._augmentation.stages, codes, values))
        optimiser.zero_grad(set_to_none=True)
        x = mixed(x, views)
        logits = self._images.logits(self.network, x)
        if self._teaching is not None:
            loss = self._loss(logits, self._taught(x, views))
            if self._protocol.hard_weight:  # of the image's own class, whatever it is mixed with, as published
                loss = loss + self._protocol.hard_weight * LOSSES["hard"](logits, y)
        elif "ratios" in views:
            loss = mixed_loss(self._loss(logits, y), self._loss(logits, y[views["permutation"]]), views["ratios"])
        else:
            loss = self._loss(logits, y)
        loss.backward()
        optimiser.step()
        if self._average:
            with torch.no_grad():
                torch._foreach_lerp_(self._average, list(self.network.parameters()), 1 - self._protocol.ema)
        self._total += loss.detach() * len(x)
        return self._total

    def _taught(self, x: torch.Tensor, views: Views) -> torch.Tensor:
        """The teacher's logits for images as the network sees them."""
        assert self._teaching is not None
        if "logits" in views:
            return views["logits"]
        return self._teaching.logits(x, self._images.space, self._images.logits)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The network has the running average of its weights meanwhile, where the protocol keeps one."""
        weights = [p.detach().clone() for p in self.network.parameters()] if self._average else []
        self.take_average()
        yield
        self._set(weights)

    def take_average(self) -> None:
        """Give the network the running average of its weights for good; buffers, of norms, are the last ones."""
        self._set(self._average)

    def _set(self, weights: list[torch.Tensor]) -> None:
        with torch.no_grad():
            for parameter, weight in zip(self.network.parameters(), weights, strict=False):
                parameter.copy_(weight)


@torch.no_grad()
def correct(network: nn.Module, test_set: ImageSet, conditions: Conditions = HERE) -> torch.Tensor:
    """bool [N]: which test images the network classifies right (eval mode, no augmentation, no averaging)."""
    images, labels = _Images(test_set, conditions), test_set.hard_labels
    network = network.to(images.device).eval()
    found = []
    small = images.device.type == "cpu" or conditions.standardised
    for index in torch.arange(len(test_set)).split(EVAL_BATCH if small else 2048):
        predicted = images.logits(network, images[index][0]).argmax(dim=1)
        found.append(predicted.cpu() == labels[index])
    return torch.cat(found)


def accuracy(network: nn.Module, test_set: ImageSet, conditions: Conditions = HERE) -> float:
    """Share of test images classified right, in [0, 1]."""
    return float(correct(network, test_set, conditions).double().mean())


class _Images:
    """Images and labels of a set in the working space: converted once when small, batch by batch when large."""

    def __init__(self, image_set: ImageSet, conditions: Conditions):
        self.space, self.device = conditions.space or image_set.space, torch.device(conditions.device)
        if conditions.precision not in ("fp32", "bf16"):
            raise UsageError(f"Unknown precision '{conditions.precision}'.\nKnown: bf16, fp32.")
        self._bf16, self._standardised = conditions.precision == "bf16", conditions.standardised
        if image_set.images.numel() * 4 <= KEEP_AS_FLOAT_BYTES:
            image_set = image_set.to_space(self.space)
        self.source = image_set
        self.images, self.labels = image_set.images.to(self.device), image_set.labels.to(self.device)

    def __getitem__(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        index = upload(index, self.device)
        picked, labels = self.images[index], self.labels[index]
        if not picked.is_floating_point():
            pixels = ImageSet(picked, torch.zeros(len(picked), dtype=torch.int64), self.source.space, 1)
            picked = pixels.batch(slice(None), self.space)
        if self._standardised:
            picked = (picked - picked.mean()) / picked.std()
        return picked, labels

    def logits(self, network: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """The network's answer in the working precision."""
        if not self._bf16:
            return network(x)
        with torch.autocast(self.device.type, torch.bfloat16):
            return network(x).float()

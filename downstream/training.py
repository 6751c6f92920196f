"""THE trainer: retraining on a set, for accuracy, cross-architecture, continual, NAS and full-data numbers alike.

Published procedure (DC family's evaluate_synset; FYI Sec. 4.1): SGD with momentum and weight decay, shuffled batches
with the short last one kept, one drawn augmentation a batch, step size divided by 10 half-way with the momentum lost,
accuracy of the last epoch. Nothing is chosen on test data. All draws are keyed by (seed, epoch, batch).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

import search_space
from distill.augment import Augmentation, Draw
from distill.captured import Captured, recordings, upload
from distill.contracts import Deadline
from distill.cutmix import draw_cutmix, mixed_loss, paste
from distill.decode import decoded
from distill.image_set import ImageSet
from distill.spaces import Space
from downstream.protocol import Protocol
from fyi_bench import rng
from fyi_bench.errors import DivergenceError, UsageError

NUMERICS = 1
KEEP_AS_FLOAT_BYTES = 512 * 2**20  # sets up to this size are converted to the working space once
STEPS_AHEAD = 64  # whose order and draws are made at once, in whole epochs
EVAL_BATCH = 128  # images a forward pass: fits a CPU's cache


@dataclass
class Trained:
    """A trained network and the mean training loss of each epoch."""

    network: nn.Module
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Conditions:
    """Where, in what precision and in which space networks are trained and tested, and when to stop.

    space: of the images as networks see them (default: the set's own). precision: 'fp32' or 'bf16'.
    """

    device: torch.device | str = "cpu"
    precision: str = "fp32"
    space: Space | None = None
    stop: Deadline | None = None


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

    Raises DivergenceError when a loss is no longer finite, and what `stop.check()` raises when asked to stop.
    """
    train_set, stop = decoded(train_set), conditions.stop
    images = _Images(train_set, conditions)
    trainings = [_Training(network, images, protocol, seed) for network, seed in zip(networks, seeds, strict=True)]
    for epoch in range(protocol.epochs_for(train_set.items)):
        if stop is not None and stop.requested():
            stop.check()
        # step by step in turn: on a GPU each has a stream of its own, so that small networks fill it together
        for _ in zip(*(training.steps(epoch) for training in trainings), strict=True):
            pass
        for number, training in enumerate(trainings):
            training.end(epoch)
            if report is not None:
                report(number, epoch + 1, training.losses[-1])
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


class _Training:
    """One network on its way: its images, its optimiser, the losses so far."""

    def __init__(self, network: nn.Module, images: _Images, protocol: Protocol, seed: int):
        device, lr = images.device, images.source.lr
        self.network = network.to(device).train()
        self.losses: list[float] = []
        self._images, self._protocol, self._seed = images, protocol, seed
        self._device, self._count = device, images.source.items
        self._augmentation = Augmentation(protocol.eval_augment, dispatcher=protocol.eval_dispatcher)
        self._lr = lr if protocol.lr_from_set and isinstance(lr, float) else protocol.lr
        self._loss = LOSSES[images.source.label_kind if images.labels.ndim == 2 else "hard"]
        self._schedule = SCHEDULES[protocol.schedule](self.network, protocol, self._lr, self._count)
        self._total = torch.zeros((), device=device)
        self._recorded: dict[torch.optim.Optimizer, Captured] = {}
        self._ahead: dict[int, tuple[tuple[torch.Tensor, ...], list[Draw]]] = {}
        self._stream = torch.cuda.Stream() if device.type == "cuda" else None

    def steps(self, epoch: int) -> Iterator[None]:
        """Each step of an epoch, launched when it is asked for; nothing is waited for."""
        self._total.zero_()
        if epoch not in self._ahead:
            self._ahead = self._drawn(epoch)
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream())
        for number, (index, draw) in enumerate(zip(*self._ahead[epoch], strict=True)):
            with contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
                self._launch(epoch, number, index, draw)
            yield
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)

    def end(self, epoch: int) -> None:
        """Read the epoch's mean loss. Raises DivergenceError when it is no longer finite."""
        self.losses.append(float(self._total) / self._count)
        if not math.isfinite(self.losses[-1]):
            raise DivergenceError(
                f"Training diverged in epoch {epoch + 1}: the loss is no longer finite.\n"
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

    def _launch(self, epoch: int, number: int, index: torch.Tensor, draw: Draw) -> None:
        mixing: list[torch.Tensor] = []
        if self._protocol.cutmix:
            generator, size = rng.stream(self._seed, "cutmix", epoch, number), self._images.source.shape[-1]
            mix = draw_cutmix(generator, len(index), (size, size), self._protocol.cutmix, 1.0)
            mixing = [upload(t, self._device) for t in (mix.permutation, mix.boxes, mix.ratios)]
        optimiser = self._schedule(epoch, number)
        if optimiser not in self._recorded:
            self._recorded[optimiser] = Captured(partial(self._step, optimiser))
        self._recorded[optimiser](index, draw.codes, draw.values, *mixing)

    def _step(
        self,
        optimiser: torch.optim.Optimizer,
        index: torch.Tensor,
        codes: torch.Tensor,
        values: torch.Tensor,
        *mixing: torch.Tensor,
    ) -> torch.Tensor:
        """One step on these images; adds its loss, times their number, to the epoch's. mixing: the draw of CutMix."""
        x, y = self._images[index]
        x = self._augmentation.apply(x, Draw(self._augmentation.stages, codes, values))
        optimiser.zero_grad(set_to_none=True)
        if mixing:
            permutation, boxes, ratios = mixing
            logits = self._images.logits(self.network, paste(x, permutation, boxes))
            loss = mixed_loss(self._loss(logits, y), self._loss(logits, y[permutation]), ratios)
        else:
            loss = self._loss(self._images.logits(self.network, x), y)
        loss.backward()
        optimiser.step()
        self._total += loss.detach() * len(x)
        return self._total


@torch.no_grad()
def correct(network: nn.Module, test_set: ImageSet, conditions: Conditions = HERE) -> torch.Tensor:
    """bool [N]: which test images the network classifies right (eval mode, no augmentation, no averaging)."""
    images, labels = _Images(test_set, conditions), test_set.hard_labels
    network = network.to(images.device).eval()
    found = []
    for index in torch.arange(len(test_set)).split(EVAL_BATCH if images.device.type == "cpu" else 2048):
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
        self._bf16 = conditions.precision == "bf16"
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
        return picked, labels

    def logits(self, network: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """The network's answer in the working precision."""
        if not self._bf16:
            return network(x)
        with torch.autocast(self.device.type, torch.bfloat16):
            return network(x).float()


# kind of labels -> mean loss of a network's answers: cross-entropy, but for regression targets
LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "hard": F.cross_entropy,
    "probabilities": F.cross_entropy,
    "logits": lambda answers, labels: F.cross_entropy(answers, labels.softmax(dim=1)),
    "targets": lambda answers, labels: (answers - labels).square().sum(dim=1).mean() / 2,
}


# schedules: built once for a training, then called with (epoch, batch number) to give the optimiser of that step

Step = Callable[[int, int], torch.optim.Optimizer]


def _sgd(network: nn.Module, p: Protocol, lr: float) -> torch.optim.SGD:
    parameters = list(network.parameters())
    device = parameters[0].device
    # a recorded step reads its step size when it runs
    step_size = torch.tensor(lr, device=device) if device.type == "cuda" else lr
    return torch.optim.SGD(parameters, lr=step_size, momentum=p.momentum, weight_decay=p.weight_decay, fused=True)


def _drop_restart(network: nn.Module, p: Protocol, lr: float, images: int) -> Step:
    """A new optimiser with lr x drop from the epoch after index epochs // 2 + 1 on, as the published loop makes it."""
    first, second = _sgd(network, p, lr), _sgd(network, p, lr * p.drop)
    return lambda epoch, number: first if epoch <= p.epochs // 2 + 1 else second


def _following(network: nn.Module, p: Protocol, lr: float, factor: Callable[[int, int], float]) -> Step:
    optimiser = _sgd(network, p, lr)

    def step(epoch: int, number: int) -> torch.optim.Optimizer:
        group, now = optimiser.param_groups[0], lr * factor(epoch, number)
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(now)
        else:
            group["lr"] = now
        return optimiser

    return step


def _milestones(network: nn.Module, p: Protocol, lr: float, images: int) -> Step:
    marks = [int(m * p.epochs) for m in p.milestones]
    return _following(network, p, lr, lambda epoch, number: p.drop ** sum(epoch >= m for m in marks))


def _cosine(network: nn.Module, p: Protocol, lr: float, images: int) -> Step:
    batches = math.ceil(images / p.batch)
    total = p.epochs_for(images) * batches
    return _following(
        network, p, lr, lambda epoch, number: 0.5 * (1 + math.cos(math.pi * (epoch * batches + number) / total))
    )


def _constant(network: nn.Module, p: Protocol, lr: float, images: int) -> Step:
    return _following(network, p, lr, lambda epoch, number: 1.0)


SCHEDULES: dict[str, Callable[[nn.Module, Protocol, float, int], Step]] = {
    "drop-restart": _drop_restart,
    "milestones": _milestones,
    "cosine": _cosine,
    "constant": _constant,
}

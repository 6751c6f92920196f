"""THE trainer: retraining on a set, for accuracy, cross-architecture, continual, NAS and full-data numbers alike.

Published procedure (DC family's evaluate_synset; FYI Sec. 4.1): SGD with momentum and weight decay, shuffled batches
with the short last one kept, one drawn augmentation a batch, step size divided by 10 half-way with the momentum lost,
accuracy of the last epoch. Nothing is chosen on test data. All draws are keyed by (seed, epoch, batch).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

import search_space
from distill.augment import Augmentation
from distill.cutmix import cutmix
from distill.decode import decoded
from distill.engine import Stop
from distill.image_set import ImageSet
from distill.spaces import Space
from downstream.protocol import Protocol
from fyi_bench import rng
from fyi_bench.errors import DivergenceError, UsageError

NUMERICS = 1
KEEP_AS_FLOAT_BYTES = 512 * 2**20  # sets up to this size are converted to the working space once
EVAL_BATCH = 128  # images a forward pass: fits a CPU's cache


@dataclass
class Trained:
    """A trained network and the mean training loss of each epoch."""

    network: nn.Module
    losses: list[float] = field(default_factory=list)


def training_space(image_set: ImageSet, normalized: Space) -> Space:
    """The space to train on a set in: its own, but `normalized` (the data set's) for pixels, as in every protocol."""
    return normalized if image_set.space.kind == "pixel" else image_set.space


def new_network(model: str, train_set: ImageSet, seed: int, classes: int | None = None) -> nn.Module:
    """A freshly initialised network for the set's image size, with a head of `classes` (default: all of the set's)."""
    channels, size, _ = train_set.shape
    return search_space.build(model, channels, size, classes or train_set.num_classes, rng.stream(seed, "evaluation"))


def train_many(
    train_set: ImageSet,
    protocol: Protocol,
    seeds: Sequence[int],
    *,
    model: str | None = None,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    space: Space | None = None,
    stop: Stop | None = None,
    report: Callable[[int, float], None] | None = None,
) -> list[Trained]:
    """Train one fresh network a seed on the set. `report(epochs done over all networks, loss)` follows."""
    trained = []
    for number, seed in enumerate(seeds):
        network = new_network(model or protocol.eval_model, train_set, seed)
        before = number * protocol.epochs_for(len(train_set))
        follow = None if report is None else (lambda epoch, loss, before=before: report(before + epoch, loss))
        trained.append(
            train(network, train_set, protocol, seed, device=device, precision=precision, space=space, stop=stop,
                  report=follow)
        )  # fmt: skip
    return trained


def train(
    network: nn.Module,
    train_set: ImageSet,
    protocol: Protocol,
    seed: int,
    *,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    space: Space | None = None,
    stop: Stop | None = None,
    report: Callable[[int, float], None] | None = None,
) -> Trained:
    """Train `network` in place on the set by the protocol; images are used in `space` (default: the set's own).

    Raises DivergenceError when the loss is no longer finite, and what `stop.check()` raises when asked to stop.
    """
    device = torch.device(device)
    network = network.to(device).train()
    train_set = decoded(train_set)
    images, labels = _Images(train_set, space or train_set.space, device), train_set.labels.to(device)
    augmentation = Augmentation(protocol.eval_augment, dispatcher=protocol.eval_dispatcher)
    lr = train_set.lr if protocol.lr_from_set and train_set.lr is not None else protocol.lr
    schedule = SCHEDULES[protocol.schedule](network, protocol, lr, len(train_set))
    losses = []
    for epoch in range(protocol.epochs_for(len(train_set))):
        if stop is not None and stop.requested():
            stop.check()
        order = torch.randperm(len(train_set), generator=rng.stream(seed, "shuffle", epoch))
        total = torch.zeros((), device=device)
        for number, index in enumerate(order.split(protocol.batch)):
            x, y = images[index], labels[index.to(device)]
            draw = augmentation.draw(rng.stream(seed, "augment", epoch, number), len(x), x.shape[-1], siamese=False)
            x = augmentation.apply(x, draw)
            optimiser = schedule(epoch, number)
            optimiser.zero_grad(set_to_none=True)
            loss = _loss(network, x, y, protocol, rng.stream(seed, "cutmix", epoch, number), precision)
            loss.backward()
            optimiser.step()
            total += loss.detach() * len(index)
        losses.append(float(total) / len(train_set))
        if not math.isfinite(losses[-1]):
            raise DivergenceError(
                f"Training diverged in epoch {epoch + 1}: the loss is no longer finite.\n"
                f"Lower the step size: lr is {lr:g} (--set lr={lr / 10:g}).",
                step=epoch,
            )
        if report is not None:
            report(epoch + 1, losses[-1])
    return Trained(network, losses)


@torch.no_grad()
def correct(
    network: nn.Module, test_set: ImageSet, space: Space, device: torch.device | str = "cpu", precision: str = "fp32"
) -> torch.Tensor:
    """bool [N]: which test images the network classifies right (eval mode, no augmentation, no averaging)."""
    device = torch.device(device)
    network = network.to(device).eval()
    images = _Images(test_set, space, device)
    labels = test_set.hard_labels
    found = []
    for index in torch.arange(len(test_set)).split(EVAL_BATCH if device.type == "cpu" else 2048):
        with _precision(device, precision):
            predicted = network(images[index]).argmax(dim=1)
        found.append(predicted.cpu() == labels[index])
    return torch.cat(found)


def accuracy(
    network: nn.Module, test_set: ImageSet, space: Space, device: torch.device | str = "cpu", precision: str = "fp32"
) -> float:
    """Share of test images classified right, in [0, 1]."""
    return float(correct(network, test_set, space, device, precision).double().mean())


class _Images:
    """Images of a set in the working space: converted once when small, batch by batch when large."""

    def __init__(self, image_set: ImageSet, space: Space, device: torch.device):
        self.space, self.device = space, device
        if image_set.images.numel() * 4 <= KEEP_AS_FLOAT_BYTES:
            image_set = image_set.to_space(space)
        self.images, self.source = image_set.images.to(device), image_set

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
        picked = self.images[index.to(self.device)]
        if picked.is_floating_point():
            return picked
        chosen = ImageSet(picked, torch.zeros(len(picked), dtype=torch.int64), self.source.space, 1)
        return chosen.batch(slice(None), self.space)


def _loss(network, x, y, protocol: Protocol, generator: torch.Generator, precision: str) -> torch.Tensor:
    """Cross-entropy (soft labels are logits: DATM's convention), mixed by CutMix where the protocol says so."""
    x, y_a, y_b, ratio = cutmix(x, y, generator, protocol.cutmix, 1.0) if protocol.cutmix else (x, y, y, 1.0)
    with _precision(x.device, precision):
        logits = network(x)
    logits = logits.float() if precision != "fp32" else logits
    first = _cross_entropy(logits, y_a)
    return first if ratio == 1.0 else first * ratio + _cross_entropy(logits, y_b) * (1 - ratio)


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, labels.softmax(dim=1) if labels.ndim == 2 else labels)


def _precision(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    if precision == "fp32":
        return contextlib.nullcontext()
    if precision != "bf16":
        raise UsageError(f"Unknown precision '{precision}'.\nKnown: bf16, fp32.")
    return torch.autocast(device.type, torch.bfloat16)


# schedules: built once for a training, then called with (epoch, batch number) to give the optimiser of that step

Step = Callable[[int, int], torch.optim.Optimizer]


def _sgd(network: nn.Module, p: Protocol, lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(network.parameters(), lr=lr, momentum=p.momentum, weight_decay=p.weight_decay)


def _drop_restart(network: nn.Module, p: Protocol, lr: float, images: int) -> Step:
    """A new optimiser with lr x drop from the epoch after index epochs // 2 + 1 on, as the published loop makes it."""
    first, second = _sgd(network, p, lr), _sgd(network, p, lr * p.drop)
    return lambda epoch, number: first if epoch <= p.epochs // 2 + 1 else second


def _following(network: nn.Module, p: Protocol, lr: float, factor: Callable[[int, int], float]) -> Step:
    optimiser = _sgd(network, p, lr)

    def step(epoch: int, number: int) -> torch.optim.Optimizer:
        optimiser.param_groups[0]["lr"] = lr * factor(epoch, number)
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

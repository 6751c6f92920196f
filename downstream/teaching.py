"""Soft labels while networks are trained: of a teacher, asked at every step or stored by others (FKD); and the losses.

Decoupled methods (SRe2L and those after it) publish images whose worth lies in such labels: each crop and mix of an
image is labelled anew.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.augment import Draw
from distill.spaces import Space
from downstream.protocol import Protocol
from downstream.views import Views
from fyi_bench.errors import UsageError

Loss = Callable[[Tensor, Tensor], Tensor]  # of a network's answers [n, C] and labels; a mean over images


class StoredBatch(typing.Protocol):
    """Rows of the set, the crop and the mirror of each, the mix of all, and the teacher's logits for the result."""

    @property
    def rows(self) -> Tensor:
        """int64 [n]."""

    @property
    def flips(self) -> Tensor:
        """bool [n]."""

    @property
    def mix(self) -> typing.Any:
        """`partners` int64 [n], `share` of the image itself, `box` (top, left, bottom, right) or None; or None."""

    @property
    def logits(self) -> Tensor:
        """float [n, classes]."""

    def boxes_in(self, height: int, width: int) -> Tensor:
        """int64 [n, 4]: (top, left, height, width)."""


class StoredLabels(typing.Protocol):
    """Labels of every step of a training, as `fyi_bench.formats.fkd` reads them."""

    @property
    def epochs(self) -> int:
        """Passes over the set that are labelled."""

    @property
    def batches(self) -> int:
        """Batches of an epoch."""

    @property
    def batch_size(self) -> int:
        """Images of all of them but the last."""

    @property
    def images(self) -> int:
        """Images of the set."""

    @property
    def classes(self) -> int:
        """Its classes."""

    def batch(self, epoch: int, number: int) -> StoredBatch:
        """One of them."""


@dataclass(frozen=True)
class Teaching:
    """Where a teacher's labels come from: networks, whose logits are averaged, or files of every step.

    space: in which the networks see images, where it is not the one that is worked in.
    """

    networks: tuple[nn.Module, ...] = ()
    stored: StoredLabels | None = None
    space: Space | None = None

    def __post_init__(self) -> None:
        for network in self.networks:
            network.eval().requires_grad_(False)

    @torch.no_grad()
    def logits(self, x: Tensor, working: Space, answer: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
        """The mean of the networks' logits for images in the space `working`. answer(network, images): its logits."""
        if self.space is not None and self.space != working:
            x = self.space.encode(working.decode(x))
        return torch.stack([answer(network, x) for network in self.networks]).mean(0)

    def check(self, protocol: Protocol, images: int, classes: int) -> None:
        """UsageError where stored labels are of another set, or of another training than the protocol's."""
        stored = self.stored
        if stored is None:
            return
        if (stored.images, stored.classes) != (images, classes):
            raise UsageError(
                f"The stored labels are of {stored.images} images and {stored.classes} classes, the set has {images}"
                f" and {classes}.\nName the labels that were made for this set."
            )
        if protocol.epochs_for(images) > stored.epochs:
            raise UsageError(
                f"{protocol.name} trains for {protocol.epochs_for(images)} epochs, and labels of {stored.epochs} are"
                f" stored.\nTrain as long as they last: --set epochs={stored.epochs}."
            )
        if protocol.batch != stored.batch_size and images > min(protocol.batch, stored.batch_size):
            raise UsageError(
                f"The labels are stored in batches of {stored.batch_size}, and {protocol.name} has {protocol.batch}.\n"
                f"A mix is of one batch: --set batch={stored.batch_size}."
            )


def stored_step(batch: StoredBatch, size: int) -> tuple[Tensor, Draw, Views]:
    """Which images a stored step takes, their mirrors, and the rest of what it shows, with `logits`."""
    # the operation `flip` mirrors where its number is below one half
    draw = Draw.from_values(("flip", torch.where(batch.flips, 0.0, 1.0).double()[:, None]))
    views: Views = {"boxes": batch.boxes_in(size, size), "logits": batch.logits.float()}
    if batch.mix is not None:
        views |= {"permutation": batch.mix.partners, "ratios": torch.tensor([batch.mix.share], dtype=torch.float64)}
        if batch.mix.box is not None:
            top, left, bottom, right = batch.mix.box
            views["cut"] = torch.tensor([[top, bottom, left, right]])
    return batch.rows, draw, views


# kind of labels -> mean loss of a network's answers: cross-entropy, but for regression targets
LOSSES: dict[str, Loss] = {
    "hard": F.cross_entropy,
    "probabilities": F.cross_entropy,
    "logits": lambda answers, labels: F.cross_entropy(answers, labels.softmax(dim=1)),
    "targets": lambda answers, labels: (answers - labels).square().sum(dim=1).mean() / 2,
}


def divergence(answers: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """KL divergence of the softened answers from the softened labels, mean over images; no factor of temperature²."""
    return F.kl_div(
        (answers / temperature).log_softmax(dim=1), (logits / temperature).softmax(dim=1), reduction="batchmean"
    )


def loss_of(protocol: Protocol, kind: str) -> Loss:
    """The loss for labels of a kind; what is not soft, or is a regression target, has its own in every protocol."""
    if protocol.loss == "squared":  # of targets, which the trainer makes of any labels
        return lambda answers, labels: F.mse_loss(answers, labels) / 2
    if kind in ("hard", "targets") or (protocol.loss == "cross-entropy" and protocol.temperature == 1):
        return LOSSES[kind]
    temperature = protocol.temperature

    def as_logits(labels: Tensor) -> Tensor:
        return labels.clamp(min=1e-30).log() if kind == "probabilities" else labels

    if protocol.loss == "mse":
        return lambda answers, labels: F.mse_loss(answers, as_logits(labels))
    if protocol.loss == "kl":
        return lambda answers, labels: divergence(answers, as_logits(labels), temperature)
    return lambda answers, labels: F.cross_entropy(
        answers / temperature, (as_logits(labels) / temperature).softmax(dim=1)
    )

"""Training on a set's own ordered steps, each with its step size: how the sets of DD (Wang et al., 2018) are meant."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import search_space
from distill.contracts import MOST_LOSS_GROWTH
from distill.image_set import ImageSet
from downstream.protocol import Protocol
from downstream.teaching import LOSSES
from fyi_bench import rng
from fyi_bench.errors import DivergenceError, UsageError
from search_space.init import xavier_normal


def initial_weights(
    networks: Sequence[nn.Module], train_set: ImageSet, protocol: Protocol, seeds: Sequence[int]
) -> None:
    """Give fresh networks the initial weights of the protocol; of a set made for one network, that network's."""
    if protocol.initial == "default":
        return
    made = train_set.provenance.get("recipe", {})
    fixed = bool(made.get("fixed_init")) and made.get("model") == protocol.eval_model
    for network, seed in zip(networks, seeds, strict=True):
        generator = rng.stream(seed, "initial weights")
        if fixed:
            of_set = train_set.provenance["seed"]
            search_space.renew(network, protocol.eval_model, rng.stream(of_set, "network", "fixed"))
            generator = rng.stream(of_set, "initial weights", "fixed")
        xavier_normal(network, generator)


def batches_of(train_set: ImageSet) -> list[Tensor]:
    """int64 [b] for each ordered step: its images, some of each class. UsageError for a set without ordered steps."""
    sizes = train_set.lr
    if not isinstance(sizes, tuple) or train_set.ipc is None:
        raise UsageError(
            "The set has no ordered steps with step sizes of their own, which this protocol follows.\n"
            "Use the protocol for sets of DD, and another one for others."
        )
    made = train_set.provenance
    each = int({**made.get("imported", {}), **made.get("recipe", {})}.get("step_images", 1))
    if not each:
        raise UsageError("The set's steps do not show as many images of each class.\nUse another protocol.")
    rows = torch.stack([train_set.indices_of(label) for label in train_set.classes])
    batches = [part.flatten() for part in rows.split(each, dim=1)]
    return [batches[step % len(batches)] for step in range(len(sizes))]


def take_steps(network: nn.Module, images: Tensor, labels: Tensor, train_set: ImageSet, mirror: bool = False) -> float:
    """Move a network by the set's steps, in place; returns the mean loss of the steps.

    images [N, ch, H, W] and labels: as the network sees them, on its device. mirror: each step shows mirror images too.
    """
    kind = train_set.label_kind if labels.ndim == 2 else "hard"
    parameters, losses = list(network.train().parameters()), []
    assert isinstance(train_set.lr, tuple)
    for index, size in zip(batches_of(train_set), train_set.lr, strict=True):
        x, y = images[index], labels[index]
        if mirror:
            x, y = torch.cat([x, x.flip(-1)]), torch.cat([y, y])
        loss = LOSSES[kind](network(x), y)
        with torch.no_grad():
            for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter.sub_(size * slope)
        losses.append(float(loss.detach()))
    mean = sum(losses) / len(losses)
    if not all(abs(loss) <= MOST_LOSS_GROWTH for loss in losses):
        text = "Training by the set's steps diverged: the loss is not finite or beyond all measure."
        raise DivergenceError(text, step=len(losses))
    return mean

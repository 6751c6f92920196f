"""Retraining and the networks of an architecture search the plain way: torch's own layers, loop and optimiser."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.twins.augment import augment
from benchmarks.twins.matching import asked
from benchmarks.twins.network import plain_network
from distill.augment import Augmentation
from distill.contracts import Deadline
from distill.image_set import ImageSet
from downstream.nas import architecture_name
from downstream.protocol import Protocol
from fyi_bench import rng
from search_space.space720 import Point

_TEST_BATCH = 256


class Never:
    """A stop that is never asked for."""

    def requested(self) -> bool:
        return False

    def check(self) -> None: ...


def retrain(
    model: str, train_set: ImageSet, protocol: Protocol, seed: int, device: torch.device, stop: Deadline
) -> nn.Module:
    """A network trained on the set by the published procedure (`schedule = "drop-restart"`)."""
    network = plain_network(model, train_set.shape, train_set.num_classes, rng.stream(seed, "evaluation"))
    images, labels = train_set.images.to(device), train_set.labels.to(device)
    network = network.to(device=device, dtype=images.dtype).train()
    augmentation = Augmentation(protocol.eval_augment, dispatcher=protocol.eval_dispatcher)
    optimiser = _sgd(network, protocol, protocol.lr)
    for epoch in asked(stop, protocol.epochs_for(len(train_set))):
        order = torch.randperm(len(labels), generator=rng.stream(seed, "shuffle", epoch))
        for number, index in enumerate(order.split(protocol.batch)):
            index = index.to(device)
            x, generator = images[index], rng.stream(seed, "augment", epoch, number)
            x = augment(x, augmentation.draw(generator, len(x), x.shape[-1]), 0, augmentation.strength)
            loss = F.cross_entropy(network(x), labels[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        if epoch == protocol.epochs // 2 + 1:
            optimiser = _sgd(network, protocol, protocol.lr * protocol.drop)
    return network


def _sgd(network: nn.Module, p: Protocol, lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(network.parameters(), lr=lr, momentum=p.momentum, weight_decay=p.weight_decay)


@torch.no_grad()
def accuracy(network: nn.Module, test_set: ImageSet, device: torch.device) -> float:
    """Share of test images that are classified right."""
    network.eval()
    right = 0
    for x, y in zip(test_set.images.split(_TEST_BATCH), test_set.labels.split(_TEST_BATCH), strict=True):
        right += int((network(x.to(device)).argmax(1).cpu() == y).sum())
    return right / len(test_set)


def search(
    points: Sequence[Point], train_set: ImageSet, test_set: ImageSet, protocol: Protocol, device: torch.device
) -> Tensor:
    """Test accuracy [points] of networks of the space, trained one after another."""
    found = []
    for point in points:
        network = retrain(architecture_name(point), train_set, protocol, 0, device, Never())
        found.append(accuracy(network, test_set, device))
    return torch.tensor(found, dtype=torch.float64)

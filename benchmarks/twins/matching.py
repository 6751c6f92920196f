"""DC, DSA and DM the plain way: a loop over classes, the graphs of all of them kept until one backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.twins.augment import augment
from benchmarks.twins.network import PlainConvNet, plain_network
from distill.engine import Deadline
from distill.methods import METHODS
from distill.methods.dc import DCConfig
from distill.methods.dm import DMConfig
from distill.problem import Problem


def fresh_network(problem: Problem, model: str, *keys: int | str) -> PlainConvNet:
    """The network a method draws for these keys."""
    network = plain_network(model, problem.shape, problem.num_classes, problem.stream("network", *keys))
    assert isinstance(network, PlainConvNet)
    return network.to(device=problem.device, dtype=problem.dtype).train()


def real_images(problem: Problem) -> Tensor:
    """All real images as floats in the working space, as the published code keeps them."""
    return problem.images_at(torch.arange(len(problem.real)))


def asked(stop: Deadline, count: int) -> Iterator[int]:
    """Numbers up to `count`; before each, `stop` may end the loop."""
    for number in range(count):
        if stop.requested():
            stop.check()
        yield number


class PlainRun:
    """What the plain ways share: the images with their optimiser, real images, batches of one class after another."""

    def __init__(self, method: str, problem: Problem, config: Any):
        self.problem, self.config = problem, config
        self.start = METHODS.get(method)(config, problem)
        self.images = self.start.initial_images().detach().requires_grad_(True)
        self.optimiser = torch.optim.SGD([self.images], lr=config.lr_img, momentum=config.momentum_img)

    @cached_property
    def real(self) -> Tensor:
        """All real images."""
        return real_images(self.problem)

    def network(self, *keys: int | str) -> PlainConvNet:
        """A fresh one."""
        return fresh_network(self.problem, self.config.model, *keys)

    def inner(self, network: nn.Module) -> torch.optim.SGD:
        """The optimiser of a network that is trained between two matches."""
        c = self.config
        return torch.optim.SGD(network.parameters(), lr=c.lr_net, momentum=c.momentum_net, weight_decay=c.wd_net)

    def pairs(self, *keys: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(class, its real images, its synthetic ones), augmented by the same draw in calls of their own."""
        problem, augmentation = self.problem, self.start.augmentation
        draw = augmentation.draw_classes(problem.stream("augment", *keys), problem.num_classes, problem.shape[-1])
        rows = problem.draw_rows(self.config.batch_real, "real", *keys)
        for c in range(problem.num_classes):
            real = augment(self.real[rows[c]], draw, c, augmentation.strength)
            synthetic = self.images[c * problem.ipc : (c + 1) * problem.ipc]
            yield c, real, augment(synthetic, draw, c, augmentation.strength)

    def zero(self) -> Tensor:
        """Where a sum of losses begins."""
        return torch.zeros((), dtype=self.problem.dtype, device=self.problem.device)

    def step(self, loss: Tensor) -> None:
        """Move the images against the gradient of the loss."""
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()


def dc(problem: Problem, config: DCConfig, stop: Deadline, method: str = "dc") -> Tensor:
    """The images after DC, or DSA where the recipe augments (Zhao et al., 2021, Algorithm 1)."""
    run = PlainRun(method, problem, config)
    for iteration in asked(stop, config.iterations):
        network = run.network(iteration)
        inner, weights = run.inner(network), list(network.parameters())
        for match in range(config.outer_loop):
            loss = run.zero()
            for c, real, synthetic in run.pairs(iteration, match):
                wanted = [g.detach().clone() for g in torch.autograd.grad(class_loss(network, real, c), weights)]
                found = torch.autograd.grad(class_loss(network, synthetic, c), weights, create_graph=True)
                loss = loss + sum(_layer_distance(a, b) for a, b in zip(found, wanted, strict=True))
            run.step(loss)
            if match == config.outer_loop - 1:
                break
            for epoch in range(config.inner_loop):
                _train_epoch(run, network, inner, (epoch, iteration, match))
    return run.images.detach()


def class_loss(network: nn.Module, images: Tensor, c: int) -> Tensor:
    """Cross-entropy of images of one class."""
    labels = torch.full((len(images),), c, dtype=torch.int64, device=images.device)
    return F.cross_entropy(network(images), labels)


def _layer_distance(a: Tensor, b: Tensor) -> Tensor | float:
    """1 - cosine of each output node's weights, summed; vectors count nothing."""
    if a.ndim < 2:
        return 0.0
    a, b = a.flatten(1), b.flatten(1)
    return (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()


def _train_epoch(run: PlainRun, network: nn.Module, optimiser: torch.optim.SGD, keys: tuple[int, int, int]) -> None:
    problem, augmentation, images = run.problem, run.start.augmentation, run.images.detach()
    labels = torch.arange(problem.num_classes, device=problem.device).repeat_interleave(problem.ipc)
    epoch, *when = keys
    order = torch.randperm(len(labels), generator=problem.stream("inner order", epoch, *when))
    for number, index in enumerate(order.split(run.config.batch_train)):
        index = index.to(images.device)
        generator = problem.stream("inner augment", epoch, number, *when)
        x = images[index]
        x = augment(x, augmentation.draw(generator, len(x), x.shape[-1]), 0, augmentation.strength)
        optimiser.zero_grad()
        F.cross_entropy(network(x), labels[index]).backward()
        optimiser.step()


def dm(problem: Problem, config: DMConfig, stop: Deadline) -> Tensor:
    """The images after DM (Zhao and Bilen, 2023, Algorithm 1)."""
    run = PlainRun("dm", problem, config)
    for iteration in asked(stop, config.iterations):
        network = run.network(iteration).requires_grad_(False)
        loss = run.zero()
        for _, real, synthetic in run.pairs(iteration, 0):
            wanted = network.embed(real).detach().mean(0)
            loss = loss + (wanted - network.embed(synthetic).mean(0)).square().sum()
        run.step(loss)
    return run.images.detach()

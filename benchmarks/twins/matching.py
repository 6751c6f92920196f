"""DC, DSA and DM the plain way: a loop over classes, the graphs of all of them kept until one backward pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.twins.augment import augment
from benchmarks.twins.network import PlainConvNet, plain_network
from distill.contracts import Deadline
from distill.method import METHODS
from distill.methods.dc import DCConfig
from distill.methods.dm import DMConfig
from distill.problem import Problem


def fresh_network(problem: Problem, model: str, *keys: int | str) -> PlainConvNet:
    """The network a method draws for these keys."""
    network = plain_network(model, problem.shape, problem.num_classes, problem.stream("network", *keys))
    return network.to(device=problem.device, dtype=problem.dtype).train()


def real_images(problem: Problem) -> Tensor:
    """All real images as floats in the working space, as the published code keeps them."""
    return problem.images_at(torch.arange(len(problem.real)))


def dc(problem: Problem, config: DCConfig, stop: Deadline, method: str = "dc") -> Tensor:
    """The images after DC, or DSA where the recipe augments (Zhao et al., 2021, Algorithm 1)."""
    start = METHODS.get(method)(config, problem)
    images = start.initial_images().detach().requires_grad_(True)
    labels = torch.arange(problem.num_classes, device=problem.device).repeat_interleave(problem.ipc)
    optimiser = torch.optim.SGD([images], lr=config.lr_img, momentum=config.momentum_img)
    everything = real_images(problem)
    for iteration in range(config.iterations):
        if stop.requested():
            stop.check()
        network = fresh_network(problem, config.model, iteration)
        inner = torch.optim.SGD(
            network.parameters(), lr=config.lr_net, momentum=config.momentum_net, weight_decay=config.wd_net
        )
        for match in range(config.outer_loop):
            loss = _gradient_loss(problem, config, start.augmentation, network, images, everything, iteration, match)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if match == config.outer_loop - 1:
                break
            for epoch in range(config.inner_loop):
                keys = (epoch, iteration, match)
                _train_epoch(problem, config, start.augmentation, network, inner, images.detach(), labels, keys)
    return images.detach()


def _gradient_loss(problem, config, augmentation, network, images, everything, iteration, match) -> Tensor:
    weights = list(network.parameters())
    draw = augmentation.draw_classes(
        problem.stream("augment", iteration, match), problem.num_classes, problem.shape[-1]
    )
    rows = problem.draw_rows(config.batch_real, "real", iteration, match)
    loss = torch.zeros((), dtype=problem.dtype, device=problem.device)
    for c in range(problem.num_classes):
        real = augment(everything[rows[c]], draw, c, augmentation.strength)
        synthetic = augment(images[c * problem.ipc : (c + 1) * problem.ipc], draw, c, augmentation.strength)
        wanted = torch.autograd.grad(_class_loss(network, real, c), weights)
        wanted = [g.detach().clone() for g in wanted]
        found = torch.autograd.grad(_class_loss(network, synthetic, c), weights, create_graph=True)
        loss = loss + sum(_layer_distance(a, b) for a, b in zip(found, wanted, strict=True))
    return loss


def _class_loss(network: PlainConvNet, images: Tensor, c: int) -> Tensor:
    labels = torch.full((len(images),), c, dtype=torch.int64, device=images.device)
    return F.cross_entropy(network(images), labels)


def _layer_distance(a: Tensor, b: Tensor) -> Tensor | float:
    """1 - cosine of each output node's weights, summed; vectors count nothing."""
    if a.ndim < 2:
        return 0.0
    a, b = a.flatten(1), b.flatten(1)
    return (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()


def _train_epoch(problem, config, augmentation, network, optimiser, images, labels, keys) -> None:
    epoch, iteration, match = keys
    order = torch.randperm(len(labels), generator=problem.stream("inner order", epoch, iteration, match))
    for number, index in enumerate(order.split(config.batch_train)):
        index = index.to(images.device)
        generator = problem.stream("inner augment", epoch, number, iteration, match)
        x = images[index]
        x = augment(x, augmentation.draw(generator, len(x), x.shape[-1]), 0, augmentation.strength)
        optimiser.zero_grad()
        F.cross_entropy(network(x), labels[index]).backward()
        optimiser.step()


def dm(problem: Problem, config: DMConfig, stop: Deadline) -> Tensor:
    """The images after DM (Zhao and Bilen, 2023, Algorithm 1)."""
    start = METHODS.get("dm")(config, problem)
    images = start.initial_images().detach().requires_grad_(True)
    optimiser = torch.optim.SGD([images], lr=config.lr_img, momentum=config.momentum_img)
    everything, augmentation = real_images(problem), start.augmentation
    for iteration in range(config.iterations):
        if stop.requested():
            stop.check()
        network = fresh_network(problem, config.model, iteration).requires_grad_(False)
        draw = augmentation.draw_classes(
            problem.stream("augment", iteration, 0), problem.num_classes, problem.shape[-1]
        )
        rows = problem.draw_rows(config.batch_real, "real", iteration, 0)
        loss = torch.zeros((), dtype=problem.dtype, device=problem.device)
        for c in range(problem.num_classes):
            real = augment(everything[rows[c]], draw, c, augmentation.strength)
            synthetic = augment(images[c * problem.ipc : (c + 1) * problem.ipc], draw, c, augmentation.strength)
            wanted = network.embed(real).detach().mean(0)
            loss = loss + (wanted - network.embed(synthetic).mean(0)).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return images.detach()

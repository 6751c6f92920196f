"""MTT the plain way: one graph through all steps of the student; and the expert's training in torch's own loop."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.twins.augment import augment
from benchmarks.twins.matching import PlainRun, asked, real_images
from benchmarks.twins.network import plain_network
from distill.augment import Augmentation
from distill.contracts import Deadline
from distill.experts import ExpertConfig
from distill.methods.mtt import MTTConfig
from distill.problem import Problem


def mtt(problem: Problem, config: MTTConfig, stop: Deadline) -> tuple[Tensor, Tensor]:
    """(images, step size) after MTT (Cazenavette et al., 2022, Algorithm 1)."""
    assert problem.experts is not None
    run = PlainRun("mtt", problem, config)
    lr = torch.tensor(config.lr_teacher, dtype=problem.dtype, device=problem.device, requires_grad=True)
    lr_optimiser = torch.optim.SGD([lr], lr=config.lr_lr, momentum=config.momentum_lr)
    network, experts = run.network("student shell"), problem.experts()
    for iteration in asked(stop, config.iterations):
        turn, position = divmod(iteration, len(experts))
        order = torch.randperm(len(experts), generator=problem.stream("experts", turn))
        epoch = int(torch.randint(config.max_start_epoch, (), generator=problem.stream("start epoch", iteration, 0)))
        expert = experts[int(order[position])]
        begin, target = (expert.at(e).to(problem.device, problem.dtype) for e in (epoch, epoch + config.expert_epochs))
        end = _student(run, network, lr, begin, iteration)
        lr_optimiser.zero_grad()
        run.step((end - target).square().sum() / (begin - target).square().sum())
        lr_optimiser.step()
    return run.images.detach(), lr.detach()


def _student(run: PlainRun, network: nn.Module, lr: Tensor, begin: Tensor, iteration: int) -> Tensor:
    """The weights where a student ends that starts at `begin`."""
    problem, config, augmentation = run.problem, run.config, run.start.augmentation
    labels = torch.arange(problem.num_classes, device=problem.device).repeat_interleave(problem.ipc)
    named = dict(network.named_parameters())
    sizes, rounds = [p.numel() for p in named.values()], 0
    pieces: list[Tensor] = []
    weights = begin.clone().requires_grad_(True)
    for step in range(config.syn_steps):
        if not pieces:
            order = torch.randperm(len(labels), generator=problem.stream("student order", rounds, iteration, 0))
            pieces, rounds = list(order.split(min(config.batch_syn or len(labels), len(labels)))), rounds + 1
        index = pieces.pop().to(problem.device)
        generator = problem.stream("student augment", step, iteration, 0)
        x = run.images[index]
        x = augment(x, augmentation.draw(generator, len(x), x.shape[-1]), 0, augmentation.strength)
        parts = zip(named, weights.split(sizes), strict=True)
        values = {name: part.view_as(named[name]) for name, part in parts}
        logits = torch.func.functional_call(network, values, (x,))
        gradient = torch.autograd.grad(F.cross_entropy(logits, labels[index]), weights, create_graph=True)[0]
        weights = weights - lr * gradient
    return weights


def expert(problem: Problem, config: ExpertConfig, stop: Deadline) -> Tensor:
    """Weights [epochs + 1, P] of an expert in training: at the start, and after each epoch."""
    network = plain_network(config.model, problem.shape, problem.num_classes, problem.stream("expert network"))
    network = network.to(device=problem.device, dtype=problem.dtype).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.wd)
    augmentation = Augmentation(config.augment, dispatcher=config.dispatcher)
    rows = torch.cat(problem.rows)
    images = real_images(problem)[rows]
    labels = torch.repeat_interleave(torch.tensor([len(r) for r in problem.rows])).to(problem.device)
    kept = [_flat(network)]
    for epoch in range(config.epochs):
        order = torch.randperm(len(rows), generator=problem.stream("expert order", epoch))
        for number in range(math.ceil(len(rows) / config.batch)):
            if stop.requested():
                stop.check()
            index = order[number * config.batch : (number + 1) * config.batch].to(problem.device)
            x, generator = images[index], problem.stream("expert augment", epoch, number)
            x = augment(x, augmentation.draw(generator, len(x), x.shape[-1]), 0, augmentation.strength)
            optimiser.zero_grad()
            F.cross_entropy(network(x), labels[index]).backward()
            optimiser.step()
        kept.append(_flat(network))
    return torch.stack(kept)


def _flat(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()]).cpu()

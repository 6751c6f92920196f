"""Optimisers and their step sizes over a training, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from distill.optimisers import SGD, Adam, AdamW
from downstream.protocol import Protocol
from fyi_bench.registry import pick

WARM = 500  # steps of the schedule 'warm-cosine' until the step size is whole

# schedules: built once for a training, then called with (epoch, batch number) to give the optimiser of that step

Step = Callable[[int, float], torch.optim.Optimizer]


def _sgd(groups: Any, p: Protocol, lr: Any) -> torch.optim.Optimizer:
    return SGD(groups, lr=lr, momentum=p.momentum, weight_decay=p.weight_decay, fused=True)


def _adamw(groups: Any, p: Protocol, lr: Any) -> torch.optim.Optimizer:
    return AdamW(groups, lr=lr, weight_decay=p.weight_decay, fused=True, capturable=isinstance(lr, torch.Tensor))


def _adam(groups: Any, p: Protocol, lr: Any) -> torch.optim.Optimizer:
    return Adam(groups, lr=lr, weight_decay=p.weight_decay, fused=True, capturable=isinstance(lr, torch.Tensor))


OPTIMISERS: dict[str, Callable[[Any, Protocol, Any], torch.optim.Optimizer]] = {
    "sgd": _sgd, "adam": _adam, "adamw": _adamw,
}  # fmt: skip


def _optimiser(network: nn.Module, p: Protocol, lr: float) -> torch.optim.Optimizer:
    parameters = list(network.parameters())
    device = parameters[0].device
    # a recorded step reads its step size when it runs
    step_size = torch.tensor(lr, device=device) if device.type == "cuda" else lr
    groups: Any = parameters
    if p.decay == "matrices":  # neither biases nor norms decay (SRe2L, RDED)
        vectors = {"params": [w for w in parameters if w.ndim < 2], "weight_decay": 0.0}
        groups = [{"params": [w for w in parameters if w.ndim > 1]}, *([vectors] if vectors["params"] else [])]
    return pick("optimiser", p.optimiser, OPTIMISERS)(groups, p, step_size)


def _drop_restart(network: nn.Module, p: Protocol, lr: float, images: int) -> Step:
    """A new optimiser with lr x drop from the epoch after index epochs // 2 + 1 on, as the published loop makes it."""
    first, second = _optimiser(network, p, lr), _optimiser(network, p, lr * p.drop)
    return lambda epoch, number: first if epoch <= p.epochs // 2 + 1 else second


def _following(network: nn.Module, p: Protocol, lr: float, factor: Callable[[int, float], float]) -> Step:
    optimiser = _optimiser(network, p, lr)

    def step(epoch: int, number: float) -> torch.optim.Optimizer:
        now = lr * factor(epoch, number)
        for group in optimiser.param_groups:
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


def _cosine_epochs(network: nn.Module, p: Protocol, lr: float, images: int) -> Step:
    total = p.epochs_for(images)
    return _following(network, p, lr, lambda epoch, number: 0.5 * (1 + math.cos(math.pi * epoch / total)))


def _half_cosine(network: nn.Module, p: Protocol, lr: float, images: int) -> Step:
    """Epoch by epoch along a cosine of twice the length, which ends at half the step size (RDED, EDC, DD-Ranking)."""
    total = 2 * p.epochs_for(images)
    return _following(network, p, lr, lambda epoch, number: 0.5 * (1 + math.cos(math.pi * epoch / total)))


def _warm_cosine(network: nn.Module, p: Protocol, lr: float, images: int) -> Step:
    """Up from 0 in `WARM` steps, then along a cosine to a hundredth, step by step (FRePo)."""
    batches = math.ceil(images / p.batch)
    rest = max(1, p.epochs_for(images) * batches - WARM)

    def factor(epoch: int, number: float) -> float:
        step = epoch * batches + number
        return step / WARM if step < WARM else 0.01 + 0.99 * (1 + math.cos(math.pi * (step - WARM) / rest)) / 2

    return _following(network, p, lr, factor)


def _constant(network: nn.Module, p: Protocol, lr: float, images: int) -> Step:
    return _following(network, p, lr, lambda epoch, number: 1.0)


SCHEDULES: dict[str, Callable[[nn.Module, Protocol, float, int], Step]] = {
    "drop-restart": _drop_restart,
    "milestones": _milestones,
    "cosine": _cosine,
    "cosine-epochs": _cosine_epochs,
    "half-cosine": _half_cosine,
    "warm-cosine": _warm_cosine,
    "constant": _constant,
}
BY_STEP = frozenset({"cosine", "warm-cosine", "constant"})  # the others know epochs alone


def schedule(network: nn.Module, p: Protocol, lr: float, images: int) -> Step:
    """The protocol's schedule for a training on so many images, squeezed into its `passes` where it has some."""
    made = SCHEDULES[p.schedule](network, replace(p, passes=0), lr, images)
    if not p.passes:
        return made
    epochs, batches = replace(p, passes=0).epochs_for(images), math.ceil(images / p.batch)

    def step(epoch: int, number: float) -> torch.optim.Optimizer:
        seen, rest = divmod((epoch * batches + number) * epochs, p.passes * batches)
        return made(int(seen), rest / p.passes)

    return step

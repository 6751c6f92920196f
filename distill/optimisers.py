"""PyTorch's optimisers, number for number, without its compiler.

The first step of an optimiser of `torch.optim` imports `torch._dynamo` and sympy, so as to keep the compiler out of
itself: 2 CPU-seconds in every process that trains. Nothing is compiled here, so the same functions are taken without
that guard. Where a version of torch has no guard, they are what they were.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch


class Optimiser(torch.optim.Optimizer):
    """Base of an optimiser that loads no compiler."""

    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)


def _without_gradient(step: Any) -> Any:
    """The step of an optimiser of torch, unguarded; what the guard does besides is to record no gradient."""
    return torch.no_grad()(inspect.unwrap(step))


class SGD(Optimiser, torch.optim.SGD):
    """`torch.optim.SGD` that loads no compiler."""

    step = _without_gradient(torch.optim.SGD.step)


class Adam(Optimiser, torch.optim.Adam):
    """`torch.optim.Adam` that loads no compiler."""

    step = _without_gradient(torch.optim.Adam.step)


class AdamW(Optimiser, torch.optim.AdamW):
    """`torch.optim.AdamW` that loads no compiler."""

    step = _without_gradient(torch.optim.AdamW.step)

"""PyTorch's optimisers, number for number, without its compiler; and LAMB.

The first step of an optimiser of `torch.optim` imports `torch._dynamo` and sympy, so as to keep the compiler out of
itself: 2 CPU-seconds in every process that trains. Nothing is compiled here, so the same functions are taken without
that guard. Where a version of torch has no guard, they are what they were.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor


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


class LAMB(Optimiser):
    """Adam whose step is made as long as the tensor it moves (You et al., ICLR 2020), as optax has it, without decay.

    Adam's step times |x| / |step|, one ratio a tensor. Where the tensor or the step is 0 the ratio is 1.
    """

    def __init__(self, groups: Any, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-6):
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps})

    @overload
    def step(self, closure: None = ...) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of all tensors that have a gradient."""
        for group in self.param_groups:
            for tensor in (t for t in group["params"] if t.grad is not None):
                tensor.sub_(group["lr"] * self._direction(tensor, group))
        return None if closure is None else closure()

    def _direction(self, tensor: Tensor, group: dict[str, Any]) -> Tensor:
        state, (first, second), gradient = self.state[tensor], group["betas"], tensor.grad
        assert gradient is not None
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(tensor), torch.zeros_like(tensor)
        state["step"] += 1
        count = float(state["step"])
        mean = state["exp_avg"].lerp_(gradient, 1 - first) / (1 - first**count)
        square = state["exp_avg_sq"].lerp_(gradient.square(), 1 - second) / (1 - second**count)
        direction = mean / (square.sqrt() + group["eps"])
        size, length = tensor.norm(), direction.norm()
        # without a question to the host, which would wait for a GPU
        ratio = torch.where((size == 0) | (length == 0), torch.ones_like(size), size / length)
        return ratio * direction

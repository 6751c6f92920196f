"""LAMB: Adam whose step is made as long as the tensor it moves (You et al., ICLR 2020)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor

from distill.optimisers import Optimiser


class LAMB(Optimiser):
    """Adam's step times |x| / |step|, one ratio a tensor, as optax has it without weight decay.

    Where the tensor or the step is 0 the ratio is 1.
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

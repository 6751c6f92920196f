"""2x2 average pooling that is fast on a CPU and differentiable twice.

PyTorch's CPU kernels for `avg_pool2d` on contiguous maps are not vectorised: they took a third of a small
ConvNet's training step. Adding rows, then columns, and spreading gradients by a product with a 0/0.25 matrix, is the
same sum in another order and 4 times as fast there (`python -m benchmarks kernels --only pooling`).
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class AveragePool2x2(nn.Module):
    """Mean of each 2x2 square of maps [N, C, H, W]; an odd last row or column is left out."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        fits = maps.device.type == "cpu" and maps.is_contiguous() and not (maps.shape[-1] % 2 or maps.shape[-2] % 2)
        return _Pool.apply(maps) if fits else F.avg_pool2d(maps, 2)


class _Pool(torch.autograd.Function):
    """Mean of 2x2 squares; its derivative is `_Spread`, whose derivative is this again (the map is linear)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(maps: torch.Tensor) -> torch.Tensor:
        rows = maps[..., 0::2, :] + maps[..., 1::2, :]
        return (rows[..., 0::2] + rows[..., 1::2]).mul_(0.25)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing of the input is needed."""

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return _Spread.apply(grad)


class _Spread(torch.autograd.Function):
    """A quarter of each entry on each place of its 2x2 square."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: torch.Tensor) -> torch.Tensor:
        n, c, h, w = grad.shape
        wide = grad.reshape(-1, w) @ _spreading_matrix(w, grad.dtype)
        return wide.view(n, c, h, 1, 2 * w).expand(n, c, h, 2, 2 * w).reshape(n, c, 2 * h, 2 * w)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing of the input is needed."""

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return _Pool.apply(grad.contiguous())


@functools.lru_cache(maxsize=64)
def _spreading_matrix(width: int, dtype: torch.dtype) -> torch.Tensor:
    """[width, 2·width] with 0.25 where a column comes from an entry."""
    columns = torch.arange(2 * width)
    return torch.zeros(width, 2 * width, dtype=dtype).index_put_(
        (columns // 2, columns), torch.tensor(0.25, dtype=dtype)
    )

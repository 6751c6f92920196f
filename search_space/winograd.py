"""3x3 convolutions on a CPU by Winograd's minimal filtering: 2.25 or 4 times fewer multiplications than the plain sum.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016; the formulas stand in winograd.cpp. The
library PyTorch calls multiplies at the processor's peak in fp32, so that only fewer multiplications can be faster. The
result is the same function with other rounding: on a 128-channel layer the root mean square error is 3e-7 of the result
with tiles of 2x2 outputs and 1e-6 with 4x4, where the plain sum's is 2e-7 to 4e-7.

Maps may be bf16: they are read and written so, and everything between is fp32, weights and weight gradients too. Where
the processor has no matrix unit for bf16, that is also faster than its bf16 convolution.

`python -m benchmarks kernels --only winograd` prints these errors and how much faster it is than PyTorch's convolution.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor

from search_space.native import call, channels_last, library

SOURCE = Path(__file__).with_name("winograd.cpp")
_TYPES = {torch.float32: torch.float32, torch.float64: torch.float64, torch.bfloat16: torch.float32}
_PLAIN_GEOMETRY = ((1, 1), (1, 1), (1, 1))  # stride, padding, dilation

# what transforming a kernel costs beside the products, from times with 1 to 32 images of 4 to 16 px
_KERNEL_IN_TILES = 9
# maps up to this side go this way even where a matrix unit multiplies bf16. Its times by ours, forward and backward:
# for 100 images of 512 maps of 2 px 1.5 and 2.5, of 4 px 0.5 and 1.2, for 256 maps of 8 px 0.25 and 0.55
_TINY = 2


def tile_for(maps: Tensor, weight: Tensor, geometry: tuple) -> int:
    """Side of the tiles, 4 or 2, that is best for maps [N, ·, H, W] and weight [O, I, h, w], or 0.

    geometry: stride, padding, dilation. 0: not here (another device, type or geometry, odd channels, no compiler).
    Depends on sizes alone, so input, output and gradients of a layer go the same way.
    """
    if maps.device.type != "cpu" or maps.dtype not in _TYPES or maps.dim() != 4 or not maps.numel():
        return 0
    if (
        tuple(weight.shape[2:]) != (3, 3)
        or tuple(map(tuple, geometry)) != _PLAIN_GEOMETRY
        or (compiled := library(SOURCE)) is None
    ):
        return 0
    if maps.dtype == torch.bfloat16 and max(maps.shape[2:]) > _TINY and compiled.has_bf16_matrices():
        return 0
    lanes = compiled.lanes(_TYPES[maps.dtype].itemsize)
    if weight.shape[0] % lanes or weight.shape[1] % lanes:
        return 0
    return _best_tile(maps.shape[0], *maps.shape[2:])


@functools.lru_cache(maxsize=256)
def _best_tile(images: int, height: int, width: int) -> int:
    def cost(side: int) -> int:
        tiles = images * -(-height // side) * -(-width // side)
        return (side + 2) ** 2 * (tiles + _KERNEL_IN_TILES)

    return min((2, 4), key=cost)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, tile: int, turned: bool = False) -> Tensor:
    """x [N, I, H, W] with weight [O, I, 3, 3] and bias [O] -> [N, O, H, W], channels-last; no graph.

    turned: x [N, O, H, W] is the output's gradient and the result [N, I, H, W] the input's. tile: what `tile_for` said.
    """
    x, weight = channels_last(x), _plain(weight, x)
    n, channels, height, width = x.shape
    result = weight.shape[1 if turned else 0]
    out = torch.empty((n, result, height, width), dtype=x.dtype, memory_format=torch.channels_last)
    sizes = (n, height, width, channels, result, torch.get_num_threads(), tile, int(turned))
    call(SOURCE, "convolve", x.dtype, sizes, x, weight, None if bias is None else _plain(bias, x), out)
    return out


def weight_gradient(x: Tensor, grad: Tensor, tile: int) -> Tensor:
    """Gradient [O, I, 3, 3] of the weight from x [N, I, H, W] and the output's gradient [N, O, H, W]; no graph.

    fp32 where these are bf16.
    """
    x, grad = channels_last(x), channels_last(grad)
    n, channels, height, width = x.shape
    found = torch.empty((grad.shape[1], channels, 3, 3), dtype=_TYPES[x.dtype])
    sizes = (n, height, width, channels, grad.shape[1], torch.get_num_threads(), tile, 0)
    call(SOURCE, "weight_gradient", x.dtype, sizes, x, grad, found)
    return found


def _plain(parameter: Tensor, x: Tensor) -> Tensor:
    return parameter.detach().to(_TYPES[x.dtype]).contiguous()

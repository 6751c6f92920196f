"""3x3 convolutions of images on a CPU as products with patches: see patches.cpp.

An image has too few channels for minimal filtering, and the library PyTorch calls takes three times as long for the
gradient by the images, which every distillation step needs. Images are read in whatever layout they have.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from search_space.native import call, channels_last, library

SOURCE = Path(__file__).with_name("patches.cpp")
MOST_CHANNELS = 4
_TYPES = (torch.float32, torch.float64)


def fits(maps: Tensor, weight: Tensor, geometry: tuple) -> bool:
    """Whether a convolution of maps [N, ·, H, W] with weight [O, I, h, w] is one of these.

    maps: its input or its output; geometry: stride, padding, dilation.
    """
    stride, padding, dilation = (tuple(value) for value in geometry)
    if maps.device.type != "cpu" or maps.dtype not in _TYPES or maps.dim() != 4 or not maps.numel():
        return False
    if tuple(weight.shape[2:]) != (3, 3) or stride != (1, 1) or dilation != (1, 1) or padding[0] != padding[1]:
        return False
    found = library(SOURCE) if weight.shape[1] <= MOST_CHANNELS else None
    return found is not None and weight.shape[0] % found.lanes(maps.dtype.itemsize) == 0


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """x [N, I, H, W] with weight [O, I, 3, 3] and bias [O] -> [N, O, H + 2 padding - 2, …], channels-last; no graph."""
    x, n, grown = x.detach(), x.shape[0], 2 * padding - 2
    shape = (n, weight.shape[0], x.shape[2] + grown, x.shape[3] + grown)
    bias = x.new_zeros(shape[1]) if bias is None else _plain(bias)
    out = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
    call(SOURCE, "convolve", x.dtype, sizes(x, weight, padding), x, _plain(weight), bias, out)
    return out


def weight_gradient(x: Tensor, grad: Tensor, weight: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    """Gradients of weight [O, I, 3, 3], whose shape is read only, and bias [O] from the output's; no graph."""
    by_weight = torch.empty(weight.shape, dtype=x.dtype)
    by_bias = torch.empty(weight.shape[0], dtype=x.dtype)
    given = sizes(x, weight, padding)
    call(SOURCE, "weight_gradient", x.dtype, given, x.detach(), channels_last(grad), by_weight, by_bias)
    return by_weight, by_bias


def input_gradient(x: Tensor, grad: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Gradient of the input, whose shape is read only, from the output's; contiguous, no graph."""
    by_input = torch.empty(x.shape, dtype=x.dtype)
    given = sizes(x, weight, padding)
    call(SOURCE, "input_gradient", x.dtype, given, channels_last(grad), _plain(weight), by_input)
    return by_input


def sizes(x: Tensor, weight: Tensor, padding: int) -> tuple[int, ...]:
    """What the library is told of a convolution, and its threads."""
    return (*x.shape, *x.stride(), weight.shape[0], padding, torch.get_num_threads())


def _plain(parameter: Tensor) -> Tensor:
    return parameter.detach().contiguous()

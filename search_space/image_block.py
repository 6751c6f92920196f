"""A network's first block on a CPU at once: convolution of images, norm, activation and pooling (image_block.h).

For images that carry no gradient: real ones, and synthetic ones in training. The convolution's output, most of a
ConvNet's memory, is never written; the derivatives by the parameters compute it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from search_space import patches
from search_space.convolution import Convolution, convolve_with_graph, geometry_of
from search_space.fused import BATCH, Plan, norm_act_pool
from search_space.native import call


def fits(images: Tensor, conv: nn.Conv2d, how: Plan | None) -> bool:
    """Whether a block of this convolution and `how` for the rest goes at once for these images."""
    if how is None or how.over == BATCH or how.elements or images.requires_grad:
        return False
    if type(conv) is not Convolution or conv.bias is None or isinstance(conv.padding, str):
        return False
    if not patches.fits(images, conv.weight, geometry_of(conv)) or images.dtype != conv.weight.dtype:
        return False
    grown = 2 * conv.padding[0] - 2
    odd = (images.shape[2] + grown) % 2 or (images.shape[3] + grown) % 2
    return not (how.pool and odd)


def image_block(images: Tensor, conv: nn.Conv2d, weight: Tensor | None, bias: Tensor | None, how: Plan) -> Tensor:
    """pool(act(norm(conv(images)))) with the norm's weight and bias [C], channels-last; bf16 under autocast to it.

    Differentiable by the parameters; a second time too, then by the operations one by one.
    """
    narrow = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    kind = torch.bfloat16 if narrow and images.dtype == torch.float32 else images.dtype
    return _ImageBlock.apply(images, conv.weight, conv.bias, weight, bias, geometry_of(conv)[1][0], how, kind)


class _ImageBlock(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None,
        padding: int, how: Plan, kind: torch.dtype,
    ) -> Tensor:  # fmt: skip
        n, channels = images.shape[0], weight.shape[0]
        height, width = (side + 2 * padding - 2 for side in images.shape[2:])
        step = 2 if how.pool else 1
        shape = (n, channels, height // step, width // step)
        out = torch.empty(shape, dtype=kind, memory_format=torch.channels_last)
        mean, rstd = images.new_empty(n, channels), images.new_empty(n, channels)
        given = _given((images, weight, bias, norm_weight, norm_bias), padding, how)
        call(how.source, "image_block_forward", kind, *given, out, mean, rstd)
        ctx.save_for_backward(images, weight, bias, norm_weight, norm_bias, mean, rstd)
        ctx.padding, ctx.how, ctx.kind = padding, how, kind
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        *inputs, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():  # asked for with create_graph
            return (*_one_by_one(grad, inputs, ctx), None, None, None)
        by_weight, by_bias = torch.empty_like(inputs[1]), torch.empty_like(inputs[2])
        sum1, sum2 = torch.zeros_like(mean), torch.zeros_like(mean)
        grad = grad.to(ctx.kind).contiguous(memory_format=torch.channels_last)
        given = _given(inputs, ctx.padding, ctx.how)
        call(ctx.how.source, "image_block_backward", ctx.kind, *given, grad, mean, rstd, by_weight, by_bias, sum1, sum2)
        by_norm = (None, None) if inputs[3] is None else (sum2.sum(0), sum1.sum(0))
        return None, by_weight, by_bias, *by_norm, None, None, None


def _given(inputs: Sequence[Any], padding: int, how: Plan) -> tuple[Any, ...]:
    """What both directions are called with first; inputs: images, weight, bias, and the norm's two or None."""
    images, weight, bias, norm_weight, norm_bias = inputs
    channels = weight.shape[0]
    sizes = (*patches.sizes(images, weight, padding), *how.codes(norm_weight is not None))
    if norm_weight is None:
        norm_weight, norm_bias = images.new_ones(channels), images.new_zeros(channels)
    numbers = torch.tensor([how.number, how.eps], dtype=torch.float64)
    return sizes, numbers, images, *(t.detach().contiguous() for t in (weight, bias, norm_weight, norm_bias))


def _one_by_one(grad: Tensor, inputs: Any, ctx: Any) -> list[Tensor | None]:
    """The gradients with their graph."""

    def block(
        images: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None
    ) -> Tensor:
        maps = convolve_with_graph(images, weight, bias, ((1, 1), (ctx.padding, ctx.padding), (1, 1)))
        return norm_act_pool(maps, norm_weight, norm_bias, ctx.how).to(ctx.kind)

    # one input may be made from another, as a folded bias from its weight: aliases keep each gradient its own
    inputs = [None if t is None else t.view_as(t) for t in inputs]
    needed = ctx.needs_input_grad[: len(inputs)]
    wanted = [t for t, asked in zip(inputs, needed, strict=True) if asked and t is not None]
    found = iter(torch.autograd.grad(block(*inputs), wanted, grad, create_graph=True))
    return [next(found) if asked else None for asked in needed]

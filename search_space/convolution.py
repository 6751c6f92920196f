"""A convolution that goes the fastest way a CPU has for it; its second derivative computes only what is asked for.

3x3 convolutions go by minimal filtering (winograd.py), those of images by patches (patches.py). PyTorch's own second
derivative always computes the weight gradient's share too, in a form with batch and channels exchanged that is slower
than the convolution itself: in gradient matching, whose weights are fixed, a fifth of the step for nothing. A
convolution is bilinear: with cotangents vx, vw, vb of its gradients, the derivative of vx·(…) + vw·(…) + vb·(…) is
conv(vx, w) + conv(x, vw) + vb by the output's gradient, conv's input gradient with vw for w by x, and its weight
gradient with vx for x by w.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_space import patches, winograd

_TYPES = (torch.float32, torch.float64)

Mask = tuple[bool, bool, bool]  # whether the gradients of input, weight and bias are asked for
Geometry = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # stride, padding, dilation


class Convolution(nn.Conv2d):
    """nn.Conv2d, faster on a CPU; the same parameters and names, and the same values but for rounding.

    Under autocast to bf16 the convolutions that go by minimal filtering read and write bf16 maps and compute in fp32.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self._known(input, weight, bias):
            return super()._conv_forward(input, weight, bias)
        geometry = geometry_of(self)
        if torch.is_autocast_enabled("cpu"):
            narrow = input.to(torch.get_autocast_dtype("cpu"))
            if narrow.dtype != torch.bfloat16 or not winograd.tile_for(narrow, weight, geometry):
                return super()._conv_forward(input, weight, bias)
            input = narrow
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (input, weight, bias)):
            return _Forward.apply(input, weight, bias, geometry)
        return convolve(input, weight, bias, geometry)

    def takes_any_layout(self, input: Tensor) -> bool:
        """Whether the fastest way for this input reads it in the layout it has; otherwise that is channels-last."""
        return not torch.is_autocast_enabled("cpu") and patches.fits(input, self.weight, geometry_of(self))

    def _known(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
        if self.groups != 1 or self.padding_mode != "zeros" or isinstance(self.padding, str) or input.dim() != 4:
            return False
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor
        parameters = [t for t in (weight, bias) if t is not None]
        if any(t.device.type != "cpu" or wrapped(t) for t in (input, *parameters)):
            return False
        types = {t.dtype for t in parameters}
        given = torch.float32 if torch.is_autocast_enabled("cpu") and input.dtype == torch.bfloat16 else input.dtype
        return types == {given} and given in _TYPES


def geometry_of(layer: nn.Conv2d) -> Geometry:
    """Stride, padding and dilation of a layer whose padding is stated in pixels."""
    padding = layer.padding
    return layer.stride, padding if not isinstance(padding, str) else (), layer.dilation


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return convolve(x, weight, bias, geometry)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        mask = ctx.needs_input_grad[:3]
        return *_Backward.apply(grad, *ctx.saved_tensors, ctx.geometry, mask), None


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, mask: Mask) -> Any:
        ctx.save_for_backward(grad, x, weight)
        ctx.geometry = geometry
        ctx.set_materialize_grads(False)
        return convolution_backward(grad, x, weight, geometry, mask)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, vx: Tensor | None, vw: Tensor | None, vb: Tensor | None) -> Any:
        grad, x, weight = ctx.saved_tensors
        wanted, geometry = ctx.needs_input_grad, ctx.geometry
        by_grad = by_x = by_weight = None
        if wanted[0]:
            terms = [] if vx is None else [convolve(vx, weight, vb, geometry)]
            if vw is not None:
                terms.append(convolve(x, vw, vb if vx is None else None, geometry))
            if not terms and vb is not None:
                terms.append(vb.view(1, -1, 1, 1).expand_as(grad))
            by_grad = terms[0] if len(terms) == 1 else terms[0].add_(terms[1]) if terms else None
        if wanted[1] and vw is not None:
            by_x = convolution_backward(grad, x, vw, geometry, (True, False, False))[0]
        if wanted[2] and vx is not None:
            by_weight = convolution_backward(grad, vx, weight, geometry, (False, True, False))[1]
        return by_grad, by_x, by_weight, None, None


def convolve_with_graph(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """`convolve`, differentiable twice."""
    return _Forward.apply(x, weight, bias, geometry)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """The convolution of x [N, I, H, W] with weight [O, I, h, w] and bias [O]; only PyTorch's own way has a graph."""
    if patches.fits(x, weight, geometry):
        return patches.convolve(x, weight, bias, geometry[1][0])
    tile = winograd.tile_for(x, weight, geometry)
    return winograd.convolve(x, weight, bias, tile) if tile else F.conv2d(x, weight, bias, *geometry)


def convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, mask: Mask
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of a convolution's input, weight and bias from its output's, those that the mask names; no graph."""
    by_x = by_weight = by_bias = None
    if patches.fits(x, weight, geometry):
        padding = geometry[1][0]
        if mask[0]:
            by_x = patches.input_gradient(x, grad, weight, padding)
        if mask[1] or mask[2]:
            by_weight, by_bias = patches.weight_gradient(x, grad, weight, padding)
    elif tile := winograd.tile_for(grad, weight, geometry):
        if mask[0]:
            by_x = winograd.convolve(grad, weight, None, tile, turned=True)
        if mask[1]:
            by_weight = winograd.weight_gradient(x, grad, tile)
        if mask[2]:
            by_bias = grad.sum((0, 2, 3), dtype=weight.dtype)
    else:
        sizes = [weight.shape[0]] if mask[2] else None
        by_x, by_weight, by_bias = torch.ops.aten.convolution_backward(
            grad, x, weight, sizes, *geometry, False, [0, 0], 1, list(mask)
        )
    return by_x if mask[0] else None, by_weight if mask[1] else None, by_bias if mask[2] else None

"""A convolution whose second derivative computes only what is asked for.

PyTorch's own always computes the weight gradient's share too, in a form with batch and channels exchanged that is
slower than the convolution itself: in gradient matching, whose weights are fixed, a fifth of the step for nothing.
A convolution is bilinear: with cotangents vx, vw, vb of its gradients, the derivative of vx·(…) + vw·(…) + vb·(…) is
conv(vx, w) + conv(x, vw) + vb by the output's gradient, conv's input gradient with vw for w by x, and its weight
gradient with vx for x by w.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TYPES = (torch.float32, torch.float64)


class Convolution(nn.Conv2d):
    """nn.Conv2d, with a faster second derivative on a CPU; the same parameters, names and values."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self._fits(input, weight, bias):
            return super()._conv_forward(input, weight, bias)
        return _Forward.apply(input, weight, bias, (self.stride, self.padding, self.dilation))

    def _fits(self, *tensors: Tensor | None) -> bool:
        given = [t for t in tensors if t is not None]
        if not (torch.is_grad_enabled() and any(t.requires_grad for t in given)) or torch.is_autocast_enabled("cpu"):
            return False
        if self.groups != 1 or self.padding_mode != "zeros" or isinstance(self.padding, str) or given[0].dim() != 4:
            return False
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor
        return all(t.device.type == "cpu" and t.dtype in _TYPES and not wrapped(t) for t in given)


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return F.conv2d(x, weight, bias, *geometry)

    @staticmethod
    def backward(ctx, grad: Tensor):
        mask = ctx.needs_input_grad[:3]
        return *_Backward.apply(grad, *ctx.saved_tensors, ctx.geometry, mask), None


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad: Tensor, x: Tensor, weight: Tensor, geometry, mask):
        ctx.save_for_backward(grad, x, weight)
        ctx.geometry = geometry
        ctx.set_materialize_grads(False)
        return convolution_backward(grad, x, weight, geometry, mask)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, vx: Tensor | None, vw: Tensor | None, vb: Tensor | None):
        grad, x, weight = ctx.saved_tensors
        wanted, geometry = ctx.needs_input_grad, ctx.geometry
        by_grad = by_x = by_weight = None
        if wanted[0]:
            terms = [] if vx is None else [F.conv2d(vx, weight, vb, *geometry)]
            if vw is not None:
                terms.append(F.conv2d(x, vw, vb if vx is None else None, *geometry))
            if not terms and vb is not None:
                terms.append(vb.view(1, -1, 1, 1).expand_as(grad))
            by_grad = terms[0] if len(terms) == 1 else terms[0].add_(terms[1]) if terms else None
        if wanted[1] and vw is not None:
            by_x = convolution_backward(grad, x, vw, geometry, (True, False, False))[0]
        if wanted[2] and vx is not None:
            by_weight = convolution_backward(grad, vx, weight, geometry, (False, True, False))[1]
        return by_grad, by_x, by_weight, None, None


def convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, geometry, mask) -> tuple[Tensor | None, ...]:
    """Gradients of a convolution's input, weight and bias from its output's, those that the mask names; no graph."""
    sizes = [weight.shape[0]] if mask[2] else None
    found = torch.ops.aten.convolution_backward(grad, x, weight, sizes, *geometry, False, [0, 0], 1, list(mask))
    return tuple(value if asked else None for value, asked in zip(found, mask, strict=True))

"""Norm, activation and pooling as one operation on a CPU, with derivatives in closed form.

PyTorch's second derivative of group norm is some thirty passes over the maps, and each of norm, ReLU and pooling reads
and writes them once more; together they cost as much as the convolutions. Here the maps are channels-last, which also
spares the convolutions their change of layout, and norm_act_pool.cpp goes through each sample's channels while they are
in the cache. Only the convolution's output is kept for the derivatives.

With xhat = (x - mean) r over the m entries a mean is of, r = (var + eps)^(-1/2), y = w xhat + b, s the derivative of
the pooled activations by y, and gy = s grad:
  gx     = r (w gy - <w gy> - xhat <w gy xhat>), <.> the mean over the m entries; by weight sum gy xhat, by bias sum gy.
For cotangents v of gx, vw and vb of the parameters' gradients, with A = <v>, B = <w gy>, C = <v xhat>, D = <w gy xhat>
and E = <v w gy>, the derivative of v·gx + vw·(…) + vb·(…) is
  by gy      u = w r (v - A - xhat C) + vw xhat + vb, and so by grad s u
  by weight  sum gy r (v - A - xhat C) + h xhat
  by bias    sum h
  by x       r (q - <q> - xhat <q xhat>) - r² xhat (E - A B - C D),  q = vw gy - r (v D + w gy C) + w h
with h = u grad s', what the curvature of sigmoid and swish adds to the cotangent of y; of (leaky) ReLU it is nothing.
The entries are a group's of one sample, for batch norm in training a channel's of the batch. Batch norm with its
running statistics is a weight and a bias; layer norm has a weight and a bias per element.

`python -m benchmarks kernels --only fused` prints how much faster it is than PyTorch's modules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search_space.native import call, channels_last, library
from search_space.pooling import AveragePool2x2

SOURCE = Path(__file__).with_name("norm_act_pool.cpp")
REST = Path(__file__).with_name("norm_act_pool_rest.cpp")  # layer norm, sigmoid and swish: not every user's

POOLS: dict[type[nn.Module], int] = {nn.Identity: 0, AveragePool2x2: 1, nn.MaxPool2d: 2}
LEAKY, SMOOTH = 0, 1
# kind of an activation and its number: the slope below 0, or whether the sigmoid is multiplied by its input
ACTS: dict[type[nn.Module], Callable[[Any], tuple[int, float]]] = {
    nn.Identity: lambda act: (LEAKY, 1.0),
    nn.ReLU: lambda act: (LEAKY, 0.0),
    nn.LeakyReLU: lambda act: (LEAKY, act.negative_slope),
    nn.Sigmoid: lambda act: (SMOOTH, 0.0),
    nn.SiLU: lambda act: (SMOOTH, 1.0),
}
NOTHING, SAMPLE, BATCH = 0, 1, 2  # what the norm's mean and variance are of
_TYPES = {torch.float32: torch.float32, torch.float64: torch.float64, torch.bfloat16: torch.float32}


@dataclass(frozen=True)
class Plan:
    """What the operation does.

    over: what the norm's mean and variance are of; groups of a sample's channels, and eps. elements: the shape
    [C, H, W] of weight and bias where they are per element. act, number: of the activation. running: the module whose
    running statistics follow the batch's.
    """

    pool: int
    act: int
    number: float
    over: int = NOTHING
    groups: int = 0
    eps: float = 0.0
    elements: tuple[int, ...] = ()
    running: nn.BatchNorm2d | None = None

    @property
    def source(self) -> Path:
        """The source that has this way."""
        return REST if self.elements or self.act == SMOOTH else SOURCE

    def fits(self, maps: Tensor) -> bool:
        """Whether the norm's input [N, C, H, W] has a type and size the operation exists for."""
        n, c, height, width = maps.shape
        if maps.dtype not in _TYPES or maps.numel() == 0 or (self.pool and (height % 2 or width % 2)):
            return False
        if self.elements and self.elements != (c, height, width):
            return False
        return self.over != BATCH or n * height * width > 1

    def codes(self, affine: bool) -> tuple[int, ...]:
        """How the compiled function is told."""
        return self.groups, self.pool, self.over, int(affine), self.act, int(bool(self.elements))


def plan(maps: Tensor, norm: nn.Module, act: nn.Module, pool: nn.Module) -> Plan | None:
    """How to do the three modules at once for maps like these, or None where that is not known here.

    On other devices, inside function transforms and where there is no compiler, the modules do it one by one.
    """
    if maps.device.type != "cpu" or torch._C._functorch.is_functorch_wrapped_tensor(maps):
        return None
    if type(norm) not in NORMS or type(act) not in ACTS or type(pool) not in POOLS:
        return None
    if type(pool) is nn.MaxPool2d and (pool.kernel_size, pool.stride, pool.padding) != (2, 2, 0):
        return None
    of_norm = NORMS[type(norm)](norm)
    if of_norm is None:
        return None
    kind, number = ACTS[type(act)](act)
    how = Plan(POOLS[type(pool)], kind, number, **of_norm)
    return None if library(how.source) is None else how


def _batch_norm(norm: nn.BatchNorm2d) -> dict[str, Any] | None:
    if not norm.affine or not norm.track_running_stats or norm.momentum is None:
        return None
    return {"over": BATCH, "eps": norm.eps, "running": norm} if norm.training else {}


def _layer_norm(norm: nn.LayerNorm) -> dict[str, Any] | None:
    if len(norm.normalized_shape) != 3 or norm.weight is None or norm.bias is None:
        return None
    return {"over": SAMPLE, "groups": 1, "eps": norm.eps, "elements": tuple(norm.normalized_shape)}


# what a plan says of a norm; None: not known here
NORMS: dict[type[nn.Module], Callable[[Any], dict[str, Any] | None]] = {
    nn.Identity: lambda norm: {},
    nn.GroupNorm: lambda norm: {"over": SAMPLE, "groups": norm.num_groups, "eps": norm.eps},
    nn.LayerNorm: _layer_norm,
    nn.BatchNorm2d: _batch_norm,
}


def watched(*modules: nn.Module) -> bool:
    """Whether somebody hooked one of these modules, and so must see it run."""
    return any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks for m in modules)


def affine_of(norm: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    """Weight and bias of a planned norm; of a batch norm that uses its running statistics what they come to."""
    if type(norm) is nn.BatchNorm2d and not norm.training:
        mean, variance = _running(norm)
        weight = norm.weight * (variance + norm.eps).rsqrt()
        return weight, norm.bias - mean * weight
    return getattr(norm, "weight", None), getattr(norm, "bias", None)


def _running(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Running mean and variance of a batch norm that has them, as a planned one does."""
    if norm.running_mean is None or norm.running_var is None:
        raise TypeError("a batch norm without running statistics was planned")
    return norm.running_mean, norm.running_var


def norm_act_pool(maps: Tensor, weight: Tensor | None, bias: Tensor | None, how: Plan) -> Tensor:
    """pool(act(norm(maps))) of maps [N, C, H, W], channels-last; differentiable twice in maps, weight and bias.

    weight, bias: [C], or [C, H, W] where the plan says so (`affine_of`).
    """
    return _Forward.apply(maps, weight, bias, how)


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor | None, bias: Tensor | None, how: Plan) -> Tensor:
        x = channels_last(maps)
        w, b = _parameters(x, weight, bias)
        n, c, height, width = x.shape
        step = 2 if how.pool else 1
        out = _like(x, (n, c, height // step, width // step))
        mean, rstd = (w.new_empty(n, c) for _ in range(2))
        _call("forward", x, weight, how, x, w, b, out, mean, rstd)
        if how.running is not None:
            _follow(how.running, mean[0], rstd[0], n * height * width)
        ctx.save_for_backward(maps, weight, bias, mean, rstd)
        ctx.how = how
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return *_Backward.apply(grad, *ctx.saved_tensors, ctx.how), None


class _Backward(torch.autograd.Function):
    """Gradients of maps, weight and bias; mean and rstd are functions of maps, and their share is in the formulas."""

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, maps: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, rstd: Tensor,
        how: Plan,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
        x, g = channels_last(maps), channels_last(grad).to(maps.dtype)
        w, b = _parameters(x, weight, bias)
        by_x = _like(x, x.shape)
        sum1, sum2 = torch.zeros_like(mean), torch.zeros_like(mean)
        _call("backward", x, weight, how, x, g, w, b, mean, rstd, by_x, sum1, sum2)
        ctx.save_for_backward(grad, maps, weight, bias, mean, rstd, sum1, sum2)
        ctx.how = how
        if weight is None or bias is None:
            return by_x, None, None
        if how.elements:
            by_w, by_b = torch.zeros_like(w), torch.zeros_like(b)
            if ctx.needs_input_grad[2] or ctx.needs_input_grad[3]:
                _call("elements", x, weight, how, x, g, w, b, mean, rstd, by_w, by_b)
            return by_x, by_w.permute(2, 0, 1).to(weight.dtype), by_b.permute(2, 0, 1).to(bias.dtype)
        return by_x, sum2.sum(0).to(weight.dtype), sum1.sum(0).to(bias.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v: Tensor, v_weight: Tensor | None, v_bias: Tensor | None) -> Any:
        grad, maps, weight, bias, mean, rstd, sum1, sum2 = ctx.saved_tensors
        kind = _TYPES[maps.dtype]
        x, g, along = (channels_last(t.to(maps.dtype).to(kind)) for t in (maps, grad, v))
        w, b = _parameters(x, weight, bias)
        vw, vb = (torch.zeros_like(w) if t is None else _in_memory(t.detach().to(kind)) for t in (v_weight, v_bias))
        by_grad, by_x = _like(x, g.shape), _like(x, x.shape)
        # of (leaky) ReLU the bias has no part in the second derivative
        asked = [ctx.needs_input_grad[2], ctx.needs_input_grad[3] and ctx.how.act == SMOOTH]
        sums: list[Tensor | None] = [None, None]
        if not ctx.how.elements or any(asked):
            sums = [torch.zeros_like(w if ctx.how.elements else mean) for _ in range(2)]
        given = (x, g, along, w, b, mean, rstd, sum1, sum2, vw, vb)
        _call("second", x, weight, ctx.how, *given, by_grad, by_x, *sums)
        by_parameters = [
            (t.permute(2, 0, 1) if ctx.how.elements else t.sum(0)).to(weight.dtype)
            if wanted and t is not None
            else None
            for t, wanted in zip(sums, asked, strict=True)
        ]
        return by_grad.to(grad.dtype), by_x.to(maps.dtype), *by_parameters, None, None, None


def _follow(norm: nn.BatchNorm2d, mean: Tensor, rstd: Tensor, entries: int) -> None:
    """Move the running statistics towards a batch's, as BatchNorm2d does: the variance is the unbiased one."""
    variance = (rstd.double().pow(-2) - norm.eps).clamp_(min=0) * (entries / (entries - 1))
    for running, now in zip(_running(norm), (mean, variance), strict=True):
        running.lerp_(now.to(running.dtype), norm.momentum or 0.0)
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)


def _like(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)


def _parameters(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    kind, c = _TYPES[x.dtype], x.shape[1]
    if weight is None or bias is None:
        return torch.ones(c, dtype=kind), torch.zeros(c, dtype=kind)
    return _in_memory(weight.detach().to(kind)), _in_memory(bias.detach().to(kind))


def _in_memory(parameter: Tensor) -> Tensor:
    """[C], or of [C, H, W] [H, W, C] as the maps lie in memory."""
    return (parameter.permute(1, 2, 0) if parameter.ndim == 3 else parameter).contiguous()


def _call(name: str, x: Tensor, weight: Tensor | None, how: Plan, *tensors: Tensor | None) -> None:
    n, c, height, width = x.shape
    sizes = (n, height, width, c, torch.get_num_threads(), *how.codes(weight is not None))
    numbers = torch.tensor([how.number, how.eps], dtype=torch.float64)
    call(how.source, name, x.dtype, sizes, numbers, *tensors)

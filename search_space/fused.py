"""Norm, activation and pooling as one operation on a CPU, with first and second derivative in closed form.

PyTorch's second derivative of group norm is some thirty passes over the maps, and each of norm, ReLU and pooling reads
and writes them once more; together they cost as much as the convolutions. Here the maps are channels-last, which also
spares the convolutions their change of layout, and norm_act_pool.cpp goes through each sample's channels while they are
in the cache. Only the convolution's output is kept for the derivatives.

With xhat = (x - mean) r over a group of m entries, r = (var + eps)^(-1/2), y = w xhat + b, s the derivative of the
pooled activations by y, and gy = s grad:
  gx     = r (w gy - <w gy> - xhat <w gy xhat>), <.> the mean over the group; by weight sum gy xhat, by bias sum gy.
For cotangents v of gx, vw and vb of the parameters' gradients, with A = <v>, B = <w gy>, C = <v xhat>, D = <w gy xhat>
and E = <v w gy>, the derivative of v·gx + vw·(…) + vb·(…) is
  by grad    s (w r (v - A - xhat C) + vw xhat + vb)
  by weight  sum gy r (v - A - xhat C)
  by x       r (q - <q> - xhat <q xhat>) - r² xhat (E - A B - C D),  q = vw gy - r (v D + w gy C).
The activation is piecewise linear, so its own second derivative is nothing.

Run as a program (`python -m search_space.fused`), this prints how much faster it is than PyTorch's modules: at
width 128 and 16 px 3.3 times forward, 2.1 with first and 4.1 with second derivatives, on one core with AVX-512.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from search_space.native import call, channels_last, library
from search_space.pooling import AveragePool2x2

SOURCE = Path(__file__).with_name("norm_act_pool.cpp")

POOLS: dict[type[nn.Module], int] = {nn.Identity: 0, AveragePool2x2: 1, nn.MaxPool2d: 2}
SLOPES = {nn.ReLU: lambda act: 0.0, nn.LeakyReLU: lambda act: act.negative_slope}
NORMS = {nn.GroupNorm: lambda norm: norm.num_groups, nn.Identity: lambda norm: 0}
_TYPES = {torch.float32: torch.float32, torch.float64: torch.float64, torch.bfloat16: torch.float32}


@dataclass(frozen=True)
class Plan:
    """What the operation does: groups of the norm (0: none) and its eps, slope of the activation below 0, pooling."""

    groups: int
    eps: float
    slope: float
    pool: int

    def fits(self, maps: Tensor) -> bool:
        """Whether the norm's input [N, C, H, W] has a type and size the operation exists for."""
        odd = maps.shape[-1] % 2 or maps.shape[-2] % 2
        return maps.dtype in _TYPES and maps.numel() > 0 and not (self.pool and odd)


def plan(maps: Tensor, norm: nn.Module, act: nn.Module, pool: nn.Module) -> Plan | None:
    """How to do the three modules at once for maps like these, or None where that is not known here.

    On other devices, inside function transforms and where there is no compiler, the modules do it one by one.
    """
    if maps.device.type != "cpu" or torch._C._functorch.is_functorch_wrapped_tensor(maps):
        return None
    if type(norm) not in NORMS or type(act) not in SLOPES or type(pool) not in POOLS:
        return None
    if type(pool) is nn.MaxPool2d and (pool.kernel_size, pool.stride, pool.padding) != (2, 2, 0):
        return None
    if library(SOURCE) is None:
        return None
    return Plan(NORMS[type(norm)](norm), getattr(norm, "eps", 0.0), SLOPES[type(act)](act), POOLS[type(pool)])


def watched(*modules: nn.Module) -> bool:
    """Whether somebody hooked one of these modules, and so must see it run."""
    return any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks for m in modules)


def norm_act_pool(maps: Tensor, weight: Tensor | None, bias: Tensor | None, how: Plan) -> Tensor:
    """pool(act(norm(maps))) of maps [N, C, H, W], channels-last; differentiable twice in maps, weight and bias [C]."""
    return _Forward.apply(maps, weight, bias, how)


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, maps: Tensor, weight: Tensor | None, bias: Tensor | None, how: Plan) -> Tensor:
        x = channels_last(maps)
        w, b = _parameters(x, weight, bias)
        n, c, height, width = x.shape
        step = 2 if how.pool else 1
        out = _like(x, (n, c, height // step, width // step))
        mean, rstd = (w.new_empty(n, c) for _ in range(2))
        _call("forward", x, how, x, w, b, out, mean, rstd)
        ctx.save_for_backward(maps, weight, bias, mean, rstd)
        ctx.how = how
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        maps, weight, bias, mean, rstd = ctx.saved_tensors
        return *_Backward.apply(grad, maps, weight, bias, mean, rstd, ctx.how), None


class _Backward(torch.autograd.Function):
    """Gradients of maps, weight and bias; mean and rstd are functions of maps, and their share is in the formulas."""

    @staticmethod
    def forward(ctx, grad, maps, weight, bias, mean, rstd, how: Plan):
        x, g = channels_last(maps), channels_last(grad).to(maps.dtype)
        w, b = _parameters(x, weight, bias)
        by_x = _like(x, x.shape)
        sum1, sum2 = torch.zeros_like(mean), torch.zeros_like(mean)
        _call("backward", x, how, x, g, w, b, mean, rstd, by_x, sum1, sum2)
        ctx.save_for_backward(grad, maps, weight, bias, mean, rstd, sum1, sum2)
        ctx.how = how
        if weight is None:
            return by_x, None, None
        return by_x, sum2.sum(0).to(weight.dtype), sum1.sum(0).to(bias.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, v: Tensor, v_weight: Tensor | None, v_bias: Tensor | None):
        grad, maps, weight, bias, mean, rstd, sum1, sum2 = ctx.saved_tensors
        x, g, along = channels_last(maps), channels_last(grad).to(maps.dtype), channels_last(v).to(maps.dtype)
        w, b = _parameters(x, weight, bias)
        vw, vb = (torch.zeros_like(w) if t is None else t.detach().to(w.dtype).contiguous() for t in (v_weight, v_bias))
        by_grad, by_x, by_weight = _like(x, g.shape), _like(x, x.shape), torch.zeros_like(mean)
        _call("second", x, ctx.how, x, g, along, w, b, mean, rstd, sum1, sum2, vw, vb, by_grad, by_x, by_weight)
        by_w = None if weight is None else by_weight.sum(0).to(weight.dtype)
        return by_grad, by_x, by_w, None, None, None, None


def _like(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)


def _parameters(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    kind, c = _TYPES[x.dtype], x.shape[1]
    if weight is None:
        return torch.ones(c, dtype=kind), torch.zeros(c, dtype=kind)
    return weight.detach().to(kind).contiguous(), bias.detach().to(kind).contiguous()


def _call(name: str, x: Tensor, how: Plan, *tensors: Tensor) -> None:
    n, c, height, width = x.shape
    sizes = (n, height, width, c, how.groups, how.pool, torch.get_num_threads())
    numbers = torch.tensor([how.slope, how.eps], dtype=torch.float64)
    call(SOURCE, name, x.dtype, sizes, numbers, *tensors)


def _benchmark(compiled: bool) -> None:
    """This operation, and on request torch.compile's, against PyTorch's modules, order of derivative by order."""
    import statistics
    import time

    def seconds(function, maps: Tensor, module: nn.Module, order: int) -> float:
        parameters = list(module.parameters())
        began = time.process_time()
        with torch.set_grad_enabled(order > 0):
            out = function(maps)
        if order:
            gradients = torch.autograd.grad(out.square().sum(), [maps, *parameters], create_graph=order > 1)
        if order > 1:
            torch.autograd.grad(gradients[0].square().sum(), maps)
        return time.process_time() - began

    def ratio(function, last: Tensor, maps: Tensor, module: nn.Module, order: int) -> str:
        try:
            pairs = [(seconds(module, maps, module, order), seconds(function, last, module, order)) for _ in range(6)]
        except RuntimeError as error:
            return f"none ({str(error).splitlines()[0]})"
        return f"{statistics.median(plain / ours for plain, ours in pairs[1:]):.1f}"

    torch.set_num_threads(1)
    print("PyTorch's modules (contiguous) / this (channels-last): 32 images, one thread, processor time, median of 5")
    for width, size in ((32, 32), (128, 32), (128, 16), (128, 8)):
        module = nn.Sequential(nn.GroupNorm(width, width), nn.ReLU(), AveragePool2x2())
        maps = torch.randn(32, width, size, size, generator=torch.Generator().manual_seed(0))
        how = plan(maps, *module)
        last = maps.contiguous(memory_format=torch.channels_last).requires_grad_(True)
        maps.requires_grad_(True)
        rivals = {"": functools.partial(norm_act_pool, weight=module[0].weight, bias=module[0].bias, how=how)}
        if compiled:
            torch._dynamo.reset()
            torch._functorch.config.donated_buffer = False  # its reuse of memory forbids asking for second derivatives
            rivals["torch.compile, contiguous: "] = torch.compile(module, dynamic=False)
            began = time.perf_counter()
            seconds(rivals["torch.compile, contiguous: "], maps, module, 1)
            print(f"  torch.compile took {time.perf_counter() - began:.0f} s")
        for name, function in rivals.items():
            given = maps if name else last
            found = [f"{what} {ratio(function, given, maps, module, order)}"
                     for order, what in enumerate(("forward", "first", "second"))]  # fmt: skip
            print(f"  {width:4d} maps of {size:2d} px: {name}" + ", ".join(found), flush=True)


if __name__ == "__main__":
    import sys

    _benchmark(compiled="--compile" in sys.argv)

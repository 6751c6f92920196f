"""Weights of a fresh network as a function of one generator.

The distributions are PyTorch's defaults, which the field's code uses unchanged: convolutions and linear
layers uniform in ±1/sqrt(fan in) for weight and bias, norms 1 and 0, running statistics 0 and 1. Values are
drawn on the CPU in float32, in module order and weight before bias, whatever the module's device and type;
so every device starts from the same numbers, and a float64 network is the float32 one, widened.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from fyi_bench.errors import UsageError

Module = TypeVar("Module", bound=nn.Module)
Move = Callable[[torch.Tensor, torch.device], torch.Tensor]

_CUT_OFF = 0.87962566103423978  # deviation of a standard normal that is cut off at two

# Keyed by the reset function, not the class: a subclass with an initialisation of its own is not ours to know.
_UNIFORM = (_ConvNd.reset_parameters, nn.Linear.reset_parameters)
_CONSTANT = (_NormBase.reset_parameters, nn.GroupNorm.reset_parameters, nn.LayerNorm.reset_parameters)


@torch.no_grad()
def initialise(module: Module, generator: torch.Generator, move: Move = torch.Tensor.to) -> Module:
    """Give every parameter and running statistic of `module` a fresh value, in place; returns it.

    move(values, device): how drawn values get to another device.
    The generator must be a CPU one, and no global generator is read or moved. Layers that are neither
    convolution, linear nor norm run their own `reset_parameters` with the default CPU generator seeded from
    `generator` and put back afterwards. UsageError for a layer that has parameters and no way to reset them.
    A network with an `initialisation` of its own (`lecun_normal`) has its weights from that.
    """
    uniform: list[tuple[nn.Parameter, float]] = []
    foreign: list[Any] = []
    layer: Any
    for layer in module.modules():
        reset = getattr(type(layer), "reset_parameters", None)
        if reset in _UNIFORM and layer._parameters.get("weight") is not None:
            uniform += _with_bounds(layer)
        elif reset in _CONSTANT:
            layer.reset_parameters()
        elif any(parameter is not None for parameter in layer._parameters.values()):
            foreign.append(_resettable(layer))
    own = getattr(module, "initialisation", None)
    if own is not None:
        return own(module, generator, move)
    _fill_uniform(uniform, generator, move)
    if foreign:
        with default_generator_from(generator):
            for layer in foreign:
                layer.reset_parameters()
    return module


@torch.no_grad()
def xavier_normal(module: Module, generator: torch.Generator, move: Move = torch.Tensor.to) -> Module:
    """Weights of convolutions and linear layers normal with variance 2 / (fan in + fan out), biases 0; returns it.

    Xavier's initialisation (Glorot and Bengio, AISTATS 2010), as DD has it; everything else stays.
    """
    flat = torch.randn(sum(_weight_sizes(module)), generator=generator, dtype=torch.float32)
    return _scaled(module, move, flat, lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out)))


@torch.no_grad()
def lecun_normal(module: Module, generator: torch.Generator, move: Move = torch.Tensor.to) -> Module:
    """Weights of convolutions and linear layers normal with variance 1 / fan in, biases 0; returns it.

    As flax has it: cut off at two deviations of a wider normal, so that the variance is that. The rest stays.
    """
    inside = math.erf(math.sqrt(2))  # the share of a normal within two deviations
    uniform = torch.rand(sum(_weight_sizes(module)), generator=generator, dtype=torch.float64)
    flat = (torch.erfinv((2 * uniform - 1) * inside) * (math.sqrt(2) / _CUT_OFF)).float()
    return _scaled(module, move, flat, lambda fan_in, fan_out: math.sqrt(1 / fan_in))


@torch.no_grad()
def wide_normal(module: Module, generator: torch.Generator, move: Move = torch.Tensor.to) -> Module:
    """Weights of convolutions and linear layers normal with variance 2 / fan in, biases with deviation 0.1; returns it.

    The "standard parameterisation" of a network whose kernel is known when it is wide (KIP). The rest stays.
    """
    layers = _layers(module)
    flat = torch.randn(sum(_weight_sizes(module)), generator=generator, dtype=torch.float32)
    _scaled(module, move, flat, lambda fan_in, fan_out: math.sqrt(2 / fan_in))
    sizes = [layer.bias.numel() for layer in layers]
    biases = move(torch.randn(sum(sizes), generator=generator, dtype=torch.float32), layers[0].weight.device)
    for layer, values in zip(layers, biases.split(sizes), strict=True):
        layer.bias.copy_(0.1 * values)
    return module


def _layers(module: nn.Module) -> list[Any]:
    return [m for m in module.modules() if isinstance(m, _ConvNd | nn.Linear)]


def _weight_sizes(module: nn.Module) -> list[int]:
    return [layer.weight.numel() for layer in _layers(module)]


def _scaled(module: Module, move: Move, flat: torch.Tensor, deviation: Callable[[int, int], float]) -> Module:
    """The standard numbers as weights, times a deviation of (fan in, fan out); biases 0."""
    layers = _layers(module)
    parts = move(flat, layers[0].weight.device).split(_weight_sizes(module))
    for layer, values in zip(layers, parts, strict=True):
        fan_in, fan_out = layer.weight[0].numel(), layer.weight.numel() // layer.weight.shape[1]
        layer.weight.copy_(values.view(layer.weight.shape) * deviation(fan_in, fan_out))
        if layer.bias is not None:
            layer.bias.zero_()
    return module


def construct(make: Callable[[], Module], generator: torch.Generator) -> Module:
    """`make()` with weights from `generator` alone: construct(lambda: ConvNet(config), generator).

    The module is made without storage first, because constructors of layers draw from the default generator.
    """
    with torch.device("meta"):
        module = make()
    # as `to_empty` does, whose `empty_like` of a tensor without storage loads sympy
    module._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))
    return initialise(module, generator)


def _with_bounds(layer: Any) -> list[tuple[nn.Parameter, float]]:
    bound = 1 / math.sqrt(layer.weight[0].numel())
    return [(parameter, bound) for parameter in (layer.weight, layer.bias) if parameter is not None]


def _fill_uniform(parameters: list[tuple[nn.Parameter, float]], generator: torch.Generator, move: Move) -> None:
    # One draw and one transfer for all of them: matching by distribution takes a new network at every step.
    if not parameters:
        return
    sizes = [parameter.numel() for parameter, _ in parameters]
    flat = torch.rand(sum(sizes), generator=generator, dtype=torch.float32)
    for chunk, (_, bound) in zip(flat.split(sizes), parameters, strict=True):
        chunk.mul_(2 * bound).sub_(bound)
    moved: dict[torch.device, tuple[torch.Tensor, ...]] = {}
    for position, (parameter, _) in enumerate(parameters):
        if parameter.device not in moved:
            moved[parameter.device] = move(flat, parameter.device).split(sizes)
        parameter.copy_(moved[parameter.device][position].view(parameter.shape))


def _resettable(layer: nn.Module) -> nn.Module:
    if callable(getattr(layer, "reset_parameters", None)):
        return layer
    raise UsageError(
        f"{type(layer).__name__} has parameters but no reset_parameters(), so it cannot be initialised again.\n"
        "Give it one, or build a new network instead."
    )


@contextlib.contextmanager
def default_generator_from(generator: torch.Generator) -> Iterator[None]:
    """Inside, torch's default CPU generator is seeded from `generator`; afterwards it is as it was.

    Only for code that takes no generator (layers and constructors of other libraries). The generators of
    accelerators are not touched.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(before)

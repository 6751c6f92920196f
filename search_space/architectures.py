"""Architectures by name: `build("convnet3", 3, 32, 10, generator)`.

A name is a registered one (`ARCHITECTURES`), a ConvNet variant spelled out (`convnet-w64-batch`: any parts of
search_space.names, in any order; `freponet-w64-batch` alike), a torchvision model (`torchvision:resnet50`), or one of a
search space (`nasbench201:|none~0|+…`).
Adding one is `ARCHITECTURES.register(name, thing)` or an entry point of the group `fyi_bench.architectures`, where
`thing` is any callable `(channels, size, classes) -> nn.Module`; with `embed(images) -> [N, embed_dim]` it also
serves the methods that match features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fyi_bench.errors import UsageError
from fyi_bench.registry import PluginError, Registry, spelled_as
from search_space import names, space720, zoo
from search_space.convnet import ConvNet, ConvNetConfig, count_flops, count_parameters
from search_space.freponet import FRePoNet
from search_space.init import Move, construct, default_generator_from, initialise
from search_space.kipnet import KIPNet
from search_space.network import Network, padded_size
from search_space.space720 import Point
from search_space.spaces import SPACES, Candidate, SearchSpace, space
from search_space.torchvision_models import TorchvisionNet, torchvision_names

Maker = Callable[[int, int, int], nn.Module]


@dataclass(frozen=True)
class Architecture:
    """How a network is made: `make(channels, size, classes)`, and one line about it.

    `initialises_itself`: the constructor draws its weights (from the default generator, which is lent to it
    for the time); otherwise it is built without weights and filled by `search_space.init.construct`.
    `numerics`: version to raise when an architecture from outside changes its numbers (else its code is watched).
    """

    make: Maker
    summary: str
    initialises_itself: bool = False
    numerics: int | None = None

    def __call__(self, channels: int, size: int, classes: int) -> nn.Module:
        return self.make(channels, size, classes)


class Cost(NamedTuple):
    """Trainable parameters; floating-point operations of one image's forward pass (a multiply-add is 2)."""

    parameters: int
    flops: int


ARCHITECTURES: Registry[Maker] = Registry(
    "architecture", group="fyi_bench.architectures", numerics=names.NUMERICS_VERSION
)


def spelled(name: str) -> str:
    """The name as it is known here, given in any case: 'ResNet-18', 'ConvNet_W64', 'torchvision:ResNet50'.

    One that is unknown stays what it is.
    """
    prefix, colon, model = name.partition(":")
    if colon:
        prefix = spelled_as(prefix, [*_PREFIXES, *SPACES])
        return f"{prefix}:{spelled_as(model, torchvision_names()) if prefix in _PREFIXES else model}"
    if name in ARCHITECTURES:
        return ARCHITECTURES.spelled(name)
    parts = name.lower().replace("_", "-")
    return parts if parts.partition("-")[0] in (*_CONVNETS, *_PUBLISHED) else name


def build(name: str, channels: int, size: int, classes: int, generator: torch.Generator) -> nn.Module:
    """A freshly initialised network, float32 on the CPU, in training mode: a function of the arguments only.

    `generator` is a CPU one (`fyi_bench.rng.stream`); no global generator is read or moved.
    Raises UnknownNameError, or UsageError where the architecture does not exist for these images.
    """
    architecture = find(name)
    if architecture.initialises_itself:
        with default_generator_from(generator):
            return architecture.make(channels, size, classes)
    return construct(partial(architecture.make, channels, size, classes), generator)


def renew(network: nn.Module, name: str, generator: torch.Generator, move: Move = torch.Tensor.to) -> bool:
    """Give a network that `build` made, wherever it is now, the values it would have from this generator.

    Much faster than to build another. False for an architecture that can only be built. move: see `initialise`.
    """
    if find(name).initialises_itself:
        return False
    initialise(network, generator, move)
    return True


def find(name: str) -> Architecture:
    """The architecture of a name of any of these kinds; UnknownNameError with the nearest name."""
    name = spelled(name)
    prefix, colon, model = name.partition(":")
    if colon and prefix in _PREFIXES:
        return _PREFIXES[prefix](model)
    if colon and prefix in SPACES:
        return _of_space(prefix, model)
    base, dash, parts = name.partition("-")
    if dash and base in _CONVNETS and name not in ARCHITECTURES:
        return _convnet(names.read(parts, _CONVNETS[base]))
    if dash and base in _PUBLISHED and name not in ARCHITECTURES:
        return _published(base, names.read(parts))
    entry = ARCHITECTURES.get(name)
    if isinstance(entry, Architecture):
        return entry
    summary = (getattr(entry, "__doc__", None) or "registered from outside").strip().splitlines()[0]
    return Architecture(entry, summary, initialises_itself=True)


def candidate(name: str) -> Candidate | Point:
    """The architecture of a search by its name in rankings: of a space with that before a colon, any that is known
    here, else one of the 720 ConvNets. Raises UnknownNameError or UsageError.
    """
    prefix, colon, model = name.partition(":")
    if colon and prefix in SPACES:
        return space(prefix).candidate(model)
    base, dash, words = name.partition("-")
    if base == "convnet" and dash and len(words.split("-")) == len(names.FACTORS):
        return space720.point(words)
    if colon or base in _CONVNETS or name in ARCHITECTURES:
        find(name)
        return Candidate(name, name)
    return space720.point(name)


def describe(name: str) -> str:
    """One line about an architecture."""
    return find(name).summary


def cost(name: str, channels: int, size: int, classes: int) -> Cost:
    """Parameters and forward operations, counted on a network without weights (nothing is computed).

    Convolutions and matrix products are counted; norms, activations and pooling are not.
    """
    return _counted(_without_weights(find(name), channels, size, classes), channels, size)


def _without_weights(architecture: Architecture, channels: int, size: int, classes: int) -> nn.Module:
    with default_generator_from(torch.Generator()):
        if architecture.initialises_itself:
            network = architecture.make(channels, size, classes).to("meta")
        else:
            with torch.device("meta"):
                network = architecture.make(channels, size, classes)
    return network.eval()


def _counted(network: nn.Module, channels: int, size: int) -> Cost:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, channels, size, size, device="meta"))
    return Cost(sum(p.numel() for p in network.parameters() if p.requires_grad), counter.get_total_flops())


def forward_flops(name: str, channels: int, size: int, classes: int) -> int:
    """Forward operations of one image as in `cost`; of a ConvNet in closed form, which starts a second sooner."""
    base, dash, _ = name.partition("-")
    if base in _CONVNETS and not (dash and name in ARCHITECTURES):
        return count_flops(convnet_config(name, channels, size, classes))
    return cost(name, channels, size, classes).flops


class Work(NamedTuple):
    """Trainable parameters, and of one image's forward pass: floating-point operations, numbers that layers yield."""

    parameters: int
    flops: int
    activations: int


@lru_cache(maxsize=4096)
def work(name: str, channels: int, size: int, classes: int) -> Work:
    """How much there is to compute: of a ConvNet in closed form, of others on a network without weights.

    The numbers that layers yield tell the memory traffic; of a ConvNet they are those of its convolutions.
    """
    base, dash, _ = name.partition("-")
    if base in _CONVNETS and not (dash and name in ARCHITECTURES):
        config = convnet_config(name, channels, size, classes)
        yielded = sum(config.width * side**2 for side in config.block_sizes)
        return Work(count_parameters(config), count_flops(config), yielded)
    network = _without_weights(find(name), channels, size, classes)
    sizes: list[int] = []
    for layer in network.modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda _, __, made: sizes.append(made.numel()))
    return Work(*_counted(network, channels, size), sum(sizes))


def default_depth(size: int) -> int:
    """Depth of plain "convnet": 3 at 28 and 32 px, 4 at 64, 5 at 128 as published; the last map has 4 to 7 px.

    Below 32 px it stays 3.
    """
    return max(3, padded_size(size).bit_length() - 3)


def convnet_config(name: str, channels: int, size: int, classes: int) -> ConvNetConfig:
    """The configuration behind a ConvNet name, for example "convnet4" or "convnetbn-w64"; UsageError for others."""
    base, _, parts = name.partition("-")
    if base not in _CONVNETS:
        raise UsageError(f"'{name}' is not a ConvNet: {find(name).summary}.")
    levels = names.read(parts, _CONVNETS[base]) if parts else _CONVNETS[base]
    return _config(levels, channels, size, classes)


def _config(levels: dict[str, Any], channels: int, size: int, classes: int) -> ConvNetConfig:
    return ConvNetConfig(channels, size, classes, **{"depth": default_depth(size), **levels})


def _convnet(levels: dict[str, Any]) -> Architecture:
    def make(channels: int, size: int, classes: int) -> ConvNet:
        return ConvNet(_config(levels, channels, size, classes))

    depth = "" if "depth" in levels else ", depth by image size (3 at 28 and 32 px, 4 at 64, 5 at 128)"
    return Architecture(make, f"ConvNet {names.spell(**_defaults() | levels)}{depth}")


def _published(base: str, levels: dict[str, Any]) -> Architecture:
    """A method's own ConvNet with some of the factors that can be chosen of it."""
    network, factors, summary = _PUBLISHED[base]
    if extra := levels.keys() - factors:
        raise UsageError(f"No {', '.join(sorted(extra))} can be chosen of {base}.\nGive it {' or '.join(factors)}.")

    def make(channels: int, size: int, classes: int) -> Network:
        return network(channels, size, classes, **{"depth": default_depth(size), **levels})

    return Architecture(make, f"{summary}: {names.spell(**levels) or 'as published'}")


def _defaults() -> dict[str, Any]:
    config = ConvNetConfig()
    return {factor: getattr(config, factor) for factor in names.FACTORS if factor != "depth"}


def _torchvision(model: str) -> Architecture:
    return Architecture(partial(TorchvisionNet, model), f"torchvision's {model}", initialises_itself=True)


def _small(model: str) -> Architecture:
    summary = f"torchvision's {model} with a 3x3 convolution and no pooling first, for small images"
    return Architecture(partial(TorchvisionNet, model, small_stem=True), summary, initialises_itself=True)


def _of_space(prefix: str, model: str) -> Architecture:
    own = space(prefix)
    name = own.candidate(model).name.removeprefix(f"{prefix}:")
    summary, outside = f"{name} of the search space {prefix}", not SPACES.owner(prefix).built_in
    make = partial(_checked, own, name) if outside else partial(own.network, name)
    return Architecture(make, summary, initialises_itself=outside)


def _checked(own: SearchSpace, name: str, channels: int, size: int, classes: int) -> nn.Module:
    """The network of a space from outside. PluginError where it cannot be built, or takes or gives other shapes."""
    here = f"{own.name}:{name}"
    try:
        network = own.network(name, channels, size, classes)
        if not isinstance(network, nn.Module):
            raise TypeError(f"build gave {type(network).__name__}, no torch.nn.Module")
        was = network.training
        with torch.no_grad():
            # one image, as in a test: batch norm of one image has nothing to go by in training
            shape = tuple(network.eval()(torch.zeros(1, channels, size, size)).shape)
        network.train(was)
    except Exception as error:  # whatever foreign code raises
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        raise PluginError(f"The architecture {here} cannot be built.\n{told}") from error
    if shape != (1, classes):
        raise PluginError(f"The architecture {here} gives {list(shape)} for one image.\nIt is to give [1, {classes}].")
    return network


_PREFIXES: dict[str, Callable[[str], Architecture]] = {"torchvision": _torchvision, "small": _small}

_CONVNETS: dict[str, dict[str, Any]] = {
    "convnet": {},
    **{f"convnet{depth}": {"depth": depth} for depth in range(1, 7)},
    "convnetbn": {"norm": "batch"},
}
for _name, _levels in _CONVNETS.items():
    ARCHITECTURES.register(_name, _convnet(_levels))

# name -> network, factors that can be chosen, summary
_PUBLISHED: dict[str, tuple[Callable[..., Network], tuple[str, ...], str]] = {
    "freponet": (FRePoNet, ("width", "depth", "norm"), "FRePo's ConvNet, norms before convolutions"),
    "kipnet": (KIPNet, ("width", "depth"), "KIP's ConvNet, one convolution more and no norms"),
}
for _name in _PUBLISHED:
    ARCHITECTURES.register(_name, _published(_name, {}))

_ZOO: dict[str, tuple[Maker, str]] = {
    "mlp": (zoo.MLP, "two hidden layers of 128"),
    "lenet": (zoo.LeNet, "LeNet-5 with ReLU and max-pooling"),
    "alexcifarnet": (zoo.AlexCifarNet, "two convolutions with local response norm, as DD has it"),
    "alexnet": (zoo.AlexNet, "small-image AlexNet without norm"),
    "alexnetbn": (partial(zoo.AlexNet, norm=nn.BatchNorm2d), "small-image AlexNet with batch norm"),
    "vgg11": (partial(zoo.VGG11, norm=zoo.instance_norm), "VGG-11 with instance norm"),
    "vgg11bn": (partial(zoo.VGG11, norm=nn.BatchNorm2d), "VGG-11 with batch norm"),
    "resnet18": (zoo.ResNet18, "ResNet-18 with instance norm"),
    "resnet18bn": (partial(zoo.ResNet18, norm=nn.BatchNorm2d), "ResNet-18 with batch norm"),
    "resnet10ap": (zoo.ResNetAP10, "ResNetAP-10: one block a stage, instance norm, average pooling for strides"),
    "resnet18ap": (partial(zoo.ResNet18, average=True), "ResNet-18, instance norm, average pooling for strides"),
    "resnet18bnap": (
        partial(zoo.ResNet18, norm=nn.BatchNorm2d, average=True),
        "ResNet-18, batch norm, average pooling for strides",
    ),
}
for _name, (_maker, _summary) in _ZOO.items():
    ARCHITECTURES.register(_name, Architecture(_maker, _summary))

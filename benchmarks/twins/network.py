"""Networks of torch's own layers, one after another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import search_space
from downstream.protocol import CONVNETS
from search_space.architectures import convnet_config
from search_space.convnet import GROUPS, ConvNetConfig
from search_space.convolution import Convolution
from search_space.init import construct
from search_space.network import extra_padding

_NORMS: dict[str, Callable[[int, int], list[nn.Module]]] = {
    "none": lambda width, size: [],
    "batch": lambda width, size: [nn.BatchNorm2d(width)],
    "layer": lambda width, size: [nn.LayerNorm([width, size, size])],
    "instance": lambda width, size: [nn.GroupNorm(width, width)],
    "group": lambda width, size: [nn.GroupNorm(GROUPS, width)],
}
_ACTS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "leakyrelu": lambda: nn.LeakyReLU(0.01),
    "swish": nn.SiLU,
}
_POOLS: dict[str, Callable[[], list[nn.Module]]] = {
    "none": lambda: [],
    "max": lambda: [nn.MaxPool2d(2)],
    "avg": lambda: [nn.AvgPool2d(2)],
}


class PlainConvNet(nn.Module):
    """What `search_space.convnet.ConvNet` is, layer by layer; parameters come in the same order."""

    def __init__(self, config: ConvNetConfig):
        super().__init__()
        layers: list[nn.Module] = []
        for number, size in enumerate(config.block_sizes):
            inputs = config.width if number else config.channels
            padding = 1 if number else 1 + extra_padding(config.size)
            layers.append(nn.Conv2d(inputs, config.width, 3, padding=padding))
            layers += [*_NORMS[config.norm](config.width, size), _ACTS[config.act](), *_POOLS[config.pool]()]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(config.embed_dim, config.classes)

    def embed(self, images: Tensor) -> Tensor:
        """Features [N, F] before the classifier."""
        return self.features(images).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.embed(images))


def plain_network(model: str, shape: tuple[int, int, int], classes: int, generator: torch.Generator) -> nn.Module:
    """The named network with the weights that `search_space.build` draws from such a generator."""
    if not model.startswith(CONVNETS):
        return one_by_one(search_space.build(model, shape[0], shape[1], classes, generator))
    config = convnet_config(model, shape[0], shape[1], classes)
    return construct(lambda: PlainConvNet(config), generator)


def one_by_one(network: nn.Module) -> nn.Module:
    """The network with torch's own convolutions, whose modules run one after another: each has a hook to see it run."""
    for module in network.modules():
        if isinstance(module, Convolution):
            module.__class__ = nn.Conv2d  # type: ignore[assignment]
        module.register_forward_hook(lambda module, inputs, output: None)
    return network

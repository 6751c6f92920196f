"""NAS-Bench-201's cells: 15,625 small residual networks (Dong and Yang, ICLR 2020), built without their table.

A cell has four nodes, and each node reads all nodes before it, so six edges; an edge is one of five operations, and a
node is the sum of its edges. A name lists them node by node with the node each reads:
`|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|nor_conv_3x3~1|skip_connect~2|`.

Around it: a 3x3 convolution to 16 channels, three stages of five cells with 16, 32 and 64 channels, a residual block
of stride 2 between them, average pooling and one linear layer. Checked: the published range of parameters on CIFAR-10,
0.073306 to 1.531546 million, and of multiply-adds, 7.78 to 220.12 million.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from search_space.network import Network
from search_space.spaces import SPACES, SearchSpace

NODES = 4
CHANNELS, CELLS = (16, 32, 64), 5
# (node, node it reads) of each edge, in the order of a name
EDGES = [(node, before) for node in range(1, NODES) for before in range(node)]


def _convolved(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    """ReLU, convolution without bias, batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(outputs))


# word of an operation -> the layer for so many channels; None: no edge
OPERATIONS: dict[str, Callable[[int], nn.Module | None]] = {
    "none": lambda channels: None,
    "skip_connect": lambda channels: nn.Identity(),
    "nor_conv_1x1": lambda channels: _convolved(channels, channels, 1),
    "nor_conv_3x3": lambda channels: _convolved(channels, channels, 3),
    "avg_pool_3x3": lambda channels: nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
}


def spell(operations: Sequence[str]) -> str:
    """The name of a cell from the operations of its six edges."""
    words = [f"{operation}~{before}" for operation, (_, before) in zip(operations, EDGES, strict=True)]
    nodes = [[word for word, (node, _) in zip(words, EDGES, strict=True) if node == own] for own in range(1, NODES)]
    return "+".join(f"|{'|'.join(node)}|" for node in nodes)


def read(name: str) -> list[str]:
    """The operations of a cell's edges from its name."""
    return re.findall(r"([a-z0-9_]+)~\d", name)


class Cell201(nn.Module):
    """One cell: maps [N, channels, s, s] to maps of the same shape."""

    def __init__(self, operations: Sequence[str], channels: int):
        super().__init__()
        layers = {
            f"{node}-{before}": OPERATIONS[operation](channels)
            for operation, (node, before) in zip(operations, EDGES, strict=True)
        }
        self.edges = nn.ModuleDict({key: layer for key, layer in layers.items() if layer is not None})

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        nodes = [maps]
        for node in range(1, NODES):
            read = [self.edges[f"{node}-{k}"](nodes[k]) for k in range(node) if f"{node}-{k}" in self.edges]
            nodes.append(sum(read[1:], start=read[0]) if read else torch.zeros_like(maps))
        return nodes[-1]


class Narrowing(nn.Module):
    """The residual block between two stages: half the side, twice the channels."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.body = nn.Sequential(_convolved(inputs, outputs, 3, 2), _convolved(outputs, outputs, 3))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.shortcut(maps) + self.body(maps)


class NasBench201Net(Network):
    """The whole network of a cell; `embed` is the 64 averages the linear layer reads."""

    embed_dim = CHANNELS[-1]

    def __init__(self, operations: Sequence[str], channels: int, size: int, classes: int):
        super().__init__(channels, size, classes)
        stem = [nn.Conv2d(channels, CHANNELS[0], 3, padding=1, bias=False), nn.BatchNorm2d(CHANNELS[0])]
        layers: list[nn.Module] = [*stem]
        for stage, width in enumerate(CHANNELS):
            layers += [Narrowing(CHANNELS[stage - 1], width)] if stage else []
            layers += [Cell201(operations, width) for _ in range(CELLS)]
        layers += [nn.BatchNorm2d(self.embed_dim), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(self.embed_dim, classes)

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


@SPACES.register("nasbench201")
class NasBench201(SearchSpace):
    """Every cell; a part of them is drawn. Their published accuracies are in a table that you bring."""

    numerics = 1
    names: Sequence[str] = tuple(spell(cell) for cell in itertools.product(OPERATIONS, repeat=len(EDGES)))

    def build(self, name: str, channels: int = 3, size: int = 32, classes: int = 10) -> nn.Module:
        return NasBench201Net(read(name), channels, size, classes)

    def factors(self, name: str) -> Mapping[str, Any]:
        """The operation of each edge."""
        return {f"edge {b} to {a}": operation for operation, (a, b) in zip(read(name), EDGES, strict=True)}

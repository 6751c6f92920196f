"""ConvNet(width, depth, norm, act, pool): the network of the dataset-distillation literature.

One block is convolution 3x3 (bias, padding 1) -> norm -> activation -> 2x2 pooling; a linear classifier
reads the flattened last map (Gidaris & Komodakis 2018; dataset condensation, Zhao et al. 2021). With the
defaults, 320,010 parameters on CIFAR-10. Norm "instance" is GroupNorm with one channel a group (affine, no
running statistics), "layer" normalises the whole map with one weight per element, "group" has 4 groups.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import nn

from fyi_bench.errors import UnknownNameError, UsageError
from search_space.block import convolved, pooled
from search_space.convolution import Convolution
from search_space.network import Network, extra_padding, padded_size, require_positive
from search_space.pooling import AveragePool2x2

GROUPS = 4
_KERNEL = 3

NORMS: dict[str, Callable[[int, int], nn.Module]] = {
    "none": lambda width, size: nn.Identity(),
    "batch": lambda width, size: nn.BatchNorm2d(width),
    "layer": lambda width, size: nn.LayerNorm([width, size, size]),
    "instance": lambda width, size: nn.GroupNorm(width, width),
    "group": lambda width, size: nn.GroupNorm(GROUPS, width),
}
ACTS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "leakyrelu": lambda: nn.LeakyReLU(0.01),
    "swish": nn.SiLU,
}
POOLS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "max": lambda: nn.MaxPool2d(2),
    "avg": AveragePool2x2,
}


@dataclass(frozen=True)
class ConvNetConfig:
    """A ConvNet for images [channels, size, size]; UsageError for a combination that cannot exist."""

    channels: int = 3
    size: int = 32
    classes: int = 10
    width: int = 128
    depth: int = 3
    norm: str = "instance"
    act: str = "relu"
    pool: str = "avg"

    def __post_init__(self) -> None:
        require_positive(
            channels=self.channels, size=self.size, classes=self.classes, width=self.width, depth=self.depth
        )
        for kind, name, known in (
            ("norm", self.norm, NORMS),
            ("activation", self.act, ACTS),
            ("pooling", self.pool, POOLS),
        ):
            if name not in known:
                raise UnknownNameError(kind, name, known)
        if self.norm == "group" and self.width % GROUPS:
            raise UsageError(f"Group norm has {GROUPS} groups: width {self.width} is not a multiple of {GROUPS}.")
        if self.map_size < 1:
            deepest = padded_size(self.size).bit_length() - 1
            raise UsageError(
                f"A ConvNet of depth {self.depth} halves a {self.size} px image to nothing.\n"
                f"Use depth {deepest} or less, or no pooling."
            )

    @property
    def block_sizes(self) -> tuple[int, ...]:
        """Side length of each block's map before its pooling."""
        sizes = [padded_size(self.size)]
        for _ in range(self.depth - 1):
            sizes.append(self._pooled(sizes[-1]))
        return tuple(sizes)

    @property
    def map_size(self) -> int:
        """Side length of the last map, after pooling."""
        return self._pooled(self.block_sizes[-1])

    @property
    def embed_dim(self) -> int:
        """Features the classifier reads."""
        return self.width * self.map_size**2

    def _pooled(self, size: int) -> int:
        return size if self.pool == "none" else size // 2


class BlockFeatures(NamedTuple):
    """What one block yields: the activation output before pooling, and the pooled map."""

    activated: torch.Tensor
    pooled: torch.Tensor


class Block(nn.Module):
    """Convolution -> norm -> activation -> pooling, for maps of `size` px before pooling."""

    def __init__(self, config: ConvNetConfig, inputs: int, size: int, padding: int):
        super().__init__()
        self.conv = Convolution(inputs, config.width, _KERNEL, padding=padding)
        self.norm = NORMS[config.norm](config.width, size)
        self.act = ACTS[config.act]()
        self.pool = POOLS[config.pool]()

    def activate(self, maps: torch.Tensor) -> torch.Tensor:
        """The activation output, before pooling."""
        return convolved(maps, self.conv, self.norm, self.act)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """The pooled map."""
        return convolved(maps, self.conv, self.norm, self.act, self.pool)


class ConvNet(Network):
    """The ConvNet of `config`.

    Parameters come block by block (conv weight, bias, norm weight, bias), then classifier weight, bias.
    Works in any float type and memory format. 28 px images are padded to 32 by the first convolution.
    Constructors draw from the default generator: make one with `search_space.init.construct`.
    """

    def __init__(self, config: ConvNetConfig | None = None):
        config = config or ConvNetConfig()
        super().__init__(config.channels, config.size, config.classes)
        self.config, self.embed_dim = config, config.embed_dim
        blocks = []
        for number, size in enumerate(config.block_sizes):
            inputs = config.width if number else config.channels
            padding = 1 if number else 1 + extra_padding(config.size)
            blocks.append(Block(config, inputs, size, padding))
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(config.embed_dim, config.classes)

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        return self.blocks(images).flatten(1)

    def pooled_per_block(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The pooled map of every block, as in `features_per_block`, where the activations are not needed."""
        self.check(images)
        return list(itertools.accumulate(self.blocks, lambda maps, block: block(maps), initial=images))[1:]

    def features_per_block(self, images: torch.Tensor) -> list[BlockFeatures]:
        """(activated, pooled) of every block, first to last; the last `pooled`, flattened, is `embed(images)`.

        `activated` is [N, width, s, s] before pooling (what attention and layer-wise feature matching
        read), `pooled` [N, width, s // 2, s // 2], or the same tensor where there is no pooling.
        """
        self.check(images)
        features = []
        for block in cast(Iterable[Block], self.blocks):
            activated = block.activate(images)
            images = pooled(activated, block.pool)
            features.append(BlockFeatures(activated, images))
        return features


def count_parameters(config: ConvNetConfig) -> int:
    """Trainable parameters, in closed form."""
    width, total, inputs = config.width, 0, config.channels
    for size in config.block_sizes:
        norm = {"none": 0, "layer": 2 * width * size**2}.get(config.norm, 2 * width)
        total += inputs * width * _KERNEL**2 + width + norm
        inputs = width
    return total + (config.embed_dim + 1) * config.classes


def count_flops(config: ConvNetConfig) -> int:
    """Floating-point operations of one image's forward pass, in closed form.

    Convolutions and classifier only, a multiply-add counted as 2; biases, norms, activations and pooling
    (a few per cent) are left out. Forward and backward together cost about three times as much.
    """
    total, inputs = 0, config.channels
    for size in config.block_sizes:
        total += 2 * inputs * config.width * _KERNEL**2 * size**2
        inputs = config.width
    return total + 2 * config.embed_dim * config.classes

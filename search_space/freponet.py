"""FRePo's network: blocks of norm, convolution, ReLU and average pooling, each twice as wide as the one before.

Norms stand before convolutions, none before the first and none after the last (Zhou, Nezhadarya, Ba, NeurIPS 2022).
Weights start as flax's do: normal, cut off at two deviations, with variance 1 / fan in; biases 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fyi_bench.errors import UnknownNameError, UsageError
from search_space.block import convolved
from search_space.convnet import NORMS
from search_space.convolution import Convolution
from search_space.init import lecun_normal
from search_space.network import Network, extra_padding, padded_size, require_positive
from search_space.pooling import AveragePool2x2


class FlaxBatchNorm(nn.BatchNorm2d):
    """Batch norm whose running statistics follow flax: a tenth of the old, the rest the batch's, variance biased."""

    def __init__(self, width: int):
        super().__init__(width, momentum=0.9)

    def forward(self, maps: Tensor) -> Tensor:
        if not self.training:
            return super().forward(maps)
        with torch.no_grad():
            variance, mean = torch.var_mean(maps, (0, 2, 3), correction=0)
            for running, found in ((self.running_mean, mean), (self.running_var, variance)):
                assert running is not None
                running.lerp_(found.to(running.dtype), 0.9)
        return F.batch_norm(maps, None, None, self.weight, self.bias, True, 0.0, self.eps)


class PreNormBlock(nn.Module):
    """Norm -> convolution 3x3 -> ReLU -> 2x2 average pooling."""

    def __init__(self, inputs: int, width: int, padding: int, norm: nn.Module):
        super().__init__()
        self.norm = norm
        self.conv = Convolution(inputs, width, 3, padding=padding)
        self.act, self.pool = nn.ReLU(), AveragePool2x2()

    def forward(self, maps: Tensor) -> Tensor:
        return convolved(self.norm(maps), self.conv, nn.Identity(), self.act, self.pool)


class FRePoNet(Network):
    """FRePo's ConvNet; its width is that of the first block. 28 px images are padded to 32."""

    initialisation = staticmethod(lecun_normal)

    def __init__(self, channels: int, size: int, classes: int, *, width: int = 128, depth: int = 3, norm: str = "none"):
        super().__init__(channels, size, classes)
        require_positive(width=width, depth=depth)
        if norm not in NORMS:
            raise UnknownNameError("norm", norm, NORMS)
        if padded_size(size) < 2**depth:
            raise UsageError(f"FRePoNet of depth {depth} halves a {size} px image to nothing.\nUse a smaller depth.")
        blocks, inputs, side = [], channels, padded_size(size)
        for number in range(depth):
            made = FlaxBatchNorm(inputs) if norm == "batch" else NORMS[norm](inputs, side)
            padding = 1 if number else 1 + extra_padding(size)
            blocks.append(PreNormBlock(inputs, width * 2**number, padding, made if number else nn.Identity()))
            inputs, side = width * 2**number, side // 2
        self.blocks = nn.Sequential(*blocks)
        self.embed_dim = inputs * side**2
        self.classifier = nn.Linear(self.embed_dim, classes)

    def trunk(self, images: Tensor) -> Tensor:
        return self.blocks(images).flatten(1)

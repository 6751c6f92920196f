"""KIP's finite network: one convolution, then blocks of convolution, ReLU and average pooling, without norms.

What the kernel of `distill.kernels` is the infinitely wide limit of (Nguyen, Novak, Xiao, Lee, NeurIPS 2021, code:
nn_training.ipynb). Weights start normal with variance 2 / fan in, biases normal with deviation 0.1.
"""

from __future__ import annotations

from torch import Tensor, nn

from fyi_bench.errors import UsageError
from search_space.block import convolved
from search_space.convolution import Convolution
from search_space.init import wide_normal
from search_space.network import Network, extra_padding, padded_size, require_positive
from search_space.pooling import AveragePool2x2


class KIPBlock(nn.Module):
    """Convolution 3x3 -> ReLU -> 2x2 average pooling, or none."""

    def __init__(self, inputs: int, width: int, padding: int, pool: bool):
        super().__init__()
        self.conv, self.act = Convolution(inputs, width, 3, padding=padding), nn.ReLU()
        self.pool = AveragePool2x2() if pool else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        return convolved(maps, self.conv, nn.Identity(), self.act, self.pool)


class KIPNet(Network):
    """`depth` blocks that halve the image, behind one that does not. 28 px images are padded to 32."""

    initialisation = staticmethod(wide_normal)

    def __init__(self, channels: int, size: int, classes: int, *, width: int = 1024, depth: int = 3):
        super().__init__(channels, size, classes)
        require_positive(width=width, depth=depth)
        if padded_size(size) < 2**depth:
            raise UsageError(f"KIPNet of depth {depth} halves a {size} px image to nothing.\nUse a smaller depth.")
        first = KIPBlock(channels, width, 1 + extra_padding(size), pool=False)
        self.blocks = nn.Sequential(first, *(KIPBlock(width, width, 1, pool=True) for _ in range(depth)))
        self.embed_dim = width * (padded_size(size) // 2**depth) ** 2
        self.classifier = nn.Linear(self.embed_dim, classes)

    def trunk(self, images: Tensor) -> Tensor:
        return self.blocks(images).flatten(1)

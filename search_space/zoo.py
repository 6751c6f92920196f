"""Networks other than the ConvNet, for cross-architecture accuracy.

Structures follow the small-image variants of the dataset-condensation code (their parameter counts at 28
and 32 px are tested). The published classes stop at 32 px. Beyond it an adaptive average pooling brings the
last map to the size the 32 px network has, so their parameter counts hold at every size; only the MLP, which
reads pixels, grows. 28 px images are padded to 32 by the first convolution where the published network does.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from fyi_bench.errors import UsageError
from search_space.block import convolved, run
from search_space.convolution import Convolution
from search_space.network import Network, extra_padding, padded_size

Norm = Callable[[int], nn.Module]
_POOL = None  # in a plan: a 2x2 max-pooling


def instance_norm(channels: int) -> nn.Module:
    """GroupNorm with one channel a group: affine, without running statistics."""
    return nn.GroupNorm(channels, channels)


def _require_size(network: str, size: int, smallest: int) -> None:
    if size < smallest:
        raise UsageError(f"{network} needs images of {smallest} px or more, got {size} px.")


class MLP(Network):
    """pixels -> 128 -> 128 -> classes with ReLU; `embed` is the second hidden layer."""

    embed_dim = 128

    def __init__(self, channels: int, size: int, classes: int):
        super().__init__(channels, size, classes)
        inputs = channels * size**2
        layers = (nn.Linear(inputs, self.embed_dim), nn.ReLU(), nn.Linear(self.embed_dim, self.embed_dim), nn.ReLU())
        self.layers = nn.Sequential(nn.Flatten(), *layers)
        self.classifier = nn.Linear(self.embed_dim, classes)

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


class LeNet(Network):
    """LeCun et al. 1998 with ReLU and max-pooling; `embed` is the 84-wide layer."""

    embed_dim = 84

    def __init__(self, channels: int, size: int, classes: int):
        super().__init__(channels, size, classes)
        _require_size("LeNet", size, 16)
        side = ((padded_size(size) - 4) // 2 - 4) // 2
        head = min(side, 5)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=extra_padding(size)),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            _fit(side, head),
            nn.Flatten(),
            nn.Linear(16 * head**2, 120),
            nn.ReLU(),
            nn.Linear(120, self.embed_dim),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(self.embed_dim, classes)

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


class AlexCifarNet(Network):
    """Two convolutions with local response norms and three linear layers, as DD uses it; `embed` is 192 wide."""

    embed_dim = 192

    def __init__(self, channels: int, size: int, classes: int):
        super().__init__(channels, size, classes)
        _require_size("AlexCifarNet", size, 16)
        side = padded_size(size) // 4
        head = min(side, 8)

        def block(inputs: int, extra: int, norm_first: bool) -> list[nn.Module]:
            pool, norm = nn.MaxPool2d(3, stride=2, padding=1), nn.LocalResponseNorm(4, alpha=0.001 / 9, beta=0.75, k=1)
            after = [norm, pool] if norm_first else [pool, norm]
            return [nn.Conv2d(inputs, 64, 5, padding=2 + extra), nn.ReLU(), *after]

        self.layers = nn.Sequential(
            *block(channels, extra_padding(size), norm_first=False),
            *block(64, 0, norm_first=True),
            _fit(side, head),
            nn.Flatten(),
            nn.Linear(64 * head**2, 384),
            nn.ReLU(),
            nn.Linear(384, self.embed_dim),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(self.embed_dim, classes)

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


class PlainNet(Network):
    """Convolutions (bias) with optional norm, ReLU and max-poolings as a plan lists them, one linear layer.

    `plan`: (kernel, channels) for a convolution, None for a pooling; `head` is the side length of the last
    map at 32 px. `embed` is the flattened last map.
    """

    plan: tuple[tuple[int, int] | None, ...] = ()
    head = 1

    def __init__(self, channels: int, size: int, classes: int, norm: Norm | None = None):
        super().__init__(channels, size, classes)
        shrink = 2 ** self.plan.count(_POOL)
        _require_size(type(self).__name__, padded_size(size), shrink)
        layers: list[nn.Module] = []
        inputs, extra = channels, extra_padding(size)
        for step in self.plan:
            if step is _POOL:
                layers.append(nn.MaxPool2d(2))
                continue
            kernel, width = step
            layers.append(Convolution(inputs, width, kernel, padding=kernel // 2 + extra))
            layers += [norm(width), nn.ReLU()] if norm else [nn.ReLU()]
            inputs, extra = width, 0
        side = padded_size(size) // shrink
        head = min(side, self.head)
        self.layers = nn.Sequential(*layers, _fit(side, head), nn.Flatten())
        self.embed_dim = inputs * head**2
        self.classifier = nn.Linear(self.embed_dim, classes)

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        return run(self.layers, images)


class AlexNet(PlainNet):
    """The small-image AlexNet (Krizhevsky et al. 2012): 5 convolutions, no dropout, one linear layer."""

    plan = ((5, 128), _POOL, (5, 192), _POOL, (3, 256), (3, 192), (3, 192), _POOL)
    head = 4


class VGG11(PlainNet):
    """VGG-11 (Simonyan & Zisserman 2015) with norms and one linear layer."""

    plan = (
        *((3, 64), _POOL, (3, 128), _POOL, (3, 256), (3, 256), _POOL),
        *((3, 512), (3, 512), _POOL, (3, 512), (3, 512), _POOL),
    )
    head = 1


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; `average` halves the map by average pooling instead of a stride."""

    def __init__(self, inputs: int, width: int, stride: int, norm: Norm, average: bool):
        super().__init__()
        step = 1 if average else stride
        self.conv1 = Convolution(inputs, width, 3, stride=step, padding=1, bias=False)
        self.norm1 = norm(width)
        self.conv2 = Convolution(width, width, 3, padding=1, bias=False)
        self.norm2 = norm(width)
        self.relu = nn.ReLU()
        self.down = nn.AvgPool2d(stride) if average and stride > 1 else nn.Identity()
        if stride > 1 or inputs != width:
            conv = Convolution(inputs, width, 1, stride=step, bias=False)
            self.shortcut = nn.Sequential(conv, self.down, norm(width))
        else:
            self.shortcut = nn.Sequential()

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        out = self.down(convolved(maps, self.conv1, self.norm1, self.relu))
        return self.relu(convolved(out, self.conv2, self.norm2) + run(self.shortcut, maps))


class ResNet18(Network):
    """ResNet-18 (He et al. 2016) with the small-image stem: 3x3, stride 1, no pooling; no padding of 28 px.

    Plain: global average pooling, `embed` is 512 wide. `average=True` ("AP"): average pooling instead of
    strides and no global pooling, `embed` is the flattened last map (512 x 4 x 4 at 32 px, 3 x 3 at 28).
    """

    widths = (64, 128, 256, 512)

    def __init__(self, channels: int, size: int, classes: int, norm: Norm = instance_norm, average: bool = False):
        super().__init__(channels, size, classes)
        _require_size("ResNet18", size, 16)
        self.conv = Convolution(channels, self.widths[0], 3, padding=1, bias=False)
        self.norm = norm(self.widths[0])
        self.relu = nn.ReLU()
        blocks, inputs = [], self.widths[0]
        for stage, width in enumerate(self.widths):
            for stride in (2 if stage else 1, 1):
                blocks.append(ResidualBlock(inputs, width, stride, norm, average))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        side = size // 8
        head = min(side, 4) if average else 1
        # a stride rounds an odd map up where pooling rounds down; only pooled maps keep their size here
        self.pool = _fit(side, head) if average else nn.AdaptiveAvgPool2d(1)
        self.embed_dim = inputs * head**2
        self.classifier = nn.Linear(self.embed_dim, classes)

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        return self.pool(self.blocks(convolved(images, self.conv, self.norm, self.relu))).flatten(1)


class ResNetAP10(Network):
    """ResNetAP-10 (IDC, Kim et al. 2022): one block a stage, average pooling for strides, instance norm.

    The first convolution keeps the size up to 64 px; up to 128 px a pooling by 2 follows; above it is 7x7, a pooling
    by 4. Half the width up to 32 px. `embed` is the last map's mean.
    """

    def __init__(self, channels: int, size: int, classes: int, norm: Norm = instance_norm):
        super().__init__(channels, size, classes)
        _require_size("ResNetAP10", size, 16)
        kernel, pool = (3, 1) if size <= 64 else (3, 2) if size <= 128 else (7, 4)
        widths = [(32 if size <= 32 else 64) * 2**stage for stage in range(4)]
        self.conv = Convolution(channels, widths[0], kernel, padding=kernel // 2, bias=False)
        self.norm = norm(widths[0])
        self.relu = nn.ReLU()
        self.pool = nn.AvgPool2d(pool) if pool > 1 else nn.Identity()
        inputs = [widths[0], *widths[:-1]]
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(i, w, 2 if k else 1, norm, True)
                for k, (i, w) in enumerate(zip(inputs, widths, strict=True))
            )
        )
        self.embed_dim = widths[-1]
        self.classifier = nn.Linear(self.embed_dim, classes)

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.pool(convolved(images, self.conv, self.norm, self.relu))).mean((2, 3))


def _fit(side: int, head: int) -> nn.Module:
    return nn.Identity() if side == head else nn.AdaptiveAvgPool2d(head)

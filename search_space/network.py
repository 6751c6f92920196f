"""What every network of the project has in common: `embed`, a linear `classifier`, a stated input size."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from fyi_bench.errors import DataError, UsageError

# MNIST-like images are brought to the size everything else is built for by the first convolution's padding.
_PADDED = {28: 32}


def padded_size(size: int) -> int:
    """Side length the trunk works at: 28 px count as 32, every other size as itself."""
    return _PADDED.get(size, size)


def extra_padding(size: int) -> int:
    """What the first convolution pads on each side beyond its usual padding (2 for 28 px, else 0)."""
    return (padded_size(size) - size) // 2


def require_positive(**values: int) -> None:
    """UsageError for a dimension that is not a whole number of at least 1."""
    for name, value in values.items():
        if not isinstance(value, int) or value < 1:
            raise UsageError(f"A network needs {name} >= 1, got {value!r}.")


def embed(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Features [N, embed_dim] before the classifier. UsageError for an architecture from outside that tells none."""
    if not callable(getattr(network, "embed", None)):
        raise UsageError(
            f"{type(network).__name__} has no embed(images), the features that this compares.\n"
            "Choose an architecture that has, or give it one that returns [N, features]."
        )
    return cast(torch.Tensor, network.embed(images))  # type: ignore[operator]


class Network(nn.Module):
    """A classifier of square images: logits = classifier(embed(images)).

    Subclasses set `embed_dim` and `classifier` (last, so that its parameters come last) and implement
    `trunk(images) -> [N, embed_dim]`. Nothing is done in place: hooks and second derivatives rely on it.
    """

    embed_dim: int
    classifier: nn.Linear

    def __init__(self, channels: int, size: int, classes: int):
        super().__init__()
        require_positive(channels=channels, size=size, classes=classes)
        self.channels, self.size, self.classes = channels, size, classes

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        """Everything before the classifier, flattened per image."""
        raise TypeError(f"{type(self).__name__} must define trunk(images)")

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, channels, size, size] -> features [N, embed_dim]. DataError for another image shape."""
        self.check(images)
        return self.trunk(images)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, channels, size, size] -> logits [N, classes]."""
        return self.classifier(self.embed(images))

    def check(self, images: torch.Tensor) -> None:
        """DataError unless images are [N, channels, size, size]."""
        expected = (self.channels, self.size, self.size)
        if images.dim() != 4 or tuple(images.shape[1:]) != expected:
            raise DataError(
                f"{type(self).__name__} was built for images [N, {', '.join(map(str, expected))}], "
                f"got {list(images.shape)}.\nBuild it with the channels and size of these images."
            )

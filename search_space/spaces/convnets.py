"""The 720 ConvNets of dataset condensation as a search space (`search_space.space720`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from search_space import space720
from search_space.convnet import ConvNet
from search_space.space720 import Point
from search_space.spaces import SPACES, SearchSpace

if TYPE_CHECKING:
    from torch import nn


@SPACES.register("convnets")
class ConvNets(SearchSpace):
    """4 widths x 4 depths x 5 norms x 3 activations x 3 poolings; a part of them is a stratified choice."""

    names: Sequence[str] = tuple(point.name for point in space720.SPACE)

    def build(self, name: str, channels: int = 3, size: int = 32, classes: int = 10) -> nn.Module:
        return ConvNet(space720.point(name).config(channels, size, classes))

    def candidate(self, name: str) -> Point:  # type: ignore[override]
        return space720.point(name.removeprefix("convnets:"))

    def subset(self, count: int, seed: int = 0) -> tuple[Point, ...]:
        return space720.subset(count, seed)

"""A method written the plain way, one file as a plug-in's: it says how to draw a network and its loss, and no more."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

from distill.contracts import Context
from distill.method import Method, MethodConfig
from distill.methods import METHODS

NAME = "plain"


@dataclass(frozen=True)
class PlainConfig(MethodConfig):
    batch_real: int
    sharpness: float


class Plain(Method):
    """Class means of sharpened features, matched under a fresh network."""

    Config = PlainConfig
    recipe = {  # noqa: RUF012
        "extends": "dm",
        "source": "this file",
        "common": {"sharpness": 1.5},
        "quick": {"common": {"iterations": 90}},
    }

    def begin(self, ctx: Context) -> None:
        self.network = self.fresh_network(ctx.iteration, trainable=False)

    def loss(self, ctx: Context) -> torch.Tensor:
        size, classes = self.problem.shape[-1], self.problem.num_classes
        draw = self.augmentation.draw_classes(ctx.stream("augment"), classes, size)
        with torch.no_grad():
            target = self._means(ctx.real(self.config.batch_real), draw)
        return (self._means(ctx.synthetic(), draw) - target).square().sum()

    def _means(self, images: torch.Tensor, draw) -> torch.Tensor:
        """[C, F] of images [C, n, ch, H, W]."""
        seen = self.augmentation.apply(images.flatten(0, 1), draw)
        return self.network.embed(seen).abs().pow(self.config.sharpness).unflatten(0, images.shape[:2]).mean(1)


@contextlib.contextmanager
def registered() -> Iterator[str]:
    """Inside, the method is there under its name."""
    METHODS.register(NAME, Plain)
    try:
        yield NAME
    finally:
        del METHODS._entries[NAME], METHODS._owners[NAME]


@pytest.fixture(autouse=True, scope="module")
def plain_method() -> Iterator[str]:
    """Imported by a test file, it makes the method one of all."""
    with registered() as name:
        yield name

"""Coresets: real images chosen instead of synthesised; they pass through the same door as every method.

random: ipc images of each class without replacement, keyed by the seed: the images a method with the same
seed and `init=real` starts from, so a comparison with it is paired. Published accuracies stand in the table data
(FYI Table 1 and its sources); the recipe is recipes/random.toml.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from distill.method import METHODS, Method, MethodConfig

if TYPE_CHECKING:
    from distill.engine import Context


class Coreset(Method):
    """A method without iterations: its initial images are its result."""

    numerics = 1
    Config = MethodConfig

    def loss(self, ctx: Context) -> torch.Tensor:
        # never reached with 0 iterations; a zero keeps a misconfigured run harmless
        return ctx.images.sum() * 0


@METHODS.register("random")
class Random(Coreset):
    """Random real images of each class."""

    name = "random"

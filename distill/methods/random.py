"""Random: real images of each class drawn without replacement; coresets pass through the same door as every method.

Choice: ipc images a class, keyed by the seed: the same that a method with this seed and init = real starts from, so
        that a comparison with it is paired.
FYI:    nothing is optimised, so the flip changes nothing.
Recipe: random.toml.
Published: CIFAR-10 at 1 / 10 / 50 images a class 14.4 / 26.0 / 43.4 %, CIFAR-100 4.2 / 14.6 / 30.0 %, Tiny-ImageNet
        1.4 / 5.0 / 15.0 % (the baselines of DC and DM as repeated in the InfoUtil paper, Table 9: a secondary source).
Ours:   docs/methods.md.
Run:    fyi-bench distill --method random --dataset cifar10 --ipc 10
"""

from __future__ import annotations

import torch

from distill.contracts import Context
from distill.method import Method
from distill.methods import METHODS


class Coreset(Method):
    """A method without iterations: its initial images are its result."""

    numerics = 1

    def loss(self, ctx: Context) -> torch.Tensor:
        # never reached with 0 iterations; a zero keeps a misconfigured run harmless
        return ctx.images.sum() * 0

    def passes(self, multiplier: int) -> tuple[float, float, float]:
        return 0.0, 0.0, 0.0


@METHODS.register("random")
class Random(Coreset):
    """Random real images of each class."""

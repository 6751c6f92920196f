"""K-Center: real images such that none of their class is far from the nearest of them.

Paper:  Sener, Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018 (greedy
        k-center); a baseline of DC, ICLR 2021.
Choice: first the image nearest to the class mean, then always the one farthest from all chosen, in feature space.
FYI:    nothing is optimised, so the flip changes nothing.
Recipe: kcenter.toml. Features of a network trained on the real images; see `features` there.
Published: no number with a source at hand.
Ours:   docs/methods.md.
Run:    fyi-bench distill --method kcenter --dataset cifar10 --ipc 10
"""

from __future__ import annotations

import torch

from distill import coresets
from distill.methods import METHODS
from distill.methods._coreset import FeatureCoreset


@METHODS.register("kcenter")
class KCenter(FeatureCoreset):
    """Farthest-first traversal from the class mean."""

    numerics = 1

    def rows(self) -> torch.Tensor:
        return coresets.chosen_rows(self.problem, self.embedding(), coresets.k_center, self.problem.ipc)

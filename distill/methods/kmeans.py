"""K-means: the real images nearest to the centres of their class's clusters.

Paper:  the choice that DREAM makes for its real batches (Liu et al., ICCV 2023), used as a coreset.
Choice: k-means++ and Lloyd's iterations in feature space with ipc centres a class, then the nearest image of each.
FYI:    nothing is optimised, so the flip changes nothing.
Recipe: kmeans.toml. Features of a network trained on the real images; see `features` there.
Published: no number with a source at hand.
Ours:   docs/methods.md.
Run:    fyi-bench distill --method kmeans --dataset cifar10 --ipc 10
"""

from __future__ import annotations

import torch

from distill import coresets
from distill.methods import METHODS
from distill.methods._coreset import FeatureCoreset


@METHODS.register("kmeans")
class KMeans(FeatureCoreset):
    """The image nearest to each centre."""

    numerics = 1

    def rows(self) -> torch.Tensor:
        return coresets.kmeans_rows(self.problem, self.embedding(), self.problem.ipc)

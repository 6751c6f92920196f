"""Herding: real images whose running mean of features stays nearest to the mean of their class.

Paper:  Welling, "Herding Dynamical Weights to Learn", ICML 2009; as exemplars in iCaRL, Rebuffi et al., CVPR 2017.
Choice: image k is the one that brings the mean of the k chosen features nearest to the mean of all of its class.
FYI:    nothing is optimised, so the flip changes nothing.
Recipe: herding.toml. Features of a network trained on the real images; see `features` there.
Published: CIFAR-10 at 1 / 10 / 50 images a class 21.5 / 31.6 / 40.4 %, CIFAR-100 8.4 / 17.3 / 33.7 % (the baselines of
        DC and DM as repeated in the InfoUtil paper, Table 9: a secondary source).
Ours:   docs/methods.md.
Run:    fyi-bench distill --method herding --dataset cifar10 --ipc 10
"""

from __future__ import annotations

import torch

from distill import coresets
from distill.methods import METHODS
from distill.methods._coreset import FeatureCoreset


@METHODS.register("herding")
class Herding(FeatureCoreset):
    """Greedy matching of the class mean."""

    numerics = 1

    def rows(self) -> torch.Tensor:
        return coresets.chosen_rows(self.problem, self.embedding(), coresets.herding, self.problem.ipc)

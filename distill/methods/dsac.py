"""DSAC: DCC where the real and the synthetic images of a class share one drawn augmentation.

Paper:  Lee, Chun, Jung, Yun, Yoon, "Dataset Condensation with Contrastive Signals", ICML 2022.
Objective: as DCC (dcc.py), after the same operation with the same parameters on both batches of a class, each class
        with a draw of its own; the inner epochs augment too, with parameters of each image's own.
FYI:    the expansion comes before the augmentation. No code is published for it: inferred from DSA.
Recipe: dsac.toml.
Published: CIFAR-10 at 1 / 10 / 50 images a class 34.0 / 54.5 / 64.2 % (as NCFM's Table 1 cites it).
Ours:   docs/methods.md.
Run:    fyi-bench distill --method dsac --dataset cifar10 --ipc 10 --fyi
"""

from __future__ import annotations

from distill.methods import METHODS
from distill.methods.dcc import DCC


@METHODS.register("dsac")
class DSAC(DCC):
    """Contrastive gradient matching with Differentiable Siamese Augmentation."""

"""DSA: gradient matching where the real and the synthetic images of a class share one drawn augmentation.

Paper:  Zhao, Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021 (eq. 4).
        FYI on top of it: Son et al., ECCV 2024, Sec. 3.3.
Objective: as DC (dc.py), after the same operation with the same parameters on both batches of a class; the inner
        epochs augment too, with parameters of each image's own.
FYI:    the expansion comes before the augmentation; a drawn mirroring then maps the expanded set onto itself.
Recipe: dsa.toml (published code and scripts; sources in the file). Images start as real ones.
Published: CIFAR-10 at 1 / 10 / 50 images a class 28.8 / 52.1 / 60.6 %, with FYI 30.6 / 54.7 / 63.7 % (FYI
        Table 1).
Ours:   docs/methods.md.
Run:    fyi-bench distill --method dsa --dataset cifar10 --ipc 10 --fyi
"""

from __future__ import annotations

from distill.methods import METHODS
from distill.methods.dc import DC


@METHODS.register("dsa")
class DSA(DC):
    """Differentiable Siamese Augmentation."""

"""DSA: gradient matching where the real and the synthetic images of a class share one drawn augmentation.

Paper:  Zhao, Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021 (eq. 4).
        FYI on top of it: Son et al., ECCV 2024, Sec. 3.3.
Objective: as DC (dc.py), after the same operation with the same parameters on both batches of a class; the inner
        epochs augment too, with parameters of each image's own.
FYI:    the expansion comes before the augmentation; a drawn mirroring then maps the expanded set onto itself.
Recipe: recipes/dsa.toml (published code and scripts; sources in the file). Images start as real ones.
"""

from __future__ import annotations

from distill.method import METHODS
from distill.methods.dc import DC


@METHODS.register("dsa")
class DSA(DC):
    """Differentiable Siamese Augmentation."""

    name = "dsa"

"""CAFE+DSA: CAFE where the real and the synthetic images of a class share one drawn augmentation.

Paper:  Wang et al., "CAFE: Learning to Condense Dataset by Aligning Features", CVPR 2022 (CAFE+DSA); the augmentation
        is that of Zhao, Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021.
Objective: that of cafe.py after the same operation on both batches of a class; the network's epochs on synthetic images
        augment too, with parameters of each image's own.
FYI:    the expansion comes before the augmentation. Not published: inferred.
Recipe: cafe_dsa.toml. The six operations of DSA are inferred, the code's default is none.
Published: CIFAR-10 at 1 / 10 / 50 images a class 31.6 / 50.9 / 62.3 %, CIFAR-100 14.0 / 31.5 / 42.9 % (FYI Table 1).
Ours:   docs/methods.md.
Run:    fyi-bench distill --method cafe-dsa --dataset cifar10 --ipc 10
"""

from __future__ import annotations

from distill.methods import METHODS
from distill.methods.cafe import CAFE


@METHODS.register("cafe-dsa")
class CAFEDSA(CAFE):
    """Feature alignment under siamese augmentation."""

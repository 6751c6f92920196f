"""DM: match the mean features of real and synthetic images of a class under random networks.

Paper:  Zhao, Bilen, "Dataset Condensation with Distribution Matching", WACV 2023 (Algorithm 1, eq. 5).
        FYI on top of it: Son et al., ECCV 2024, eq. 3 and 7.
Objective: sum over classes of the squared distance of mean embeddings (flattened output of the convolutional trunk) in
        a fresh, never trained network; real and synthetic images of a class share one drawn augmentation.
FYI:    synthetic images of a class are expanded before augmentation.
Recipe: dm.toml. Batch-norm networks see all classes in one pass, so that statistics mix classes as published.
Published: CIFAR-10 at 1 / 10 / 50 images a class 26.0 / 48.9 / 63.0 %, with FYI 28.7 / 53.1 / 64.2 % (FYI
        Table 1).
Ours:   docs/methods.md.
Run:    fyi-bench distill --method dm --dataset cifar10 --ipc 10 --fyi
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.augment import Draw
from distill.batches import Sizes, class_means, joined, sizes_of
from distill.contracts import Context
from distill.matching import distribution_distance
from distill.method import MethodConfig, RecordedMethod
from distill.methods import METHODS
from search_space.network import embed


@dataclass(frozen=True)
class DMConfig(MethodConfig):
    batch_real: int


@METHODS.register("dm")
class DM(RecordedMethod):
    """Distribution Matching."""

    numerics = 2
    Config = DMConfig
    config: DMConfig

    def begin(self, ctx: Context) -> None:
        self.network = self.fresh_network(ctx.iteration, trainable=False)

    def inputs(self, ctx: Context) -> tuple[torch.Tensor, ...]:
        return self.rows_and_draws(ctx, self.config.batch_real)

    def objective(self, ctx: Context, rows: Tensor, codes: Tensor, values: Tensor, chosen: Tensor) -> Tensor:
        draw = self.drawn(codes, values)
        target = self._mean_real_features(self.problem.images_at(rows), draw)
        synthetic = ctx.synthetic(chosen)
        return distribution_distance(self._mean_features(synthetic, draw, sizes_of(synthetic)), target).sum()

    def passes(self, multiplier: int) -> tuple[float, float, float]:
        classes = self.problem.num_classes
        return float(classes * self.config.batch_real), float(classes * self.problem.ipc * multiplier), 0.0

    def _mean_features(self, images: torch.Tensor, draw: Draw, sizes: Sizes) -> torch.Tensor:
        """Mean embedding of each class, [C, F], of images [C, n, ch, H, W]."""
        augmented = self.augmentation.apply(joined(images, sizes), draw.repeat(sizes))
        return class_means(embed(self.network, augmented), sizes, images.dtype)

    def _mean_real_features(self, real: torch.Tensor, draw: Draw) -> torch.Tensor:
        groups, sizes = self.chunks_of_real(real.shape[1], self.network), self.real_sizes(real.shape[1])
        with torch.no_grad(), self.first_order():
            means = [self._mean_features(real[group], draw.select(group), sizes[group]) for group in groups]
        return torch.cat(means).to(self.problem.dtype)

"""DC: match the gradients that real and synthetic images of a class cause in a network in training.

Paper:  Zhao, Mopuri, Bilen, "Dataset Condensation with Gradient Matching", ICLR 2021 (Algorithm 1, eq. 9).
        FYI on top of it: Son et al., ECCV 2024, Sec. 3.3 and supplement S1.
Objective: sum over classes of D(gradient of the class loss on real, on synthetic images), D the layer-wise cosine
        distance; after each matching step the network takes a few epochs on the synthetic set and is matched again.
FYI:    synthetic images of a class are expanded before augmentation, in the matching and in the inner epochs.
Recipe: dc.toml (defaults of the published code; sources in the file). Images start as noise.
Published: CIFAR-10 at 1 / 10 / 50 images a class 28.3 / 44.9 / 53.9 %, with FYI 30.0 / 49.5 / 54.6 % (FYI
        Table 1).
Ours:   docs/methods.md.
Run:    fyi-bench distill --method dc --dataset cifar10 --ipc 10 --fyi
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from distill.augment import Draw
from distill.batches import joined, runs
from distill.class_gradients import class_gradients
from distill.contracts import Context
from distill.matching import GRADIENT_METRICS, MATRIX_METRICS
from distill.method import MethodConfig
from distill.methods import METHODS
from distill.methods._learning import LearningConfig, LearningMethod
from fyi_bench.registry import pick

NORM_STATISTICS_IMAGES = 16  # real images a class that set batch-norm statistics before each matching


@dataclass(frozen=True)
class DCConfig(LearningConfig):
    batch_real: int
    outer_loop: int
    inner_loop: int
    metric: str


@METHODS.register("dc")
class DC(LearningMethod):
    """Dataset Condensation; DSA is the same with an augmentation in its recipe."""

    numerics = 2
    Config: ClassVar[type[MethodConfig]] = DCConfig
    config: DCConfig
    timed_with: ClassVar = {"outer_loop": 1}  # without the epochs in between, which are retraining

    def inputs(self, ctx: Context) -> tuple[torch.Tensor, ...]:
        self._set_norm_statistics(ctx)
        return self.rows_and_draws(ctx, self.config.batch_real)

    def gradient(
        self, ctx: Context, rows: Tensor, codes: Tensor, values: Tensor, chosen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Groups of classes one after another: the loss is a sum over classes, and only one group's graph is kept."""
        draw = self.drawn(codes, values)
        targets = self._real_gradients(self.problem.images_at(rows), draw)
        synthetic = ctx.synthetic(chosen)
        images = synthetic.detach().requires_grad_(True)
        total = torch.zeros((), dtype=images.dtype, device=images.device)
        parts = []
        for group in self.chunks(images.shape[1], second_order=True):
            loss = self._distance(images[group], draw.select(group), [g[group] for g in targets], group)
            parts.append(torch.autograd.grad(loss, images)[0][group])
            total = total + loss.detach()
        return total, torch.autograd.grad(synthetic, ctx.images, torch.cat(parts))[0]

    def _distance(self, synthetic: torch.Tensor, draw: Draw, real: list[torch.Tensor], group: slice) -> torch.Tensor:
        """Sum over the group's classes of the distance between their real and synthetic gradients."""
        labels = torch.arange(self.problem.num_classes, device=synthetic.device)[group]
        augmented = self.augmentation.apply(synthetic.flatten(0, 1), draw.repeat(synthetic.shape[1]))
        gradients = class_gradients(
            self.network, augmented.view_as(synthetic), create_graph=True, matrices_only=self._matrices, labels=labels
        )
        return pick("gradient metric", self.config.metric, GRADIENT_METRICS)(gradients, real).sum()

    @property
    def _matrices(self) -> bool:
        return self.config.metric in MATRIX_METRICS

    def advance(self, ctx: Context) -> bool:
        if ctx.match + 1 >= self.config.outer_loop:
            return False
        self.network.train()
        for epoch in range(self.config.inner_loop):
            self.train_epoch(ctx, epoch)
        return True

    def passes(self, multiplier: int) -> tuple[float, float, float]:
        c, synthetic = self.config, self.problem.num_classes * self.problem.ipc * multiplier
        inner = (c.outer_loop - 1) * c.inner_loop * synthetic
        return 0.0, c.outer_loop * self.problem.num_classes * c.batch_real + inner, c.outer_loop * synthetic

    def _real_gradients(self, real: torch.Tensor, draw: Draw) -> list[torch.Tensor]:
        """Gradients [C, …] of the real batches: no graph is kept, classes go through in cache-sized groups."""
        parts = []
        for group, size in runs(self.chunks(real.shape[1]), self.real_sizes(real.shape[1])):
            batch = real[group, :size]
            augmented = self.augmentation.apply(batch.flatten(0, 1), draw.select(group).repeat(batch.shape[1]))
            labels = torch.arange(self.problem.num_classes, device=batch.device)[group]
            with self.first_order():
                parts.append(
                    class_gradients(self.network, augmented.view_as(batch), matrices_only=self._matrices, labels=labels)
                )
        return [torch.cat(values).to(self.problem.dtype) for values in zip(*parts, strict=True)]

    def _set_norm_statistics(self, ctx: Context) -> None:
        """Batch-norm networks: statistics from one pass over real images of all classes, then fixed (DC)."""
        norms = [m for m in self.network.modules() if isinstance(m, nn.BatchNorm2d)]
        if not norms:
            return
        self.network.train()
        images = self.problem.real_batch(NORM_STATISTICS_IMAGES, "norm statistics", ctx.iteration, ctx.match)
        with torch.no_grad():
            self.network(joined(images, self.problem.batch_sizes(images.shape[1])))
        for norm in norms:
            norm.eval()

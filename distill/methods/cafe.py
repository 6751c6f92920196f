"""CAFE: align the features of real and synthetic images layer by layer, in a network trained on the synthetic ones.

Paper:  Wang et al., "CAFE: Learning to Condense Dataset by Aligning Features", CVPR 2022.
Objective: weighted sum over layers (activations of each block before pooling, the last pooled map) of the squared
        distance of class means, plus that of the flattened last map, plus `inner_weight` times the cross-entropy of
        real features classified by the synthetic class means. The cross-entropy of the real images in the network
        itself is added to the value; it does not depend on the synthetic images.
        Matching on one network ends when its accuracy on fresh real images has settled (the last 10 within
        `lambda_1`); after each matching step the network is trained on the synthetic images, epoch by epoch, until
        its accuracy has moved (the last 10 farther apart than `lambda_2`).
FYI:    images of a class are expanded before augmentation, in the matching and in the epochs in between (as FYI's
        code does in DC). CAFE with FYI is not published: inferred.
Recipe: cafe.toml. Images start as noise. The published code is written for CIFAR-10; this one for any classes
        and sizes: `weights` are lined up with the deepest block, earlier blocks take the first weight.
Differs from the published code: no accuracy leaks into the next one's sum, and both loops have a cap (`max_matches`,
        `max_epochs`; the published ones have none and may not end). A step-size schedule that reaches beyond a shorter
        run is squeezed in proportion. Both inferred.
Published: CIFAR-10 at 1 / 10 / 50 images a class 30.3 / 46.3 / 55.5 %, CIFAR-100 12.9 / 27.8 / 37.9 % (FYI Table 1).
Ours:   docs/methods.md.
Run:    fyi-bench distill --method cafe --dataset cifar10 --ipc 10
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.augment import Draw
from distill.batches import Sizes, class_means, for_each, joined, runs, sizes_of
from distill.contracts import Context
from distill.matching import class_mean_distance, discrimination_loss
from distill.methods import METHODS
from distill.methods._learning import LearningConfig, LearningMethod
from fyi_bench.errors import UsageError

WATCHED = 10  # accuracies that decide whether a loop ends
WATCH_IMAGES = 128  # fresh real images a class behind each of them
LAST_MARK = 0.9  # where a squeezed schedule has its last mark: 1800 of 2000 iterations, as published


@dataclass(frozen=True)
class CAFEConfig(LearningConfig):
    batch_real: int
    lambda_1: float
    lambda_2: float
    max_matches: int
    max_epochs: int
    weights: tuple[float, ...]
    inner_weight: float
    lr_img_factor: float
    lr_img_schedule: tuple[int, ...]


class RealSide(NamedTuple):
    """What the real images of a step give: class means [C, …] by layer, flat features [N, F], cross-entropy."""

    means: list[torch.Tensor]
    features: torch.Tensor
    cross_entropy: torch.Tensor


@METHODS.register("cafe")
class CAFE(LearningMethod):
    """Feature alignment with dynamic loops; the network's epochs on synthetic images are those of DC."""

    numerics = 2
    Config = CAFEConfig
    config: CAFEConfig
    statistics_family = "mtt"
    _weights: torch.Tensor | None = None

    def begin(self, ctx: Context) -> None:
        super().begin(ctx)
        if not hasattr(self.network, "features_per_block"):
            raise UsageError(f"CAFE reads the blocks of a ConvNet, which '{self.config.model}' is not.")
        self.settled = Watch()

    def inputs(self, ctx: Context) -> tuple[torch.Tensor, ...]:
        return self.rows_and_draws(ctx, self.config.batch_real)

    def objective(self, ctx: Context, rows: Tensor, codes: Tensor, values: Tensor, chosen: Tensor) -> Tensor:
        # one graph for all classes: the discrimination term mixes them
        self.network.train().requires_grad_(False)
        draw = self.drawn(codes, values)
        real = self._real_side(self.problem.images_at(rows), draw)
        synthetic = ctx.synthetic(chosen)
        shown = sizes_of(synthetic)
        means = self._class_means(self._maps(synthetic, draw, shown), shown)
        layers = class_mean_distance(means, real.means)
        flat = means[-1].flatten(1)
        labels = torch.arange(self.problem.num_classes, device=flat.device)
        owner = for_each(labels, self.real_sizes(rows.shape[1]))
        output = layers[-1] + self.config.inner_weight * discrimination_loss(real.features, owner, flat)
        if self._weights is None:  # made once: a recorded step copies nothing from the host
            self._weights = layers.new_tensor(layer_weights(self.config.weights, len(layers)))
        return (layers * self._weights).sum() + real.cross_entropy + output

    def advance(self, ctx: Context) -> bool:
        c = self.config
        if ctx.match + 1 >= c.max_matches:
            return False
        if c.max_matches > WATCHED and self.settled.spread(self._accuracy(ctx, "settled")) < c.lambda_1:
            return False
        moved = Watch()
        for epoch in range(c.max_epochs):
            self.network.train().requires_grad_(True)
            self.train_epoch(ctx, epoch)
            if c.max_epochs > WATCHED and moved.full_spread(self._accuracy(ctx, "moved", epoch)) > c.lambda_2:
                break
        return True

    def learning_rate(self, iteration: int) -> float:
        marks = squeezed(self.config.lr_img_schedule, self.config.iterations)
        return self.config.lr_img * self.config.lr_img_factor ** sum(iteration >= mark for mark in marks)

    def passes(self, multiplier: int) -> tuple[float, float, float]:
        c, classes = self.config, self.problem.num_classes
        matches, epochs = min(c.max_matches, WATCHED), min(c.max_epochs, WATCHED)
        synthetic = classes * self.problem.ipc * multiplier
        watched = WATCH_IMAGES * classes * ((c.max_matches > WATCHED) + epochs * (c.max_epochs > WATCHED))
        forward = matches * (classes * c.batch_real + watched)
        return float(forward), float(matches * synthetic + (matches - 1) * epochs * synthetic), 0.0

    def _maps(self, images: torch.Tensor, draw: Draw, sizes: Sizes) -> list[torch.Tensor]:
        """Activations of every block before pooling and the last pooled map, of images [C', n, ch, H, W]."""
        augmented = self.augmentation.apply(joined(images, sizes), draw.repeat(sizes))
        blocks = self.network.features_per_block(augmented)
        return [*(block.activated for block in blocks), blocks[-1].pooled]

    @staticmethod
    def _class_means(maps: list[torch.Tensor], sizes: Sizes) -> list[torch.Tensor]:
        # a mean of bf16 maps keeps the digits of float32
        return [class_means(m, sizes, torch.promote_types(m.dtype, torch.float32)) for m in maps]

    @torch.no_grad()
    def _real_side(self, real: torch.Tensor, draw: Draw) -> RealSide:
        """The real images of a step, class by class in cache-sized groups; batch norms see all classes at once."""
        means, features, total = [], [], torch.zeros((), dtype=self.problem.dtype, device=real.device)
        sizes = self.real_sizes(real.shape[1])
        for group in self.chunks_of_real(real.shape[1], self.network):
            with self.first_order():
                maps = self._maps(real[group], draw.select(group), sizes[group])
                flat = maps[-1].flatten(1)
                logits = self.network.classifier(flat)
            labels = torch.arange(self.problem.num_classes, device=flat.device)[group]
            owner = for_each(labels, sizes[group])
            total = total + F.cross_entropy(logits.to(self.problem.dtype), owner, reduction="sum")
            means.append(self._class_means(maps, sizes[group]))
            features.append(flat)
        joined = [torch.cat(parts).to(self.problem.dtype) for parts in zip(*means, strict=True)]
        return RealSide(joined, torch.cat(features).to(self.problem.dtype), total / sum(sizes))

    @torch.no_grad()
    def _accuracy(self, ctx: Context, *keys: int | str) -> float:
        """Share of fresh real images that the network classifies right, the mean of the classes."""
        self.network.eval()
        real = self.problem.real_batch(WATCH_IMAGES, "watch", *keys, ctx.iteration, ctx.match)
        right = torch.zeros((), device=real.device)
        count = real.shape[1]
        for group, size in runs(self.chunks(count), self.real_sizes(count)):
            labels = torch.arange(self.problem.num_classes, device=real.device)[group]
            with self.first_order():
                predicted = self.network(real[group, :size].flatten(0, 1)).argmax(1)
            right += (predicted == labels.repeat_interleave(size)).sum() * (count / size)
        return float(right) / (len(real) * count)


class Watch:
    """The last accuracies of a loop."""

    def __init__(self) -> None:
        self.values: deque[float] = deque(maxlen=WATCHED)

    def spread(self, value: float, unknown: float = float("inf")) -> float:
        """Difference of the largest and the smallest of the last ones with this one; `unknown` before there are 10."""
        self.values.append(value)
        return max(self.values) - min(self.values) if len(self.values) == WATCHED else unknown

    def full_spread(self, value: float) -> float:
        """Difference of the largest and the smallest of the last ones with this one, 0 before there are 10."""
        return self.spread(value, unknown=0.0)


def layer_weights(weights: tuple[float, ...], layers: int) -> list[float]:
    """One weight a layer, shallow to deep: the given ones end with the last layer, the first serves all before."""
    return [weights[max(0, len(weights) - layers + k)] for k in range(layers)]


def squeezed(schedule: tuple[int, ...], iterations: int) -> list[float]:
    """The marks, brought nearer in proportion where the last one lies beyond the run."""
    if not schedule or schedule[-1] < iterations:
        return list(schedule)
    return [mark * LAST_MARK * iterations / schedule[-1] for mark in schedule]

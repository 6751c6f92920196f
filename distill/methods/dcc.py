"""DCC: match the mean gradient of all real classes with the gradient of all synthetic images together.

Paper:  Lee, Chun, Jung, Yun, Yoon, "Dataset Condensation with Contrastive Signals", ICML 2022.
Objective: D(gradient of the mean cross-entropy of all synthetic images, mean over classes of the real gradients), with
        D as in DC (dc.py), so that what tells classes apart stands in the loss. At first it is DC's sum over classes:
        before iteration `outer_warmup`, the first `inner_warmup` matching steps on each network are class-wise.
FYI:    synthetic images of a class are expanded before they are joined with those of the others, and in the inner
        epochs. No code is published for it: inferred from DC.
Recipe: dcc.toml (defaults of the published code; sources in the file). Images start as real ones, and CIFAR-100 is
        normalised with CIFAR-10's statistics. With one image a class the network is trained too, unlike DC's.
Published: CIFAR-10 at 1 / 10 / 50 images a class 32.9 / 49.4 / 61.6 % (as NCFM's Table 1 cites it).
Ours:   docs/methods.md.
Run:    fyi-bench distill --method dcc --dataset cifar10 --ipc 10 --fyi

The loss in the record is the one that is differentiated: it falls from a sum over classes to one distance where the
phase changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.augment import Draw
from distill.class_gradients import class_gradients
from distill.contracts import Context
from distill.matching import GRADIENT_METRICS
from distill.methods import METHODS
from distill.methods.dc import DC, DCConfig
from fyi_bench.registry import pick


@dataclass(frozen=True)
class DCCConfig(DCConfig):
    outer_warmup: int
    inner_warmup: int


@METHODS.register("dcc")
class DCC(DC):
    """Dataset Condensation with Contrastive signals; DSAC is the same with an augmentation in its recipe."""

    numerics = 1
    Config = DCCConfig
    config: DCCConfig
    statistics_family = "mtt"

    def phase(self, ctx: Context) -> bool:
        """Whether this step compares all classes at once."""
        return ctx.iteration >= self.config.outer_warmup or ctx.match >= self.config.inner_warmup

    def gradient(
        self, ctx: Context, rows: Tensor, codes: Tensor, values: Tensor, chosen: Tensor
    ) -> tuple[Tensor, Tensor]:
        if not self.phase(ctx):
            return super().gradient(ctx, rows, codes, values, chosen)
        draw = self.drawn(codes, values)
        target = [g.mean(0, keepdim=True) for g in self._real_gradients(self.problem.images_at(rows), draw)]
        synthetic = ctx.synthetic(chosen)
        images = synthetic.detach().requires_grad_(True)
        groups = self.chunks(images.shape[1], second_order=True)
        if len(groups) == 1:
            loss = self._all_at_once(self._joined(images, draw, groups[0]), target)
            by_images = torch.autograd.grad(loss, images)[0]
        else:
            loss, by_images = self._group_by_group(images, draw, groups, target)
        return loss.detach(), torch.autograd.grad(synthetic, ctx.images, by_images)[0]

    def _group_by_group(
        self, images: Tensor, draw: Draw, groups: Sequence[slice], target: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """(loss, its gradient [C, n, …]) with the graph of one group of classes in memory.

        The distance is not a sum over classes, but the gradient it is taken of is: once the distance's derivative by
        that gradient is known, each group needs its own part of the gradient along it only.
        """
        whole = [torch.zeros_like(t) for t in target]
        for group in groups:
            whole = [w + g for w, g in zip(whole, self._joined(images, draw, group, graph=False), strict=True)]
        leaves = [w.requires_grad_(True) for w in whole]
        loss = self._all_at_once(leaves, target)
        along = torch.autograd.grad(loss, leaves)
        parts = []
        for group in groups:
            parts.append(torch.autograd.grad(self._joined(images, draw, group), images, along)[0][group])
        return loss, torch.cat(parts)

    def _joined(self, images: Tensor, draw: Draw, group: slice, graph: bool = True) -> list[Tensor]:
        """What these classes add to the gradient [1, …] of the mean cross-entropy of all synthetic images."""
        chosen = images[group]
        classes, n = chosen.shape[:2]
        labels = torch.arange(self.problem.num_classes, device=images.device)[group].repeat_interleave(n)
        augmented = self.augmentation.apply(chosen.flatten(0, 1), draw.select(group).repeat(n))
        found = class_gradients(
            self.network, augmented.unsqueeze(0), create_graph=graph, matrices_only=self._matrices,
            labels=labels.unsqueeze(0),
        )  # fmt: skip
        share = classes / self.problem.num_classes
        return [g * share if graph else g.detach() * share for g in found]

    def _all_at_once(self, synthetic: list[Tensor], real: list[Tensor]) -> Tensor:
        return pick("gradient metric", self.config.metric, GRADIENT_METRICS)(synthetic, real).sum()

    def logged(self, loss: float) -> float:
        return loss

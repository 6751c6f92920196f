"""KIP: images with which regression by the kernel of an infinitely wide network answers like the real images' labels.

Paper:  Nguyen, Chen, Lee, "Dataset Meta-Learning from Kernel Ridge-Regression", ICLR 2021; Nguyen, Novak, Xiao, Lee,
        "Dataset Distillation with Infinitely Wide Convolutional Networks", NeurIPS 2021.
Objective: half the mean, over a batch of real images and the classes, of the squared error of kernel ridge regression
        on the synthetic images; labels are one-hot minus 1 / C. The kernel is the neural tangent kernel, exactly
        (kernels.py); no network is drawn or trained.
        `label_solve` (with iterations=0: of real images) gives the labels for which that regression is best on all
        real images.
FYI:    the synthetic images are expanded in both kernels, their labels repeated. No code is published for it:
        inferred. For the fully connected kernels a mirror changes no distance between two mirrored images.
Recipe: kip.toml (the published notebook's: FC1). Published CIFAR numbers come from a convolutional kernel with pooling,
        which needs a cluster: `ntk=convnet3` is refused beyond a stated size, with the reason.
Published: CIFAR-10 at 1 / 10 / 50 images a class 49.9 / 62.7 / 68.6 % (convolutional kernel, labels learned; a ConvNet
        trained on them, as PAD's Table 1 cites it).
Ours:   docs/methods.md; by regression with its own kernel: `fyi-bench evaluate SET --protocol legacy-kip`, by its
        finite network: `--protocol legacy-kip-network`.
Run:    fyi-bench distill --method kip --dataset cifar10 --ipc 10 --fyi
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distill.batches import for_each, joined
from distill.contracts import Context, Stored, Tensors
from distill.kernels import centred, kernel, ridge_answers, solved_labels
from distill.method import MethodConfig, RecordedMethod
from distill.methods import METHODS
from distill.optimisers import Adam
from distill.zca import ImageZCASpace

LABEL_RIDGE, REAL_AT_ONCE = 1e-6, 2048


@dataclass(frozen=True)
class KIPConfig(MethodConfig):
    ntk: str
    ridge: float
    batch_target: int
    learn_labels: bool
    label_solve: bool
    beta2: float
    adam_count_from: int
    zca: bool


@METHODS.register("kip")
class KIP(RecordedMethod):
    """Kernel Inducing Points."""

    numerics = 1
    Config = KIPConfig
    config: KIPConfig
    statistics_family = "frepo"
    zca_space = ImageZCASpace
    components = ("kernel",)

    def extra_parameters(self) -> dict[str, tuple[Tensor, float, float]]:
        if not self.config.learn_labels:
            return {}
        return {"labels": (self._fixed_labels(), self.config.lr_img, 0.0)}

    def outer_optimiser(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Adam, whose count of steps may start at 1: the published loop's first step is then 0.744 lr, not lr."""
        c = self.config
        adam = Adam(groups, lr=c.lr_img, betas=(c.momentum_img, c.beta2), eps=1e-8)
        for group in adam.param_groups:
            for tensor in group["params"]:
                state = {"exp_avg": torch.zeros_like(tensor), "exp_avg_sq": torch.zeros_like(tensor)}
                adam.state[tensor] = {"step": torch.tensor(float(c.adam_count_from)), **state}
        return adam

    def stored(self, images: Tensor, extras: Tensors) -> Stored:
        if "labels" not in extras:
            return Stored(images)
        return Stored(images, labels=extras["labels"], label_kind="targets")

    def finished(self, images: Tensor, extras: Tensors) -> Stored:
        """With `label_solve` the labels that answer best for all real images; of the images as they are, no mirrors."""
        if not self.config.label_solve:
            return self.stored(images, extras)
        labels = solved_labels(self.config.ntk, images, self._all_real(), LABEL_RIDGE)
        return Stored(images, labels=labels, label_kind="targets")

    def _all_real(self) -> Iterator[tuple[Tensor, Tensor]]:
        for rows, labels in self.problem.shuffled(REAL_AT_ONCE, "label solve"):
            yield self.problem.images_at(rows), centred(labels, self.problem.num_classes)

    def begin(self, ctx: Context) -> None:
        """A batch of real images, as many of each class as of any other, of a smaller class all it has."""
        classes = self.problem.num_classes
        count = max(1, self.config.batch_target // classes)
        sizes = self.problem.batch_sizes(count)
        self.real = joined(ctx.real(count), sizes).unsqueeze(0)
        self.real_labels = for_each(centred(torch.arange(classes, device=self.real.device), classes), sizes)

    def inputs(self, ctx: Context) -> tuple[Tensor, ...]:
        return self.real, self.real_labels, ctx.flip_draw(ctx.per_class.shape[:2])

    def objective(self, ctx: Context, *inputs: Tensor, **_: Any) -> Tensor:
        real, real_labels, chosen = inputs
        support = ctx.synthetic(chosen).flatten(0, 1)
        labels = ctx.extras.get("labels", self._fixed_labels())
        repeated = labels.unflatten(0, ctx.per_class.shape[:2]).repeat(1, ctx.flip.multiplier, 1).flatten(0, 1)
        cross = kernel(self.config.ntk, real.flatten(0, 1), support)
        answers = ridge_answers(cross, kernel(self.config.ntk, support), repeated, self.config.ridge)
        return (answers - real_labels).square().mean() / 2

    def logged(self, loss: float) -> float:
        """A mean already."""
        return loss

    def passes(self, multiplier: int) -> tuple[float, float, float]:
        return 0.0, 0.0, 0.0

    def _fixed_labels(self) -> Tensor:
        classes = self.problem.num_classes
        every = torch.arange(classes, device=self.problem.device)
        return centred(every, classes).repeat_interleave(self.problem.ipc, dim=0)

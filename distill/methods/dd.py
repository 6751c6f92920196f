"""DD: images and step sizes with which a fresh network, after a few ordered steps on them, classifies real images.

Paper:  Wang, Zhu, Torralba, Efros, "Dataset Distillation", arXiv 1811.10959 (2018).
Objective: the mean cross-entropy of a real mini-batch in a fresh network after T steps of gradient descent. There are
        `ipc` / `step_images` distinct batches, each with `step_images` images of every class, passed
        `distill_epochs` times in the same order; every one of the T steps has a learned step size of its own. The
        gradient is exact, through all steps (trajectory.py).
FYI:    the images of a step are expanded, labels repeated. No code is published for it: inferred. Step sizes are then
        learned for batches of twice the size, and the set is trained on without expansion.
Recipe: dd.toml. Networks start as the paper's do (Xavier, zero biases). Real images of CIFAR-10 are augmented, and
        mirrored at random: that is on the real side, also without FYI.
The set is an ordered one: images are made to act together, in these steps. As an ordinary training set they are poor,
        by the authors' own word (96.5 % become 62 % on MNIST).
Published: CIFAR-10 at 10 images a class 36.8 % (random initial networks; their AlexNet, by the ordered steps).
Ours:   docs/methods.md; by its own ordered steps: `fyi-bench evaluate SET --protocol legacy-dd`, of a set of
        `quick` with `--arch convnet-w32`, the network it was made for.
Run:    fyi-bench distill --method dd --dataset cifar10 --ipc 10 --fyi
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.captured import upload
from distill.contracts import Context, Stored, Tensors
from distill.fyi import Flip
from distill.method import Method, MethodConfig
from distill.methods import METHODS
from distill.optimisers import Adam
from distill.problem import Problem
from distill.trajectory import Descent, FlatNetwork, Match, StudentBatch, unrolled, walk_back
from fyi_bench.errors import UsageError
from fyi_bench.registry import pick
from search_space.init import xavier_normal


@dataclass(frozen=True)
class DDConfig(MethodConfig):
    batch_target: int
    beta2: float
    lr_halving_epochs: int
    distill_epochs: int
    step_images: int
    distill_lr: float
    net_init: str
    fixed_init: bool
    nets_per_iteration: int
    real_augment: str

    def __post_init__(self) -> None:
        pick("network initialisation", self.net_init, INITIALISATIONS)
        pick("augmentation of the real images", self.real_augment, REAL_AUGMENTATIONS)


def padded_crop_and_mirror(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images [N, ch, H, W] reflected 4 pixels beyond their border, cut out at random, mirrored with chance 1/2."""
    count, _, height, width = images.shape
    drawn = torch.rand(3, count, generator=generator, dtype=torch.float64)
    top, left = ((drawn[:2] * 9).long()).unbind(0)
    rows = torch.arange(height) + top.unsqueeze(1)
    columns = torch.arange(width) + left.unsqueeze(1)
    columns = torch.where((drawn[2] < 0.5).unsqueeze(1), columns.flip(1), columns)
    rows, columns = (upload(index, images.device) for index in (rows, columns))
    padded = F.pad(images, (4, 4, 4, 4), mode="reflect")
    each = torch.arange(count, device=images.device).view(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[each, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2).contiguous()


INITIALISATIONS: dict[str, Callable[..., Any]] = {"default": lambda network, *_: network, "xavier": xavier_normal}
REAL_AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": lambda images, generator: images, "pad4reflect_crop_flip": padded_crop_and_mirror,
}  # fmt: skip


@METHODS.register("dd")
class DD(Method):
    """Dataset Distillation."""

    numerics = 1
    Config = DDConfig
    config: DDConfig
    statistics_family = "dd"
    components = ("trajectory",)

    def __init__(self, config: DDConfig, problem: Problem):
        super().__init__(config, problem)
        if problem.ipc % config.step_images:
            raise UsageError(
                f"{problem.ipc} images a class cannot make steps of {config.step_images} each.\n"
                "Choose step_images so that it divides the images per class."
            )
        self._views: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {}
        self._epoch: tuple[int, list[tuple[Tensor, Tensor]]] = (-1, [])

    # what is learned -------------------------------------------------------------------------------------------

    @property
    def distill_steps(self) -> int:
        """M: distinct batches of the set."""
        return self.problem.ipc // self.config.step_images

    def extra_parameters(self) -> dict[str, tuple[Tensor, float, float]]:
        """The step sizes before a softplus, which keeps them positive."""
        c, steps = self.config, self.distill_steps * self.config.distill_epochs
        raw = math.log(math.expm1(c.distill_lr))
        return {"raw_lr": (torch.full((steps,), raw, dtype=self.problem.dtype), c.lr_img, 0.0)}

    def outer_optimiser(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return Adam(groups, lr=self.config.lr_img, betas=(self.config.momentum_img, self.config.beta2))

    def learning_rate(self, iteration: int) -> float:
        """Halved every `lr_halving_epochs` passes over the real images; the published loop counts one too many."""
        epoch = iteration // self._batches_an_epoch
        return self.config.lr_img * 0.5 ** ((epoch + 1) // self.config.lr_halving_epochs)

    def step(self, ctx: Context, optimiser: torch.optim.Optimizer) -> None:
        for group in optimiser.param_groups:
            group["lr"] = self.learning_rate(ctx.iteration)
        optimiser.step()

    def stored(self, images: Tensor, extras: Tensors) -> Stored:
        return Stored(images, F.softplus(extras["raw_lr"]))

    # one iteration ---------------------------------------------------------------------------------------------

    def begin(self, ctx: Context) -> None:
        """The next mini-batch of real images."""
        epoch, number = divmod(ctx.iteration, self._batches_an_epoch)
        if self._epoch[0] != epoch:
            self._epoch = epoch, list(self.problem.shuffled(self.config.batch_target, "real", epoch))
        rows, self.real_labels = self._epoch[1][number]
        augment = REAL_AUGMENTATIONS[self.config.real_augment]
        self.real = augment(self.problem.images_at(rows), ctx.stream("real augment"))

    def backward(self, ctx: Context) -> Tensor:
        count = self.config.nets_per_iteration
        found = [self._match(ctx, number) for number in range(count)]
        ctx.images.grad = torch.stack([match.by_images for match in found]).mean(0)
        slope = torch.sigmoid(ctx.extras["raw_lr"].detach())
        ctx.extras["raw_lr"].grad = torch.stack([match.by_lr for match in found]).mean(0) * slope
        return torch.stack([match.loss for match in found]).mean()

    def loss(self, ctx: Context) -> Tensor:
        """The loss with its graph through all steps; `backward` needs no such graph."""
        descent, losses = Descent(F.softplus(ctx.extras["raw_lr"])), []
        for number in range(self.config.nets_per_iteration):
            start = self._start(ctx, number)
            end = unrolled(self._network, self._batches(ctx), ctx.images, descent, start)
            losses.append(self._network.loss(end, self.real, self.real_labels))
        return torch.stack(losses).mean()

    def passes(self, multiplier: int) -> tuple[float, float, float]:
        c = self.config
        steps = self.distill_steps * c.distill_epochs * self.problem.num_classes * c.step_images * multiplier
        return 0.0, float(c.nets_per_iteration * (c.batch_target + steps)), float(c.nets_per_iteration * steps)

    def _match(self, ctx: Context, number: int) -> Match:
        start = self._start(ctx, number)
        descent = Descent(F.softplus(ctx.extras["raw_lr"].detach()))
        return walk_back(self._network, self._batches(ctx), ctx.images, descent, start, self._end)

    def _end(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        return self._network.gradient(weights, self.real, self.real_labels, self.problem.precision == "bf16")

    def _start(self, ctx: Context, number: int) -> Tensor:
        """Weights [P] of a fresh network, or of the one there is."""
        keys = ("fixed",) if self.config.fixed_init else (ctx.iteration, number)
        shell = self._network  # made first, because to make it gives the one module there is new values
        network = self.fresh_network(*keys, trainable=False)
        INITIALISATIONS[self.config.net_init](network, self.problem.stream("initial weights", *keys), upload)
        return shell.values()

    def _batches(self, ctx: Context) -> list[StudentBatch]:
        """The T steps: the batches in order, all of them again in each pass."""
        c, count, device = self.config, self.problem.num_classes, ctx.images.device
        rows = torch.arange(len(ctx.labels), device=device).view(count, self.distill_steps, c.step_images)
        view, batches = self._view(ctx.flip), []
        for step in range(self.distill_steps * c.distill_epochs):
            index = rows[:, step % self.distill_steps].flatten()
            inputs = (ctx.labels[index], ctx.flip_draw(index.shape, "step", step))
            batches.append(StudentBatch(index, view, inputs, ctx.flip.multiplier))
        return batches

    def _view(self, flip: Flip) -> Callable[..., tuple[Tensor, Tensor]]:
        def view(picked: Tensor, labels: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
            x, y = flip.expand(picked, labels, chosen=chosen)
            return x, y

        return self._views.setdefault(flip.name, view)

    @functools.cached_property
    def _network(self) -> FlatNetwork:
        return FlatNetwork(self.fresh_network("shell"))

    @property
    def _batches_an_epoch(self) -> int:
        return math.ceil(sum(len(rows) for rows in self.problem.rows) / self.config.batch_target)

"""MTT: a student that trains on synthetic images should end where an expert on real images came to.

Paper:  Cazenavette et al., "Dataset Distillation by Matching Training Trajectories", CVPR 2022 (Algorithm 1, eq. 2).
        FYI on top of it: Son et al., ECCV 2024, Sec. 4.1 and supplement S1, S2.
Objective: from an expert's weights at a random epoch the student takes `syn_steps` steps on synthetic mini-batches;
        loss is its squared distance to the expert `expert_epochs` later, over the distance the expert went. The
        student's step size is learned too, and stored with the set; as published it is not kept positive.
FYI:    the student's mini-batch is halved, then expanded before augmentation, each image with draws of its own.
Recipe: mtt.toml. Published on CIFAR-10 (FYI Table 1): 46.3 / 65.3 / 71.6 % at 1 / 10 / 50 images a class, with
        FYI 47.2 / 68.2 / 74.0 %. The published code reports the best of many tests on the test set; here, the last.
`gradient` chooses how the loss is differentiated (trajectory.py): adjoint (exact), unroll (exact, plain), tesla (the
        truncated one of FYI's published code; its paper names it for some settings only, and so do the recipes).
Ours:   docs/methods.md.
Run:    fyi-bench distill --method mtt --dataset cifar10 --ipc 10 --fyi
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from distill.captured import upload
from distill.contracts import Context
from distill.expert_file import Trajectory
from distill.experts import ExpertConfig
from distill.method import MethodConfig
from distill.methods import METHODS
from distill.methods._student import StudentMethod
from distill.trajectory import GRADIENTS, FlatNetwork, StudentBatch, unrolled_loss
from fyi_bench.errors import UsageError
from fyi_bench.registry import pick


@dataclass(frozen=True)
class MTTConfig(MethodConfig):
    syn_steps: int
    expert_epochs: int
    max_start_epoch: int
    batch_syn: int
    lr_teacher: float
    lr_lr: float
    momentum_lr: float
    gradient: str
    zca: bool
    experts: int
    expert_train_epochs: int
    expert_lr: float
    expert_momentum: float
    expert_wd: float
    expert_batch: int
    expert_augment: str
    expert_storage: str

    def __post_init__(self) -> None:
        pick("trajectory gradient", self.gradient, GRADIENTS)
        reach = self.max_start_epoch - 1 + self.expert_epochs
        if reach > self.expert_train_epochs:
            raise UsageError(
                f"Students start at up to epoch {self.max_start_epoch - 1} and are compared {self.expert_epochs} epochs"
                f" later, but experts train for {self.expert_train_epochs}.\n"
                f"Use --set expert_train_epochs={reach} or a smaller max_start_epoch."
            )

    @property
    def expert_config(self) -> ExpertConfig:
        """How the experts of this recipe are trained."""
        return ExpertConfig(
            model=self.model,
            epochs=self.expert_train_epochs,
            lr=self.expert_lr,
            momentum=self.expert_momentum,
            wd=self.expert_wd,
            batch=self.expert_batch,
            augment=self.expert_augment,
            dispatcher=self.dispatcher,
            storage=self.expert_storage,
        )


@METHODS.register("mtt")
class MTT(StudentMethod):
    """Matching Training Trajectories."""

    numerics = 1
    Config: ClassVar[type[MethodConfig]] = MTTConfig
    config: MTTConfig
    statistics_family = "mtt"
    components: ClassVar[tuple[str, ...]] = ("trajectory",)
    timed_with: ClassVar = {"syn_steps": 4}  # the plain twin keeps every step's graph

    @property
    def count(self) -> int:
        """Synthetic images of all classes, decoded."""
        return self.problem.num_classes * self.problem.ipc

    def extra_parameters(self) -> dict[str, tuple[torch.Tensor, float, float]]:
        c = self.config
        return {"lr": (torch.tensor(c.lr_teacher, dtype=self.problem.dtype), c.lr_lr, c.momentum_lr)}

    def begin(self, ctx: Context) -> None:
        """Take the next expert (all of them in a new order each round) and a random epoch to start from."""
        c, experts = self.config, self._experts
        number, place = divmod(ctx.iteration, len(experts))
        order = torch.randperm(len(experts), generator=self.problem.stream("experts", number))
        epoch = int(torch.randint(c.max_start_epoch, (), generator=ctx.stream("start epoch")))
        expert = experts[int(order[place])]
        self.start, self.target = (
            upload(expert.at(e), self.problem.device).to(self.problem.dtype) for e in (epoch, epoch + c.expert_epochs)
        )

    def backward(self, ctx: Context) -> torch.Tensor:
        found = GRADIENTS[self.config.gradient](
            self._network, self._batches(ctx), ctx.images.detach(), ctx.extras["lr"].detach(), self.start, self.target
        )
        ctx.images.grad, ctx.extras["lr"].grad = found.by_images, found.by_lr
        return found.loss

    def loss(self, ctx: Context) -> torch.Tensor:
        """The loss with its graph through all steps; `backward` needs no such graph."""
        batches = self._batches(ctx)
        return unrolled_loss(self._network, batches, ctx.images, ctx.extras["lr"], self.start, self.target)[0]

    def passes(self, multiplier: int) -> tuple[float, float, float]:
        images = float(self.config.syn_steps * self._batch_size(multiplier) * multiplier)
        return 0.0, images, images

    def _batches(self, ctx: Context) -> list[StudentBatch]:
        """What the student sees, step by step."""
        return self._student_batches(ctx, self._pieces(ctx, self.config.syn_steps), ctx.labels)

    def _pieces(self, ctx: Context, count: int) -> list[torch.Tensor]:
        """Permutations of all images in pieces taken from the end, so that a short last piece comes first."""
        rounds, left, taken = 0, list[torch.Tensor](), list[torch.Tensor]()
        for _ in range(count):
            if not left:
                order = torch.randperm(len(ctx.labels), generator=ctx.stream("student order", rounds))
                left = list(upload(order, ctx.images.device).split(self._batch_size(ctx.flip.multiplier)))
                rounds += 1
            taken.append(left.pop())
        return taken

    def _student_batches(
        self, ctx: Context, indices: Sequence[torch.Tensor], labels: torch.Tensor
    ) -> list[StudentBatch]:
        """A step for each of these rows of images with these labels, [N]."""
        counts = [len(index) * ctx.flip.multiplier for index in indices]
        streams = [ctx.stream("student augment", step) for step in range(len(indices))]
        draws = self.augmentation.draw_ahead(streams, counts, self.problem.shape[-1], ctx.images.device)
        view, batches = self.view(ctx.flip), []
        for step, (index, draw) in enumerate(zip(indices, draws, strict=True)):
            chosen = ctx.flip_draw(index.shape, "student", step)
            inputs = (labels[index], draw.codes, draw.values, chosen)
            batches.append(StudentBatch(index, view, inputs, ctx.flip.multiplier))
        return batches

    def _batch_size(self, multiplier: int) -> int:
        """Synthetic images a student step: with FYI half of it, so that both arms cost the same."""
        return max(1, min(self.config.batch_syn or self.count, self.count) // multiplier)

    @functools.cached_property
    def _network(self) -> FlatNetwork:
        return FlatNetwork(self.fresh_network("student shell"))

    @functools.cached_property
    def _experts(self) -> Sequence[Trajectory]:
        if self.problem.experts is None:
            raise UsageError(
                f"The method {self.name} matches expert trajectories, and the problem has none.\n"
                "Train some with distill.experts.train_expert and give them as Problem(experts=...)."
            )
        experts = self.problem.experts()
        reach = self.config.max_start_epoch - 1 + self.config.expert_epochs
        if not experts or min(e.epochs for e in experts) < reach:
            raise UsageError(f"{self.name} needs at least one expert trajectory, each of {reach} epochs or more.")
        return experts

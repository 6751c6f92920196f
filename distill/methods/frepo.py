"""FRePo: images and labels from which regression on a trained network's features answers like real images' labels.

Paper:  Zhou, Nezhadarya, Ba, "Dataset Distillation using Neural Feature Regression", NeurIPS 2022.
Objective: half the squared error, summed over the classes, of ridge regression from the features of the synthetic
        images to real images; a term keeps the two largest values of each learned label 1 / C apart. Features are of
        one of a pool of networks, each of which learns a step at a time on the set and is replaced after
        `max_online_updates` of them.
FYI:    mirrored images and repeated labels in the regression, not in the networks' steps. That is what the published
        code calls use_flip: on for CIFAR-10, Tiny-ImageNet and CIFAR-100 at 1 image a class. So the published rows of
        these are FRePo with FYI, and FRePo without is not published for them.
Recipe: frepo.toml. Images are moved by LAMB, networks by Adam; colour images are whitened by a ZCA of their own.
Published: CIFAR-10 at 1 / 10 / 50 images a class 46.8 / 65.5 / 71.7 % (with the flip; its own network and evaluation,
        `legacy-frepo`, best on test).
Ours:   docs/methods.md; by its own procedure: `fyi-bench evaluate SET --protocol legacy-frepo`.
Run:    fyi-bench distill --method frepo --dataset cifar10 --ipc 10 --fyi
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distill.captured import Captured, upload
from distill.contracts import Context, Stored, Tensors
from distill.kernels import centred, ridge_answers
from distill.method import MethodConfig, RecordedMethod
from distill.methods import METHODS
from distill.network_pool import NetworkPool
from distill.optimisers import LAMB, Adam
from distill.problem import Problem
from distill.zca import RelativeZCASpace
from search_space.network import embed


@dataclass(frozen=True)
class FRePoConfig(MethodConfig):
    beta2: float
    lamb_eps: float
    lr_cosine_end: float
    learn_labels: bool
    label_margin: bool
    ridge: float
    batch_target: int
    net_num: int
    max_online_updates: int
    online_batch_max: int
    lr_net: float
    zca: bool


def margin_loss(labels: Tensor) -> Tensor:
    """Minus the mean distance of a row's two largest values, as far as it is below 1 / C."""
    first, second = labels.topk(2, dim=1).values.unbind(1)
    return -(first - second).clamp(max=1 / labels.shape[1]).mean()


@METHODS.register("frepo")
class FRePo(RecordedMethod):
    """Feature regression with a pool of networks."""

    numerics = 1
    Config = FRePoConfig
    config: FRePoConfig
    statistics_family = "frepo"
    zca_space = RelativeZCASpace
    components = ("kernel",)

    def __init__(self, config: FRePoConfig, problem: Problem):
        super().__init__(config, problem)
        # steps that count for each network; the first ones begin at different ages
        self.updates = torch.arange(config.net_num) * (config.max_online_updates // config.net_num)
        self._epoch: tuple[int, list[tuple[Tensor, Tensor]]] = (-1, [])
        self._learn: Captured | None = None

    # what is learned -------------------------------------------------------------------------------------------

    def extra_parameters(self) -> dict[str, tuple[Tensor, float, float]]:
        if not self.config.learn_labels:
            return {}
        return {"labels": (self._first_labels(), self.config.lr_img, 0.0)}

    def outer_optimiser(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        c = self.config
        return LAMB(groups, c.lr_img, (c.momentum_img, c.beta2), c.lamb_eps)

    def learning_rate(self, iteration: int) -> float:
        """A cosine from `lr_img` down to `lr_cosine_end` of it."""
        c, done = self.config, iteration / self.config.iterations
        return c.lr_img * (c.lr_cosine_end + (1 - c.lr_cosine_end) * (1 + math.cos(math.pi * done)) / 2)

    def stored(self, images: Tensor, extras: Tensors) -> Stored:
        return Stored(images, labels=extras.get("labels", self._first_labels()), label_kind="targets")

    def state(self) -> Tensors:
        return {**self.pool.state(), "updates": self.updates}

    def load_state(self, state: Tensors) -> None:
        self.pool.load_state(state)
        self.updates.copy_(state["updates"])

    # the pool --------------------------------------------------------------------------------------------------

    @functools.cached_property
    def pool(self) -> NetworkPool:
        """Networks with Adam's moments."""
        c, on_gpu = self.config, self.problem.device.type == "cuda"
        pool = NetworkPool(
            self.fresh_network("pool", 0),
            lambda parameters: Adam(parameters, lr=c.lr_net, capturable=on_gpu),
            c.net_num,
        )
        for slot in range(c.net_num):
            pool.fill(slot, functools.partial(self.fresh_network, "pool", slot))
        return pool

    def begin(self, ctx: Context) -> None:
        """The next real images, and one of the networks, as it answers when it is tested."""
        c, problem = self.config, self.problem
        total = sum(len(rows) for rows in problem.rows)
        epoch, number = divmod(ctx.iteration, math.ceil(total / c.batch_target))
        if self._epoch[0] != epoch:
            self._epoch = epoch, list(problem.shuffled(c.batch_target, "real", epoch))
        self.rows, self.real_classes = self._epoch[1][number]
        self.slot = int(torch.randint(c.net_num, (), generator=ctx.stream("pool")))
        self.network = self.pool.show(self.slot).eval().requires_grad_(False)

    def advance(self, ctx: Context) -> bool:
        """The network that was matched learns, or a fresh one takes its place."""
        c = self.config
        if self.updates[self.slot] > c.max_online_updates:
            self.pool.fill(self.slot, functools.partial(self.fresh_network, "pool", self.slot, ctx.iteration))
            self.updates[self.slot] = 0
            return False
        if self._learn is None:
            self._learn = Captured(functools.partial(self._network_step, ctx))
        with self.pool.turn(self.slot) as (network, _):
            network.train().requires_grad_(True)
            self._learn(self._learnt_from(ctx))
        self.updates[self.slot] += 1
        return False

    def _learnt_from(self, ctx: Context) -> Tensor:
        """int64: synthetic images of a network's step, all of them while they are few."""
        count, most = len(ctx.images), self.config.online_batch_max
        order = torch.randperm(count, generator=ctx.stream("online"))[:most] if count > most else torch.arange(count)
        return upload(order, ctx.images.device)

    def _network_step(self, ctx: Context, index: Tensor) -> Tensor:
        """A step on synthetic images as they are, to their labels; returns the loss."""
        network, optimiser = self.pool.network, self.pool.optimiser
        optimiser.zero_grad(set_to_none=True)
        images, labels = ctx.images.detach()[index], self._labels(ctx).detach()[index]
        with self.first_order():
            answers = network(images)
        loss = (answers - labels).square().sum(1).mean() / 2
        loss.backward()
        optimiser.step()
        return loss.detach()

    # matching --------------------------------------------------------------------------------------------------

    def inputs(self, ctx: Context) -> tuple[Tensor, ...]:
        return self.rows, self.real_classes, ctx.flip_draw(ctx.per_class.shape[:2])

    def objective(self, ctx: Context, *inputs: Tensor, **_: Any) -> Tensor:
        rows, classes, chosen = inputs
        labels = self._labels(ctx)
        loss = self.regression_loss(
            ctx, self.problem.images_at(rows), centred(classes, self.problem.num_classes), chosen
        )
        return loss + margin_loss(labels) if self.config.label_margin else loss

    def regression_loss(self, ctx: Context, real: Tensor, real_labels: Tensor, chosen: Tensor) -> Tensor:
        """Half the squared error over the classes of what the set answers for real images, their mean."""
        with torch.no_grad(), self.first_order():
            target = embed(self.network, real).double()
        features = embed(self.network, ctx.synthetic(chosen).flatten(0, 1)).double()
        repeated = self._labels(ctx).unflatten(0, ctx.per_class.shape[:2]).repeat(1, ctx.flip.multiplier, 1)
        # in float64: the ridge is a millionth of the features' products
        answers = ridge_answers(target @ features.T, features @ features.T, repeated.flatten(0, 1), self.config.ridge)
        return (answers - real_labels).square().sum(1).mean() / 2

    def step(self, ctx: Context, optimiser: torch.optim.Optimizer) -> None:
        for group in optimiser.param_groups:
            group["lr"] = self.learning_rate(ctx.iteration)
        optimiser.step()

    def logged(self, loss: float) -> float:
        """A mean already."""
        return loss

    def passes(self, multiplier: int) -> tuple[float, float, float]:
        images = self.problem.num_classes * self.problem.ipc
        learning = min(images, self.config.online_batch_max)
        return float(self.config.batch_target), float(images * multiplier + learning), 0.0

    def _labels(self, ctx: Context) -> Tensor:
        return ctx.extras.get("labels", self._first_labels())

    def _first_labels(self) -> Tensor:
        """One-hot minus 1 / C, over the root of C / 10."""
        p = self.problem
        every = torch.arange(p.num_classes, device=p.device).repeat_interleave(p.ipc)
        return (centred(every, p.num_classes) / math.sqrt(p.num_classes / 10)).to(p.dtype)

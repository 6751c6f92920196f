"""IDM: distribution matching in a queue of networks that learn from real images, with several images stored in each.

Paper:  Zhao, Li, Qin, Yu, "Improved Distribution Matching for Dataset Condensation", CVPR 2023.
Objective: for each class the squared distance of mean features of real images and of the quadrants of the stored ones,
        enlarged, under one drawn augmentation, in a network of the queue; and `ce_weight` times that network's own
        accuracy, in percent, times the cross-entropy of the quadrants. One optimiser step a class. After each round
        `fetch_net_num` networks of the queue take steps on real images; every `net_generate_interval` iterations a
        fresh one takes the place of the oldest.
FYI:    the quadrants of a class are expanded before the augmentation they share with the real images. The networks see
        real images only, which are not expanded. No code is published for it: inferred.
Recipe: idm.toml. An accuracy counts batches since the last multiple of `meter_reset`, at which the published program
        evaluates and starts its meters anew: a hyper-parameter, although nothing in its name says so.
Published: CIFAR-10 at 1 / 10 / 50 images a class 45.6 / 58.6 / 67.5 % (as NCFM's Table 1 cites it).
Ours:   docs/methods.md.
Run:    fyi-bench distill --method idm --dataset cifar10 --ipc 10 --fyi
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.augment import Draw
from distill.batches import runs
from distill.captured import Captured
from distill.contracts import Context
from distill.initial import initial_images
from distill.matching import distribution_distance
from distill.methods import METHODS
from distill.methods._learning import LearningConfig
from distill.methods._tiles import TilesConfig, TilesMethod
from distill.network_pool import NetworkPool
from distill.optimisers import SGD
from distill.problem import Problem
from search_space.network import embed


@dataclass(frozen=True)
class IDMConfig(TilesConfig, LearningConfig):
    net_num: int
    net_start: int
    net_generate_interval: int
    fetch_net_num: int
    model_train_steps: int
    ce_weight: float
    meter_reset: int


def shrunken_side_by_side(problem: Problem, factor: int) -> Tensor:
    """[C·ipc, ch, H, W]: each image made of factor² real ones, shrunk by means of pixels.

    Published code draws the images of each place by themselves, so that one can occur twice in a stored image.
    """
    columns = []
    for column in range(factor):
        places = []
        for row in range(factor):
            real = problem.real_batch(problem.ipc, "init", column * factor + row).flatten(0, 1)
            size = [side // factor for side in real.shape[-2:]]
            places.append(F.interpolate(real, size=size, mode="bilinear", align_corners=False))
        columns.append(torch.cat(places, dim=2))
    joined = torch.cat(columns, dim=3)
    # where the factor does not divide the size a border of zeros, the mean colour, is left
    missing = [whole - made for whole, made in zip(problem.shape[1:], joined.shape[-2:], strict=True)]
    return F.pad(joined, (0, missing[1], 0, missing[0]))


@METHODS.register("idm")
class IDM(TilesMethod):
    """Improved Distribution Matching."""

    numerics = 1
    Config = IDMConfig
    config: IDMConfig
    components = ("decode",)
    second_order = False

    def __init__(self, config: IDMConfig, problem: Problem):
        super().__init__(config, problem)
        # images right and images seen of each network in the queue, since the last reset
        self.meters = torch.zeros(config.net_num, 2, dtype=torch.float64, device=problem.device)
        self._learn: Captured | None = None

    def initial_images(self) -> Tensor:
        if self.config.init == "mix" and self.config.factor > 1:
            return shrunken_side_by_side(self.problem, self.config.factor)
        return initial_images(self.problem, self.config.init)

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), **self.pool.state(), "meters": self.meters}

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        self.pool.load_state(state)
        self.meters.copy_(state["meters"])

    # the queue -------------------------------------------------------------------------------------------------

    @functools.cached_property
    def pool(self) -> NetworkPool:
        """The queue: the k-th network ever made stands at place k mod `net_num`."""
        c = self.config
        return NetworkPool(
            self.fresh_network("queue", 0),
            lambda parameters: SGD(parameters, lr=c.lr_net, momentum=c.momentum_net, weight_decay=c.wd_net),
            c.net_num,
        )

    def _made(self, iteration: int) -> int:
        """Networks made up to and in this iteration."""
        return self.config.net_start + 1 + iteration // self.config.net_generate_interval

    def begin(self, ctx: Context) -> None:
        """Reset meters, renew the queue, and take one of its networks."""
        c, iteration = self.config, ctx.iteration
        if iteration and iteration % c.meter_reset == 0:
            self.meters.zero_()
        before = self._made(iteration - 1) if iteration else 0
        for number in range(before, self._made(iteration)):
            slot = number % c.net_num
            self.pool.fill(slot, functools.partial(self.fresh_network, "queue", number))
            self.meters[slot].zero_()
        self.slot = int(torch.randint(self._length(iteration), (), generator=ctx.stream("queue")))
        self.network: Any = self.pool.show(self.slot).eval().requires_grad_(False)

    def _length(self, iteration: int) -> int:
        return min(self._made(iteration), self.config.net_num)

    def advance(self, ctx: Context) -> bool:
        """The round is over; some networks of the queue learn."""
        c, length = self.config, self._length(ctx.iteration)
        chosen = torch.randperm(length, generator=ctx.stream("fetched"))[: c.fetch_net_num]
        for turn, slot in enumerate(chosen.tolist()):
            with self.pool.turn(slot) as (network, _):
                network.train().requires_grad_(True)
                for step in range(c.model_train_steps):
                    self.meters[slot] += self._network_turn(ctx, turn, step)
        return False

    def _network_turn(self, ctx: Context, turn: int, step: int) -> Tensor:
        if self._learn is None:
            self._learn = Captured(self._network_step)
        rows, labels = next(self.problem.shuffled(self.config.batch_train, "queue batch", turn, step, ctx.iteration))
        return self._learn(rows, labels)

    def _network_step(self, rows: Tensor, labels: Tensor) -> Tensor:
        """A step of the pool's network on real images, not augmented; returns (images right, images)."""
        network, optimiser = self.pool.network, self.pool.optimiser
        optimiser.zero_grad(set_to_none=True)
        with self.first_order():
            logits = network(self.problem.images_at(rows))
            loss = F.cross_entropy(logits, labels)
        loss.backward()
        optimiser.step()
        right = (logits.detach().argmax(1) == labels).sum()
        return torch.stack([right, torch.full_like(right, len(labels))]).to(self.meters.dtype)

    def accuracy(self, slot: int) -> Tensor:
        """Of a network of the queue since the last reset, in percent; 0 where it has learned nothing since."""
        right, seen = self.meters[slot]
        return (100 * right / seen.clamp(min=1)).to(self.problem.dtype)

    # matching --------------------------------------------------------------------------------------------------

    def inputs(self, ctx: Context) -> tuple[Tensor, ...]:
        """The usual ones, and the network's accuracy."""
        return *super().inputs(ctx), self.accuracy(self.slot)

    def distances(self, real: Tensor, draw: Draw, synthetic: Tensor, *more: Tensor) -> Iterator[tuple[slice, Tensor]]:
        (accuracy,) = more
        labels = torch.arange(self.problem.num_classes, device=synthetic.device)
        targets = []
        with torch.no_grad(), self.first_order():
            for group, size in runs(self.chunks(real.shape[1]), self.real_sizes(real.shape[1])):
                targets.append(self._means(self._seen(real[group, :size], draw.select(group)))[0])
        target = torch.cat(targets).to(self.problem.dtype)
        for group in self._groups(synthetic.shape[1]):
            seen = self._seen(synthetic[group], draw.select(group))
            means, features = self._means(seen)
            logits: Tensor = self.network.classifier(features)
            wanted = labels[group].repeat_interleave(seen.shape[1])
            entropy = F.cross_entropy(logits, wanted, reduction="none").view(seen.shape[:2]).mean(1)
            yield group, distribution_distance(means, target[group]) + self.config.ce_weight * accuracy * entropy

    def _means(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(mean features [C', F], features [C'·n, F]) of images [C', n, ch, H, W]."""
        features = embed(self.network, images.flatten(0, 1)).flatten(1)
        return features.unflatten(0, images.shape[:2]).mean(1, dtype=images.dtype), features

    def passes(self, multiplier: int) -> tuple[float, float, float]:
        c, classes = self.config, self.problem.num_classes
        real = sum(self.problem.batch_sizes(c.batch_real))
        learning = c.fetch_net_num * c.model_train_steps * c.batch_train
        return float(real), float(classes * self._decoded * multiplier + learning), 0.0

"""DREAM: IDC with real images that stand for their class, instead of random ones.

Paper:  Liu, Gu, Wang, Zhu, Jiang, You, "DREAM: Efficient Dataset Distillation by Representative Matching", ICCV 2023;
        DREAM+: Liu et al., arXiv 2310.15052.
Objective: as IDC (idc.py). Every `interval` matching rounds all real images of a class are embedded by the current
        network and clustered; the images nearest to each of `batch_real` centres are the class's real batch until the
        next time. Images start from such representatives too.
DREAM+: `match=bi_match` adds the distance of mean features to that of gradients, `net_pretrain_epochs=1` lets every
        fresh network see all real images once first, `representatives_per_cluster` takes several images of fewer
        clusters, and `query=any` (Tiny-ImageNet) the images nearest to any centre.
FYI:    as in IDC; real images are chosen without it. No code is published for it: inferred.
Recipe: dream.toml. The network trains in batches of `batch_real`. Representatives are embedded as pixels in [0, 1], not
        normalised, as in the published code.
Published: CIFAR-10 at 1 / 10 / 50 images a class 51.1 / 69.4 / 74.8 % (recalled: no source was read).
Ours:   docs/methods.md.
Run:    fyi-bench distill --method dream --dataset cifar10 --ipc 10 --fyi
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from distill.captured import upload
from distill.contracts import Context
from distill.fyi import FLIPS
from distill.initial import packed
from distill.method import mixes_images
from distill.methods import METHODS
from distill.methods.idc import IDC, MATCHES, VECTORS_AND_CLASSIFIER, IDCConfig, gradients
from distill.problem import Problem
from distill.representatives import CHOICES, clusters
from fyi_bench.errors import UsageError
from fyi_bench.registry import pick
from fyi_bench.rng import Key
from search_space.network import embed

EMBEDDED_AT_ONCE = 512  # real images a forward pass


@dataclass(frozen=True)
class DREAMConfig(IDCConfig):
    interval: int
    net_pretrain_epochs: int
    representatives_per_cluster: int
    query: str
    query_images: int

    def __post_init__(self) -> None:
        pick("query", self.query, CHOICES)
        if self.batch_real % self.representatives_per_cluster:
            raise UsageError(
                f"{self.batch_real} real images cannot come from clusters of {self.representatives_per_cluster} each.\n"
                "Choose representatives_per_cluster so that it divides batch_real."
            )
        if self.match == "bi_match" and self.metric not in ("mse", "l1"):
            raise UsageError("match=bi_match compares features by the metrics mse and l1.\nChoose one of them.")


def both_ways(network: nn.Module, images: Tensor, labels: Tensor, graph: bool) -> list[Tensor]:
    """Class gradients and, as one tensor more, the mean features [C, F, 1, 1] of each class."""
    together = images.split(1) if mixes_images(network) else [images]
    with torch.set_grad_enabled(graph):
        means = [embed(network, x.flatten(0, 1)).unflatten(0, x.shape[:2]).mean(1, dtype=x.dtype) for x in together]
    features = torch.cat(means).flatten(1)
    return [*gradients(network, images, labels, graph, matrices_only=True), features[..., None, None]]


@METHODS.register("dream")
class DREAM(IDC):
    """Representative matching; DREAM+ by its options."""

    numerics = 3  # since 3 images of DREAM+ start from its pretrained network
    Config = DREAMConfig
    config: DREAMConfig
    matches: ClassVar = {**MATCHES, "bi_match": (both_ways, VECTORS_AND_CLASSIFIER)}

    def __init__(self, config: DREAMConfig, problem: Problem):
        super().__init__(config, problem)
        self._chosen: torch.Tensor | None = None

    def initial_images(self) -> torch.Tensor:
        if self.config.init != "kmeans":
            return super().initial_images()
        self._check_space()
        nothing = torch.empty(0)
        self.begin(Context(self.problem, self, FLIPS.get("none"), nothing, nothing))  # the first iteration's network
        count = self.problem.ipc * self.config.factor**2
        rows = self._representatives(count, 1, "init")
        return packed(self.problem, rows, self.config.factor)

    def begin(self, ctx: Context) -> None:
        super().begin(ctx)
        for epoch in range(self.config.net_pretrain_epochs):
            self._train_network(ctx, sum(len(rows) for rows in self.problem.rows), "pretraining", epoch)
        if ctx.iteration == 0:
            self.network.eval()  # as published: until it has learned between two matches

    def real_rows(self, ctx: Context, count: int) -> torch.Tensor:
        """The class's representatives, chosen anew every `interval` matching steps."""
        if ctx.match % self.config.interval == 0 or self._chosen is None:
            each = self.config.representatives_per_cluster
            self._chosen = self._representatives(count, each, ctx.iteration, ctx.match)
        return self._chosen

    def real_sizes(self, count: int) -> Sequence[int]:
        """All of them: representatives of a small class repeat, as published."""
        return [count] * self.problem.num_classes

    def _representatives(self, count: int, each: int, *keys: Key) -> torch.Tensor:
        """int64 [C, count] on the device: real images by the current network, `each` of a cluster."""
        found = []
        for c, rows in enumerate(self.problem.rows):
            generator = self.problem.stream("representatives", c, *keys)
            if 0 < self.config.query_images < len(rows):
                rows = rows[torch.randperm(len(rows), generator=generator)[: self.config.query_images]]
            features = self._embedded(rows)
            start = torch.randint(len(rows), (max(1, count // each),), generator=generator)
            centres = clusters(features, features[upload(start, features.device)])
            most = min(count, len(rows)) if self.config.query == "any" else count
            index = CHOICES[self.config.query](features, centres, most)
            again = torch.arange(count, device=index.device) % len(index)
            found.append(upload(rows, index.device)[index[again]])
        return torch.stack(found)

    @torch.no_grad()
    def _embedded(self, rows: torch.Tensor) -> torch.Tensor:
        """Features [n, F] of real images as they are stored, in [0, 1]."""
        with self.first_order():
            parts = [
                embed(self.network, self.problem.images_at(part)).flatten(1) for part in rows.split(EMBEDDED_AT_ONCE)
            ]
        return torch.cat(parts).to(self.problem.dtype)

    def passes(self, multiplier: int) -> tuple[float, float, float]:
        c, (forward, first, second) = self.config, super().passes(multiplier)
        sizes = [len(rows) for rows in self.problem.rows]
        embedded = sum(min(size, c.query_images) if c.query_images else size for size in sizes)
        pretraining = c.net_pretrain_epochs * sum(sizes)
        return forward + -(-c.inner_loop // c.interval) * embedded, first + pretraining, second

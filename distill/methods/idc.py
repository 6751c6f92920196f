"""IDC: match gradients in a network trained on real images, with several small images stored in each synthetic one.

Paper:  Kim et al., "Dataset Condensation via Efficient Synthetic-Data Parameterization", ICML 2022.
        FYI on top of it: Son et al., ECCV 2024, Table 1.
Objective: for each class the sum over convolution weights of the distance (sum of squares) between the gradients of
        real and of decoded synthetic images, both through one drawn augmentation; one optimiser step a class. Between
        two rounds over the classes the network takes SGD steps on real images with CutMix.
FYI:    decoded images of a class are expanded after at most `batch_syn_max` (with `halve_syn_max` half of it, so that
        the cost stays) were drawn from them, and before the augmentation they share with the real ones. No code is
        published for it: inferred. The network sees real images only, which are not expanded.
Recipe: idc.toml. Images live in [0, 1] and are normalised inside, with CIFAR-10's statistics for CIFAR-100 too.
Published (factor 2): CIFAR-10 at 1 / 10 / 50 images a class 50.6 / 67.5 / 74.5 %, CIFAR-100 at 10 45.1 % (IDC's
        README); FYI Table 1: 50.1 / 67.5 / 74.5, CIFAR-100 at 1 / 10 28.1 / 45.0; with FYI 52.5 / 68.1 / 75.2 and
        28.9 / 45.8.
Ours:   docs/methods.md.
Run:    fyi-bench distill --method idc --dataset cifar10 --ipc 10 --fyi
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.augment import Augmentation, Draw
from distill.batches import runs
from distill.captured import Captured, upload
from distill.class_gradients import class_gradients
from distill.contracts import Context
from distill.cutmix import draw_cutmix, mixed_loss, paste
from distill.matching import TENSOR_METRICS, tensors_distance
from distill.method import MethodConfig, mixes_images
from distill.methods import METHODS
from distill.methods._learning import LearningConfig, LearningMethod
from distill.methods._tiles import PixelTilesConfig, PixelTilesMethod
from distill.problem import Problem
from fyi_bench.errors import UsageError
from fyi_bench.registry import pick
from fyi_bench.rng import Key

VECTORS_AND_CLASSIFIER = frozenset({1, 2})  # dimensions of the gradients that IDC leaves out
MIXES = {"cut": True, "vanilla": False}

Summary = Callable[[nn.Module, torch.Tensor, torch.Tensor, bool], list[torch.Tensor]]


@dataclass(frozen=True)
class IDCConfig(PixelTilesConfig, LearningConfig):
    inner_loop: int
    n_data: int
    match: str
    metric: str
    aug_net: str
    net_mix: str
    mix_p: float
    beta: float


def gradients(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor, graph: bool, matrices_only: bool = False
) -> list[torch.Tensor]:
    """Parameter gradients [C, …] of each class's mean cross-entropy; images [C, n, ch, H, W], labels [C].

    matrices_only: those of vectors may be left out, so that norms need not be watched.
    """
    if not mixes_images(network):
        return class_gradients(network, images, create_graph=graph, matrices_only=matrices_only, labels=labels)
    parameters, rows = list(network.parameters()), []
    for x, label in zip(images, labels, strict=True):
        loss = F.cross_entropy(network(x), label.expand(len(x)))
        rows.append(torch.autograd.grad(loss, parameters, create_graph=graph))
    return [torch.stack(values) for values in zip(*rows, strict=True)]


def mean_features(network: Any, images: torch.Tensor, labels: torch.Tensor, graph: bool) -> list[torch.Tensor]:
    """Class means [C, …] of the pooled map of every block; images [C, n, ch, H, W]."""
    if not hasattr(network, "pooled_per_block"):
        raise UsageError("IDC with match=feat reads the blocks of a ConvNet.\nChoose such a model, or match=grad.")
    together = images.split(1) if mixes_images(network) else [images]
    with torch.set_grad_enabled(graph):
        rows = [
            [
                maps.unflatten(0, x.shape[:2]).mean(1, dtype=x.dtype)
                for maps in network.pooled_per_block(x.flatten(0, 1))
            ]
            for x in together
        ]
    return [torch.cat(means) for means in zip(*rows, strict=True)]


# what is matched, and which of its tensors are left out, by their number of dimensions
MATCHES: dict[str, tuple[Summary, frozenset[int]]] = {
    "grad": (partial(gradients, matrices_only=True), VECTORS_AND_CLASSIFIER),
    "feat": (mean_features, frozenset()),
}


@METHODS.register("idc")
class IDC(PixelTilesMethod, LearningMethod):
    """Efficient synthetic-data parameterisation; IDC-I is the same with factor 1."""

    numerics = 2
    Config: ClassVar[type[MethodConfig]] = IDCConfig
    config: IDCConfig
    matches: ClassVar[Mapping[str, tuple[Summary, frozenset[int]]]] = MATCHES
    components = ("cutmix", "decode")
    timed_with: ClassVar = {"inner_loop": 2}

    def __init__(self, config: IDCConfig, problem: Problem):
        super().__init__(config, problem)
        pick("IDC metric", config.metric, TENSOR_METRICS)
        self.mixes = pick("net_mix", config.net_mix, MIXES)
        self.summary, self.skip = pick("match", config.match, self.matches)
        self.net_augmentation = Augmentation(config.aug_net, dispatcher=config.dispatcher)

    # one iteration: rounds over the classes on one network, which learns from real images in between -----------

    def begin(self, ctx: Context) -> None:
        super().begin(ctx)
        self._ready_to_match()

    def advance(self, ctx: Context) -> bool:
        if ctx.match + 1 >= self.config.inner_loop:
            return False
        self._train_network(ctx, self.config.n_data)
        return True

    def passes(self, multiplier: int) -> tuple[float, float, float]:
        c, classes = self.config, self.problem.num_classes
        shown = self._shown(multiplier)
        first = c.inner_loop * classes * c.batch_real + (c.inner_loop - 1) * c.n_data
        return 0.0, float(first), float(c.inner_loop * classes * shown)

    # matching --------------------------------------------------------------------------------------------------

    def distances(
        self, real: torch.Tensor, draw: Draw, synthetic: torch.Tensor, *more: torch.Tensor
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        labels = torch.arange(self.problem.num_classes, device=synthetic.device)
        targets = self._real_summary(real, draw, labels)
        for group in self._groups(synthetic.shape[1]):
            seen = self._seen(synthetic[group], draw.select(group))
            found = self.summary(self.network, seen, labels[group], True)
            yield group, tensors_distance(found, [t[group] for t in targets], self.config.metric, self.skip)

    def _real_summary(self, real: torch.Tensor, draw: Draw, labels: torch.Tensor) -> list[torch.Tensor]:
        """What synthetic images are to match, [C, …], without a graph."""
        parts = []
        for group, size in runs(self.chunks(real.shape[1]), self.real_sizes(real.shape[1])):
            seen = self._seen(real[group, :size], draw.select(group))
            with self.first_order():
                parts.append(self.summary(self.network, seen, labels[group], False))
        return [torch.cat(values).detach().to(self.problem.dtype) for values in zip(*parts, strict=True)]

    # the network -----------------------------------------------------------------------------------------------

    def _train_network(self, ctx: Context, images: int, *keys: Key) -> None:
        """SGD on so many real images of all classes (rounded up to whole batches), augmented one by one, mixed."""
        c = self.config
        self.network.train().requires_grad_(True)
        batches = self.problem.shuffled(c.batch_train, "network order", *keys, ctx.iteration, ctx.match)
        if self._learn is None:
            self._learn = Captured(self._network_step)
        size, device = self.problem.shape[-1], self.problem.device
        for number, (rows, y) in enumerate(islice(batches, -(-images // c.batch_train))):
            draw = self.net_augmentation.draw(
                ctx.stream("network augment", *keys, number), len(rows), size, siamese=False
            )
            draw = draw.to(device)
            mix = draw_cutmix(
                ctx.stream("cutmix", *keys, number), len(rows), (size, size), c.mix_p if self.mixes else 0.0, c.beta
            )
            mixing = (upload(t, device) for t in (mix.permutation, mix.boxes, mix.ratios))
            self._learn(rows, y, draw.codes, draw.values, *mixing)
        self.optimiser.zero_grad(set_to_none=True)
        self._ready_to_match()

    def _network_step(
        self, rows: Tensor, y: Tensor, codes: Tensor, values: Tensor, permutation: Tensor, boxes: Tensor,
        ratios: Tensor,
    ) -> Tensor:  # fmt: skip
        """The network's step on augmented, mixed real images; returns the loss."""
        x = self.problem.normalisation.encode(self.problem.images_at(rows))
        x = self.net_augmentation.apply(x, Draw(self.net_augmentation.stages, codes, values))
        x = paste(x, permutation, boxes)
        self.optimiser.zero_grad(set_to_none=True)
        with self.first_order():
            logits = self.network(x)
            loss = mixed_loss(F.cross_entropy(logits, y), F.cross_entropy(logits, y[permutation]), ratios)
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def _ready_to_match(self) -> None:
        """Weights need derivatives only where the plain way to class gradients asks torch for them."""
        self.network.requires_grad_(self.config.match == "grad" and mixes_images(self.network))

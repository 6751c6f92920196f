"""RTP: a network that trained on the set with momentum should do well on real images; the set mixes shared bases.

Paper:  Deng, Russakovsky, "Remember the Past: Distilling Datasets into Addressable Memories for Neural Networks",
        NeurIPS 2022.
Objective: mean cross-entropy of a fresh network on real images after `inner_steps` SGD steps with momentum on the set,
        differentiated through all of them, momentum included. Images are addresses times bases, enlarged
        (decoders/addressed_bases.py); each step sees `batch_addresses` random addresses of each class. With `bases=0`
        images are stored as they are.
FYI:    decoded images are expanded before the augmentation, the addresses of a step halved so that the cost stays. Not
        published: inferred.
Recipe: rtp.toml (README, one command). There are as many addresses a class as the storage of ipc images leaves beside
        the bases. One draw of the augmentation serves all steps and real images of an iteration. The published penalty
        on addresses has no effect on the gradient and is left out.
Published: CIFAR-10 at 1 / 10 / 50 images a class of storage 66.4 / 71.2 / 73.6 % (as AutoPalette's Table 1 cites it);
        values are published at 1 only.
Ours:   docs/methods.md.
Run:    fyi-bench distill --method rtp --dataset cifar10 --ipc 1 --fyi
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from distill.augment import Draw
from distill.batches import for_each, joined
from distill.captured import upload
from distill.contracts import Context, Stored, Tensors
from distill.decoders import Decoder
from distill.decoders.addressed_bases import AddressedBases
from distill.initial import initial_images
from distill.method import MethodConfig
from distill.methods import METHODS
from distill.methods._student import StudentMethod
from distill.trajectory import Descent, FlatNetwork, StudentBatch, unrolled, walk_back
from distill.zca import PixelImageZCASpace
from fyi_bench.errors import UsageError

FULL_SHARE = 10  # classes that the published number of bases is for


@dataclass(frozen=True)
class RTPConfig(MethodConfig):
    inner_steps: int
    lr_net: float
    momentum_net: float
    batch_target: int
    bases: int
    downsample: int
    batch_addresses: int
    clip_norm: float
    zca: bool


def _bases_for(most: int, classes: int) -> int:
    """As many bases as the recipe says, of fewer than ten classes their share; 0: plain images."""
    return most if classes >= FULL_SHARE or not most else max(1, most * classes // FULL_SHARE)


def _base_shape(downsample: int, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    channels, height, width = shape
    return channels, max(1, height // downsample), max(1, width // downsample)


@METHODS.register("rtp")
class RTP(StudentMethod):
    """Remember The Past: bases and addresses by back-propagation through time."""

    numerics = 1
    Config = RTPConfig
    config: RTPConfig
    statistics_family = "rtp"
    zca_space = PixelImageZCASpace
    components = ("trajectory", "decoder")
    timed_with: ClassVar = {"inner_steps": 4}  # the plain twin keeps every step's graph

    # what is learned -------------------------------------------------------------------------------------------

    @classmethod
    def shown(cls, values: Mapping[str, Any], ipc: int, classes: int, shape: tuple[int, int, int]) -> int:
        """Addresses a class that fit, with the bases, into the storage of ipc images a class; or its images."""
        k = _bases_for(values["bases"], classes)
        if not k:
            return ipc
        numbers = ipc * classes * math.prod(shape) - k * math.prod(_base_shape(values["downsample"], shape))
        found = numbers // (classes * k)
        if found < 1:
            raise UsageError(
                f"{k} bases take all the storage of {ipc} images in each of {classes} classes.\n"
                "Use fewer bases (--set bases=…) or more images a class."
            )
        return found

    @property
    def bases(self) -> int:
        """How many there are."""
        return _bases_for(self.config.bases, self.problem.num_classes)

    @property
    def addresses(self) -> int:
        """Addresses a class, or its images."""
        p = self.problem
        return self.shown(vars(self.config), p.ipc, p.num_classes, p.shape)

    def initial_images(self) -> Tensor:
        """Addresses [C·R, bases], or plain images."""
        p, rows = self.problem, self.problem.num_classes * self.addresses
        if self.bases:
            return self._xavier("addresses", rows, self.bases)
        if self.config.init != "xavier":
            return initial_images(p, self.config.init)
        return self._xavier("images", rows, math.prod(p.shape)).unflatten(1, p.shape)

    def extra_parameters(self) -> dict[str, tuple[Tensor, float, float]]:
        c = self.config
        if not self.bases:
            return {}
        shape = _base_shape(c.downsample, self.problem.shape)
        bases = self._xavier("bases", self.bases, math.prod(shape)).unflatten(1, shape)
        return {"bases": (bases, c.lr_img, c.momentum_img)}

    def decoder(self, extras: Tensors) -> Decoder:
        """The decoder of these bases."""
        return AddressedBases(self.problem.shape, {"bases": extras["bases"]})

    def decode(self, images: Tensor, extras: Tensors) -> Tensor:
        if not self.bases:
            return images
        return self.decoder(extras).decode(images.flatten(0, 1))[:, 0].unflatten(0, images.shape[:2])

    def stored(self, images: Tensor, extras: Tensors) -> Stored:
        return Stored(images, decoder=self.decoder(extras) if self.bases else None)

    # one iteration ---------------------------------------------------------------------------------------------

    def begin(self, ctx: Context) -> None:
        network = self._network  # before it has this iteration's values: both are one module
        self.fresh_network(ctx.iteration, trainable=False)
        self.start = network.values()

    def backward(self, ctx: Context) -> Tensor:
        shown = self.decode(ctx.per_class, ctx.extras).flatten(0, 1)
        draw = self._draw(ctx)
        x, y = self._real(ctx, draw)
        found = walk_back(
            self._network, self._batches(ctx, draw), shown, self._descent, self.start,
            lambda weights: self._network.gradient(weights, x, y),
        )  # fmt: skip
        torch.autograd.backward(shown, found.by_images)
        return found.loss

    def loss(self, ctx: Context) -> Tensor:
        """The loss with its graph through all steps; `backward` needs no such graph."""
        shown, draw = self.decode(ctx.per_class, ctx.extras).flatten(0, 1), self._draw(ctx)
        weights = unrolled(self._network, self._batches(ctx, draw), shown, self._descent, self.start)
        return self._network.loss(weights, *self._real(ctx, draw))

    def step(self, ctx: Context, optimiser: torch.optim.Optimizer) -> None:
        torch.nn.utils.clip_grad_norm_([ctx.images, *ctx.extras.values()], self.config.clip_norm)
        optimiser.step()

    def passes(self, multiplier: int) -> tuple[float, float, float]:
        c, classes = self.config, self.problem.num_classes
        images = float(c.inner_steps * classes * self._each(multiplier) * multiplier)
        return 0.0, images + classes * c.batch_target, images

    # help ------------------------------------------------------------------------------------------------------

    def _batches(self, ctx: Context, draw: Draw) -> list[StudentBatch]:
        """Of each step: random addresses of each class, in their order."""
        c, classes = self.config, self.problem.num_classes
        shape = (c.inner_steps, classes, self.addresses)
        chance = torch.rand(shape, generator=ctx.stream("addresses"), dtype=torch.float64)
        picks = chance.topk(self._each(ctx.flip.multiplier), dim=2).indices.sort(dim=2).values
        index = upload((picks + self.addresses * torch.arange(classes).unsqueeze(1)).flatten(1), ctx.images.device)
        view = self.view(ctx.flip)
        return [
            StudentBatch(
                rows,
                view,
                (ctx.labels[rows], draw.codes, draw.values, ctx.flip_draw(rows.shape, "inner", step)),
                ctx.flip.multiplier,
            )
            for step, rows in enumerate(index)
        ]

    def _draw(self, ctx: Context) -> Draw:
        """One operation with one set of numbers, for all steps and for the real images."""
        draw = self.augmentation.draw(ctx.stream("augment"), 1, self.problem.shape[-1], siamese=True)
        return draw.to(self.problem.device)

    def _real(self, ctx: Context, draw: Draw) -> tuple[Tensor, Tensor]:
        images = ctx.real(self.config.batch_target)
        sizes, labels = self.problem.batch_sizes(images.shape[1]), torch.arange(len(images), device=images.device)
        return self.augmentation.apply(joined(images, sizes), draw), for_each(labels, sizes)

    def _each(self, multiplier: int) -> int:
        """Addresses a class in a step: with FYI half, so that both arms cost the same."""
        return max(1, min(self.config.batch_addresses, self.addresses) // multiplier)

    def _xavier(self, name: str, rows: int, columns: int) -> Tensor:
        drawn = torch.rand(rows, columns, generator=self.problem.stream("init", name), dtype=torch.float64)
        return ((2 * drawn - 1) * math.sqrt(6 / (rows + columns))).to(self.problem.dtype)

    @functools.cached_property
    def _descent(self) -> Descent:
        c, p = self.config, self.problem
        return Descent(torch.tensor(c.lr_net, dtype=p.dtype, device=p.device), c.momentum_net)

    @functools.cached_property
    def _network(self) -> FlatNetwork:
        return FlatNetwork(self.fresh_network("student shell", trainable=False))

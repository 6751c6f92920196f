"""HaBa: trajectory matching of images that hallucinators make of bases, both learned.

Paper:  Liu, Wang, Yang, Ye, Wang, "Dataset Distillation via Factorization", NeurIPS 2022.
Objective: as MTT (mtt.py) for what one random hallucinator makes of a mini-batch of bases (decoders/hallucinators.py),
        plus `club_weight` times the mean of (1 + cos)/2 between features of the same bases through two hallucinators:
        they are to differ. The features are of an extractor that learns beside: cross-entropy on both views,
        `likeli_weight` times the mean of (1 - cos)/2, and `contrast_weight` times a supervised contrastive loss.
FYI:    hallucinated images of a student's step are expanded before augmentation, mini-batches halved; pairs of views
        stay as they are. Not published: inferred from MTT.
Recipe: haba.toml (scripts of the published code, argparse). The set holds ipc bases a class and five hallucinators: on
        CIFAR-10 9.06 images more than ipc.
Published: CIFAR-10 at 1 / 10 / 50 bases a class 48.3 / 69.9 / 74.0 % (as later papers cite it; best on test).
Ours:   docs/methods.md.
Run:    fyi-bench distill --method haba --dataset cifar10 --ipc 10 --fyi
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

import search_space
from distill.contracts import Context, Stored, Tensors
from distill.decoders.hallucinators import Hallucinators
from distill.methods import METHODS
from distill.methods.mtt import MTT, MTTConfig
from distill.optimisers import SGD
from distill.trajectory import GRADIENTS, StudentBatch, unrolled_loss
from fyi_bench.errors import UsageError
from fyi_bench.registry import pick

TEMPERATURE = 0.07
NOISE = 0.05  # of near-identity hallucinators, in what PyTorch's layers start with


@dataclass(frozen=True)
class HaBaConfig(MTTConfig):
    n_style: int
    grey_bases: bool
    lr_style: float
    momentum_style: float
    lr_floor: float
    club_weight: float
    contrast_weight: float
    cls_weight: float
    likeli_weight: float
    lr_extractor: float
    momentum_extractor: float
    style_init: str

    def __post_init__(self) -> None:
        super().__post_init__()
        pick("initialisation of hallucinators", self.style_init, HALLUCINATORS)
        if self.n_style < 2:
            raise UsageError("HaBa compares what two hallucinators make of a base.\nUse --set n_style=2 or more.")


@METHODS.register("haba")
class HaBa(MTT):
    """Hallucinator-Basis factorisation."""

    numerics = 1
    Config = HaBaConfig
    config: HaBaConfig
    components = ("trajectory", "decoder")

    # what is learned -------------------------------------------------------------------------------------------

    def initial_images(self) -> Tensor:
        images = super().initial_images()
        return images.mean(1, keepdim=True) if self.config.grey_bases else images

    def extra_parameters(self) -> dict[str, tuple[Tensor, float, float]]:
        c, p = self.config, self.problem
        make, inputs = HALLUCINATORS[c.style_init], 1 if c.grey_bases else p.shape[0]
        tensors = make(p.shape, inputs, c.n_style, p.stream("hallucinators"))
        found = {name: (t.to(self.problem.dtype), c.lr_style, c.momentum_style) for name, t in tensors.items()}
        return {**super().extra_parameters(), **found}

    def decoder(self, extras: Tensors) -> Hallucinators:
        """The decoder of these hallucinators."""
        return Hallucinators(self.problem.shape, {name: t for name, t in extras.items() if name != "lr"})

    def decode(self, images: Tensor, extras: Tensors) -> Tensor:
        """All that all hallucinators make of the bases."""
        return self.decoder(extras).decode(images.flatten(0, 1)).flatten(0, 1).unflatten(0, (len(images), -1))

    def stored(self, images: Tensor, extras: Tensors) -> Stored:
        return Stored(images, extras["lr"], self.decoder(extras))

    def state(self) -> Tensors:
        held = self._learner.state
        buffers = {k: held[p]["momentum_buffer"] for k, p in enumerate(self._extractor.parameters()) if p in held}
        return {
            **{f"weights.{k}": p.detach() for k, p in enumerate(self._extractor.parameters())},
            **{f"momentum.{k}": buffer for k, buffer in buffers.items() if buffer is not None},
        }

    def load_state(self, state: Tensors) -> None:
        for k, parameter in enumerate(self._extractor.parameters()):
            with torch.no_grad():
                parameter.copy_(state[f"weights.{k}"])
            if "momentum.0" in state:
                buffer = torch.empty_like(parameter, requires_grad=False).copy_(state[f"momentum.{k}"])
                self._learner.state[parameter]["momentum_buffer"] = buffer

    # one iteration ---------------------------------------------------------------------------------------------

    def begin(self, ctx: Context) -> None:
        super().begin(ctx)
        self.pieces = self._pieces(ctx, self.config.syn_steps + 2)

    def backward(self, ctx: Context) -> Tensor:
        shown, lr = self.decode(ctx.per_class, ctx.extras).flatten(0, 1), ctx.extras["lr"]
        gradient = GRADIENTS[self.config.gradient]
        found = gradient(self._network, self._batches(ctx), shown.detach(), lr.detach(), self.start, self.target)
        alike = self._alike(ctx, shown)
        torch.autograd.backward([shown, alike], [found.by_images, torch.ones_like(alike)])
        lr.grad = found.by_lr
        return found.loss + alike.detach()

    def loss(self, ctx: Context) -> Tensor:
        shown = self.decode(ctx.per_class, ctx.extras).flatten(0, 1)
        loss, _ = unrolled_loss(self._network, self._batches(ctx), shown, ctx.extras["lr"], self.start, self.target)
        return loss + self._alike(ctx, shown)

    def step(self, ctx: Context, optimiser: torch.optim.Optimizer) -> None:
        optimiser.step()
        with torch.no_grad():
            ctx.extras["lr"].clamp_(min=self.config.lr_floor)
        self._train_extractor(ctx)

    def passes(self, multiplier: int) -> tuple[float, float, float]:
        _, first, second = super().passes(multiplier)
        return 0.0, first + 4.0 * self._batch_size(multiplier), second

    def _batches(self, ctx: Context) -> list[StudentBatch]:
        """MTT's, each through one random hallucinator; rows of the decoded bases."""
        styles = torch.randint(self.config.n_style, (self.config.syn_steps,), generator=ctx.stream("hallucinator"))
        rows = [index * self.config.n_style + int(j) for index, j in zip(self.pieces, styles, strict=False)]
        return self._student_batches(ctx, rows, ctx.labels.repeat_interleave(self.config.n_style))

    # views of the same bases -----------------------------------------------------------------------------------

    def _alike(self, ctx: Context, shown: Tensor) -> Tensor:
        """The weighted likeness of two hallucinators' images of the same bases, to the extractor."""
        self._extractor.requires_grad_(False)
        _, rows = self._pair(ctx, self.config.syn_steps)
        return self.config.club_weight * club_loss(*self._features(ctx, "club", shown[rows]).chunk(2))

    def _train_extractor(self, ctx: Context) -> None:
        """One step of the extractor on two views of the next bases."""
        labels, rows = self._pair(ctx, self.config.syn_steps + 1)
        with torch.no_grad():
            shown = self.decode(ctx.per_class, ctx.extras).flatten(0, 1)[rows]
        self._extractor.requires_grad_(True)
        self._learner.zero_grad(set_to_none=True)
        self.extractor_loss(self._features(ctx, "extractor", shown), labels).backward()
        self._learner.step()

    def extractor_loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """What the extractor learns by, from features of both views [2b, F] of bases with labels [b]."""
        c, first, second = self.config, *features.chunk(2)
        classes = F.cross_entropy(self._extractor.classifier(features), labels.repeat(2))
        likeness = (1 - F.cosine_similarity(first, second)).mean() / 2
        return c.cls_weight * classes + c.likeli_weight * likeness + c.contrast_weight * contrastive(features, labels)

    def _pair(self, ctx: Context, piece: int) -> tuple[Tensor, Tensor]:
        """(labels [b], rows [2b]): the bases of a piece through one hallucinator, then through another."""
        index, count = self.pieces[piece], self.config.n_style
        first, second = torch.randperm(count, generator=ctx.stream("pair", piece))[:2].tolist()
        return ctx.labels[index], torch.cat([index * count + first, index * count + second])

    def _features(self, ctx: Context, name: str, images: Tensor) -> Tensor:
        draw = self.augmentation.draw(ctx.stream(name, "augment"), len(images), self.problem.shape[-1], siamese=False)
        seen = self.augmentation.apply(images, draw.to(images.device))
        return self._extractor.embed(seen).flatten(1)

    @functools.cached_property
    def _extractor(self) -> Any:
        p, (channels, size, _) = self.problem, self.problem.shape
        made = search_space.build(self.config.model, channels, size, p.num_classes, p.stream("extractor"))
        return made.to(device=p.device, dtype=p.dtype).train()

    @functools.cached_property
    def _learner(self) -> SGD:
        c = self.config
        return SGD(self._extractor.parameters(), lr=c.lr_extractor, momentum=c.momentum_extractor)


def default_layers(shape: tuple[int, int, int], inputs: int, count: int, generator: torch.Generator) -> Tensors:
    """Hallucinators of bases with `inputs` channels as PyTorch's layers start, scales 1 and shifts 0."""
    channels, height, width = shape

    def drawn(bound: float, *sizes: int) -> Tensor:
        return (2 * torch.rand((count, *sizes), generator=generator, dtype=torch.float64) - 1) * bound

    into, out = (1 / math.sqrt(9 * n) for n in (inputs, channels))
    plane = (count, channels, height - 2, width - 2)
    return {
        "forth.weight": drawn(into, channels, inputs, 3, 3),
        "forth.bias": drawn(into, channels),
        "scale": torch.ones(plane, dtype=torch.float64),
        "shift": torch.zeros(plane, dtype=torch.float64),
        "back.weight": drawn(out, channels, channels, 3, 3),
        "back.bias": drawn(out, channels),
    }


def near_identity(shape: tuple[int, int, int], inputs: int, count: int, generator: torch.Generator) -> Tensors:
    """Hallucinators that at first give a base back, with noise and without its border."""
    found = {name: tensor * NOISE for name, tensor in default_layers(shape, inputs, count, generator).items()}
    channels = torch.arange(shape[0])
    found["forth.weight"][:, channels, channels % inputs, 1, 1] += 1
    found["back.weight"][:, channels, channels, 1, 1] += 1
    return {**found, "scale": found["scale"] / NOISE}


# name -> function(shape of an image, channels of a base, how many, generator) giving the hallucinators' tensors
HALLUCINATORS: dict[str, Callable[..., Tensors]] = {"default": default_layers, "near-identity": near_identity}


def club_loss(first: Tensor, second: Tensor) -> Tensor:
    """Mean of (1 + cos)/2 between features of two views."""
    return (1 + F.cosine_similarity(first, second)).mean() / 2


def contrastive(features: Tensor, labels: Tensor) -> Tensor:
    """Supervised contrastive loss of two views [2b, F] of images with labels [b] (Khosla et al., NeurIPS 2020).

    Mean over anchors of the mean over their positives, all other images of the class and the own other view.
    """
    unit, both = F.normalize(features, dim=1), labels.repeat(2)
    own = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    likeness = (unit @ unit.T / TEMPERATURE).masked_fill(own, -math.inf)
    positive = (both.unsqueeze(0) == both.unsqueeze(1)) & ~own
    share = likeness.log_softmax(dim=1).masked_fill(~positive, 0.0)
    return -(share.sum(1) / positive.sum(1)).mean()

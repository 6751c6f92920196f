"""SPEED: trajectory matching of images that are rendered from a few tokens by sparse codes.

Paper:  Wei, Cao, Yang, Ma, "Sparse Parameterization for Epitomic Dataset Distillation", NeurIPS 2023.
Objective: as MTT (mtt.py) for the images that codes, tokens and decoder make (decoders/epitomes.py), plus `l1_weight`
        times the sum of the codes' sizes. The student follows an average of its gradients, m <- .9 m + .1 g,
        w <- w - lr m. Codes, tokens, decoder and step size are learned, each with a step size of its own; the set keeps
        the `top_k` largest codes of an image and head.
FYI:    rendered images are expanded before augmentation, the student's batch halved. Not published: inferred from MTT.
Recipe: speed.toml (comments of the published code, argparse). `images_per_class` images are rendered from the storage
        of ipc ones: decoder, tokens, and a value and 16 bits for each code that is kept.
Published: CIFAR-10 at 1 / 10 / 50 images a class of storage 63.2 / 73.5 / 77.7 % (SPEED's README; best on test).
Ours:   docs/methods.md.
Run:    fyi-bench distill --method speed --dataset cifar10 --ipc 10 --fyi

As published the step size is learned for the averaged gradient, and sets are evaluated with PyTorch's momentum, whose
steps are ten times as long.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from distill.contracts import Context, Stored, Tensors
from distill.decoders import Decoder
from distill.decoders.epitomes import Epitomes, parameter_shapes, sparse
from distill.methods import METHODS
from distill.methods.mtt import MTT, MTTConfig
from distill.trajectory import Descent, near, trajectory_distance, unrolled, walk_back
from fyi_bench.errors import UsageError

SPREAD = 0.2  # standard deviation of the first codes and tokens


@dataclass(frozen=True)
class SPEEDConfig(MTTConfig):
    images_per_class: int
    tokens: int
    token_dim: int
    top_k: int
    decoder_depth: int
    decoder_heads: int
    patch: int
    l1_weight: float
    lr_tokens: float
    lr_decoder: float
    lr_floor: float
    student_momentum: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gradient == "tesla":
            raise UsageError("The tesla gradient knows no student with momentum.\nUse --set gradient=adjoint.")
        if self.token_dim % self.decoder_heads:
            raise UsageError(
                f"{self.decoder_heads} heads do not divide {self.token_dim} numbers a token.\n"
                "Choose another token_dim or decoder_heads."
            )


@METHODS.register("speed")
class SPEED(MTT):
    """Sparse Parameterization for Epitomic datasEt Distillation."""

    numerics = 1
    Config = SPEEDConfig
    config: SPEEDConfig
    components = ("trajectory", "decoder")

    @classmethod
    def shown(cls, values: Mapping[str, Any], ipc: int, classes: int, shape: tuple[int, int, int]) -> int:
        return int(values["images_per_class"])

    @property
    def count(self) -> int:
        return self.problem.num_classes * self.config.images_per_class

    def initial_images(self) -> torch.Tensor:
        c, (_, height, width) = self.config, self.problem.shape
        if c.init != "noise" or height % c.patch or width % c.patch:
            raise UsageError(
                f"SPEED's codes start as noise (init), and patches of {c.patch} must divide {height}x{width}."
            )
        positions = height * width // c.patch**2
        return self._normal("codes", self.count, c.decoder_heads, positions, c.tokens)

    def extra_parameters(self) -> dict[str, tuple[torch.Tensor, float, float]]:
        c, channels = self.config, self.problem.shape[0]
        found = super().extra_parameters()
        found["tokens"] = (self._normal("tokens", c.tokens, c.token_dim), c.lr_tokens, c.momentum_img)
        shapes = parameter_shapes(c.token_dim, c.decoder_depth, channels * c.patch**2)
        for name, shape in shapes.items():
            found[name] = (self._layer(name, shape), c.lr_decoder, c.momentum_img)
        return found

    def decoder(self, extras: Tensors) -> Decoder:
        """The decoder of these tokens and layers."""
        tensors = {name: tensor for name, tensor in extras.items() if name != "lr"}
        return Epitomes(self.problem.shape, tensors, {"patch": self.config.patch, "top_k": self.config.top_k})

    def decode(self, images: torch.Tensor, extras: Tensors) -> torch.Tensor:
        return self.decoder(extras).decode(images.flatten(0, 1))[:, 0].unflatten(0, images.shape[:2])

    def stored(self, images: torch.Tensor, extras: Tensors) -> Stored:
        return Stored(sparse(images, self.config.top_k), extras["lr"], self.decoder(extras))

    def backward(self, ctx: Context) -> torch.Tensor:
        if self.config.gradient == "unroll":
            loss = self.loss(ctx)
            loss.backward()
            return loss.detach()
        shown, penalty = self.decode(ctx.per_class, ctx.extras).flatten(0, 1), self._penalty(ctx)
        descent, end = self._descent(ctx), near(self.start, self.target)
        found = walk_back(self._network, self._batches(ctx), shown, descent, self.start, end)
        torch.autograd.backward([shown, penalty], [found.by_images, torch.ones_like(penalty)])
        ctx.extras["lr"].grad = found.by_lr
        return found.loss + penalty.detach()

    def loss(self, ctx: Context) -> torch.Tensor:
        shown = self.decode(ctx.per_class, ctx.extras).flatten(0, 1)
        weights = unrolled(self._network, self._batches(ctx), shown, self._descent(ctx), self.start)
        return trajectory_distance(weights, self.start, self.target) + self._penalty(ctx)

    def step(self, ctx: Context, optimiser: torch.optim.Optimizer) -> None:
        optimiser.step()
        with torch.no_grad():
            ctx.extras["lr"].clamp_(min=self.config.lr_floor)

    def _descent(self, ctx: Context) -> Descent:
        return Descent(ctx.extras["lr"], self.config.student_momentum, averaged=True)

    def _penalty(self, ctx: Context) -> torch.Tensor:
        return self.config.l1_weight * ctx.images.abs().sum()

    def _normal(self, name: str, *shape: int) -> torch.Tensor:
        drawn = torch.randn(shape, generator=self.problem.stream("init", name), dtype=torch.float64)
        return (SPREAD * drawn).to(self.problem.dtype)

    def _layer(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Linear layers: Xavier uniform and zero biases; norms start as the identity."""
        if len(shape) == 1:
            return torch.full(shape, float("norm" in name and name.endswith("weight")), dtype=self.problem.dtype)
        drawn = torch.rand(shape, generator=self.problem.stream("init", name), dtype=torch.float64)
        return ((2 * drawn - 1) * math.sqrt(6 / sum(shape))).to(self.problem.dtype)

"""What methods have in common whose stored images hold smaller ones (a file with an underscore is no method).

One drawn augmentation is shared by the real and the decoded images of a class. Published code takes an optimiser step
after every class. Here all classes of a round go through the network together, and that is exact: with one momentum
buffer for the whole set, a class's turn moves the others by their decayed momentum only, and that has a closed form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, ClassVar

import torch
from torch import Tensor

from distill.augment import Augmentation, Draw
from distill.captured import upload
from distill.contracts import Context, Tensors
from distill.decode import decode, decoded_count
from distill.initial import initial_images
from distill.method import MethodConfig, RecordedMethod
from distill.problem import Problem
from fyi_bench.errors import UsageError

SYNTHETIC_AT_ONCE = 2048  # images whose graphs are held together on a GPU: with second derivatives 10 GB at 32 pixels


@dataclass(frozen=True)
class TilesConfig(MethodConfig):
    """Options of stored tiles and of a matching step on them."""

    batch_real: int
    factor: int
    decode_type: str


@dataclass(frozen=True)
class PixelTilesConfig(TilesConfig):
    """Options of IDC and what follows it; runs made before `halve_syn_max` was one have halved."""

    batch_syn_max: int
    aug_match: str
    halve_syn_max: bool = field(default=True, kw_only=True)

    def most(self, multiplier: int) -> int:
        """Decoded images of a class that a matching step takes at most, before the flip makes `multiplier` of each."""
        return max(1, self.batch_syn_max // (multiplier if self.halve_syn_max else 1))


class TilesMethod(RecordedMethod):
    """A recorded method on stored tiles, one optimiser step a class; a subclass says how far classes are apart.

    second_order: whether its step is differentiated twice, which takes three times the memory.
    """

    config: TilesConfig
    second_order: ClassVar[bool] = True

    @classmethod
    def shown(cls, values: Mapping[str, Any], ipc: int, classes: int, shape: tuple[int, int, int]) -> int:
        return decoded_count(ipc, values["factor"], values["decode_type"])

    def __init__(self, config: TilesConfig, problem: Problem):
        super().__init__(config, problem)
        self.momentum: torch.Tensor | None = None
        self._powers: torch.Tensor | None = None

    # what is learned -------------------------------------------------------------------------------------------

    def initial_images(self) -> torch.Tensor:
        return initial_images(self.problem, self.config.init, self.config.factor)

    def decode(self, images: torch.Tensor, extras: Tensors) -> torch.Tensor:
        return decode(images, self.config.factor, self.config.decode_type)

    def state(self) -> dict[str, torch.Tensor]:
        return {} if self.momentum is None else {"momentum": self.momentum}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        if "momentum" in state:
            p = self.problem
            shape = p.num_classes * p.ipc, *p.shape
            self.momentum = torch.empty(shape, dtype=p.dtype, device=p.device).copy_(state["momentum"])

    # one iteration ---------------------------------------------------------------------------------------------

    def inputs(self, ctx: Context) -> tuple[torch.Tensor, ...]:
        """The usual ones, and int64 [C, m], which of its decoded images a class shows (empty: all)."""
        used = self._used(ctx)
        shown = used.shape[:2] if used.numel() else (self.problem.num_classes, self._decoded)
        rows, codes, values, _ = self.rows_and_draws(ctx, self.config.batch_real)
        return rows, codes, values, ctx.flip_draw(shown), used

    def objective(
        self, ctx: Context, rows: Tensor, codes: Tensor, values: Tensor, chosen: Tensor, used: Tensor, *more: Tensor
    ) -> Tensor:
        synthetic, real = self.synthetic(ctx, used, chosen), self.problem.images_at(rows)
        parts = [part.sum() for _, part in self.distances(real, self.drawn(codes, values), synthetic, *more)]
        return reduce(torch.add, parts)

    def gradient(
        self, ctx: Context, rows: Tensor, codes: Tensor, values: Tensor, chosen: Tensor, used: Tensor, *more: Tensor
    ) -> tuple[Tensor, Tensor]:
        synthetic, real = self.synthetic(ctx, used, chosen), self.problem.images_at(rows)
        images, parts = synthetic.detach().requires_grad_(True), []
        total = torch.zeros((), dtype=images.dtype, device=images.device)
        # each group's graph is freed before the next is built
        for group, distances in self.distances(real, self.drawn(codes, values), images, *more):
            loss = distances.sum()
            parts.append(torch.autograd.grad(loss, images)[0][group])
            total = total + loss.detach()
        return total, torch.autograd.grad(synthetic, ctx.images, torch.cat(parts))[0]

    def backward(self, ctx: Context) -> torch.Tensor:
        self._drift(ctx, before_turn=True)
        return super().backward(ctx)

    def step(self, ctx: Context, optimiser: torch.optim.Optimizer) -> None:
        """Each class's own optimiser step, with what the turns of the other classes add: see `_drift`."""
        with torch.no_grad():
            momentum = self._momentum(ctx).mul_(self.config.momentum_img)
            if ctx.images.grad is not None:
                momentum.add_(ctx.images.grad)
            ctx.images.sub_(self.learning_rate(ctx.iteration) * momentum)
        self._drift(ctx, before_turn=False)

    # matching --------------------------------------------------------------------------------------------------

    def distances(
        self, real: torch.Tensor, draw: Draw, synthetic: torch.Tensor, *more: torch.Tensor
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """(group of classes, distance of each of them) in turn; images [C, n, ch, H, W] in the problem's space.

        more: what a method's `inputs` give beyond those of this class.
        """
        raise NotImplementedError(self.name)

    def synthetic(self, ctx: Context, used: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """[C, m, ch, H, W]: decoded, those that are `used` of each class, expanded by the flip."""
        images = self.decode(ctx.per_class, ctx.extras)
        if used.numel():
            images = images[torch.arange(len(images), device=images.device).unsqueeze(1), used]
        return ctx.flip.expand_classes(images, chosen=chosen)

    @property
    def _decoded(self) -> int:
        """Images a class has after decoding."""
        return decoded_count(self.problem.ipc, self.config.factor, self.config.decode_type)

    def _most(self, multiplier: int) -> int:
        """Decoded images of a class that are used at once: all of them."""
        return self._decoded

    def _used(self, ctx: Context) -> torch.Tensor:
        """Which decoded images a class shows where they are more than are used at once; else empty."""
        most = self._most(ctx.flip.multiplier)
        if self._decoded <= most:
            return torch.zeros(self.problem.num_classes, 0, dtype=torch.int64, device=self.problem.device)
        sizes = (self.problem.num_classes, self._decoded)
        order = torch.rand(sizes, generator=ctx.stream("used"), dtype=torch.float64).argsort(1)
        return upload(order[:, :most].contiguous(), self.problem.device)

    def _seen(self, images: torch.Tensor, draw: Draw) -> torch.Tensor:
        """Images [C', n, ch, H, W] as the network sees them: augmented by one draw a class."""
        return self.augmentation.apply(images.flatten(0, 1), draw.repeat(images.shape[1])).view_as(images)

    def _groups(self, images_per_class: int) -> list[slice]:
        """Classes whose synthetic images go through the network together, with all their derivatives."""
        if self.problem.device.type == "cpu":
            return self.chunks(images_per_class, self.second_order)
        step = max(1, SYNTHETIC_AT_ONCE * (1 if self.second_order else 3) // images_per_class)
        return [slice(c, c + step) for c in range(0, self.problem.num_classes, step)]

    def _momentum(self, ctx: Context) -> torch.Tensor:
        if self.momentum is None:
            self.momentum = torch.zeros_like(ctx.images, requires_grad=False)
        return self.momentum

    def _drift(self, ctx: Context, before_turn: bool) -> None:
        """What momentum alone does to each class while it is the others' turn.

        Published code steps after every class with one momentum buffer for all images; class c of C has c turns of
        others before its own and C - 1 - c after it, in which its gradient is zero. k such steps multiply the
        momentum v by μ^k and move the images by -lr (μ + … + μ^k) v.
        """
        classes, whole = self.problem.num_classes, self._momentum(ctx)
        if self._powers is None:
            powers = self.config.momentum_img ** torch.arange(classes, dtype=torch.float64)
            both = torch.stack([powers, powers.cumsum(0) - 1]).view(2, classes, 1, 1, 1, 1)
            self._powers = upload(both, whole.device).to(whole.dtype)
        powers, travelled = self._powers if before_turn else self._powers.flip(1)
        with torch.no_grad():
            momentum = whole.unflatten(0, (classes, -1))
            ctx.per_class.sub_(self.learning_rate(ctx.iteration) * travelled * momentum)
            momentum.mul_(powers)


class PixelTilesMethod(TilesMethod):
    """Tiles in [0, 1], which are normalised inside, as IDC and what follows it have them."""

    config: PixelTilesConfig
    space_kind = "pixel"
    statistics_family = "mtt"

    def __init__(self, config: PixelTilesConfig, problem: Problem):
        super().__init__(config, problem)
        self.augmentation = Augmentation(config.aug_match, dispatcher=config.dispatcher)

    def initial_images(self) -> torch.Tensor:
        self._check_space()
        return super().initial_images()

    def begin(self, ctx: Context) -> None:
        with torch.no_grad():
            ctx.images.clamp_(0, 1)
        super().begin(ctx)

    def _check_space(self) -> None:
        if self.problem.space.kind != "pixel":
            raise UsageError(f"{self.name.upper()} works on pixels from 0 to 1.\nGive the problem the pixel space.")

    @classmethod
    def values_of(cls, config: PixelTilesConfig, ipc: int, multiplier: int) -> dict[str, Any]:
        decoded = decoded_count(ipc, config.factor, config.decode_type)
        halved, whole = (replace(config, halve_syn_max=half).most(multiplier) for half in (True, False))
        values = super().values_of(config, ipc, multiplier)
        if min(decoded, halved) == min(decoded, whole):
            del values["halve_syn_max"]
        return values

    def _most(self, multiplier: int) -> int:
        return self.config.most(multiplier)

    def _shown(self, multiplier: int) -> int:
        """Images of a class that a matching step shows, with those the flip makes."""
        return min(self._decoded, self._most(multiplier)) * multiplier

    def _seen(self, images: torch.Tensor, draw: Draw) -> torch.Tensor:
        return super()._seen(self.problem.normalisation.encode(images.flatten(0, 1)).view_as(images), draw)

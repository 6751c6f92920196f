"""The contract of a distillation method.

A method declares its configuration and how to compute its loss for one matching step. It never loops over
iterations, flips, checkpoints or logs: the engine does, the same way for all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

import search_space
from distill.augment import Augmentation, Draw
from distill.captured import Captured, upload
from distill.contracts import Context, Stored, Tensors
from distill.initial import initial_images
from distill.optimisers import SGD
from distill.problem import Problem
from distill.zca import ZCASpace
from fyi_bench.errors import UsageError

MOST_COUNT = 10_000_000  # iterations and every other whole number of a recipe
# images of some classes that go through a network together. On a CPU groups of 256 took 0.85 to 0.9 of the time of
# groups of 64, where memory allows them
CHUNK_FIRST, CHUNK_SECOND, CHUNK_ON_GPU = 256, 64, 16384


@dataclass(frozen=True)
class MethodConfig:
    """Options every method has; a method's own Config extends it. Values come from its recipe."""

    model: str
    iterations: int
    lr_img: float
    momentum_img: float
    init: str
    augment: str
    dispatcher: str

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> MethodConfig:
        """The config of a recipe's values; keys of other concerns (evaluation …) are left out."""
        names = {f.name for f in fields(cls) if f.default is MISSING or f.name in values}
        missing = sorted(names - set(values))
        if missing:
            raise UsageError(f"The recipe has no value for '{missing[0]}'.\nGive one with --set {missing[0]}=VALUE.")
        for name in sorted(names):
            if isinstance(values[name], float) and not abs(values[name]) <= torch.finfo(torch.float32).max:
                raise UsageError(f"{name} is {values[name]:g}, which is no number a float32 can hold.")
            if isinstance(values[name], int) and abs(values[name]) > MOST_COUNT:
                raise UsageError(f"{name} is {values[name]}; up to {MOST_COUNT:,} is possible.")
        return cls(**{name: values[name] for name in names})


class Method:
    """One distillation algorithm on one problem; its class attributes say what is known of it beforehand.

    name: as it is registered. numerics: version to raise whenever its numbers change (a plug-in without one is known
    by its code). Config: its options. recipe: their values, see recipes/declared.py (built-in methods: the TOML file
    beside theirs). components: parts with a numerics version of their own that not every method uses.
    space_kind: the space it needs ('normalized' unless its paper says otherwise). statistics_family: whose channel
    statistics its published code normalises with ('dc', or 'mtt': CIFAR-10's for CIFAR-100 too).
    averages: whether its result is a running average of the images it moves. timed_with: changes of its config under
    which a step is timed on a CPU.
    """

    name: ClassVar[str]
    numerics: ClassVar[int | str]
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    recipe: ClassVar[Mapping[str, Any] | None] = None
    components: ClassVar[tuple[str, ...]] = ()
    space_kind: ClassVar[str] = "normalized"
    zca_space: ClassVar[type[ZCASpace]] = ZCASpace
    statistics_family: ClassVar[str] = "dc"
    averages: ClassVar[bool] = False
    timed_with: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, config: MethodConfig, problem: Problem):
        self.config, self.problem = config, problem
        strategy = "none" if config.augment in ("", "none", "None") else config.augment
        self.augmentation = Augmentation(strategy, dispatcher=config.dispatcher)
        self._module: nn.Module | None = None

    @classmethod
    def values_of(cls, config: Any, ipc: int, multiplier: int) -> dict[str, Any]:
        """The values of its config that a run depends on, for its digest; multiplier: images the flip makes of one."""
        return {f.name: getattr(config, f.name) for f in fields(config)}

    @classmethod
    def shown(cls, values: Mapping[str, Any], ipc: int, classes: int, shape: tuple[int, int, int]) -> int:
        """Images a class that a pass over its set shows: more than ipc where a stored one makes several.

        values: those of its config. classes, shape: of the images it is made of.
        """
        return ipc

    # what is learned -------------------------------------------------------------------------------------------

    def initial_images(self) -> torch.Tensor:
        """float [C·ipc, ch, H, W], class-major, in the problem's space; or as many rows of a stored form [C·n, …]."""
        return initial_images(self.problem, self.config.init)

    def extra_parameters(self) -> dict[str, tuple[torch.Tensor, float, float]]:
        """Further learned tensors: name -> (initial value, learning rate, momentum); 'lr' ends in the set."""
        return {}

    def outer_optimiser(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """What moves the learned tensors; its state is kept in checkpoints.

        groups: one for the images, then one for each of `extra_parameters`, with their `lr` and `momentum`.
        """
        return SGD(groups, lr=self.config.lr_img)

    def learning_rate(self, iteration: int) -> float:
        """Step size of the images at this iteration."""
        return self.config.lr_img

    def decode(self, images: torch.Tensor, extras: Tensors) -> torch.Tensor:
        """Stored images [C, n, …] -> images a network sees [C, n', …] (IDC enlarges tiles); called before FYI."""
        return images

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors beside the learned ones that must survive a restart (an average of the images, say)."""
        return {}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what `state` gave; any error says that it is another run's (copy it into tensors of your own)."""

    def stored(self, images: torch.Tensor, extras: Tensors) -> Stored:
        """What ends in the set: the learned images (or rows), unless the method keeps better."""
        return Stored(images, extras.get("lr"))

    def finished(self, images: torch.Tensor, extras: Tensors) -> Stored:
        """`stored` of the finished set, where it takes more than a snapshot on the way."""
        return self.stored(images, extras)

    # one iteration ---------------------------------------------------------------------------------------------

    def begin(self, ctx: Context) -> None:
        """Draw what an iteration needs: usually a fresh network."""

    def loss(self, ctx: Context) -> torch.Tensor:
        """Scalar loss of one matching step, differentiable with respect to the synthetic images."""
        raise NotImplementedError(self.name)

    def backward(self, ctx: Context) -> torch.Tensor:
        """Compute the loss and leave gradients in the learned tensors; returns the detached loss."""
        loss = self.loss(ctx)
        loss.backward()
        return loss.detach()

    def step(self, ctx: Context, optimiser: torch.optim.Optimizer) -> None:
        """Move the learned tensors along the gradients that `backward` left: one step of the engine's optimiser."""
        optimiser.step()

    def advance(self, ctx: Context) -> bool:
        """After the step: prepare another matching step on this network and return True, or end the iteration."""
        return False

    def passes(self, multiplier: int) -> tuple[float, float, float]:
        """Images an iteration sends through the network: (forward only, first derivatives, second derivatives).

        multiplier: how many images the flip makes of one. Used to estimate time before work.
        """
        return 0.0, float(self.problem.num_classes * self.problem.ipc * multiplier), 0.0

    def logged(self, loss: float) -> float:
        """The loss as the method's papers log it (for instance divided by the classes)."""
        return loss

    # help for methods ------------------------------------------------------------------------------------------

    def fresh_network(self, *keys: int | str, trainable: bool = True) -> nn.Module:
        """A newly initialised network of the recipe's model with a head for the problem's classes.

        It is the same module each time with new values, so that recorded steps find them where they were.
        """
        p, model = self.problem, self.config.model
        generator, (channels, size, _) = p.stream("network", *keys), p.shape
        if self._module is None:
            network = search_space.build(model, channels, size, p.num_classes, generator)
            self._module = network.to(device=p.device, dtype=p.dtype)
        elif not search_space.renew(self._module, model, generator, upload):
            network = search_space.build(model, channels, size, p.num_classes, generator)
            with torch.no_grad():
                for old, new in zip(_values(self._module), _values(network), strict=True):
                    old.copy_(upload(new, p.device), non_blocking=True)
        self._module.zero_grad(set_to_none=True)
        return self._module.train().requires_grad_(trainable)

    def first_order(self) -> contextlib.AbstractContextManager:
        """Around branches that need first derivatives only: bf16 convolutions where the problem asks for them."""
        if self.problem.precision != "bf16":
            return contextlib.nullcontext()
        return torch.autocast(self.problem.device.type, torch.bfloat16)

    def chunks(self, images_per_class: int, second_order: bool = False) -> list[slice]:
        """Slices of classes whose images go through the network together, bounded on a CPU.

        second_order: their graph is differentiated twice; it needs three times the memory an image.
        """
        limit = CHUNK_ON_GPU if self.problem.device.type != "cpu" else CHUNK_SECOND if second_order else CHUNK_FIRST
        step = max(1, limit // max(1, images_per_class))
        return [slice(c, c + step) for c in range(0, self.problem.num_classes, step)]

    def real_sizes(self, count: int) -> Sequence[int]:
        """How many of the `count` real images in each class's row count: fewer where the class has fewer."""
        return self.problem.batch_sizes(count)

    def chunks_of_real(self, images_per_class: int, network: nn.Module) -> list[slice]:
        """`chunks` for real images, which need no graph; all classes at once where batch norms mix them."""
        everything = slice(0, self.problem.num_classes)
        return [everything] if mixes_images(network) else self.chunks(images_per_class)


class RecordedMethod(Method):
    """A method whose matching step is a function of tensors, so that a GPU can record and replay it.

    `inputs` does all that needs the host (draws, which real images), `objective` the rest. A subclass that needs more
    than a scalar loss overrides `gradient`. Its loss is a sum over classes and logged as their mean. Where a step is
    not the same function throughout, `phase` says which one it is, and each is recorded by itself.
    """

    network: Any  # of this iteration, set by `begin`

    def __init__(self, config: MethodConfig, problem: Problem):
        super().__init__(config, problem)
        self._steps: dict[Hashable, Captured] = {}

    def phase(self, ctx: Context) -> Hashable:
        """What the step's function depends on beside its tensors; usually nothing."""
        return None

    def inputs(self, ctx: Context) -> tuple[torch.Tensor, ...]:
        """What a matching step takes from outside, on the problem's device."""
        raise NotImplementedError(self.name)

    def objective(self, ctx: Context, *inputs: Any, **_: Any) -> torch.Tensor:
        """Scalar loss, a function of the inputs, of `ctx.images` and of the network alone; nothing is read from it."""
        raise NotImplementedError(self.name)

    def gradient(self, ctx: Context, *inputs: Any, **_: Any) -> tuple[torch.Tensor, ...]:
        """(detached loss, its gradients with respect to `ctx.images` and each of `ctx.extras`)."""
        loss = self.objective(ctx, *inputs)
        return loss.detach(), *torch.autograd.grad(loss, [ctx.images, *ctx.extras.values()])

    def loss(self, ctx: Context) -> torch.Tensor:
        return self.objective(ctx, *self.inputs(ctx))

    def backward(self, ctx: Context) -> torch.Tensor:
        inputs, phase = self.inputs(ctx), self.phase(ctx)
        if phase not in self._steps:
            self._steps[phase] = Captured(partial(self.gradient, ctx))
        loss, ctx.images.grad, *others = self._steps[phase](*inputs)
        for tensor, found in zip(ctx.extras.values(), others, strict=True):
            tensor.grad = found
        return loss

    def logged(self, loss: float) -> float:
        return loss / self.problem.num_classes

    def real_rows(self, ctx: Context, count: int) -> torch.Tensor:
        """int64 [C, k] on the device: the real images of a matching step, drawn unless the method chooses them."""
        return ctx.real_rows(count)

    # help ------------------------------------------------------------------------------------------------------

    def rows_and_draws(self, ctx: Context, count: int) -> tuple[torch.Tensor, ...]:
        """Which real images, one draw a class that real and synthetic images share, and the flip's chance.

        (`real_rows` [C, k], the draw's codes and values, `flip_draw`.)
        """
        p = self.problem
        draw = self.augmentation.draw_classes(ctx.stream("augment"), p.num_classes, p.shape[-1]).to(p.device)
        return self.real_rows(ctx, count), draw.codes, draw.values, ctx.flip_draw(ctx.per_class.shape[:2])

    def drawn(self, codes: torch.Tensor, values: torch.Tensor) -> Draw:
        """The draw of these inputs."""
        return Draw(self.augmentation.stages, codes, values)


def mixes_images(network: nn.Module) -> bool:
    """Whether images of a batch see each other in this network (batch norm)."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())


def _values(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]

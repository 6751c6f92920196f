"""The jobs: for each, our way and the plain twin on the same data, and how much arithmetic a unit of it is.

The arithmetic counts convolutions and the classifier: a forward pass 1, with first derivatives 3; with second
derivatives with respect to the images 7, and 9 where the weights need them too (layer by layer: forward, its two
derivatives, and the derivatives of these three that are asked for).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import Case
from benchmarks.twins import idc, matching, training, trajectory
from distill.engine import Deadline, distill
from distill.experts import Trajectory, train_expert
from distill.image_set import ImageSet
from distill.method import MethodConfig
from distill.methods import METHODS
from distill.methods.mtt import MTTConfig
from distill.problem import Problem
from distill.recipes import recipe
from distill.spaces import NormalizedSpace, PixelSpace
from distill.trajectory import FlatNetwork
from downstream.accuracy import train_and_test
from downstream.nas import architecture_name
from downstream.protocol import protocol
from downstream.training import Conditions, new_network, train
from fyi_bench import rng
from fyi_bench.registry import Registry
from search_space import architectures
from search_space.space720 import flops, subset

FORWARD, FIRST, SECOND, SECOND_WITH_WEIGHTS = 1.0, 3.0, 7.0, 9.0
ENDLESS = 100_000  # iterations, epochs: a side runs until it is told to stop
NETWORKS = 6  # of the 720 in one unit of `nas`
PEAK_BATCH = {"cpu": 32, "cuda": 2048}
PEAK_WIDTH, PEAK_SIZE = 128, 16  # the middle convolution of the ConvNet
_EXPERT_EPOCHS = 200
_DRIFT = 0.01  # how far an expert goes from its start, a weight: only the cost of a student's step is asked for

Way = Callable[[Deadline], list[Tensor]]


@dataclass(frozen=True)
class Setup:
    """A case with its real images, and where and how a side works.

    space: in which networks see the images. units: of work to do at most. seed: of every draw.
    """

    case: Case
    images: ImageSet
    space: NormalizedSpace
    device: str = "cpu"
    precision: str = "fp32"
    dtype: torch.dtype = torch.float32
    units: int = ENDLESS
    seed: int = 0

    def problem(self, pixels: bool = False) -> Problem:
        """What is to be condensed; pixels: for methods that work on them and have the space as inner statistics."""
        return Problem(
            real=self.images,
            space=PixelSpace() if pixels else self.space,
            ipc=self.case.ipc,
            seed=self.seed,
            classes=tuple(range(self.case.classes)),
            device=torch.device(self.device),
            dtype=self.dtype,
            precision=self.precision,
            statistics=self.space if pixels else None,
        )

    def config(self, method: str, **fixed: Any) -> MethodConfig:
        """The published recipe with the case's changes."""
        case = self.case
        values = dict(recipe(method, case.dataset, case.ipc, "paper").values)
        values |= {**fixed, "model": case.model, "zca": False, "iterations": self.units, **case.changes}
        return METHODS.get(method).Config.from_values(values)

    def mtt_config(self, **fixed: Any) -> MTTConfig:
        """That of MTT."""
        config = self.config("mtt", **fixed)
        assert isinstance(config, MTTConfig)
        return config

    def forward_flops(self) -> int:
        """Of one image through the case's network."""
        return architectures.forward_flops(self.case.model, 3, self.case.size, self.case.classes)

    def small_set(self) -> ImageSet:
        """Random real images, as many as a condensed set has, in the space networks see."""
        drawn = self.images.select(self.problem().draw_rows(self.case.ipc, "bench set").flatten())
        seen = drawn.batch(slice(None), self.space, self.dtype)
        return replace(drawn, images=seen, space=self.space, num_classes=self.case.classes, class_names=())


@dataclass(frozen=True)
class Sides:
    """ours, twin: do up to `Setup.units` units of work, asking `stop` before each; both give the same tensors.

    flops: arithmetic of a unit.
    """

    ours: Way
    twin: Way | None
    flops: float


@dataclass(frozen=True)
class Workload:
    """unit: what one measured time is of."""

    unit: str
    prepare: Callable[[Setup], Sides]


WORKLOADS: Registry[Workload] = Registry("job of the benchmark", base=Workload)


def _register(unit: str, *names: str, **fixed: Any) -> Callable[[Callable[..., Sides]], Callable[..., Sides]]:
    """Register a function that prepares the sides under these names."""

    def register(prepare: Callable[..., Sides]) -> Callable[..., Sides]:
        for name in names:
            WORKLOADS.register(name, Workload(unit, partial(prepare, **fixed)))
        return prepare

    return register


def _engine(problem: Problem, method: str, config: MethodConfig) -> Way:
    return lambda stop: [distill(problem, method, config, stop=stop).images]


@_register("iteration", "dc", method="dc", twin=matching.dc)
@_register("iteration", "dsa", method="dsa", twin=partial(matching.dc, method="dsa"))
@_register("iteration", "dm", method="dm", twin=matching.dm)
@_register("iteration", "idc", method="idc", twin=idc.idc)
def _matching(setup: Setup, method: str, twin: Callable[..., Tensor]) -> Sides:
    kind = METHODS.get(method)
    problem, config = setup.problem(pixels=kind.space_kind == "pixel"), setup.config(method)
    forward, first, second = kind(config, problem).passes(1)
    work = setup.forward_flops() * (forward * FORWARD + first * FIRST + second * SECOND)
    return Sides(_engine(problem, method, config), lambda stop: [twin(problem, config, stop)], work)


@_register("iteration", "mtt", gradient="adjoint")
@_register("iteration", "mtt-unroll", gradient="unroll")
def _student(setup: Setup, gradient: str) -> Sides:
    # one stretch of one expert; a student's step costs the same wherever it starts
    config = setup.mtt_config(
        gradient=gradient, expert_epochs=1, max_start_epoch=1, expert_train_epochs=1, experts=1
    )  # fmt: skip
    plain = setup.problem()
    path = _expert_path(plain, setup.case.model)
    problem = replace(plain, experts=lambda: [Trajectory(path)])
    images = setup.case.classes * setup.case.ipc
    shown = config.syn_steps * min(config.batch_syn or images, images)
    return Sides(
        _engine(problem, "mtt", config),
        lambda stop: [trajectory.mtt(problem, config, stop)[0]],
        setup.forward_flops() * shown * SECOND_WITH_WEIGHTS,
    )


def _expert_path(problem: Problem, model: str) -> Tensor:
    """Two sets of weights a small random step apart, [2, P]."""
    start = FlatNetwork(matching.fresh_network(problem, model, "bench expert")).values()
    step = torch.randn(len(start), generator=problem.stream("bench expert step"), dtype=torch.float64)
    return torch.stack([start, start + _DRIFT * step.to(start)])


@_register("step", "expert")
def _expert(setup: Setup) -> Sides:
    problem, config, count = setup.problem(), setup.mtt_config().expert_config, len(setup.images)
    batch = min(config.batch, count)
    epochs = max(1, setup.units // -(-count // batch))
    # only the weights of the first and the last epochs are kept, so that no endless run asks for endless memory
    config = replace(config, epochs=min(epochs, _EXPERT_EPOCHS), batch=batch)

    def ours(stop: Deadline) -> list[Tensor]:
        path = train_expert(problem, config, stop=stop).trajectory
        return [torch.stack([path.at(epoch) for epoch in range(path.epochs + 1)])]

    twin = partial(trajectory.expert, problem, config)
    return Sides(ours, lambda stop: [twin(stop)], setup.forward_flops() * batch * FIRST)


@_register("epoch", "retrain", "retrain-vgg11", "retrain-resnet18")
def _retraining(setup: Setup) -> Sides:
    model, train_set, device = setup.case.model, setup.small_set(), torch.device(setup.device)
    how = replace(
        protocol("paper", "accuracy").for_network(model), epochs=setup.units, extra_epoch=False, lr_from_set=False
    )

    def ours(stop: Deadline) -> list[Tensor]:
        network = new_network(model, train_set, setup.seed)
        train(network, train_set, how, setup.seed, Conditions(device, setup.precision, stop=stop))
        return [p.detach() for p in network.parameters()]

    def twin(stop: Deadline) -> list[Tensor]:
        network = training.retrain(model, train_set, how, setup.seed, device, stop)
        return [p.detach() for p in network.parameters()]

    return Sides(ours, twin, setup.forward_flops() * len(train_set) * FIRST)


@_register(f"{NETWORKS} networks", "nas")
def _search(setup: Setup) -> Sides:
    case, train_set, device = setup.case, setup.small_set(), torch.device(setup.device)
    points = subset(case.changes.get("networks", NETWORKS))
    epochs = case.changes.get("epochs", 1)
    how = replace(protocol("paper", "nas"), epochs=epochs, extra_epoch=False)
    conditions = Conditions(device, setup.precision, setup.space)

    def ours() -> list[Tensor]:
        rules = [how.for_network(architecture_name(point)) for point in points]
        found = [train_and_test(train_set, train_set, rule, [0], conditions)[0].accuracy for rule in rules]
        return [torch.tensor(found, dtype=torch.float64)]

    def twin() -> list[Tensor]:
        return [training.search(points, train_set, train_set, how, device)]

    forward = sum(flops(point, 3, case.size, case.classes) for point in points)
    work = forward * len(train_set) * (FIRST * epochs + FORWARD)
    return Sides(_again(ours, setup.units), _again(twin, setup.units), work)


@_register("convolution", "peak")
def _convolution(setup: Setup) -> Sides:
    """The machine's own speed: forward passes of the ConvNet's middle convolution."""
    batch = PEAK_BATCH[setup.device]
    dtype = torch.bfloat16 if setup.precision == "bf16" else setup.dtype
    generator = rng.stream(setup.seed, "bench peak")
    x = torch.randn(batch, PEAK_WIDTH, PEAK_SIZE, PEAK_SIZE, generator=generator).to(setup.device, dtype)
    weight = torch.randn(PEAK_WIDTH, PEAK_WIDTH, 3, 3, generator=generator).to(setup.device, dtype)

    def ours() -> list[Tensor]:
        with torch.no_grad():
            return [torch.nn.functional.conv2d(x, weight, padding=1)]

    return Sides(_again(ours, setup.units), None, 2 * batch * 9 * PEAK_WIDTH**2 * PEAK_SIZE**2)


def _again(unit: Callable[[], list[Tensor]], units: int) -> Way:
    """A loop of the unit, which gives what the last one gave."""

    def way(stop: Deadline) -> list[Tensor]:
        found: list[Tensor] = []
        for _ in matching.asked(stop, units):
            found = unit()
        return found

    return way

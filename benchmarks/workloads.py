"""The jobs: for each, our way and the plain twin on the same data, and how much arithmetic a unit of it is.

The arithmetic counts convolutions and the classifier: a forward pass 1, with first derivatives 3; with second
derivatives with respect to the images 7, and 9 where the weights need them too (layer by layer: forward, its two
derivatives, and the derivatives of these three that are asked for).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmarks.case import Case
from benchmarks.twins import idc, matching, training, trajectory
from distill.contracts import Deadline
from distill.expert_file import Trajectory
from distill.experts import train_expert
from distill.image_set import ImageSet
from distill.method import METHODS
from distill.problem import Problem
from distill.recipes import recipe
from distill.spaces import NormalizedSpace, PixelSpace
from distill.trajectory import FlatNetwork
from downstream.nas import train_architecture
from downstream.protocol import protocol
from downstream.training import new_network, train
from fyi_bench import rng
from fyi_bench.registry import Registry
from search_space import architectures
from search_space.space720 import flops, subset

if TYPE_CHECKING:
    from distill.method import MethodConfig

FORWARD, FIRST, SECOND, SECOND_WITH_WEIGHTS = 1.0, 3.0, 7.0, 9.0
ENDLESS = 100_000  # iterations, epochs: a side runs until it is told to stop
NETWORKS = 6  # of the 720 in one unit of `nas`
PEAK_BATCH = {"cpu": 32, "cuda": 2048}
PEAK_WIDTH, PEAK_SIZE = 128, 16  # the middle convolution of the ConvNet
_EXPERT_EPOCHS = 200
_DRIFT = 0.01  # how far an expert goes from its start, a weight: only the cost of a student's step is asked for


@dataclass(frozen=True)
class Setup:
    """Where and how a side works. seed: of every draw."""

    device: str = "cpu"
    precision: str = "fp32"
    dtype: torch.dtype = torch.float32
    units: int = ENDLESS
    seed: int = 0


Way = Callable[[Deadline], list[Tensor]]


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
    prepare: Callable[[Case, ImageSet, NormalizedSpace, Setup], Sides]


WORKLOADS: Registry[Workload] = Registry("job of the benchmark", base=Workload)


def problem_of(case: Case, images: ImageSet, space: NormalizedSpace, setup: Setup, pixels: bool = False) -> Problem:
    """The case's problem; for methods that work on pixels with `space` as their inner statistics."""
    return Problem(
        real=images,
        space=PixelSpace() if pixels else space,
        ipc=case.ipc,
        seed=setup.seed,
        classes=tuple(range(case.classes)),
        device=torch.device(setup.device),
        dtype=setup.dtype,
        precision=setup.precision,
        statistics=space if pixels else None,
    )


def config_of(case: Case, method: str, units: int, **fixed: Any) -> MethodConfig:
    """The published recipe with the case's changes."""
    values = dict(recipe(method, case.dataset, case.ipc, "paper").values)
    values |= {**fixed, "model": case.model, "zca": False, "iterations": units, **case.changes}
    return METHODS.get(method).Config.from_values(values)


def forward_flops(case: Case) -> int:
    """Of one image through the case's network."""
    return architectures.forward_flops(case.model, 3, case.size, case.classes)


def _engine(problem: Problem, method: str, config: MethodConfig) -> Way:
    from distill.engine import distill

    return lambda stop: [distill(problem, method, config, stop=stop).images]


def _matching(method: str, twin: Callable[..., Tensor]) -> Callable[..., Sides]:
    def prepare(case: Case, images: ImageSet, space: NormalizedSpace, setup: Setup) -> Sides:
        pixels = METHODS.get(method).space_kind == "pixel"
        problem, config = problem_of(case, images, space, setup, pixels), config_of(case, method, setup.units)
        forward, first, second = METHODS.get(method)(config, problem).passes(1)
        work = forward_flops(case) * (forward * FORWARD + first * FIRST + second * SECOND)
        return Sides(_engine(problem, method, config), lambda stop: [twin(problem, config, stop)], work)

    return prepare


WORKLOADS.register("dc", Workload("iteration", _matching("dc", matching.dc)))
WORKLOADS.register("dsa", Workload("iteration", _matching("dsa", lambda *given: matching.dc(*given, method="dsa"))))
WORKLOADS.register("dm", Workload("iteration", _matching("dm", matching.dm)))
WORKLOADS.register("idc", Workload("iteration", _matching("idc", idc.idc)))


def _student(gradient: str) -> Callable[..., Sides]:
    def prepare(case: Case, images: ImageSet, space: NormalizedSpace, setup: Setup) -> Sides:
        # one stretch of one expert; a student's step costs the same wherever it starts
        config = config_of(
            case, "mtt", setup.units, gradient=gradient, expert_epochs=1, max_start_epoch=1, expert_train_epochs=1,
            experts=1,
        )  # fmt: skip
        plain = problem_of(case, images, space, setup)
        path = _expert_path(plain, case.model)
        problem = replace(plain, experts=lambda: [Trajectory(path)])
        shown = config.syn_steps * min(config.batch_syn or case.classes * case.ipc, case.classes * case.ipc)
        return Sides(
            _engine(problem, "mtt", config),
            lambda stop: [trajectory.mtt(problem, config, stop)[0]],
            forward_flops(case) * shown * SECOND_WITH_WEIGHTS,
        )

    return prepare


def _expert_path(problem: Problem, model: str) -> Tensor:
    """Two sets of weights a small random step apart, [2, P]."""
    start = FlatNetwork(matching.fresh_network(problem, model, "bench expert")).values()
    step = torch.randn(len(start), generator=problem.stream("bench expert step"), dtype=torch.float64)
    return torch.stack([start, start + _DRIFT * step.to(start)])


WORKLOADS.register("mtt", Workload("iteration", _student("adjoint")))
WORKLOADS.register("mtt-unroll", Workload("iteration", _student("unroll")))


def _expert(case: Case, images: ImageSet, space: NormalizedSpace, setup: Setup) -> Sides:
    c = config_of(case, "mtt", setup.units).expert_config
    problem = problem_of(case, images, space, setup)
    batch = min(c.batch, len(images))
    epochs = max(1, setup.units // -(-len(images) // batch))
    # only the weights of the first and the last epochs are kept, so that no endless run asks for endless memory
    config = replace(c, epochs=min(epochs, _EXPERT_EPOCHS), batch=batch)
    return Sides(
        lambda stop: [_rows(train_expert(problem, config, stop=stop).trajectory)],
        lambda stop: [trajectory.expert(problem, config, stop)],
        forward_flops(case) * batch * FIRST,
    )


def _rows(path: Trajectory) -> Tensor:
    return torch.stack([path.at(epoch) for epoch in range(path.epochs + 1)])


WORKLOADS.register("expert", Workload("step", _expert))


def _retraining(case: Case, images: ImageSet, space: NormalizedSpace, setup: Setup) -> Sides:
    train_set, device = _small_set(case, images, space, setup), torch.device(setup.device)
    how = protocol("paper", "accuracy").for_network(case.model)
    how = replace(how, epochs=setup.units, extra_epoch=False, lr_from_set=False)

    def ours(stop: Deadline) -> list[Tensor]:
        network = new_network(case.model, train_set, setup.seed)
        train(network, train_set, how, setup.seed, device=device, precision=setup.precision, stop=stop)
        return [p.detach() for p in network.parameters()]

    def twin(stop: Deadline) -> list[Tensor]:
        network = training.retrain(case.model, train_set, how, setup.seed, device, stop)
        return [p.detach() for p in network.parameters()]

    return Sides(ours, twin, forward_flops(case) * len(train_set) * FIRST)


for _name in ("retrain", "retrain-vgg11", "retrain-resnet18"):
    WORKLOADS.register(_name, Workload("epoch", _retraining))


def _search(case: Case, images: ImageSet, space: NormalizedSpace, setup: Setup) -> Sides:
    train_set, device = _small_set(case, images, space, setup), torch.device(setup.device)
    points = subset(case.changes.get("networks", NETWORKS))
    epochs = case.changes.get("epochs", 1)
    how = replace(protocol("paper", "nas"), epochs=epochs, extra_epoch=False)

    def ours() -> list[Tensor]:
        found = [
            train_architecture(
                point, train_set, train_set, how, 0, space=space, device=device, precision=setup.precision
            ).accuracy
            for point in points
        ]
        return [torch.tensor(found, dtype=torch.float64)]

    def twin() -> list[Tensor]:
        return [training.search(points, train_set, train_set, how, device)]

    forward = sum(flops(point, 3, case.size, case.classes) for point in points)
    work = forward * len(train_set) * (FIRST * epochs + FORWARD)
    return Sides(_again(ours, setup.units), _again(twin, setup.units), work)


WORKLOADS.register("nas", Workload(f"{NETWORKS} networks", _search))


def _convolution(case: Case, images: ImageSet, space: NormalizedSpace, setup: Setup) -> Sides:
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


WORKLOADS.register("peak", Workload("convolution", _convolution))


def _again(unit: Callable[[], list[Tensor]], units: int) -> Way:
    def way(stop: Deadline) -> list[Tensor]:
        found: list[Tensor] = []
        for _ in range(units):
            if stop.requested():
                stop.check()
            found = unit()
        return found

    return way


def _small_set(case: Case, images: ImageSet, space: NormalizedSpace, setup: Setup) -> ImageSet:
    """Random real images, as many as a condensed set has, in the space networks see."""
    problem = problem_of(case, images, space, setup)
    drawn = images.select(problem.draw_rows(case.ipc, "bench set").flatten())
    return replace(
        drawn,
        images=drawn.batch(slice(None), space, setup.dtype),
        space=space,
        num_classes=case.classes,
        class_names=(),
    )

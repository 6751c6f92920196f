"""How long runs will take: the image passes they need, at the speed this machine shows in a second of measuring.

What other programs leave of the processor is measured apart: a pass is so short that it often runs undisturbed.
A dry run measures nothing: it takes a usual speed. What is left of work under way is told from what that work took.

`python -m benchmarks kernels --only estimate` prints how well a few networks tell the times of a search.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from fyi_bench.run.run_type import Passes, run_type
from fyi_bench.store.spec import RunSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from fyi_bench.data import RealDataset

START_SECONDS = 4.0  # importing torch and loading data, once a worker
STEP_SECONDS = 0.012  # of an optimiser's step beside its passes, on a CPU
RUN_SECONDS = 1.0  # of a run beside its passes: networks are drawn, images augmented, a record is written
SHARED_MACHINE = 1.15  # workers side by side share memory bandwidth
_BATCHES = 8, 32  # images of a first look at a network, and of the measurement where that look was quick
_QUICK_LOOK = 0.02  # seconds: a network slower than that has the same speed an image at any batch size
_REPEATS = 3
_WINDOW_S = 0.5  # long enough that a busy machine takes the processor away many times
REFERENCE = "convnet-w64"
# forward operations a second by kind of pass, of a core and of a GPU, where nothing is to be measured
_USUAL = {
    "cpu": {"forward": 9e10, "first": 3e10, "second": 9e9},
    "cuda": {"forward": 4e12, "first": 1.5e12, "second": 5e11},
}
# times as fast, where there are instructions for it; on a processor 4.7 in the mean of 500 of the 720 ConvNets
_BF16 = {"cpu": 4.0, "cuda": 2.0}


def seconds_of(passes: Passes, device: str, threads: int, rough: bool = False) -> float:
    """Seconds these passes take here. A kind of pass that is not needed is not measured.

    rough: measure the small network `REFERENCE` only, others in proportion to their floating-point operations.
    """
    model, size = REFERENCE if rough else passes.model, (*passes.shape[:2], passes.classes)
    scale = _flops(passes.model, *size) / _flops(model, *size)
    needed = {kind: getattr(passes, kind) for kind in PASSES if getattr(passes, kind)}
    network = model, passes.shape, passes.classes, device, threads, passes.precision
    return sum(scale * images * measure(kind, *network) for kind, images in needed.items())


def usual_seconds(passes: Iterable[Passes], device: str) -> float:
    """Seconds these passes take on a core or a GPU of usual speed; nothing is computed for it."""
    total = 0.0
    for one in passes:
        faster = _BF16[device] if one.precision == "bf16" else 1.0
        operations = _flops(one.model, *one.shape[:2], one.classes) / faster
        total += sum(operations * getattr(one, kind) / speed for kind, speed in _USUAL[device].items())
    return total


def usual_estimate(runs: Iterable[RunSpec], data: RealDataset, device: str, workers: int) -> float:
    """As `estimate_seconds`, without measuring."""
    seconds = [usual_seconds(run_type(run).passes(run, data), device) for run in runs]
    return START_SECONDS + max(sum(seconds) / min(workers, len(seconds)), *seconds) if seconds else 0.0


def estimate_seconds(
    runs: Iterable[RunSpec], data: RealDataset, device: str, threads: int, workers: int, rough: bool = False
) -> float:
    """Seconds of wall time for these runs on this machine; measures each network once (a second or so).

    rough: measure one small network only, for where the plans of many commands are timed at once.
    """
    runs = list(runs)
    if not runs:
        return 0.0
    passes = [run_type(run).passes(run, data) for run in runs]
    step = STEP_SECONDS if device == "cpu" else 0.0
    each = [
        RUN_SECONDS + sum(seconds_of(p, device, threads, rough) + step * p.steps for p in parts) for parts in passes
    ]
    used = min(workers, len(runs))
    start = START_SECONDS + max(run_type(run).loading_s for run in runs)
    # the longest one cannot be shared out
    alone = start + max(sum(each) / used, *each) * (SHARED_MACHINE if used > 1 else 1.0)
    return alone * (crowding(data.train.shape, threads) if device == "cpu" else 1.0)


def work_of(runs: Iterable[RunSpec], data: RealDataset) -> float:
    """Floating-point operations of these runs, about, whatever the machine: a derivative is two forward passes."""
    weights = {"forward": 1, "first": 3, "second": 9}
    passes = [p for run in runs for p in run_type(run).passes(run, data)]
    each = [sum(weights[kind] * getattr(p, kind) for kind in PASSES) for p in passes]
    return sum(n * _flops(p.model, *p.shape[:2], p.classes) for n, p in zip(each, passes, strict=True))


@functools.cache
def measure(
    kind: str, model: str, shape: tuple[int, int, int], classes: int, device: str, threads: int, precision: str
) -> float:
    """Seconds an image of one kind of pass (see `PASSES`) through this network on this device."""
    from fyi_bench.run.runtime import prepare

    prepare(threads)
    few, many = _BATCHES
    network = _network(model, shape, classes, device)
    with _in(precision, device):
        look = _median_seconds(kind, network, shape, device, few, 1)
        if look > _QUICK_LOOK:
            return look / few
        return _median_seconds(kind, network, shape, device, many, _REPEATS) / many


@functools.cache
def crowding(shape: tuple[int, int, int], threads: int) -> float:
    """How many times as long work takes on this machine as it would alone: what others leave of its processor."""
    from fyi_bench.run.runtime import prepare

    prepare(threads)
    network, began = _network(REFERENCE, shape, 10, "cpu"), time.perf_counter()
    took = computed = 0.0
    while time.perf_counter() - began < _WINDOW_S:
        wall, alone = _timed("forward", network, shape, "cpu", _BATCHES[0], 1)[0]
        took, computed = took + wall, computed + alone
    return max(1.0, took / computed) if computed else 1.0


def _in(precision: str, device: str) -> contextlib.AbstractContextManager:
    import torch

    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")


@functools.cache
def _flops(model: str, channels: int, size: int, classes: int) -> int:
    from search_space.architectures import forward_flops

    return forward_flops(model, channels, size, classes)


@functools.lru_cache(maxsize=4)
def _network(model: str, shape: tuple[int, int, int], classes: int, device: str) -> nn.Module:
    import search_space
    from fyi_bench import rng

    return search_space.build(model, shape[0], shape[1], classes, rng.stream(0, "estimate")).to(device)


def _forward(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    import torch

    with torch.no_grad():
        network(x.detach())


def _first(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    import torch

    torch.autograd.grad(torch.nn.functional.cross_entropy(network(x.detach()), y), _weights(network))


def _second(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    import torch

    loss = torch.nn.functional.cross_entropy(network(x), y)
    gradients = torch.autograd.grad(loss, _weights(network), create_graph=True)
    torch.autograd.grad(torch.stack([g.square().sum() for g in gradients]).sum(), x)


def _weights(network: nn.Module) -> list[nn.Parameter]:
    return [p for p in network.parameters() if p.ndim > 1]


# kind of pass, a field of `Passes` -> function(network, images, labels) that makes one
PASSES: dict[str, Callable[[nn.Module, torch.Tensor, torch.Tensor], None]] = {
    "forward": _forward,
    "first": _first,
    "second": _second,
}


def _median_seconds(
    kind: str, network: nn.Module, shape: tuple[int, int, int], device: str, images: int, repeats: int
) -> float:
    """Median of `repeats` passes of so many images, after one that is not counted, without what others take."""
    times = _timed(kind, network, shape, device, images, repeats + 1)[1:]
    return sorted(alone for _, alone in times)[repeats // 2]


def _timed(
    kind: str, network: nn.Module, shape: tuple[int, int, int], device: str, images: int, passes: int
) -> list[tuple[float, float]]:
    """Of each pass the seconds by the clock, and those it would have taken alone.

    Processor time is what one thread takes alone; several threads take more of it than time passes, so there the clock
    counts. On a GPU it does too.
    """
    import torch

    x = torch.zeros(images, *shape, device=device, requires_grad=True)
    y = torch.zeros(images, dtype=torch.int64, device=device)
    times = []
    for _ in range(passes):
        began, before = time.perf_counter(), time.process_time()
        PASSES[kind](network, x, y)
        if device == "cuda":
            torch.cuda.synchronize()
        wall, computed = time.perf_counter() - began, time.process_time() - before
        times.append((wall, min(wall, computed) if device == "cpu" else wall))
    return times

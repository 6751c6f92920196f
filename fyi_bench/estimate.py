"""How long cells will take: the image passes they need, at the speed this machine shows in a second of measuring."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fyi_bench.registry import Registry
from fyi_bench.store import Cell

if TYPE_CHECKING:
    from fyi_bench.data import RealDataset

# kind -> function(cell, data) giving the passes it needs
COSTS: Registry[Callable[[Cell, RealDataset], Iterable[Passes]]] = Registry(
    "cell kind", package="fyi_bench.kinds", group="fyi_bench.costs"
)

START_SECONDS = 4.0  # importing torch and loading data, once a worker
SHARED_MACHINE = 1.15  # workers side by side share memory bandwidth
_BATCH = 32
_REPEATS = 3


@dataclass(frozen=True)
class Passes:
    """Images that go through a network: forward only, with first derivatives, with second derivatives."""

    model: str
    shape: tuple[int, int, int]
    classes: int
    forward: float = 0.0
    first: float = 0.0
    second: float = 0.0


@dataclass(frozen=True)
class Speed:
    """Seconds an image of each kind of pass."""

    forward: float
    first: float
    second: float

    def seconds(self, p: Passes) -> float:
        """Seconds the passes take."""
        return p.forward * self.forward + p.first * self.first + p.second * self.second


def estimate_seconds(cells: Iterable[Cell], data: RealDataset, device: str, threads: int, workers: int) -> float:
    """Seconds of wall time for these cells on this machine; measures each network once (a second or so)."""
    cells = list(cells)
    if not cells:
        return 0.0
    total = sum(
        measure(p.model, p.shape, p.classes, device, threads).seconds(p)
        for cell in cells
        for p in COSTS.get(cell.kind)(cell, data)
    )
    used = min(workers, len(cells))
    return START_SECONDS + total / used * (SHARED_MACHINE if used > 1 else 1.0)


@functools.cache
def measure(model: str, shape: tuple[int, int, int], classes: int, device: str, threads: int) -> Speed:
    """Seconds an image through this network on this device, median of a few batches."""
    import torch

    import search_space
    from fyi_bench import rng
    from fyi_bench.runtime import prepare

    prepare(threads)
    network = search_space.build(model, shape[0], shape[1], classes, rng.stream(0, "estimate")).to(device)
    x = torch.zeros(_BATCH, *shape, device=device, requires_grad=True)
    y = torch.zeros(_BATCH, dtype=torch.int64, device=device)
    weights = [p for p in network.parameters() if p.ndim > 1]

    def forward() -> None:
        with torch.no_grad():
            network(x.detach())

    def first() -> None:
        torch.autograd.grad(torch.nn.functional.cross_entropy(network(x.detach()), y), weights)

    def second() -> None:
        loss = torch.nn.functional.cross_entropy(network(x), y)
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        torch.autograd.grad(sum(g.square().sum() for g in gradients), x)

    return Speed(*(_median_seconds(step, device) / _BATCH for step in (forward, first, second)))


def _median_seconds(step: Callable[[], None], device: str) -> float:
    import torch

    times = []
    for _ in range(_REPEATS + 1):
        began = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return sorted(times[1:])[_REPEATS // 2]

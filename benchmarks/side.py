"""One side of one case in a process of its own: it works when it is told to, and says how long it took.

The parent writes a number of units a line and gets a line of JSON for it; at the end of the input the process ends.
Where a side's loop asks whether to stop, before each unit, the clock is read and the next order waited for.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from fyi_bench.run.runtime import tune_allocator
from fyi_bench.store.record import peak_cuda_memory_mib, peak_memory_mib

OURS, TWIN = "ours", "twin"


class Ended(Exception):
    """No more units are wanted."""


class Pacer:
    """Lets a loop go on by so many units at a time. As an engine's `Deadline` it is asked before every unit.

    orders: lines with a number of units; tell(facts): called with the seconds they took; wait(): for the device.
    """

    def __init__(self, orders: TextIO, tell: Callable[[dict[str, Any]], None], wait: Callable[[], None]):
        self._orders, self._tell, self._wait = orders, tell, wait
        self._left, self._units = 0, 0
        self._began = _clocks()

    def requested(self) -> bool:
        """True at the end of the orders; waits for the next one when the last is done."""
        self._left -= 1
        if self._left > 0:
            return False
        if self._units:
            self._wait()
            wall, cpu = (now - then for now, then in zip(_clocks(), self._began, strict=True))
            self._tell({"seconds": wall / self._units, "cpu_seconds": cpu / self._units, "units": self._units})
        order = self._orders.readline().strip()
        self._left = self._units = int(order or 0)
        self._wait()
        self._began = _clocks()
        return not order

    def check(self) -> None:
        raise Ended


def _clocks() -> tuple[float, float]:
    """Wall time, and the processor time of all threads of this process."""
    return time.perf_counter(), time.process_time()


def prepared(spec: dict[str, Any]) -> tuple[Callable[[Pacer], Any], dict[str, Any]]:
    """The loop that a specification asks for; what its unit is, the arithmetic of one, and the data it works on."""
    import torch

    torch.set_num_threads(spec["threads"])
    from benchmarks.case import Case, real_images
    from benchmarks.workloads import WORKLOADS, Setup

    case = Case(**spec["case"])
    images, space, name = real_images(case, Path(spec["data_root"]) if spec["data_root"] else None)
    workload = WORKLOADS.get(case.job)
    sides = workload.prepare(Setup(case, images, space, spec["device"], spec["precision"]))
    facts = {"unit": workload.unit, "flops": sides.flops, "data": name}
    way = sides.ours if spec["side"] == OURS else sides.twin
    assert way is not None
    return way, facts


def main(spec: dict[str, Any]) -> None:
    """Serve until the input ends."""
    if spec["tuned"]:
        tune_allocator()
    # what libraries print must not get between the answers
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    way, facts_of_job = prepared(spec)
    wait: Callable[[], None] = lambda: None  # noqa: E731
    if spec["device"] == "cuda":
        import torch

        torch.cuda.init()
        wait = torch.cuda.synchronize
    before = peak_memory_mib()

    def tell(facts: dict[str, Any]) -> None:
        cuda = peak_cuda_memory_mib()
        memory = {"peak_mib": peak_memory_mib(), "before_mib": before} if cuda is None else {"peak_mib": cuda}
        print(json.dumps({**facts, **memory, **facts_of_job}), file=answers, flush=True)

    try:
        way(Pacer(sys.stdin, tell, wait))
    except Ended:
        return


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

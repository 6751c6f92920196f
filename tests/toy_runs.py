"""A run type without torch for the tests of the queue, and a worker process to kill.

The type is found like those of third parties, by an entry point: `toy_path(folder)` makes the folder that says so.
"""

from __future__ import annotations

import datetime
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.jsonl import append_line
from fyi_bench.errors import DataError, DivergenceError
from fyi_bench.run.deadline import Deadline
from fyi_bench.run.drain import Drain, Habits
from fyi_bench.run.queue import Queue, connect
from fyi_bench.run.run_type import RUN_TYPES, Need, RunType, Worker
from fyi_bench.store.run_dir import RunDir
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store

if TYPE_CHECKING:
    import pytest

HERE = Path(__file__).parent
# a process that computes nothing but toys has no use for torch, and would take two seconds to load it
NO_TORCH = """
from types import SimpleNamespace

cuda = SimpleNamespace(is_available=lambda: False, is_initialized=lambda: False)
set_num_threads = lambda threads: None
get_num_threads = lambda: 1
"""


def toy(number: int, seconds: float = 0.0, at_first: float = 0.0, **more: object) -> RunSpec:
    """A run whose value is its number squared; it takes `seconds`, and `at_first` more when tried first.

    more: inputs; with `valueless` its record has no value.
    """
    return RunSpec("toy", {"number": number, **more}, {"seconds": seconds, "at_first": at_first})


class Toy(RunType):
    """Counts the computation, sleeps in small steps, and does what the run asks for."""

    name = "toy"

    def compute(self, run: RunDir, worker: Worker) -> None:
        cell = run.spec
        first = cell.inputs["number"] not in computed(worker.store)
        gpu = {"gpu": sys.modules["torch"].cuda.chosen} if "gpu" in cell.inputs else {}
        append_line(worker.store.root / "computed.jsonl", {"number": cell.inputs["number"], "pid": os.getpid(), **gpu})
        until = time.monotonic() + cell.notes["seconds"] + first * cell.notes["at_first"]
        while time.monotonic() < until:
            time.sleep(0.01)
            worker.check()
        trouble = cell.inputs.get("trouble")
        if trouble is not None:
            raise TROUBLES[trouble]()
        if first and cell.inputs.get("dies_at_first"):
            os.kill(os.getpid(), 9)
        run.finish({} if "valueless" in cell.inputs else {"value": float(cell.inputs["number"] ** 2)})

    def needs(self, spec: RunSpec) -> list[Need]:
        return [("toy", digest) for digest in spec.inputs.get("needs", [])]

    def title(self, spec: RunSpec) -> str:
        return f"toy {spec.inputs['number']}"

    def parameters(self, spec: RunSpec) -> dict[str, int]:
        return {"number": spec.inputs["number"] % 3}


def as_type(function: Callable[[RunDir, Worker], object]) -> type[RunType]:
    """A run type that computes by this function."""

    class Made(Toy):
        def compute(self, run: RunDir, worker: Worker) -> None:
            function(run, worker)

    return Made


def known(monkeypatch: pytest.MonkeyPatch, **types: type[RunType]) -> None:
    """Make these run types known in this process, `toy` among them."""
    RUN_TYPES.names()
    for name, made in {"toy": Toy, **types}.items():
        monkeypatch.setitem(RUN_TYPES._entries, name, made)


TROUBLES = {
    "diverged": lambda: DivergenceError("the loss is no longer finite.", 3),
    "data": lambda: DataError("no images here."),
    "defect": lambda: ZeroDivisionError("toy"),
}


def computed(store: Store, whole: bool = False) -> list:
    """Numbers in the order in which they were computed; `whole`: all that was noted of each."""
    path = store.root / "computed.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return rows if whole else [row["number"] for row in rows]


def toy_path(folder: Path) -> str:
    """A folder for PYTHONPATH that announces the type `toy` as an installed package would, and stands in for torch."""
    info = folder / "toys-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fyi_bench.run_types]\ntoy = toy_runs:Toy\n")
    (folder / "torch.py").write_text(NO_TORCH)
    return os.pathsep.join([str(folder), str(HERE), str(HERE.parent)])


def jump_clock(seconds: float) -> None:
    """Make the clock of the day, Optuna's too, wrong by a multiple of `seconds` that changes each time it is read."""
    from optuna.storages._rdb import storage

    jumps, right = itertools.cycle((-7, 3, 0, 11, -2)), time.time

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + datetime.timedelta(seconds=seconds * next(jumps))

    storage.datetime = Jumping
    time.time = lambda: right() + seconds * next(jumps)


def worker_process(url: str, store: Path, beat_s: float, grace_s: float, clock: float | None) -> None:
    """Work until nothing is left, and print how many runs were finished; the clock jumps as by `jump_clock`."""
    if clock is not None:
        jump_clock(clock)
    stop = Deadline()
    ask = connect(url, stop.check, lambda line: print(line, file=sys.stderr), patience_s=60.0)
    worker = Worker(Store(store), stop=stop, say=lambda line: print(line, file=sys.stderr, flush=True))
    print(Drain(Queue.all(ask), worker, Habits(beat_s=beat_s, grace_s=grace_s)).run())

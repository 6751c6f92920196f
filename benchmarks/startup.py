"""How long a user waits before anything happens: `--help`, and the first step of `distill` on cached CIFAR-10."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.goals import FIRST_STEP_SECONDS, HELP_SECONDS
from benchmarks.run import Request, Say
from fyi_bench.errors import DataError
from fyi_bench.files import write_json
from fyi_bench.run.deadline import Deadline

RECORD = "start-up.json"
# the whole command that makes one step and evaluates nothing: an upper bound of the time to the first step
_ONE_STEP = ("distill", "--method", "dm", "--dataset", "cifar10", "--ipc", "1", "--only", "--arch", "none", "--set",
             "iterations=1", "--workers", "1", "--quiet", "--protocol", "quick")  # fmt: skip


def main(request: Request, stop: Deadline, say: Say) -> dict[str, Any]:
    """Median seconds of each command in a process of its own; the caches are warm, as the first one is not counted."""
    root = ["--data-root", str(request.machine.data_root)] if request.machine.data_root else []
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="fyi-bench-") as folder:
        for name, words, goal in (
            ("--help", ["--help"], HELP_SECONDS),
            ("distill, one step", [*_ONE_STEP, *root], FIRST_STEP_SECONDS),
        ):
            try:
                found[name] = _entry(_times(words, request.rounds, Path(folder), stop), goal)
            except DataError as error:
                found[name] = {"goal": goal, "skipped": str(error)}
    record = {"task": "bench start-up", "commands": found}
    write_json(request.store / "bench" / RECORD, record)
    say("\n" + "\n".join(f"start-up {name}: {show(facts)}" for name, facts in found.items()))
    return record


def _entry(times: Sequence[tuple[float, float]], goal: float) -> dict[str, Any]:
    wall = [seconds for seconds, _ in times]
    return {"seconds": median(wall), "low": min(wall), "high": max(wall), "goal": goal, "met": median(wall) < goal,
            "cpu_seconds": median(cpu for _, cpu in times)}  # fmt: skip


def _times(words: Sequence[str], repeats: int, folder: Path, stop: Deadline) -> list[tuple[float, float]]:
    """Wall time and processor time of each run."""
    times = []
    for number in range(repeats + 1):
        stop.check()
        # a store of its own each time, or the second command would find the first one's result
        own = ["--store", str(folder / str(number))] if len(words) > 1 else []
        command = [sys.executable, "-m", "fyi_bench.cli", *words, *own]
        began, used = time.perf_counter(), _processor_seconds()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        times.append((time.perf_counter() - began, _processor_seconds() - used))
        if done.returncode:
            raise DataError((done.stderr.strip().splitlines() or ["the command failed"])[-1])
    return times[1:]


def _processor_seconds() -> float:
    """Of all ended children of this process."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def show(facts: Mapping[str, Any]) -> str:
    """One command's times in a line, or why there are none."""
    if "skipped" in facts:
        return f"skipped: {facts['skipped']}"
    return (
        f"{facts['seconds']:.2f} s ({facts['low']:.2f}-{facts['high']:.2f}), {facts['cpu_seconds']:.2f} s of processor"
        f" time, goal under {facts['goal']:g} s: {'met' if facts['met'] else 'missed'}"
    )

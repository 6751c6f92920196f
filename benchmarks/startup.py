"""How long a user waits before anything happens: `--help`, and the first step of `distill` on cached CIFAR-10."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.goals import FIRST_STEP_SECONDS, HELP_SECONDS
from fyi_bench.errors import DataError
from fyi_bench.files import write_json

if TYPE_CHECKING:
    from benchmarks.run import Request
    from fyi_bench.run.deadline import Deadline

RECORD = "start-up.json"


def main(request: Request, stop: Deadline, say: Callable[[str], None]) -> dict[str, Any]:
    """Median seconds of each command in a process of its own; the caches are warm, as the first one is not counted.

    The first step is counted as the whole command that makes one step and evaluates nothing: an upper bound.
    """
    root = ["--data-root", str(request.machine.data_root)] if request.machine.data_root else []
    found = {}
    with tempfile.TemporaryDirectory(prefix="fyi-bench-") as folder:
        one_step = ["distill", "--method", "dm", "--dataset", "cifar10", "--ipc", "1", "--only", "--arch", "none",
                    "--set", "iterations=1", "--workers", "1", "--quiet", "--protocol", "quick", *root]  # fmt: skip
        commands = {
            "--help": (["--help"], HELP_SECONDS),
            "distill, one step": (one_step, FIRST_STEP_SECONDS),
        }
        for name, (words, goal) in commands.items():
            try:
                found[name] = _entry(_times(words, request.rounds, Path(folder), stop), goal)
            except DataError as error:
                found[name] = {"goal": goal, "skipped": str(error)}
    record = {"task": "bench start-up", "commands": found}
    write_json(request.store / "bench" / RECORD, record)
    say("\n" + show_start_up(record))
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
        began, used = time.perf_counter(), _processor_seconds()
        done = subprocess.run(
            [sys.executable, "-m", "fyi_bench.cli", *words, *own], capture_output=True, text=True, check=False,
            env={**os.environ},
        )  # fmt: skip
        times.append((time.perf_counter() - began, _processor_seconds() - used))
        if done.returncode:
            raise DataError((done.stderr.strip().splitlines() or ["the command failed"])[-1])
    return times[1:]


def _processor_seconds() -> float:
    """Of all ended children of this process."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def show_start_up(record: dict[str, Any]) -> str:
    """A line for each command."""
    lines = []
    for name, facts in record["commands"].items():
        if "skipped" in facts:
            lines.append(f"start-up {name}: skipped: {facts['skipped']}")
            continue
        verdict = "met" if facts["met"] else "missed"
        spread = f"({facts['low']:.2f}-{facts['high']:.2f})"
        cpu = f"{facts['cpu_seconds']:.2f} s of processor time"
        lines.append(
            f"start-up {name}: {facts['seconds']:.2f} s {spread}, {cpu}, goal under {facts['goal']:g} s: {verdict}"
        )
    return "\n".join(lines)

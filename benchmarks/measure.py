"""The sides of a case take turns, each in its own process, so that a ratio compares what happened side by side."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.case import Case
from benchmarks.side import OURS, TWIN
from fyi_bench.errors import FyiBenchError

ROOT = Path(__file__).resolve().parent.parent  # of the checkout: this package is not installed
SAMPLE_SECONDS = 0.4  # a sample is of as many units as the fastest side does in about this time
MOST_UNITS = 200
TWIN_DEFAULT, TWIN_TUNED = "twin", "twin tuned"
# what a user may have set to tune glibc must not reach the side that shows its default
_ALLOCATOR_VARIABLES = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")

Round = dict[str, dict[str, Any]]  # by side: what it answered


class SideFailed(FyiBenchError):
    """A side's process ended before it was told to: out of memory, or an error of its own."""


@dataclass(frozen=True)
class Machine:
    """Where the sides run. data_root: folder of real data sets, or None."""

    device: str
    threads: int
    data_root: Path | None


def ours_in(precision: str, workers: int = 1) -> str:
    """Name of our side in this precision, shared by so many processes."""
    return f"{OURS} {precision}" + (f" x{workers}" if workers > 1 else "")


def side_specs(case: Case, machine: Machine, precisions: tuple[str, ...], twins: bool) -> dict[str, dict[str, Any]]:
    """What each side is told, by its name: ours in each precision and each way to share it, the twin by allocator."""
    common = {"case": case.describe(), "device": machine.device, "threads": machine.threads, "workers": 1,
              "data_root": str(machine.data_root.absolute()) if machine.data_root else None}  # fmt: skip
    specs = {
        ours_in(p, w): shared({**common, "side": OURS, "precision": p, "tuned": True}, w)
        for w in case.workers(machine.device, machine.threads)
        for p in precisions
    }
    if twins:
        specs[TWIN_DEFAULT] = {**common, "side": TWIN, "precision": "fp32", "tuned": False}
        if machine.device == "cpu":  # on a GPU memory is kept by torch, and glibc is not asked
            specs[TWIN_TUNED] = {**common, "side": TWIN, "precision": "fp32", "tuned": True}
    return specs


def shared(spec: Mapping[str, Any], workers: int) -> dict[str, Any]:
    """The side as so many processes, which share the threads as those of every command share the cores."""
    return {**spec, "workers": workers, "threads": max(1, spec["threads"] // workers)}


def rounds(
    specs: Mapping[str, dict[str, Any]], first: int, count: int, before_each: Callable[[], None] = lambda: None
) -> Iterator[Round]:
    """Rounds `first` to `count` - 1 of these sides: seconds a unit and peak memory of each.

    `before_each()`, called before all but the first of them, may raise to stop. One unit of each side goes before and
    is not counted. Which side begins changes from round to round.
    Raises SideFailed with the end of what the side printed.
    """
    with ExitStack() as stack:
        sides = {name: stack.enter_context(crew(spec)) for name, spec in specs.items()}
        warm = [side.order(1)["seconds"] for side in sides.values()]
        units = min(MOST_UNITS, max(1, math.ceil(SAMPLE_SECONDS / min(warm))))
        names = list(sides)
        for number in range(first, count):
            if number > first:  # at least one round a call, or a short budget would never get anywhere
                before_each()
            turn = number % len(names)
            found = {name: sides[name].order(units) for name in (*names[turn:], *names[:turn])}
            yield {name: found[name] for name in names}


class Process:
    """A running process of a side."""

    def __init__(self, spec: Mapping[str, Any]):
        self._name = f"{spec['case']['job']} {spec['side']}"
        environment = {k: v for k, v in os.environ.items() if not k.startswith(_ALLOCATOR_VARIABLES)}
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(spec["threads"]))
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._running: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.side", json.dumps(spec)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors, text=True, env=environment, start_new_session=True,
        )  # fmt: skip

    def send(self, units: int) -> None:
        """Tell it to do so many units; `answer` waits for the end."""
        try:
            print(units, file=self._running.stdin, flush=True)
        except BrokenPipeError:
            raise self._failed() from None

    def answer(self) -> dict[str, Any]:
        """What it says when it is done: seconds of one unit, peak memory in MiB."""
        assert self._running.stdout is not None
        line = self._running.stdout.readline()
        if not line:
            raise self._failed()
        return json.loads(line)

    def _failed(self) -> SideFailed:
        self._running.wait()
        self._errors.seek(0)
        last = self._errors.read().strip().splitlines()[-1:]
        why = last[0] if last else f"it was ended with code {self._running.returncode} (out of memory?)"
        return SideFailed(f"The side '{self._name}' failed: {why}\nThe other cases go on.")

    def close(self) -> None:
        """Kill it: it has nothing to save."""
        self._running.kill()
        self._running.communicate()
        self._errors.close()


class Crew:
    """The processes of a side, which do its units together."""

    def __init__(self, members: Sequence[Process]):
        self._members = members

    def order(self, units: int) -> dict[str, Any]:
        """Let them do so many units, equally many each; seconds of one by the last to end, memory of all in MiB."""
        for member in self._members:
            member.send(-(-units // len(self._members)))
        answers = [member.answer() for member in self._members]
        return {
            **answers[0],
            "seconds": max(a["seconds"] for a in answers) / len(answers),
            "cpu_seconds": sum(a["cpu_seconds"] for a in answers) / len(answers),
            **{key: sum(a[key] for a in answers) for key in ("peak_mib", "before_mib") if key in answers[0]},
        }


@contextmanager
def crew(spec: Mapping[str, Any]) -> Iterator[Crew]:
    """A side's processes, started now and ended with the block."""
    with ExitStack() as stack:
        yield Crew([stack.enter_context(closing(Process(spec))) for _ in range(spec["workers"])])

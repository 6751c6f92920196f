"""The jobs: which cases, in turns, until the table is whole or the budget is used up."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.case import CLASSES, PEAK, PRECISIONS, Case, cases
from benchmarks.goals import CPU, H200
from benchmarks.ledger import Ledger, key_of
from benchmarks.measure import Machine, SideFailed, rounds, side_specs
from benchmarks.report import best_of, line_of, markdown, peaks_of, row_of
from fyi_bench.errors import UnknownNameError, UsageError
from fyi_bench.files import write_json, write_text
from fyi_bench.run.deadline import Deadline
from fyi_bench.store.record import environment

QUICK_REPEATS, REPEATS = 3, 5
RECORD, TABLE = "bench.json", "bench.md"
DEVICES = ("cpu", "cuda")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What is asked for. only: jobs; datasets, ipcs: those of the table (empty: all); repeats: rounds of each case.

    quick: a few cases, fewer rounds. fresh: measure anew what is there.
    """

    machine: Machine
    store: Path
    only: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    ipcs: tuple[int, ...] = ()
    precisions: tuple[str, ...] = PRECISIONS
    repeats: int | None = None
    quick: bool = False
    fresh: bool = False

    @property
    def rounds(self) -> int:
        """Rounds of a case."""
        return self.repeats or (QUICK_REPEATS if self.quick else REPEATS)

    def chosen(self) -> list[Case]:
        """The cases; UnknownNameError for a job, data set or precision that is not there, UsageError for none left."""
        table = cases(self.machine.device)
        check_names("job", self.only, {c.job for c in table})
        check_names("data set", self.datasets, CLASSES)
        check_names("precision", self.precisions, PRECISIONS)
        found = [
            c
            for c in cases(self.machine.device, self.quick and not self.only)
            if (not self.only or c.job in self.only)
            and (not self.datasets or c.dataset in self.datasets)
            and (not self.ipcs or c.ipc in self.ipcs)
        ]
        if not found:
            ipcs = sorted({c.ipc for c in table if not self.only or c.job in self.only})
            raise UsageError(f"No case of the benchmark is asked for.\nImages a class of these jobs: {ipcs}.")
        return found

    def sides(self, case: Case) -> dict[str, dict[str, Any]]:
        """What each side of the case is told, by its name."""
        return side_specs(case, self.machine, self.precisions_of(case), twins=case.job != PEAK)

    def precisions_of(self, case: Case) -> tuple[str, ...]:
        """Those asked for that the job can differ in; fp32 where there is none."""
        return tuple(p for p in case.precisions if p in self.precisions) or PRECISIONS[:1]

    def key(self, case: Case) -> str:
        """Of the case's rounds in the ledger."""
        return key_of(case, self.machine, self.sides(case))


def check_names(kind: str, given: Sequence[str], known: Collection[str]) -> None:
    """Raise UnknownNameError for a name that is not known."""
    for name in given:
        if name not in known:
            raise UnknownNameError(f"{kind} of the benchmark", name, known)


def machine_of(device: str, threads: int | None, data_root: Path | None) -> Machine:
    """The machine as asked for; threads that were not named: all cores, or one beside a GPU, as commands have it."""
    check_names("device", [device], DEVICES)
    cores = (
        1
        if device == "cuda"
        else len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1
    )
    root = data_root or os.environ.get("FYI_BENCH_DATA") or None
    return Machine(device, threads or cores, Path(root) if root else None)


def reason_to_skip(machine: Machine) -> str | None:
    """Why nothing can be measured on this machine, or None."""
    if machine.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            return "there is no CUDA device here; leave out --device cuda to measure the CPU"
    return None


def main(request: Request, stop: Deadline, say: Say) -> dict[str, Any]:
    """Measure what is missing and return the record; it and its table are written into the store after every case."""
    ledger, chosen, failed = Ledger(request.store), request.chosen(), {}
    if request.fresh:
        ledger.void(map(request.key, (Case(PEAK), *chosen)))
    try:
        for case in (Case(PEAK), *chosen):
            try:
                _measure(case, request, ledger, stop)
            except SideFailed as error:
                failed[case.title] = str(error).splitlines()[0]
                say(f"{case.title}: {failed[case.title]}")
            for row in _written(chosen, request, ledger, failed)["rows"]:
                if (row["job"], row["dataset"], row["ipc"]) == (case.job, case.dataset, case.ipc):
                    say(line_of(row))
    finally:
        record = _written(chosen, request, ledger, failed)
    say("\n" + markdown(record))
    return record


def _measure(case: Case, request: Request, ledger: Ledger, stop: Deadline) -> None:
    key = request.key(case)
    done = len(ledger.rounds(key))
    if done < request.rounds:
        stop.check()
        for found in rounds(request.sides(case), done, request.rounds, before_each=stop.check):
            ledger.add(key, case, found)


def _written(chosen: Sequence[Case], request: Request, ledger: Ledger, failed: dict[str, str]) -> dict[str, Any]:
    machine = request.machine
    measured = {case.title: ledger.rounds(request.key(case)) for case in chosen}
    peaks = peaks_of(ledger.rounds(request.key(Case(PEAK))), request.precisions)
    rows = [
        row_of(case, machine, precision, measured[case.title], peaks, workers)
        for case in chosen
        if measured[case.title]
        for workers in case.workers(machine.device, machine.threads)
        for precision in request.precisions_of(case)
    ]
    here = environment(machine.device)
    record = {
        "task": "bench",
        "device": machine.device,
        "threads": machine.threads,
        "environment": {key: here[key] for key in ("device_name", "platform", "cores")},
        "versions": here["versions"],
        "source_digest": here["source_digest"],
        "peak_flops": peaks,
        "rows": rows,
        "goals": best_of(rows),
        "missing": [title for title, found in measured.items() if not found],
        "failed": failed,
        "goals_cpu": {job: vars(goal) for job, goal in CPU.items()},
        "goals_h200": [{"case": list(case), **vars(goal)} for case, goal in H200.items()],
    }
    write_json(ledger.folder / RECORD, record)
    write_text(ledger.folder / TABLE, markdown(record))
    return record

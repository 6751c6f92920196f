"""The command: which cases, in turns, until the table is whole or the budget is used up."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.case import DATASETS, PEAK, PRECISIONS, Case, cases
from benchmarks.goals import CPU, H200
from benchmarks.ledger import Ledger, key_of
from benchmarks.measure import Machine, SideFailed, rounds, side_specs
from benchmarks.rows import best_of, peaks_of, row_of
from benchmarks.show import line_of, markdown
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
        known = {"job": sorted({c.job for c in table}), "data set": DATASETS, "precision": PRECISIONS}
        for kind, given in (("job", self.only), ("data set", self.datasets), ("precision", self.precisions)):
            for name in given:
                if name not in known[kind]:
                    raise UnknownNameError(f"{kind} of the benchmark", name, known[kind])
        asked = cases(self.machine.device, self.quick and not self.only)
        found = [
            c
            for c in asked
            if (not self.only or c.job in self.only)
            and (not self.datasets or c.dataset in self.datasets)
            and (not self.ipcs or c.ipc in self.ipcs)
        ]
        if not found:
            ipcs = sorted({c.ipc for c in table if not self.only or c.job in self.only})
            raise UsageError(f"No case of the benchmark is asked for.\nImages a class of these jobs: {ipcs}.")
        return found


def machine_of(device: str, threads: int | None, data_root: Path | None) -> Machine:
    """The machine as asked for; all cores where no number of threads was named."""
    if device not in DEVICES:
        raise UnknownNameError("device of the benchmark", device, DEVICES)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
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
    ledger = Ledger(request.store)
    peak = Case(PEAK)
    plan = [(peak, _specs(peak, request)), *((case, _specs(case, request)) for case in request.chosen())]
    if request.fresh:
        ledger.void(key_of(case, request.machine, specs) for case, specs in plan)
    failed: dict[str, str] = {}
    try:
        for case, specs in plan:
            key = key_of(case, request.machine, specs)
            try:
                _measure(case, specs, key, request, ledger, stop)
            except SideFailed as error:
                failed[case.title] = str(error).splitlines()[0]
                say(f"{case.title}: {failed[case.title]}")
            record = _written(plan, request, ledger, failed)
            for row in record["rows"]:
                if row["job"] == case.job and row["dataset"] == case.dataset and row["ipc"] == case.ipc:
                    say(line_of(row))
    finally:
        record = _written(plan, request, ledger, failed)
    say("\n" + markdown(record))
    return record


def _specs(case: Case, request: Request) -> dict[str, dict[str, Any]]:
    return side_specs(case, request.machine, _precisions(case, request), twins=case.job != PEAK)


def _precisions(case: Case, request: Request) -> tuple[str, ...]:
    """Those asked for that the job can differ in; fp32 where there is none."""
    return tuple(p for p in case.precisions if p in request.precisions) or PRECISIONS[:1]


def _measure(case: Case, specs: dict[str, Any], key: str, request: Request, ledger: Ledger, stop: Deadline) -> None:
    done = len(ledger.rounds(key))
    if done >= request.rounds:
        return
    stop.check()
    for found in rounds(specs, done, request.rounds, before_each=stop.check):
        ledger.add(key, case, found)


def _written(
    plan: Sequence[tuple[Case, dict[str, Any]]], request: Request, ledger: Ledger, failed: dict[str, str]
) -> dict[str, Any]:
    machine = request.machine
    (peak, peak_specs), *measured = plan
    peaks = peaks_of(ledger.rounds(key_of(peak, machine, peak_specs)), request.precisions)
    rows = []
    for case, specs in measured:
        found = ledger.rounds(key_of(case, machine, specs))
        if found:
            rows += [
                row_of(case, machine, precision, found, peaks, workers)
                for workers in case.workers(machine.device, machine.threads)
                for precision in _precisions(case, request)
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
        "missing": [case.title for case, specs in measured if not ledger.rounds(key_of(case, machine, specs))],
        "failed": failed,
        "goals_cpu": {job: vars(goal) for job, goal in CPU.items()},
        "goals_h200": [{"case": list(case), **vars(goal)} for case, goal in H200.items()],
    }
    write_json(ledger.folder / RECORD, record)
    write_text(ledger.folder / TABLE, markdown(record))
    return record

"""How cost and memory of an iteration grow: with images a class, classes, image size, network, student steps, workers.

One thing is changed at a time, from a case small enough that the whole takes minutes; our side only, fp32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from benchmarks.case import Case
from benchmarks.ledger import Ledger, key_of
from benchmarks.measure import Machine, Round, crew, ours_in, shared, side_specs
from benchmarks.report import work_mib
from benchmarks.run import Request, Say, check_names
from fyi_bench.files import write_json
from fyi_bench.run.deadline import Deadline

RECORD, ROUNDS = "growth.json", 3
BASE = Case("", "cifar100", ipc=10, classes=5, model="convnet3-w64",
            changes={"outer_loop": 1, "batch_real": 64, "syn_steps": 2})  # fmt: skip
METHODS = ("dm", "dsa", "mtt")
WORKERS = "workers"
_OURS = ours_in("fp32")


@dataclass(frozen=True)
class Axis:
    """One thing that grows. vary(case, value): the case at this value; jobs: whose growth is looked at."""

    name: str
    values: tuple[int, ...]
    vary: Callable[[Case, int], Case]
    jobs: tuple[str, ...] = METHODS


def _steps(case: Case, count: int) -> Case:
    return replace(case, changes={**case.changes, "syn_steps": count})


AXES = (
    Axis("images per class", (1, 10, 50), lambda case, n: replace(case, ipc=n)),
    Axis("classes", (2, 5, 10, 20), lambda case, n: replace(case, classes=n)),
    Axis("image side", (16, 32, 64), lambda case, n: replace(case, size=n)),
    Axis("network width", (32, 64, 128), lambda case, n: replace(case, model=f"convnet3-w{n}")),
    Axis("student steps", (1, 2, 4, 8), _steps, ("mtt", "mtt-unroll")),
    Axis(WORKERS, (1, 2), lambda case, n: case),
)


@dataclass(frozen=True)
class Point:
    """A case at one value of one axis, done by so many processes at once."""

    axis: str
    job: str
    value: int
    case: Case
    workers: int

    def key(self, machine: Machine) -> str:
        """Of the point's rounds in the ledger."""
        return key_of(self.case, machine, [_OURS], workers=self.workers)


def points(only: Sequence[str] = ()) -> list[Point]:
    """What is measured, axis by axis; UnknownNameError for a job whose growth is not looked at."""
    check_names("growing job", only, {job for axis in AXES for job in axis.jobs})
    return [
        Point(axis.name, job, value, axis.vary(replace(BASE, job=job), value), value if axis.name == WORKERS else 1)
        for axis in AXES
        for job in axis.jobs
        if not only or job in only
        for value in axis.values
    ]


def main(request: Request, stop: Deadline, say: Say) -> dict[str, Any]:
    """Measure what is missing; the record, a table and a plot are in the store. Each point is several rounds."""
    ledger, machine, count = Ledger(request.store), request.machine, request.repeats or ROUNDS
    wanted = points(request.only)
    if request.fresh:
        ledger.void(point.key(machine) for point in wanted)
    try:
        for point in wanted:
            key = point.key(machine)
            missing = count - len(ledger.rounds(key))
            if missing > 0:
                stop.check()
                for found in _rounds(point, machine, missing, stop):
                    ledger.add(key, point.case, found)
                say(f"growth: {point.axis} {point.value}, {point.job}")
    finally:
        record = _record(wanted, ledger, machine)
        write_json(ledger.folder / RECORD, record)
    if record["points"]:
        from benchmarks.growth_plot import growth_drawing

        record["plot"] = [str(path) for path in growth_drawing(record).write(ledger.folder)]
        write_json(ledger.folder / RECORD, record)
    say("\n" + table(record))
    return record


def _rounds(point: Point, machine: Machine, count: int, stop: Deadline) -> Iterator[Round]:
    """Rounds of this many processes at once: seconds of wall time a unit of any of them, memory of all."""
    spec = side_specs(point.case, machine, ("fp32",), twins=False)[_OURS]
    with crew(shared(spec, point.workers)) as side:
        side.order(point.workers)
        for number in range(count):
            if number:
                stop.check()
            yield {_OURS: side.order(point.workers)}


def _record(wanted: Sequence[Point], ledger: Ledger, machine: Machine) -> dict[str, Any]:
    found = []
    for point in wanted:
        sides = [r[_OURS] for r in ledger.rounds(point.key(machine))]
        if sides:
            found.append(
                {"axis": point.axis, "job": point.job, "value": point.value, "data": sides[0]["data"],
                 "seconds": median(s["seconds"] for s in sides), "work_mib": work_mib(sides),
                 "peak_mib": max(s["peak_mib"] for s in sides)}
            )  # fmt: skip
    return {"task": "bench growth", "device": machine.device, "threads": machine.threads, "base": BASE.describe(),
            "points": found, "powers": powers(found), "missing": len(wanted) - len(found)}  # fmt: skip


def _lines(found: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """The points of each axis and job, in their order."""
    lines: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for point in found:
        lines.setdefault((point["axis"], point["job"]), []).append(point)
    return lines


def powers(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each axis and job p and q of time ~ value^p and memory ~ value^q, over the upper half of the values."""

    def power(low: Mapping[str, Any], high: Mapping[str, Any], key: str) -> float | None:
        if not low[key] or not high[key]:
            return None
        return math.log(high[key] / low[key]) / math.log(high["value"] / low["value"])

    return [
        {"axis": axis, "job": job, **{key: power(line[-2], line[-1], key) for key in ("seconds", "work_mib")}}
        for (axis, job), line in _lines(found).items()
        if len(line) > 1
    ]


def table(record: Mapping[str, Any]) -> str:
    """A markdown table: seconds an iteration and MiB beyond the start, at each value."""
    rows = ["| grows | job | value: seconds (MiB of the work) | time ~ | memory ~ |", "|---|---|---|---|---|"]
    slopes = {(p["axis"], p["job"]): p for p in record["powers"]}
    for (axis, job), line in _lines(record["points"]).items():
        memory = ("" if p["work_mib"] is None else f" ({p['work_mib']:.0f})" for p in line)
        values = ", ".join(f"{p['value']}: {p['seconds']:.3g}{mib}" for p, mib in zip(line, memory, strict=True))
        found = (slopes.get((axis, job), {}).get(key) for key in ("seconds", "work_mib"))
        grown = " | ".join("" if power is None else f"x^{power:.1f}" for power in found)
        rows.append(f"| {axis} | {job} | {values} | {grown} |")
    return "\n".join([*rows, *(f"plot {path}" for path in record.get("plot", []))])

"""How cost and memory of an iteration grow: with images a class, classes, image size, network, student steps, workers.

One thing is changed at a time, from a case small enough that the whole takes minutes; our side only, fp32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.case import Case
from benchmarks.ledger import Ledger, key_of
from benchmarks.measure import Round, crew, ours_in, shared, side_specs
from benchmarks.rows import work_mib
from fyi_bench.errors import UnknownNameError
from fyi_bench.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.measure import Machine
    from benchmarks.run import Request
    from fyi_bench.run.deadline import Deadline

RECORD, ROUNDS = "growth.json", 3
_SMALL = {"outer_loop": 1, "batch_real": 64, "syn_steps": 2}
BASE = Case("", "cifar100", ipc=10, classes=5, model="convnet3-w64", changes=_SMALL)
METHODS = ("dm", "dsa", "mtt")
STEPS = "student steps"
WORKERS = "workers"


@dataclass(frozen=True)
class Axis:
    """One thing that grows. vary(case, value): the case at this value; jobs: whose growth is looked at."""

    name: str
    values: tuple[int, ...]
    vary: Callable[[Case, int], Case]
    jobs: tuple[str, ...] = METHODS


AXES = (
    Axis("images per class", (1, 10, 50), lambda case, n: replace(case, ipc=n)),
    Axis("classes", (2, 5, 10, 20), lambda case, n: replace(case, classes=n)),
    Axis("image side", (16, 32, 64), lambda case, n: replace(case, size=n)),
    Axis("network width", (32, 64, 128), lambda case, n: replace(case, model=f"convnet3-w{n}")),
    Axis(
        STEPS,
        (1, 2, 4, 8),
        lambda case, n: replace(case, changes={**case.changes, "syn_steps": n}),
        ("mtt", "mtt-unroll"),
    ),
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


def points(only: Sequence[str] = ()) -> list[Point]:
    """What is measured, axis by axis; UnknownNameError for a job whose growth is not looked at."""
    known = sorted({job for axis in AXES for job in axis.jobs})
    for name in only:
        if name not in known:
            raise UnknownNameError("job of the growth measurement", name, known)
    return [
        Point(axis.name, job, value, axis.vary(replace(BASE, job=job), value), value if axis.name == WORKERS else 1)
        for axis in AXES
        for job in axis.jobs
        if not only or job in only
        for value in axis.values
    ]


def main(request: Request, stop: Deadline, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure what is missing; the record, a table and a plot are in the store. Each point is several rounds."""
    ledger, machine, count = Ledger(request.store), request.machine, request.repeats or ROUNDS
    wanted = points(request.only)
    if request.fresh:
        ledger.void(_key(point, machine) for point in wanted)
    try:
        for point in wanted:
            key = _key(point, machine)
            done = len(ledger.rounds(key))
            if done < count:
                stop.check()
                for found in _rounds(point, machine, count - done, stop):
                    ledger.add(key, point.case, found)
                say(f"growth: {point.axis} {point.value}, {point.job}")
    finally:
        record = _record(wanted, ledger, machine)
        write_json(ledger.folder / RECORD, record)
    if record["points"]:
        from benchmarks.growth_plot import growth_figure

        record["plot"] = [str(path) for path in growth_figure(record, ledger.folder)]
        write_json(ledger.folder / RECORD, record)
    say("\n" + show_growth(record))
    return record


def _key(point: Point, machine: Machine) -> str:
    return key_of(point.case, machine, [ours_in("fp32")], workers=point.workers)


def _rounds(point: Point, machine: Machine, count: int, stop: Deadline) -> Iterator[Round]:
    """Rounds of this many processes at once: seconds of wall time a unit of any of them, memory of all."""
    name = ours_in("fp32")
    spec = side_specs(point.case, machine, ("fp32",), twins=False)[name]
    with crew(shared(spec, point.workers)) as side:
        side.order(point.workers)
        for number in range(count):
            if number:
                stop.check()
            yield {name: side.order(point.workers)}


def _record(wanted: Sequence[Point], ledger: Ledger, machine: Machine) -> dict[str, Any]:
    found = []
    for point in wanted:
        sides = [r[ours_in("fp32")] for r in ledger.rounds(_key(point, machine))]
        if sides:
            found.append(
                {"axis": point.axis, "job": point.job, "value": point.value, "data": sides[0]["data"],
                 "seconds": median(s["seconds"] for s in sides), "work_mib": work_mib(sides),
                 "peak_mib": max(s["peak_mib"] for s in sides)}
            )  # fmt: skip
    return {"task": "bench growth", "device": machine.device, "threads": machine.threads, "base": BASE.describe(),
            "points": found, "powers": powers(found), "missing": len(wanted) - len(found)}  # fmt: skip


def powers(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each axis and job p and q of time ~ value^p and memory ~ value^q, over the upper half of the values."""
    result = []
    for axis, job in dict.fromkeys((p["axis"], p["job"]) for p in found):
        line = [p for p in found if (p["axis"], p["job"]) == (axis, job)]
        if len(line) > 1:
            low, high = line[-2], line[-1]
            result.append({"axis": axis, "job": job, **{k: _power(low, high, k) for k in ("seconds", "work_mib")}})
    return result


def _power(low: Mapping[str, Any], high: Mapping[str, Any], key: str) -> float | None:
    if not low[key] or not high[key]:
        return None
    return math.log(high[key] / low[key]) / math.log(high["value"] / low["value"])


def show_growth(record: dict[str, Any]) -> str:
    """A markdown table: seconds an iteration and MiB beyond the start, at each value."""
    lines = ["| grows | job | value: seconds (MiB of the work) | time ~ | memory ~ |", "|---|---|---|---|---|"]
    slopes = {(p["axis"], p["job"]): p for p in record["powers"]}
    for axis, job in dict.fromkeys((p["axis"], p["job"]) for p in record["points"]):
        line = [p for p in record["points"] if (p["axis"], p["job"]) == (axis, job)]
        values = ", ".join(f"{p['value']}: {p['seconds']:.3g}{_mib(p['work_mib'])}" for p in line)
        slope = slopes.get((axis, job), {})
        grown = " | ".join(_exponent(slope.get(key)) for key in ("seconds", "work_mib"))
        lines.append(f"| {axis} | {job} | {values} | {grown} |")
    lines += [f"plot {path}" for path in record.get("plot", [])]
    return "\n".join(lines)


def _mib(value: float | None) -> str:
    return "" if value is None else f" ({value:.0f})"


def _exponent(value: float | None) -> str:
    return "" if value is None else f"x^{value:.1f}"

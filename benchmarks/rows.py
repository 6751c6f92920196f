"""From rounds to what is reported: medians, ratios with their spread, memory, share of the machine's peak, goals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.case import Case
from benchmarks.goals import CPU, H200, Ratio
from benchmarks.measure import TWIN_DEFAULT, TWIN_TUNED, Machine, Round, ours_in

AGAINST = {"default": TWIN_DEFAULT, "tuned": TWIN_TUNED}


def row_of(
    case: Case, machine: Machine, precision: str, rounds: Sequence[Round], peaks: Mapping[str, float], workers: int = 1
) -> dict[str, Any]:
    """One line of the table: our side in one precision, shared by so many, against the twins of the same rounds."""
    ours = [r[ours_in(precision, workers)] for r in rounds]
    flops = ours[0]["flops"]
    seconds = median(side["seconds"] for side in ours)
    row: dict[str, Any] = {
        **case.describe(),
        "precision": precision,
        "workers": workers,
        "unit": ours[0]["unit"],
        "data": ours[0]["data"],
        "rounds": len(rounds),
        "seconds": seconds,
        "peak_mib": max(side["peak_mib"] for side in ours),
        "work_mib": work_mib(ours),
        "flops": flops,
        "share_of_peak": share(flops, seconds, peaks.get(precision)),
        "got_cpu": got_cpu(rounds, machine.threads),
        "against": {},
    }
    goal = CPU.get(case.job) if machine.device == "cpu" else None
    for name, twin in AGAINST.items():
        if twin in rounds[0]:
            theirs = [r[twin] for r in rounds]
            row["against"][name] = compared(ours, theirs, getattr(goal, name) if goal else None)
            row["against"][name]["share_of_peak"] = share(flops, row["against"][name]["seconds"], peaks.get("fp32"))
    whole = H200.get((case.job, case.dataset, case.ipc)) if machine.device == "cuda" else None
    if whole is not None:
        took = seconds * whole.units
        row["whole_run"] = {"units": whole.units, "seconds": took, "goal_s": whole.goal_s, "floor_s": whole.floor_s,
                            "met": took <= whole.goal_s}  # fmt: skip
    return row


def compared(ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]], goal: float | None) -> dict:
    """Seconds and memory of a twin, and how many times as fast ours was: median, least and greatest of the rounds."""
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True)]
    ratio = median(ratios)
    return {
        "seconds": median(side["seconds"] for side in theirs),
        "peak_mib": max(side["peak_mib"] for side in theirs),
        "work_mib": work_mib(theirs),
        "ratio": ratio,
        "cpu_ratio": median(b["cpu_seconds"] / a["cpu_seconds"] for a, b in zip(ours, theirs, strict=True)),
        "low": min(ratios),
        "high": max(ratios),
        "goal": goal,
        "met": None if goal is None else ratio >= goal,
    }


def got_cpu(rounds: Sequence[Round], threads: int) -> float:
    """Share of the time of their threads that the sides were given: below 1 where others use the machine."""
    return min(side["cpu_seconds"] / side["seconds"] for r in rounds for side in r.values()) / threads


def work_mib(rounds: Sequence[Mapping[str, float]]) -> float | None:
    """Memory beyond what the process held before its first unit (libraries, data); None on a GPU."""
    grown = [side["peak_mib"] - side["before_mib"] for side in rounds if "before_mib" in side]
    return round(max(grown), 1) if grown else None


def share(flops: float, seconds: float, peak: float | None) -> float | None:
    """Arithmetic a second over the measured peak in FLOP/s; None where that is not known."""
    return None if not peak else flops / seconds / peak


def peaks_of(rounds: Sequence[Round], precisions: Sequence[str]) -> dict[str, float]:
    """FLOP/s of the fastest round of the job `peak`, by precision."""
    sides = {p: [r[ours_in(p)] for r in rounds] for p in precisions}
    return {p: max(side["flops"] / side["seconds"] for side in found) for p, found in sides.items() if found}


def best_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """For every job with a goal: the cases it was met in and missed in, in the best of its rows, by allocator."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        goal: Ratio | None = CPU.get(row["job"])
        for name, facts in row["against"].items():
            if goal is None or facts["goal"] is None:
                continue
            entry = found.setdefault(row["job"], {"goal": {"default": goal.default, "tuned": goal.tuned}, "cases": {}})
            place = entry["cases"].setdefault(f"{row['dataset']} ipc {row['ipc']}", {})
            if facts["ratio"] >= place.get(name, {"ratio": 0})["ratio"]:
                place[name] = {
                    "ratio": facts["ratio"],
                    "met": facts["met"],
                    **{k: row[k] for k in ("precision", "workers")},
                }
    return found

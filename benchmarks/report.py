"""From rounds to what is reported: rows of medians and ratios, goals, and the table for terminals and as markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.case import Case
from benchmarks.goals import CPU, H200
from benchmarks.measure import TWIN_DEFAULT, TWIN_TUNED, Machine, Round, ours_in

AGAINST = {"default": TWIN_DEFAULT, "tuned": TWIN_TUNED}
_ALONE = 0.9  # share of a thread's time below which a side was not alone
_VERDICT = {None: "", True: "met", False: "missed"}
_HEAD = (
    "job", "data", "ipc", "classes", "precision", "workers", "unit", "time", "x default", "x tuned", "memory MiB",
    "twin's", "% of peak", "twin's %",
)  # fmt: skip


def row_of(
    case: Case, machine: Machine, precision: str, rounds: Sequence[Round], peaks: Mapping[str, float], workers: int = 1
) -> dict[str, Any]:
    """One line of the table: our side in one precision, shared by so many, against the twins of the same rounds.

    peaks: FLOP/s of the machine by precision.
    """
    ours = [r[ours_in(precision, workers)] for r in rounds]
    flops, cpu = ours[0]["flops"], machine.device == "cpu"
    row: dict[str, Any] = {
        **case.describe(),
        "precision": precision,
        "workers": workers,
        "unit": ours[0]["unit"],
        "data": ours[0]["data"],
        "rounds": len(rounds),
        **_cost(ours, flops, peaks.get(precision)),
        "flops": flops,
        # of the time of their threads: below 1 where others use the machine
        "got_cpu": min(s["cpu_seconds"] / s["seconds"] for r in rounds for s in r.values()) / machine.threads,
        "against": {},
    }
    goal = CPU.get(case.job) if cpu else None
    for name, twin in AGAINST.items():
        if twin in rounds[0]:
            theirs = [r[twin] for r in rounds]
            row["against"][name] = {
                **_cost(theirs, flops, peaks.get("fp32")),
                **_compared(ours, theirs, getattr(goal, name) if goal else None),
            }
    whole = None if cpu else H200.get((case.job, case.dataset, case.ipc))
    if whole is not None:
        took = row["seconds"] * whole.units
        row["whole_run"] = {"units": whole.units, "seconds": took, "goal_s": whole.goal_s, "floor_s": whole.floor_s,
                            "met": took <= whole.goal_s}  # fmt: skip
    return row


def _cost(sides: Sequence[Mapping[str, float]], flops: float, peak: float | None) -> dict[str, Any]:
    """Median time of a unit, memory, and the arithmetic a second over the machine's peak."""
    seconds = median(side["seconds"] for side in sides)
    return {
        "seconds": seconds,
        "peak_mib": max(side["peak_mib"] for side in sides),
        "work_mib": work_mib(sides),
        "share_of_peak": flops / seconds / peak if peak else None,
    }


def _compared(ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]], goal: float | None) -> dict:
    """How many times as fast ours was: median, least and greatest of the rounds."""
    wall, cpu = ([b[k] / a[k] for a, b in zip(ours, theirs, strict=True)] for k in ("seconds", "cpu_seconds"))
    ratio = median(wall)
    return {"ratio": ratio, "cpu_ratio": median(cpu), "low": min(wall), "high": max(wall), "goal": goal,
            "met": None if goal is None else ratio >= goal}  # fmt: skip


def work_mib(sides: Sequence[Mapping[str, float]]) -> float | None:
    """Memory beyond what the process held before its first unit (libraries, data); None on a GPU."""
    grown = [side["peak_mib"] - side["before_mib"] for side in sides if "before_mib" in side]
    return round(max(grown), 1) if grown else None


def peaks_of(rounds: Sequence[Round], precisions: Iterable[str]) -> dict[str, float]:
    """FLOP/s of the fastest round of the job `peak`, by precision."""
    return {p: max(r[ours_in(p)]["flops"] / r[ours_in(p)]["seconds"] for r in rounds) for p in precisions if rounds}


def best_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """For every job with a goal: the cases it was met in and missed in, in the best of its rows, by allocator."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        for name, facts in row["against"].items():
            if facts["goal"] is None:
                continue
            entry = found.setdefault(row["job"], {"goal": dict(vars(CPU[row["job"]])), "cases": {}})
            best = entry["cases"].setdefault(f"{row['dataset']} ipc {row['ipc']}", {})
            if facts["ratio"] >= best.get(name, {"ratio": 0})["ratio"]:
                best[name] = {key: {**row, **facts}[key] for key in ("ratio", "met", "precision", "workers")}
    return found


def markdown(record: Mapping[str, Any]) -> str:
    """The whole answer: what was measured on, the table, the goals, what is missing or failed."""
    here = record["environment"]
    peaks = ", ".join(f"{p} {value / 1e9:.0f}" for p, value in record["peak_flops"].items())
    parts = [
        f"{here['device_name']}, {record['device']}, {record['threads']} thread(s),"
        f" torch {record['versions']['torch']}; convolution peak {peaks} GFLOP/s; source {record['source_digest']}",
        "",
        "Times are medians of interleaved rounds; x = twin's time over ours, median (least to greatest round), goal.",
        "",
        _table([_HEAD, *map(_entries, record["rows"])]),
        "",
        *_goals(record),
        *_interfered(record),
        *(f"not measured yet: {name}" for name in record["missing"]),
        *(f"failed: {name}: {why}" for name, why in record["failed"].items()),
    ]
    return "\n".join(parts).rstrip() + "\n"


def line_of(row: Mapping[str, Any]) -> str:
    """One measured row in a line, while the others are still missing."""
    ratios = ", ".join(f"{_ratio(facts)} against {name}" for name, facts in row["against"].items())
    return f"{_title(row)}: {_duration(row['seconds'])} per {row['unit']}, {ratios}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """A markdown table with columns of equal width, the first row as its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([text[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *text[1:]])


def _goals(record: Mapping[str, Any]) -> list[str]:
    """For each job with a goal whether it was met, in every case measured; whole runs on a GPU."""
    lines = []
    for job, entry in record["goals"].items():
        for case, ways in entry["cases"].items():
            reached = " / ".join(f"{facts['ratio']:.2f} ({_way(facts)})" for facts in ways.values())
            met = all(facts["met"] for facts in ways.values())
            wanted = f"{entry['goal']['default']:g} / {entry['goal']['tuned']:g}"
            lines.append(f"goal {job}, {case}: {wanted} (default / tuned), reached {reached}: {_VERDICT[met]}")
    for row in record["rows"]:
        if whole := row.get("whole_run"):
            lines.append(
                f"goal {_title(row)}: {whole['units']} units in {whole['goal_s']:g} s (floor {whole['floor_s']:g} s),"
                f" at this pace {whole['seconds']:.0f} s: {_VERDICT[whole['met']]}"
            )
    return [*lines, ""] if lines else []


def _interfered(record: Mapping[str, Any]) -> list[str]:
    """Rows of one thread whose sides had to wait for other processes, with the ratios of processor time instead."""
    if record["device"] != "cpu" or record["threads"] > 1:
        return []
    return [
        f"others used the machine: {_title(row)} got {100 * row['got_cpu']:.0f} % of its thread; x by processor time: "
        + ", ".join(f"{facts['cpu_ratio']:.2f} {name}" for name, facts in row["against"].items())
        for row in record["rows"]
        if row["got_cpu"] < _ALONE
    ]


def _title(row: Mapping[str, Any]) -> str:
    return f"{row['job']} {row['dataset']} ipc {row['ipc']} {_way(row)}"


def _way(facts: Mapping[str, Any]) -> str:
    """bf16, or bf16, 2 workers."""
    return facts["precision"] + (f", {facts['workers']} workers" if facts["workers"] > 1 else "")


def _ratio(facts: Mapping[str, Any] | None) -> str:
    """2.53 (2.40-2.61), goal 2.5 met."""
    if not facts:
        return ""
    goal = "" if facts["goal"] is None else f", goal {facts['goal']:g} {_VERDICT[facts['met']]}"
    return f"{facts['ratio']:.2f} ({facts['low']:.2f}-{facts['high']:.2f}){goal}"


def _duration(seconds: float) -> str:
    """Three digits, in s or ms."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _entries(row: Mapping[str, Any]) -> tuple[str, ...]:
    against = row["against"]
    twin = against.get("default", {})
    what = (str(row[key]) for key in ("job", "data", "ipc", "classes", "precision", "workers", "unit"))
    memory = (_mib(facts) for facts in (row, twin))
    shares = (_percent(facts.get("share_of_peak")) for facts in (row, twin))
    return *what, _duration(row["seconds"]), *(_ratio(against.get(name)) for name in AGAINST), *memory, *shares


def _mib(facts: Mapping[str, Any]) -> str:
    """Peak of the process, and how much of it came with the work."""
    if not facts:
        return ""
    work = facts.get("work_mib")
    return f"{facts['peak_mib']:.0f}" + ("" if work is None else f" (+{work:.0f})")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f}"

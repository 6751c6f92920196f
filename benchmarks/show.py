"""The table of a benchmark, for terminals and as markdown (it is the same)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HEAD = (
    "job", "data", "ipc", "classes", "precision", "workers", "unit", "time", "x default", "x tuned", "memory MiB",
    "twin's", "% of peak", "twin's %",
)  # fmt: skip
_ALONE = 0.9  # share of a thread's time below which a side was not alone
_VERDICT = {None: "", True: "met", False: "missed"}


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
        table(record["rows"]),
        *goals(record),
        *(interfered(record["rows"], record["threads"]) if record["device"] == "cpu" else []),
    ]
    parts += [f"not measured yet: {name}" for name in record["missing"]]
    parts += [f"failed: {name}: {why}" for name, why in record["failed"].items()]
    return "\n".join(parts).rstrip() + "\n"


def table(rows: list[Mapping[str, Any]]) -> str:
    """A markdown table with columns of equal width."""
    cells = [_HEAD, *(tuple(_cells(row)) for row in rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(_HEAD))]
    text = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([text[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *text[1:]])


def line_of(row: Mapping[str, Any]) -> str:
    """One measured row in a line, while the others are still missing."""
    ratios = ", ".join(f"{ratio_text(facts)} against {name}" for name, facts in row["against"].items())
    return (
        f"{row['job']} {row['dataset']} ipc {row['ipc']} {in_words(row)}: {duration(row['seconds'])} per"
        f" {row['unit']}, {ratios}"
    )


def goals(record: Mapping[str, Any]) -> list[str]:
    """For each job with a goal whether it was met, in every case measured; whole runs on a GPU."""
    lines = []
    for job, entry in record["goals"].items():
        for case, places in entry["cases"].items():
            reached = " / ".join(f"{facts['ratio']:.2f} ({in_words(facts)})" for facts in places.values())
            met = all(facts["met"] for facts in places.values())
            wanted = f"{entry['goal']['default']:g} / {entry['goal']['tuned']:g}"
            lines.append(f"goal {job}, {case}: {wanted} (default / tuned), reached {reached}: {_VERDICT[met]}")
    for row in record["rows"]:
        if "whole_run" in row:
            whole = row["whole_run"]
            lines.append(
                f"goal {row['job']} {row['dataset']} ipc {row['ipc']} {row['precision']}: {whole['units']} units in"
                f" {whole['goal_s']:g} s (floor {whole['floor_s']:g} s), at this pace {whole['seconds']:.0f} s:"
                f" {_VERDICT[whole['met']]}"
            )
    return ["", *lines, ""] if lines else [""]


def interfered(rows: list[Mapping[str, Any]], threads: int) -> list[str]:
    """Rows of one thread whose sides had to wait for other processes, with the ratios of processor time instead."""
    if threads > 1:
        return []
    return [
        f"others used the machine: {row['job']} {row['dataset']} ipc {row['ipc']} {in_words(row)} got"
        f" {100 * row['got_cpu']:.0f} % of its thread; x by processor time: "
        + ", ".join(f"{facts['cpu_ratio']:.2f} {name}" for name, facts in row["against"].items())
        for row in rows
        if row["got_cpu"] < _ALONE
    ]


def in_words(facts: Mapping[str, Any]) -> str:
    """bf16, or bf16, 2 workers."""
    return facts["precision"] + (f", {facts['workers']} workers" if facts["workers"] > 1 else "")


def ratio_text(facts: Mapping[str, Any]) -> str:
    """2.53 (2.40-2.61), goal 2.5 met."""
    goal = "" if facts["goal"] is None else f", goal {facts['goal']:g} {_VERDICT[facts['met']]}"
    return f"{facts['ratio']:.2f} ({facts['low']:.2f}-{facts['high']:.2f}){goal}"


def duration(seconds: float) -> str:
    """Three digits, in s or ms."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _cells(row: Mapping[str, Any]) -> list[str]:
    against = row["against"]
    twin = against.get("default", {})
    return [
        row["job"],
        row["data"],
        str(row["ipc"]),
        str(row["classes"]),
        row["precision"],
        str(row["workers"]),
        row["unit"],
        duration(row["seconds"]),
        *(ratio_text(against[name]) if name in against else "" for name in ("default", "tuned")),
        _mib(row),
        _mib(twin) if twin else "",
        _percent(row["share_of_peak"]),
        _percent(twin.get("share_of_peak")),
    ]


def _mib(facts: Mapping[str, Any]) -> str:
    """Peak of the process, and how much of it came with the work."""
    work = facts.get("work_mib")
    return f"{facts['peak_mib']:.0f}" + ("" if work is None else f" (+{work:.0f})")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f}"

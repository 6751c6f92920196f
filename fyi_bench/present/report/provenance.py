"""Where a number comes from: everything a record and its sets know about how they were made, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fyi_bench.present.words import arm_title, bytes_words, protocol_words, seconds_words, short


@dataclass(frozen=True)
class Facts:
    """A named group of (what, value) pairs."""

    title: str
    rows: Sequence[tuple[str, str]]


def record_facts(record: Mapping[str, Any]) -> list[Facts]:
    """Protocol, machine, versions and digests of a record, then the facts of each arm."""
    groups = [Facts("this run", _present(_run(record))), Facts("machine", _present(_machine(record)))]
    groups.append(Facts("versions", [(name, str(v)) for name, v in record["versions"].items()]))
    groups += [Facts(f"arm {arm_title(arm)}", _present(_arm(arm))) for arm in record["arms"]]
    return [group for group in groups if group.rows]


def set_facts(title: str, provenance: Mapping[str, Any]) -> Facts:
    """The recipe and seed that a set's own file tells."""
    rows = [("seed", provenance.get("seed")), ("real data", provenance.get("data_digest"))]
    rows += list(provenance.get("recipe", {}).items())
    rows += [(f"numerics of {name}", f"version {v}") for name, v in provenance.get("numerics", {}).items()]
    return Facts(f"set of {title}", _present(rows))


def _run(record: Mapping[str, Any]) -> list[tuple[str, Any]]:
    data = record.get("data", {})
    return [
        ("task", record["task"]),
        ("data set", record["dataset"]),
        ("data note", data.get("note")),
        ("digest of the train images", data.get("train")),
        ("protocol", protocol_words(record["protocol"])),
        ("seeds", _listed(record["seeds"])),
        ("class orders", _orders(record.get("class_orders", []))),
        ("networks a class order", record.get("networks")),
        ("digest of the cells", record["digest"]),
        ("source digest", record.get("source_digest")),
        ("store", record.get("store")),
    ]


def _machine(record: Mapping[str, Any]) -> list[tuple[str, Any]]:
    environment = record.get("environment", {})
    return [
        ("device", f"{record['device']}, {environment.get('device_name', 'unknown')}"),
        ("precision", record["precision"]),
        ("threads", record["threads"]),
        ("cores", environment.get("cores")),
        ("platform", environment.get("platform")),
        ("compiled operations", environment.get("native")),
        ("time of the command", seconds_words(record["wall_s"])),
        ("largest memory", f"{record['peak_memory_mib']:.0f} MiB"),
        ("largest GPU memory", _mib(record.get("peak_cuda_memory_mib"))),
    ]


def _arm(arm: Mapping[str, Any]) -> list[tuple[str, Any]]:
    score, taken = arm.get("unequalness"), arm.get("distill_s")
    networks = score.get("networks") if isinstance(score, Mapping) else None
    return [
        ("images per class", arm["ipc"]),
        ("iterations", arm.get("iterations")),
        ("file", arm.get("set")),
        ("digest of the set", arm.get("set_digest")),
        ("size of the set", bytes_words(arm["set_bytes"]) if "set_bytes" in arm else None),
        ("cells", _listed(arm.get("cells", []))),
        ("time of distilling", seconds_words(sum(taken) if isinstance(taken, list) else taken) if taken else None),
        ("networks behind the unequalness", networks),
    ]


def _present(rows: Sequence[tuple[str, Any]]) -> list[tuple[str, str]]:
    return [(name, _text(value)) for name, value in rows if value not in (None, "", [])]


def _text(value: Any) -> str:
    return short(value, 6) if isinstance(value, float) else str(value)


def _listed(values: Sequence[Any]) -> str:
    shown = ", ".join(map(str, values[:12]))
    return f"{shown}, … ({len(values)} in all)" if len(values) > 12 else shown


def _orders(orders: Sequence[Sequence[int]]) -> str:
    return "; ".join(_listed(order) for order in orders[:3]) + (" …" if len(orders) > 3 else "")


def _mib(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f} MiB"

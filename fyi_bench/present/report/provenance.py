"""Where a number comes from: everything a record and its sets know about how they were made, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fyi_bench.present.words import arm_title, protocol_words, seconds_words, short, size_words


@dataclass(frozen=True)
class Facts:
    """A named group of (what, value) pairs."""

    title: str
    rows: Sequence[tuple[str, str]]


def record_facts(record: Mapping[str, Any]) -> list[Facts]:
    """Protocol, machine, versions and digests of a record, then the facts of each arm."""
    groups = [
        _facts("this run", _run(record)),
        _facts("machine", _machine(record)),
        Facts("versions", [(name, str(v)) for name, v in record["versions"].items()]),
        *(_facts(f"arm {arm_title(arm)}", _arm(arm)) for arm in record["arms"]),
    ]
    return [group for group in groups if group.rows]


def set_facts(title: str, provenance: Mapping[str, Any]) -> Facts:
    """The recipe and seed that a set's own file tells."""
    found = {"seed": provenance.get("seed"), "real data": provenance.get("data_digest"), **provenance.get("recipe", {})}
    found |= {f"numerics of {name}": f"version {v}" for name, v in provenance.get("numerics", {}).items()}
    return _facts(f"set of {title}", found)


def _run(record: Mapping[str, Any]) -> dict[str, Any]:
    data, orders = record.get("data", {}), record.get("class_orders", [])
    return {
        "task": record["task"],
        "data set": record["dataset"],
        "data note": data.get("note"),
        "digest of the train images": data.get("train"),
        "protocol": protocol_words(record["protocol"]),
        "seeds": _listed(record["seeds"]),
        "class orders": "; ".join(_listed(order) for order in orders[:3]) + (" …" if len(orders) > 3 else ""),
        "networks a class order": record.get("networks"),
        "digest of the runs": record["digest"],
        "source digest": record.get("source_digest"),
        "store": record.get("store"),
    }


def _machine(record: Mapping[str, Any]) -> dict[str, Any]:
    environment, memory = record.get("environment", {}), record.get("peak_cuda_memory_mib")
    return {
        "device": f"{record['device']}, {environment.get('device_name', 'unknown')}",
        "precision": record["precision"],
        "threads": record["threads"],
        "cores": environment.get("cores"),
        "platform": environment.get("platform"),
        "compiled operations": environment.get("native"),
        "time of the command": seconds_words(record["wall_s"]),
        "largest memory": f"{record['peak_memory_mib']:.0f} MiB",
        "largest GPU memory": None if memory is None else f"{memory:.0f} MiB",
    }


def _arm(arm: Mapping[str, Any]) -> dict[str, Any]:
    score, taken = arm.get("unequalness"), arm.get("distill_s")
    return {
        "images per class": arm["ipc"],
        "iterations": arm.get("iterations"),
        "file": arm.get("set"),
        "digest of the set": arm.get("set_digest"),
        "size of the set": size_words(arm) if arm.get("set_bytes") else None,
        "cells": _listed(arm.get("cells", [])),
        "time of distilling": seconds_words(sum(taken) if isinstance(taken, list) else taken) if taken else None,
        "networks behind the unequalness": score.get("networks") if isinstance(score, Mapping) else None,
    }


def _facts(title: str, found: Mapping[str, Any]) -> Facts:
    """A group of those that are known."""
    rows = [(name, short(value, 6) if isinstance(value, float) else str(value)) for name, value in found.items()
            if value not in (None, "", [])]  # fmt: skip
    return Facts(title, rows)


def _listed(values: Sequence[Any]) -> str:
    shown = ", ".join(map(str, values[:12]))
    return f"{shown}, … ({len(values)} in all)" if len(values) > 12 else shown

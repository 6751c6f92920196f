"""What a continual record says of each side: accuracies by Avalanche's names, forgetting, classes, bytes, seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fyi_bench.present.words import (
    MINUS,
    arm_title,
    bits_words,
    bytes_words,
    count_words,
    has_interval,
    interval_words,
    mean_and_std,
    percent,
    seconds_words,
    short,
    signed_points,
)
from fyi_bench.run.plan import Records
from fyi_bench.tasks.common import Arm, flip_difference, size_of, summary_of_sets
from fyi_bench.tasks.continual.sides import Owner, Runs, Side

Rows = Sequence[Mapping[str, Any]]


def arm_entry(side: Side, runs: Runs, found: Records) -> dict[str, Any]:
    """The entry of one side."""
    keys = list(runs.tests)
    rows = {key: runs.rows(key, found) for key in keys}
    owners = [owner for owner, _ in keys]
    steps = range(len(rows[keys[0]]))
    entry: dict[str, Any] = {
        "method": side.name,
        "flip": side.arm.flip,
        "ipc": side.ipc,
        "memory": {
            "sets": side.arm.method, "storage": side.storage or None, "strategy": side.strategy or "from scratch",
            "files": [str(one.path) for one in side.files],
        },
        "accuracy": [
            {**_seen(rows[keys[0]][step]), **summary_of_sets([rows[key][step]["value"] for key in keys], owners)}
            for step in steps
        ],
        "average": summary_of_sets([_average(rows[key]) for key in keys], owners),
        "cells": [run.digest for run in runs.sets.values()],
        "distill_s": round(sum(found[run.digest]["wall_s"] for run in runs.sets.values()), 1),
        "train_s": round(sum(found[run.digest]["wall_s"] for own in runs.tests.values() for run in own), 1),
    }  # fmt: skip
    last = entry["accuracy"][-1]
    if "bytes" in last:  # with soft labels; hard ones follow from the order of the images
        made = {"set_bytes": last["bytes"], "set_parts": rows[keys[0]][-1].get("set_parts")}
        entry |= size_of(made, last["classes_seen"])
    if side.files:
        entry["set"] = str(side.files[0].path)
    # results of before these were counted have none
    if all("per_experience" in row for key in keys for row in rows[key]):
        entry |= _details(keys, rows)
    return entry


def _seen(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("classes_seen", "images", "bytes") if key in row}


def _average(rows: Rows) -> float:
    """Accuracy averaged over the steps ('average incremental accuracy')."""
    return sum(row["value"] for row in rows) / len(rows)


def _details(keys: Sequence[tuple[Owner, int]], rows: Mapping[tuple[Owner, int], Rows]) -> dict[str, Any]:
    """Metrics by Avalanche's names, accuracy by step and by class, and what is taken for what."""
    from downstream.continual.judge import stream_metrics

    each = [stream_metrics([{**row, "accuracy": row["value"]} for row in rows[key]]) for key in keys]
    owners, steps = [owner for owner, _ in keys], range(len(rows[keys[0]]))

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    classes = sorted({int(c) for key in keys for c in rows[key][-1]["per_class"]})
    return {
        "metrics": {name: summary_of_sets([one[name] for one in each], owners) for name in each[0]},
        "per_experience": [
            [mean([rows[key][step]["per_experience"][k] for key in keys]) for k in range(step + 1)] for step in steps
        ],
        "per_class": {str(c): mean([rows[key][-1]["per_class"][str(c)] for key in keys]) for c in classes},
        "confusion": [_summed([rows[key][step]["confusion"] for key in keys]) for step in steps],
    }


def _summed(tables: Sequence[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    return {
        group: {name: sum(table[group][name] for table in tables) for name in names}
        for group, names in tables[0].items()
    }


def averages(runs: Runs, found: Records) -> list[float]:
    """Average over the steps, one value a (class order, set, network)."""
    return [_average(runs.rows(key, found)) for key in runs.tests]


def differences(sides: Mapping[Side, Runs], steps: int, found: Records) -> dict[str, Any]:
    """Paired differences with the flip and without: of the average over steps, and step by step."""
    plain = {side.arm: runs for side, runs in sides.items() if side.title == side.arm}
    orders = [owner[1] for owner, _ in next(iter(plain.values())).tests] if plain else []

    def of(values: Mapping[Arm, Sequence[float]]) -> dict[str, Any] | None:
        return flip_difference(list(values), values, orders)

    overall = of({arm: averages(runs, found) for arm, runs in plain.items()})
    if overall is None:
        return {}
    by_step = [
        of({arm: [runs.rows(key, found)[step]["value"] for key in runs.tests] for arm, runs in plain.items()})
        for step in range(steps)
    ]
    return {"difference": overall, "difference_by_step": by_step}


def paired(main: Side, sides: Mapping[Side, Runs], found: Records) -> list[dict[str, Any]]:
    """Average over steps of the memory in question minus that of each other side, paired over class orders."""
    from fyi_bench.stats import paired_difference

    ours = _by_order(sides[main], found)
    differences = []
    for side, runs in sides.items():
        theirs = _by_order(runs, found)
        both = [order for order in ours if order in theirs]
        if side is not main:
            differences.append({
                "of": {"method": main.name, "flip": main.arm.flip},
                "against": {"method": side.name, "flip": side.arm.flip},
                **paired_difference([ours[order] for order in both], [theirs[order] for order in both]),
            })  # fmt: skip
    return differences


def _by_order(runs: Runs, found: Records) -> dict[int, float]:
    """Average over steps by class order: the mean over its sets and networks."""
    of: dict[int, list[float]] = {}
    for (owner, _), value in zip(runs.tests, averages(runs, found), strict=True):
        of.setdefault(owner[0], []).append(value)
    return {order: sum(values) / len(values) for order, values in of.items()}


def summary_table(record: Mapping[str, Any], unit: str = "") -> tuple[list[str], list[list[str]]]:
    """Header and rows: a row a step, then the average and, where they are known, forgetting, bytes, seconds."""
    arms = record["arms"]
    rows = [
        [str(step[0]["classes_seen"]), *map(mean_and_std, step)] for step in zip(*(arm["accuracy"] for arm in arms))
    ]
    if all("average" in arm for arm in arms):
        rows.append(["average over steps", *(mean_and_std(arm["average"]) for arm in arms)])
    if all("metrics" in arm for arm in arms) and record["steps"] > 1:
        lost = [arm["metrics"]["StreamForgetting"]["mean"] for arm in arms]
        rows.append(["forgetting", *map(percent, lost)])
    if all("bytes" in arm["accuracy"][-1] for arm in arms):
        rows.append(["memory", *(bytes_words(arm["accuracy"][-1]["bytes"]) for arm in arms)])
    if all("bits_per_class" in arm for arm in arms):
        rows.append(["bits a class", *(bits_words(arm["bits_per_class"]["total"]) for arm in arms)])
    if all("train_s" in arm for arm in arms):
        spent = [[arm[key] for key in ("distill_s", "train_s")] for arm in arms]
        rows.append(["condensing", *(seconds_words(made) if made else short(None) for made, _ in spent)])
        rows.append(["training", *(seconds_words(trained) for _, trained in spent)])
    return ["classes seen", *(arm_title(arm) + unit for arm in arms)], rows


def paired_lines(record: Mapping[str, Any]) -> list[str]:
    """The memory in question against each other side, a line each; nothing where there is one class order."""
    found = [one for one in record.get("paired", []) if has_interval(one) and arm_title(one["of"])]
    width = max((len(arm_title(one["against"])) for one in found), default=0)
    return [
        f"{arm_title(one['of'])} {MINUS} {arm_title(one['against']).ljust(width)}  {signed_points(one['mean'])} points,"
        f" {interval_words(one)}, {count_words(one['pairs'], 'pair')}"
        for one in found
    ]


def order_words(orders: Sequence[Sequence[int]]) -> str:
    """'3 class orders'; '1 class order, 3 seeds' where one is used again with other seeds."""
    found = count_words(len({tuple(order) for order in orders}), "class order")
    return found if len({tuple(order) for order in orders}) == len(orders) else f"{found}, {len(orders)} seeds"

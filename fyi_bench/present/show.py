"""The result of a command as a few aligned lines of text, for the terminal and for logs alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fyi_bench.present.words import (
    CHOSEN_ON_TEST,
    arm_title,
    bytes_words,
    count_words,
    difference_of_record,
    mean_and_std,
    protocol_words,
    seconds_words,
    short,
    text_table,
    unequalness_of,
)


def show_distill(record: Mapping[str, Any]) -> str:
    """Accuracy, symmetry, loss and cost of each arm of a `distill` record, the difference, and where the sets are."""
    arms = record["arms"]
    names = _architectures(record)
    header = ["", *names, "unequalness", "loss", "time a set"]
    rows = [
        [arm_title(arm), *_accuracies(arm, names), short(unequalness_of(arm), 3), _losses(arm), _distill_seconds(arm)]
        for arm in arms
    ]
    lines = [_title(record, _images_words(arms[0])), "", *text_table(header, rows), ""]
    lines += _difference_lines(record)
    return "\n".join([*lines, *_set_lines(record)])


def show_continual(record: Mapping[str, Any]) -> str:
    """Accuracy on the classes seen after each step of a `continual` record, a column an arm, and the difference."""
    arms = record["arms"]
    header = ["classes seen", *map(arm_title, arms)]
    rows = [
        [str(step[0]["classes_seen"]), *map(mean_and_std, step)] for step in zip(*(arm["accuracy"] for arm in arms))
    ]
    if all("average" in arm for arm in arms):
        rows.append(["average over steps", *(mean_and_std(arm["average"]) for arm in arms)])
    orders = count_words(len(record["class_orders"]), "class order")
    what = f"{count_words(record['steps'], 'step')} · {_images_words(arms[0])} · {orders}"
    return "\n".join([_title(record, what), "", *text_table(header, rows), "", *_difference_lines(record)]).rstrip("\n")


def show_evaluate(record: Mapping[str, Any]) -> str:
    """Accuracy of each architecture of an `accuracy` or `cross-arch` record, a row an architecture."""
    arms = record["arms"]
    rows = [
        [
            name,
            *(_accuracies(arm, [name])[0] for arm in arms),
            str(max(_repetitions(arm, name) for arm in arms)),
            *network_cost(record, name),
        ]
        for name in _architectures(record)
    ]
    header = ["", *map(arm_title, arms), "networks", "time a network", "memory"]
    title = _title(record, _images_words(arms[0]))
    lines = [
        title,
        "",
        *text_table(header, rows),
        "",
        *_difference_lines(record),
        *_size_lines(record),
        *_set_lines(record),
    ]
    return "\n".join(lines).rstrip("\n")


def network_cost(record: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Mean time of training and testing one network of an architecture, and memory at most; holes where not known."""
    found = [entry for arm in record["arms"] for entry in arm.get("architectures", []) if entry["name"] == name]
    seconds = [second for entry in found for second in entry.get("seconds", [])]
    memory = max((entry.get("peak_memory_mib", 0) for entry in found), default=0)
    time = seconds_words(sum(seconds) / len(seconds) if seconds else None)
    return time, f"{memory:.0f} MiB" if memory else short(None)


def _size_lines(record: Mapping[str, Any]) -> list[str]:
    return [
        f"size     {arm_title(arm)}   {bytes_words(arm['set_bytes'])} with labels"
        for arm in record["arms"]
        if "set_bytes" in arm
    ]


def _title(record: Mapping[str, Any], what: str) -> str:
    return f"{record['dataset']} · {what} · protocol {protocol_words(record['protocol'])} · accuracies in %"


def _images_words(arm: Mapping[str, Any]) -> str:
    return f"{arm['ipc']} images per class" if arm.get("ipc") else "images per class differ"


def _architectures(record: Mapping[str, Any]) -> list[str]:
    """Names of all architectures of a record, in the order of their first appearance."""
    return list(dict.fromkeys(e["name"] for arm in record["arms"] for e in arm.get("architectures", [])))


def _accuracies(arm: Mapping[str, Any], names: list[str]) -> list[str]:
    found = {entry["name"]: mean_and_std(entry) for entry in arm.get("architectures", [])}
    return [found.get(name, short(None)) for name in names]


def _repetitions(arm: Mapping[str, Any], name: str) -> int:
    return sum(len(entry["values"]) for entry in arm.get("architectures", []) if entry["name"] == name)


def _losses(arm: Mapping[str, Any]) -> str:
    if arm["loss_first"] is None:
        return short(None)
    return f"{short(arm['loss_first'], 3)} → {short(arm['loss_last'], 3)}"


def _distill_seconds(arm: Mapping[str, Any]) -> str:
    """Mean time of distilling one set."""
    taken = arm.get("distill_s")
    return seconds_words(sum(taken) / len(taken) if isinstance(taken, list) and taken else taken)


def _difference_lines(record: Mapping[str, Any]) -> list[str]:
    flips = [arm["flip"] for arm in record["arms"] if arm["flip"] != "none"]
    chosen = [CHOSEN_ON_TEST] if record.get("chosen_on_test") else []
    if "difference" not in record or not flips:
        return chosen
    return [*chosen, difference_of_record(record, flips[0]), ""]


def _set_lines(record: Mapping[str, Any]) -> list[str]:
    arms = [arm for arm in record["arms"] if arm.get("set")]
    width = max((len(arm_title(arm)) for arm in arms), default=0)
    return [f"set      {arm_title(arm).ljust(width)}   {arm['set']}" for arm in arms]

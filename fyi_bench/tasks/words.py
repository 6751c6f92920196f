"""Lines and table cells that the answers of several tasks are told with, on the terminal and in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fyi_bench.present.words import (
    CHOSEN_ON_TEST,
    arm_title,
    count_words,
    difference_of_record,
    mean_and_std,
    protocol_words,
    seconds_words,
    short,
    size_words,
    spread_words,
    text_table,
    unequalness_of,
)

Record = Mapping[str, Any]
Arm = Mapping[str, Any]

NOT_HERE = "known here by its digest alone"


def lines_of(record: Record, what: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """What was measured, its table, and the difference that the flip makes, where there is one."""
    title = f"{record['dataset']} · {what} · protocol {protocol_words(record['protocol'])} · accuracies in %"
    spreads = spread_lines(record)
    told = [*spreads, ""] if spreads else []
    return [title, "", *text_table(header, rows), "", *told, *_difference_lines(record)]


def spread_lines(record: Record) -> list[str]:
    """What sets and what networks differ by, apart, of every arm with several sets."""
    kinds = {arm["labels"] for arm in record["arms"] if "labels" in arm}
    return [
        f"{arm_title(arm)}{', labels ' + arm['labels'] if len(kinds) > 1 else ''}, {what}: {told}"
        for arm in record["arms"]
        for what, entry in _measured(arm)
        if (told := spread_words(entry.get("spread", {})))
    ]


def _measured(arm: Arm) -> list[tuple[str, Record]]:
    """What an arm has accuracies of, and what the accuracy is called."""
    found = [(entry["name"], entry) for entry in arm.get("architectures", [])]
    return [*found, *([("average over steps", arm["average"])] if "average" in arm else [])]


def images_words(arm: Arm) -> str:
    """'10 images per class'."""
    return f"{count_words(arm['ipc'], 'image')} per class" if arm.get("ipc") else "images per class differ"


def architectures_of(record: Record) -> list[str]:
    """Names of all architectures of a record, in the order of their first appearance."""
    return list(dict.fromkeys(e["name"] for arm in record["arms"] for e in arm.get("architectures", [])))


def accuracies(arm: Arm, names: Sequence[str]) -> list[str]:
    """The arm's accuracy on each architecture, or a hole."""
    found = {entry["name"]: mean_and_std(entry) for entry in arm.get("architectures", [])}
    return [found.get(name, short(None)) for name in names]


def set_columns(arm: Arm) -> list[str]:
    """Unequalness of the arm's sets, loss of the first, and mean time of condensing one."""
    losses = [short(None)] if arm["loss_first"] is None else [short(arm[key], 3) for key in ("loss_first", "loss_last")]
    taken = arm.get("distill_s")
    seconds: Any = sum(taken) / len(taken) if isinstance(taken, list) and taken else taken
    return [short(unequalness_of(arm), 3), " → ".join(losses), seconds_words(seconds)]


def network_cost(record: Record, name: str) -> tuple[str, str]:
    """Mean time of training and testing one network of an architecture, and memory at most; holes where not known."""
    found = [entry for arm in record["arms"] for entry in arm.get("architectures", []) if entry["name"] == name]
    seconds = [second for entry in found for second in entry.get("seconds", [])]
    memory = max((entry.get("peak_memory_mib", 0) for entry in found), default=0)
    time = seconds_words(sum(seconds) / len(seconds) if seconds else None)
    return time, f"{memory:.0f} MiB" if memory else short(None)


def set_lines(record: Record) -> list[str]:
    """Where the first set of each arm is; of a single arm, where all of them are."""
    arms = [arm for arm in record["arms"] if arm.get("set") or arm.get("sets")]
    width = max((len(arm_title(arm)) for arm in arms), default=0)
    places = [(arm, arm["set"]) for arm in arms] if len(arms) > 1 else [
        (arm, path) for arm in arms for path in arm.get("sets") or [arm["set"]]
    ]  # fmt: skip
    return [f"set      {arm_title(arm).ljust(width)}   {path or NOT_HERE}" for arm, path in places]


def size_lines(arms: Sequence[Arm]) -> list[str]:
    """Bytes, and bits a class, of the sets of these arms, where they are known; the parts of the bits of one alone."""
    known = [arm for arm in arms if arm.get("set_bytes")]
    width = max((len(arm_title(arm)) for arm in known), default=0)
    return [f"size     {arm_title(arm).ljust(width)}   {size_words(arm, len(known) == 1)}" for arm in known]


def _difference_lines(record: Record) -> list[str]:
    flips = [arm["flip"] for arm in record["arms"] if arm["flip"] != "none"]
    chosen = [CHOSEN_ON_TEST] if record.get("chosen_on_test") else []
    if "difference" not in record or not flips:
        return chosen
    return [*chosen, difference_of_record(record, flips[0]), ""]

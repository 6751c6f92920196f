"""Robust scores as lines for the terminal and rows for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fyi_bench.present.words import (
    HOLE,
    bytes_words,
    is_number,
    mean_and_std,
    percent,
    protocol_words,
    seconds_words,
    text_table,
)

# key of a record's arm -> what people read
SCORES = {
    "label_robust": "label-robust score",
    "augmentation_robust": "augmentation-robust score",
    "recovery": "hard-label recovery (real − set; 0 is best)",
    "improvement": "improvement over random",
}
TREATMENTS = {
    "real-hard": "real images, hard labels",
    "set-hard": "the set, hard labels",
    "set-any": "the set, its own labels",
    "random-any": "random images, likewise",
    "set-plain": "the set, not augmented",
    "random-plain": "random images, not augmented",
}
ACCURACY_HEADER = ("", "accuracy, %", "step size", "on images set aside, %", "time a network")


def score_rows(arm: Mapping[str, Any]) -> list[list[str]]:
    """A row a score: name, value in percent with its spread, 95 % interval."""
    return [[name, mean_and_std(arm[key]), _interval(arm[key])] for key, name in SCORES.items()]


def accuracy_rows(arm: Mapping[str, Any]) -> list[list[str]]:
    """A row a treatment, under `ACCURACY_HEADER`."""
    return [[TREATMENTS[name], *_facts(entry)] for name, entry in arm["accuracies"].items()]


def cost_words(arm: Mapping[str, Any]) -> str:
    """Bytes of the set, seconds of a network, memory."""
    return (
        f"{bytes_words(arm['set_bytes'])} of images and {arm['labels']} labels,"
        f" {arm['peak_memory_mib']:.0f} MiB at most while training"
    )


def show_robust(record: Mapping[str, Any]) -> str:
    """The scores, the accuracies behind them with the step sizes that were found, and the cost."""
    arm, rules = record["arms"][0], record["rules"]
    tried = ", ".join(f"{lr:g}" for lr in rules["lrs"])
    return "\n".join([
        f"{record['dataset']} · {arm['model']} · protocol {protocol_words(record['protocol'])} · in % of 1",
        "",
        *text_table(["", "%", "95 % interval"], score_rows(arm)),
        "",
        *text_table(list(ACCURACY_HEADER), accuracy_rows(arm)),
        "",
        f"step sizes tried for every arm: {tried}; judged on {100 * rules['validation']:g} % of the train images, which"
        " no network was trained on",
        f"real side: {record['reference']}; random images: as many of each class as the set has",
        f"cost: {cost_words(arm)}",
    ])  # fmt: skip


def _facts(entry: Mapping[str, Any]) -> Sequence[str]:
    judged = entry["validation"][f"{entry['lr']:g}"]
    seconds = sum(entry["seconds"]) / len(entry["seconds"])
    return mean_and_std(entry), f"{entry['lr']:g}", percent(judged), seconds_words(seconds)


def _interval(entry: Mapping[str, Any]) -> str:
    if not (is_number(entry["low"]) and is_number(entry["high"])):
        return HOLE
    return f"[{percent(entry['low'])}, {percent(entry['high'])}]"

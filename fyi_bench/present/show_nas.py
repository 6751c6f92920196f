"""The result of `fyi-bench nas` as text: the columns of Table B of the paper, with intervals, ceiling and cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fyi_bench.present.faithful import difference_of_search, faithful_words, rules_words, with_interval
from fyi_bench.present.words import (
    HOLE,
    arm_title,
    count_words,
    is_number,
    percent,
    protocol_words,
    seconds_words,
    signed_points,
    text_table,
)

_CORRELATIONS = {"spearman_all": "Spearman, all", "spearman_top50": "top 50 %", "kendall_all": "Kendall, all"}
AGREEMENT = ("ranked on", *_CORRELATIONS.values(), "top-10 recall", "regret, points", "failed")
COST = ("trained on", "images", "epochs", "training all", "condensing", "time against real")
MISJUDGED = ("factor", "level", "architectures", "ranked too low by, %", "95 % interval")
_FEWEST_OF_A_LEVEL = 5  # below so many an interval is wider than the ranking
_WORST_LEVELS = 2  # levels named of each misjudged factor: the most over- and the most underrated


def show_nas(record: Mapping[str, Any]) -> str:
    """The answer in words, then agreement with the real ranking, cost, the paired difference, and what is misjudged."""
    lines = [_title(record), _reference_words(record["reference"]), ""]
    lines += [*faithful_words(record), "", *_agreement(record), *rules_words(record), "", *_cost(record), ""]
    lines += _difference_lines(record)
    for arm in record["arms"]:
        lines += _misjudged_lines(arm)
    asked = asked_arm(record)
    lines += ["", f"{arm_title(asked)}, factor by factor:", *misjudged_table(asked)]
    return "\n".join(lines).rstrip("\n")


def asked_arm(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arm that a record is about: the one with a flip, else the first."""
    return next((arm for arm in record["arms"] if arm["flip"] not in ("none", "unknown")), record["arms"][0])


def _title(record: Mapping[str, Any]) -> str:
    ipc = record["arms"][0]["ipc"]
    each = f"{ipc} images per class" if ipc else "images per class differ"
    return (
        f"{record['dataset']} · {record['space']} architectures · {each} · protocol"
        f" {protocol_words(record['protocol'])}{' · unfinished' if record.get('partial') else ''}"
    )


def _reference_words(reference: Mapping[str, Any]) -> str:
    made = f"the stored ranking '{reference['name']}'" if reference["kind"] == "stored" else "trained here"
    return (
        f"real ranking: {made}, {count_words(reference['epochs'], 'epoch')} on {reference['images']:,} images,"
        f" tested on {reference['test_images']:,}; 95 % intervals over architectures in brackets"
    )


def agreement_rows(record: Mapping[str, Any]) -> list[list[str]]:
    """A row for the ceiling, where it was measured, and one an arm, under `AGREEMENT`."""
    rows, ceiling = [], record["ceiling"]
    if ceiling.get("evaluated"):
        on = "" if ceiling["evaluated"] == record["space"] else f" ({ceiling['evaluated']} of them)"
        rows.append(_agreement_row(f"real data, another seed{on}", ceiling))
    return [*rows, *(_agreement_row(arm_title(arm), arm) for arm in record["arms"])]


def _agreement_row(title: str, entry: Mapping[str, Any]) -> list[str]:
    correlations = [with_interval(entry[key]) for key in (*_CORRELATIONS, "top10_recall")]
    return [title, *correlations, with_interval(entry["regret"], percent), str(entry["failed"])]


def _agreement(record: Mapping[str, Any]) -> list[str]:
    return text_table(AGREEMENT, agreement_rows(record))


def _cost(record: Mapping[str, Any]) -> list[str]:
    return text_table(COST, cost_rows(record))


def cost_rows(record: Mapping[str, Any]) -> list[list[str]]:
    """Images and time of the real side and of every arm, under `COST`."""
    reference = record["reference"]
    rows = [["real data", f"{reference['images']:,}", str(reference["epochs"]), seconds_words(reference["train_s"]),
             HOLE, "1"]]  # fmt: skip
    for arm in record["arms"]:
        share = (arm["train_s"] + arm["distill_s"]) / reference["train_s"] if reference["train_s"] else None
        rows.append(
            [
                arm_title(arm),
                f"{arm['images']:,}",
                str(arm["epochs"]),
                seconds_words(arm["train_s"]),
                seconds_words(arm["distill_s"]),
                f"{share:.2f}" if is_number(share) else HOLE,
            ]
        )
    return rows


def _difference_lines(record: Mapping[str, Any]) -> list[str]:
    flip = asked_arm(record)["flip"]
    return [difference_of_search(record, flip), ""] if "difference" in record else []


def _misjudged_lines(arm: Mapping[str, Any]) -> list[str]:
    """The most misjudged factor of an arm, in words."""
    factor, found = next(iter(arm["misjudged"].items()))
    levels = sorted(found["levels"], key=lambda row: row["shift"])
    ends = [levels[0], levels[-1]] if len(levels) >= _WORST_LEVELS else levels
    words = [f"{row['level']} {'too high' if row['shift'] < 0 else 'too low'} by {_share(row)}" for row in ends]
    return [f"{arm_title(arm)} misjudges the {factor} most: it ranks {', '.join(words)} of the ranking"]


def misjudged_table(arm: Mapping[str, Any]) -> list[str]:
    """`misjudged_rows` as lines."""
    return text_table(MISJUDGED, misjudged_rows(arm))


def misjudged_rows(arm: Mapping[str, Any]) -> list[list[str]]:
    """Every factor and level of an arm: shift of the ranks with its interval, in percent of the ranking."""
    rows: list[list[str]] = []
    for factor, found in arm["misjudged"].items():
        for row in found["levels"]:
            told = is_number(row["low"]) and row["architectures"] >= _FEWEST_OF_A_LEVEL
            bounds = f"[{signed_points(row['low'])}, {signed_points(row['high'])}]" if told else HOLE
            rows.append([factor, str(row["level"]), str(row["architectures"]), signed_points(row["shift"]), bounds])
    return rows


def _share(row: Mapping[str, Any]) -> str:
    return f"{100 * abs(row['shift']):.0f} %"

"""The result of `fyi-bench nas` as text: the columns of Table B of the paper, with intervals, ceiling and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fyi_bench.wording import (
    HOLE,
    MINUS,
    arm_title,
    count_words,
    is_number,
    percent,
    protocol_words,
    seconds_words,
    signed_points,
    text_table,
    verdict,
)

_CORRELATIONS = {"spearman_all": "Spearman, all", "spearman_top50": "top 50 %", "kendall_all": "Kendall, all"}
_WORST_LEVELS = 2  # levels named of each misjudged factor: the most over- and the most underrated


def show_nas(record: Mapping[str, Any]) -> str:
    """Agreement with the real ranking, the cost, the paired difference and what is misjudged, of a `nas` record."""
    lines = [_title(record), _reference_words(record["reference"]), ""]
    lines += [*_agreement(record), "", *_cost(record), ""]
    lines += _difference_lines(record)
    for arm in record["arms"]:
        lines += _misjudged_lines(arm)
    return "\n".join(lines).rstrip("\n")


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


def _agreement(record: Mapping[str, Any]) -> list[str]:
    header = ["ranked on", *_CORRELATIONS.values(), "top-10 recall", "regret, points", "failed"]
    rows = [
        [
            arm_title(arm),
            *(_with_interval(arm[key], _plain) for key in _CORRELATIONS),
            _with_interval(arm["top10_recall"], _plain),
            _with_interval(arm["regret"], percent),
            str(arm["failed"]),
        ]
        for arm in record["arms"]
    ]
    return text_table(header, [*_ceiling_row(record["ceiling"], record["space"]), *rows])


def _ceiling_row(ceiling: Mapping[str, Any], space: int) -> list[list[str]]:
    if ceiling["evaluated"] == 0:
        return []
    on = "" if ceiling["evaluated"] == space else f" ({ceiling['evaluated']} of them)"
    return [
        [
            f"real data, another seed{on}",
            *(_with_interval(ceiling[key], _plain) for key in _CORRELATIONS),
            _with_interval(ceiling["top10_recall"], _plain),
            _with_interval(ceiling["regret"], percent),
            str(ceiling["failed"]),
        ]
    ]


def _cost(record: Mapping[str, Any]) -> list[str]:
    reference = record["reference"]
    header = ["trained on", "images", "epochs", "training all", "condensing", "time against real"]
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
    return text_table(header, rows)


def _difference_lines(record: Mapping[str, Any]) -> list[str]:
    flips = [arm["flip"] for arm in record["arms"] if arm["flip"] not in ("none", "unknown")]
    if "difference" not in record or not flips:
        return []
    difference, flip = record["difference"], flips[0]
    what = f"Spearman over all, {flip} {MINUS} none:"
    if not is_number(difference["mean"]) or not is_number(difference["low"]):
        return [f"{what} not defined for these rankings", ""]
    bounds = f"[{_signed(difference['low'])}, {_signed(difference['high'])}]"
    return [
        f"{what} {_signed(difference['mean'])}, 95 % interval {bounds}, paired over"
        f" {difference['pairs']} architectures: {verdict(difference, flip)}",
        "",
    ]


def _misjudged_lines(arm: Mapping[str, Any]) -> list[str]:
    """The most misjudged factor of an arm, in words."""
    factor, found = next(iter(arm["misjudged"].items()))
    levels = sorted(found["levels"], key=lambda row: row["shift"])
    ends = [levels[0], levels[-1]] if len(levels) >= _WORST_LEVELS else levels
    words = [f"{row['level']} {'too high' if row['shift'] < 0 else 'too low'} by {_share(row)}" for row in ends]
    return [f"{arm_title(arm)} misjudges the {factor} most: it ranks {', '.join(words)} of the ranking"]


def misjudged_table(arm: Mapping[str, Any]) -> list[str]:
    """Every factor and level of an arm: shift of the ranks with its interval, in percent of the ranking."""
    rows: list[Sequence[str]] = []
    for factor, found in arm["misjudged"].items():
        for row in found["levels"]:
            bounds = f"[{signed_points(row['low'])}, {signed_points(row['high'])}]" if is_number(row["low"]) else HOLE
            rows.append([factor, str(row["level"]), str(row["architectures"]), signed_points(row["shift"]), bounds])
    return text_table(["factor", "level", "architectures", "ranked too low by, %", "95 % interval"], rows)


def _share(row: Mapping[str, Any]) -> str:
    return f"{100 * abs(row['shift']):.0f} %"


def _plain(value: float | None) -> str:
    return f"{value:.2f}".replace("-", MINUS) if is_number(value) else HOLE


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", MINUS)


def _with_interval(entry: Mapping[str, Any], words) -> str:
    if not is_number(entry["low"]):
        return words(entry["value"])
    return f"{words(entry['value'])} [{words(entry['low'])}, {words(entry['high'])}]"

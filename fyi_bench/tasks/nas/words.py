"""The answer of `fyi-bench nas` for people: the columns of Table B of the paper, with intervals, ceiling and cost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fyi_bench.present.words import (
    HOLE,
    arm_title,
    bits_words,
    bounds,
    correlation,
    count_words,
    is_number,
    percent,
    protocol_words,
    seconds_words,
    signed_points,
    text_table,
)
from fyi_bench.stats import HEADLINE, mean_std
from fyi_bench.tasks.nas.faithful import (
    difference_of_search,
    faithful_words,
    headline_of_search,
    rules_words,
    with_interval,
)
from fyi_bench.tasks.nas.points import FEWEST_TOLD
from fyi_bench.tasks.words import images_words

Record = Mapping[str, Any]
# statistics of an arm -> their names on the terminal, in two tables of at most 80 columns
_AGREEMENT = {"spearman_all": "Spearman, all", "spearman_top50": "better half", "kendall_all": "Kendall, all"}
_CHOICE = {"top10_recall": "top-10 recall", "regret": "regret, points"}
_TITLE_WIDTH = 20  # of the first column, so that three intervals stand beside it
# and in the report
_AGREEMENT_ROWS = {
    "spearman_all": "spearman, all",
    "spearman_top50": "spearman, top50",
    "kendall_all": "kendall, all",
    "kendall_top50": "kendall, top50",
    "top10_recall": "recall of the 10 best",
    "regret": "regret, points",
}
_COST = ("trained on", "images", "bits a class", "epochs", "training all", "condensing", "× real")
_HALVING = ("first rung", "on real data", "regret, points", "time", "× all on real")
_MISJUDGED = ("factor", "level", "architectures", "ranked too low by, %", "95 % interval")
_FEWEST_OF_A_LEVEL = 5  # below so many an interval is wider than the ranking


def search_words(record: Record) -> str:
    """The answer in words, then agreement with the real ranking, cost, the paired difference, and what is misjudged."""
    asked = asked_arm(record)
    lines = [*_title_lines(record), "", *_agreement(record), "", *_choice(record), ""]
    lines += [*faithful_words(record), ""]
    lines += [difference_of_search(record, asked["flip"]), ""] if "difference" in record else []
    lines += [*text_table(_COST, _cost_rows(record)), "", *_halving(record)]
    told = [arm for arm in record["arms"] if arm["misjudged"] and arm["evaluated"] >= FEWEST_TOLD]
    lines += [_most_misjudged(arm) for arm in told]
    if asked in told:
        lines += ["", f"{arm_title(asked)}, factor by factor:", *text_table(_MISJUDGED, misjudged_rows(asked))]
    notes = [*rules_words(record), *_draws_words(record), *_reckoned_words(record), *_part_words(record)]
    lines += ["", *(f"* {note}" for note in notes)] if notes else []
    return _joined(lines)


def _joined(lines: Sequence[str]) -> str:
    """The lines, with one empty line at most between others."""
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines).strip("\n"))


def rank_words(record: Record) -> str:
    """The answer of `fyi-bench rank`: how one set ranks, against a stored ranking, in few lines."""
    lines = [*_title_lines(record), "", *_agreement(record), "", *_choice(record), "", *faithful_words(record), ""]
    lines += [f"* {note}" for note in (*rules_words(record), *_part_words(record))]
    return _joined(lines)


def fill_section(record: Record, section: Any) -> None:
    """How well a search on the set ranks the architectures, in words and numbers; the dots; what is misjudged."""
    from fyi_bench.present.figures import nas

    arms, ceiling, asked = record["arms"], record["ceiling"], asked_arm(record)
    section.headline = headline_of_search(record)
    repeated = bool(ceiling.get("evaluated"))
    columns = [*([ceiling] if repeated else []), *arms]
    header = ["", *(["real, another seed"] if repeated else []), *map(arm_title, arms)]
    rows = [[name, *(_statistic(one, key) for one in columns)] for key, name in _AGREEMENT_ROWS.items()]
    rows += [["spearman, all, by validation", *map(_by_validation, columns)]]
    rows += [
        [what, *(str(one.get(what, record.get(what, HOLE))) for one in columns)]
        for what in ("space", "evaluated", "failed")
    ]
    section.table("Agreement with the ranking by real data, with 95 % intervals.", header, rows)
    if "architectures" not in record:
        return
    section.notes += faithful_words(record, " ") + rules_words(record) + _draws_words(record) + _reckoned_words(record)
    section.figure(
        nas.TITLE, nas.nas_caption(record), "ranks",
        lambda name, width: nas.nas_drawing(record, name=name, bare=True, columns=2 if width > 5 else 1),
    )  # fmt: skip
    if nas.costs_of(record):
        section.figure(
            nas.COST_TITLE, nas.cost_caption(record), "cost",
            lambda name, width: nas.cost_drawing(record, name=name, bare=True, width=width),
        )  # fmt: skip
    section.table("Images and time.", _COST, _cost_rows(record))
    if asked["evaluated"] >= FEWEST_TOLD:
        caption = f"What {arm_title(asked)} misjudges, the worst factor first, in percent of the ranking."
        section.table(caption, _MISJUDGED, misjudged_rows(asked))


def asked_arm(record: Record) -> Mapping[str, Any]:
    """The arm that a record is about: the one with a flip, else the first."""
    return next((arm for arm in record["arms"] if arm["flip"] not in ("none", "unknown")), record["arms"][0])


def misjudged_rows(arm: Mapping[str, Any]) -> list[list[str]]:
    """Every factor and level of an arm: shift of the ranks with its interval, in percent of the ranking."""
    rows: list[list[str]] = []
    for factor, found in arm["misjudged"].items():
        for row in found["levels"]:
            told = is_number(row["low"]) and row["architectures"] >= _FEWEST_OF_A_LEVEL
            interval = bounds(row, signed_points).lstrip() if told else HOLE
            rows.append([factor, str(row["level"]), str(row["architectures"]), signed_points(row["shift"]), interval])
    return rows


def _title_lines(record: Record) -> list[str]:
    reference, partial = record["reference"], record.get("partial")
    made = "trained here" if reference["kind"] == "train" else f"the stored ranking '{reference['name']}'"
    if reference.get("precision") not in (None, "", record["precision"]):
        made += f" in {reference['precision']}"
    how = (
        "a table of accuracies"
        if reference["kind"] == "table"
        else f"{count_words(reference['epochs'], 'epoch')} on {reference['images']:,} images, tested on"
        f" {reference['test_images']:,}"
    )
    so_far = [f"So far, on the {record['space']} architectures that every side has trained:"] if partial else []
    return [
        *so_far,
        f"{record['dataset']} · {record['space']} architectures · {images_words(record['arms'][0])} · protocol"
        f" {protocol_words(record['protocol'])}{' · unfinished' if partial else ''}",
        f"real ranking: {made}, {how}",
        "95 % intervals over architectures in brackets",
    ]


def _sides(record: Record) -> list[tuple[str, Record]]:
    """Title and entry of the ceiling, where it was measured, of every arm, and of the scores of untrained networks."""
    ceiling, rows = record["ceiling"], [(_title(arm), arm) for arm in record["arms"]]
    if ceiling.get("evaluated"):
        on = "" if ceiling["evaluated"] == record["space"] else f" ({ceiling['evaluated']})"
        rows.insert(0, (f"real data again{on}", ceiling))
    return rows + [(entry["method"], entry) for entry in record.get("scores", ())]


def _title(arm: Record) -> str:
    title = arm_title(arm)
    return title if len(title) <= _TITLE_WIDTH else f"{title[: _TITLE_WIDTH - 1]}…"


def _agreement(record: Record) -> list[str]:
    """How well each side ranks all architectures and the better half."""
    rows = [[title, *(_statistic(one, key) for key in _AGREEMENT)] for title, one in _sides(record)]
    return text_table(["ranked on", *_AGREEMENT.values()], rows)


def _choice(record: Record) -> list[str]:
    """What each side chooses, and how it ranks by the images set aside."""
    header = ["ranked on", *_CHOICE.values(), "by validation"]
    rows = [[title, *(_statistic(one, key) for key in _CHOICE), _by_validation(one)] for title, one in _sides(record)]
    return text_table(header, rows)


def _halving(record: Record) -> list[str]:
    """A search by successive halving with each side as its first rung."""
    entries = [(title, one["halving"]) for title, one in _sides(record) if "halving" in one]
    if not entries:
        return []
    rows = []
    for title, one in entries:
        share = f"{one['seconds'] / one['seconds_all']:.2f}" if one["seconds_all"] else HOLE
        lost = percent(one["regret"]["mean"])
        rows.append((title, f"{one['trained']:.0f}", lost, seconds_words(one["seconds"]), share))
    first = entries[0][1]
    note = (
        f"Successive halving: one of about {first['factor']} passes on to real data; means of {first['orders']} orders."
    )
    return [*text_table(_HALVING, rows), note, ""]


def _reckoned_words(record: Record) -> list[str]:
    """That the time of the real side is not a measured one."""
    if not record["reference"].get("reckoned"):
        return []
    how = "its own was not measured on their machine and as theirs"
    return [f"real data: its time is reckoned from that of the other sides, by images; {how}."]


def _part_words(record: Record) -> list[str]:
    """What of the space was left out."""
    part = record.get("part") or {}
    if not part.get("sized") or record["space"] == part["of"]:
        return []
    return [f"{record['space']} of {part['of']:,} architectures of the space: --space asks for others, or for all."]


def _by_validation(entry: Mapping[str, Any]) -> str:
    """Spearman over all with both sides ranked by accuracy on the images set aside."""
    return _statistic(entry["validation"], HEADLINE) if "validation" in entry else HOLE


def _draws_words(record: Record) -> list[str]:
    """What the draws of the floor differ by."""
    lines = []
    for arm in record["arms"]:
        values = [value for value in arm[HEADLINE].get("draws", ()) if is_number(value)]
        if len(values) > 1:
            lines.append(
                f"{arm_title(arm)}: the mean of {arm['draws']} draws, each ranked by itself; Spearman over all from"
                f" {correlation(min(values))} to {correlation(max(values))}, ± {correlation(mean_std(values, 1)[1])}"
            )
    return lines


def _statistic(entry: Mapping[str, Any], key: str) -> str:
    return with_interval(entry[key], percent if key == "regret" else None)


def _cost_rows(record: Record) -> Sequence[Sequence[str]]:
    """Images and time of the real side and of every arm, under `_COST`."""
    real = record["reference"]
    about = "≈ " if real.get("reckoned") else ""
    size, epochs, time = f"{real['images']:,}", str(real["epochs"]), about + seconds_words(real["train_s"])
    if real["kind"] == "table":
        size, epochs, time = HOLE, HOLE, seconds_words(real["train_s"]) if real["train_s"] else HOLE
    rows: list[Sequence[str]] = [("real data", size, HOLE, epochs, time, HOLE, "1")]
    for arm in record["arms"]:
        share = f"{(arm['train_s'] + (arm['distill_s'] or 0.0)) / real['train_s']:.2f}" if real["train_s"] else HOLE
        bits = bits_words(arm["bits_per_class"]["total"]) if "bits_per_class" in arm else HOLE
        seconds = (seconds_words(arm[key]) for key in ("train_s", "distill_s"))
        rows.append((_title(arm), f"{arm['images']:,}", bits, str(arm["epochs"]), *seconds, share))
    for entry in record.get("scores", ()):
        share = f"{entry['seconds'] / real['train_s']:.2f}" if real["train_s"] else HOLE
        rows.append((entry["method"], HOLE, HOLE, "0", seconds_words(entry["seconds"]), HOLE, share))
    return rows


def _most_misjudged(arm: Mapping[str, Any]) -> str:
    """The most misjudged factor of an arm in words, with its most over- and its most underrated level."""
    factor, found = next(iter(arm["misjudged"].items()))
    levels = sorted(found["levels"], key=lambda row: row["shift"])
    words = [
        f"{row['level']} {'too high' if row['shift'] < 0 else 'too low'} by {100 * abs(row['shift']):.0f} %"
        for row in (levels if len(levels) < 2 else (levels[0], levels[-1]))
    ]
    return f"{arm_title(arm)} misjudges the {factor} most: it ranks {', '.join(words)} of the ranking"

"""The replication as a page, as the head of the README, and as a picture of condensed sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from downstream.protocol import FLOOR
from fyi_bench.duration import format_duration
from fyi_bench.errors import DataError
from fyi_bench.files import between, write_bytes, write_text
from fyi_bench.present.published import FULL
from fyi_bench.present.replication.figures import figure_section
from fyi_bench.present.replication.picture import SHOWN, picture
from fyi_bench.present.replication.places import NOT_RUN, QUOTED, TABLES, Floor, Ledger, PaperNumber, ledger
from fyi_bench.present.replication.procedures import FYI_CODE, FYI_TEXT, Measured, flip_differences, measured
from fyi_bench.present.tables.forms import markdown_table
from fyi_bench.present.tables.groups import FEWEST_SETS, OUTSIDE, PAPER, PRECISION, VERDICT_RULE, Ours
from fyi_bench.present.words import (
    HOLE,
    bounds,
    count_words,
    has_interval,
    is_number,
    marked,
    numbered,
    percent,
    short,
    signed_points,
)

if TYPE_CHECKING:
    from fyi_bench.present.published import Published
    from fyi_bench.store.store import Store

PICTURE = "docs/dsa-1ipc.png"  # beside the page whose head shows it
MARKS = "<!-- replication: begin -->", "<!-- replication: end -->"
FLIPS = {"none": "", "fyi": " + FYI", "random": " + Flip"}

RANDOM_FLIP = (
    "Flip is the paper's comparison in Table A: each image is mirrored with probability 1/2 in each step, and there is "
    "no mirrored copy beside it."
)
COMMAND = "fyi-bench replication --store results --out docs/replication.md --readme README.md"
INTRODUCTION = (
    "Every published accuracy and rank correlation of the FYI paper (Tables 1, 2, 3, A and B; Table 4 is printed as a "
    "picture), beside what others measured with the authors' code, and what this code measured at the paper's length: "
    "protocol `paper`, nothing shortened. Made from the records in [`results/`](../results) by"
)
RULE = (
    f"{VERDICT_RULE} {NOT_RUN}: with the time it would take. {QUOTED}: training on whole data, which no command of "
    "ours repeats. Floor: random real images, as many and measured in the same way; each set is a draw."
)
AS_FYI = (
    "FYI's code augments otherwise than DSA's, which `paper` follows: it mirrors first, with probability 1/2, and then "
    "draws one of the five other operations; DSA's draws one of all six. It does so while condensing and when it "
    f"measures a set. `{FYI_CODE}` repeats both. FYI's text says of every method that networks are trained for 1,000 "
    f"epochs with the six operations (`{FYI_TEXT}`); the code of DC, which `paper` follows, trains 300 epochs without "
    "any. The same sets measured in each way (`fyi-bench evaluate SET --protocol NAME`) tell how much of a gap is the "
    "evaluation's. Published numbers without FYI are those of the methods' own papers, with Flip those of FYI's Table "
    "A. Precision: of condensing / of measuring."
)
MEASURED_BY = {FYI_CODE: "as FYI's code does", FYI_TEXT: "as FYI's text says"}
SIZES = "sets × networks, seeds"
_HEADER = (
    "place", "network", "published, %", "in", "by others, %", "ours, %", SIZES, "between sets",
    "between networks", "gap", "verdict", "machine, precision",
)  # fmt: skip


def page(store: Store) -> str:
    """Every published number of the FYI paper beside what others and we measured, as Markdown."""
    found = ledger(store)
    counts = Counter(place.verdict for place in found.places)
    lines = [
        "# Replication",
        "",
        INTRODUCTION,
        "",
        f"    {COMMAND}",
        "",
        "after more runs came in by `fyi-bench store merge STORE --excerpt paper --store results`.",
        "",
        f"Of {len(found.places)} numbers: {', '.join(f'{n} {word}' for word, n in counts.most_common())}.",
        "",
        RULE,
        "",
        *_pace_lines(found),
        *_flip_section(found.places),
        *_procedures(store),
    ]
    marks = _marks([*found.places, *found.floors])
    for label in dict.fromkeys(place.first.dataset_label for place in found.places):
        lines += ["", f"## {label}", "", *markdown_table(_HEADER, _rows(label, found, marks))]
    lines += [*_legend(marks), *figure_section(store, found.pace)]
    return "\n".join([*lines, *_contradictions(found.places), *_quoted(found)]) + "\n"


def head(store: Store) -> str:
    """The picture and the numbers at one image a class, as Markdown for the top of the README."""
    found = ledger(store)
    dataset, ipc, method = SHOWN
    plain, flipped, real = (
        found.unequalness.get((dataset, ipc, *arm), ()) for arm in ((method, "none"), (method, "fyi"), (FLOOR, "none"))
    )
    ours = [place for place in found.places if place.ours is not None and place.first.ipc == ipc]
    title = method.upper()
    shown = [place for place in ours if place.first.dataset == dataset]
    methods = [place.first.method for place in shown]  # arms of Table A beside the others of their method
    shown.sort(key=lambda place: methods.index(place.first.method))
    floors = [one for one in found.floors if (one.of[0].first.dataset, one.of[0].first.ipc) == (dataset, ipc)]
    otherwise = [
        one for one in measured(store)
        if (one.first.dataset, one.first.ipc, one.condensed_by) == (dataset, ipc, PAPER)
        and one.measured_by in MEASURED_BY
    ]  # fmt: skip
    marks = _marks([*shown, *floors], map(_precision_mark, otherwise))
    rows = [
        [
            _label(place.first), _published(place.first), _ours(place.ours, marks), _sizes(place.sets),
            _score(found.unequalness.get((dataset, ipc, place.first.method, place.first.flip), ())),
        ]
        for place in shown
    ]  # fmt: skip
    rows += [
        [_floor_label(floor, "measured as"), HOLE, _ours(floor.ours, marks), _sizes(floor.ours.sets), ""]
        for floor in floors
    ]  # fmt: skip
    rows += [
        [f"{_label(one.first)}, measured {MEASURED_BY[one.measured_by]}", _published(one.first),
         marked(_mean_of_sets(one.interval), filter(None, [_precision_mark(one)]), marks), _sizes(one.sets), ""]
        for one in otherwise
    ]  # fmt: skip
    return "\n".join((
        f"![Ten condensed images, one a class, by {title} and by {title} with FYI]({PICTURE})",
        "",
        f"CIFAR-10 in one image a class, sets of the first seed: {title} above, {title} + FYI below.",
        f"Unequalness of a set and its mirror image (0: symmetric) is in the mean {_score(plain)} without FYI"
        f" ({count_words(len(plain), 'set')}), {_score(flipped)} with it",
        f"({count_words(len(flipped), 'set')}) and {_score(real)} for random real images"
        f" ({count_words(len(real), 'draw')}). At the paper's length (protocol `paper`):",
        "",
        *markdown_table(("", "published, %", "ours, %", SIZES, "unequalness"), rows),
        *_legend(marks, f"On {_machines([*shown, *floors])}."),
        "",
        RANDOM_FLIP,
        "What FYI gains depends on how the sets are measured: [as FYI measures](docs/replication.md#as-fyi-measures).",
        f"Made by `{COMMAND}`; every number of the paper: [docs/replication.md](docs/replication.md).",
    ))  # fmt: skip


def renew(store: Store, readme: Path) -> list[Path]:
    """Write the head between its marks in this page and the picture beside it; what was written.

    Raises DataError where the page has no marks.
    """
    try:
        text = between(readme.read_text(encoding="utf-8"), MARKS, head(store))
    except (FileNotFoundError, ValueError):
        missing = f"{readme} is no file with the lines {MARKS[0]} and {MARKS[1]}.\nPut them where the head belongs."
        raise DataError(missing) from None
    return [write_text(readme, text), write_bytes(readme.parent / PICTURE, picture(store))]


def _marks(numbers: Sequence[PaperNumber | Floor], more: Iterable[str] = ()) -> dict[str, int]:
    """What is to be said of these numbers of ours, and more of that -> the mark that stands beside them."""
    ours = [one.ours for one in numbers if one.ours is not None]
    return numbered([*(mark for one in ours for mark in one.marks), *filter(None, more)])


def _precision_mark(one: Measured) -> str:
    """What is to be said of accuracies that were not computed in fp32; '' of others."""
    said = "mixed" if len(set(one.precision)) > 1 else one.precision[0]
    return "" if said == "fp32" else PRECISION + said


def _legend(marks: Mapping[str, int], last: str = "") -> list[str]:
    told = [f"[{number}] {mark}".rstrip(".") + "." for mark, number in marks.items()]
    return ["", " ".join(filter(None, [*told, last]))] if told or last else []


def _machines(numbers: Sequence[PaperNumber | Floor]) -> str:
    return ", ".join(dict.fromkeys(name for one in numbers for name in one.machine.split(" / ") if name))


def _rows(dataset: str, found: Ledger, marks: Mapping[str, int]) -> list[list[str]]:
    """Floors and numbers of a data set by images a class, whole data last; else in the paper's order."""
    rows = [(floor.of[0].first, _floor_row(floor, marks)) for floor in found.floors]
    rows += [(place.first, _row(place, found, marks)) for place in found.places]
    here = [(first.ipc, row) for first, row in rows if first.dataset_label == dataset]
    return [row for _, row in sorted(here, key=lambda one: (one[0] is None, one[0] or 0))]


def _row(place: PaperNumber, found: Ledger, marks: Mapping[str, int]) -> list[str]:
    first, words = place.first, place.verdict
    words = f"**{words}**" if words == OUTSIDE else words
    if words == NOT_RUN:
        seconds = found.pace.seconds(first, FEWEST_SETS)
        how = "about" if first.method in found.pace.sets else "roughly"
        words += ", not estimated" if seconds is None else f": {how} {format_duration(seconds)}"
    return [
        _label(first) + ("" if first.ipc is None else f", {first.ipc} IPC"),
        first.arch if first.unit == "fraction" else f"{first.arch}, {first.metric}",
        _published(first) + (" ⚠" if place.contradicts else ""),
        ", ".join(row.source.removeprefix("FYI paper ") for row in place.published if row.table in TABLES),
        HOLE if place.replicated is None else _published(place.replicated),
        _ours(place.ours, marks),
        _sizes(place.sets),
        _spread(place.ours, "between_sets"),
        _spread(place.ours, "between_networks"),
        HOLE if place.gap is None else signed_points(place.gap),
        words,
        ", ".join(filter(None, (place.machine, place.precision))),
    ]


def _floor_row(floor: Floor, marks: Mapping[str, int]) -> list[str]:
    first, ours = floor.of[0].first, floor.ours
    spreads = _spread(ours, "between_sets"), _spread(ours, "between_networks")
    return [
        f"{_floor_label(floor, 'as')}, {first.ipc} IPC", first.arch, HOLE, "", HOLE, _ours(ours, marks),
        _sizes(ours.sets),
        *spreads, HOLE, "floor", f"{floor.machine}, {floor.precision}",
    ]  # fmt: skip


def _floor_label(floor: Floor, how: str) -> str:
    """'Random real images, measured as DC, DM': the methods whose sets it is the floor of."""
    methods = dict.fromkeys(place.first.method_label.split("+Flip")[0] for place in floor.of)
    return f"Random real images, {how} {', '.join(methods)}"


def _label(row: Published) -> str:
    return "Whole data" if row.method == FULL else row.method_label.split("+Flip")[0] + FLIPS[row.flip]


def _published(row: Published) -> str:
    if row.unit != "fraction":
        return f"{row.value:.3f}"
    return percent(row.value) + (f" ± {percent(row.std)}" if row.std is not None else "")


def _ours(ours: Ours | None, marks: Mapping[str, int]) -> str:
    """Our mean with its interval over sets, or with the deviation of networks where there is one set, and its marks."""
    if ours is None:
        return HOLE
    if ours.low is not None:  # a rank correlation
        return marked(f"{ours.mean:.3f} [{ours.low:.3f}, {ours.high:.3f}]", ours.marks, marks)
    spread = f" ± {percent(ours.std)}" if ours.interval["low"] is None else ""
    return marked(_mean_of_sets(ours.interval) + spread, ours.marks, marks)


def _spread(ours: Ours | None, what: str) -> str:
    found = None if ours is None else ours.spread[what]
    return percent(found) if is_number(found) else ""


def _score(values: Sequence[float]) -> str:
    return short(sum(values) / len(values) if values else None, 3)


def _pace_lines(found: Ledger) -> list[str]:
    pace = found.pace
    if not pace.sets:
        return []
    return [
        f"Times of holes are of {FEWEST_SETS} sets and their networks, one after the other by one process, in"
        f" proportion to the runs of `results/` on one machine ({pace.machine}): sets of {', '.join(pace.sets)} and"
        " their networks were measured there. The proportion is that of image passes and floating-point operations"
        " (`fyi_bench/present/replication/cost.py`). *Roughly*: no set of the method was measured, so it is held"
        " against the others, and experts are not counted. A rank correlation needs the 720 networks on whole data too,"
        " which all of them share. Runs that shared their machine took longer than they would"
        " alone, and so do these estimates.",
        "",
    ]


def _flip_section(places: Sequence[PaperNumber]) -> list[str]:
    rows = [
        [
            f"{_label(p.first)}, {p.first.dataset_label} {p.first.ipc} IPC, {p.first.arch}",
            signed_points(p.published_difference), _difference(p), str(p.difference["pairs"]),
        ]
        for p in places if p.difference is not None and p.first.unit == "fraction"
    ]  # fmt: skip
    if not rows:
        return []
    header = ("flip − none", "published, points", "ours, points [95 % interval]", "pairs")
    text = "A pair is a set with and one without the flip from the same seed; with one set, a network on each. "
    text += RANDOM_FLIP
    return ["## What the flip changes", "", text, "", *markdown_table(header, rows)]


def _procedures(store: Store) -> list[str]:
    """The section on sets that were measured as FYI's code does too."""
    found = measured(store)
    if not found:
        return []
    rows = []
    for one in found:
        gap = signed_points(one.interval["mean"] - one.first.value)
        rows.append([
            f"{_label(one.first)}, {one.first.dataset_label} {one.first.ipc} IPC", _published(one.first),
            one.condensed_by, one.measured_by, _mean_of_sets(one.interval), _sizes(one.sets), gap,
            " / ".join(one.precision),
        ])  # fmt: skip
    changes = [
        [f"{_label(flipped.first)}, {flipped.first.dataset_label} {flipped.first.ipc} IPC", flipped.condensed_by,
         flipped.measured_by, plain.measured_by, signed_points(flipped.first.value - plain.first.value),
         signed_points(change["mean"]) + bounds(change, signed_points), str(change["n"])]
        for flipped, plain, change in flip_differences(found)
    ]  # fmt: skip
    header = (
        "place", "published, %", "condensed by", "measured by", "ours, % [95 % interval]", SIZES, "gap",
        "precision",
    )  # fmt: skip
    text = ["", "## As FYI measures", "", AS_FYI, "", *markdown_table(header, rows)]
    if not changes:
        return text
    of_changes = (
        "flip − none", "condensed by", "with measured by", "without measured by", "published, points",
        "ours, points [95 % interval]", "pairs",
    )  # fmt: skip
    return [*text, "", *markdown_table(of_changes, changes)]


def _mean_of_sets(found: Mapping[str, Any]) -> str:
    """A mean over sets with its interval, in percent."""
    return percent(found["mean"]) + bounds(found, percent)


def _sizes(sets: Mapping[int, Sequence[float]]) -> str:
    """How many sets, networks on each, and the seeds of the sets: '3 × 20, seeds 0, 1, 2'."""
    sizes = sorted({len(values) for values in sets.values()})
    seeds = f"{'seed' if len(sets) == 1 else 'seeds'} {', '.join(map(str, sorted(sets)))}"
    return f"{len(sets)} × {'–'.join(map(str, sizes))}, {seeds}" if sizes else ""


def _difference(place: PaperNumber) -> str:
    found = place.difference
    assert found is not None  # asked for those that have one
    return signed_points(found["mean"]) + (bounds(found, signed_points) if has_interval(found) else "")


def _contradictions(places: Sequence[PaperNumber]) -> list[str]:
    rows = []
    for place in (one for one in places if one.contradicts):
        values = [f"{_published(row)} ({row.source}{f'; {row.note}' if row.note else ''})" for row in place.published]
        spread = max(row.value for row in place.published) - min(row.value for row in place.published)
        first = place.first
        name = f"{_label(first)}, {first.dataset_label} {first.ipc} IPC, {first.arch}"
        rows.append([name, "; ".join(values), percent(spread), "yes" if spread > (first.std or 0.0) else "no"])
    if not rows:
        return []
    text = "Marked ⚠ above: publications that print different numbers for one method, data set, size and network."
    header = ("place", "published, %", "apart, points", "more than the deviation")
    return ["", "## Contradictions between published numbers", "", text, "", *markdown_table(header, rows)]


def _quoted(found: Ledger) -> list[str]:
    rows = []
    for place in found.quoted:
        first, again = place.first, place.replicated
        assert again is not None  # what `quoted` holds
        known = first is not again
        rows.append([
            f"{first.method_label}, {first.dataset_label} {first.ipc} IPC", first.arch,
            _published(first) if known else HOLE, _published(again),
            signed_points(again.value - first.value) if known else HOLE, first.source if known else "", again.source,
        ])  # fmt: skip
    if not rows:
        return []
    text = "Methods outside the FYI paper whose numbers others measured with the authors' code."
    if all(place.replicated is None for place in found.places):
        text += " Of the paper's own methods no such measurement is known."
    header = ("place", "network", "published, %", "by others, %", "gap, points", "published in", "by others in")
    return ["", "## Replicated by others", "", text, "", *markdown_table(header, rows)]

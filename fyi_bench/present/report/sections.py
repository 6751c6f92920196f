"""What the report says about one record: a section a record, its parts by the kind of task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import FyiBenchError
from fyi_bench.present.faithful import difference_of_search, faithful_words, rules_words, with_interval
from fyi_bench.present.figures import nas
from fyi_bench.present.figures.continual import continual_drawing
from fyi_bench.present.figures.dots import accuracy_drawing, unequalness_drawing
from fyi_bench.present.figures.evolution import LOSS_CAVEAT, curves_drawing, loss_curve
from fyi_bench.present.figures.style import Drawing
from fyi_bench.present.images import Mosaic, as_pictures, find_set, mosaics, title_of
from fyi_bench.present.page import TableView
from fyi_bench.present.report.provenance import Facts, record_facts, set_facts
from fyi_bench.present.show import network_cost
from fyi_bench.present.show_nas import COST, MISJUDGED, asked_arm, cost_rows, misjudged_rows
from fyi_bench.present.show_robust import ACCURACY_HEADER, SCORES, accuracy_rows, cost_words, score_rows
from fyi_bench.present.words import (
    CHOSEN_ON_TEST,
    HOLE,
    arm_title,
    bytes_words,
    count_words,
    difference_of_record,
    has_interval,
    mean_and_std,
    percent,
    protocol_words,
    seconds_words,
    short,
    unequalness_of,
)

if TYPE_CHECKING:
    from distill.image_set import ImageSet
    from fyi_bench.store.store import Store

Record = Mapping[str, Any]
WIDE, NARROW = 6.8, 3.75  # inches of a figure on a desk and on a telephone
MOST_NUMBERS = 4  # architectures in the line at the top

UNEQUALNESS_CAPTION = (
    "How far the mean features of a class change when its images are mirrored (eq. 5 of the paper, DM distance): 0 "
    "for a set that holds every image's mirror image. Random real images show the score of as many real images."
)


@dataclass(frozen=True)
class FigureView:
    """One figure at two widths, as SVG elements, with what is to be known beside it."""

    title: str
    caption: str
    wide: str
    narrow: str


@dataclass
class Section:
    """Everything the page shows of one record."""

    key: str
    kind: str
    title: str
    facts: list[tuple[str, str]]
    command: str | None
    protocol: str = ""
    headline: str | None = None
    tone: str = "unknown"
    tables: list[TableView] = field(default_factory=list)
    figures: list[FigureView] = field(default_factory=list)
    mosaics: list[Mosaic] = field(default_factory=list)
    legend: str = ""
    provenance: list[Facts] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SectionMaker:
    """How records of a task look on the page. fill(record, section, store): puts in tables, figures, images.

    heading: stands above the title of its sections.
    """

    heading: str
    fill: Callable[[Record, Section, Store | None], None]


_COUNTED = ("space", "evaluated", "failed")


def section_of(record: Record, key: str, store: Store | None, makers: Mapping[str, SectionMaker]) -> Section:
    """The section of a record; key: unique on the page. Sets that cannot be read are said, not skipped in silence."""
    maker = makers.get(record["task"])
    kind = maker.heading if maker else record["task"]
    section = Section(key, kind, _title(record), _facts(record), command_of(record))
    section.headline, section.tone = headline(record)
    protocol = record["protocol"]
    section.protocol = protocol if isinstance(protocol, str) else protocol["name"]
    section.provenance = record_facts(record)
    section.notes += [CHOSEN_ON_TEST] if record.get("chosen_on_test") else []
    if maker:
        maker.fill(record, section, store)
    else:
        section.notes.append(f"There is no layout for records of the task '{record['task']}': see its provenance.")
    return section


def headline(record: Record) -> tuple[str | None, str]:
    """The paired difference in words, and whether it speaks: better, worse or unknown, as it is with one seed.

    Without a pair the main numbers, where there are few.
    """
    flips = [arm["flip"] for arm in record["arms"] if arm["flip"] not in ("none", "unknown")]
    difference = record.get("difference")
    if not flips or difference is None:
        return _numbers(record), "unknown"
    tone = "unknown"
    if has_interval(difference) and len(record["seeds"]) > 1:
        tone = "better" if difference["low"] > 0 else "worse" if difference["high"] < 0 else "unknown"
    return difference_of_record(record, flips[0]), tone


def _numbers(record: Record) -> str | None:
    """What a record of a single set found, in one line."""
    arm = record["arms"][0]
    entries = arm.get("architectures", [])
    if len(record["arms"]) > 1 or not entries:
        return None
    return ", ".join(f"{entry['name']} {mean_and_std(entry)}" for entry in entries[:MOST_NUMBERS]) + " %"


def command_of(record: Record) -> str | None:
    """The command of a record as one line for a shell, where it is known."""
    import shlex

    command = record.get("command")
    return shlex.join(map(str, command)) if isinstance(command, list) else command


def accuracy_parts(record: Record, section: Section, store: Store | None) -> None:
    """Accuracy of every arm on every architecture, cost and symmetry of the sets."""
    arms = record["arms"]
    names = list(dict.fromkeys(entry["name"] for arm in arms for entry in arm.get("architectures", [])))
    header = ["", *(f"{name}, %" for name in names)]
    rows = [[arm_title(arm), *(_accuracy(arm, name) for name in names)] for arm in arms]
    if any("iterations" in arm for arm in arms):
        header += ["unequalness", "loss first → last", "iterations", "time a set"]
        rows = [row + _set_columns(arm) for row, arm in zip(rows, arms, strict=True)]
    section.tables.append(TableView("Mean ± standard deviation over networks and sets.", header, rows))
    if any("seconds" in entry for arm in arms for entry in arm.get("architectures", [])):
        costs = [[name, *network_cost(record, name)] for name in names]
        section.tables.append(TableView("Cost of a network.", ["", "training and testing", "memory"], costs))
    if names:
        section.figures.append(
            _figure("Accuracy", "A dot is one network; the bar is the mean.",
                    lambda name, width: accuracy_drawing(record, name, width), f"{section.key}-accuracy")
        )  # fmt: skip
    _add_unequalness(record, section)
    _add_sets(record, section, store)


def continual_parts(record: Record, section: Section, store: Store | None) -> None:
    """The curves, and the numbers behind them."""
    arms = record["arms"]
    several = any(len(row["values"]) > 1 for arm in arms for row in arm["accuracy"])
    section.figures.append(
        _figure("Accuracy on all classes seen so far, %",
                "Band: ± one standard deviation over runs." if several else "One run a step.",
                lambda name, width: continual_drawing(record, name, (width, 3.2 if width > 5 else 2.9), bare=True),
                f"{section.key}-curves")
    )  # fmt: skip
    header = ["classes seen", *(f"{arm_title(arm)}, %" for arm in arms)]
    rows = [
        [str(step[0]["classes_seen"]), *map(mean_and_std, step)] for step in zip(*(arm["accuracy"] for arm in arms))
    ]
    averages = all("average" in arm for arm in arms)
    if averages:
        rows.append(["average over steps", *(mean_and_std(arm["average"]) for arm in arms)])
    runs = count_words(len(record["class_orders"]), "class order")
    caption = f"Mean ± standard deviation over {runs}." if several else "One run a step."
    section.tables.append(TableView(caption, header, rows, int(averages)))
    _add_unequalness(record, section)
    _add_sets(record, section, store)


def nas_parts(record: Record, section: Section, store: Store | None) -> None:
    """How well a search on the set ranks the architectures, in words and numbers; the dots; what is misjudged."""
    arms = record["arms"]
    if "difference" in record:
        section.headline = difference_of_search(record, asked_arm(record)["flip"])
    keys = ("spearman_all", "spearman_top50", "kendall_all", "kendall_top50", "top10_recall", "regret")
    names = {"regret": "regret, points", "top10_recall": "recall of the 10 best"}
    titles = list(map(arm_title, arms))
    columns = [*([record["ceiling"]] if record["ceiling"].get("evaluated") else []), *arms]
    header = ["", *(["real, another seed"] if len(columns) > len(arms) else []), *titles]
    rows = [
        [
            names.get(key, key.replace("_", ", ")),
            *(with_interval(one[key], percent if key == "regret" else None) for one in columns),
        ]
        for key in keys
    ]
    rows += [[what, *(str(one.get(what, record.get(what, HOLE))) for one in columns)] for what in _COUNTED]
    section.tables.append(TableView("Agreement with the ranking by real data, with 95 % intervals.", header, rows))
    if "architectures" not in record:
        return
    section.notes += faithful_words(record, " ") + rules_words(record)
    section.figures.append(
        _figure(nas.TITLE, nas.nas_caption(record),
                lambda name, width: nas.nas_drawing(record, name=name, bare=True, columns=2 if width > 5 else 1),
                f"{section.key}-ranks")
    )  # fmt: skip
    section.tables.append(TableView("Images and time.", list(COST), cost_rows(record)))
    asked = asked_arm(record)
    caption = f"What {arm_title(asked)} misjudges, the worst factor first, in percent of the ranking."
    section.tables.append(TableView(caption, list(MISJUDGED), misjudged_rows(asked)))


def robust_parts(record: Record, section: Section, store: Store | None) -> None:
    """The scores, the accuracies they are made of, and what the set costs."""
    arm, rules = record["arms"][0], record["rules"]
    scores = (f"{name} {mean_and_std(arm[key])}" for key, name in SCORES.items() if key.endswith("_robust"))
    section.headline = f"{', '.join(scores)} (in %)"
    section.tables.append(
        TableView(
            f"{arm['model']}, in % of 1: both scores lie between 0 and 100. {cost_words(arm)}.",
            ["", "%", "95 % interval"],
            score_rows(arm),
        )
    )
    tried = ", ".join(f"{lr:g}" for lr in rules["lrs"])
    caption = (
        f"Step sizes tried for every arm: {tried}, judged on {100 * rules['validation']:g} % of the train images, which"
        f" are set aside. Real side: {record['reference']}."
    )
    section.tables.append(TableView(caption, list(ACCURACY_HEADER), accuracy_rows(arm)))
    _add_sets(record, section, store)


def experts_parts(record: Record, section: Section, store: Store | None) -> None:
    """What was trained, and how far its loss went down."""
    rows = [
        [arm["method"], str(len(arm["losses"])), str(len(arm["losses"][0])), short(_mean_last(arm["losses"]), 3),
         bytes_words(arm["bytes"]), seconds_words(sum(arm["expert_s"]))]
        for arm in record["arms"]
    ]  # fmt: skip
    header = ["", "experts", "epochs", "mean last loss", "size", "time"]
    section.tables.append(TableView("Networks trained on real images, kept epoch by epoch.", header, rows))


def _mean_last(losses: list[list[float]]) -> float:
    return sum(one[-1] for one in losses) / len(losses)


# by task, in the order of the page
MAKERS = {
    "distill": SectionMaker("Condensed sets", accuracy_parts),
    "accuracy": SectionMaker("Accuracy of a set", accuracy_parts),
    "cross-arch": SectionMaker("Other architectures", accuracy_parts),
    "robust": SectionMaker("Robust scores", robust_parts),
    "continual": SectionMaker("Continual learning", continual_parts),
    "nas": SectionMaker("Architecture search", nas_parts),
    "experts": SectionMaker("Expert trajectories", experts_parts),
}


def _title(record: Record) -> str:
    arms = record["arms"]
    methods = " and ".join(dict.fromkeys(arm["method"] for arm in arms if arm["method"] != "random")) or "random"
    ipc = f", {count_words(arms[0]['ipc'], 'image')} per class" if arms[0].get("ipc") else ""
    steps = f", {count_words(record['steps'], 'step')}" if "steps" in record else ""
    return f"{methods} on {record['dataset']}{ipc}{steps}"


def _facts(record: Record) -> list[tuple[str, str]]:
    facts = [
        ("protocol", protocol_words(record["protocol"])),
        ("seeds", str(len(record["seeds"]))),
        ("device", f"{record['device']}, {record['precision']}"),
        ("time", seconds_words(record["wall_s"])),
        ("data", record.get("data", {}).get("note", "")),
    ]
    return [(name, value) for name, value in facts if value]


def _accuracy(arm: Mapping[str, Any], name: str) -> str:
    return next((mean_and_std(entry) for entry in arm.get("architectures", []) if entry["name"] == name), HOLE)


def _set_columns(arm: Mapping[str, Any]) -> list[str]:
    taken = arm.get("distill_s")
    loss = f"{short(arm['loss_first'], 3)} → {short(arm['loss_last'], 3)}" if arm["loss_first"] is not None else HOLE
    seconds = sum(taken) / len(taken) if isinstance(taken, list) and taken else taken
    return [short(unequalness_of(arm), 3), loss, str(arm["iterations"]), seconds_words(seconds)]


def _add_unequalness(record: Record, section: Section) -> None:
    if any(unequalness_of(arm) is not None for arm in record["arms"]):
        section.figures.append(
            _figure("Unequalness", UNEQUALNESS_CAPTION, lambda name, width: unequalness_drawing(record, name, width),
                    f"{section.key}-unequalness")
        )  # fmt: skip


def _add_sets(record: Record, section: Section, store: Store | None) -> None:
    """Images, loss curves and recipes out of the files of the sets."""
    found: list[tuple[Mapping[str, Any], ImageSet]] = []
    shown: list[tuple[str, ImageSet]] = []
    for arm in record["arms"]:
        if not (arm.get("set") or arm.get("cells")):
            continue
        try:
            found.append((arm, find_set(arm, record, store)))
            shown.append((title_of(arm), as_pictures(found[-1][1])))
        except FyiBenchError as error:
            section.notes.append(f"The images of {arm_title(arm)} are not shown. {str(error).splitlines()[0]}")
    if shown:
        section.mosaics, section.legend = mosaics(shown)
    curves = [curve for curve in (loss_curve(one.provenance) for _, one in found) if curve is not None]
    if curves:
        caption = f"First set of each arm. {LOSS_CAVEAT}" if len(curves) > 1 else "First set of the arm."
        section.figures.append(
            _figure("Loss while condensing", caption,
                    lambda name, width: curves_drawing(curves, name, (width, 2.9 if width > 5 else 2.6), "loss"),
                    f"{section.key}-loss")
        )  # fmt: skip
    section.provenance += [set_facts(arm_title(arm), one.provenance) for arm, one in found]


def _figure(title: str, caption: str, drawing: Callable[[str, float], Drawing], name: str) -> FigureView:
    wide, narrow = (drawing(f"{name}-{kind}", w).inline(title) for kind, w in (("wide", WIDE), ("narrow", NARROW)))
    return FigureView(title, caption, wide, narrow)

"""What the report says about one record: a section a record; what is particular to its task, the task fills in."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from fyi_bench.errors import FyiBenchError
from fyi_bench.present.figures.dots import unequalness_drawing
from fyi_bench.present.figures.evolution import LOSS_CAVEAT, curves_drawing, loss_curve
from fyi_bench.present.figures.style import Drawing
from fyi_bench.present.images import Mosaic, as_pictures, find_set, mosaics, title_of
from fyi_bench.present.page import TableView
from fyi_bench.present.report.provenance import Facts, record_facts, set_facts
from fyi_bench.present.words import (
    CHOSEN_ON_TEST,
    arm_title,
    count_words,
    difference_of_record,
    has_interval,
    mean_and_std,
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
# what sets are held against: a title names the sets
_BESIDE = ("random", "herding", "early-stopping", "joint", "fine-tuning", "er", "icarl", "der++")
MOST_NUMBERS = 6  # architectures or arms in the line at the top

UNEQUALNESS_CAPTION = (
    "How far the mean features of a class change when its images are mirrored (eq. 5 of the paper, DM distance): 0 "
    "for a set that holds every image's mirror image. Random real images show the score of as many real images."
)


@dataclass(frozen=True)
class FigureView:
    """One figure, drawn at two widths as SVG elements, with what is to be known beside it.

    name: what it is called among those of its section. key: of the section.
    """

    title: str
    caption: str
    name: str
    key: str
    drawing: Callable[[str, float], Drawing]

    @property
    def wide(self) -> str:
        """For a desk."""
        return self.drawing(f"{self.key}-{self.name}-wide", WIDE).inline(self.title)

    @property
    def narrow(self) -> str:
        """For a telephone."""
        return self.drawing(f"{self.key}-{self.name}-narrow", NARROW).inline(self.title)


@dataclass
class Section:
    """Everything the page shows of one record. key: unique on the page."""

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

    def table(
        self, caption: str, header: Sequence[str], rows: Sequence[Sequence[str]], marked: int = 0, prose: bool = False
    ) -> None:
        """Add a table; `marked` is the number of rows at its end that are sums of the others, prose as in TableView."""
        self.tables.append(TableView(caption, list(header), rows, marked, prose))

    def figure(self, title: str, caption: str, name: str, drawing: Callable[[str, float], Drawing]) -> None:
        """Add a figure, drawn by drawing(name unique on the page, width in inches)."""
        self.figures.append(FigureView(title, caption, name, self.key, drawing))

    def sets(self, record: Record, store: Store | None) -> None:
        """Add symmetry, images, loss curves and recipes of the arms' sets. One that cannot be read is said."""
        if any(unequalness_of(arm) is not None for arm in record["arms"]):
            self.figure(
                "Unequalness", UNEQUALNESS_CAPTION, "unequalness",
                lambda name, width: unequalness_drawing(record, name, width),
            )  # fmt: skip
        found: list[tuple[Mapping[str, Any], ImageSet]] = []
        shown: list[tuple[str, ImageSet]] = []
        for arm in record["arms"]:
            if not (arm.get("set") or arm.get("cells")):
                continue
            try:
                found.append((arm, find_set(arm, record, store)))
                shown.append((title_of(arm), as_pictures(found[-1][1])))
            except FyiBenchError as error:
                self.notes.append(f"The images of {arm_title(arm)} are not shown. {str(error).splitlines()[0]}")
        if shown:
            self.mosaics, self.legend = mosaics(shown)
        curves = [curve for curve in (loss_curve(one.provenance) for _, one in found) if curve is not None]
        if curves:
            first = "First set of the arm." if len(record["seeds"]) > 1 else ""
            caption = f"First set of each arm. {LOSS_CAVEAT}" if len(curves) > 1 else first
            self.figure(
                "Loss while condensing", caption, "loss",
                lambda name, width: curves_drawing(curves, name, (width, 2.9 if width > 5 else 2.6), "loss"),
            )  # fmt: skip
        self.provenance += [set_facts(arm_title(arm), one.provenance) for arm, one in found]


class SectionMaker(Protocol):
    """How records of a task look on the page: `fyi_bench.tasks.base.Task` is one.

    heading: stands above the title of its sections. section(record, section, store): puts in tables, figures, images.
    """

    @property
    def heading(self) -> str: ...

    def section(self, record: Record, section: Section, store: Store | None, /) -> None: ...


def section_of(record: Record, key: str, store: Store | None, makers: Mapping[str, SectionMaker]) -> Section:
    """The section of a record; key: unique on the page. A task that none of the makers is for has its facts alone."""
    maker = makers.get(record["task"])
    section = Section(
        key, maker.heading if maker else record["task"], _title(record), _facts(record), command_of(record)
    )
    section.headline, section.tone = headline(record)
    protocol = record["protocol"]
    section.protocol = protocol if isinstance(protocol, str) else protocol["name"]
    section.provenance = record_facts(record)
    section.notes += [CHOSEN_ON_TEST] if record.get("chosen_on_test") else []
    if maker:
        maker.section(record, section, store)
    else:
        section.notes.append(f"There is no layout for records of the task '{record['task']}': see its provenance.")
    return section


def headline(record: Record) -> tuple[str | None, str]:
    """What was found: the main number of each arm, and the paired difference where arms differ in the flip alone.

    With it whether the difference speaks: better, worse or unknown, as it is with one seed.
    """
    flips = [arm["flip"] for arm in record["arms"] if arm["flip"] not in ("none", "unknown")]
    difference, numbers = record.get("difference"), _numbers(record)
    if not flips or difference is None:
        return numbers, "unknown"
    tone = "unknown"
    if has_interval(difference) and len(record["seeds"]) > 1:
        tone = "better" if difference["low"] > 0 else "worse" if difference["high"] < 0 else "unknown"
    return " ".join(filter(None, [numbers, f"{difference_of_record(record, flips[0])}."])), tone


def _numbers(record: Record) -> str | None:
    """'convnet: dm 46.0 ± 0.8, random 29.0 ± 0.8 %.': accuracy of every arm, of steps their average, else unequalness.

    Of a single set on all its architectures; of several arms on the first one.
    """
    arms = record["arms"]
    entries = arms[0].get("architectures", [])
    if len(arms) == 1 and entries:
        return ", ".join(f"{entry['name']} {mean_and_std(entry)}" for entry in entries[:MOST_NUMBERS]) + " %."
    found: list[tuple[Any, Any]] = [(arm, arm["architectures"][0]) for arm in arms if arm.get("architectures")]
    what = entries[0]["name"] if entries else ""
    if not found:
        found = [(arm, arm["average"]) for arm in arms if "average" in arm]
        what = "Average over steps"
    if found:
        told = ", ".join(f"{arm_title(arm)} {mean_and_std(entry)}" for arm, entry in found[:MOST_NUMBERS])
        return f"{what}: {told} %."
    scores = [(arm, score) for arm in arms if (score := unequalness_of(arm)) is not None]
    told = ", ".join(f"{arm_title(arm)} {short(score, 3)}" for arm, score in scores[:MOST_NUMBERS])
    return f"Unequalness: {told}." if told else None


def command_of(record: Record) -> str | None:
    """The command of a record as one line for a shell, where it is known."""
    command = record.get("command")
    return shlex.join(map(str, command)) if isinstance(command, list) else command


def _title(record: Record) -> str:
    arms = record["arms"]
    names = [arm.get("name") or arm["method"] for arm in arms if arm["method"] not in _BESIDE]
    methods = " and ".join(dict.fromkeys(names or [arms[0].get("name") or arms[0]["method"]]))
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

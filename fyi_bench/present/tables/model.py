"""What a table is made of: rows and columns of the paper, and a cell that says everything about its number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fyi_bench.present.missing import Missing
from fyi_bench.present.published import Published
from fyi_bench.present.words import HOLE, is_number

PAPER = "paper"
ROUNDING = 0.001  # published accuracies have one decimal in percent: 0.1 points

VERDICT_RULE = (
    "within: |ours − published| is at most √(our std² + published std²), the spread of single runs, and at least 0.1 "
    "points are allowed for rounding; above, below: farther away. Other protocols than “paper” are not compared."
)


@dataclass(frozen=True)
class Row:
    """A row of the paper's table: a method with a flip."""

    method: str
    flip: str
    label: str


@dataclass(frozen=True)
class Column:
    """A column: data set, images a class (None: all), architecture and metric; heading and sub-heading as printed."""

    dataset: str
    ipc: int | None
    arch: str
    metric: str
    heading: str
    label: str

    @property
    def measurable(self) -> bool:
        """Whether a command of ours measures it; times and numbers of images are only quoted."""
        return self.metric == "accuracy" or self.metric.startswith("spearman")

    @property
    def title(self) -> str:
        """Heading and label in one."""
        return " ".join(filter(None, (self.heading, self.label)))


@dataclass(frozen=True)
class Ours:
    """Our number in a cell, all its values measured by one protocol from one setting.

    values: by (seed of the set, seed of the network), fractions for accuracies. expected: values the protocol asks for.
    low, high: 95 % interval where the metric has one. differs: what is not as published, in words.
    """

    values: Mapping[tuple[int, int], float]
    mean: float
    std: float
    protocol: str
    version: int
    expected: int
    low: float | None = None
    high: float | None = None
    setup: str = ""
    differs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One place of a table.

    asked: the paper has a number here, readable or not. difference: ours with the flip minus ours without, {mean, low,
    high, pairs}; published_difference: the same of the published numbers.
    """

    row: Row
    column: Column
    asked: bool = False
    published: Published | None = None
    ours: Ours | None = None
    difference: Mapping[str, Any] | None = None
    published_difference: float | None = None

    @property
    def gap(self) -> float | None:
        """Ours minus published, or None where one of them is missing."""
        return None if self.ours is None or self.published is None else self.ours.mean - self.published.value

    @property
    def verdict(self) -> str:
        """The word of `VERDICT_RULE`, or why there is none."""
        if self.ours is None:
            return "not run"
        if self.ours.protocol != PAPER:
            return f"not compared: {self.ours.protocol} ≠ {PAPER}"
        if self.gap is None or not is_number(self.gap):
            return "nothing published" if self.published is None else HOLE
        allowed = math.hypot(self.ours.std, self.published.std or 0.0)
        if self.published.unit == "fraction":
            allowed = max(allowed, ROUNDING)
        if abs(self.gap) <= allowed + 1e-12:
            return "within"
        return "above" if self.gap > 0 else "below"

    @property
    def exists(self) -> bool:
        """Whether something belongs here; a hole of the paper that nobody filled is left empty."""
        return self.asked or self.ours is not None


@dataclass(frozen=True)
class Table:
    """A table of the paper with our numbers beside. cells: by (row, column); missing: commands for the holes."""

    name: str
    title: str
    protocol: str
    rows: Sequence[Row]
    columns: Sequence[Column]
    cells: Mapping[tuple[Row, Column], Cell]
    missing: Sequence[Missing] = ()
    notes: Sequence[str] = field(default=())

    def cell(self, row: Row, column: Column) -> Cell:
        """The cell at a place; an empty one where neither the paper nor we have a number."""
        return self.cells.get((row, column)) or Cell(row, column)

    def existing(self) -> list[Cell]:
        """Cells that have something to say, row by row."""
        return [c for row in self.rows for column in self.columns if (c := self.cell(row, column)).exists]

    def to(self, form: str) -> str:
        """The table as text: 'text', 'markdown', 'latex', 'csv' or 'html'. UnknownNameError for another word."""
        from fyi_bench.present.tables.forms import FORMS

        return FORMS.get(form)(self)

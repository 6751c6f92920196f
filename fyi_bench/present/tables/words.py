"""The words of a cell and the rows of a table, shared by every form."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from fyi_bench.present.missing import Missing
from fyi_bench.present.tables.model import Cell, Column, Row, Table
from fyi_bench.present.words import HOLE, count_words, has_interval, is_number, percent, seconds_words, signed_points

DETAILS = ("row", "column", "ours", "published", "gap", "verdict", "flip − none, ours", "published", "what differs",
           "source")  # fmt: skip
HOLES = ("command", "fills", "time here")
MOST_COLUMNS = 5
INDENT = "\u2003"


def number(cell: Cell, value: float | None, signed: bool = False) -> str:
    """A value of the cell's metric for people: percent for accuracies, three decimals for correlations."""
    if cell.column.metric == "accuracy":
        return signed_points(value) if signed else percent(value)
    if not is_number(value):
        return HOLE
    if cell.column.metric.startswith("spearman"):
        return f"{value:+.3f}".replace("-", "−") if signed else f"{value:.3f}"
    return f"{value:,.0f}"


def ours_words(cell: Cell) -> str:
    """'46.0 ± 0.8', a correlation with its interval, or a hole."""
    ours = cell.ours
    if ours is None:
        return HOLE
    if ours.low is not None:
        return f"{number(cell, ours.mean)} [{number(cell, ours.low)}, {number(cell, ours.high)}]"
    return number(cell, ours.mean) + (f" ± {number(cell, ours.std)}" if len(ours.values) > 1 else "")


def published_words(cell: Cell) -> str:
    """'44.9 ± 0.5' as published, or a hole."""
    if cell.published is None:
        return HOLE
    std = cell.published.std
    return number(cell, cell.published.value) + (f" ± {number(cell, std)}" if std is not None else "")


def difference_words(cell: Cell) -> str:
    """Ours with the flip minus ours without, '+1.2 [−0.3, +2.7]', or a hole."""
    found = cell.difference
    if found is None:
        return HOLE
    mean = number(cell, found["mean"], signed=True)
    if not has_interval(found):
        return mean
    return f"{mean} [{number(cell, found['low'], True)}, {number(cell, found['high'], True)}]"


def place_words(row: Row, column: Column) -> str:
    """'DM + FYI, CIFAR-10 10 IPC'."""
    return f"{row.label}, {column.title}"


def subtitle(table: Table) -> str:
    """Which protocol, and how much of the table is filled."""
    places = table.existing()
    count = sum(cell.ours is not None for cell in places)
    return f"Ours by the protocol “{table.protocol}” ({count} of {len(places)} places); published numbers in brackets."


def header(columns: Sequence[Column]) -> list[str]:
    """Headings of a grid of these columns; the first cell is empty."""
    return ["", *(column.title for column in columns)]


def grid(table: Table, columns: Sequence[Column]) -> list[list[str]]:
    """Rows of the paper's table; under each row with a flip one with the differences to the plain method.

    Rows that have nothing in these columns are left out.
    """
    rows = []
    for row in table.rows:
        cells = [table.cell(row, column) for column in columns]
        if not any(cell.exists for cell in cells):
            continue
        rows.append([row.label, *map(_pair, cells)])
        if row.flip != "none":
            rows.append([f"{INDENT}{row.flip} − none", *map(_difference_pair, cells)])
    return rows


def blocks(table: Table) -> list[list[Column]]:
    """The columns in parts that fit a page: those of one heading together, or all where they are few."""
    if len(table.columns) <= MOST_COLUMNS:
        return [list(table.columns)]
    return [list(found) for _, found in groupby(table.columns, key=lambda column: column.heading)]


def details(table: Table) -> list[list[str]]:
    """A row for every number of ours, under the header `DETAILS`."""
    return [_detail(cell) for cell in table.existing() if cell.ours is not None]


def holes(table: Table) -> list[list[str]]:
    """A row for every command that fills holes, under the header `HOLES`."""
    return [[one.command, "; ".join(one.cells), time_words(one)] for one in table.missing]


def time_words(one: Missing) -> str:
    """The estimate, or why there is none."""
    return one.reason or ("not estimated" if one.seconds is None else f"about {seconds_words(one.seconds)}")


def source_words(cell: Cell) -> str:
    """Where the published number stands, with its note."""
    if cell.published is None:
        return ""
    return cell.published.source + (f" ({cell.published.note})" if cell.published.note else "")


def _pair(cell: Cell) -> str:
    if not cell.exists:
        return ""
    return ours_words(cell) if cell.published is None else f"{ours_words(cell)} ({published_words(cell)})"


def _difference_pair(cell: Cell) -> str:
    if not cell.exists or not cell.column.measurable:
        return ""
    published = cell.published_difference
    return difference_words(cell) + ("" if published is None else f" ({number(cell, published, True)})")


def _detail(cell: Cell) -> list[str]:
    pairs = count_words(cell.difference["pairs"], "pair") if cell.difference is not None else ""
    return [
        cell.row.label,
        cell.column.title,
        ours_words(cell),
        published_words(cell),
        number(cell, cell.gap, True),
        cell.verdict,
        ", ".join(filter(None, (difference_words(cell), pairs))) if cell.row.flip != "none" else "",
        number(cell, cell.published_difference, True) if cell.row.flip != "none" else "",
        "; ".join(cell.ours.differs) or "nothing known",
        source_words(cell),
    ]

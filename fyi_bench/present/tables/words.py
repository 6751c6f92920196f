"""A table in words: its entries and rows, shared by every form and by the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby

from fyi_bench.duration import format_duration
from fyi_bench.present.missing import Missing
from fyi_bench.present.tables.build import Entry, Table
from fyi_bench.present.tables.layouts import Column
from fyi_bench.present.words import (
    HOLE,
    MINUS,
    bounds,
    count_words,
    flip_title,
    has_interval,
    is_number,
    marked,
    percent,
    signed_points,
    spread_words,
    text_table,
)

DETAILS = ("row", "column", "ours", "spread", "published", "gap", "verdict", "flip − none, ours", "published",
           "what differs", "source")  # fmt: skip
HOLES = ("command", "fills", "time here")
MOST_COLUMNS = 5
INDENT = "\u2003"


def number(entry: Entry, value: float | None, signed: bool = False) -> str:
    """A value of the entry's metric for people: percent for accuracies, three decimals for correlations."""
    if entry.column.metric == "accuracy":
        return signed_points(value) if signed else percent(value)
    if not is_number(value):
        return HOLE
    if entry.column.metric.startswith("spearman"):
        return f"{value:+.3f}".replace("-", MINUS) if signed else f"{value:.3f}"
    return f"{value:,.0f}"


def ours_words(entry: Entry) -> str:
    """'46.0 ± 0.8', a correlation with its interval, or a hole."""
    ours = entry.ours
    if ours is None:
        return HOLE
    if ours.low is not None:
        return f"{number(entry, ours.mean)} [{number(entry, ours.low)}, {number(entry, ours.high)}]"
    return number(entry, ours.mean) + (f" ± {number(entry, ours.std)}" if len(ours.values) > 1 else "")


def published_words(entry: Entry) -> str:
    """'44.9 ± 0.5' as published, or a hole."""
    if entry.published is None:
        return HOLE
    std = entry.published.std
    return number(entry, entry.published.value) + (f" ± {number(entry, std)}" if std is not None else "")


def difference_words(entry: Entry) -> str:
    """Ours with the flip minus ours without, '+1.2 [−0.3, +2.7]', or a hole."""
    found = entry.difference
    if found is None:
        return HOLE
    say = partial(number, entry, signed=True)
    return say(found["mean"]) + (bounds(found, say) if has_interval(found) else "")


def source_words(entry: Entry) -> str:
    """Where the published number stands, with its note."""
    if entry.published is None:
        return ""
    return entry.published.source + (f" ({entry.published.note})" if entry.published.note else "")


def subtitle(table: Table) -> str:
    """Which protocol, and how much of the table is filled."""
    filled, places = len(table.filled()), len(table.existing())
    return f"Ours by the protocol “{table.protocol}” ({filled} of {places} places); published numbers in brackets."


def grids(table: Table, width: int | None = None) -> list[tuple[list[str], list[list[str]]]]:
    """(header, rows) of each part of the table that fits a page, as the paper prints it.

    width: in letters, of a page as narrow as a terminal.
    """
    parts = _parts(table)
    if width is not None:
        parts = [narrow for part in parts for narrow in _narrow(table, part, width)]
    return [_headed(table, part) for part in parts]


def legend(table: Table) -> list[str]:
    """What the marks in the places say: '[1] 5 of 25 networks'."""
    return [f"[{number}] {mark}" for mark, number in table.footnotes.items()]


def spreads(table: Table) -> list[str]:
    """What sets and what networks of our numbers differ by, apart, where there are several sets."""
    told = ((entry.label, spread_words(entry.ours.spread)) for entry in table.filled() if entry.ours is not None)
    return [f"{label}: {words}" for label, words in told if words]


def grid(table: Table, columns: Sequence[Column]) -> list[list[str]]:
    """Rows of the paper's table; under each row with a flip one with the differences to the plain method.

    Rows that have nothing in these columns are left out.
    """
    rows = []
    for row in table.rows:
        entries = [table.entry(row, column) for column in columns]
        if not any(entry.exists for entry in entries):
            continue
        rows.append([row.label, *(_pair(table, entry) for entry in entries)])
        if row.flip != "none":
            rows.append([f"{INDENT}{flip_title(row.flip)} − none", *map(_difference_pair, entries)])
    return rows


def details(table: Table) -> list[list[str]]:
    """A row for every number of ours, under the header `DETAILS`."""
    return [_detail(entry) for entry in table.filled()]


def holes(table: Table) -> list[list[str]]:
    """A row for every command that fills holes, under the header `HOLES`."""
    return [[one.command, "; ".join(one.fills), _time(one)] for one in table.missing]


def _parts(table: Table) -> list[list[Column]]:
    """The columns in parts: those of one heading together, or all where they are few."""
    if len(table.columns) <= MOST_COLUMNS:
        return [list(table.columns)]
    return [list(found) for _, found in groupby(table.columns, key=lambda column: column.heading)]


def _narrow(table: Table, part: Sequence[Column], width: int) -> list[list[Column]]:
    """The columns in as few runs as fit the width; a single one that is too wide stands alone."""
    found: list[list[Column]] = []
    for column in part:
        if found and max(map(len, text_table(*_headed(table, [*found[-1], column])))) <= width:
            found[-1].append(column)
        else:
            found.append([column])
    return found


def _headed(table: Table, columns: Sequence[Column]) -> tuple[list[str], list[list[str]]]:
    return ["", *(column.title for column in columns)], grid(table, columns)


def _time(one: Missing) -> str:
    return one.reason or ("not estimated" if one.seconds is None else f"about {format_duration(one.seconds)}")


def _pair(table: Table, entry: Entry) -> str:
    """Ours with its marks, and the published number in brackets."""
    if not entry.exists:
        return ""
    ours = marked(ours_words(entry), entry.marks, table.footnotes)
    return ours if entry.published is None else f"{ours} ({published_words(entry)})"


def _difference_pair(entry: Entry) -> str:
    if not entry.exists or not entry.column.measurable:
        return ""
    published = entry.published_difference
    return difference_words(entry) + ("" if published is None else f" ({number(entry, published, True)})")


def _detail(entry: Entry) -> list[str]:
    difference, change = "", ""
    if entry.row.flip != "none":
        pairs = count_words(entry.difference["pairs"], "pair") if entry.difference is not None else ""
        difference = ", ".join(filter(None, (difference_words(entry), pairs)))
        change = number(entry, entry.published_difference, True)
    return [
        entry.row.label,
        entry.column.title,
        ours_words(entry),
        "" if entry.ours is None else spread_words(entry.ours.spread),
        published_words(entry),
        number(entry, entry.gap, True),
        entry.verdict,
        difference,
        change,
        "; ".join(entry.differs) or "nothing known",
        source_words(entry),
    ]

"""The paper's tables on a report: the rows and columns that the store has numbers for, beside the published ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fyi_bench.present.page import TableView
from fyi_bench.present.tables import LAYOUTS, Table, words
from fyi_bench.present.tables.build import table_of
from fyi_bench.present.tables.results import groups_of

if TYPE_CHECKING:
    from fyi_bench.store.store import Store

CAPTION = "Ours, and in brackets the published number; – is a hole."


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper for a page: command: what shows all of it, with the commands for its holes."""

    title: str
    subtitle: str
    command: str
    views: Sequence[TableView]
    details: TableView
    notes: Sequence[str]


def paper_tables(store: Store) -> list[PaperTable]:
    """Every table that has a number of ours, cut to the rows and columns that have one."""
    groups = groups_of(store)
    tables = (table_of(name, groups) for name in LAYOUTS.usable()[0])
    return [_view(one) for one in tables if one.filled()]


def _view(whole: Table) -> PaperTable:
    filled = whole.filled()
    cut = replace(
        whole,
        rows=[row for row in whole.rows if any(entry.row == row for entry in filled)],
        columns=[column for column in whole.columns if any(entry.column == column for entry in filled)],
    )
    views = [TableView(CAPTION, header, rows) for header, rows in words.grids(cut)]
    details = TableView("Every number of ours.", words.DETAILS, words.details(cut))
    base, *changes = whole.protocol.split("+")
    command = f"fyi-bench table {whole.name} --protocol {base}" + "".join(f" --set {change}" for change in changes)
    return PaperTable(f"Table {whole.name}: {whole.title}", words.subtitle(whole), command, views, details, whole.notes)

"""The paper's tables on a report: the rows and columns that the store has numbers for, beside the published ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fyi_bench.present.report.page import TableView
from fyi_bench.present.tables import LAYOUTS, layout, table, words
from fyi_bench.present.tables.model import Table

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


def paper_tables(store: Store, records: Iterable[Mapping[str, Any]]) -> list[PaperTable]:
    """Every table that has a number of ours, cut to the rows and columns that have one."""
    known = {(arm["method"], record["dataset"], arm["ipc"]) for record in records for arm in record["arms"]}
    made = (table(name, store) for name in LAYOUTS if _touched(name, known))
    return [_view(one) for one in made if any(cell.ours is not None for cell in one.existing())]


def _touched(name: str, known: set[tuple]) -> bool:
    """Whether some record is of a row and column of the table: reading a store's cells takes a while."""
    plan = layout(name)
    return any((row.method, column.dataset, column.ipc) in known for row in plan.rows for column in plan.columns)


def _view(whole: Table) -> PaperTable:
    filled = [cell for cell in whole.existing() if cell.ours is not None]
    cut = replace(
        whole,
        rows=[row for row in whole.rows if any(cell.row == row for cell in filled)],
        columns=[column for column in whole.columns if any(cell.column == column for cell in filled)],
    )
    views = [TableView(CAPTION, words.header(columns), words.grid(cut, columns)) for columns in words.blocks(cut)]
    details = TableView("Every number of ours.", words.DETAILS, words.details(cut))
    command = f"fyi-bench table {whole.name} --protocol {whole.protocol.split('+')[0]}"
    command += "".join(f" --set {change}" for change in whole.protocol.split("+")[1:])
    return PaperTable(f"Table {whole.name}: {whole.title}", words.subtitle(whole), command, views, details, whole.notes)

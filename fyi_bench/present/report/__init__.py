"""The report: one self-contained HTML page about records, for a desk, a telephone and a sheet of paper.

Nothing is loaded from anywhere: styles, figures and images stand in the page. Everything that comes from a record or
a file is escaped. The same records and sets give the same page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fyi_bench.errors import StoreError
from fyi_bench.files import write_text
from fyi_bench.present.page import TableView, render
from fyi_bench.present.report.sections import SectionMaker, section_of
from fyi_bench.present.tables import LAYOUTS, Table, words
from fyi_bench.present.tables.build import table_of
from fyi_bench.present.tables.results import groups_of
from fyi_bench.store.commands import read_commands, writing
from fyi_bench.store.store import Store

FILE = "report.html"
CAPTION = "Ours, and in brackets the published number; – is a hole."
Makers = Mapping[str, SectionMaker]


def report_of_store(store: Store | str | Path, makers: Makers) -> Path:
    """The report on every command that finished in a store, as `<store>/reports/report.html`.

    makers: what fills the sections, by task, in the order of the page. A record that cannot be read is named on the
    page. Raises StoreError where no command has finished.
    """
    store = store if isinstance(store, Store) else Store(store)
    records, damaged = read_commands(store)
    if not records and not damaged:
        raise StoreError(
            f"No command has finished in {store.root} yet.\nRun one first, for instance: fyi-bench distill --fyi"
        )
    place = {task: number for number, task in enumerate(makers)}
    records.sort(key=lambda record: place.get(record["task"], len(place)))
    notes = [f"Left out: {str(error).splitlines()[0]}" for error in damaged]
    page = report_html(records, "What was measured", store, notes, makers)
    with writing(store) as folder:
        return write_text(folder / FILE, page)


def report_html(
    records: Sequence[Mapping[str, Any]],
    title: str,
    store: Store | None = None,
    notes: Sequence[str] = (),
    makers: Makers = MappingProxyType({}),
) -> str:
    """The page as text. With a store also those of the paper's tables that it has numbers for.

    store: where sets are looked for that are not at the place their record names; by default each record's own.
    notes: sentences for the top. A set that is gone or damaged is said on the page and is no error.
    """
    sections = [section_of(record, f"r{number}", store, makers) for number, record in enumerate(records, 1)]
    papers = [] if store is None else paper_tables(store)
    arms = bool(papers) or any(len(record["arms"]) > 1 for record in records)
    return render("report.html.j2", title=title, sections=sections, notes=list(notes), papers=papers, arms=arms)


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
    notes = [*words.legend(cut), *whole.notes]
    return PaperTable(f"Table {whole.name}: {whole.title}", words.subtitle(whole), command, views, details, notes)

"""The report: one self-contained HTML page about records, for a desk, a telephone and a sheet of paper.

Nothing is loaded from anywhere: styles, figures and images stand in the page. Everything that comes from a record or
a file is escaped. The same records and sets give the same page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import StoreError
from fyi_bench.files import write_text

if TYPE_CHECKING:
    from fyi_bench.store.store import Store

FILE = "report.html"


def write_report(
    records: Sequence[Mapping[str, Any]],
    folder: str | Path,
    title: str,
    store: Store | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write `report.html` about the records into the folder and return its path.

    store: where sets are looked for that are not at the place their record names; by default each record's own.
    notes: sentences for the top of the page. A set that is gone or damaged is said on the page and is no error.
    """
    return write_text(Path(folder) / FILE, report_html(records, title, store, notes))


def report_of_store(store: Store | str | Path) -> Path:
    """The report on every command that finished in a store, as `<store>/reports/report.html`.

    A record that cannot be read is named on the page. Raises StoreError where no command has finished.
    """
    from fyi_bench.store.store import Store
    from fyi_bench.tasks.save import FOLDER

    store = store if isinstance(store, Store) else Store(store)
    records, notes = records_of_store(store)
    if not records and not notes:
        raise StoreError(
            f"No command has finished in {store.root} yet.\nRun one first, for instance: fyi-bench distill --fyi"
        )
    return write_report(records, store.root / FOLDER, "What was measured", store, notes)


def records_of_store(store: Store) -> tuple[list[dict[str, Any]], list[str]]:
    """The records of finished commands in the order of the page, and a sentence for each that cannot be read."""
    from fyi_bench.present.report.sections import TASK_ORDER
    from fyi_bench.store.record import read_record
    from fyi_bench.tasks.save import FOLDER

    records, notes = [], []
    for path in sorted((store.root / FOLDER).glob("*.json")):
        try:
            record = read_record(path)
        except StoreError as error:
            notes.append(f"Left out: {str(error).splitlines()[0]}")
            continue
        records.append(record)
    order = {task: place for place, task in enumerate(TASK_ORDER)}
    return sorted(records, key=lambda record: order.get(record["task"], len(order))), notes


def report_html(
    records: Sequence[Mapping[str, Any]], title: str, store: Store | None = None, notes: Sequence[str] = ()
) -> str:
    """The page as text. With a store also those of the paper's tables that it has numbers for."""
    from fyi_bench.present.report.page import render
    from fyi_bench.present.report.paper_tables import paper_tables
    from fyi_bench.present.report.sections import section_of

    sections = [section_of(record, f"r{number}", store) for number, record in enumerate(records, 1)]
    papers = [] if store is None else paper_tables(store, records)
    return render("report.html.j2", title=title, sections=sections, notes=list(notes), papers=papers)

"""`fyi-bench table`: fill the holes of a table where asked, then write it in a form."""

from __future__ import annotations

from collections.abc import Callable

from fyi_bench.jobs.fill import fill
from fyi_bench.session import Session
from fyi_bench.tables import estimate_with, missing, table


def table_job(
    session: Session, name: str, form: str, run: bool, protocol: str | None, say: Callable[[str], None]
) -> str:
    """The table as text. run: first compute what can be computed of its holes, in order, within the budget.

    protocol: whose numbers to show, as the user said it; None where it was left open.
    """
    estimate = estimate_with(session.settings)
    if run:
        fill(session, missing(name, session.settings.protocol, session.store, estimate), say)
    return table(name, session.store, session.settings.protocol if run else protocol, estimate).to(form)

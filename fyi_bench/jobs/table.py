"""`fyi-bench table`: fill the holes of a table where asked, then write it in a form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fyi_bench.jobs.distill import distill_job
from fyi_bench.jobs.save import save_record
from fyi_bench.session import Session
from fyi_bench.tables import Missing, missing, table


def table_job(session: Session, name: str, form: str, run: bool, say: Callable[[str], None]) -> str:
    """The table as text. run: first compute what can be computed of its holes, in order, within the budget."""
    chosen = session.settings.protocol
    if run:
        for hole in missing(name, chosen, session.store):
            say(f"\n{hole.command}")
            if hole.reason:
                say(f"  left out: {hole.reason}")
            else:
                _fill(session, hole)
    return table(name, session.store, chosen if run else None).to(form)


def _fill(session: Session, hole: Missing) -> None:
    """Compute one hole with this session's store, display and budget."""
    settings = replace(session.settings, dataset=hole.dataset)
    part = Session(settings, say=session.say, confirm=session.confirm, display=session.display, stop=session.stop)
    task = "cross-arch" if hole.architectures else hole.task
    record = distill_job(part, hole.method, hole.flip, hole.ipc, architectures=hole.architectures, task=task)
    record["command"] = hole.command
    save_record(part.store, record)

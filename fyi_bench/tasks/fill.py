"""Computing what a table or figure lacks, hole after hole, with one session's store, display and budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from fyi_bench.config import parse_overrides
from fyi_bench.present.missing import Missing
from fyi_bench.session import Session
from fyi_bench.store.commands import save_record
from fyi_bench.tasks.continual import continual_job
from fyi_bench.tasks.distill import distill_job
from fyi_bench.tasks.nas import Question, nas_job


def fill(session: Session, holes: Iterable[Missing], say: Callable[[str], None]) -> None:
    """Run the command of each hole that can be run here; say which, and why the others are left out."""
    for hole in holes:
        say(f"\n{hole.command}")
        if hole.reason or hole.task not in _JOBS:
            say(f"  left out: {hole.reason or 'run it by itself'}")
            continue
        record = _JOBS[hole.task](_session_of(session, hole), hole)
        record["command"] = hole.command
        save_record(session.store, record)


def _session_of(session: Session, hole: Missing) -> Session:
    """The session with the data set, the protocol and the changed values of the hole."""
    base, *changes = hole.protocol.split("+")
    overrides = parse_overrides([*changes, *hole.values_of("--set")])
    settings = replace(session.settings, dataset=hole.dataset, protocol=base, overrides=overrides)
    return replace(session, settings=settings, stop=session.stop)


def _sets(part: Session, hole: Missing) -> dict[str, Any]:
    names = [*hole.architectures, *hole.values_of("--arch")]
    return distill_job(part, hole.method, hole.flip, hole.ipc, architectures=names, task=hole.task)


def _rehearsal(part: Session, hole: Missing) -> dict[str, Any]:
    return continual_job(part, hole.method, hole.flip, hole.ipc, int(hole.values_of("--steps")[0]))


def _search(part: Session, hole: Missing) -> dict[str, Any]:
    return nas_job(part, Question(hole.method, hole.flip, hole.ipc))


_JOBS: dict[str, Callable[[Session, Missing], dict[str, Any]]] = {
    "distill": _sets,
    "cross-arch": _sets,
    "continual": _rehearsal,
    "nas": _search,
}

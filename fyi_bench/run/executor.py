"""A sweep from the side of the command that needs its results: enqueue, work along, wait, collect."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import StoreError
from fyi_bench.run.deadline import Deadline, Interruption
from fyi_bench.run.drain import Habits, drain
from fyi_bench.run.memory import MemorySweep
from fyi_bench.run.processes import Events, Place, Rows, work_together
from fyi_bench.run.progress import Progress, progress
from fyi_bench.run.queue import Counts, Job, Sweep, connect, finished
from fyi_bench.run.storage import sqlite_url
from fyi_bench.store.store import Store

if TYPE_CHECKING:
    from fyi_bench.session import Session

FILE = "sweep.sqlite3"
_COUNT_S, _COUNT_SHARE = 2.0, 0.05  # the ledger is counted this often, and for this share of the time at most


@dataclass(frozen=True)
class SweepPlan:
    """What a process needs to take part in sweeps. name: of one sweep, or None for all."""

    url: str
    name: str | None
    place: Place
    artefacts: str | None = None
    linger: bool = True


def default_url(store: Store) -> str:
    """The sweep of a store, when no --storage is given: a sqlite file beside the results."""
    return sqlite_url(store.root / FILE)


def compute_by_sweep(
    session: Session,
    name: str,
    jobs: Sequence[Job],
    url: str | None = None,
    artefacts: str | None = None,
    work: bool = True,
) -> dict[str, str]:
    """See to it that every job is done, here and by whoever else has the storage open; in the order of `jobs`.

    Returns {digest: reason} of those that failed. work False: only enqueue. Raises what `session.stop` raises when
    asked to stop; everything done is kept.
    """
    missing = [job for job in _unique(jobs) if not finished(session.store, job.cell)]
    if not missing:
        return {}
    if url is None and artefacts is None and work and importlib.util.find_spec("optuna") is None:
        return _compute_here(session, missing)
    url = url or default_url(session.store)
    with Interruption(session.stop), progress(session.display) as shown:
        ask = connect(url, session.stop.check, shown.say)
        sweep = Sweep.open(ask, name, _choices(jobs))
        cargo = _open_artefacts(artefacts)
        if cargo is not None:
            _exchange(cargo, session.store, missing)
            missing = [job for job in missing if not finished(session.store, job.cell)]
        sweep.enqueue(missing, session.store)
        if work:
            _work(session, sweep, missing, shown, SweepPlan(url, name, _place(session, len(_unique(jobs))), artefacts))
        if cargo is not None:
            for job in missing:
                cargo.bring(session.store, job.cell.kind, job.cell.digest, optional=True)
        return _failures(sweep, session.store, jobs)


def _compute_here(session: Session, missing: Sequence[Job]) -> dict[str, str]:
    """The same in this process alone, where Optuna is not installed."""
    sweep = MemorySweep(missing)
    with Interruption(session.stop), progress(session.display) as shown:
        shown.say("Optuna is not installed: one worker, in this process.")
        display = _display(shown, sweep, missing)
        try:
            worker = _place(session, 1).worker(session.stop, display.events)
            drain([sweep], worker, Habits(done=display.events.done))
        finally:
            display.end()
    return sweep.failures()


def _display(shown: Progress, sweep: Sweep | MemorySweep, jobs: Sequence[Job]) -> Display:
    return Display(shown, len(jobs), lambda: [sweep.counts()], {job.cell.digest: job.title for job in jobs})


def _place(session: Session, side_by_side: int) -> Place:
    s = session.settings
    return Place(session.store.root, s.data_root, s.device, s.threads_for(side_by_side))


def _work(session: Session, sweep: Sweep, missing: Sequence[Job], shown: Progress, plan: SweepPlan) -> None:
    display, count = _display(shown, sweep, missing), min(session.settings.workers or 1, len(missing))
    try:
        work_together(functools.partial(work_through, plan), count, display.events, session.stop, display.tick)
    finally:
        display.end()


def _choices(jobs: Sequence[Job]) -> dict[str, list[str | int]]:
    """Every value of each parameter, in the order of first appearance."""
    found: dict[str, dict[str | int, None]] = {}
    for job in jobs:
        for key, value in job.params.items():
            found.setdefault(key, {})[value] = None
    return {key: list(values) for key, values in found.items()}


def _unique(jobs: Sequence[Job]) -> list[Job]:
    return list({job.cell.digest: job for job in jobs}.values())


def _failures(sweep: Sweep, store: Store, jobs: Sequence[Job]) -> dict[str, str]:
    reasons = sweep.failures()
    return {
        job.cell.digest: reasons[job.cell.digest]
        for job in jobs
        if job.cell.digest in reasons and not store.has(job.cell)
    }


def _exchange(cargo: Any, store: Store, jobs: Sequence[Job]) -> None:
    """Bring what others finished, and give out what computing needs."""
    for job in jobs:
        cargo.bring(store, job.cell.kind, job.cell.digest, optional=True)
    for kind, digest in dict.fromkeys(need for job in jobs for need in job.needs):
        cargo.put(store, kind, digest)


def _open_artefacts(place: str | None) -> Any:
    if place is None:
        return None
    from fyi_bench.run.artefacts import Artefacts

    return Artefacts.open(place)


def work_through(plan: SweepPlan, stop: Deadline, events: Events) -> int:
    """Drain the plan's sweeps in this process, and return how many jobs were finished here."""
    worker = plan.place.worker(stop, events)
    ask = connect(plan.url, stop.check, events.say)
    habits = Habits(plan.linger, artefacts=_open_artefacts(plan.artefacts), done=events.done)
    return drain(Sweep.all(ask, plan.name), worker, habits)


class Display(Rows):
    """Sweeps as rows: all jobs, counted in the ledger, and those of this machine's workers.

    total: jobs to do. counts(): what the ledgers say now. titles: of the jobs, by digest.
    """

    def __init__(
        self,
        shown: Progress,
        total: int,
        counts: Callable[[], Sequence[Counts]],
        titles: Mapping[str, str] | None = None,
    ):
        super().__init__(shown, "sweep", total, "job", titles or {})
        self.counts = counts
        self._due = time.monotonic() + _COUNT_S

    def _done(self, digest: str) -> None:
        super()._done(digest)
        self.tick()

    def tick(self) -> None:
        """Now and then, set the stage to what the ledger says, which knows of other machines too."""
        began = time.monotonic()
        if began < self._due:
            return
        with contextlib.suppress(StoreError):
            counts = self.counts()
            failed = sum(one.failed for one in counts)
            done = self.stage.total - sum(one.open for one in counts)
            self.stage.update(max(self.stage.step, done), failed=failed or None)
        now = time.monotonic()
        self._due = now + max(_COUNT_S, (now - began) / _COUNT_SHARE)


def reasons_in_words(failures: Mapping[str, str], limit: int = 3) -> list[str]:
    """Lines about failed jobs: how many, and some of the reasons."""
    if not failures:
        return []
    distinct = list(dict.fromkeys(failures.values()))
    more = [f"  and {len(distinct) - limit} other reasons"] if len(distinct) > limit else []
    return [f"{len(failures)} job(s) failed and are ranked last:", *(f"  {text}" for text in distinct[:limit]), *more]

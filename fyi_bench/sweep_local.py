"""A sweep from the side of the command that needs its results: enqueue, work along, wait, collect."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import queue
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.budget import Budget, Interruption, Stop
from fyi_bench.cells import Worker
from fyi_bench.errors import BudgetExhausted, FyiBenchError, Interrupted, StoreError
from fyi_bench.pool import RESTARTS, Events, rebuild_error
from fyi_bench.progress import Progress, progress
from fyi_bench.store import Store
from fyi_bench.sweep import Counts, Job, Sweep, connect, finished
from fyi_bench.sweep_memory import MemorySweep
from fyi_bench.sweep_storage import sqlite_url
from fyi_bench.sweep_worker import Habits, drain

if TYPE_CHECKING:
    from fyi_bench.session import Session

FILE = "sweep.sqlite3"
_LISTEN_S = 0.2
_COUNT_S, _COUNT_SHARE = 2.0, 0.05  # the ledger is counted this often, and for this share of the time at most


@dataclass(frozen=True)
class WorkerPlan:
    """What a worker process needs to know. name: of one sweep, or None for all; budget: seconds."""

    url: str
    name: str | None
    store: Path
    data_root: Path | None
    device: str
    threads: int
    budget: float | None = None
    artefacts: str | None = None
    linger: bool = True


def default_url(store: Store) -> str:
    """The sweep of a store, when no --storage is given: a sqlite file beside the results."""
    return sqlite_url(store.root / FILE)


def compute_by_sweep(
    session: Session,
    title: str,
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
            _work(session, sweep, missing, shown, _plan(session, url, name, artefacts))
        if cargo is not None:
            for job in missing:
                cargo.bring(session.store, job.cell.kind, job.cell.digest, optional=True)
        return _failures(sweep, session.store, jobs)


def _compute_here(session: Session, missing: Sequence[Job]) -> dict[str, str]:
    """The same in this process alone, where Optuna is not installed."""
    from fyi_bench.runtime import prepare

    s, sweep = session.settings, MemorySweep(missing)
    with Interruption(session.stop), progress(session.display) as shown:
        shown.say("Optuna is not installed: one worker, in this process.")
        prepare(s.threads or 1)
        display = _display(shown, sweep, missing)
        heard = display.events
        worker = Worker(session.store, s.data_root, s.device, session.stop, heard.progress, heard.say)
        try:
            drain([sweep], worker, Habits(done=heard.done))
        finally:
            display.end()
    return sweep.failures()


def _display(shown: Progress, sweep: Sweep | MemorySweep, jobs: Sequence[Job]) -> Display:
    return Display(shown, len(jobs), lambda: [sweep.counts()], {job.cell.digest: job.title for job in jobs})


def _work(session: Session, sweep: Sweep, missing: Sequence[Job], shown: Progress, plan: WorkerPlan) -> None:
    display = _display(shown, sweep, missing)
    try:
        work_together(
            plan, min(session.settings.workers or 1, len(missing)), display.events, session.stop, display.tick
        )
    finally:
        display.end()


def work_together(plan: WorkerPlan, count: int, events: Events, stop: Stop, tick=lambda: None) -> int:
    """Work in this process, or in `count` of its own, until nothing is left; returns how many jobs were finished."""
    return work_through(plan, stop, events) if count == 1 else Crew(plan, count, events, stop, tick).run()


def _plan(session: Session, url: str, name: str, artefacts: str | None) -> WorkerPlan:
    s = session.settings
    left = None if s.budget is None else max(1.0, s.budget - session.wall_s())
    return WorkerPlan(url, name, session.store.root, s.data_root, s.device, s.threads or 1, left, artefacts)


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
    from fyi_bench.sweep_artefacts import Artefacts

    return Artefacts.open(place)


# one worker, in this process or its own ---------------------------------------------------------------------------


def work_through(plan: WorkerPlan, stop: Stop, events: Events) -> int:
    """Prepare this process, drain the plan's sweeps, and return how many jobs were finished here."""
    from fyi_bench.runtime import prepare

    prepare(plan.threads)
    ask = connect(plan.url, stop.check, events.say)
    store = Store(plan.store, say=events.say)
    worker = Worker(store, plan.data_root, plan.device, stop, events.progress, events.say)
    habits = Habits(plan.linger, artefacts=_open_artefacts(plan.artefacts), done=events.done)
    return drain(Sweep.all(ask, plan.name), worker, habits)


def _serve(number: int, plan: WorkerPlan, news: Any) -> None:
    """Life of a worker process: news into the queue, 'over' at its end."""
    from fyi_bench.runtime import end_with_parent

    end_with_parent()
    stop = Stop(Budget(plan.budget))

    def tell(kind: str) -> Callable[..., None]:
        return lambda *content: news.put((number, kind, content))

    with Interruption(stop, say=lambda line: None):
        try:
            work_through(plan, stop, Events(tell("progress"), tell("done"), tell("say")))
            news.put((number, "over", (None,)))
        except FyiBenchError as error:
            news.put((number, "over", ((type(error).__name__, str(error)),)))
        except Exception:  # a defect of ours: the parent shows where
            news.put((number, "over", (("", traceback.format_exc()),)))


class Crew:
    """Worker processes on this machine; one that dies is replaced, and its job is brought back by the others.

    tick() is called several times a second meanwhile.
    """

    def __init__(self, plan: WorkerPlan, count: int, events: Events, stop: Stop, tick: Callable[[], None]):
        self.context = multiprocessing.get_context("spawn")  # a forked copy of torch's threads would hang
        self.plan, self.count, self.events, self.stop, self.tick = plan, count, events, stop, tick
        self.news = self.context.Queue()
        self.processes: dict[int, Any] = {}
        self.told: set[int] = set()  # workers that were asked to stop
        self.restarts, self.finished = 0, 0
        self.error: Exception | None = None

    def run(self) -> int:
        """Until every worker has left; returns how many jobs they finished. Raises the first error."""
        try:
            for number in range(self.count):
                self._start(number)
            while self.processes:
                self._listen()
                if self.stop.interrupted or self.error is not None:
                    self._ask_to_stop()
        finally:
            self._end()
        if self.error is not None:
            raise self.error
        return self.finished

    def _start(self, number: int) -> None:
        process = self.context.Process(target=_serve, args=(number, self.plan, self.news), daemon=True)
        process.start()
        self.processes[number] = process

    def _listen(self) -> None:
        self.tick()
        try:
            number, kind, content = self.news.get(timeout=_LISTEN_S)
        except queue.Empty:
            self._replace_the_dead()
            return
        if kind == "over":
            self._over(number, *content)
        else:
            self.finished += kind == "done"
            getattr(self.events, kind)(*content)

    def _over(self, number: int, error: tuple[str, str] | None) -> None:
        self.processes.pop(number).join(timeout=30)
        if error is not None and (self.error is None or isinstance(self.error, BudgetExhausted | Interrupted)):
            self.error = rebuild_error(*error)

    def _replace_the_dead(self) -> None:
        for number, process in list(self.processes.items()):
            if process.is_alive() or not self.news.empty():
                continue
            self.processes.pop(number)
            if number in self.told:
                continue
            self.restarts += 1
            if self.restarts > RESTARTS:
                self.error = self.error or StoreError(
                    f"Worker processes keep dying (exit code {process.exitcode}).\n"
                    "Is there enough memory? Use fewer --workers."
                )
                continue
            self.events.say(f"A worker died (exit code {process.exitcode}); its job goes on in another.")
            self._start(number)

    def _ask_to_stop(self) -> None:
        for number, process in self.processes.items():
            if process.is_alive() and number not in self.told:
                process.terminate()  # SIGTERM: the worker gives its job back at its next safe point
                self.told.add(number)

    def _end(self) -> None:
        for process in self.processes.values():
            process.terminate()
            process.join(timeout=30)
            if process.is_alive():
                process.kill()


class Display:
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
        self.shown, self.counts, self.titles = shown, counts, titles or {}
        self.stage = shown.add("sweep", total=total, unit="job")
        self.rows: dict[str, Any] = {}
        self.events = Events(self._progress, self._done, shown.say)
        self._due = time.monotonic() + _COUNT_S

    def _progress(self, digest: str, done: int, total: int, loss: float) -> None:
        if digest not in self.rows:
            self.rows[digest] = self.shown.add(self.titles.get(digest, digest), total=total, done=done - 1)
        self.rows[digest].update(done, loss=loss)

    def _done(self, digest: str) -> None:
        if digest in self.rows:
            self.rows.pop(digest).finish()
        self.stage.advance()
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

    def end(self) -> None:
        for row in self.rows.values():
            row.finish()
        self.stage.finish()


def reasons_in_words(failures: Mapping[str, str], limit: int = 3) -> list[str]:
    """Lines about failed jobs: how many, and some of the reasons."""
    if not failures:
        return []
    distinct = list(dict.fromkeys(failures.values()))
    more = [f"  and {len(distinct) - limit} other reasons"] if len(distinct) > limit else []
    return [f"{len(failures)} job(s) failed and are ranked last:", *(f"  {text}" for text in distinct[:limit]), *more]

"""The executor: from a plan to the records of its runs, the same way for every command.

It says the plan and its time, puts the missing runs into the queue of the store (or of `--storage`), lets processes of
this machine work on it beside whoever else has the storage open, and returns the records. Who works, and where, cannot
change a result: a run's numbers follow from its spec, and the number of its threads from the plan.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from downstream.protocol import FLOOR
from fyi_bench.duration import format_duration
from fyi_bench.errors import Declined, DivergenceError, PlanShown, StoreError
from fyi_bench.run.artefacts import Artefacts
from fyi_bench.run.deadline import Deadline
from fyi_bench.run.drain import Drain, Habits
from fyi_bench.run.estimate import START_SECONDS, estimate_seconds, usual_estimate, usual_seconds
from fyi_bench.run.plan import Plan, Records
from fyi_bench.run.processes import Events, Rows, work_together
from fyi_bench.run.progress import Progress, progress
from fyi_bench.run.queue import Counts, Queue, connect, finished
from fyi_bench.run.run_type import Worker, run_type
from fyi_bench.run.runtime import prepare, release_memory
from fyi_bench.run.storage import PATIENCE_S, check_usable, in_memory, sqlite_url
from fyi_bench.run.storage import shown as shown_url
from fyi_bench.store.run_dir import absent_names
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store

if TYPE_CHECKING:
    from fyi_bench.config import Settings
    from fyi_bench.data import RealDataset
    from fyi_bench.session import Session

ASK_ABOVE_SECONDS = 30 * 60
_COUNT_S, _COUNT_SHARE = 2.0, 0.05  # the queue is counted this often, and for this share of the time at most
_REASONS_SHOWN = 3


@dataclass(frozen=True)
class Crew:
    """What a process needs to know to work on queues. study: name of one queue, or None for all of the storage.

    devices: GPUs, shared out among the processes by their number. tolerant, log: see `drain.Habits`.
    """

    url: str
    study: str | None
    store: Path
    data_root: Path | None
    device: str
    devices: tuple[str, ...] = ()
    threads: int | None = None
    artefacts: str | None = None
    linger: bool = True
    tolerant: tuple[str, ...] | None = None
    log: str | None = None

    def work(self, number: int, stop: Deadline, events: Events, queues: Sequence[Queue] = ()) -> int:
        """Be process `number` until the queues are drained; returns how many runs it finished.

        queues: those of this process, where it has them open.
        """
        prepare(self.threads or 1)
        if self.devices:
            import torch

            torch.cuda.set_device(int(self.devices[number % len(self.devices)].partition(":")[2]))
        store = Store(self.store, say=events.say)
        worker = Worker(store, self.data_root, self.device, stop, events.progress, events.say)
        queues = queues or Queue.all(connect(self.url, stop.check, events.say, PATIENCE_S), self.study)
        artefacts = Artefacts.open(self.artefacts) if self.artefacts else None
        habits = Habits(self.linger, self.tolerant, self.threads, artefacts=artefacts, log=self.log, done=events.done)
        return Drain(queues, worker, habits).run()


def default_url(store: Store) -> str:
    """The queue of a store, where no --storage is given: a sqlite file beside the results, one a machine.

    sqlite's locks do not hold between machines. Two that share a store by its folder alone have a queue each, and
    take turns at a run by the store's own lock.
    """
    return sqlite_url(store.root / f"queue-{re.sub(r'[^A-Za-z0-9.-]', '_', socket.gethostname())}.sqlite3")


def announce(session: Session, plan: Plan) -> None:
    """Print the plan: protocol first, what is to compute, how long it takes. Stops here on a dry run."""
    s, runs = session.settings, _unique([*plan.runs, *plan.later])
    if not runs:
        if plan.title:
            session.say(plan.title)
        if session.dry_run:
            raise PlanShown
        return
    threads = threads_of(session, plan)
    missing = [run for run in runs if not session.store.has(run)]
    _check_files(session.store, missing)
    each = sorted({threads(run) for run in runs}) or [s.threads_for(1)]
    groups = plan.by_data(session)
    workers = _workers(s, _weights(session, plan, missing))
    session.say(
        f"protocol {plan.protocol} · {s.device} · {_counted(workers, 'worker')} x"
        f" {'-'.join(map(str, dict.fromkeys((each[0], each[-1]))))} thread{'s' * (each[-1] > 1)} · {s.precision}"
    )
    floor = _floor_of(missing, runs)
    session.say(" · ".join([plan.title, *dict.fromkeys(data.note for data, _ in groups if data.note)]))
    seconds, of_floor, waiting = 0.0, 0.0, {run.digest: run for run in missing}
    for data, mine in groups:
        here = [waiting.pop(run.digest) for run in mine if run.digest in waiting]

        def guess(some: Sequence[RunSpec], data: RealDataset = data) -> float:
            if session.dry_run:
                return usual_estimate(some, data, s.device, workers)
            return estimate_seconds(some, data, s.device, each[0], workers)

        seconds += guess(here)
        of_floor += guess([run for run in here if run in floor])
    release_memory()
    done = f" ({len(runs) - len(missing)} done already)" if len(missing) < len(runs) else ""
    where = "GPU" if s.device == "cuda" else "core"
    where = f"a usual {where}" if workers == 1 else f"{workers} usual {where}s"
    by = f" on {where} (not measured)" if session.dry_run and missing else ""
    session.say(f"{_counted(len(runs), 'run')}{done}, about {format_duration(seconds)} to go{by} · store {s.store}")
    if floor and len(floor) < len(missing):
        share = f"about {format_duration(of_floor)}"
        session.say(f"of these {_counted(len(floor), 'run')} for the floor, random real images: {share}")
    if session.dry_run:
        _check_places(session)
        raise PlanShown
    if seconds > ASK_ABOVE_SECONDS and s.budget is None and not s.enqueue and not session.confirm("Go on?"):
        raise Declined("Not started.\nUse --budget to work in pieces, or --yes to agree beforehand.")


def _check_files(store: Store, missing: Sequence[RunSpec]) -> None:
    """StoreError before hours of work where a run is to read a file that an excerpt has by its digest alone."""
    for kind, digest in dict.fromkeys(need for run in missing for need in run_type(run).needs(run)):
        for name in absent_names(store.root / kind / digest):
            if not name.endswith(".png"):  # pictures are for people; no run reads one
                store.artefact(kind, digest, name)


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _check_places(session: Session) -> None:
    """What a dry run can know of --storage and --artefacts: that they are such places. It makes neither."""
    if session.settings.storage:
        check_usable(session.settings.storage)
    if session.settings.artefacts:
        Artefacts.check(session.settings.artefacts)


def _floor_of(missing: Sequence[RunSpec], runs: Sequence[RunSpec]) -> set[RunSpec]:
    """Missing runs of the floor: they draw random real images, or train on such a draw."""
    draws = {run.digest for run in runs if run.kind == "distill" and run.inputs["method"] == FLOOR}
    return {run for run in missing if run.digest in draws or any(one in draws for _, one in run_type(run).needs(run))}


def threads_of(session: Session, plan: Plan) -> Callable[[RunSpec], int]:
    """Threads of each run of a plan: those that runs of its type leave each other; never a matter of who works."""
    counts = Counter(run.kind for run in _unique([*plan.runs, *plan.later]))
    return lambda spec: session.settings.threads_for(counts[spec.kind])


def compute(session: Session, name: str, plan: Plan) -> Records:
    """See to it that every run of the plan is done, here and by whoever else has the storage open; their records."""
    s, store, runs = session.settings, session.store, _unique(plan.runs)

    def over(run: RunSpec) -> bool:
        return finished(store, run) if run.kind in plan.tolerant else store.has(run)

    missing = [run for run in runs if not over(run)]
    if missing:
        store.make()
        study = f"{name}-{plan.digest}"
        artefacts = Artefacts.open(s.artefacts) if s.artefacts else None
        with progress(session.display) as shown, session.stop.signals(shown.answer):
            weights = _weights(session, plan, missing)
            workers = min(_workers(s, weights), len(missing))
            alone = workers == 1 and _brief(weights) and not s.storage and not s.enqueue
            url = s.storage or ("" if alone else default_url(store))
            queue = Queue.open(connect(url, session.stop.check, shown.say) if url else in_memory(), study, runs)
            if artefacts is not None:
                _exchange(artefacts, store, missing)
                missing = [run for run in missing if not over(run)]
            threads = threads_of(session, plan)
            queue.enqueue(missing, store, threads, retried=lambda run: run.kind not in plan.tolerant)
            if s.enqueue:
                words = shlex.join(["fyi-bench", "worker", "--storage", shown_url(url)])
                session.say(
                    f"The queue '{study}' waits for workers: {words}\nRun this again without --enqueue to see it."
                )
                raise PlanShown
            crew = Crew(url, study, store.root, s.data_root, s.device, s.devices, s.threads, s.artefacts,
                        tolerant=plan.tolerant, log=s.log)  # fmt: skip
            titles = {run.digest: run_type(run).title(run) for run in missing}
            view = Display(shown, len(missing), lambda: [queue.counts()], titles, weights)
            with view:
                count = min(workers, len(missing))
                if count == 1:
                    crew.work(0, session.stop, view.events, [queue])
                else:
                    work_together(crew.work, count, view.events, session.stop, view.tick)
            if artefacts is not None:
                for run in missing:
                    artefacts.bring(store, run.kind, run.digest, optional=True)
            _end(session, queue, plan, [run for run in missing if not store.has(run)])
    return records_of(store, runs)


def _weights(session: Session, plan: Plan, runs: Sequence[RunSpec]) -> dict[str, float]:
    """Seconds of each run on a usual core or GPU, by digest; {} where nothing was announced, so no data are read."""
    if not session.known:
        return {}
    wanted = {run.digest for run in runs}
    return {
        run.digest: usual_seconds(run_type(run).passes(run, data), session.settings.device)
        for data, mine in plan.by_data(session)
        for run in mine
        if run.digest in wanted
    }


def _brief(weights: Mapping[str, float]) -> bool:
    """Whether all runs together take less than a process to start; not where nothing is known of them."""
    return bool(weights) and sum(weights.values()) < START_SECONDS


def _workers(s: Settings, weights: Mapping[str, float]) -> int:
    """How many processes may work: one where that was left open and no other would start in time to help."""
    return 1 if s.workers is None and _brief(weights) else s.processes


def records_of(store: Store, runs: Sequence[RunSpec]) -> Records:
    """The records of those runs that are finished, by digest."""
    return {run.digest: record for run in runs if (record := store.record(run)) is not None}


def _end(session: Session, queue: Queue, plan: Plan, left: Sequence[RunSpec]) -> None:
    """Say which runs failed; raise where one may not."""
    reasons = queue.failures()
    failed = {run: reasons[run.digest] for run in left if run.digest in reasons}
    diverged = {digest for _, digest, trial in queue.failed() if "diverged" in trial.user_attrs}
    for run, reason in failed.items():
        if run.kind not in plan.tolerant:
            kind = DivergenceError if run.digest in diverged else StoreError
            raise kind(f"{run_type(run).title(run)} failed on another worker: {reason}")
    if failed:
        distinct = list(dict.fromkeys(failed.values()))
        session.say(f"{_counted(len(failed), 'run')} failed, ranked last:")
        for reason in distinct[:_REASONS_SHOWN]:
            session.say(f"  {reason}")
        if len(distinct) > _REASONS_SHOWN:
            session.say(f"  and {len(distinct) - _REASONS_SHOWN} other reasons")


def _exchange(artefacts: Artefacts, store: Store, runs: Sequence[RunSpec]) -> None:
    """Bring what others finished, and give out what computing needs."""
    for run in runs:
        artefacts.bring(store, run.kind, run.digest, optional=True)
    for kind, digest in dict.fromkeys(need for run in runs for need in run_type(run).needs(run)):
        if store.is_done(kind, digest):
            artefacts.put(store, kind, digest)


def _unique(runs: Sequence[RunSpec]) -> list[RunSpec]:
    return list({run.digest: run for run in runs}.values())


class Display(Rows):
    """Queues as rows: all runs, counted in the queue, and those of this machine's workers.

    total: runs to do. counts(): what the queues say now. titles: of the runs, by digest. weights: how long each takes
    beside the others; with them the time left is told by what was measured, long runs counting as such.
    """

    def __init__(
        self, shown: Progress, total: int, counts: Callable[[], Sequence[Counts]], titles: Mapping[str, str],
        weights: Mapping[str, float] | None = None,
    ):  # fmt: skip
        super().__init__(shown, "runs", total, "run", titles, weights)
        self.counts = counts
        self._due = time.monotonic() + _COUNT_S

    def _done(self, digest: str) -> None:
        super()._done(digest)
        self.tick()

    def tick(self) -> None:
        """Now and then, set the whole to what the queue says, which knows of other machines too."""
        began = time.monotonic()
        if began < self._due:
            return
        with contextlib.suppress(StoreError):
            counts = self.counts()
            failed = sum(one.failed for one in counts)
            done = (self.stage.total or 0) - sum(one.open for one in counts)
            self.stage.update(max(self.stage.step, done), failed=failed or None)
        now = time.monotonic()
        self._due = now + max(_COUNT_S, (now - began) / _COUNT_SHARE)

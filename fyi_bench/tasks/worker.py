"""`fyi-bench worker`: takes part in the sweeps of a storage until no job is left."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass

from fyi_bench.config import Settings
from fyi_bench.errors import UsageError
from fyi_bench.run.deadline import Budget, Deadline, Interruption
from fyi_bench.run.executor import Display, SweepPlan, work_through
from fyi_bench.run.processes import Place, work_together
from fyi_bench.run.progress import progress
from fyi_bench.run.queue import Sweep, connect
from fyi_bench.run.storage import shown

ENVIRONMENT_VARIABLE = "FYI_BENCH_STORAGE"


@dataclass(frozen=True)
class Duty:
    """What a worker takes part in. storage: URL (None: the environment variable FYI_BENCH_STORAGE).

    study: name of one sweep, or None for all. artefacts: where finished runs travel when workers share no store.
    linger: stay while others still work, so that the job of one that dies comes back at once.
    """

    storage: str | None = None
    study: str | None = None
    artefacts: str | None = None
    linger: bool = True


def worker_job(
    settings: Settings,
    duty: Duty,
    say: Callable[[str], None] = lambda line: None,
    display: str = "silent",
    stop: Deadline | None = None,
) -> int:
    """Work with `settings.workers` processes; returns how many jobs they finished.

    Raises UsageError without a storage, StoreError for one that cannot be used or a sweep that does not exist, and
    BudgetExhausted or Interrupted when stopped; the jobs in hand are given back.
    """
    url = duty.storage or os.environ.get(ENVIRONMENT_VARIABLE)
    if not url:
        raise UsageError(f"No storage is named.\nGive --storage URL, or set {ENVIRONMENT_VARIABLE}.")
    s = settings.resolved()
    stop = stop or Deadline(Budget(s.budget))
    with Interruption(stop), progress(display) as rows:
        sweeps = Sweep.all(connect(url, stop.check, rows.say), duty.study)
        waiting = sum(sweep.counts().open for sweep in sweeps)
        say(f"{shown(url)}: {len(sweeps)} sweep(s), {waiting} job(s) open")
        if not waiting:
            return 0
        place = Place(s.store, s.data_root, s.device, s.threads_for(waiting))
        plan = SweepPlan(url, duty.study, place, duty.artefacts, duty.linger)
        titles = {digest: title for sweep in sweeps for digest, title in sweep.titles().items()}
        view = Display(rows, waiting, lambda: [sweep.counts() for sweep in sweeps], titles)
        try:
            work = functools.partial(work_through, plan)
            done = work_together(work, min(s.workers, waiting), view.events, stop, view.tick)
        finally:
            view.end()
    say(f"{done} job(s) finished here, results in {s.store}")
    return done

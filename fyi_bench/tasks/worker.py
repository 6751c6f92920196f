"""`fyi-bench worker`: takes part in the queues of a storage until no run is left."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from fyi_bench.config import Settings
from fyi_bench.errors import UsageError
from fyi_bench.run.deadline import Budget, Deadline, Interruption
from fyi_bench.run.executor import Crew, Display
from fyi_bench.run.processes import work_together
from fyi_bench.run.progress import progress
from fyi_bench.run.queue import Queue, connect
from fyi_bench.run.storage import shown

ENVIRONMENT_VARIABLE = "FYI_BENCH_STORAGE"


@dataclass(frozen=True)
class Duty:
    """What a worker takes part in. storage: URL (None: the environment variable FYI_BENCH_STORAGE).

    study: name of one queue, or None for all. artefacts: where finished runs travel when workers share no store.
    linger: stay while others still work, so that the run of one that dies comes back at once.
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
    """Work with `settings.workers` processes; returns how many runs they finished.

    Raises UsageError without a storage, StoreError for one that cannot be used or a queue that does not exist, and
    BudgetExhausted or Interrupted when stopped; the runs in hand are given back.
    """
    url = duty.storage or os.environ.get(ENVIRONMENT_VARIABLE)
    if not url:
        raise UsageError(f"No storage is named.\nGive --storage URL, or set {ENVIRONMENT_VARIABLE}.")
    s = settings.resolved()
    stop = stop or Deadline(Budget(s.budget))
    with Interruption(stop), progress(display) as rows:
        queues = Queue.all(connect(url, stop.check, rows.say), duty.study)
        waiting = sum(queue.counts().open for queue in queues)
        say(f"{shown(url)}: {len(queues)} queue(s), {waiting} run(s) open")
        if not waiting:
            return 0
        titles = {digest: title for queue in queues for digest, title in queue.titles().items()}
        view = Display(rows, waiting, lambda: [queue.counts() for queue in queues], titles)
        crew = Crew(
            url, duty.study, s.store, s.data_root, s.device, s.devices, s.threads, duty.artefacts, duty.linger
        )  # fmt: skip
        with view:
            done = work_together(crew.work, min(s.workers, waiting), view.events, stop, view.tick)
    say(f"{done} run(s) finished here, results in {s.store}")
    return done

"""`fyi-bench worker`: takes part in the queues of a storage until no run is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fyi_bench.config import option
from fyi_bench.errors import UsageError
from fyi_bench.run.plan import Plan, Records
from fyi_bench.session import Session
from fyi_bench.tasks.base import TASKS, Record, Task

if TYPE_CHECKING:
    from fyi_bench.run.queue import Queue


@dataclass(frozen=True)
class WorkerOptions:
    """Which queues, and how long to stay."""

    study: str | None = option(None, "One queue; default: all.")
    wait: bool = option(True, "Stay while others still work, so that the run of one that dies comes back at once.")


@TASKS.register("worker")
class WorkerTask(Task[WorkerOptions]):
    """Work with as many processes as the settings say; the answer is how many runs they finished."""

    summary = "Take part in the queues of a storage until no run is left."
    Options = WorkerOptions
    settings: ClassVar[Sequence[str]] = (
        "storage", "artefacts", "store", "data_root", "device", "devices", "workers", "threads", "budget", "log",
    )  # fmt: skip
    examples: ClassVar[Sequence[str]] = (
        "fyi-bench worker --storage postgresql+psycopg://user@host/db",
        "fyi-bench worker --storage sqlite:////data/runs/queue-here.sqlite3 --workers 4 --budget 8h",
    )
    keeps = False
    returns = "done"

    def plan(self, session: Session, options: WorkerOptions, found: Records) -> Plan:
        """A dry run says how much waits."""
        if session.dry_run:
            self._open(session, options, session.say)
        return Plan("", "")

    def answer(self, session: Session, options: WorkerOptions, plan: Plan, found: Records) -> Record:
        """Raises UsageError without a storage, StoreError for one that cannot be used or a queue that is not there,
        and BudgetExhausted or Interrupted when stopped; the runs in hand are given back.
        """
        from fyi_bench.run.executor import Crew, Display
        from fyi_bench.run.processes import work_together
        from fyi_bench.run.progress import progress

        s = session.settings
        with session.store.in_use(), progress(session.display) as rows, session.stop.signals(rows.answer):
            queues, waiting = self._open(session, options, rows.say)
            done = 0
            if waiting:
                titles = {digest: title for queue in queues for digest, title in queue.titles().items()}
                view = Display(rows, waiting, lambda: [queue.counts() for queue in queues], titles)
                place = str(s.storage), options.study, session.store.root, s.data_root, s.device, s.devices, s.threads
                crew, count = Crew(*place, s.artefacts, options.wait, log=s.log), min(s.processes, waiting)
                with view:
                    if count == 1:
                        done = crew.work(0, session.stop, view.events)
                    else:
                        done = work_together(crew.work, count, view.events, session.stop, view.tick)
        return {"task": self.name, "done": done, "store": str(s.store)}

    @staticmethod
    def _open(session: Session, options: WorkerOptions, say: Callable[[str], None]) -> tuple[list[Queue], int]:
        """The queues, and how many of their runs are open, which is said; say: for what is waited for."""
        from fyi_bench.run.queue import Queue, connect
        from fyi_bench.run.storage import PATIENCE_S, check_there, shown

        storage = session.settings.storage
        if not storage:
            raise UsageError("No storage is named.\nGive --storage URL, or set FYI_BENCH_STORAGE.")
        check_there(storage)
        queues = Queue.all(connect(storage, session.stop.check, say, PATIENCE_S), options.study)
        waiting = sum(queue.counts().open for queue in queues)
        session.say(f"{shown(storage)}: {len(queues)} queue(s), {waiting} run(s) open")
        return queues, waiting

    def words(self, record: Mapping[str, Any]) -> str:
        return f"{record['done']} run(s) finished here, results in {record['store']}"

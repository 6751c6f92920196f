"""Several processes that share cells: each takes the next one, computes it into the store, and says so.

The store decides what is done, so the number of workers cannot change a result; a worker that dies loses nothing,
its cell is handed out again and goes on from its checkpoint.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fyi_bench import errors
from fyi_bench.budget import Budget, Interruption, Stop
from fyi_bench.cells import Worker, ensure
from fyi_bench.errors import FyiBenchError, StoreError
from fyi_bench.store import Cell, Store

POLL_SECONDS = 0.2
RESTARTS = 3
_STOPPED = (errors.BudgetExhausted, errors.Interrupted)


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker process needs to know: places, device, threads, seconds it may work."""

    store: Path
    data_root: Path | None
    device: str
    threads: int
    budget: float | None


@dataclass
class Events:
    """What the caller wants to hear of: progress(digest, done, total, loss), done(digest), say(line)."""

    progress: Callable[[str, int, int, float], None] = lambda digest, done, total, loss: None
    done: Callable[[str], None] = lambda digest: None
    say: Callable[[str], None] = lambda line: None


def compute_here(cells: Sequence[Cell], worker: Worker, events: Events) -> None:
    """Compute the cells one after another in this process."""
    worker.progress, worker.say = events.progress, events.say
    for cell in cells:
        if worker.stop is not None:
            worker.stop.check()
        ensure(cell, worker)
        events.done(cell.digest)


def compute_in_workers(
    cells: Sequence[Cell], options: WorkerOptions, count: int, events: Events, stop: Stop | None = None
) -> None:
    """Compute the cells in `count` processes, in the order given.

    The first error ends the whole: workers stop at their next safe point, and the error is raised here. Raises what
    `stop.check()` raises when asked to stop, after the workers have saved their checkpoints.
    """
    _Pool(cells, options, min(count, len(cells)), events, stop or Stop()).run()


class _Pool:
    def __init__(self, cells: Sequence[Cell], options: WorkerOptions, count: int, events: Events, stop: Stop):
        self.context = multiprocessing.get_context("spawn")  # a forked copy of torch's threads would hang
        self.waiting, self.options, self.events, self.stop = list(cells), options, events, stop
        self.results = self.context.Queue()
        self.workers: dict[int, Any] = {}
        self.pipes: dict[int, Any] = {}
        self.busy: dict[int, Cell] = {}
        self.restarts = 0
        self.error: FyiBenchError | None = None
        self.count = count
        self.told: set[int] = set()  # workers that were asked to stop

    def run(self) -> None:
        try:
            for number in range(self.count):
                self._start(number)
            while self.busy:
                self._listen()
                if self.stop.interrupted or self.error is not None:
                    self._ask_to_stop()
        finally:
            self._end()
        if self.error is not None:
            raise self.error
        if self.waiting:
            self.stop.check()

    def _start(self, number: int) -> None:
        ours, theirs = self.context.Pipe()
        worker = self.context.Process(target=_serve, args=(number, theirs, self.results, self.options), daemon=True)
        worker.start()
        self.workers[number], self.pipes[number] = worker, ours
        self._hand_out(number)

    def _hand_out(self, number: int) -> None:
        """Give a worker its next cell, or let it go."""
        self.busy.pop(number, None)
        over = self.stop.interrupted or self.error is not None or not self.waiting
        if not over:
            self.busy[number] = self.waiting.pop(0)
        with contextlib.suppress(OSError):  # a worker that is gone is noticed by _replace_the_dead
            self.pipes[number].send(None if over else self.busy[number])

    def _listen(self) -> None:
        try:
            number, kind, content = self.results.get(timeout=POLL_SECONDS)
        except queue.Empty:
            self._replace_the_dead()
            return
        if kind == "progress":
            self.events.progress(*content)
        elif kind == "say":
            self.events.say(content)
        elif kind == "done":
            self.events.done(content)
            self._hand_out(number)
        else:
            error = rebuild_error(*content)
            if isinstance(error, _STOPPED):
                self.waiting.insert(0, self.busy[number])
            self.error = self.error or error
            self._hand_out(number)

    def _replace_the_dead(self) -> None:
        for number, worker in list(self.workers.items()):
            if number in self.busy and not worker.is_alive():
                cell = self.busy.pop(number)
                self.restarts += 1
                if self.restarts > RESTARTS:
                    self.error = self.error or StoreError(
                        f"Worker processes keep dying (exit code {worker.exitcode}) at {cell.kind} {cell.digest}.\n"
                        "Is there enough memory? Use fewer --workers."
                    )
                    continue
                self.events.say(
                    f"A worker died (exit code {worker.exitcode}); its {cell.kind} cell goes on in another."
                )
                self.waiting.insert(0, cell)
                self._start(number)

    def _ask_to_stop(self) -> None:
        for number in self.busy:
            worker = self.workers[number]
            if worker.is_alive() and number not in self.told:
                worker.terminate()  # SIGTERM: the worker checkpoints at its next safe point
                self.told.add(number)

    def _end(self) -> None:
        for number, worker in self.workers.items():
            if number in self.busy:
                worker.terminate()
            worker.join(timeout=30)
            if worker.is_alive():
                worker.kill()


def _serve(number: int, pipe: Any, results: Any, options: WorkerOptions) -> None:
    """Life of a worker process: cells from the pipe until None, news into the queue."""
    from fyi_bench.runtime import end_with_parent, prepare

    end_with_parent()
    prepare(options.threads)
    stop = Stop(Budget(options.budget))
    worker = Worker(
        store=Store(options.store, say=lambda line: results.put((number, "say", line))),
        data_root=options.data_root,
        device=options.device,
        stop=stop,
        progress=lambda *facts: results.put((number, "progress", facts)),
        say=lambda line: results.put((number, "say", line)),
    )
    with Interruption(stop, say=lambda line: None):
        while (cell := pipe.recv()) is not None:
            try:
                stop.check()
                ensure(cell, worker)
                results.put((number, "done", cell.digest))
            except FyiBenchError as error:
                results.put((number, "error", (type(error).__name__, str(error))))
            except Exception:  # a defect of ours: the parent shows where
                results.put((number, "error", ("", traceback.format_exc())))


def rebuild_error(name: str, text: str) -> Exception:
    """The worker's error in this process: one of the project's own kinds, else a RuntimeError with its traceback."""
    kind = getattr(errors, name, None)
    if kind is None:
        return RuntimeError(f"in a worker process:\n{text}")
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    return error

"""Processes that work side by side on a queue.

What each of them does is a function; who does which piece is settled by the queue. So the number of processes cannot
change a result, and one that dies loses nothing: another is started, and goes on from the checkpoint of its piece.
"""

from __future__ import annotations

import contextlib
import functools
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Self

from fyi_bench import errors
from fyi_bench.errors import BudgetExhausted, FyiBenchError, Interrupted, StoreError
from fyi_bench.run.deadline import Deadline
from fyi_bench.run.progress import Progress

RESTARTS = 3
# what every worker needs, and takes seconds to load: once, in a process without threads, of which workers are copies
PRELOADED = ["torch", "sqlalchemy.orm", "alembic.context", "optuna.storages", "fyi_bench.run.executor"]
_LISTEN_S, _FAREWELL_S = 0.2, 30.0


@dataclass
class Events:
    """What the caller wants to hear of: progress(digest, done, total, loss), done(digest), say(line)."""

    progress: Callable[[str, int, int, float], None] = lambda digest, done, total, loss: None
    done: Callable[[str], None] = lambda digest: None
    say: Callable[[str], None] = lambda line: None


# what a process does, told its number, until asked to stop or nothing is left; returns how many pieces it finished
Work = Callable[[int, Deadline, Events], int]


def work_together(
    work: Work, count: int, events: Events, stop: Deadline, tick: Callable[[], None] = lambda: None
) -> int:
    """Do `work`, which must be picklable, in `count` processes; returns what was finished.

    tick() is called several times a second meanwhile. The first error ends the whole: the others stop at their next
    safe point, and it is raised here, as is what `stop.check()` raises when asked to stop.
    """
    return _Crew(work, count, events, stop, tick).run()


class _Crew:
    def __init__(self, work: Work, count: int, events: Events, stop: Deadline, tick: Callable[[], None]):
        self.context = multiprocessing.get_context("forkserver")  # a forked copy of torch's threads would hang
        self.context.set_forkserver_preload(PRELOADED)
        self.work, self.count, self.events, self.stop, self.tick = work, count, events, stop, tick
        self.processes: dict[int, Any] = {}
        # a pipe each: a process that is killed while it writes to a shared one would keep the others from writing
        self.news: dict[int, Any] = {}
        self.told: set[int] = set()  # those that were asked to stop
        self.restarts, self.finished = 0, 0
        self.error: Exception | None = None

    def run(self) -> int:
        try:
            for number in range(self.count):
                self._start(number)
            while self.processes:
                self._listen()
                if self.stop.interrupted or self.error is not None:
                    self._ask_to_stop()
        finally:
            self._end()
        if self.stop.interrupted and isinstance(self.error, BudgetExhausted | Interrupted):
            self.stop.check()  # who asked for it here: a process was asked by us
        if isinstance(self.error, BudgetExhausted):
            self.stop.give_up()  # its clock need not have come so far here, and what was not done has not failed
            self.stop.check()  # in numbers of the whole command, not of what was left when the process started
        if self.error is not None:
            raise self.error
        if self.told or self.stop.interrupted:  # a signal to the whole group reaches them before we ask
            self.stop.check()
        return self.finished

    def _start(self, number: int) -> None:
        stop = self.stop
        left = None if math.isinf(stop.seconds) else max(1.0, stop.seconds - stop.spent())
        listening, telling = self.context.Pipe(duplex=False)
        process = self.context.Process(
            target=_serve, args=(functools.partial(self.work, number), left, telling, dict(os.environ)), daemon=True
        )
        with _without_main():
            process.start()
        telling.close()  # the process has its own end: when it dies, ours is at its end too
        self.processes[number], self.news[number] = process, listening

    def _listen(self) -> None:
        self.tick()
        ready = wait(list(self.news.values()), timeout=_LISTEN_S)
        for number, news in list(self.news.items()):
            if news in ready:
                self._hear(number)
            elif not self.processes[number].is_alive() and not news.poll():
                self._replace(number)

    def _hear(self, number: int) -> None:
        try:
            kind, content = self.news[number].recv()
        except (EOFError, OSError):  # at the end, or in the middle of a message: it died
            self._replace(number)
            return
        if kind == "over":
            self._over(number, *content)
            return
        self.finished += kind == "done"
        getattr(self.events, kind)(*content)

    def _over(self, number: int, error: tuple[str, str] | None) -> None:
        self._dismiss(number)
        if error is None:
            return
        found, stops = _rebuilt(*error), (BudgetExhausted, Interrupted)
        # the others are asked to stop when one has stopped: the first to stop says why, and a failure says more
        if self.error is None or (isinstance(self.error, stops) and not isinstance(found, stops)):
            self.error = found

    def _dismiss(self, number: int) -> Any:
        process = self.processes.pop(number)
        process.join(timeout=_FAREWELL_S)
        self.news.pop(number).close()
        return process

    def _replace(self, number: int) -> None:
        died = f"(exit code {self._dismiss(number).exitcode})"
        if number in self.told or self.stop.interrupted:
            return
        self.restarts += 1
        if self.restarts > RESTARTS:
            few = "Is there enough memory? Use fewer --workers."
            self.error = self.error or StoreError(f"Worker processes keep dying {died}.\n{few}")
            return
        self.events.say(f"A worker died {died}; another goes on with its work.")
        self._start(number)

    def _ask_to_stop(self) -> None:
        for number, process in self.processes.items():
            if process.is_alive() and number not in self.told:
                process.terminate()  # SIGTERM: it stops at its next safe point, everything done kept
                self.told.add(number)

    def _end(self) -> None:
        for news in self.news.values():
            news.close()
        for process in self.processes.values():
            process.terminate()
            process.join(timeout=_FAREWELL_S)
            if process.is_alive():
                process.kill()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Inside, new processes do not run the script that calls us: it would ask for the same work again."""
    main = sys.modules["__main__"]
    kept: dict[str, Any] = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    vars(main).update(dict.fromkeys(kept))
    try:
        yield
    finally:
        vars(main).update(kept)


def _serve(
    work: Callable[[Deadline, Events], int], budget: float | None, news: Any, environment: dict[str, str]
) -> None:
    """Life of a process: news into its pipe, 'over' at the end; without a listener it goes on to a safe point."""
    os.environ.clear()  # the process it is a copy of may be older than what is set now
    os.environ.update(environment)
    stop, error, alone = Deadline(budget), None, threading.Lock()

    def send(kind: str, *content: Any) -> None:
        with alone, contextlib.suppress(BrokenPipeError):
            news.send((kind, content))

    def tell(kind: str) -> Callable[..., None]:
        return lambda *content: send(kind, *content)

    with stop.signals(say=lambda line: None):
        threading.Thread(target=_end_with_parent, daemon=True).start()
        try:
            work(stop, Events(tell("progress"), tell("done"), tell("say")))
        except FyiBenchError as caught:
            error = type(caught).__name__, str(caught)
        except OSError as caught:
            where = f"{caught.filename}: " if caught.filename else ""
            error = StoreError.__name__, f"{where}{caught.strerror or caught}.\nEverything done is kept; run it again."
        except KeyboardInterrupt:
            error = Interrupted.__name__, "Stopped at once by Ctrl-C."
        except Exception:  # a defect of ours: the parent shows where
            error = "", traceback.format_exc()
        send("over", error)


def _end_with_parent() -> None:
    """Stop this worker when the command that started it is gone, so that a killed one leaves nobody behind."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _rebuilt(name: str, text: str) -> Exception:
    """The error of another process in this one: of the project's own kinds, else a RuntimeError with its traceback."""
    kind = getattr(errors, name, None)
    if kind is None:
        return RuntimeError(f"{text.strip().splitlines()[-1]}, in a worker process:\n{text}")
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    return error


_EXPECTED = 0.05  # of all work: what the estimate counts beside what was measured


class Rows:
    """What processes tell, as rows of a display: the whole, and each piece under way.

    unit: what the pieces are; names: of the pieces, by digest. weights: seconds that one process is expected to take.
    """

    def __init__(
        self, shown: Progress, title: str, total: int, unit: str, names: Mapping[str, str],
        weights: Mapping[str, float] | None = None,
    ):  # fmt: skip
        self.shown, self.names, self.weights = shown, names, dict(weights or {})
        self.stage = shown.add(title, total=total, unit=unit)
        self.stage.reckon = self._left_s if self.weights else None
        self._began, self._shares = time.monotonic(), dict[str, tuple[float, float]]()  # share done: at first, and now
        self.events = Events(self._progress, self._done, shown.say)
        self._rows: dict[str, Any] = {}
        self._finished: set[str] = set()  # several processes may say so of one piece, and one speak late

    def _progress(self, digest: str, done: int, total: int, loss: float) -> None:
        if digest in self._finished:
            return
        # what was there when it was taken up again took no time of ours
        first = self._shares[digest][0] if digest in self._shares else (done - 1) / total
        self._shares[digest] = (first, done / total)
        if digest not in self._rows:
            self._rows[digest] = self.shown.add(self.names.get(digest, digest), total=total, done=done - 1)
        self._rows[digest].update(done, loss=loss)

    def _done(self, digest: str) -> None:
        if digest in self._rows:
            self._rows.pop(digest).finish()
        self._finished.add(digest)
        self._shares[digest] = (self._shares.get(digest, (0.0, 0.0))[0], 1.0)
        self.stage.update(max(self.stage.step, len(self._finished)))

    def _left_s(self) -> float | None:
        """Seconds to the end; None before a hundredth of the work is done.

        At the speed of the work so far, and as if a twentieth of the whole had taken what was expected: short runs that
        come first tell little of long ones. Of runs side by side, the longest that is left cannot be shared out.
        """
        made = sum(self.weights.get(one, 0.0) * (now - first) for one, (first, now) in self._shares.items())
        left = {one: w * (1 - self._shares.get(one, (0.0, 0.0))[1]) for one, w in self.weights.items()}
        if made <= 0.01 * (made + sum(left.values())):
            return None
        beside = sum(1 for one in self._rows if one not in self._finished)
        expected = _EXPECTED * sum(self.weights.values())
        pace = (time.monotonic() - self._began + expected / max(1, beside)) / (made + expected)
        return pace * max(sum(left.values()), max(left.values(), default=0.0) * max(1, beside))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Take the rows away."""
        for row in self._rows.values():
            row.finish()
        self.stage.finish()

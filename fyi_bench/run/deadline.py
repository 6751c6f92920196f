"""Time and interruptions: work stops at a safe point, checkpointed, and the next call goes on.

Only `time.monotonic` is read, and no result depends on it.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from types import FrameType

from fyi_bench.duration import format_duration
from fyi_bench.errors import BudgetExhausted, Interrupted, UsageError

_RESERVE_SHARE, _RESERVE_LIMIT_S = 0.05, 10.0
_LARGEST_RESERVE_SHARE = 0.5
_REMEMBERED_STEPS = 8
_GO_ON = "Everything done is kept; run the same command to go on."


class Budget:
    """Wall time that may be spent, counted from now on. `None` seconds is no limit.

    reserve: seconds kept back for saving; by default a twentieth of the budget, 10 s at most. It grows to twice the
    longest save seen, and never beyond half of the budget, so that some work is always done.
    """

    def __init__(self, seconds: float | None = None, reserve: float | None = None):
        self.seconds = math.inf if seconds is None else float(seconds)
        if not self.seconds > 0:
            raise UsageError(f"A budget of {seconds} s leaves no time to work.\nGive more than 0 seconds.")
        default = min(_RESERVE_LIMIT_S, _RESERVE_SHARE * self.seconds)
        self.reserve = default if reserve is None else float(reserve)
        self._began = time.monotonic()

    def spent(self) -> float:
        """Seconds since the budget began."""
        return time.monotonic() - self._began

    def left(self) -> float:
        """Seconds of work left before saving must begin; infinite without a limit, never below 0."""
        return max(0.0, self.seconds - self.reserve - self.spent())

    @property
    def exhausted(self) -> bool:
        """Whether it is time to save and stop."""
        return self.left() <= 0

    def check(self) -> None:
        """Raise BudgetExhausted when the time is used up."""
        if self.exhausted:
            raise self.error()

    def note_save(self, seconds: float) -> None:
        """Learn how long saving takes."""
        self.reserve = max(self.reserve, min(2 * seconds, _LARGEST_RESERVE_SHARE * self.seconds))

    def error(self) -> BudgetExhausted:
        """What to raise when the time is used up."""
        given, spent = format_duration(self.seconds), format_duration(self.spent())
        return BudgetExhausted(f"Stopped after {spent} of the budget of {given}.\n{_GO_ON}")


class Deadline:
    """When to stop; loops ask at every safe point. By default never.

    It learns how long the stretches between safe points are and stops when the next one would not fit into the
    budget. Signals reach it through `Interruption`; a library or another thread calls `interrupt`.
    """

    def __init__(self, budget: Budget | None = None):
        self.budget = budget or Budget()
        self._stretches: deque[float] = deque(maxlen=_REMEMBERED_STEPS)
        self._last: float | None = None
        self._interrupted_by: str | None = None
        self._out_of_time = False

    def requested(self) -> bool:
        """Whether to save and stop now. Once true it stays true."""
        if self.interrupted or self._out_of_time:
            return True
        now = time.monotonic()
        if self._last is not None:
            self._stretches.append(now - self._last)
        self._last = now
        left = self.budget.left()
        self._out_of_time = left <= 0 or left < max(self._stretches, default=0.0)
        return self._out_of_time

    def check(self) -> None:
        """Raise Interrupted or BudgetExhausted if a stop is requested; call it after saving."""
        if not self.requested():
            return
        if self.interrupted:
            raise Interrupted(f"Stopped by {self._interrupted_by}.\n{_GO_ON}")
        raise self.budget.error()

    def interrupt(self, by: str = "request") -> None:
        """Ask for a stop at the next safe point, from any thread or signal handler."""
        self._interrupted_by = by

    @property
    def interrupted(self) -> bool:
        """Whether somebody asked for a stop (the budget aside)."""
        return self._interrupted_by is not None

    def note_save(self, seconds: float) -> None:
        """Learn how long saving takes."""
        self.budget.note_save(seconds)


def _to_stderr(text: str) -> None:
    os.write(2, (text + "\n").encode())  # the one way of printing that is safe inside a signal handler


class Interruption:
    """While active, Ctrl-C and SIGTERM ask `stop` for a clean end; a second Ctrl-C raises KeyboardInterrupt.

    Outside the main thread signals cannot be caught, and nothing is changed. The handlers from before come back at
    the end.
    """

    names = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}  # noqa: RUF012

    def __init__(self, stop: Deadline, say: Callable[[str], None] = _to_stderr):
        self.stop, self._say = stop, say
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Deadline:
        if threading.current_thread() is threading.main_thread():
            for number in self.names:
                self._before[number] = signal.signal(number, self._handle)
        return self.stop

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.stop.interrupted:
            raise KeyboardInterrupt
        self.stop.interrupt(self.names[signal.Signals(number)])
        self._say("Stopping at the next safe point; Ctrl-C again stops at once.")

"""Time and interruptions: work stops at a safe point, checkpointed, and the next call goes on.

Only `time.monotonic` is read, and no result depends on it.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType

from fyi_bench.duration import format_duration
from fyi_bench.errors import BudgetExhausted, Interrupted, UsageError

_RESERVE_SHARE, _RESERVE_LIMIT_S = 0.05, 10.0
_LARGEST_RESERVE_SHARE = 0.5
_REMEMBERED_STEPS = 8
_GO_ON = "Everything done is kept; run the same command to go on."
_SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "the end of its terminal (SIGHUP)"}


def to_stderr(text: str) -> None:
    """Print a line at once."""
    with contextlib.suppress(OSError):  # the terminal may be gone
        start = "\n" if os.isatty(2) else ""  # the line of a terminal has begun, with ^C or a display
        os.write(2, (start + text + "\n").encode())  # the one way of printing that is safe inside a signal handler


class Deadline:
    """When to stop; loops ask at every safe point. By default never.

    seconds: wall time that may be spent, counted from now on. reserve: seconds kept back for saving; by default a
    twentieth of the time, 10 s at most. It grows to twice the longest save seen, and never beyond half of the time, so
    that some work is always done. The stretches between safe points are learned too: work stops when the next one
    would not fit. Signals come by `signals`; a library or another thread calls `interrupt`.
    """

    def __init__(self, seconds: float | None = None, reserve: float | None = None):
        self.seconds = math.inf if seconds is None else float(seconds)
        if not self.seconds > 0:
            raise UsageError(f"A budget of {seconds} s leaves no time to work.\nGive more than 0 seconds.")
        default = min(_RESERVE_LIMIT_S, _RESERVE_SHARE * self.seconds)
        self.reserve = default if reserve is None else float(reserve)
        self._began = time.monotonic()
        self._stretches: deque[float] = deque(maxlen=_REMEMBERED_STEPS)
        self._last: float | None = None
        self._interrupted_by: str | None = None
        self._out_of_time = False

    def spent(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._began

    def left(self) -> float:
        """Seconds of work left before saving must begin; infinite without a limit, never below 0."""
        return max(0.0, self.seconds - self.reserve - self.spent())

    def requested(self) -> bool:
        """Whether to save and stop now. Once true it stays true."""
        if self.interrupted or self._out_of_time:
            return True
        now = time.monotonic()
        if self._last is not None:
            self._stretches.append(now - self._last)
        self._last = now
        left = self.left()
        self._out_of_time = left <= 0 or left < max(self._stretches, default=0.0)
        return self._out_of_time

    def check(self) -> None:
        """Raise Interrupted or BudgetExhausted if a stop is requested; call it after saving."""
        if not self.requested():
            return
        if self.interrupted:
            raise Interrupted(f"Stopped by {self._interrupted_by}.\n{_GO_ON}")
        given, spent = format_duration(self.seconds), format_duration(self.spent())
        raise BudgetExhausted(f"Stopped after {spent} of the budget of {given}.\n{_GO_ON}")

    def interrupt(self, by: str = "request") -> None:
        """Ask for a stop at the next safe point, from any thread or signal handler; who asks first is named."""
        self._interrupted_by = self._interrupted_by or by

    def give_up(self) -> None:
        """From now on a stop is requested: another process that shares the time has stopped for lack of it."""
        self._out_of_time = True

    @property
    def interrupted(self) -> bool:
        """Whether somebody asked for a stop (the time aside)."""
        return self._interrupted_by is not None

    def note_save(self, seconds: float) -> None:
        """Learn how long saving takes."""
        self.reserve = max(self.reserve, min(2 * seconds, _LARGEST_RESERVE_SHARE * self.seconds))

    @contextlib.contextmanager
    def signals(self, say: Callable[[str], None] = to_stderr) -> Iterator[Deadline]:
        """While active, Ctrl-C, SIGTERM and SIGHUP ask for a clean end; a second Ctrl-C raises KeyboardInterrupt.

        A SIGHUP that is ignored, as under nohup, stays so.

        Outside the main thread signals cannot be caught, and nothing is changed. The handlers from before come back
        at the end.
        """

        def handle(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGINT and self.interrupted:
                raise KeyboardInterrupt
            self.interrupt(_SIGNALS[signal.Signals(number)])
            say("Stopping at the next safe point; Ctrl-C again stops at once.")

        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        taken = [each for each in _SIGNALS if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN]
        before = {number: signal.signal(number, handle) for number in taken}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

"""What a person sees during long work: one live display on a terminal, a plain line now and then elsewhere.

Everything goes to stderr, so that stdout stays for results. Times are monotonic.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib.util
import math
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol, TextIO

from fyi_bench.duration import format_duration
from fyi_bench.errors import UnknownNameError

LINE_EVERY_S = 10.0
_DRAW_EVERY_S = 0.1
_SAMPLE_EVERY_S, _SAMPLES = 0.5, 60  # speed is that of the last half minute

_active: contextvars.ContextVar[Progress | None] = contextvars.ContextVar("active_progress", default=None)


class Task:
    """One row: how far of `total` steps, with values such as the loss; made by `Progress.add`.

    `done` steps of an earlier call count as done and not towards the speed. Used with `with`, it ends by itself.
    """

    def __init__(self, owner: Progress, name: str, total: int | None, done: int = 0, unit: str = "it"):
        self._owner, self.name, self.total, self.unit = owner, name, total, unit
        self.step, self.values, self.finished = done, {}, False
        self._samples: deque[tuple[float, int]] = deque([(time.monotonic(), done)], maxlen=_SAMPLES)

    def update(self, step: int, **values: float | int | str | None) -> None:
        """Say that `step` steps are done in all, and the values to show (numbers are shortened)."""
        self.step = step
        self.values.update(values)
        now = time.monotonic()
        if now - self._samples[-1][0] >= _SAMPLE_EVERY_S:
            self._samples.append((now, step))
        self._owner._changed(self)

    def advance(self, steps: int = 1, **values: float | int | str | None) -> None:
        """Say that some more steps are done."""
        self.update(self.step + steps, **values)

    def finish(self) -> None:
        """Say that the task is over; its row goes away when there are others."""
        if not self.finished:
            self.finished = True
            self._owner._ended(self)

    def speed(self) -> float | None:
        """Steps a second over the last half minute; None before anything can be told."""
        began, first = self._samples[0]
        elapsed = time.monotonic() - began
        return (self.step - first) / elapsed if elapsed > 0 and self.step > first else None

    def left_s(self) -> float | None:
        """Estimated seconds to the end, or None."""
        speed = self.speed()
        return max(0.0, (self.total - self.step) / speed) if self.total is not None and speed else None

    def count_text(self) -> str:
        """'12/100' or '12'."""
        return f"{self.step}/{self.total}" if self.total is not None else str(self.step)

    def facts_text(self) -> str:
        """'loss 1.234, 56 it/s, 3 min 05 s left', as far as it is known."""
        facts = [f"{name} {_short(value)}" for name, value in self.values.items() if value is not None]
        speed, left = self.speed(), self.left_s()
        if speed is not None:
            fast = speed >= 1
            facts.append(f"{_short(speed)} {self.unit}/s" if fast else f"{_short(1 / speed)} s/{self.unit}")
        if left is not None and not self.finished and self.step < self.total:
            facts.append(f"{format_duration(left)} left")
        return ", ".join(facts)

    def __enter__(self) -> Task:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()


class _View(Protocol):
    """A way to show tasks."""

    def show(self, tasks: list[Task], changed: Task | None) -> None: ...

    def say(self, text: str) -> None: ...

    def close(self, tasks: list[Task]) -> None: ...


class Progress:
    """The tasks under way, in the order they were added: first the whole, then its present part."""

    def __init__(self, view: _View):
        self._view = view
        self.tasks: list[Task] = []

    def add(self, name: str, total: int | None = None, done: int = 0, unit: str = "it") -> Task:
        """A new row. `total` None means that the end is not known; `done` steps come from an earlier call."""
        task = Task(self, name, total, done, unit)
        self.tasks = [*(other for other in self.tasks if not other.finished), task]
        self._view.show(self.tasks, task)
        return task

    def say(self, text: str) -> None:
        """Print a line above the display: the plan, a warning, a wait."""
        self._view.say(text)

    def _changed(self, task: Task) -> None:
        self._view.show(self.tasks, task)

    def _ended(self, task: Task) -> None:
        if any(other is not task for other in self.tasks):
            self.tasks = [other for other in self.tasks if other is not task]
        self._view.show(self.tasks, task)

    def close(self) -> None:
        """Leave the last state standing."""
        self._view.close(self.tasks)


@contextlib.contextmanager
def progress(mode: str = "auto", stream: TextIO | None = None) -> Iterator[Progress]:
    """`with progress() as p:`; inside another one the outer is used, so that there is one display.

    mode: "live" (needs rich), "lines", "silent", or "auto": live where `stream` (stderr) is a terminal.
    Raises UnknownNameError for another mode.
    """
    outer = _active.get()
    if outer is not None:
        yield outer
        return
    stream = stream if stream is not None else sys.stderr
    if mode == "auto":
        mode = "live" if _can_draw(stream) else "lines"
    if mode not in _VIEWS:
        raise UnknownNameError("progress mode", mode, ["auto", *_VIEWS])
    shown = Progress(_VIEWS[mode](stream))
    token = _active.set(shown)
    try:
        yield shown
    finally:
        _active.reset(token)
        shown.close()


def _can_draw(stream: TextIO) -> bool:
    terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
    return terminal and importlib.util.find_spec("rich") is not None


class _Silent:
    def __init__(self, stream: TextIO):
        del stream

    def show(self, tasks: list[Task], changed: Task | None) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def close(self, tasks: list[Task]) -> None:
        """Nothing."""


class _Lines:
    """One line for all rows, every ten seconds at most, and a last one at the end."""

    def __init__(self, stream: TextIO):
        self._stream, self._told, self._last = stream, time.monotonic(), ""

    def show(self, tasks: list[Task], changed: Task | None) -> None:
        if time.monotonic() - self._told >= LINE_EVERY_S:
            self._tell(tasks)

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def close(self, tasks: list[Task]) -> None:
        self._tell(tasks)

    def _tell(self, tasks: list[Task]) -> None:
        self._told = time.monotonic()
        rows = [f"{task.name} {task.count_text()}" for task in tasks[:-1]]
        rows += [", ".join(filter(None, (f"{t.name} {t.count_text()}", t.facts_text()))) for t in tasks[-1:]]
        line = " | ".join(rows)
        if line and line != self._last:
            self._last = line
            self.say(line)


class _Live:
    """The display of rich; redrawn by its own thread a few times a second."""

    def __init__(self, stream: TextIO):
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Display

        self._display = Display(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}", markup=False),
            TextColumn("{task.fields[facts]}", markup=False),
            console=Console(file=stream),
            refresh_per_second=4,
            get_time=time.monotonic,
        )
        self._rows: dict[int, Any] = {}  # id of a task -> row of rich
        self._drawn: dict[int, float] = {}
        self._display.start()

    def show(self, tasks: list[Task], changed: Task | None) -> None:
        shown = {id(task) for task in tasks}
        for gone in [key for key in self._rows if key not in shown]:
            self._display.remove_task(self._rows.pop(gone))
            self._drawn.pop(gone, None)
        now = time.monotonic()
        for task in tasks:
            if id(task) not in self._rows:
                self._rows[id(task)] = self._display.add_task(task.name, total=task.total, count="", facts="")
            elif task is not changed:
                continue
            if task.finished or now - self._drawn.get(id(task), -math.inf) >= _DRAW_EVERY_S:
                self._drawn[id(task)] = now
                self._draw(task)

    def say(self, text: str) -> None:
        self._display.console.print(text, markup=False, highlight=False)
        self._display.refresh()

    def close(self, tasks: list[Task]) -> None:
        for task in tasks:
            self._draw(task)
        self._display.stop()

    def _draw(self, task: Task) -> None:
        row = self._rows[id(task)]
        self._display.update(row, completed=task.step, count=task.count_text(), facts=task.facts_text())


_VIEWS = {"live": _Live, "lines": _Lines, "silent": _Silent}


def _short(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

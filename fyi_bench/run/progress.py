"""What a person sees during long work: one live display on a terminal or in a notebook, else a line now and then.

Everything but a notebook's goes to stderr, so that stdout stays for results. Times are monotonic.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from html import escape
from typing import TYPE_CHECKING, TextIO

from fyi_bench.duration import format_duration
from fyi_bench.errors import UnknownNameError, printable
from fyi_bench.run.deadline import to_stderr

if TYPE_CHECKING:
    from rich.console import Group

LINE_EVERY_S, NOTEBOOK_EVERY_S = 10.0, 0.5
NARROW = 100  # columns of a terminal up to which bars are short, so that a row stays one line
_SAMPLE_EVERY_S, _SAMPLES = 0.5, 60  # speed is that of the last half minute

_active: contextvars.ContextVar[Progress | None] = contextvars.ContextVar("active_progress", default=None)


class Task:
    """One row: how far of `total` steps, with values such as the loss; made by `Progress.add`.

    `done` steps of an earlier call count as done and not towards the speed. Used with `with`, it ends by itself.
    """

    def __init__(self, owner: Progress, name: str, total: int | None, done: int = 0, unit: str = "it"):
        self._owner, self.name, self.total, self.unit = owner, name, total, unit
        self.step, self.finished = done, False
        self.values: dict[str, float | int | str | None] = {}
        self.reckon: Callable[[], float | None] | None = None  # seconds left, where steps differ in length
        self._samples: deque[tuple[float, int]] = deque([(time.monotonic(), done)], maxlen=_SAMPLES)

    def update(self, step: int, **values: float | int | str | None) -> None:
        """Say that `step` steps are done in all, and the values to show (numbers are shortened)."""
        self.step = step
        if values:
            self.values = {**self.values, **values}  # a new one: a display may read the old at this moment
        now = time.monotonic()
        if now - self._samples[-1][0] >= _SAMPLE_EVERY_S:
            self._samples.append((now, step))
        self._owner.changed()

    def advance(self, steps: int = 1, **values: float | int | str | None) -> None:
        """Say that some more steps are done."""
        self.update(self.step + steps, **values)

    def finish(self) -> None:
        """Say that the task is over; its row goes away when there are others."""
        if not self.finished:
            self.finished = True
            self._owner.ended(self)

    def speed(self) -> float | None:
        """Steps a second over the last half minute; None before anything can be told."""
        began, first = self._samples[0]
        elapsed = time.monotonic() - began
        return (self.step - first) / elapsed if elapsed > 0 and self.step > first else None

    def left_s(self) -> float | None:
        """Estimated seconds to the end, or None."""
        if self.reckon is not None:
            return self.reckon()
        speed = self.speed()
        return max(0.0, (self.total - self.step) / speed) if self.total is not None and speed else None

    def count_text(self) -> str:
        """'12/100' or '12'."""
        return f"{self.step}/{self.total}" if self.total is not None else str(self.step)

    def facts_text(self) -> str:
        """'loss 1.234, 56 it/s, 3 min 05 s left', as far as it is known."""
        told = {name: value for name, value in self.values.items() if value is not None}
        facts = [
            f"{name} {_short(value)}" for name, value in told.items() if isinstance(value, str) or math.isfinite(value)
        ]
        speed, left = self.speed(), self.left_s()
        if speed is not None:
            fast = speed >= 1
            facts.append(f"{_short(speed)} {self.unit}/s" if fast else f"{_short(1 / speed)} s/{self.unit}")
        if left and not self.finished:
            facts.append(f"{format_duration(left)} left")
        return ", ".join(facts)

    def __enter__(self) -> Task:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()


class Progress:
    """The tasks under way, in the order they were added: first the whole, then its present part; shown to nobody."""

    def __init__(self, stream: TextIO = sys.stderr):
        self.tasks: list[Task] = []
        self._stream = stream

    def add(self, name: str, total: int | None = None, done: int = 0, unit: str = "it") -> Task:
        """A new row. `total` None means that the end is not known; `done` steps come from an earlier call."""
        task = Task(self, name, total, done, unit)
        self.tasks = [*(other for other in self.tasks if not other.finished), task]
        self.changed()
        return task

    def ended(self, task: Task) -> None:
        """Take a finished row away when there are others."""
        if any(other is not task for other in self.tasks):
            self.tasks = [other for other in self.tasks if other is not task]
        self.changed()

    def changed(self) -> None:
        """Called after every change of a row."""

    def say(self, text: str) -> None:
        """Print a line above the display: the plan, a warning, a wait."""

    def answer(self, text: str) -> None:
        """Tell at once that a signal was heard, from inside its handler: no lock is taken."""
        to_stderr(text)

    def close(self) -> None:
        """Leave the last state standing."""


class Lines(Progress):
    """One line for all rows, every ten seconds at most, and a last one at the end."""

    def __init__(self, stream: TextIO = sys.stderr):
        super().__init__(stream)
        self._told, self._last = time.monotonic(), ""

    def changed(self) -> None:
        if time.monotonic() - self._told >= LINE_EVERY_S:
            self.close()

    def say(self, text: str) -> None:
        print(printable(text), file=self._stream, flush=True)

    def close(self) -> None:
        self._told = time.monotonic()
        rows = [f"{task.name} {task.count_text()}" for task in self.tasks]
        line = ", ".join(filter(None, (" | ".join(rows), *(task.facts_text() for task in self.tasks[-1:]))))
        if line and line != self._last:
            self._last = line
            self.say(line)


class Live(Progress):
    """A display on a terminal that rich redraws in a thread of its own a few times a second."""

    def __init__(self, stream: TextIO = sys.stderr):
        from rich.console import Console
        from rich.live import Live as Display

        super().__init__(stream)
        self._answer, self._console = "", Console(file=stream)
        self._display = Display(get_renderable=self._shown, console=self._console, refresh_per_second=4)
        self._display.start()

    def say(self, text: str) -> None:
        self._console.print(printable(text), markup=False, highlight=False)
        self._display.refresh()

    def answer(self, text: str) -> None:
        self._answer = text  # below the rows: what is printed between two drawings would be wiped out

    def close(self) -> None:
        self._display.stop()

    def _shown(self) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        width = 24 if self._console.width > NARROW else 8
        table = Table.grid(padding=(0, 1))
        for task in self.tasks:
            bar = ProgressBar(task.total, task.step, width=width, pulse=task.total is None)
            words = [Text(text, no_wrap=True, overflow="ellipsis") for text in (
                task.name, task.count_text(), task.facts_text()
            )]  # fmt: skip
            table.add_row(words[0], bar, *words[1:])
        return Group(table, *([Text(self._answer)] if self._answer else []))


class Notebook(Progress):
    """One output of a notebook's cell, redrawn twice a second at most; lines said stand in it, below one another."""

    def __init__(self, stream: TextIO = sys.stderr):
        from IPython.display import display

        super().__init__(stream)
        self._said: list[str] = []
        self._told = time.monotonic()
        self._output = display(self._shown(), raw=True, display_id=True)

    def changed(self) -> None:
        if time.monotonic() - self._told >= NOTEBOOK_EVERY_S:
            self.close()

    def say(self, text: str) -> None:
        self._said.append(printable(text))
        self.close()

    def close(self) -> None:
        self._told = time.monotonic()
        self._output.update(self._shown(), raw=True)

    def _shown(self) -> dict[str, str]:
        """The rows as text, and as bars of HTML."""
        lines = [*self._said, *(f"{task.name} {task.count_text()} {task.facts_text()}".rstrip() for task in self.tasks)]
        bars = (
            f"<tr><td>{escape(task.name)}</td><td><progress{_share(task)}></progress></td>"
            f"<td>{escape(task.count_text())}</td><td>{escape(task.facts_text())}</td></tr>"
            for task in self.tasks
        )
        said = "".join(f"<div>{escape(line)}</div>" for line in self._said)
        return {"text/plain": "\n".join(lines), "text/html": f"{said}<table>{''.join(bars)}</table>"}


def _share(task: Task) -> str:
    """What an HTML bar says of a task; nothing where its end is not known."""
    return f" max='{task.total}' value='{task.step}'" if task.total else ""


MODES: dict[str, type[Progress]] = {"live": Live, "lines": Lines, "notebook": Notebook, "silent": Progress}


@contextlib.contextmanager
def progress(mode: str = "auto", stream: TextIO | None = None) -> Iterator[Progress]:
    """`with progress() as p:`; inside another one the outer is used, so that there is one display.

    mode: "live", "notebook", "lines", "silent", or "auto": live where `stream` (stderr) is a terminal.
    Raises UnknownNameError for another mode.
    """
    outer = _active.get()
    if outer is not None:
        yield outer
        return
    stream = stream if stream is not None else sys.stderr
    if mode == "auto":
        mode = "live" if stream.isatty() and os.environ.get("TERM") != "dumb" else "lines"
    if mode not in MODES:
        raise UnknownNameError("progress mode", mode, ["auto", *MODES])
    shown = MODES[mode](stream)
    token = _active.set(shown)
    try:
        yield shown
    finally:
        _active.reset(token)
        shown.close()


def _short(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

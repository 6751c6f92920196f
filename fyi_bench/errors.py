"""Errors a user can act on: each carries one or two lines (what, where, what to do) and an exit code."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

EXIT_DONE = 0
EXIT_USAGE = 2
EXIT_BUDGET = 3
EXIT_DIVERGED = 4
EXIT_INPUT = 5
EXIT_INTERRUPTED = 130


# what a terminal obeys and a reader does not see: control characters, and those that turn the direction of writing
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object, lines: bool = True) -> str:
    r"""The text as terminals and pages may have it: control characters as \x1b. lines: whether it may have several."""
    safe = _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))
    return safe if lines else safe.replace("\n", "\\n").replace("\t", " ")


class FyiBenchError(Exception):
    """Base of every error the project raises on purpose; `exit_code` is what the command returns."""

    exit_code = EXIT_INPUT


class UsageError(FyiBenchError):
    """The command or call itself is wrong: an unknown name, an impossible combination of options."""

    exit_code = EXIT_USAGE


class UnknownNameError(UsageError):
    """A name that is not registered; the message suggests the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]):
        self.kind, self.name, self.known = kind, name, sorted(known)
        super().__init__(unknown_name_message(kind, name, self.known))


class DataError(FyiBenchError):
    """Real data or a file of images that is missing, broken or not what it should be."""


class StoreError(FyiBenchError):
    """The result store cannot be read or written (disk full, no permission, damaged record)."""


class DivergenceError(FyiBenchError):
    """A run whose loss or images are no longer finite or beyond all measure; `last_good` is the last good set."""

    exit_code = EXIT_DIVERGED

    def __init__(self, message: str, step: int | None = None, last_good: Any = None):
        self.step, self.last_good = step, last_good
        super().__init__(message)


class BudgetExhausted(FyiBenchError):
    """The time given with --budget is used up; everything done is checkpointed and resumable."""

    exit_code = EXIT_BUDGET


class Interrupted(FyiBenchError):
    """Somebody asked for a stop (Ctrl-C, SIGTERM); everything done is checkpointed and resumable."""

    exit_code = EXIT_INTERRUPTED


class PlanShown(FyiBenchError):
    """Not an error: the plan was all that was asked for (--dry-run)."""

    exit_code = EXIT_DONE


class Declined(FyiBenchError):
    """The plan was shown and not agreed to."""

    exit_code = EXIT_USAGE


def unknown_name_message(kind: str, name: str, known: Iterable[str]) -> str:
    """Two lines: what is unknown with the nearest suggestion, and everything that is known."""
    known = sorted(known)
    near = difflib.get_close_matches(name.lower(), [k.lower() for k in known], n=1, cutoff=0.55)
    by_lower = {k.lower(): k for k in known}
    hint = f" Did you mean '{by_lower[near[0]]}'?" if near else ""
    return f"Unknown {kind} '{name}'.{hint}\nKnown: {', '.join(known)}."

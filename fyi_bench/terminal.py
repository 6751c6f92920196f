"""How a command speaks and ends: text that no terminal obeys, output that arrives, errors in one or two lines."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import typer

from fyi_bench.errors import (
    EXIT_INPUT,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    FyiBenchError,
    StoreError,
    printable,
)

EXIT_UNEXPECTED = 1
_Wrong: Any = typer.BadParameter.__base__  # typer's own usage error, which has no public name


def echo(line: str) -> None:
    """Print for people: whatever a file of others put into the text, no terminal obeys it."""
    typer.echo(printable(line))


def end_output() -> None:
    """See that what was printed arrives. Raises OSError where stdout is full or closed."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        # nothing more is to be tried at the end of the process
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        cause = error.strerror or error
        raise StoreError(
            f"stdout took no more ({cause}).\nEverything done is kept: the same command tells it again."
        ) from error


def told(error: BaseException) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    if isinstance(error, FyiBenchError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; everything done is kept, run the same command to go on.", EXIT_INTERRUPTED
    if isinstance(error, _Wrong) and getattr(error, "possibilities", None):  # nearest first
        return f"Unknown option '{error.option_name}'. Did you mean '{error.possibilities[0]}'?", EXIT_USAGE
    if isinstance(error, _Wrong):
        where = f"\nSee {error.ctx.command_path} --help." if error.ctx else ""
        return error.format_message() + where, error.exit_code
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}.\nEverything done is kept; run the same command to go on.", EXIT_INPUT
    first = (str(error).splitlines() or [""])[0]
    if isinstance(error, MemoryError) or "allocate memory" in first or "out of memory" in first:
        return (
            f"There is not enough memory ({first}).\nAsk for less: fewer --workers, a smaller --ipc or batch.",
            EXIT_INPUT,
        )
    return (
        f"unexpected {type(error).__name__}: {first}\nRun it again with --debug to see where, and please report it.",
        EXIT_UNEXPECTED,
    )

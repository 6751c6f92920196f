"""How a command speaks and ends: text that no terminal obeys, output that arrives, errors in one or two lines."""

from __future__ import annotations

import contextlib
import io
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
# of torch, of a GPU, and of a library that cannot be loaded under a limit of memory
_NO_MEMORY = ("allocate memory", "out of memory", "failed to map segment")
_Wrong: Any = typer.BadParameter.__base__  # typer's own usage error, which has no public name


def ready_streams() -> None:
    """Make input and output fit to use, whoever started this process.

    A closed one leads nowhere from here on: else the next file that is opened would take its number, and what is
    printed would land in a result. A character that the encoding of the output lacks becomes a question mark.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the system gives the lowest free number: this one
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError):  # a file when it was opened, and a pipe in its place since
                stream.reconfigure(errors="replace")


def echo(line: str) -> None:
    """Print for people: whatever a file of others put into the text, no terminal obeys it.

    Raises StoreError where stdout is full or closed.
    """
    try:
        typer.echo(printable(line))
    except OSError as error:
        raise refused(error) from error


def say(text: str) -> None:
    """Print the plan: on lines that fit a terminal, and whole ones for other programs."""
    from fyi_bench.present.words import fitted

    echo(fitted(text) if sys.stdout.isatty() else text)


def end_output() -> None:
    """See that what was printed arrives. Raises StoreError where stdout is full or closed."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # nothing more is to be tried at the end of the process
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise refused(error) from error


def refused(error: OSError) -> StoreError:
    """What to say where stdout takes nothing."""
    cause = error.strerror or error
    return StoreError(f"stdout took no more ({cause}).\nEverything done is kept: the same command tells it again.")


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
        forbidden = isinstance(error, PermissionError)
        remedy = "Check its permissions." if forbidden else "Everything done is kept; run the same command to go on."
        return f"{where}{error.strerror or error}.\n{remedy}", EXIT_INPUT
    first = (str(error).splitlines() or [""])[0]
    if isinstance(error, MemoryError) or any(words in first for words in _NO_MEMORY):
        return (
            f"There is not enough memory ({first}).\nAsk for less: fewer --workers, a smaller --ipc or batch.",
            EXIT_INPUT,
        )
    if isinstance(error, RuntimeError) and "home directory" in first:
        return "This user has no home directory.\nSet HOME to a folder that can be written.", EXIT_INPUT
    return (
        f"unexpected {type(error).__name__}: {first}\nRun it again with --debug to see where, and please report it.",
        EXIT_UNEXPECTED,
    )

"""JSON lines that many processes may append to, and that survive a kill in the middle of a line."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fyi_bench.errors import StoreError
from fyi_bench.files import legal_json, read_small
from fyi_bench.store.record import restore_numbers


def append_line(path: str | Path, row: dict[str, Any]) -> None:
    """Append one JSON object as a line, on the disk when this returns; safe between processes and threads.

    Objects only: a number cut short would still be a number, an object cut short is none.

    Raises StoreError where the file cannot be written.
    """
    line = json.dumps(legal_json(row), allow_nan=False).encode() + b"\n"
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            # a line cut short by a kill must not swallow the next one
            joined = line if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n" else b"\n" + line
            if os.write(descriptor, joined) != len(joined):
                raise OSError("only a part of the line was written")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreError(
            f"Could not append to {path}: {error.strerror or error}.\nMake room or choose another --store."
        ) from error


def read_lines(path: str | Path, report: Callable[[str], None] | None = None) -> list[dict[str, Any]]:
    """All whole lines of the file, [] where it does not exist. Unreadable lines are left out and reported once.

    Raises StoreError where it cannot be read at all: it is a pipe or a folder, or larger than 64 MiB.
    """
    path = Path(path)
    try:
        lines = read_small(path).split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}).\nRemove it: its work is done again.") from error
    rows, broken = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("no table")
            rows.append(restore_numbers(row))
        except (ValueError, RecursionError):
            broken.append(number)
    if broken and report is not None:
        numbers = ", ".join(map(str, broken[:5]))
        report(f"{path}: left out {len(broken)} unreadable line(s) ({numbers}); their work is done again.")
    return rows

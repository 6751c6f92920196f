"""File operations that fail: `python -m tests.faults` runs whole commands with every Nth call failing, and counts.

An attempt is one command in an empty store, during which one call of one operation below its folders fails with EIO,
ENOSPC or EACCES, in whichever of its processes. It may end in words (exit 5, two lines with the cause) or go on; then
the same command, undisturbed, must leave what it leaves where nothing ever failed, and `store verify` must be content.

Every Nth call of every operation is tried with one error, then with the second and the third; commands and operations
have their turns in an order drawn by the seed, so that some attempts tell of all. Those that ended stand in
`build/faults/rows.jsonl`: the same command goes on from them, `--budget 5m` stops in time.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import errno
import fcntl
import io
import itertools
import math
import mmap
import os
import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.jsonl import append_line, read_lines
from fyi_bench.duration import parse_duration
from fyi_bench.store.verify import verify
from tests.kill import COMMANDS, COMPLAINED, NEVER, SAID, Round, Uncut, make_ready, same, working_folder

FOLDER = Path(__file__).resolve().parent.parent / "build" / "faults"
ERRORS = ("EIO", "ENOSPC", "EACCES")
# operation -> the calls it is made of; of "write" also those of files that `open` gave
OPERATIONS: dict[str, tuple[tuple[Any, str], ...]] = {
    "open": ((builtins, "open"), (io, "open"), (os, "open")),
    "write": ((os, "write"), (os, "pwrite"), (os, "ftruncate"), (os, "sendfile")),
    "fsync": ((os, "fsync"),),
    "rename": ((os, "replace"), (os, "rename")),
    "unlink": ((os, "unlink"), (os, "remove")),
    "flock": ((fcntl, "flock"),),
    "mkdir": ((os, "mkdir"),),
}
# what a message may call a cause by, beside the system's own words
_CALLED = {"ENOSPC": ("the disk is full",), "EACCES": ("no permission",), "EIO": ()}


@dataclass(frozen=True)
class Fault:
    """The `number`-th call of an operation below a folder fails with this error; calls of all are counted."""

    operation: str
    number: float
    error: str
    below: Path

    def arm(self, counts: mmap.mmap) -> None:
        """Make the operation fail in this process and those it forks."""
        for slot, (operation, calls) in enumerate(OPERATIONS.items()):
            for module, name in calls:
                setattr(module, name, self._wrapped(getattr(module, name), operation, slot, counts))

    def _struck(self, operation: str, slot: int, counts: mmap.mmap, place: str) -> None:
        """Count a call, and fail where it is the one."""
        number = struct.unpack_from("q", counts, 8 * slot)[0] + 1
        struct.pack_into("q", counts, 8 * slot, number)
        if (operation, number) == (self.operation, self.number):
            error = getattr(errno, self.error)
            raise OSError(error, os.strerror(error), place)

    def _wrapped(self, real: Callable[..., Any], operation: str, slot: int, counts: mmap.mmap) -> Callable[..., Any]:
        writing = list(OPERATIONS).index("write")

        def call(first: Any, *rest: Any, **named: Any) -> Any:
            place = _place(first)
            if not place.startswith(str(self.below)):
                return real(first, *rest, **named)
            self._struck(operation, slot, counts, place)
            found = real(first, *rest, **named)
            mode = str(rest[0]) if rest else str(named.get("mode", "r"))
            if operation == "open" and not isinstance(found, int) and set(mode) & set("wax+"):
                return _Written(found, lambda: self._struck("write", writing, counts, place))
            return found

        return call


class _Written:
    """A file whose writing is an operation like any other."""

    def __init__(self, file: Any, struck: Callable[[], None]):
        self._file, self._struck = file, struck

    def write(self, data: Any) -> Any:
        """Write, or fail."""
        self._struck()
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Any:
        return iter(self._file)


def _place(first: Any) -> str:
    """The path a call is about, of a path or an open file; '' where there is none."""
    handle = first.fileno() if hasattr(first, "fileno") else first
    if isinstance(handle, int):
        with contextlib.suppress(OSError):
            return os.readlink(f"/proc/self/fd/{handle}")
        return ""
    return os.fspath(handle) if isinstance(handle, str | os.PathLike) else ""


def attempts(counted: dict[str, Sequence[int]], seed: int) -> list[tuple[str, str, int, str]]:
    """(command, operation, number, error) of every attempt there is: each call with one error, then with the others.

    Commands and operations have their turns.
    """
    draw, calls = random.Random(seed), []
    for command, numbers in counted.items():
        for operation, most in zip(OPERATIONS, numbers, strict=False):
            calls.append([(command, operation, number) for number in draw.sample(range(1, most + 1), most)])
    draw.shuffle(calls)
    order = [one for row in itertools.zip_longest(*calls) for one in row if one is not None]
    return [(*one, ERRORS[(one[-1] + turn) % len(ERRORS)]) for turn in range(len(ERRORS)) for one in order]


def tried(one: Round, fault: Fault, uncut: Uncut) -> str:
    """'went on', 'ended in words', or what was not right."""
    one.prepare()
    code, *_ = one.attempt(fault)
    complaint = (one.place / COMPLAINED).read_text(errors="replace").strip()
    if code not in (0, 5):
        return f"exit {code}: {one.said()}"
    if code and not 1 <= len(complaint.splitlines()) <= 4:
        return f"{len(complaint.splitlines())} lines: {complaint[-300:]}"
    causes = (os.strerror(getattr(errno, fault.error)), *_CALLED[fault.error])
    printed = complaint + (one.place / SAID).read_text(errors="replace")  # `store verify` lists what is wrong on stdout
    if code and not any(cause in printed for cause in causes):
        return f"without its cause: {complaint[-300:]}"
    before = verify(one.store)
    again, *_ = one.attempt(NEVER)
    if again:
        return f"then exit {again}: {one.said()}"
    left = one.results()
    differing = sorted(key for key in left.keys() | uncut.results.keys() if not same(left, uncut.results, key))
    if differing:
        return f"differs: {', '.join(differing)} after {complaint[-200:]}"
    after = verify(one.store)
    if after:
        return f"not whole: {after[0]}"
    if scraps := [path.name for path in one.place.rglob("*.tmp")]:
        return f"left behind: {', '.join(scraps)}"
    if before and code == 0:
        return f"went on and left what is not whole: {before[0]}"
    return "ended in words" if code else "went on"


def inject(
    count: float = math.inf, seed: int = 0, folder: Path = FOLDER, budget_s: float = math.inf,
    commands: Sequence[str] = tuple(COMMANDS),
) -> tuple[list[dict[str, Any]], int]:  # fmt: skip
    """Attempts until there were so many or the time is up: rows, of earlier calls too, and how many all would be."""
    began, rows = time.monotonic(), [row for row in read_lines(folder / "rows.jsonl") if row["seed"] == seed]
    known = {tuple(row["fault"]) for row in rows}
    with working_folder() as work:
        made, place, uncut, counted = make_ready(work), work / "place", {}, {}
        for name in commands:
            one = Round(name, place, made)
            uncut[name] = one.undisturbed()
            one.prepare()
            counted[name] = one.attempt(Fault("", math.inf, "", work))[1]
        every = attempts(counted, seed)
        for command, operation, number, error in every:
            if len(rows) >= count or time.monotonic() - began > budget_s:
                break
            if (command, operation, number, error) in known:
                continue
            fault = Fault(operation, number, error, work)
            ended = tried(Round(command, place, made), fault, uncut[command])
            rows.append({"seed": seed, "fault": [command, operation, number, error], "ended": ended})
            append_line(folder / "rows.jsonl", rows[-1])
            if ended not in FINE:
                print(command, operation, number, error, ended, file=sys.stderr, flush=True)
    return rows, len(every)


FINE = ("went on", "ended in words")


def finds(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What was not right, a line each."""
    return [f"{' '.join(map(str, row['fault']))}: {row['ended']}" for row in rows if row["ended"] not in FINE]


def lines(rows: Sequence[dict[str, Any]], of: int) -> list[str]:
    """The answer: attempts by command and by operation, how they ended, and every find."""
    found = []
    for title, values in (("", [row["fault"][0] for row in rows]), ("calls of ", [row["fault"][1] for row in rows])):
        found += [f"{times:>7,}  {title}{name}" for name, times in Counter(values).most_common()]
    endings = Counter(row["ended"] for row in rows if row["ended"] in FINE)
    return [
        *found,
        f"{len(rows):,} of {of:,} faults: " + ", ".join(f"{times:,} {name}" for name, times in endings.items()),
        f"{len(finds(rows))} finds: uncaught, without a cause, lost or different",
        *finds(rows),
    ]


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("count", type=int, nargs="?", default=1_000_000)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--folder", type=Path, default=FOLDER)
    asked.add_argument("--budget", type=parse_duration, default=math.inf)
    asked.add_argument("--only", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    given = asked.parse_args()
    results, whole = inject(given.count, given.seed, given.folder.absolute(), given.budget, given.only)
    print("\n".join(lines(results, whole)))
    sys.exit(bool(finds(results)))

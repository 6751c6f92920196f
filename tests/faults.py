"""Every Nth call of a file operation fails: `python tests/faults.py` runs a whole command once for each, and counts.

`python tests/faults.py 2 EIO` tries the first two calls of each operation with one error.

The failing calls are those of this process below the store: open, write, fsync, rename, unlink and flock, with EIO,
ENOSPC and EACCES. A command may end in its own words (exit 5) or go on; then the same command, undisturbed, must give
the result of a store where nothing ever failed, and `store verify` must be content.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import io
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from distill.image_set import ImageSet
from fyi_bench.cli import main
from fyi_bench.store.merge import verify
from fyi_bench.store.store import Store

ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES)
OPERATIONS = ("open", "write", "fsync", "rename", "unlink", "flock")
WORDS = "distill --method random --only --dataset shapes10 --ipc 1 --arch none --workers 1 --threads 1 --yes --quiet"


class Fault:
    """Makes the `number`-th call of an operation below a folder fail. calls: how many there were."""

    def __init__(self, operation: str, number: int, error: int, below: Path):
        self.operation, self.number, self.error, self.below = operation, number, error, below
        self.calls = 0

    def _place(self, first: Any) -> str:
        if isinstance(first, int):
            with contextlib.suppress(OSError):
                return os.readlink(f"/proc/self/fd/{first}")
            return ""
        return os.fspath(first) if isinstance(first, str | os.PathLike) else ""

    def wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """The operation, which fails when it is its turn."""

        def call(first: Any, *rest: Any, **named: Any) -> Any:
            handle = first.fileno() if hasattr(first, "fileno") else first
            if self._place(handle).startswith(str(self.below)):
                self.calls += 1
                if self.calls == self.number:
                    raise OSError(self.error, os.strerror(self.error), self._place(handle))
            return real(first, *rest, **named)

        return call

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """While active, the operation counts and fails."""
        places: dict[str, list[tuple[Any, str]]] = {
            "open": [(builtins, "open"), (io, "open"), (os, "open")],
            "write": [(os, "write"), (os, "pwrite"), (os, "ftruncate")],
            "fsync": [(os, "fsync")],
            "rename": [(os, "replace"), (os, "rename")],
            "unlink": [(os, "unlink"), (os, "remove")],
            "flock": [(fcntl, "flock")],
        }
        with contextlib.ExitStack() as stack:
            for module, name in places[self.operation]:
                stack.enter_context(patch.object(module, name, self.wrapped(getattr(module, name))))
            yield


def command(store: Path) -> tuple[int, str]:
    """Exit code and stderr of the command."""
    out, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        code = main([*WORDS.split(), "--store", str(store)])
    return code, said.getvalue()


def result(store: Path) -> list[str]:
    """What the command left: digests of its sets, by run."""
    return [
        f"{path.parent.name} {ImageSet.load(path).digest}" for path in sorted(store.glob("distill/*/set.safetensors"))
    ]


def judged(fault: Fault, store: Path, expected: list[str]) -> str:
    """'ended in words', 'went on', or what was not right."""
    with fault.active():
        code, said = command(store)
    if "Traceback" in said or "unexpected" in said:
        return f"uncaught: {said.strip().splitlines()[-1][:100]}"
    if code not in (0, 5) or (code == 5 and not 1 <= len(said.strip().splitlines()) <= 4):
        return f"exit {code}: {said.strip()[:100]}"
    again, said = command(store)
    if again != 0 or result(store) != expected:
        return f"lost: {said.strip()[:100]}"
    faults = verify(Store(store))
    return f"not whole: {faults[0]}" if faults else "went on" if code == 0 else "ended in words"


def inject(most: int | None = None, errors: tuple[int, ...] = ERRORS) -> Counter[str]:
    """Every Nth call of every operation once with each error (`most`: up to so many calls); how each ended."""
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        command(Path(place) / "sound")
        expected = result(Path(place) / "sound")
        for operation in OPERATIONS:
            for error in errors:
                for number in range(1, 10_000):
                    store = Path(place) / f"{operation}-{error}-{number}"
                    fault = Fault(operation, number, error, store)
                    ended = judged(fault, store, expected)
                    if fault.calls < number or (most is not None and number > most):
                        break
                    call = f"{operation} {number} {errno.errorcode[error]}: {ended}"
                    found[ended if ended in ("went on", "ended in words") else call] += 1
                    print(call, flush=True)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    began = time.monotonic()
    asked = [getattr(errno, name) for name in sys.argv[2:]]
    results = inject(int(sys.argv[1]) if len(sys.argv) > 1 else None, tuple(asked) or ERRORS)
    for ending, times in results.most_common():
        print(f"{times:>6,}  {ending}")
    print(f"{results.total():,} faults in {time.monotonic() - began:.0f} s")
    sys.exit(any(ending not in ("went on", "ended in words") for ending in results))

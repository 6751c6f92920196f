"""Running the command line in tests: small settings, one worker, a store of the test's own."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from fyi_bench.cli import main
from fyi_bench.run.processes import PRELOADED
from fyi_bench.run.types import unequalness
from fyi_bench.session import Session
from fyi_bench.tasks.base import TASKS, perform

ROOT = Path(__file__).resolve().parent.parent
SMALL = {
    "model": "convnet-w8",
    "iterations": "6",
    "batch_real": "8",
    "eval_model": "convnet-w8",
    "epochs": "1",
    "min_steps": "0",
    "nets": "1",
    "draws": "1",
}


def few_networks() -> None:
    """Let commands score sets over two networks: they are wide, and their number is no test's point."""
    unequalness.NETWORKS = 2


def arguments(*words: str, store: Path, dataset: str = "shapes10", workers: int = 1, **changes: str) -> list[str]:
    """The words of a small command on built-in data."""
    given = {**SMALL, **changes}
    sets = [part for key, value in given.items() if value is not None for part in ("--set", f"{key}={value}")]
    common = ["--dataset", dataset, "--store", str(store), "--workers", str(workers), "--quiet"]
    return [*words, *common, *sets]


@dataclass(frozen=True)
class Done:
    """What a command printed, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


def run(*words: str, check: int | None = 0, **environment: str) -> Done:
    """Run `fyi-bench` in this process; `check` is the exit code it must end with (None: any)."""
    out, err = io.StringIO(), io.StringIO()
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        contextlib.chdir(ROOT),
        patch.dict(os.environ, environment),
    ):
        code = main(list(words))
    torch.set_num_threads(1)  # as for every other test
    return _checked(Done(code, out.getvalue(), err.getvalue()), check)


def run_apart(*words: str, check: int | None = 0, **environment: str) -> Done:
    """Run `python -m fyi_bench` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "fyi_bench", *words], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, timeout=240, check=False,
    )  # fmt: skip
    return _checked(Done(done.returncode, done.stdout, done.stderr), check)


def _checked(done: Done, check: int | None) -> Done:
    if check is not None:
        assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


class Started:
    """`fyi-bench` at work in a process of its own, a copy of one that has torch loaded; used like a `Popen`."""

    def __init__(self, words: Sequence[str]):
        self._printed = tempfile.TemporaryDirectory()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.process = context.Process(target=_command, args=(words, self._printed.name))
        self.process.start()

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        if self.process.is_alive():
            os.kill(self.process.pid, number)

    def communicate(self, timeout: float = 240.0) -> tuple[str, str]:
        """What it printed, once it has ended."""
        self.process.join(timeout)
        assert self.returncode is not None, "it goes on and on"
        return tuple(Path(self._printed.name, name).read_text() for name in ("out", "err"))


def _command(words: Sequence[str], folder: str) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(ROOT)
    few_networks()
    sys.exit(main(list(words)))


def start(*words: str) -> Started:
    """Start `fyi-bench` without waiting for it."""
    return Started(words)


def ask(task: str, session: Session, **options: Any) -> dict[str, Any]:
    """What a command or a word of the Python API does, without its texts: the record."""
    asked = TASKS.get(task)()
    return perform(asked, session, asked.Options(**options))


def tell(record: dict[str, Any]) -> str:
    """The record as its task tells it on the terminal."""
    return TASKS.get(record["task"])().words(record)

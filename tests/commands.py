"""Running the command line in tests: small settings, one worker, a store of the test's own."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import multiprocessing
import os
import runpy
import shlex
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing.connection import wait
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
    """Work in a process of its own, a copy of one that has torch loaded; used like a `Popen`.

    work: what it does, which gives its exit code. plugged: folders of plug-ins.
    """

    def __init__(self, work: Callable[[], int | None], plugged: Sequence[Path | str] = ()):
        self._printed = tempfile.TemporaryDirectory()
        self.process = _copied(_printing, work, self._printed.name, plugged)
        self.process.start()

    @property
    def pid(self) -> int:
        return self.process.pid

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


def _copied(target: Callable[..., object], *given: object) -> Any:
    """A process to be started, a copy of one that has torch loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context.Process(target=target, args=given)


def _printing(work: Callable[[], int | None], folder: str, plugged: Sequence[Path | str]) -> None:
    sys.path[:0] = map(str, plugged)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(ROOT)
    few_networks()
    sys.exit(work())


def start(*words: str, plugged: Sequence[Path] = ()) -> Started:
    """Start `fyi-bench` without waiting for it."""
    return Started(functools.partial(main, words), plugged)


_ASKS = """
import json, os, socket, sys
caller = socket.socket(socket.AF_UNIX)
caller.connect(sys.argv[1])
asked = json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(caller, [b"%12d" % len(asked)], [0, 1, 2])
caller.sendall(asked)
sys.exit(caller.recv(1)[0])
"""


class Copies:
    """`fyi-bench` and `python` for scripts of a shell, in the folder `path`: copies of a process that has torch loaded.

    `with Copies(folder) as copies:`. A limit of memory is for a process from its start: `python` is itself there.
    """

    def __init__(self, folder: Path):
        self.path, place = folder, folder / "asked"
        (folder / "asks.py").write_text(_ASKS)
        ask = f"exec {shlex.join([sys.executable, '-SE', str(folder / 'asks.py'), str(place)])}"
        itself = f'[ "$(ulimit -v)" = unlimited ] || exec {shlex.quote(sys.executable)} "$@"\n'
        for name, before in (("fyi-bench", ""), ("python", itself)):
            (folder / name).write_text(f'#!/bin/sh\n{before}{ask} {name} "$@"\n')
            (folder / name).chmod(0o755)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(place))
        self._listener.listen()
        self._process = _copied(_make_copies, self._listener)

    def __enter__(self) -> Copies:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._listener.close()


def _make_copies(listener: socket.socket) -> None:
    """Answer each caller with the exit code of a copy of this process, which does what it asks for."""
    parent, waiting = multiprocessing.parent_process(), list[int]()
    while listener in wait([listener, parent.sentinel]):
        caller, _ = listener.accept()
        waiting = [process for process in waiting if os.waitpid(process, os.WNOHANG) == (0, 0)]
        waiting.append(os.fork())
        if waiting[-1] == 0:
            length, descriptors, _, _ = socket.recv_fds(caller, 12, 3)
            with caller.makefile("rb") as reader:
                asked = json.loads(reader.read(int(length)))
            copy = os.fork()
            if copy == 0:
                os._exit(_ended(descriptors, *asked))
            caller.sendall(bytes([os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) % 256]))
            os._exit(0)
        caller.close()


def _ended(descriptors: Sequence[int], words: list[str], folder: str, environment: dict[str, str]) -> int:
    """Exit code of `fyi-bench …` or `python …`, with the caller's files, folder and environment."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    sys.stdin = os.fdopen(0, closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    few_networks()
    try:
        code = main(words[1:]) if words[0] == "fyi-bench" else _python(words[1:])
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return int(code or 0)


def _python(words: list[str]) -> None:
    """A script, the text on standard input (`-`), or that after `-c`."""
    how, *rest = words
    sys.argv = ["-c", *rest[1:]] if how == "-c" else words
    if how in ("-", "-c"):
        exec(compile(rest[0] if how == "-c" else sys.stdin.read(), how, "exec"), {"__name__": "__main__"})
    else:
        sys.path.insert(0, str(Path(how).parent))
        runpy.run_path(how, run_name="__main__")


def ask(task: str, session: Session, **options: Any) -> dict[str, Any]:
    """What a command or a word of the Python API does, without its texts: the record."""
    asked = TASKS.get(task)()
    return perform(asked, session, asked.Options(**options))


def tell(record: dict[str, Any]) -> str:
    """The record as its task tells it on the terminal."""
    return TASKS.get(record["task"])().words(record)

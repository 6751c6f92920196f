"""The result store: one folder a run, named by the digest of everything that can change its numbers.

A record exists only if the run finished, and never changes; a killed run goes on from its checkpoint; two processes
with the same run take turns, and the second reads what the first wrote.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fyi_bench.errors import DivergenceError, StoreError, UsageError
from fyi_bench.files import is_utf8
from fyi_bench.store.checkpoint import checkpoint_steps
from fyi_bench.store.lock import FolderLock, in_use
from fyi_bench.store.record import read_record
from fyi_bench.store.run_dir import (
    DIVERGED,
    DONE,
    RunDir,
    Watch,
    absent_names,
    bare,
    broken_artefact,
    check_artefact_name,
    final_record,
    read_config,
)
from fyi_bench.store.spec import KIND, RunSpec

ENVIRONMENT_VARIABLE, DEFAULT_ROOT = "FYI_BENCH_STORE", "runs"
IMPORTED = "imported"  # folder of other people's sets, each in one named by its digest

_DIGEST = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class RunInfo:
    """One line of a listing. state: done, running, partial, diverged or damaged; step: of the newest checkpoint."""

    kind: str
    digest: str
    state: str
    folder: Path
    inputs: dict[str, Any]
    step: int | None
    bytes: int
    detail: str = ""


class Busy(StoreError):
    """Another process works on the run, and the caller did not want to wait."""


class Store:
    """Results under one root folder.

    root: --store, else the environment variable FYI_BENCH_STORE, else ./runs; it is made when first written to.
    say(text): told what a user should know (a damaged checkpoint passed over, say); a logged warning by default.
    """

    def __init__(self, root: str | Path | None = None, say: Callable[[str], None] | None = None):
        chosen = root if root is not None else os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_ROOT
        self.root = Path(chosen).expanduser()
        self.say = say or logging.getLogger("fyi_bench.store.store").warning

    def make(self) -> None:
        """Make the root folder where it is missing. Raises StoreError where it cannot be made, or sets not be read."""
        if not is_utf8(self.root):
            raise StoreError(f"The name of the folder {self.root} is not UTF-8.\nRename it, or choose another --store.")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            advice = (
                "It is a file: choose another --store."
                if self.root.is_file()
                else "Make the folder writable and see that the disk has room, or choose another --store."
            )
            raise StoreError(f"Could not make {self.root}: {error.strerror or error}.\n{advice}") from error

    def must_exist(self) -> None:
        """Raise UsageError where there is no such folder: what reads a store would find it empty."""
        if not self.root.is_dir():
            raise UsageError(f"There is no store in {self.root}.\nName one with --store.")

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While a command is on its way from runs to its answer: no finished run is removed because none names it."""
        self.make()
        with in_use(self.root):
            yield

    def folder(self, spec: RunSpec) -> Path:
        """Where a run's files are or would be."""
        return self.root / spec.kind / spec.digest

    def has(self, spec: RunSpec) -> bool:
        """Whether the run is finished here."""
        return self.is_done(spec.kind, spec.digest)

    def is_done(self, kind: str, digest: str) -> bool:
        """Whether the run of this type and digest is finished here."""
        return (self.root / kind / digest / DONE).exists()

    def record(self, spec: RunSpec) -> dict[str, Any] | None:
        """The record of a run, checked against its checksum; None while it is unfinished."""
        folder = self.folder(spec)
        if not (folder / DONE).exists():
            return None
        run = RunDir(folder, spec, self.say)
        run.check_config()
        return run.record

    @contextmanager
    def run(
        self,
        spec: RunSpec,
        stop: Watch | None = None,
        on_wait: Callable[[str], None] | None = None,
        wait: bool = True,
    ) -> Iterator[RunDir]:
        """Open a run's folder, alone: `with store.run(spec) as run:`.

        A finished one is opened for reading at once, without the lock or permission to write. If another process
        is at it, `on_wait(line)` is called once and this waits; `stop.check()` may end the wait by raising. With
        `wait` False that is a Busy error at once.
        A DivergenceError that leaves the block is kept as the state of the run.
        Raises StoreError where the folder cannot be written, or holds another run's config.
        """
        folder = self.folder(spec)
        run = RunDir(folder, spec, self.say, stop)
        if run.done:
            run.check_config()
            yield run
            return
        lock = FolderLock(folder)
        if wait:
            lock.acquire(check=stop.check if stop is not None else None, on_wait=on_wait)
        elif not lock.try_acquire():
            raise Busy(f"{lock.owner()} works on the same job in {folder}.")
        try:
            run.open()
            yield run
        except DivergenceError as error:
            if not run.done and run.diverged is None:
                run.mark_diverged({"message": str(error), "step": error.step})
            raise
        finally:
            run.close()
            lock.release()

    def get(self, digest: str) -> dict[str, Any] | None:
        """The record of the finished run with this digest, or None. Raises StoreError for a damaged one."""
        for folder in self.run_dirs():
            if folder.name == digest:
                return final_record(folder)
        return None

    def artefact(self, kind: str, digest: str, name: str, whole: bool = True) -> Path:
        """A file of a finished run, compared with the checksum in its record.

        whole: False for a file whose reader checks each part that it reads; then it is not read here.
        Raises StoreError where the run is not finished, has no such file, or has another than it wrote.
        """
        check_artefact_name(name)
        folder = self.root / kind / digest
        if not (folder / DONE).exists():
            raise StoreError(f"The {kind} run {digest} is not finished in {self.root}.\nRun its command first.")
        if name in absent_names(folder):
            raise StoreError(
                f"{folder / name} is known here by its digest alone.\n"
                f"Bring it from a store that has it (`fyi-bench store merge DIR --store {self.root}`),"
                " or work in another store."
            )
        fault = broken_artefact(folder, name) if whole else None if (folder / name).is_file() else f"{name} is missing"
        if fault:
            remedy = f"Bring back a copy (`fyi-bench store merge DIR`), or remove {folder} to compute it anew."
            raise StoreError(f"{folder}: {fault}.\n{remedy}")
        return folder / name

    def ls(self) -> list[RunInfo]:
        """All runs, by kind and digest."""
        found = [_info(folder) for folder in self.run_dirs()]
        return [info for info in found if info.folder.exists()]  # it may have been removed meanwhile

    def run_dirs(self) -> list[Path]:
        """Folders of all runs, by type and digest."""
        if not self.root.is_dir():
            return []
        kinds = [
            entry for entry in sorted(self.root.iterdir())
            if entry.is_dir() and KIND.fullmatch(entry.name) and entry.name != IMPORTED
        ]  # fmt: skip
        return [
            folder for kind in kinds for folder in sorted(kind.iterdir()) if _DIGEST.fullmatch(folder.name)
            if folder.is_dir()
        ]  # fmt: skip


def _info(folder: Path) -> RunInfo:
    try:
        inputs = {} if bare(folder) else read_config(folder)["inputs"]
        state, detail = _state(folder)
    except (StoreError, OSError) as error:
        inputs, state, detail = {}, "damaged", str(error).splitlines()[0]
    steps = checkpoint_steps(folder)
    size = sum(_size_of(path) for path in folder.rglob("*") if path.is_file())
    return RunInfo(folder.parent.name, folder.name, state, folder, inputs, steps[-1] if steps else None, size, detail)


def _size_of(path: Path) -> int:
    """Bytes of a file; 0 where who works on its run has removed it meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _state(folder: Path) -> tuple[str, str]:
    if (folder / DONE).exists():
        return "done", ""
    lock = FolderLock(folder)
    if lock.held_by_someone():
        return "running", lock.owner()
    if (folder / DIVERGED).exists():
        return "diverged", str(read_record(folder / DIVERGED).get("message", "")).split("\n")[0]
    return "partial", ""

"""The result store: one folder a run, named by the digest of everything that can change its numbers.

A record exists only if the run finished, and never changes; a killed run goes on from its checkpoint; two processes
with the same run take turns, and the second reads what the first wrote.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import DivergenceError, StoreError, UsageError
from fyi_bench.store.checkpoint import checkpoint_steps
from fyi_bench.store.lock import FolderLock
from fyi_bench.store.record import read_record
from fyi_bench.store.run_dir import (
    DIVERGED,
    DONE,
    DeadlineLike,
    RunDir,
    check_artefact_name,
    final_record,
    read_config,
    run_digest,
)

if TYPE_CHECKING:
    from fyi_bench.store.merge import MergeReport, Problem

ENVIRONMENT_VARIABLE, DEFAULT_ROOT = "FYI_BENCH_STORE", "runs"

_KIND = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class RunSpec:
    """One unit of work, before it is computed.

    kind: the folder it is filed under, such as "distill" or "evaluate".
    inputs: everything that can change the number, as JSON values: config (precision among it), data digest, seeds,
        the numerics version of each component. They make the digest.
    notes: recorded and not keyed: paths, device, threads, library versions, source digest.

    Both are copied, so that a later change of the caller's dictionaries cannot change the digest.
    Raises UsageError for a number that is not finite, TypeError for a value JSON cannot hold.
    """

    kind: str
    inputs: dict[str, Any]
    notes: dict[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not _KIND.fullmatch(self.kind):
            raise ValueError(f"'{self.kind}' cannot be the type of a run: use a-z, 0-9, - and _")
        for name in ("inputs", "notes"):
            value = getattr(self, name)
            _check_json(value, name)
            object.__setattr__(self, name, json.loads(json.dumps(value)))

    @property
    def digest(self) -> str:
        """16 hex digits over kind and inputs, the same on any machine and for any order of keys."""
        return run_digest(self.kind, self.inputs)

    def __hash__(self) -> int:
        return hash(self.digest)


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
        """Make the root folder where it is missing. Raises StoreError where it cannot be made."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"Could not make {self.root}: {error.strerror or error}.\n"
                "Make the folder writable and see that the disk has room, or choose another --store."
            ) from error

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
        budget: DeadlineLike | None = None,
        on_wait: Callable[[str], None] | None = None,
        wait: bool = True,
    ) -> Iterator[RunDir]:
        """Open a run's folder, alone: `with store.run(spec) as run:`.

        A finished one is opened for reading at once, without the lock or permission to write. If another process
        is at it, `on_wait(line)` is called once and this waits; `budget.check()` may end the wait by raising. With
        `wait` False that is a Busy error at once.
        A DivergenceError that leaves the block is kept as the state of the run.
        Raises StoreError where the folder cannot be written, or holds another run's config.
        """
        folder = self.folder(spec)
        run = RunDir(folder, spec, self.say, budget)
        if run.done:
            run.check_config()
            yield run
            return
        lock = FolderLock(folder)
        if wait:
            lock.acquire(check=budget.check if budget is not None else None, on_wait=on_wait)
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
        for folder in self._run_folders():
            if folder.name == digest:
                return final_record(folder)
        return None

    def artefact(self, kind: str, digest: str, name: str) -> Path:
        """A file of a finished run. Raises StoreError where the run is not finished or has no such file."""
        check_artefact_name(name)
        folder = self.root / kind / digest
        if not (folder / DONE).exists():
            raise StoreError(f"The {kind} run {digest} is not finished in {self.root}.\nRun its command first.")
        if not (folder / name).is_file():
            raise StoreError(f"{folder / name} is missing.\n`fyi-bench store verify` tells what else is.")
        return folder / name

    def ls(self) -> list[RunInfo]:
        """All runs, by kind and digest."""
        return [_info(folder) for folder in self._run_folders()]

    def verify(self) -> list[Problem]:
        """Check every config, record, artefact and checkpoint; one Problem for each that is not whole."""
        from fyi_bench.store.merge import problems_of

        return [problem for folder in self._run_folders() for problem in problems_of(folder)]

    def merge(self, other: str | Path) -> MergeReport:
        """Bring the finished runs, and further checkpoints of unfinished ones, from another store into this one.

        Artefacts are checked against their records on the way. Where both stores have a finished run of one digest
        with different results, ours stays and the report names it.
        """
        from fyi_bench.store.merge import merge

        return merge(self, Store(other, self.say))

    def _run_folders(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        kinds = [entry for entry in sorted(self.root.iterdir()) if entry.is_dir() and _KIND.fullmatch(entry.name)]
        return [
            folder for kind in kinds for folder in sorted(kind.iterdir()) if _DIGEST.fullmatch(folder.name)
            if folder.is_dir()
        ]  # fmt: skip


def _info(folder: Path) -> RunInfo:
    try:
        inputs, state, detail = read_config(folder)["inputs"], *_state(folder)
    except StoreError as error:
        inputs, state, detail = {}, "damaged", str(error).splitlines()[0]
    steps = checkpoint_steps(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return RunInfo(folder.parent.name, folder.name, state, folder, inputs, steps[-1] if steps else None, size, detail)


def _state(folder: Path) -> tuple[str, str]:
    if (folder / DONE).exists():
        return "done", ""
    lock = FolderLock(folder)
    if lock.held_by_someone():
        return "running", lock.owner()
    if (folder / DIVERGED).exists():
        return "diverged", str(read_record(folder / DIVERGED).get("message", "")).split("\n")[0]
    return "partial", ""


def _check_json(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}, which is not a string")
            _check_json(entry, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for position, entry in enumerate(value):
            _check_json(entry, f"{where}[{position}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{where.removeprefix('inputs.')} is {value}.\nGive a finite number.")
    elif not isinstance(value, str | int | float | bool | None):
        raise TypeError(f"{where} is a {type(value).__name__}, which is no JSON value")

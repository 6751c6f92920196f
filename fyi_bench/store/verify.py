"""Whether a store is whole: every config, record, file and checkpoint of it, and what lies beside the runs."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fyi_bench.errors import DataError, StoreError
from fyi_bench.store.checkpoint import Checkpoints, checkpoint_steps
from fyi_bench.store.commands import FOLDER, read_commands
from fyi_bench.store.record import read_record
from fyi_bench.store.run_dir import (
    ABSENT,
    CONFIG,
    DIVERGED,
    DONE,
    LOCK,
    RECORD,
    artefact_names,
    bare,
    broken_artefacts,
    final_record,
    read_config,
)
from fyi_bench.store.spec import run_digest
from fyi_bench.store.store import IMPORTED, Store

_UNREADABLE = "See that this user may read it and that its disk is well, then verify again."


@dataclass(frozen=True)
class Fault:
    """Something in a run folder that is not whole: what, and what to do about it."""

    folder: Path
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.folder}: {self.what}\n{self.remedy}"


def verify(store: Store) -> list[Fault]:
    """Check every config, record, artefact and checkpoint of a store; a Fault for each that is not whole.

    What lies beside the runs is checked too: records of commands and measurements of figures against their seals, sets
    that were imported against their digests, the queue by sqlite itself.
    """
    # looked at twice: who works on a run may have changed it between two files, or removed it
    found = [fault for folder in store.run_dirs() if faults_of(folder) for fault in faults_of(folder)]
    for error in read_commands(store)[1]:
        what, _, remedy = str(error).partition("\n")
        found.append(Fault(store.root / FOLDER, what, remedy))
    beside = {"figures/*.json": _figure_fault, f"{IMPORTED}/*/*.safetensors": _set_fault, "*.sqlite3": _queue_fault}
    for pattern, fault_of in beside.items():
        for path in sorted(store.root.glob(pattern)):
            if wrong := fault_of(path):
                found.append(Fault(path.parent, wrong, "Remove it: the same command makes it anew."))
    return found


def faults_of(folder: Path) -> list[Fault]:
    """Everything in one run folder that is not whole, or cannot be read."""
    anew = f"Remove {folder} and run its command again, or merge a whole copy."
    try:
        if bare(folder):
            return []
        found = [*_strangers(folder), *config_faults(folder)]
        record = final_record(folder)
        if record:
            found += [*_notes_faults(folder, record), *broken_artefacts(folder, record)]
        if (folder / DIVERGED).exists():
            read_record(folder / DIVERGED)
    except StoreError as error:
        return [Fault(folder, str(error).splitlines()[0], anew)]
    except OSError as error:
        return [Fault(folder, f"{error.filename or folder} cannot be read ({error.strerror})", _UNREADABLE)]
    if record:
        return [Fault(folder, what, anew) for what in found]
    return [Fault(folder, what, anew) for what in found] + [
        Fault(folder, str(wrong).splitlines()[0], "Remove it; the run goes on from an older one or starts again.")
        for wrong in (
            *(checkpoint_error(folder, step) for step in checkpoint_steps(folder)),
            *(_tensor_error(folder / name) for name in artefact_names(folder) if name.endswith(".safetensors")),
        )
        if wrong is not None
    ]


def config_faults(folder: Path) -> list[str]:
    config = read_config(folder)
    expected = run_digest(folder.parent.name, config["inputs"])
    return [] if expected == folder.name else [f"{CONFIG} was edited: its digest is {expected}"]


def _notes_faults(folder: Path, record: dict[str, Any]) -> list[str]:
    """Whether the notes of a finished run's config are not those that its record holds, which is sealed."""
    config = read_config(folder)
    notes = [config.get("notes", {}), *config.get("resumed_with", [])]
    return [f"{CONFIG} was edited: the record has other notes"] if record.get("notes", notes) != notes else []


def _strangers(folder: Path) -> list[str]:
    """What stands in a run's folder in the place of a file: a pipe, a link that leads nowhere, a folder."""
    places = [folder / name for name in (CONFIG, LOCK, RECORD, DONE, DIVERGED, ABSENT)]
    places += [checkpoints_of(folder).path(step) for step in checkpoint_steps(folder)]
    return [
        f"{path.relative_to(folder)} is no regular file" for path in sorted(folder.rglob("*"))
        if not path.is_file() and (path in places or not path.is_dir()) and os.path.lexists(path)
    ]  # fmt: skip


def checkpoint_error(folder: Path, step: int) -> DataError | None:
    checkpoints = checkpoints_of(folder)
    try:
        checkpoints.read(step)
    except DataError as error:
        return error if checkpoints.path(step).exists() else None  # its run may have replaced it meanwhile
    return None


def _tensor_error(path: Path) -> DataError | None:
    from distill.tensor_file import load_tensors

    try:
        load_tensors(path)
    except DataError as error:
        return error
    return None


def checkpoints_of(folder: Path) -> Checkpoints:
    return Checkpoints(folder, folder.name)


def _figure_fault(path: Path) -> str:
    """What is wrong with a kept measurement of a figure, or ''."""
    try:
        read_record(path)
    except StoreError as error:
        return str(error).splitlines()[0]
    return ""


def _set_fault(path: Path) -> str:
    """What is wrong with an imported set, or ''."""
    from distill.image_set import ImageSet

    try:
        return "" if ImageSet.load(path).digest == path.parent.name else f"{path} is not the set of its folder"
    except DataError as error:
        return str(error).splitlines()[0]


def _queue_fault(path: Path) -> str:
    """What sqlite finds wrong with a queue, or ''."""
    import sqlite3

    if not path.is_file():
        return f"{path} is no regular file"
    try:
        # not read-only: sqlite would leave its helping files beside it
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as queue:
            (found,) = queue.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:  # it is in use, or this store cannot be written
        return ""
    except sqlite3.DatabaseError as error:
        found = error
    return "" if found == "ok" else f"{path} is damaged ({found})"

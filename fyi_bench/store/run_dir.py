"""The folder of one run: its states, its artefacts, and the rule that a finished record never changes.

    config.json              written first: kind, digest, inputs, notes
    lock                     held while somebody works here
    ckpt-<step>.safetensors  the two newest checkpoints of an unfinished run
    diverged.json            the run stopped because its numbers were no longer finite
    …                        artefacts, whatever the run type writes
    record.json, done        written last, in this order; `done` holds the sha256 of the record
    absent.json              of an excerpt: artefacts that are known by their digest alone

States are told by files alone, so a kill at any moment leaves one of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from fyi_bench.errors import StoreError
from fyi_bench.files import read_small, read_table, remove, sha256_file, write_json, write_text
from fyi_bench.store.checkpoint import Checkpoints, checkpoint_steps
from fyi_bench.store.record import SCHEMA, environment, now, peak_memory_mib, plain, read_record, write_sealed

if TYPE_CHECKING:
    import torch

    from fyi_bench.store.spec import RunSpec

CONFIG, LOCK, RECORD, DONE, DIVERGED = "config.json", "lock", "record.json", "done", "diverged.json"
ABSENT = "absent.json"
_RESERVED = frozenset((CONFIG, LOCK, RECORD, DONE, DIVERGED, ABSENT))


class Watch(Protocol):
    """What a run asks of a deadline: may it go on; and what it tells: how long a save took."""

    def check(self) -> None: ...

    def note_save(self, seconds: float) -> None: ...


class RunDir:
    """One run being worked on, or read when it is done; made by `Store.run`.

    Serves as the `checkpointer` of the engine: `save` and `load` are short for save_checkpoint and load_checkpoint.
    """

    def __init__(self, folder: Path, spec: RunSpec, say: Callable[[str], None], stop: Watch | None = None):
        self.folder, self.spec = folder, spec
        self._say, self._stop = say, stop
        self._checkpoints = Checkpoints(folder, spec.digest, say)
        self._open = False
        self._began, self._earlier_s = time.monotonic(), 0.0

    # reading ---------------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether the run is finished and its record final."""
        return (self.folder / DONE).exists()

    @property
    def record(self) -> dict[str, Any] | None:
        """The final record, checked against its checksum; None while the run is unfinished."""
        return final_record(self.folder)

    @property
    def diverged(self) -> dict[str, Any] | None:
        """What `mark_diverged` was told, or None."""
        path = self.folder / DIVERGED
        return read_record(path) if path.exists() else None

    def wall_s(self) -> float:
        """Seconds of work so far: since this run was opened, and what its checkpoint tells of earlier calls."""
        return self._earlier_s + time.monotonic() - self._began

    def path(self, name: str) -> Path:
        """Where the artefact of this name is or goes (sub-folders are made). Write it whole: `files.atomic_write`.

        Raises ValueError for a name that leaves the folder or belongs to the store.
        """
        check_artefact_name(name)
        path = self.folder / name
        if self._open:
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    # working ---------------------------------------------------------------------------------------------------

    def save_checkpoint(self, step: int, tensors: dict[str, torch.Tensor], meta: dict[str, Any] | None = None) -> None:
        """Keep the state after `step`; the checkpoint before it stays as a second leg to stand on.

        Raises StoreError with the bytes needed where the disk is full; the earlier checkpoint is untouched.
        """
        self._require_open()
        began = time.monotonic()
        self._checkpoints.save(step, tensors, {"user": meta or {}, "wall_s": self.wall_s()})
        if self._stop is not None:
            self._stop.note_save(time.monotonic() - began)

    def load_checkpoint(
        self, take: Callable[[int, dict[str, torch.Tensor]], None] = lambda step, tensors: None
    ) -> tuple[int, dict[str, torch.Tensor], dict[str, Any]] | None:
        """(step, tensors on the CPU, meta) of the newest whole checkpoint, or None; a damaged one is reported.

        take(step, tensors): raises ValueError where they are no state of the run; then they count as damaged.
        """
        found = self._checkpoints.load(take)
        if found is None:
            return None
        step, tensors, meta = found
        self._earlier_s, self._began = meta["wall_s"], time.monotonic()
        return step, tensors, meta["user"]

    save, load = save_checkpoint, load_checkpoint

    def mark_diverged(self, info: dict[str, Any]) -> None:
        """Keep for the listings and tables that the numbers of this run were no longer finite."""
        self._require_open()
        write_sealed(self.folder / DIVERGED, plain({"schema": SCHEMA, **info}, "info"))

    def finish(self, record: dict[str, Any]) -> dict[str, Any]:
        """Write the final record and return it as it is read back; after this nothing here changes any more.

        Adds kind, digest, config, notes, the machine's facts, `wall_s`, and each artefact's sha256 and size.
        Raises StoreError when the run is finished already, TypeError for a value no record can hold.
        """
        self._require_open()
        if record.get("digest", self.spec.digest) != self.spec.digest:
            raise ValueError(f"this record belongs to {record['digest']}, not to {self.spec.digest}")
        config = read_config(self.folder)
        whole = plain(
            {
                "schema": SCHEMA,
                "kind": self.spec.kind,
                "digest": self.spec.digest,
                **record,
                "wall_s": record.get("wall_s", round(self.wall_s(), 3)),
                "peak_memory_mib": record.get("peak_memory_mib", peak_memory_mib()),
                "date": now(),
                "environment": record.get("environment") or environment(),
                "config": self.spec.inputs,
                "notes": [config.get("notes", {}), *config.get("resumed_with", [])],
            }
        )
        remove(self.folder / DIVERGED)
        whole["artefacts"] = {name: _facts_of(self.folder / name) for name in artefact_names(self.folder)}
        write_json(self.folder / RECORD, whole)
        self._seal()
        return sealed_record(self.folder)

    # opening and closing, by the store -------------------------------------------------------------------------

    def open(self) -> None:
        """Called with the lock held: sweep, compare or write the config, complete a finish that was cut short."""
        if self.done:
            self.check_config()
            return
        sweep(self.folder)
        self._open, self._began = True, time.monotonic()
        if (self.folder / CONFIG).exists():
            self.check_config()
            self._note_circumstances()
        else:
            self._write_config()
        if (self.folder / RECORD).exists():
            self._complete()

    def close(self) -> None:
        """Nothing may be written any more."""
        self._open = False

    def check_config(self) -> None:
        """Raise StoreError naming the entries in which the stored config is not that of the run."""
        stored = read_config(self.folder)
        differing = differing_keys(self.spec.inputs, stored["inputs"])
        if differing:
            raise StoreError(
                f"{self.folder / CONFIG} is of another run or was edited; it differs in {'; '.join(differing[:5])}.\n"
                f"Remove {self.folder} to compute it anew."
            )

    def _write_config(self) -> None:
        facts = {"schema": SCHEMA, "kind": self.spec.kind, "digest": self.spec.digest}
        write_json(self.folder / CONFIG, {**facts, "inputs": self.spec.inputs, "notes": self.spec.notes})

    def _note_circumstances(self) -> None:
        config = read_config(self.folder)
        latest = [config.get("notes", {}), *config.get("resumed_with", [])][-1]
        differing = differing_keys(self.spec.notes, latest)
        if differing and not (checkpoint_steps(self.folder) or artefact_names(self.folder)):
            self._write_config()
        elif differing:
            self._say(
                f"Going on in {self.folder} with other circumstances than before: {'; '.join(differing[:5])}."
                " Both are recorded; the same bits as in one go are not promised."
            )
            config["resumed_with"] = [*config.get("resumed_with", []), self.spec.notes]
            write_json(self.folder / CONFIG, config)

    def _complete(self) -> None:
        """A kill between the record and `done`: the work is finished if record and artefacts are whole."""
        try:
            broken = broken_artefacts(self.folder, read_record(self.folder / RECORD))
        except StoreError as error:
            broken = [str(error)]
        if broken:
            self._say(f"{self.folder} was cut while finishing and is not whole ({broken[0]}): doing its end again.")
            remove(self.folder / RECORD)
        else:
            self._seal()

    def _seal(self) -> None:
        self._checkpoints.clear()
        write_text(self.folder / DONE, sha256_file(self.folder / RECORD) + "\n")
        self._open = False

    def _require_open(self) -> None:
        if self.done:
            raise StoreError(f"{self.folder} is finished; a finished run never changes.\nRemove it to compute it anew.")
        if not self._open:
            raise StoreError(f"{self.folder} is not open.\nWork inside `with store.run(spec) as run:`.")


# what can be told from a folder alone ----------------------------------------------------------------------------


def read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json. Raises StoreError naming a missing or damaged one."""
    path = folder / CONFIG
    try:
        config = read_table(path)
        if not isinstance(config.get("inputs"), dict):
            raise ValueError("it has no inputs")
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        raise StoreError(f"{path} cannot be read ({cause}).\nRemove {folder} to compute it anew.") from error
    return config


def final_record(folder: Path) -> dict[str, Any] | None:
    """The record of a finished run, None for an unfinished one. Raises StoreError where its bytes were changed."""
    path = folder / RECORD
    try:
        sealed = read_small(folder / DONE).decode(errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{folder / DONE} cannot be read ({error.strerror}).\nMend it, or remove {folder}.") from error
    record = read_record(path)
    if sha256_file(path) != sealed:
        raise StoreError(
            f"{path} was changed after the run finished: its checksum does not match.\n"
            f"Bring back a copy (`fyi-bench store merge DIR`), or remove {folder} to compute it anew."
        )
    return record


def sealed_record(folder: Path) -> dict[str, Any]:
    """The record of a run that has to be finished. Raises StoreError where it is not, or was changed since."""
    record = final_record(folder)
    if record is None:
        raise StoreError(f"The run in {folder} is not finished.\nRun its command first.")
    return record


def sweep(folder: Path) -> None:
    """Remove what a kill in the middle of a write left behind; call it with the lock held."""
    for leftover in folder.rglob(".*.tmp"):
        with contextlib.suppress(OSError):  # it is in nobody's way, and the next sweep may have more luck
            leftover.unlink(missing_ok=True)


def bare(folder: Path) -> bool:
    """Whether nothing of a run is there yet but its lock: every run passes this state, and a kill may leave it.

    Raises OSError for a folder that cannot be read: of it nothing is known.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return True
    return all(name == LOCK or name.endswith(".tmp") for name in names)


def artefact_names(folder: Path) -> list[str]:
    """Names of the run's own files, sub-folders included, sorted."""
    own = _RESERVED | {f"ckpt-{step}.safetensors" for step in checkpoint_steps(folder)}
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name not in own and not name.endswith(".tmp"))


def check_artefact_name(name: str) -> None:
    """Raise ValueError for a name that leaves the folder or belongs to the store."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name:
        raise ValueError(f"'{name}' cannot be the name of an artefact: use a path inside the folder")
    if name in _RESERVED or name.startswith("ckpt-") or name.endswith(".tmp"):
        raise ValueError(f"'{name}' is a name of the store itself: choose another for the artefact")


def broken_artefacts(folder: Path, record: dict[str, Any]) -> list[str]:
    """One line for each artefact that is not what the record says it is; one absent on purpose is no fault."""
    absent = absent_names(folder)
    try:
        found = [
            _fault(folder, name, facts["bytes"], facts["sha256"]) for name, facts in record["artefacts"].items()
            if name not in absent
        ]  # fmt: skip
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return [f"the list of artefacts in {RECORD} makes no sense ({error})"]
    return [fault for fault in found if fault]


def absent_names(folder: Path) -> list[str]:
    """Artefacts that the run in this folder has by digest alone, see `fyi_bench.store.excerpt`."""
    path = folder / ABSENT
    try:
        names = json.loads(read_small(path)) if path.exists() else []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("it is no list of names")
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path} cannot be read ({error}).\nRemove it, and merge the whole store.") from error
    return names


def broken_artefact(folder: Path, name: str) -> str | None:
    """What is wrong with one file of a finished run, or None."""
    known = sealed_record(folder).get("artefacts", {})
    if name not in known:
        return f"{name} is no file of this run" if (folder / name).exists() else f"{name} is missing"
    return next(iter(broken_artefacts(folder, {"artefacts": {name: known[name]}})), None)


def _fault(folder: Path, name: str, size: int, sha256: str) -> str | None:
    check_artefact_name(name)
    path = folder / name
    if not path.is_file():
        return f"{name} is missing"
    if path.stat().st_size != size:
        return f"{name} has {path.stat().st_size} of {size} bytes"
    return None if sha256_file(path) == sha256 else f"{name} does not match its checksum"


def differing_keys(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """The entries in which two JSON values differ, each as 'dotted.name: theirs -> ours'."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = []
        for key in sorted(ours.keys() | theirs.keys()):
            found += differing_keys(ours.get(key), theirs.get(key), f"{where}.{key}" if where else key)
        return found
    return [] if ours == theirs else [f"{where}: {_short(theirs)} -> {_short(ours)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "…"


def _facts_of(path: Path) -> dict[str, Any]:
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # `done` must not reach the disk before what it vouches for
        finally:
            os.close(descriptor)
        return {"sha256": sha256_file(path), "bytes": path.stat().st_size}
    except OSError as error:
        remedy = "Everything done is kept: see that the disk is in order, and run the same command."
        raise StoreError(f"{path} did not reach the disk: {error.strerror or error}.\n{remedy}") from error

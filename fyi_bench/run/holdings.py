"""What a store holds, run by run: rows for a listing, what refers to what, and removing what nobody needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fyi_bench.config import Settings, options_of
from fyi_bench.errors import FyiBenchError, StoreError, UsageError
from fyi_bench.run.run_type import run_type
from fyi_bench.store.commands import FOLDER, read_commands
from fyi_bench.store.lock import FolderLock
from fyi_bench.store.record import read_record
from fyi_bench.store.run_dir import DONE as SEALED
from fyi_bench.store.run_dir import RECORD
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import RunInfo, Store

COLUMNS = (
    "state",
    "type",
    "digest",
    "dataset",
    "method",
    "flip",
    "ipc",
    "architecture",
    "seed",
    "value",
    "date",
    "size",
)
DONE = "done"


@dataclass
class Holdings:
    """The runs of a store with what each needs, and the commands that used them.

    needs: digest -> digests of runs it is made of. commands: name of a command's record -> digests of its runs, None
    for a record that does not say.
    """

    store: Store
    runs: dict[str, RunInfo] = field(default_factory=dict)
    needs: dict[str, list[str]] = field(default_factory=dict)
    commands: dict[str, list[str] | None] = field(default_factory=dict)

    @staticmethod
    def of(store: Store) -> Holdings:
        """Read the store."""
        found = Holdings(store)
        for run in store.ls():
            found.runs[run.digest] = run
            try:
                spec = RunSpec(run.kind, run.inputs)
                found.needs[run.digest] = [digest for _, digest in run_type(spec).needs(spec)]
            except (FyiBenchError, KeyError, TypeError, ValueError):  # damaged, or of a type that is not installed here
                found.needs[run.digest] = []
        for record in read_commands(store)[0]:
            used = record.get("runs")
            found.commands[f"{record['task']}-{record['digest']}"] = used if isinstance(used, list) else None
        return found

    def find(self, digest: str) -> RunInfo:
        """The run of this digest or its beginning. Raises StoreError where there is none, or several."""
        known = [run for name, run in self.runs.items() if name.startswith(digest.strip().lower())]
        if not digest.strip() or not known:
            raise StoreError(f"No run in {self.store.root} begins with '{digest}'.\n`fyi-bench store ls` lists them.")
        if len(known) > 1:
            names = ", ".join(run.digest for run in known[:5])
            raise UsageError(f"'{digest}' is the beginning of {len(known)} runs: {names}.\nGive more letters.")
        return known[0]

    def row(self, run: RunInfo) -> dict[str, Any]:
        """What a run is, by `COLUMNS`: method, flip and ipc of a test are those of the set it tested."""
        made = next((self.runs[one] for one in self.needs[run.digest] if one in self.runs), run).inputs
        protocol = run.inputs.get("protocol")
        row: dict[str, Any] = {key: run.inputs.get(key, made.get(key)) for key in COLUMNS}
        row |= {"state": run.state, "type": run.kind, "digest": run.digest, "size": run.bytes}
        row["architecture"] = protocol.get("eval_model") if isinstance(protocol, Mapping) else None
        if run.state == DONE:
            try:
                record = read_record(run.folder / RECORD)
            except StoreError:
                return row | {"state": "damaged"}
            value = record.get("value", record.get("mean"))
            row |= {"value": value if isinstance(value, int | float) else None, "date": record.get("date")}
        return row

    def users(self, digest: str) -> list[str]:
        """Runs that are made of this one, and records of commands that used it."""
        found = [f"{self.runs[one].kind} {one}" for one, needs in self.needs.items() if digest in needs]
        return [*found, *(name for name, used in self.commands.items() if used and digest in used)]

    def unreferred(self) -> tuple[list[RunInfo], str]:
        """Finished runs that no command's answer and no open queue of the store is made of; and why there are none.

        A run that a kept one is made of is kept too.
        """
        silent = [name for name, used in self.commands.items() if used is None]
        if silent or not self.commands:
            what = f"{silent[0]} does not say which runs it is made of" if silent else "no command has finished"
            return [], f"{what}: finished runs are kept"
        kept, left = set(), [one for used in self.commands.values() for one in used or []] + self._waiting()
        while left:
            digest = left.pop()
            if digest not in kept:
                kept.add(digest)
                left += self.needs.get(digest, [])
        return [run for name, run in self.runs.items() if run.state == DONE and name not in kept], ""

    def _waiting(self) -> list[str]:
        """All runs of commands that are not finished, as queues tell: in the store, and in FYI_BENCH_STORAGE."""
        from fyi_bench.run.queue import Queue, connect
        from fyi_bench.run.storage import sqlite_url

        elsewhere = os.environ.get(options_of(Settings)["storage"][1].environment)
        return [
            digest
            for url in [*map(sqlite_url, sorted(self.store.root.glob("queue*.sqlite3"))), *filter(None, [elsewhere])]
            for queue in Queue.all(connect(url, lambda: None, self.store.say))
            if queue.has_open()
            for digest in queue.titles()
        ]

    def unfinished(self) -> list[RunInfo]:
        """Runs that stopped on the way, and diverged ones, that nobody works on."""
        return [run for run in self.runs.values() if run.state in ("partial", "diverged")]

    def leftovers(self) -> Iterator[Path]:
        """Folders of pictures whose record is gone."""
        for path in sorted((self.store.root / FOLDER).glob("*-*")):
            if path.is_dir() and not path.with_name(path.name + ".json").exists():
                yield path


def remove_run(run: RunInfo) -> None:
    """Remove a run's folder. Raises StoreError where somebody works on it or has finished it since, or it stays."""
    lock = FolderLock(run.folder)
    if not lock.try_acquire():
        raise StoreError(f"{lock.owner()} works on {run.kind} {run.digest}.\nWait for it, or end that process first.")
    try:
        if run.state != DONE and (run.folder / SEALED).exists():
            raise StoreError(f"{run.kind} {run.digest} was finished meanwhile, and is kept.\nAsk again to remove it.")
        remove_folder(run.folder)
    finally:
        lock.release()


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise StoreError(f"{folder} could not be removed: {error.strerror or error}.\nSee who owns it.") from error

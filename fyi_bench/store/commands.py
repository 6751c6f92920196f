"""Records of finished commands in a store: `reports/<task>-<digest>.json`, beside the runs they were made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import StoreError
from fyi_bench.files import legal_json, read_table
from fyi_bench.store.lock import FolderLock
from fyi_bench.store.record import SEAL, read_record, write_sealed
from fyi_bench.store.run_dir import sweep

if TYPE_CHECKING:
    from fyi_bench.store.store import Store

FOLDER = "reports"
# what a command that only reads finished runs again leaves as it was: the first time, machine and line
_OF_THE_FIRST = (
    "command", "date", "environment", "peak_cuda_memory_mib", "peak_memory_mib", "source_digest", "threads", "versions",
    "wall_s",
)  # fmt: skip


@contextmanager
def writing(store: Store, folder: str = FOLDER) -> Iterator[Path]:
    """Write files beside the runs, alone; what a killed writer left is swept."""
    with FolderLock(store.root / folder) as lock:
        sweep(lock.path.parent)
        yield lock.path.parent


def record_path(store: Store, record: dict[str, Any]) -> Path:
    """The place of a command's record in the store, named by its digest."""
    return store.root / FOLDER / f"{record['task']}-{record['digest']}.json"


def save_record(store: Store, record: dict[str, Any], json_file: Path | None = None) -> dict[str, Any]:
    """Keep a record in the store and, where asked, in a file of the user's; the record as it is kept.

    A record that is there and says the same stays as it is. One that says something else (its runs were computed anew,
    the store was moved) is replaced, and one that was damaged too.
    """
    path = record_path(store, record)
    kept = _kept(path)
    if kept.get("store", record.get("store")) == record.get("store"):
        record = {**record, **{key: kept[key] for key in _OF_THE_FIRST if key in kept}}
    if not kept or legal_json(record) != {key: kept[key] for key in kept if key != SEAL}:
        with writing(store):
            write_sealed(path, record)
    if json_file is not None:
        write_sealed(json_file, record)
    return record


def _kept(path: Path) -> dict[str, Any]:
    """The whole record that is in this place, as it stands in the file; empty where there is none."""
    try:
        read_command(path)
        return read_table(path)
    except (StoreError, OSError, ValueError):
        return {}


def read_command(path: Path) -> dict[str, Any]:
    """The record of a finished command. Raises StoreError where it is damaged or none."""
    record = read_record(path)
    if "date" in record and SEAL not in record:
        raise StoreError(f"{path} has lost its seal.\nRemove it and run the command again.")
    named, arms = [record.get("task"), record.get("digest")], record.get("arms")
    if not (all(isinstance(text, str) for text in named) and isinstance(arms, list)):
        raise StoreError(f"{path} is no record of a command.\nRemove it.")
    if not all(isinstance(arm, dict) for arm in arms):
        raise StoreError(f"{path} has arms that are no tables.\nRemove it and run the command again.")
    return record


def command_records(store: Store, task: str | None = None) -> list[dict[str, Any]]:
    """Records of finished commands, of one task where asked; those that cannot be read are left out."""
    return [record for record in read_commands(store)[0] if task in (None, record.get("task"))]


def read_commands(store: Store) -> tuple[list[dict[str, Any]], list[StoreError]]:
    """Records of finished commands by file name, and what is wrong with each file that is none or was changed."""
    records, damaged = [], []
    for path in sorted((store.root / FOLDER).glob("*.json")):
        try:
            records.append(read_command(path))
        except StoreError as error:
            damaged.append(error)
    return records, damaged

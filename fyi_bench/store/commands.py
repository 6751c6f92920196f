"""Records of finished commands in a store: `reports/<task>-<digest>.json`, beside the runs they were made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import StoreError
from fyi_bench.files import write_json
from fyi_bench.store.record import read_record

if TYPE_CHECKING:
    from fyi_bench.store.store import Store

FOLDER = "reports"


def record_path(store: Store, record: dict[str, Any]) -> Path:
    """The place of a command's record in the store, named by its digest."""
    return store.root / FOLDER / f"{record['task']}-{record['digest']}.json"


def save_record(store: Store, record: dict[str, Any], json_file: Path | None = None) -> Path:
    """Write the record into the store and, where asked, to a file of the user's; returns the place in the store."""
    if json_file is not None:
        write_json(json_file, record)
    return write_json(record_path(store, record), record)


def command_records(store: Store, task: str | None = None) -> list[dict[str, Any]]:
    """Records of finished commands, of one task where asked; those that cannot be read are left out."""
    return [record for record in read_commands(store)[0] if task in (None, record.get("task"))]


def read_commands(store: Store) -> tuple[list[dict[str, Any]], list[str]]:
    """Records of finished commands by file name, and a line on each file that cannot be read."""
    records, damaged = [], []
    for path in sorted((store.root / FOLDER).glob("*.json")):
        try:
            records.append(read_record(path))
        except StoreError as error:
            damaged.append(str(error).splitlines()[0])
    return records, damaged

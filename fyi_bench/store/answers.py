"""Where the record of a command goes: into the store, and where asked to a file of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fyi_bench.files import write_json
from fyi_bench.store.store import Store

FOLDER = "reports"


def answer_path(store: Store, record: dict[str, Any]) -> Path:
    """The place of a command's record in the store, named by its digest."""
    return store.root / FOLDER / f"{record['task']}-{record['digest']}.json"


def save_answer(store: Store, record: dict[str, Any], json_file: Path | None = None) -> Path:
    """Write the record of a command; returns its place in the store."""
    if json_file is not None:
        write_json(json_file, record)
    return write_json(answer_path(store, record), record)

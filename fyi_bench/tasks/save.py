"""Where the record of a command goes: into the store, and to --json."""

from fyi_bench.store.commands import FOLDER, record_path, save_record

__all__ = ["FOLDER", "record_path", "save_record"]

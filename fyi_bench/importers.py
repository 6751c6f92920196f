"""The name that `fyi_bench.formats` had before; kept so that scripts go on."""

from __future__ import annotations

from fyi_bench.formats import Imported, export_set, load_set, save_imported

__all__ = ["Imported", "export_set", "load_set", "save_imported"]

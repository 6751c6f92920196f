"""Condensed sets of others, in every public layout, as ImageSets. A file in `formats` adds a layout."""

from __future__ import annotations

from fyi_bench.formats.base import IMPORTERS, Format, Imported, Options, Raw, register
from fyi_bench.formats.common import SIZE_BUDGET
from fyi_bench.formats.load import load_set, save_imported
from fyi_bench.formats.source import Source

__all__ = [
    "IMPORTERS",
    "SIZE_BUDGET",
    "Format",
    "Imported",
    "Options",
    "Raw",
    "Source",
    "load_set",
    "register",
    "save_imported",
]

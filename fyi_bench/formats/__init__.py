"""Condensed sets of others in every public layout: read as ImageSets, written back. A file in `layouts` adds one."""

from __future__ import annotations

from fyi_bench.formats.base import FORMATS, Format, Imported, Options, Raw
from fyi_bench.formats.export import Exported, export_set, save_imported, to_torch_dataset
from fyi_bench.formats.input_files import InputFiles
from fyi_bench.formats.load import load_set
from fyi_bench.formats.opening import SIZE_BUDGET

__all__ = [
    "FORMATS",
    "SIZE_BUDGET",
    "Exported",
    "Format",
    "Imported",
    "InputFiles",
    "Options",
    "Raw",
    "export_set",
    "load_set",
    "save_imported",
    "to_torch_dataset",
]

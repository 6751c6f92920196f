"""The tables of the FYI paper with our numbers beside the published ones, and what is still to run.

table('1', store).to('markdown'); missing('1', 'quick', store) gives the commands that fill the holes.
"""

from __future__ import annotations

from fyi_bench.present.missing import Missing
from fyi_bench.present.tables.build import missing, same_architecture, table
from fyi_bench.present.tables.forms import FORMS
from fyi_bench.present.tables.layouts import LAYOUTS, layout
from fyi_bench.present.tables.model import VERDICT_RULE, Cell, Column, Ours, Row, Table

__all__ = [
    "FORMS",
    "LAYOUTS",
    "VERDICT_RULE",
    "Cell",
    "Column",
    "Missing",
    "Ours",
    "Row",
    "Table",
    "layout",
    "missing",
    "same_architecture",
    "table",
]

"""The tables of the FYI paper with our numbers beside the published ones, and what is still to run.

table('1', store).to('markdown'); missing('1', 'quick', store) gives the commands that fill the holes. A table more is
a function giving its `Layout`, registered in `LAYOUTS`, from outside as an entry point of the group `fyi_bench.tables`.
"""

from fyi_bench.present.tables.build import FORMS, Entry, Table, missing, same_architecture, table
from fyi_bench.present.tables.layouts import LAYOUTS, Column, Layout, Row, layout

__all__ = [
    "FORMS",
    "LAYOUTS",
    "Column",
    "Entry",
    "Layout",
    "Row",
    "Table",
    "layout",
    "missing",
    "same_architecture",
    "table",
]

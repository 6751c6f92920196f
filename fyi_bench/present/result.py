"""What a word of the Python API returns: the record of its command, which shows itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from fyi_bench.errors import UsageError
from fyi_bench.notebook import notebook_shell
from fyi_bench.present.report.sections import WIDE, Section, SectionMaker, section_of
from fyi_bench.present.words import fitted
from fyi_bench.registry import pick

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Teller(SectionMaker, Protocol):
    """How records of a task are told: `fyi_bench.tasks.base.Task` is one."""

    def words(self, record: Mapping[str, Any], /) -> str: ...

    def numbers(self, record: Mapping[str, Any], /) -> Mapping[str, Any]: ...


class Result(dict[str, Any]):
    """The record of a command: a plain dict, shown as the command line shows it, and in a notebook as a page does.

    `to_pandas()` gives its numbers as rows, `plot()` its figures.
    """

    def __init__(self, record: Mapping[str, Any], teller: Teller):
        super().__init__(record)
        self._teller = teller

    def to_pandas(self) -> DataFrame:
        """A row for each number of every arm, paired differences last; columns as those of `fyi_bench.runs()`."""
        from fyi_bench.present.arms import frame_of, rows_of_record

        return frame_of(rows_of_record(self._teller.numbers(self)))

    def plot(self, which: str = "", width: float = WIDE) -> Figure:
        """A figure of the report: the first, or which: 'accuracy', 'curves', 'ranks', 'unequalness', 'loss' …

        width: in inches. Raises UsageError where the record has no figure, or none of this name.
        """
        figures = {figure.name: figure for figure in self._section().figures}
        if not figures:
            raise UsageError(f"A record of '{self['task']}' has no figure.\nSee to_pandas() for its numbers.")
        chosen = pick("figure", which, figures) if which else next(iter(figures.values()))
        figure = chosen.drawing(chosen.name, width).figure
        _show_figures()
        return figure

    def __repr__(self) -> str:
        return fitted(self._teller.words(self))

    def _repr_html_(self) -> str:
        """Headline, tables and images of its section in the report."""
        from fyi_bench.present.page import render

        return render("result.html.j2", s=self._section())

    def _section(self) -> Section:
        return section_of(self, "r", None, {self["task"]: self._teller})


def _show_figures() -> None:
    """Let a notebook draw matplotlib's figures, as it does by itself once pyplot is in use."""
    shell = notebook_shell()
    if shell is None:
        return
    from IPython.core.pylabtools import select_figure_formats
    from matplotlib.figure import Figure

    formatters = shell.display_formatter.formatters
    if not any(Figure in formatter.type_printers for formatter in formatters.values()):
        select_figure_formats(shell, {"png"})

"""The section of the replication on the figures of the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.recipes import recipe
from fyi_bench.duration import format_duration
from fyi_bench.present.figures import FIGURES
from fyi_bench.present.replication.cost import Pace
from fyi_bench.present.replication.places import NOT_RUN
from fyi_bench.present.tables.forms import markdown_table
from fyi_bench.present.tables.groups import PAPER
from fyi_bench.store.excerpt import runs_of_protocol

if TYPE_CHECKING:
    from fyi_bench.present.missing import Missing
    from fyi_bench.store.store import Store

PAPER_FIGURES = (*map(str, range(1, 13)), *"ABCDE")
_NAMES = "dataset", "method", "ipc", "flip"


def figure_section(store: Store, pace: Pace) -> list[str]:
    """The figures of the paper that are drawn from runs, and how many of the commands that they need were run.

    As lines of Markdown.
    """
    of_paper = runs_of_protocol(store, PAPER, on_the_way=True)
    inputs = [run.inputs for run in store.ls() if run.kind == "distill" and run.digest in of_paper]
    made = {(*(one[name] for name in _NAMES), one["config"]["iterations"]) for one in inputs}
    rows = []
    drawn = FIGURES.usable()[0]
    for name in (one for one in PAPER_FIGURES if one in drawn):
        needs = drawn[name].needs(PAPER)
        run = [
            one for one in needs
            if one.task == "distill" and (*(getattr(one, name) for name in _NAMES), _iterations(one)) in made
        ]  # fmt: skip
        if needs:
            others = [pace.of_command(one) for one in needs if one not in run]
            known = [one for one in others if one is not None]
            time = f"roughly {format_duration(sum(known))}" if 0 < len(known) == len(others) else "not estimated"
            rows.append([name, drawn[name].title, str(len(needs)), str(len(run)) if run else NOT_RUN, time])
    header = ("figure", "what it shows", "commands", f"run by `{PAPER}`", "condensing for the others, one seed")
    text = (
        "Figures of the paper that are drawn from finished runs, with the number of commands at the paper's length that"
        " all of each needs (`fyi-bench figure NAME --protocol paper --dry-run` lists them), how many of these were"
        " run, and how long the others would condense, as far as that is told by the runs above."
    )
    return ["", "## Figures", "", text, "", *markdown_table(header, rows)]


def _iterations(asked: Missing) -> int:
    """Of the sets that a command makes: what it asks for, or the recipe's."""
    whole = recipe(asked.method, asked.dataset, asked.ipc, PAPER).values["iterations"]
    return int(asked.changes.get("iterations", whole))

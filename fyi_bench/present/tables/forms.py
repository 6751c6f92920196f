"""A table as text: Markdown, LaTeX (booktabs), CSV and HTML. CSV has every fact in a column, numbers unrounded."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from fyi_bench.present.missing import Missing
from fyi_bench.present.page import TableView, render
from fyi_bench.present.tables import words
from fyi_bench.present.tables.build import FORMS, Entry, Table
from fyi_bench.present.tables.layouts import Column
from fyi_bench.present.words import page_width, text_table, wrapped

_CSV = (
    "table", "row", "method", "flip", "dataset", "ipc", "arch", "metric", "protocol", "protocol_version", "ours",
    "ours_std", "sets", "between_sets", "between_networks", "ours_low", "ours_high", "values", "expected_values",
    "published", "published_std", "source", "gap", "verdict", "difference", "difference_low", "difference_high",
    "difference_pairs", "published_difference", "differs", "fills", "fills_seconds",
)  # fmt: skip


@FORMS.register("text")
def text(table: Table) -> str:
    """For a terminal: the grid in parts, then how many holes there are and the commands for them."""
    lines = wrapped([f"Table {table.name} · {table.title}", words.subtitle(table)])
    for header, rows in words.grids(table, page_width()):
        lines += ["", *text_table(header, rows)]
    for said in (words.legend(table), words.spreads(table), _verdicts(table)):
        lines += ["", *wrapped(said)] if said else []
    if table.missing:
        lines += ["", f"{sum(len(one.fills) for one in table.missing)} holes; commands that fill them:"]
        lines += [f"  {command}   ({time})" for command, _, time in words.holes(table)]
    return "\n".join([*lines, "", *wrapped(table.notes)]).rstrip()


def _verdicts(table: Table) -> list[str]:
    """The verdict on every number of ours, those of equal verdict together."""
    found: dict[str, list[str]] = {}
    for entry in table.filled():
        found.setdefault(entry.verdict, []).append(entry.label)
    return [f"{verdict}: {'; '.join(labels)}" for verdict, labels in found.items()]


@FORMS.register("markdown")
def markdown(table: Table) -> str:
    """The paper's grid, the details of every number of ours, the holes with their commands, and the notes."""
    lines = [f"## Table {table.name}: {table.title}", "", words.subtitle(table), ""]
    for header, grid in words.grids(table):
        lines += [*markdown_table(header, grid), ""]
    lines += [*(f"- {line}" for line in words.legend(table)), ""]
    while not lines[-1]:
        lines.pop()
    details = words.details(table)
    if details:
        lines += ["", "### Our numbers", "", *markdown_table(words.DETAILS, details)]
    if table.missing:
        rows = [[f"`{command}`", *rest] for command, *rest in words.holes(table)]
        lines += ["", "### Holes", "", *markdown_table(words.HOLES, rows)]
    lines += ["", *(f"- {note}" for note in table.notes)]
    return "\n".join(lines).rstrip() + "\n"


@FORMS.register("csv")
def comma_separated(table: Table) -> str:
    """A line a place that the paper or we have a number for; accuracies as fractions, unrounded."""
    commands = {label: one for one in table.missing for label in one.fills}
    file = io.StringIO()
    writer = csv.DictWriter(file, _CSV, lineterminator="\n")
    writer.writeheader()
    for entry in table.existing():
        writer.writerow(_facts(table, entry, commands.get(entry.label)))
    return file.getvalue()


@FORMS.register("latex")
def latex(table: Table) -> str:
    """A booktabs table: ours with its spread, the published number in brackets, differences in lines of their own."""
    columns = table.columns
    lines = [r"% needs \usepackage{booktabs}", r"\begin{table}", r"\centering"]
    lines += [rf"\caption{{{tex(table.title)}. {tex(words.subtitle(table))}}}", rf"\label{{tab:fyi-{table.name}}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * len(columns)}}}", r"\toprule", *_tex_header(columns), r"\midrule"]
    lines += [" & ".join(map(tex, row)) + r" \\" for row in words.grid(table, columns)]
    lines += [r"\bottomrule", r"\end{tabular}"]
    said = [*words.legend(table), *words.spreads(table)]
    lines += [r"\par\medskip\footnotesize", *(rf"{tex(line)}\par" for line in said)] if said else []
    lines += [r"\end{table}"]
    return "\n".join([*lines, *(f"% {note}" for note in table.notes)]) + "\n"


@FORMS.register("html")
def html(table: Table) -> str:
    """A self-contained page, in the style of the report."""
    caption = "Ours, and in brackets the published number."
    views = [TableView(caption, header, rows) for header, rows in words.grids(table)]
    details = words.details(table)
    views += [TableView("Every number of ours.", words.DETAILS, details)] if details else []
    return render(
        "table.html.j2",
        title=f"Table {table.name}: {table.title}",
        subtitle=words.subtitle(table),
        tables=views,
        holes=words.holes(table),
        notes=[*words.legend(table), *table.notes],
    )


def _facts(table: Table, entry: Entry, fills: Missing | None) -> Mapping[str, Any]:
    row, column, ours, published = entry.row, entry.column, entry.ours, entry.published
    facts = {
        "table": table.name, "row": row.label, "method": row.method, "flip": row.flip, "dataset": column.dataset,
        "ipc": "full" if column.ipc is None else column.ipc, "arch": column.arch, "metric": column.metric,
        "gap": entry.gap, "verdict": entry.verdict, "published_difference": entry.published_difference,
    }  # fmt: skip
    if entry.difference is not None:
        facts |= {f"difference_{name}": entry.difference[name] for name in ("low", "high", "pairs")}
        facts["difference"] = entry.difference["mean"]
    if ours is not None:
        facts |= {
            "protocol": ours.protocol, "protocol_version": ours.version, "ours": ours.mean, "ours_std": ours.std,
            **ours.spread, "ours_low": ours.low, "ours_high": ours.high, "values": len(ours.values),
            "expected_values": ours.expected, "differs": "; ".join(entry.differs),
        }  # fmt: skip
    if published is not None:
        facts |= {"published": published.value, "published_std": published.std, "source": words.source_words(entry)}
    if fills is not None:
        facts |= {"fills": fills.command, "fills_seconds": fills.seconds}
    return facts


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a pipe table, padded so that it can be read as text too."""
    clean = [[entry.replace("|", r"\|") for entry in line] for line in (header, *rows)]
    widths = [max(3, *(len(line[i]) for line in clean)) for i in range(len(header))]
    lines = ["| " + " | ".join(entry.ljust(w) for entry, w in zip(line, widths)) + " |" for line in clean]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]


def _tex_header(columns: Sequence[Column]) -> list[str]:
    lines = []
    if any(column.heading for column in columns):
        groups = [(heading, len(list(found))) for heading, found in groupby(columns, key=lambda c: c.heading)]
        lines.append(" & ".join(["", *(rf"\multicolumn{{{n}}}{{c}}{{{tex(h)}}}" for h, n in groups)]) + r" \\")
    return [*lines, " & ".join(["", *(tex(column.label) for column in columns)]) + r" \\"]


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$", "≠": r"$\neq$", "°": r"$^\circ$",
    "–": "--", "“": "``", "”": "''", words.INDENT: r"\quad ",
}  # fmt: skip


def tex(text: str) -> str:
    """The text for LaTeX."""
    return "".join(_TEX.get(letter, letter) for letter in text)

"""A table from its layout and a store: every entry filled, or a hole with the command that fills it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from distill.methods import METHODS
from downstream.protocol import procedure
from downstream.protocol import protocol as protocol_of
from fyi_bench.present.missing import Missing
from fyi_bench.present.published import Published
from fyi_bench.present.tables.groups import PAPER, VERDICT_RULE, Group, Ours, Search, other_protocol
from fyi_bench.present.tables.layouts import LAYOUTS, Column, Layout, Row, layout
from fyi_bench.present.tables.results import best, groups_of
from fyi_bench.present.words import HOLE, is_number, numbered
from fyi_bench.registry import Registry

if TYPE_CHECKING:
    from fyi_bench.store.store import Store

ONLY_PAPER = f"Other protocols than “{PAPER}” are not compared."
Estimate = Callable[[Missing], float | None]


@dataclass(frozen=True)
class Entry:
    """What stands at one row and column of a table.

    asked: the paper has a number here, readable or not. difference: ours with the flip minus ours without, {mean, low,
    high, pairs}; published_difference: the same of the published numbers.
    """

    row: Row
    column: Column
    asked: bool = False
    published: Published | None = None
    ours: Ours | None = None
    difference: Mapping[str, Any] | None = None
    published_difference: float | None = None

    @property
    def label(self) -> str:
        """'DM + FYI, CIFAR-10 10 IPC'."""
        return f"{self.row.label}, {self.column.title}"

    @property
    def differs(self) -> list[str]:
        """What of our number is not as published, in words, and what its recipe says of itself."""
        return [] if self.ours is None else list(self.ours.marks)

    @property
    def marks(self) -> list[str]:
        """`differs` without the protocol, which is that of the whole table."""
        return [] if self.ours is None else [one for one in self.differs if one != other_protocol(self.ours.protocol)]

    @property
    def gap(self) -> float | None:
        """Ours minus published, or None where one of them is missing."""
        return None if self.ours is None or self.published is None else self.ours.mean - self.published.value

    @property
    def verdict(self) -> str:
        """The word of `VERDICT_RULE`, or why there is none."""
        if self.ours is None:
            return "not run"
        if self.ours.protocol != PAPER:
            return f"not compared: {self.ours.protocol} ≠ {PAPER}"
        if self.published is None or not is_number(self.gap):
            return "nothing published" if self.published is None else HOLE
        return self.ours.verdict(self.published)

    @property
    def exists(self) -> bool:
        """Whether something belongs here; a hole of the paper that nobody filled is left empty."""
        return self.asked or self.ours is not None


@dataclass(frozen=True)
class Table:
    """A table with our numbers beside the published ones. missing: commands for the holes."""

    name: str
    title: str
    protocol: str
    rows: Sequence[Row]
    columns: Sequence[Column]
    entries: Mapping[tuple[Row, Column], Entry]
    missing: Sequence[Missing] = ()
    notes: Sequence[str] = ()

    def entry(self, row: Row, column: Column) -> Entry:
        """What stands at a row and column; an empty one where neither the paper nor we have a number."""
        return self.entries.get((row, column)) or Entry(row, column)

    def existing(self) -> list[Entry]:
        """Entries that have something to say, row by row."""
        return [one for row in self.rows for column in self.columns if (one := self.entry(row, column)).exists]

    @cached_property
    def footnotes(self) -> dict[str, int]:
        """What is to be said of single numbers of ours -> its number, which stands in their places."""
        return numbered(mark for entry in self.filled() for mark in entry.marks)

    def filled(self) -> list[Entry]:
        """Entries with a number of ours, row by row."""
        return [one for one in self.existing() if one.ours is not None]

    def to(self, form: str) -> str:
        """The table as text: 'text', 'markdown', 'latex', 'csv' or 'html'. UnknownNameError for another word."""
        return FORMS.get(form)(self)


# form -> function(table) giving text; those of fyi-bench are in forms.py
FORMS: Registry[Callable[[Table], str]] = Registry(
    "form of a table", package="fyi_bench.present.tables", group="fyi_bench.table_forms"
)


def table(
    name: str, store: Store, protocol: str | None = None, estimate: Estimate | None = None, otherwise: str = PAPER
) -> Table:
    """A table of the paper, '1' to '4', 'A' or 'B', with the numbers of a store's runs beside the published ones.

    protocol: whose numbers to show, `paper`, `quick` or one with changes (`quick+epochs=20`); None takes 'paper' where
    the store has any for this table, else the one it has most of. Numbers of other protocols are counted in a note and
    never mixed in; where it has none at all, the holes are those of `otherwise`. estimate(missing): seconds of the
    command that fills a hole.
    Raises UnknownNameError for another table, StoreError for a damaged record.
    """
    return table_of(name, groups_of(store), protocol, estimate, otherwise)


def table_of(
    name: str,
    groups: Sequence[Group],
    protocol: str | None = None,
    estimate: Estimate | None = None,
    otherwise: str = PAPER,
) -> Table:
    """`table` of results that were read before."""
    name = LAYOUTS.spelled(name)
    plan = layout(name)
    at = {(row, column): _of(groups, row, column) for row in plan.rows for column in plan.columns}
    there = {id(group): group for found in at.values() for group in found}.values()
    chosen = procedure(protocol or _most_used([group.protocol for group in there], otherwise))
    taken = {
        (row, column): best(
            group for group in found
            if group.protocol == chosen and not group.changes() and group.number(column.metric) is not None
        )
        for (row, column), found in at.items()
    }  # fmt: skip
    entries = {(row, column): _entry(plan, row, column, taken) for row, column in taken}
    # one procedure, however often it was repeated; the commands repeat it as often as was asked for
    asked = next((name for name in (protocol, otherwise) if name and procedure(name) == chosen), chosen)
    notes = [*plan.notes, *_left_out(at, chosen), *([f"{VERDICT_RULE} {ONLY_PAPER}"] if plan.published else [])]
    holes = _missing(plan, entries, asked, estimate)
    return Table(name, plan.title, chosen, plan.rows, plan.columns, entries, holes, notes)


def missing(name: str, protocol: str, store: Store | None = None, estimate: Estimate | None = None) -> list[Missing]:
    """The commands that fill the holes of a table, each with the entries it fills; without a store, all of them."""
    return list(table_of(name, groups_of(store) if store is not None else (), protocol, estimate).missing)


def same_architecture(published: str, ours: str) -> bool:
    """Whether our architecture is the published one; plain 'convnet' takes its depth from the images, as published."""
    return ours == published or (ours == "convnet" and published.removeprefix("convnet").isdigit())


def _of(groups: Sequence[Group], row: Row, column: Column) -> list[Group]:
    key = row.method, row.flip, column.dataset, column.ipc
    return [
        group for group in groups
        if tuple(group.made[name] for name in ("method", "flip", "dataset", "ipc")) == key
        and column.measurable and same_architecture(column.arch, group.arch)
    ]  # fmt: skip


def _most_used(protocols: Sequence[str], otherwise: str) -> str:
    counts = Counter(protocols)
    if not counts:
        return otherwise
    return PAPER if PAPER in counts else min(counts, key=lambda name: (-counts[name], name))


def _entry(plan: Layout, row: Row, column: Column, taken: Mapping[tuple[Row, Column], Group | None]) -> Entry:
    group, ours, difference = taken[row, column], None, None
    if group is not None:
        ours = group.number(column.metric)
        plain = (other for (r, c), other in taken.items() if (r.method, r.flip, c) == (row.method, "none", column))
        base = next(plain, None) if row.flip != "none" else None
        difference = None if base is None else group.minus(base, column.metric)
    published, change = plan.published.get((row, column)), plan.published_difference(row, column)
    return Entry(row, column, plan.asks(row, column), published, ours, difference, change)


def _left_out(at: Mapping[tuple[Row, Column], Sequence[Group]], protocol: str) -> list[str]:
    """What the store has for this table and the table does not show, and why."""
    there = {id(group): group for found in at.values() for group in found}.values()
    others = Counter(group.protocol for group in there if group.protocol != protocol)
    notes = [
        f"Not shown: {count} result{'s' if count > 1 else ''} of the protocol {name} (--protocol {name})."
        for name, count in sorted(others.items())
    ]
    for (row, column), found in at.items():
        for group in (one for one in found if one.protocol == protocol):
            changed = group.changes()
            if changed:
                notes.append(f"Not shown: {row.label}, {column.label}, made with {'; '.join(changed)}.")
            elif isinstance(group, Search) and not group.names:
                why = "the search is not finished" if group.real.runs else "there is no real side to hold it against"
                notes.append(f"Not shown: {row.label}, {column.label}, {why}.")
    return notes


def _missing(
    plan: Layout, entries: Mapping[tuple[Row, Column], Entry], protocol: str, estimate: Estimate | None
) -> list[Missing]:
    """One command a (method, data set, images a class): with FYI it fills the row without it as well."""
    commands: dict[tuple, list[Entry]] = defaultdict(list)
    for (row, column), entry in entries.items():
        if plan.fillable(row, column) and entry.ours is None:
            commands[row.method, row.flip, column.dataset, column.ipc].append(entry)
    found = []
    for (method, flip, dataset, ipc), holes in _merged(commands).items():
        search = any(entry.column.metric != "accuracy" for entry in holes)
        names = tuple(dict.fromkeys(_asked_name(entry.column.arch) for entry in holes))
        names = () if search or names == (_default_arch(protocol),) else names
        fills = tuple(entry.label for entry in holes)
        task, options = ("nas", ("--space", "720")) if search else ("distill", ())
        one = Missing(task, method, flip, dataset, ipc, names, protocol, fills, options)
        if method not in METHODS:
            found.append(replace(one, reason=f"the method {method} is not built in"))
        else:
            found.append(one if estimate is None else replace(one, seconds=estimate(one)))
    return found


def _merged(commands: Mapping[tuple, list[Entry]]) -> dict[tuple, list[Entry]]:
    """The plain method is run by the command of any of its flips, so its holes go there."""
    merged = dict(commands)
    for method, flip, dataset, ipc in list(merged):
        other = next((k for k in merged if (k[0], *k[2:]) == (method, dataset, ipc) and k[1] != "none"), None)
        if flip == "none" and other is not None:
            merged[other] = merged.pop((method, flip, dataset, ipc)) + merged[other]
    return merged


def _default_arch(protocol: str) -> str:
    """The architecture a protocol evaluates on when none is named."""
    base, *changes = protocol.split("+")
    own = dict(change.split("=", 1) for change in changes if change.startswith("eval_model="))
    return protocol_of(base, "accuracy").with_overrides(own).eval_model


def _asked_name(arch: str) -> str:
    return "convnet" if arch.removeprefix("convnet").isdigit() else arch

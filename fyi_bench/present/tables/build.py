"""A table from its layout and a store: every place filled, or a hole with the command that fills it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fyi_bench.present.missing import Missing
from fyi_bench.present.tables.layouts import Layout, layout
from fyi_bench.present.tables.model import PAPER, VERDICT_RULE, Cell, Column, Ours, Row, Table
from fyi_bench.present.tables.results import (
    Group,
    best,
    groups_of,
    nas_numbers,
    notes_on_data,
    ours_of,
    paired,
    recipe_differences,
)
from fyi_bench.present.tables.words import place_words
from fyi_bench.present.words import is_number

if TYPE_CHECKING:
    from fyi_bench.present.published import Published
    from fyi_bench.store.store import Store

Estimate = Callable[[Missing], float | None]


def table(
    name: str, store: Store, protocol: str | None = None, estimate: Estimate | None = None, otherwise: str = PAPER
) -> Table:
    """Table '1', '2', '3', '4', 'A' or 'B' of the paper with the numbers of a store beside the published ones.

    protocol: whose numbers to show, `paper`, `quick` or one with changes (`quick+epochs=20`); None takes 'paper' where
    the store has any for this table, else the one it has most of. Numbers of other protocols are counted in a note and
    never mixed in; where it has none at all, the holes are those of `otherwise`. estimate(missing): seconds of the
    command that fills a hole.
    Raises UnknownNameError for another table, StoreError for a damaged record.
    """
    from downstream.protocol import procedure

    plan = layout(name)
    if any(column.metric != "accuracy" for column in plan.columns):
        chosen, cells, notes = _search_cells(plan, store, protocol, otherwise)
    else:
        chosen, cells, notes = _accuracy_cells(plan, store, protocol, otherwise)
    # one procedure, however often it was repeated; the commands repeat it as often as was asked for
    asked = next((name for name in (protocol, otherwise) if name and procedure(name) == chosen), chosen)
    holes = _missing(plan, cells, asked, estimate)
    rules = [VERDICT_RULE] if plan.published else []
    return Table(name.upper(), plan.title, chosen, plan.rows, plan.columns, cells, holes, [*plan.notes, *notes, *rules])


def missing(name: str, protocol: str, store: Store | None = None, estimate: Estimate | None = None) -> list[Missing]:
    """The commands that fill the holes of a table, each with the cells it fills; without a store, all of them."""
    plan = layout(name)
    if store is not None:
        return list(table(name, store, protocol, estimate).missing)
    return _missing(plan, {}, protocol, estimate)


def same_architecture(published: str, ours: str) -> bool:
    """Whether our architecture is the published one; plain 'convnet' takes its depth from the images, as published."""
    return ours == published or (ours == "convnet" and published.removeprefix("convnet").isdigit())


def _accuracy_cells(
    plan: Layout, store: Store, protocol: str | None, otherwise: str
) -> tuple[str, dict[tuple[Row, Column], Cell], list[str]]:
    from downstream.protocol import procedure

    at = {key: [] for row in plan.rows for column in plan.columns for key in [(row, column)]}
    for group in groups_of(store):
        for row, column in at:
            if _belongs(group, row, column):
                at[row, column].append(group)
    chosen = procedure(protocol or _most_used([group.protocol for found in at.values() for group in found], otherwise))
    notes = _left_out(at, chosen)
    taken = {key: best(_as_recipe(found, chosen)) for key, found in at.items()}
    on_data = notes_on_data(store)
    plain = {(row.method, column): taken[row, column] for row, column in taken if row.flip == "none"}
    cells = {}
    for (row, column), group in taken.items():
        base = plain.get((row.method, column))
        cells[row, column] = Cell(
            row,
            column,
            plan.asks(row, column),
            plan.published.get((row, column)),
            None if group is None else ours_of(group, on_data),
            paired(group, base) if group is not None and base is not None and row.flip != "none" else None,
            _published_difference(plan.published, row, column),
        )
    return chosen, cells, notes


def _belongs(group: Group, row: Row, column: Column) -> bool:
    place = group.place
    here = (place.method, place.flip, place.dataset, place.ipc) == (row.method, row.flip, column.dataset, column.ipc)
    return here and same_architecture(column.arch, place.arch)


def _as_recipe(groups: Sequence[Group], protocol: str) -> list[Group]:
    return [group for group in groups if group.protocol == protocol and not recipe_differences(group)]


def _most_used(protocols: Sequence[str], otherwise: str) -> str:
    counts = Counter(protocols)
    if not counts:
        return otherwise
    return PAPER if PAPER in counts else min(counts, key=lambda name: (-counts[name], name))


def _left_out(at: Mapping[tuple[Row, Column], Sequence[Group]], protocol: str) -> list[str]:
    """What the store has for this table and the table does not show, and why."""
    others = Counter(group.protocol for found in at.values() for group in found if group.protocol != protocol)
    notes = [
        f"Not shown: {count} result{'s' if count > 1 else ''} of the protocol {name} (--protocol {name})."
        for name, count in sorted(others.items())
    ]
    for (row, column), found in at.items():
        for group in found:
            changed = recipe_differences(group) if group.protocol == protocol else []
            if changed:
                notes.append(f"Not shown: {row.label}, {column.label}, made with {'; '.join(changed)}.")
    return notes


def _published_difference(numbers: Mapping[tuple[Row, Column], Published], row: Row, column: Column) -> float | None:
    base = next((n for (r, c), n in numbers.items() if (r.method, r.flip, c) == (row.method, "none", column)), None)
    here = numbers.get((row, column))
    if row.flip == "none" or not column.measurable or base is None or here is None:
        return None
    return here.value - base.value


def _search_cells(
    plan: Layout, store: Store, protocol: str | None, otherwise: str
) -> tuple[str, dict[tuple[Row, Column], Cell], list[str]]:
    found = nas_numbers(store, plan.columns[0].dataset)
    chosen = protocol or _most_used([key[3] for key in found], otherwise)
    cells = {}
    for row in plan.rows:
        for column in plan.columns:
            at = found.get((row.method, row.flip, column.ipc, chosen), [])
            ours = _search_number(*at[-1], column.metric) if at else None
            difference = _search_difference(at[-1][0], column.metric) if at and row.flip != "none" else None
            number = plan.published.get((row, column))
            change = _published_difference(plan.published, row, column)
            cells[row, column] = Cell(row, column, plan.asks(row, column), number, ours, difference, change)
    others = Counter(key[3] for key in found if key[3] != chosen)
    return chosen, cells, [f"Not shown: results of the protocol {name} (--protocol {name})." for name in sorted(others)]


def _search_number(record: Mapping[str, Any], arm: Mapping[str, Any], metric: str) -> Ours | None:
    """A rank correlation of a search, with its interval; costs are not compared."""
    entry = arm.get(metric)
    if not isinstance(entry, Mapping) or entry.get("value") is None:
        return None
    protocol = record["protocol"]
    differs = [] if protocol["name"] == PAPER else [f"protocol {protocol['name']} ≠ {PAPER}"]
    if isinstance(arm["space"], int) and arm["space"] < 720:
        differs.append(f"{arm['space']} of 720 architectures")
    note = (record.get("data") or {}).get("note")
    differs += [f"data: {note}"] if note else []
    return Ours(
        {(0, 0): entry["value"]}, entry["value"], 0.0, protocol["name"], protocol["version"], 1, entry["low"],
        entry["high"], differs=tuple(differs),
    )  # fmt: skip


def _search_difference(record: Mapping[str, Any], metric: str) -> Mapping[str, Any] | None:
    """The paired difference a search records for this metric, where it does and it is defined."""
    found = record.get("differences", {}).get(metric)
    return found if found is not None and is_number(found["mean"]) else None


def _missing(
    plan: Layout, cells: Mapping[tuple[Row, Column], Cell], protocol: str, estimate: Estimate | None
) -> list[Missing]:
    """One command a (method, data set, images a class): with FYI it fills the row without it as well."""
    commands: dict[tuple, list[tuple[Row, Column]]] = defaultdict(list)
    for row in plan.rows:
        for column in plan.columns:
            cell = cells.get((row, column))
            if plan.fillable(row, column) and (cell is None or cell.ours is None):
                commands[row.method, row.flip, column.dataset, column.ipc].append((row, column))
    found = []
    for (method, flip, dataset, ipc), holes in _merged(commands).items():
        search = any(column.metric != "accuracy" for _, column in holes)
        names = tuple(dict.fromkeys(_asked_name(column.arch) for _, column in holes))
        labels = tuple(place_words(row, column) for row, column in holes)
        names = () if search or names == (_default_arch(protocol),) else names
        plan_of = Missing("nas" if search else "distill", method, flip, dataset, ipc, names, protocol, labels)
        found.append(plan_of if estimate is None else replace(plan_of, seconds=estimate(plan_of)))
    return [_with_reason(one) for one in found]


def _merged(commands: Mapping[tuple, list]) -> dict[tuple, list]:
    """The plain method is run by the command of any of its flips, so its holes go there."""
    merged = dict(commands)
    for method, flip, dataset, ipc in list(merged):
        other = next((k for k in merged if (k[0], *k[2:]) == (method, dataset, ipc) and k[1] != "none"), None)
        if flip == "none" and other is not None:
            merged[other] = merged.pop((method, flip, dataset, ipc)) + merged[other]
    return merged


def _default_arch(protocol: str) -> str:
    """The architecture a protocol evaluates on when none is named."""
    from downstream.protocol import protocol as protocol_of

    base, *changes = protocol.split("+")
    return (
        protocol_of(base, "accuracy")
        .with_overrides(dict(c.split("=", 1) for c in changes if "eval_model" in c))
        .eval_model
    )


def _asked_name(arch: str) -> str:
    return "convnet" if arch.removeprefix("convnet").isdigit() else arch


def _with_reason(one: Missing) -> Missing:
    from distill.methods import METHODS

    return one if one.method in METHODS else replace(one, reason=f"the method {one.method} is not built in")

"""What is known of each place of the paper's tables: published numbers, others', ours, verdict and floor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from downstream.protocol import FLOOR
from fyi_bench.files import digest_of
from fyi_bench.present.published import FULL, REPLICATED, Published, published
from fyi_bench.present.replication.cost import Pace, pace_of
from fyi_bench.present.tables.build import same_architecture, table_of
from fyi_bench.present.tables.groups import PAPER, PRECISION, ROUNDING, Accuracies, Group, Ours
from fyi_bench.present.tables.results import best, groups_of
from fyi_bench.store.excerpt import runs_of_protocol
from fyi_bench.store.run_dir import final_record

if TYPE_CHECKING:
    from fyi_bench.store.store import Store

TABLES = ("1", "2", "3", "A", "B")
NOT_RUN, QUOTED = "not run", "only quoted"
Key = tuple[str, int | None, str, str, str, str]  # data set, images a class, method, flip, architecture, metric


@dataclass(frozen=True)
class PaperNumber:
    """One number of the paper.

    published: rows of the paper's tables that print it, then those of other publications. ours: by the protocol
    `paper`. difference: ours with the flip minus without, {mean, low, high, pairs}; published_difference likewise.
    machine, precision: what ours was computed on and in.
    """

    published: Sequence[Published]
    replicated: Published | None = None
    ours: Ours | None = None
    difference: Mapping[str, Any] | None = None
    published_difference: float | None = None
    machine: str = ""
    precision: str = ""

    @property
    def first(self) -> Published:
        """The number as the paper prints it."""
        return self.published[0]

    @property
    def contradicts(self) -> bool:
        """Whether publications print different numbers for the same place."""
        values = [row.value for row in self.published]
        return max(values) - min(values) > ROUNDING

    @property
    def sets(self) -> Mapping[int, list[float]]:
        """Our values by the seed of their set."""
        return self.ours.sets if self.ours else {}

    @property
    def gap(self) -> float | None:
        """Ours minus published."""
        return None if self.ours is None else self.ours.mean - self.first.value

    @property
    def verdict(self) -> str:
        """By the rule that `page` prints."""
        if self.ours is None:
            full = self.first.method == FULL or self.first.ipc is None
            return QUOTED if full else NOT_RUN
        return self.ours.verdict(self.first)


@dataclass(frozen=True)
class Floor:
    """Random real images, as many and measured in the same way as the sets of some numbers of the paper.

    ours: by the protocol `paper`; each set is a draw. of: those numbers, in the paper's order. machine, precision: what
    it was computed on and in.
    """

    ours: Ours
    of: Sequence[PaperNumber]
    machine: str
    precision: str


@dataclass(frozen=True)
class Ledger:
    """All places in the paper's order, and what else the page needs of the store.

    quoted: numbers of methods outside the paper that others replicated. floors: of our accuracies. unequalness: by
    (data set, images a class, method, flip), a value a set.
    """

    places: Sequence[PaperNumber]
    quoted: Sequence[PaperNumber]
    floors: Sequence[Floor]
    pace: Pace
    unequalness: Mapping[tuple[Any, ...], Sequence[float]] = field(default_factory=dict)


def ledger(store: Store) -> Ledger:
    """Read a store. Raises StoreError for a damaged record."""
    machines, records, unequalness = _facts(store)
    groups = groups_of(store)
    ours = _ours(groups)
    rows: dict[Key, list[Published]] = defaultdict(list)
    for name in (*TABLES, "ext"):
        for row in published(name):
            rows[_key(row)].append(row)
    places, quoted = [], []
    for key, found in rows.items():
        replicated = next(iter(rows.get((*key[:5], REPLICATED), ())), None) if key[5] == "accuracy" else None
        if found[0].table in TABLES and key[5] in ("accuracy", "spearman_all", "spearman_top50"):
            number, difference, change = ours.get(key, (None, None, None))
            precision = _precision(number) if number else ""
            machine = " / ".join(sorted(machines.get((*key[:4], precision), ())))
            places.append(PaperNumber(found, replicated, number, difference, change, machine, precision))
        elif replicated is not None:
            quoted.append(PaperNumber(found, replicated))
        elif key[5] == REPLICATED and (*key[:5], "accuracy") not in rows:
            quoted.append(PaperNumber(found, found[0]))
    return Ledger(places, quoted, _floors(groups, places, machines), pace_of(records), unequalness)


def _key(row: Published) -> Key:
    return row.dataset, row.ipc, row.method, row.flip, row.arch, row.metric


def _ours(groups: Sequence[Group]) -> dict[Key, tuple[Ours, Mapping[str, Any] | None, float | None]]:
    """Our numbers as the tables show them."""
    found = {}
    for name in TABLES:
        made = table_of(name, groups, PAPER)
        for one in made.filled():
            column = one.column
            key = column.dataset, column.ipc, one.row.method, one.row.flip, column.arch, column.metric
            assert one.ours is not None  # `filled`
            found[key] = one.ours, one.difference, one.published_difference
    return found


def _floors(
    groups: Sequence[Group], places: Sequence[PaperNumber], machines: Mapping[tuple[Any, ...], set[str]]
) -> list[Floor]:
    """Random real images beside our accuracies, one for each way in which these were measured."""
    alike: dict[tuple[Any, ...], list[Accuracies]] = defaultdict(list)
    for group in groups:
        if isinstance(group, Accuracies) and group.protocol == PAPER and not group.changes():
            alike[group.made["dataset"], group.made["ipc"], digest_of(group.tested["protocol"])].append(group)
    floors = []
    for (dataset, ipc, _), found in alike.items():
        draws = best(group for group in found if group.made["method"] == FLOOR)
        arms = {(group.made["method"], group.made["flip"]) for group in found}
        of = [
            place for place in places
            if place.ours is not None and (place.first.dataset, place.first.ipc) == (dataset, ipc)
            and place.first.metric == "accuracy" and (place.first.method, place.first.flip) in arms
            and same_architecture(place.first.arch, found[0].arch)
        ]  # fmt: skip
        if draws is not None and of:
            ours = draws.number("accuracy")
            assert ours is not None  # accuracies always have one
            precision = _precision(ours)
            on = machines.get((dataset, ipc, FLOOR, "none", precision), ())
            floors.append(Floor(ours, of, " / ".join(sorted(on)), precision))
    return sorted(floors, key=lambda floor: places.index(floor.of[0]))


def _precision(ours: Ours) -> str:
    """In which a number was computed, as it tells itself where that is not as published."""
    return next((one.removeprefix(PRECISION) for one in ours.differs if one.startswith(PRECISION)), "fp32")


def _facts(
    store: Store,
) -> tuple[dict[tuple[Any, ...], set[str]], list[dict[str, Any]], dict[tuple[Any, ...], list[float]]]:
    """Of runs by the protocol `paper`: (machines of each kind of set and precision), (records), (unequalness)."""
    shown = runs_of_protocol(store, PAPER)
    finished = {run.digest: run for run in store.ls() if run.digest in shown}
    machines: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    records: list[dict[str, Any]] = []
    unequalness: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for run in finished.values():
        made = run if run.kind == "distill" else finished.get(run.inputs.get("set", {}).get("cell", ""))
        record = final_record(run.folder)
        if made is None or made.kind != "distill" or record is None:
            continue
        key = tuple(made.inputs[name] for name in ("dataset", "ipc", "method", "flip"))
        if run.kind == "unequalness":
            unequalness[key].append(record["mean"])
        elif run.kind in ("distill", "accuracy"):
            machines[*key, made.inputs["precision"]].add(record["environment"]["device_name"])
            records.append(record)
    return machines, records, unequalness

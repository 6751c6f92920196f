"""Our numbers out of a store: accuracies of finished cells, gathered by setting so that unlike ones never meet.

Values go into one number only if everything but the two seeds is equal: data, method, flip, recipe, protocol,
precision, numerics versions. Of several such groups at one place, the one made by the protocol's own recipe wins.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distill.methods import METHODS
from distill.recipes import declared, recipe
from fyi_bench.errors import FyiBenchError
from fyi_bench.files import digest_of
from fyi_bench.present.tables.model import PAPER, Ours
from fyi_bench.stats import mean_std, paired_difference
from fyi_bench.store.commands import command_records
from fyi_bench.store.run_dir import final_record

if TYPE_CHECKING:
    from fyi_bench.store.store import Store

_SEEDED = ("seed", "experts")  # inputs of a distil cell that differ between the sets of one number


@dataclass(frozen=True)
class Place:
    """Where a number belongs: the keys of a table."""

    dataset: str
    ipc: int
    method: str
    flip: str
    arch: str


@dataclass
class Group:
    """Values measured in one way. setup: digest of everything but method, flip, images a class and the seeds."""

    place: Place
    protocol: str
    version: int
    setup: str
    precision: str
    config: Mapping[str, Any]
    data: str
    values: dict[tuple[int, int], float] = field(default_factory=dict)


def groups_of(store: Store) -> list[Group]:
    """All accuracies of sets distilled in this store, by place and setting. Damaged records raise StoreError."""
    runs = [run for run in store.ls() if run.state == "done"]
    sets = {run.digest: run.inputs for run in runs if run.kind == "distill"}
    found: dict[tuple, Group] = {}
    for run in runs:
        made = sets.get(run.inputs.get("set", {}).get("cell", "")) if run.kind == "accuracy" else None
        if made is None:
            continue
        record = final_record(run.folder)
        fresh = _group(made, run.inputs, record["notes"][0])
        group = found.setdefault((fresh.place, fresh.protocol, fresh.setup), fresh)
        group.values[made["seed"], run.inputs["seed"]] = record["value"]
    return sorted(found.values(), key=lambda g: (str(g.place), g.protocol, g.setup))


def _group(made: Mapping[str, Any], tested: Mapping[str, Any], notes: Mapping[str, Any]) -> Group:
    from downstream.protocol import procedure

    place = Place(made["dataset"], made["ipc"], made["method"], made["flip"], tested["protocol"]["eval_model"])
    left_out = (*_SEEDED, "method", "flip", "ipc", "dataset")
    setup = digest_of(
        {
            "set": {key: value for key, value in made.items() if key not in left_out},
            "test": {key: value for key, value in tested.items() if key not in ("seed", "set", "dataset")},
        }
    )
    precision = made["precision"] if made["precision"] == tested["precision"] else "mixed"
    version = notes["protocol_version"]
    return Group(place, procedure(notes["protocol"]), version, setup, precision, made["config"], made["data"])


def recipe_differences(group: Group) -> list[str]:
    """Settings of the set that are not those of the protocol's recipe, as 'lr_img 0.5, not 1'."""
    place = group.place
    try:
        values = recipe(place.method, place.dataset, place.ipc, group.protocol.split("+")[0]).values
    except FyiBenchError:
        return []
    plain = json.loads(json.dumps(dict(values)))
    return [f"{k} {_short(v)}, not {_short(plain[k])}" for k, v in group.config.items() if k in plain and plain[k] != v]


def best(groups: Iterable[Group]) -> Group | None:
    """Of groups at one place the one in full precision with the most values; equal ones by digest."""
    ranked = sorted(groups, key=lambda g: (g.precision != "fp32", -len(g.values), g.setup))
    return ranked[0] if ranked else None


def ours_of(group: Group, notes_on_data: Mapping[str, str]) -> Ours:
    """The number of a group, with what is not as published."""
    mean, std = mean_std(list(group.values.values()))
    expected = expected_values(group)
    return Ours(
        dict(sorted(group.values.items())),
        mean,
        std,
        group.protocol,
        group.version,
        expected,
        setup=group.setup,
        differs=tuple(_differs(group, expected, notes_on_data)),
    )


def expected_values(group: Group) -> int:
    """Networks times sets that the protocol asks for; 0 where the protocol is not known here."""
    from downstream.protocol import protocol

    try:
        asked = protocol(group.protocol.split("+")[0], "accuracy", group.place.method)
    except FyiBenchError:
        return 0
    return asked.nets * asked.sets


def paired(flipped: Group, plain: Group) -> dict[str, Any] | None:
    """{mean, low, high, pairs} of flipped minus plain over equal seeds; None where settings differ or none is shared.

    With several sets a pair is a set (its networks averaged, as they are not independent), else a network.
    """
    keys = sorted(flipped.values.keys() & plain.values.keys())
    if flipped.setup != plain.setup or flipped.protocol != plain.protocol or not keys:
        return None
    sets = [key[0] for key in keys]
    groups = sets if len(set(sets)) > 1 else None
    return paired_difference([flipped.values[k] for k in keys], [plain.values[k] for k in keys], groups=groups)


def notes_on_data(store: Store) -> dict[str, str]:
    """Digest of train images -> what is missing of them ('25,000 of 50,000 train images'), from command records."""
    found = {}
    for record in command_records(store):
        data = record.get("data") or {}
        if data.get("note") and data.get("train"):
            found[data["train"]] = data["note"]
    return found


def nas_numbers(
    store: Store, dataset: str
) -> dict[tuple[str, str, int, str], list[tuple[Mapping[str, Any], Mapping[str, Any]]]]:
    """(method, flip, images a class, protocol) -> [(record, arm)] of searches on a data set, the widest search last."""
    found = defaultdict(list)
    for record in command_records(store, "nas"):
        for arm in record["arms"] if record["dataset"] == dataset else ():
            found[arm["method"], arm["flip"], arm["ipc"], record["protocol"]["name"]].append((record, arm))
    return {key: sorted(pairs, key=lambda pair: pair[1]["evaluated"]) for key, pairs in found.items()}


def _differs(group: Group, expected: int, notes: Mapping[str, str]) -> list[str]:
    count = len(group.values)
    found = [] if group.protocol == PAPER else [f"protocol {group.protocol} ≠ {PAPER}"]
    if count < expected:
        found.append(f"{count} of {expected} networks")
    if group.data in notes:
        found.append(f"data: {notes[group.data]}")
    if group.precision != "fp32":
        found.append(f"precision {group.precision}")
    if group.protocol == PAPER and group.place.method in METHODS:
        found.append(declared(group.place.method).published_pick)
    return list(filter(None, found))


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

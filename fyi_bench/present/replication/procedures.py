"""Sets measured by `paper` and by what FYI's code does and its text says: which of these makes a number differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.recipes import recipe
from downstream.protocol import procedure
from fyi_bench.present.published import Published, published
from fyi_bench.present.tables.groups import PAPER
from fyi_bench.stats import mean_interval
from fyi_bench.store.run_dir import final_record

if TYPE_CHECKING:
    from fyi_bench.store.store import Store

FYI_CODE, FYI_TEXT = "legacy-fyi-code", "legacy-fyi-text"
PROTOCOLS = PAPER, FYI_CODE, FYI_TEXT
Facts = Mapping[str, Any]
Place = tuple[Any, ...]  # data set, images a class, method, flip
How = tuple[str, str, tuple[str, str]]  # condensed by, measured by, precisions


@dataclass(frozen=True)
class Measured:
    """Accuracies of sets that were condensed by one protocol and measured by one.

    first: the number of the paper. sets: seed of the set -> accuracies of its networks. precision: of condensing and of
    measuring.
    """

    first: Published
    condensed_by: str
    measured_by: str
    precision: tuple[str, str]
    sets: Mapping[int, list[float]]

    @property
    def interval(self) -> Mapping[str, Any]:
        """{mean, low, high, n} over sets, networks of each averaged first."""
        return mean_interval([_mean(values) for values in self.sets.values()])


def measured(store: Store) -> list[Measured]:
    """Of every number of Tables 1 and A that some sets were measured for as FYI does: all its combinations."""
    runs = {run.digest: run for run in store.ls() if run.state == "done"}
    records = {digest: final_record(run.folder) or {} for digest, run in runs.items()}
    made = {digest: run.inputs for digest, run in runs.items() if run.kind == "distill"}
    by_digest = {records[digest].get("set_digest"): inputs for digest, inputs in made.items()}
    found: dict[tuple[Place, How], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for digest, run in runs.items():
        if run.kind != "accuracy":
            continue
        record, reference = records[digest], run.inputs.get("set", {})
        name = next((note.get("protocol") for note in record.get("notes", ())), None)
        inputs = made.get(reference.get("cell", "")) or by_digest.get(reference.get("digest"))
        if inputs is None or name is None or procedure(name) not in PROTOCOLS:
            continue
        if run.inputs["protocol"]["eval_model"] not in ("convnet", "convnet3"):
            continue
        key = tuple(inputs[part] for part in ("dataset", "ipc", "method", "flip"))
        how = _recipe_of(inputs), procedure(name), (inputs["precision"], run.inputs["precision"])
        found[key, how][inputs["seed"]].append(record["value"])
    rows = [row for table in ("A", "1") for row in published(table) if row.arch == "convnet3"]
    numbers = {(row.dataset, row.ipc, row.method, row.flip): row for row in rows}
    wanted = {key[:3] for key, how in found if {FYI_CODE, FYI_TEXT} & set(how[:2])}  # all arms: with a flip and without
    order = {key: number for number, key in enumerate(numbers)}
    chosen = [
        (order[key], how, Measured(numbers[key], *how, sets))
        for (key, how), sets in found.items()
        if key[:3] in wanted and key in numbers and how[0]
    ]
    return [one for *_, one in sorted(chosen, key=lambda row: (row[0], *map(PROTOCOLS.index, row[1][:2]), row[1][2]))]


def flip_differences(found: Sequence[Measured]) -> list[tuple[Measured, Measured, Mapping[str, Any]]]:
    """(with the flip, without, {mean, low, high, n} over pairs of sets from one seed), however each was measured."""
    pairs: list[tuple[Measured, Measured, Mapping[str, Any]]] = []
    for flipped in (one for one in found if one.first.flip != "none"):
        for plain in found:
            seeds = sorted(set(flipped.sets) & set(plain.sets))
            if (
                _place(plain) != (*_place(flipped)[:3], "none")
                or plain.condensed_by != flipped.condensed_by
                or not seeds
            ):
                continue
            changes = [_mean(flipped.sets[seed]) - _mean(plain.sets[seed]) for seed in seeds]
            pairs.append((flipped, plain, mean_interval(changes)))
    return pairs


def _place(one: Measured) -> Place:
    return one.first.dataset, one.first.ipc, one.first.method, one.first.flip


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _recipe_of(inputs: Facts) -> str:
    """The protocol whose recipe a set was condensed by; '' for neither."""
    for name in PROTOCOLS:
        values = recipe(inputs["method"], inputs["dataset"], inputs["ipc"], name).values
        if all(values.get(key, value) == value for key, value in inputs["config"].items()):
            return name
    return ""

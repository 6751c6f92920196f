"""Our numbers out of a store's finished runs, gathered by setting so that unlike ones never meet.

Values go into one number only if everything but the two seeds is equal: data, method, flip, recipe, protocol,
precision, numerics versions. Of several such groups, the one made by the protocol's own recipe wins. Runs are all
that is read, so a store that came by `fyi-bench store merge` gives the tables of the machine it was made on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from downstream import nas
from downstream.protocol import EARLY_STOPPING, procedure
from fyi_bench.files import digest_of
from fyi_bench.present.tables.groups import FEWEST_SETS, SPACE, Accuracies, Group, RealSide, Search
from fyi_bench.store.commands import command_records
from fyi_bench.store.run_dir import final_record, read_config
from search_space import ranking, space720

if TYPE_CHECKING:
    from fyi_bench.store.store import RunInfo, Store

Inputs = Mapping[str, Any]
_GROUPS = {"accuracy": Accuracies, "train": Search}  # by the type of the runs that test a set
# inputs of a set that say where its number belongs, and those that differ between the sets of one number
_NAMED, _SEEDED = ("dataset", "ipc", "method", "flip"), ("seed", "experts")
_PROXIES = ("epochs", "min_steps", "extra_epoch")  # changes of a protocol that are about a search's proxies alone


def groups_of(store: Store) -> list[Group]:
    """All that the store's runs say of sets distilled in it. Damaged records raise StoreError."""
    runs = [run for run in store.ls() if run.state == "done" or (run.kind, run.state) == ("train", "diverged")]
    sets = {run.digest: run.inputs for run in runs if run.kind == "distill"}
    noted = _notes_on_data(store)
    found: dict[tuple, Group] = {}
    real: dict[tuple, RealSide] = {}
    for run in runs:
        source = run.inputs.get("set", {}) if run.kind in _GROUPS else {}
        made = _early(run.inputs) if source.get("kind") == "early" else sets.get(source.get("cell", ""))
        if made is None and source.get("kind") != "real":
            continue
        notes, value = _result(run)
        name, seed = run.inputs["protocol"]["eval_model"], run.inputs["seed"]
        if made is None:
            key = _shared(run.inputs, notes["protocol"]), digest_of([source, _rules(run)["protocol"]])
            rules = procedure(notes["protocol"])
            side = real.setdefault(key, RealSide(rules, source["images"] if "seed" in source else None))
            side.runs.setdefault(seed, {})[name] = value
        else:
            fresh = _group(run, made, notes, noted)
            group = found.setdefault((*(made[key] for key in _NAMED), fresh.arch, fresh.protocol, fresh.setup), fresh)
            group.values[made["seed"], seed, name] = value
    for group in found.values():
        if isinstance(group, Search):
            shared = _shared(group.tested, group.protocol)
            group.real = _real_side(group, [real[key] for key in sorted(real) if key[0] == shared])
    return [found[key] for key in sorted(found, key=str)]


def best(groups: Iterable[Group]) -> Group | None:
    """Of groups at one place the one with sets enough for a verdict, in full precision, with the most values.

    The earlier of these decides; equal ones go by digest.
    """

    def rank(group: Group) -> tuple[bool, bool, int, str]:
        few = len({of_set for of_set, *_ in group.values}) < FEWEST_SETS
        return few, group.precision != "fp32", -len(group.values), group.setup

    return min(groups, key=rank, default=None)


def _early(inputs: Inputs) -> Inputs:
    """Training on real images that was stopped early, as a set of the proxies' size would be described."""
    source = inputs["set"]
    named = {"dataset": inputs["dataset"], "ipc": source["ipc"], "method": EARLY_STOPPING, "flip": "none"}
    made = {"data": source["data"], "seed": source.get("seed", 0), "precision": inputs["precision"]}
    return {**named, **made, "config": {}, "classes": list(range(source["classes"])), "images": source["images"]}


def _result(run: RunInfo) -> tuple[Inputs, float | None]:
    """Notes and value of a run; None for one that diverged."""
    record = final_record(run.folder)
    return (read_config(run.folder)["notes"], None) if record is None else (record["notes"][0], record["value"])


def _group(run: RunInfo, made: Inputs, notes: Inputs, noted: Mapping[str, str]) -> Group:
    """An empty group for the result of a run."""
    plain = {key: value for key, value in made.items() if key not in (*_NAMED, *_SEEDED)}
    note = notes.get("data_note") or noted.get(made["data"], "")
    arch = SPACE if run.kind == "train" else run.inputs["protocol"]["eval_model"]
    setup = digest_of({"set": plain, "test": _rules(run)})
    return _GROUPS[run.kind](
        made, run.inputs, arch, procedure(notes["protocol"]), notes["protocol_version"], setup, note
    )


def _rules(run: RunInfo) -> dict[str, Any]:
    """How a run trained and tested, whatever it was trained on; of a search whichever architecture it was."""
    rules = {key: value for key, value in run.inputs.items() if key not in ("seed", "set", "dataset")}
    if run.kind == "train":
        rules["protocol"] = {key: value for key, value in rules["protocol"].items() if key != "eval_model"}
    return rules


def _shared(inputs: Inputs, protocol: str) -> str:
    """Digest of what proxies and real side of a search have in common."""
    names = ("dataset", "test_data", "test_images", "precision", "numerics", "validation")
    return digest_of([protocol.split("+")[0], {name: inputs[name] for name in names if name in inputs}])


def _real_side(group: Search, sides: Sequence[RealSide]) -> RealSide:
    """The side that was trained as the protocol says, else as it was; without any a ranking of the package, or none."""
    base, *changes = group.protocol.split("+")
    own = "+".join([base, *(change for change in changes if change.partition("=")[0] not in _PROXIES)])
    images = (nas.limits_of(base).reference_images, None)
    if sides:
        side = min(sides, key=lambda s: (s.protocol != own, s.images not in images, -len(s.scores), s.seed))
        as_stated = side.protocol == own and side.images in images
        count = "all" if side.images is None else f"{side.images:,}"
        return replace(side, words="" if as_stated else f"real side: protocol {side.protocol}, {count} images")
    wanted = {name: group.tested[name] for name in ("dataset", "test_images", "precision")}
    wanted |= {"protocol": f"{own} v{group.version}", "trainer": group.tested["numerics"]["trainer"]}
    for found in map(ranking.load, ranking.names()):
        if wanted.items() <= asdict(found.label).items():
            runs = {seed: _full_names(found.scores(seed)) for seed in found.seeds}
            return RealSide(own, found.label.images, runs, stored=True)
    return RealSide(own, None)


def _full_names(scores: Mapping[str, float | None]) -> dict[str, float | None]:
    return {nas.architecture_name(space720.point(name)): score for name, score in scores.items()}


def _notes_on_data(store: Store) -> dict[str, str]:
    """Digest of train images -> what is missing of them, from records of commands: older runs do not say it."""
    data = (record.get("data") or {} for record in command_records(store))
    return {one["train"]: one["note"] for one in data if one.get("note") and one.get("train")}

"""Finding, in a store, the sets a figure is drawn from: arms that differ in the flip only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.files import digest_of
from fyi_bench.run.worker import SET_FILE

if TYPE_CHECKING:
    from distill.image_set import ImageSet
    from fyi_bench.store.store import Store


@dataclass(frozen=True)
class SetRun:
    """A finished set in a store: digest of its cell, inputs, file."""

    digest: str
    inputs: Mapping[str, Any]
    path: Path

    @property
    def iterations(self) -> int:
        """Iterations it was distilled for."""
        return self.inputs["config"]["iterations"]

    @property
    def arm(self) -> dict[str, Any]:
        """method and flip, as an arm of a record has them."""
        return {"method": self.inputs["method"], "flip": self.inputs["flip"]}

    def load(self) -> ImageSet:
        """The set, its checksum verified."""
        from distill.image_set import ImageSet

        return ImageSet.load(self.path)


def set_runs(store: Store, dataset: str, method: str, ipc: int) -> list[SetRun]:
    """Finished sets of all classes of a data set, every flip and setting, in a fixed order."""
    found = [
        SetRun(run.digest, run.inputs, run.folder / SET_FILE)
        for run in store.ls()
        if run.kind == "distill" and run.state == "done" and _is(run.inputs, dataset, method, ipc)
    ]
    most = max((len(run.inputs["classes"]) for run in found), default=0)
    whole = max(most, _classes_of(dataset))
    return [run for run in found if len(run.inputs["classes"]) == whole]


def paired_sets(store: Store, dataset: str, method: str, ipc: int) -> dict[str, SetRun]:
    """flip -> set, all of one setting and seed; empty where there is none.

    Of several settings the one that has more flips is taken, then the one with more iterations, then the lowest seed.
    """
    settings: dict[str, dict[str, SetRun]] = defaultdict(dict)
    for run in set_runs(store, dataset, method, ipc):
        settings[digest_of({k: v for k, v in run.inputs.items() if k != "flip"})][run.inputs["flip"]] = run
    ranked = sorted(settings.items(), key=lambda item: (*_rank(item[1]), item[0]))
    return ranked[0][1] if ranked else {}


def by_iterations(store: Store, dataset: str, method: str, ipc: int) -> dict[str, dict[int, SetRun]]:
    """flip -> {iterations: set} of runs that differ in flip and iterations only: one run looked at on the way.

    Every draw is keyed by its iteration, so a short run is the beginning of a long one. The real images that both
    start from are at 0 where the store has them (the coreset 'random' of the same seed). Empty where there is none.
    """
    settings: dict[str, dict[str, dict[int, SetRun]]] = defaultdict(lambda: defaultdict(dict))
    for run in set_runs(store, dataset, method, ipc):
        config = {k: v for k, v in run.inputs["config"].items() if k != "iterations"}
        key = digest_of({**{k: v for k, v in run.inputs.items() if k != "flip"}, "config": config})
        settings[key][run.inputs["flip"]][run.iterations] = run
    ranked = sorted(settings.items(), key=lambda item: (-sum(map(len, item[1].values())), item[0]))
    if not ranked:
        return {}
    found = ranked[0][1]
    start = _start_of(store, next(iter(next(iter(found.values())).values())))
    return {flip: dict(sorted(({0: start} | runs if start else runs).items())) for flip, runs in sorted(found.items())}


def _start_of(store: Store, run: SetRun) -> SetRun | None:
    if run.inputs["config"].get("init") != "real":
        return None
    same = ("dataset", "data", "classes", "ipc", "seed")
    starts = set_runs(store, run.inputs["dataset"], "random", run.inputs["ipc"])
    return next((s for s in starts if all(s.inputs[key] == run.inputs[key] for key in same)), None)


def _is(inputs: Mapping[str, Any], dataset: str, method: str, ipc: int) -> bool:
    return (inputs["dataset"], inputs["method"], inputs["ipc"]) == (dataset, method, ipc)


def _classes_of(dataset: str) -> int:
    from fyi_bench.data.entry import DATASETS

    entry = DATASETS.get(dataset) if dataset in DATASETS else None
    return (entry.num_classes if entry else None) or 0


def _rank(flips: Mapping[str, SetRun]) -> tuple[int, int, int]:
    one = next(iter(flips.values()))
    return -len(flips), -one.iterations, one.inputs["seed"]

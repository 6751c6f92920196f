"""Finding, in a store, the sets a figure is drawn from: arms that differ in the flip only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.image_set import ImageSet
from fyi_bench.data.entry import DATASETS
from fyi_bench.files import digest_of
from fyi_bench.run.run_type import SET_FILE
from fyi_bench.store.run_dir import absent_names

if TYPE_CHECKING:
    from fyi_bench.store.store import Store


@dataclass(frozen=True)
class SetRun:
    """A finished set in a store: digest and inputs of its run, its file."""

    digest: str
    inputs: Mapping[str, Any]
    path: Path

    @property
    def iterations(self) -> int:
        """Iterations it was distilled for."""
        return self.inputs["config"]["iterations"]

    def load(self) -> ImageSet:
        """The set, its checksum verified."""
        return ImageSet.load(self.path)


def set_runs(store: Store, dataset: str, method: str, ipc: int) -> list[SetRun]:
    """Finished sets of all classes of a data set, every flip and setting, in a fixed order, whose files are there."""
    wanted = {"dataset": dataset, "method": method, "ipc": ipc}
    found = [
        SetRun(run.digest, run.inputs, run.folder / SET_FILE)
        for run in store.ls()
        if run.kind == "distill"
        and run.state == "done"
        and SET_FILE not in absent_names(run.folder)
        and wanted.items() <= {k: run.inputs[k] for k in wanted}.items()
    ]
    stated = DATASETS.get(dataset).num_classes if dataset in DATASETS else None
    whole = max([stated or 0, *(len(run.inputs["classes"]) for run in found)])
    return [run for run in found if len(run.inputs["classes"]) == whole]


def paired_sets(store: Store, dataset: str, method: str, ipc: int) -> dict[str, SetRun]:
    """flip -> set, all of one setting and seed; empty where there is none.

    Of several settings the one that has more flips is taken, then the one with more iterations, then the lowest seed.
    """
    settings: dict[str, dict[str, SetRun]] = defaultdict(dict)
    for run in set_runs(store, dataset, method, ipc):
        settings[_setting(run)][run.inputs["flip"]] = run

    def rank(setting: str) -> tuple[int, int, int, str]:
        one = next(iter(settings[setting].values()))
        return -len(settings[setting]), -one.iterations, one.inputs["seed"], setting

    return settings[min(settings, key=rank)] if settings else {}


def by_iterations(store: Store, dataset: str, method: str, ipc: int) -> dict[str, dict[int, SetRun]]:
    """flip -> {iterations: set} of runs that differ in flip and iterations only: one run looked at on the way.

    Every draw is keyed by its iteration, so a short run is the beginning of a long one. The real images that both
    start from are at 0 where the store has them (the coreset 'random' of the same seed). Empty where there is none.
    """
    settings: dict[str, list[SetRun]] = defaultdict(list)
    for run in set_runs(store, dataset, method, ipc):
        settings[_setting(run, "iterations")].append(run)
    if not settings:
        return {}
    runs = settings[min(settings, key=lambda setting: (-len(settings[setting]), setting))]
    start = _start_of(store, runs[0])
    found: dict[str, dict[int, SetRun]] = {}
    for run in sorted(runs, key=lambda run: (run.inputs["flip"], run.iterations)):
        found.setdefault(run.inputs["flip"], {0: start} if start else {})[run.iterations] = run
    return found


def _setting(run: SetRun, *but: str) -> str:
    """Digest of everything that was asked for except the flip and these keys of the recipe."""
    config = {key: value for key, value in run.inputs["config"].items() if key not in but}
    return digest_of({**{k: v for k, v in run.inputs.items() if k != "flip"}, "config": config})


def _start_of(store: Store, run: SetRun) -> SetRun | None:
    if run.inputs["config"].get("init") != "real":
        return None
    same = ("dataset", "data", "classes", "ipc", "seed")
    starts = set_runs(store, run.inputs["dataset"], "random", run.inputs["ipc"])
    return next((s for s in starts if all(s.inputs[key] == run.inputs[key] for key in same)), None)

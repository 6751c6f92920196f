"""Numbers at the paper's length, as far as the time goes: DSA and DM at one image a class, with and without FYI.

The runs are those that `fyi-bench distill` plans, with their digests, computed one after the other without its queue;
so the store can be merged into any other, and a later call goes on where this one stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fyi_bench.config import Settings
from fyi_bench.data import RealDataset
from fyi_bench.errors import BudgetExhausted
from fyi_bench.run.deadline import Deadline
from fyi_bench.run.run_type import Worker, alike, ensure, run_type, together
from fyi_bench.session import Session
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store
from fyi_bench.tasks.distill import Distill, DistillOptions

METHODS, FLIPS, SEEDS, IPC = ("dsa", "dm"), ("none", "fyi"), 3, 1


@dataclass
class DataWorker(Worker):
    """A worker with the real data in its hands."""

    real_data: RealDataset | None = field(default=None, kw_only=True)

    def data(self, name: str, test: bool = True) -> RealDataset:
        """The data set; that of another name is looked for as everywhere."""
        return (
            self.real_data if self.real_data is not None and self.real_data.name == name else super().data(name, test)
        )


@dataclass(frozen=True)
class Wanted:
    """What is to be computed: on which device, changes of recipe and protocol, and how many seeds."""

    device: str
    overrides: Mapping[str, str] = field(default_factory=dict)
    seeds: int = SEEDS
    methods: Sequence[str] = METHODS

    def plans(self, data: RealDataset, store: Path) -> Iterator[tuple[str, Sequence[RunSpec]]]:
        """(title, runs in their order) of each set with its networks: method by method, seed by seed."""
        for method in self.methods:
            for seed in range(self.seeds):
                for flip in FLIPS:
                    settings = Settings(
                        dataset=data.name, protocol="paper", seed=seed, seeds=1, store=store, device=self.device,
                        workers=1, overrides=self.overrides,
                    )  # fmt: skip
                    session = Session(settings, known={data.name: data})
                    options = DistillOptions(method=method, flip=flip, ipc=IPC, only=True)
                    yield f"{method} {flip} seed {seed}", list(Distill().plan(session, options, {}).runs)


def compute(
    wanted: Wanted, data: RealDataset, store: Store, stop: Deadline, say: Callable[[str], None]
) -> dict[str, Any]:
    """Work until all is done or the time is up; what was reached, and what each set and its networks took."""
    worker = DataWorker(store, device=wanted.device, stop=stop, say=say, real_data=data)
    rows: list[dict[str, Any]] = []
    stopped = ""
    for title, runs in wanted.plans(data, store.root):
        began = time.monotonic()
        row: dict[str, Any] = {"title": title, "runs": len(runs)}
        try:
            if not stopped:
                for group in _groups(runs, worker):
                    stop.check()
                    if len(group) > 1:
                        together(group, worker)
                    for run in group:
                        ensure(run, worker)
        except BudgetExhausted as error:
            stopped = str(error).splitlines()[0]
        except Exception as error:  # told in the row; the other sets may work
            row["error"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        values = [record["value"] for run in runs if run.kind == "accuracy" and (record := store.record(run))]
        row |= {"done": sum(map(store.has, runs)), "seconds": round(time.monotonic() - began, 2), "values": values}
        rows.append(row)
        mean = f", {100 * sum(values) / len(values):.1f} % over {len(values)} networks" if values else ""
        reached = row.get("error", f"{row['done']} of {len(runs)} runs")
        say(f"{title}: {reached}{mean}, {row['seconds']} s")
    facts = {"data": data.note or "complete", "train_digest": data.train_digest, "stopped": stopped}
    return {"device": wanted.device, **facts, "rows": rows}


def _groups(runs: Sequence[RunSpec], worker: Worker) -> Iterator[list[RunSpec]]:
    """Runs that lack, in their order, alike ones together as far as the device gains by it."""
    group: list[RunSpec] = []
    for run in (one for one in runs if not worker.store.has(one)):
        fits = bool(group) and run_type(run).together and alike(run, worker)[0] == alike(group[0], worker)[0]
        if group and (not fits or len(group) >= alike(group[0], worker)[1]):
            yield group
            group = []
        group.append(run)
    if group:
        yield group

"""One command at work: settings, data, store, display, and the computing of its cells."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fyi_bench.config import Settings
from fyi_bench.duration import format_duration
from fyi_bench.errors import Declined, PlanShown, UsageError, unknown_name_message
from fyi_bench.run.deadline import Budget, Deadline, Interruption
from fyi_bench.run.processes import Place, Rows, compute_cells, share_cells, work_together
from fyi_bench.run.progress import Progress, progress
from fyi_bench.run.runtime import prepare, release_memory
from fyi_bench.run.worker import Worker
from fyi_bench.store.store import RunSpec, Store

if TYPE_CHECKING:
    from distill.recipes import Recipe
    from downstream.protocol import Protocol
    from fyi_bench.data import RealDataset

ASK_ABOVE_SECONDS = 30 * 60


@dataclass
class Session:
    """What a job needs. `settings` are resolved here; say(line) prints for people; confirm(question) asks them.

    dry_run: show plan and estimate, then stop by raising PlanShown. display: mode of the progress display.
    """

    settings: Settings
    say: Callable[[str], None] = lambda line: None
    confirm: Callable[[str], bool] = lambda question: True
    dry_run: bool = False
    display: str = "silent"
    stop: Deadline | None = None
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.settings = self.settings.resolved()
        self._check_protocol()
        self.stop = self.stop or Deadline(Budget(self.settings.budget))
        self.store = Store(self.settings.store, say=lambda line: print(line, file=sys.stderr))

    @cached_property
    def data(self) -> RealDataset:
        """The real data set of the settings."""
        from fyi_bench.data import load_dataset

        return load_dataset(self.settings.dataset, self.settings.data_root)

    def _check_protocol(self) -> None:
        """Raise UnknownNameError here, before any data is read; recipes alone would take any name of theirs."""
        from downstream.protocol import protocol_data

        protocol_data(self.settings.protocol)

    def protocol(self, task: str, method: str | None = None) -> Protocol:
        """The protocol of the settings for a task, with those overrides that are its keys."""
        from downstream.protocol import protocol, protocol_keys

        mine = {k: v for k, v in self.settings.overrides.items() if k in protocol_keys()}
        return protocol(self.settings.protocol, task, method).with_overrides(mine)

    def recipe(self, method: str, ipc: int, overridden: bool = True) -> Recipe:
        """The method's recipe, where `overridden` with those of the user's values that are its keys."""
        from distill.recipes import recipe

        found = recipe(method, self.settings.dataset, ipc, self.settings.protocol)
        if not overridden:
            return found
        return found.with_overrides({k: v for k, v in self.settings.overrides.items() if k in found.values})

    def check_overrides(self, recipes: Sequence[Recipe]) -> None:
        """Raise UsageError for a --set key that no recipe of the command and no protocol has."""
        from downstream.protocol import protocol_keys

        known = set().union(protocol_keys(), *(r.values for r in recipes))
        for key in self.settings.overrides:
            if key not in known:
                raise UsageError(unknown_name_message("key", key, known))

    def announce(self, title: str, cells: Sequence[RunSpec], protocol_name: str) -> None:
        """Print the plan: protocol first, what is to compute, how long it takes. Stops here on a dry run."""
        from fyi_bench.run.estimate import estimate_seconds

        s, threads = self.settings, self.settings.threads_for(len(cells))
        missing = [cell for cell in cells if not self.store.has(cell)]
        self.say(f"protocol {protocol_name} · {s.device} · {s.workers} worker(s) x {threads} thread(s) · {s.precision}")
        self.say(title + (f" · {self.data.note}" if self.data.note else ""))
        seconds = estimate_seconds(missing, self.data, s.device, threads, s.workers)
        release_memory()
        done = f" ({len(cells) - len(missing)} done already)" if len(missing) < len(cells) else ""
        self.say(f"{len(cells)} cells{done}, about {format_duration(seconds)} to go · store {s.store}")
        if self.dry_run:
            raise PlanShown
        if seconds > ASK_ABOVE_SECONDS and s.budget is None and not self.confirm("Go on?"):
            raise Declined("Not started.\nUse --budget to work in pieces, or --yes to agree beforehand.")

    def announce_and_compute(
        self, title: str, protocol_name: str, stages: Sequence[tuple[str, Sequence[RunSpec]]]
    ) -> dict[str, dict[str, Any]]:
        """`announce` all cells of the stages, then `compute` them."""
        self.announce(title, [cell for _, cells in stages for cell in cells], protocol_name)
        return self.compute(stages)

    def compute(self, stages: Sequence[tuple[str, Sequence[RunSpec]]]) -> dict[str, dict[str, Any]]:
        """Compute what is missing, stage after stage, and return every cell's record by digest."""
        records: dict[str, dict[str, Any]] = {}
        with Interruption(self.stop), progress(self.display) as shown:
            for title, cells in stages:
                unique = list({cell.digest: cell for cell in cells}.values())
                self._compute_stage(shown, title, unique)
                records |= {cell.digest: self._record(cell) for cell in unique}
        return records

    def wall_s(self) -> float:
        """Seconds since the command began."""
        return time.monotonic() - self.began

    def facts(self, protocol: Any) -> dict[str, Any]:
        """What the record of a finished command says of data, protocol, device and time: keywords of `build_record`."""
        return {
            "dataset": self.data.name,
            "protocol": {"name": protocol.name, "version": protocol.version},
            "device": self.settings.device,
            "precision": self.settings.precision,
            "wall_s": self.wall_s(),
        }

    def _record(self, cell: RunSpec) -> dict[str, Any]:
        with self.store.run(cell) as run:
            return run.record

    def _compute_stage(self, shown: Progress, title: str, cells: Sequence[RunSpec]) -> None:
        missing = [cell for cell in cells if not self.store.has(cell)]
        if not missing:
            return
        threads = self.settings.threads_for(len(cells))
        s, rows = self.settings, Rows(shown, title, len(missing), "cell", {c.digest: name_of(c) for c in missing})
        try:
            if min(s.workers, len(missing)) > 1:
                place = Place(self.store.root, s.data_root, s.device, threads)
                work = functools.partial(share_cells, missing, place)
                work_together(work, min(s.workers, len(missing)), rows.events, self.stop)
            left = [cell for cell in missing if not self.store.has(cell)]  # with workers: what another command is at
            if left:
                prepare(threads)
                self._worker.progress, self._worker.say = rows.events.progress, rows.events.say
                compute_cells(left, self._worker, rows.events)
        finally:
            rows.end()

    @cached_property
    def _worker(self) -> Worker:
        """Kept between stages, with the data it has read."""
        return Worker(self.store, self.settings.data_root, self.settings.device, self.stop)


def name_of(cell: RunSpec) -> str:
    """Short name of a cell for people."""
    i: Mapping[str, Any] = cell.inputs
    words = [cell.kind, i.get("method"), i.get("flip") if i.get("flip") not in (None, "none") else None]
    if "step" in i:
        words.append(f"step {i['step'] + 1}/{i['steps']}")
    words.append(f"seed {i['seed']}" if "seed" in i else None)
    return " ".join(str(w) for w in words if w)

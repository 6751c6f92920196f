"""One command at work: settings, data, store, display, and the computing of its cells."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fyi_bench.config import Settings
from fyi_bench.errors import UsageError, unknown_name_message
from fyi_bench.run.deadline import Budget, Deadline
from fyi_bench.run.executor import announce, compute
from fyi_bench.run.plan import Plan
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store

if TYPE_CHECKING:
    from distill.recipes import Recipe
    from downstream.protocol import Protocol
    from fyi_bench.data import RealDataset


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
        """Print the plan; stops here on a dry run."""
        announce(self, Plan(title, protocol_name, tuple(cells)))

    def announce_and_compute(
        self, title: str, protocol_name: str, stages: Sequence[tuple[str, Sequence[RunSpec]]]
    ) -> dict[str, dict[str, Any]]:
        """`announce` all cells of the stages, then `compute` them."""
        self.announce(title, [cell for _, cells in stages for cell in cells], protocol_name)
        return self.compute(stages)

    def compute(self, stages: Sequence[tuple[str, Sequence[RunSpec]]]) -> dict[str, dict[str, Any]]:
        """Compute what is missing and return every run's record by digest."""
        runs = tuple(cell for _, cells in stages for cell in cells)
        return compute(self, "runs", Plan("", "", runs)) if runs else {}

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

"""One question at work: settings, data, store, display, deadline."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fyi_bench.config import Settings
from fyi_bench.errors import DataError, UsageError, printable, unknown_name_message
from fyi_bench.run.deadline import Deadline
from fyi_bench.store.store import Store

if TYPE_CHECKING:
    from distill.recipes import Recipe
    from downstream.protocol import Protocol
    from fyi_bench.data import RealDataset


@dataclass
class Session:
    """What a task is planned and answered with. `settings` are resolved here.

    say(line) prints for people; confirm(question) asks them. dry_run: show plan and estimate, then stop by raising
    PlanShown. display: mode of the progress display. yes: go on where an input is doubtful. given: sets that were read.
    """

    settings: Settings
    say: Callable[[str], None] = lambda line: None
    confirm: Callable[[str], bool] = lambda question: True
    dry_run: bool = False
    display: str = "silent"
    yes: bool = False
    stop: Deadline = field(init=False)
    began: float = field(default_factory=time.monotonic)
    known: dict[str, RealDataset] = field(default_factory=dict, repr=False)  # real data by name
    given: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.settings = self.settings.resolved()
        self._check_protocol()
        if self.settings.log is not None:
            from fyi_bench.run.logs import check_log

            check_log(self.settings.log)
        self.stop = Deadline(self.settings.budget)
        self.store = Store(self.settings.store, say=lambda line: print(printable(line), file=sys.stderr))

    @cached_property
    def data(self) -> RealDataset:
        """The real data set of the settings."""
        return self.read(self.settings.dataset)

    def read(self, name: str, download: bool = True) -> RealDataset:
        """A real data set, read once for this session and those made of it by `about`; a dry run downloads none."""
        from fyi_bench.data import load_dataset

        download = download and not self.dry_run
        if name not in self.known:
            self.known[name] = load_dataset(name, self.settings.data_root, **({} if download else {"download": False}))
        return self.known[name]

    @contextlib.contextmanager
    def planning(self) -> Iterator[None]:
        """While a dry run is planned, nothing is fetched and nothing is compiled."""
        from fyi_bench.data.hub import cache_only
        from search_space.native import uncompiled

        with contextlib.ExitStack() as within:
            for limit in (cache_only, uncompiled) if self.dry_run else ():
                within.enter_context(limit())
            yield

    def about(self, **changes: Any) -> Session:
        """The session of another question: other settings, the same data, display, deadline and beginning."""
        other = replace(self, settings=replace(self.settings, **changes))
        other.stop = self.stop
        return other

    @property
    def states_data(self) -> bool:
        """Whether the user named the data set, or it is only the default."""
        s = self.settings
        return "dataset" in s.given or s.dataset != Settings.dataset

    def doubt(self, what: str, hint: str) -> None:
        """DataError about an input that contradicts itself; where the user goes on all the same, a line."""
        if not self.yes:
            raise DataError(f"{what}\n{hint}; or go on all the same with --yes (yes=True).")
        self.say(f"warning  {what}")

    def _check_protocol(self) -> None:
        """Raise UnknownNameError here, before any data is read; recipes alone would take any name of theirs."""
        from downstream.protocol import protocol_data

        protocol_data(self.settings.protocol)

    def protocol(self, task: str, method: str | None = None, **facts: Any) -> Protocol:
        """The protocol of the settings for a task on their data set, with those overrides that are its keys.

        facts: `size`, `classes` and `ipc` of a set, where they are known.
        """
        from downstream.protocol import protocol, protocol_keys

        mine = {k: v for k, v in self.settings.overrides.items() if k in protocol_keys()}
        return protocol(self.settings.protocol, task, method, self.settings.dataset, facts).with_overrides(mine)

    def recipe(self, method: str, ipc: int, overridden: bool = True) -> Recipe:
        """The method's recipe, where `overridden` with those of the user's values that it uses."""
        from distill.recipes import recipe

        found = recipe(method, self.settings.dataset, ipc, self.settings.protocol)
        if not overridden:
            return found
        return found.with_overrides({k: v for k, v in self.settings.overrides.items() if k in found.used})

    def check_overrides(self, recipes: Sequence[Recipe]) -> None:
        """Raise UsageError for a --set key that no method of the command uses and no protocol has."""
        from downstream.protocol import protocol_keys

        known = set().union(protocol_keys(), *(r.used for r in recipes))
        for key in self.settings.overrides:
            if key not in known:
                raise UsageError(unknown_name_message("key", key, known))

    def facts(self, protocol: Any) -> dict[str, Any]:
        """What a record says of data, protocol (its name where that is all), device and time, for `build_record`."""
        return {
            "dataset": self.data.name,
            "protocol": protocol if isinstance(protocol, str) else {"name": protocol.name, "version": protocol.version},
            "device": self.settings.device,
            "precision": self.settings.precision,
            "wall_s": time.monotonic() - self.began,
            "data": {"note": self.data.note, "train": self.data.train_digest},
            "store": str(self.store.root),
        }

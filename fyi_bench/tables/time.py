"""How long the command of a hole would take on this machine: the command's own plan, stopped before the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fyi_bench.errors import FyiBenchError

if TYPE_CHECKING:
    from fyi_bench.config import Settings
    from fyi_bench.missing import Missing
    from fyi_bench.store import Cell


def estimate_with(settings: Settings) -> Callable[[Missing], float | None]:
    """estimate(missing) -> seconds with these settings (device, workers, store, data); None where it cannot be told.

    It cannot where the data is not there or the method is not built in. Speeds are measured once a network.
    """

    def estimate(missing: Missing) -> float | None:
        from fyi_bench.estimate import estimate_seconds
        from fyi_bench.jobs.distill import distill_job
        from fyi_bench.session import Session

        class Planning(Session):
            """A session that gives its plan away instead of carrying it out."""

            def announce(self, title: str, cells: Sequence[Cell], protocol_name: str) -> None:
                raise _Planned([cell for cell in cells if not (self.store.folder(cell) / "done").exists()])

        if missing.task != "distill":
            return None
        planning = Planning(replace(settings, dataset=missing.dataset, protocol=missing.protocol, overrides={}))
        try:
            distill_job(planning, missing.method, missing.flip, missing.ipc, architectures=missing.architectures)
        except _Planned as plan:
            s = planning.settings
            return estimate_seconds(plan.cells, planning.data, s.device, s.threads, s.workers)
        except FyiBenchError:
            return None
        return None

    return estimate


class _Planned(Exception):
    """No error: the plan, on its way out of the command."""

    def __init__(self, cells: Sequence[Cell]):
        self.cells = cells

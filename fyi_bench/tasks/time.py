"""How long the command of a hole would take on this machine: the command's own plan, stopped before the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import FyiBenchError

if TYPE_CHECKING:
    from fyi_bench.config import Settings
    from fyi_bench.data import RealDataset
    from fyi_bench.present.missing import Missing
    from fyi_bench.session import Session
    from fyi_bench.store.spec import RunSpec


def estimate_with(settings: Settings) -> Callable[[Missing], float | None]:
    """estimate(missing) -> seconds with these settings (device, workers, store, data); None where it cannot be told.

    It cannot where the data is not there or the method is not built in. The speed of one small network stands for all
    (the command itself measures each, also on --dry-run); data is read once, and never downloaded.
    """
    data = _Data(settings)

    def estimate(missing: Missing) -> float | None:
        from fyi_bench.run.estimate import estimate_seconds

        plan = _PLANS.get(missing.task)
        if plan is None:
            return None
        try:
            planning = _planning(settings, missing, data.of(missing.dataset))
            plan(planning, missing)
        except _Planned as planned:
            s = planning.settings
            threads = s.threads_for(len(planned.cells))
            return estimate_seconds(planned.cells, planning.data, s.device, threads, s.workers, rough=True)
        except FyiBenchError:
            return None
        return None

    return estimate


class _Planned(Exception):
    """No error: the plan, on its way out of the command."""

    def __init__(self, cells: Sequence[RunSpec]):
        self.cells = cells


class _Data:
    """Real data by name, read once; what could not be read is not tried again."""

    def __init__(self, settings: Settings):
        self.root = settings.data_root
        self.found: dict[str, RealDataset | FyiBenchError] = {}

    def of(self, name: str) -> RealDataset:
        """The data set; raises the error of the first try where it is not there."""
        from fyi_bench.data import load_dataset

        if name not in self.found:
            try:
                self.found[name] = load_dataset(name, self.root, download=False)
            except FyiBenchError as error:
                self.found[name] = error
        found = self.found[name]
        if isinstance(found, FyiBenchError):
            raise found
        return found


def _planning(settings: Settings, missing: Missing, real: RealDataset) -> Session:
    from fyi_bench.config import parse_overrides
    from fyi_bench.session import Session

    class Planning(Session):
        """A session that gives its plan away instead of carrying it out."""

        data = real

        def announce(self, title: str, cells: Sequence[RunSpec], protocol_name: str) -> None:
            raise _Planned([cell for cell in cells if not (self.store.folder(cell) / "done").exists()])

    base, *changes = missing.protocol.split("+")
    overrides = parse_overrides([*changes, *missing.values_of("--set")])
    return Planning(replace(settings, dataset=missing.dataset, protocol=base, overrides=overrides))


def _sets(session: Session, missing: Missing) -> Any:
    from fyi_bench.tasks.distill import distill_job

    names = [*missing.architectures, *missing.values_of("--arch")]
    return distill_job(session, missing.method, missing.flip, missing.ipc, architectures=names)


def _rehearsal(session: Session, missing: Missing) -> Any:
    from fyi_bench.tasks.continual import continual_job

    return continual_job(session, missing.method, missing.flip, missing.ipc, int(missing.values_of("--steps")[0]))


def _search(session: Session, missing: Missing) -> Any:
    from fyi_bench.tasks.nas import Question, nas_job

    return nas_job(session, Question(missing.method, missing.flip, missing.ipc))


_PLANS: dict[str, Callable[[Session, Missing], Any]] = {
    "distill": _sets,
    "cross-arch": _sets,
    "continual": _rehearsal,
    "nas": _search,
}

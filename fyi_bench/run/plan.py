"""A plan: the runs that answer a question, before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fyi_bench.files import digest_of
from fyi_bench.store.spec import RunSpec

if TYPE_CHECKING:
    from fyi_bench.data import RealDataset
    from fyi_bench.session import Session

Records = Mapping[str, Mapping[str, Any]]  # digest of a finished run -> its record


@dataclass(frozen=True)
class Plan:
    """What a task wants computed. title: one line (or more) for people. protocol: its name, shown first.

    runs: in the order of their importance; which of them must be finished before another is what its run type says
    (`needs`), so they form a graph. tolerant: run types of which one that fails ends itself alone, not the command.
    open: more runs follow from the results of these; later: stand-ins for them, for the estimate of time alone.
    details: whatever the task wants to find again when it answers.
    """

    title: str
    protocol: str
    runs: tuple[RunSpec, ...] = ()
    tolerant: tuple[str, ...] = ()
    open: bool = False
    later: tuple[RunSpec, ...] = ()
    details: Any = None

    def by_data(self, session: Session) -> list[tuple[RealDataset, tuple[RunSpec, ...]]]:
        """Runs, and stand-ins for later ones, with the real data they are about, for the estimate of time."""
        return [(session.data, (*self.runs, *self.later))]

    @property
    def digest(self) -> str:
        """16 hex digits over the runs, whatever their order."""
        return digest_of(sorted({run.digest for run in self.runs}))

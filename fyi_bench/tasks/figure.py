"""`fyi-bench figure`: a figure of the paper from our data and results, what it needs computed first where asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, ClassVar

from fyi_bench.config import option
from fyi_bench.errors import UnknownNameError, UsageError
from fyi_bench.run.plan import Plan, Records
from fyi_bench.session import Session
from fyi_bench.tasks.base import TASKS, Record, Task
from fyi_bench.tasks.holes import plan_of_holes

_DISTANCES, _SCORES = ("dm", "own"), ("5", "A")


@dataclass(frozen=True)
class FigureOptions:
    """Which figure, by which distance, and where to."""

    name: str = option(MISSING, "Which figure of the paper.", argument="2…12|A…E")
    out: Path | None = option(None, "Folder of the pictures; default: in the store.")
    distance: str = option("dm", "Of figures 5 and A: dm, or own, the method's.")
    run: bool = option(False, "Compute what it needs first, within --budget.")


@TASKS.register("figure")
class FigureTask(Task[FigureOptions]):
    """Draw the figure as PNG and SVG."""

    summary = "A figure of the paper, from our data and results."
    Options = FigureOptions
    examples: ClassVar[Sequence[str]] = (
        "fyi-bench figure 3",
        "fyi-bench figure E --run --protocol quick --budget 4h",
        "fyi-bench figure E --dry-run",
        "fyi-bench figure 5 --distance own",
    )
    keeps = False
    returns = "paths"

    def plan(self, session: Session, options: FigureOptions, found: Records) -> Plan:
        from fyi_bench.present.figures import figure_needs

        if options.distance not in _DISTANCES:
            raise UnknownNameError("distance", options.distance, _DISTANCES)
        if options.distance != _DISTANCES[0] and options.name.upper() not in _SCORES:
            raise UsageError(f"Figure {options.name} has no --distance of a method.\nFigures 5 and A have.")
        needs = figure_needs(options.name, session.settings.protocol)
        if not (options.run or session.dry_run):
            return Plan("", "")
        if not needs:
            title = f"figure {options.name.upper()} measures real images itself; nothing has to be run before"
            return Plan(title, session.settings.protocol)
        return plan_of_holes(session, f"figure {options.name.upper()} · {len(needs)} command(s)", needs, found)

    def answer(self, session: Session, options: FigureOptions, plan: Plan, found: Records) -> Record:
        from fyi_bench.present.figures import Request, figure

        s = session.settings
        request = Request(
            session.store,
            session.read,
            protocol=s.protocol,
            seed=s.seed,
            device=s.device,
            folder=options.out,
            distance=options.distance,
            stop=session.stop,
            say=session.say,
        )
        return {"task": self.name, "paths": figure(options.name, request)}

    def words(self, record: Mapping[str, Any]) -> str:
        return "\n".join(f"plot     {path}" for path in record["paths"])

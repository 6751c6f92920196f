"""`fyi-bench figure`: a figure of the paper from our data and results, what it needs computed first where asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fyi_bench.config import option, options_of
from fyi_bench.errors import UnknownNameError, UsageError
from fyi_bench.run.plan import Plan, Records
from fyi_bench.session import Session
from fyi_bench.store.spec import RunSpec
from fyi_bench.tasks.base import TASKS, Record, Task
from fyi_bench.tasks.holes import plan_of_holes

if TYPE_CHECKING:
    from fyi_bench.data import RealDataset
    from fyi_bench.present.figures import PaperFigure, Request

_DISTANCES, _SCORES = ("dm", "own"), ("5", "A")
# options that say what is drawn or measured, not how or where: a figure that does not heed one refuses it
_WHAT = ("dataset", "overrides", "seed", "seeds", "precision", "weights", "annotations")
# of figures that runs are computed for
_HOW = ("workers", "threads", "devices", "storage", "artefacts", "enqueue", "log")


@dataclass(frozen=True)
class FigureOptions:
    """Which figure, from which files, by which distance, and where to."""

    name: str = option(
        MISSING, "Which figure of the paper, or growth.", argument="1…12|A…E|growth",
        names="fyi_bench.present.figures:FIGURES.spelled",
    )  # fmt: skip
    out: Path | None = option(None, "Folder of the pictures; default: in the store.")
    distance: str = option("dm", "For figures 5 and A: dm, or own (each method's).")
    run: bool = option(False, "Compute what it needs first, within --budget.")
    weights: Path | None = option(None, "Figure 2: torchvision's file of ResNet-18 for ImageNet.")
    annotations: Path | None = option(None, "Figure C: COCO's file of object masks.")


class _FigurePlan(Plan):
    """Runs about whatever data the figure shows."""

    def by_data(self, session: Session) -> list[tuple[RealDataset, tuple[RunSpec, ...]]]:
        """All runs, with the one data set they were planned with."""
        return [(data, self.runs) for data in session.known.values() if data.name == self.runs[0].inputs["dataset"]]


@TASKS.register("figure")
class FigureTask(Task[FigureOptions]):
    """Draw the figure as PNG and SVG."""

    summary = "A figure of the paper, from our data and results."
    Options = FigureOptions
    examples: ClassVar[Sequence[str]] = (
        "fyi-bench figure 2 --dataset cifar10  # 2 min",
        "fyi-bench figure E --run --protocol quick --budget 4h",
        "fyi-bench figure 5 --distance own",
    )
    keeps = False
    returns = "paths"

    def plan(self, session: Session, options: FigureOptions, found: Records) -> Plan:
        from fyi_bench.present.figures import paper_figure

        if options.distance not in _DISTANCES:
            raise UnknownNameError("distance", options.distance, _DISTANCES)
        if options.distance != _DISTANCES[0] and options.name not in _SCORES:
            raise UsageError(f"Figure {options.name} has no --distance of a method.\nFigures 5 and A have.")
        shown, request = paper_figure(options.name), _request(session, options)
        title, needs = f"figure {options.name}", shown.needs(request.protocol)
        _refuse_ignored(session, options, shown, request)
        runs = tuple(shown.runs(request))
        if runs:
            return _FigurePlan(f"{title} · {shown.title.lower()}", request.protocol, runs)
        if not (options.run or session.dry_run):
            return Plan("", "")
        if not needs:
            return Plan(f"{title} measures real data itself; nothing has to be run before", request.protocol)
        return plan_of_holes(session, f"{title} · {len(needs)} command(s)", needs, found)

    def answer(self, session: Session, options: FigureOptions, plan: Plan, found: Records) -> Record:
        from fyi_bench.present.figures import figure

        return {"task": self.name, "paths": figure(options.name, _request(session, options))}

    def words(self, record: Mapping[str, Any]) -> str:
        return "\n".join(f"plot     {path}" for path in record["paths"])


def _request(session: Session, options: FigureOptions) -> Request:
    from fyi_bench.present.figures import Request

    s = session.settings
    return Request(
        session.store,
        session.read,
        protocol=s.protocol,
        seed=s.seed,
        device=s.device,
        folder=options.out,
        distance=options.distance,
        stop=session.stop,
        say=session.say,
        dataset=s.dataset if "dataset" in s.given else "",
        weights=options.weights,
        annotations=options.annotations,
        precision=s.precision,
        rules=session.protocol,
    )


def _refuse_ignored(session: Session, options: FigureOptions, shown: PaperFigure, request: Request) -> None:
    """Raise UsageError for an option that would change nothing."""
    given = session.settings.given | {name for name in ("weights", "annotations") if getattr(options, name)}
    heeded = {*shown.takes(request)}
    _refuse(options, given & {*_WHAT} - {"seed", "seeds", "precision"} - heeded, session)  # before its runs are planned
    computes = bool(shown.runs(request))
    if shown.needs(request.protocol) and (options.run or session.dry_run):
        heeded, computes = heeded | {"seed", "seeds", "precision"}, True
    if computes:
        heeded |= {*_HOW}
    _refuse(options, given & {*_WHAT, *_HOW} - heeded, session)
    if "overrides" in given:
        session.check_overrides([])


def _refuse(options: FigureOptions, names: Iterable[str], session: Session) -> None:
    known = options_of(type(session.settings)) | options_of(FigureOptions)
    for name in sorted(names):
        flag = known[name][1].flag or f"--{name}"
        raise UsageError(f"Figure {options.name} does not use {flag}.\nLeave it out.")

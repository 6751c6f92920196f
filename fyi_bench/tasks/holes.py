"""Results that a table or figure lacks, as parts: the tasks that compute them, and how long they would take here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fyi_bench.config import options_of, parse_overrides
from fyi_bench.duration import format_duration
from fyi_bench.errors import DataError, FyiBenchError
from fyi_bench.present.missing import Missing
from fyi_bench.run.estimate import estimate_seconds, usual_estimate
from fyi_bench.run.plan import Plan, Records
from fyi_bench.session import Session
from fyi_bench.tasks.base import TASKS, Part, plan_of_parts

# common options of those who compute: the others say what is shown, or how long computing would take
OF_RUNS = ("seed", "seeds", "budget", "devices", "storage", "artefacts", "enqueue", "log")


def plan_of_holes(session: Session, title: str, holes: Sequence[Missing], found: Records) -> Plan:
    """One plan of the commands that fill the holes, under a title that names them, and says which are left out.

    Raises DataError where none is left for want of data.
    """
    lines, parts, estimate = [title], [], estimator(session)
    absent: dict[str, DataError | None] = {}
    for hole in holes:
        left_out = hole.reason or ("" if hole.task in TASKS else "run it by itself")
        if not left_out and (lack := _lack(session, hole.dataset, absent)):
            left_out = str(lack).splitlines()[0]
        lines.append(f"  {hole.command}")
        if left_out:
            lines.append(f"    left out: {left_out}")
            continue
        parts.append(part_of(session, hole))
        seconds = estimate(hole) if session.dry_run else None
        lines[-1] += "" if seconds is None else f"   (about {format_duration(seconds)})"
    if not parts and (lacks := [lack for lack in absent.values() if lack]):
        raise lacks[0]
    return plan_of_parts("\n".join(lines), parts, found)


def _lack(session: Session, name: str, known: dict[str, DataError | None]) -> DataError | None:
    """Why this data set cannot be read, or None; asked once each."""
    if name not in known:
        try:
            session.read(name)
            known[name] = None
        except DataError as error:
            known[name] = error
    return known[name]


def part_of(session: Session, hole: Missing) -> Part:
    """The task that fills a hole, with the data set, the protocol and the changed values that the hole names."""
    task = TASKS.get(hole.task)()
    base, *changes = hole.protocol.split("+")
    part = session.about(
        dataset=hole.dataset, protocol=base, overrides=parse_overrides([*changes, *hole.values_of("--set")])
    )
    return Part(task, part, task.Options(**_options(task.Options, hole)), hole.command)


def _options(options: type, hole: Missing) -> dict[str, Any]:
    """What the hole asks for, by the names of the task's options."""
    known = options_of(options)
    given: dict[str, Any] = {"method": hole.method, "flip": hole.flip, "ipc": hole.ipc}
    for name, (field, option) in known.items():
        texts = hole.values_of(option.flag or "--" + name.replace("_", "-"))
        if name == "architectures":
            texts = [*hole.architectures, *texts]
        if texts:
            kind: Any = type(field.default)
            given[name] = tuple(texts) if kind is tuple else kind(texts[-1])
    return {name: value for name, value in given.items() if name in known}


def estimator(session: Session) -> Callable[[Missing], float | None]:
    """estimate(hole) -> seconds with the session's settings (device, workers, store); None where it cannot be told.

    It cannot where the data is not there or the method is not built in. The speed of one small network stands for all
    (the command itself measures each), on a dry run a usual machine; data is read once, and never downloaded.
    """
    unreadable: dict[str, FyiBenchError] = {}

    def estimate(hole: Missing) -> float | None:
        if hole.task not in TASKS or hole.dataset in unreadable:
            return None
        try:
            session.read(hole.dataset, download=False)
        except FyiBenchError as error:
            unreadable[hole.dataset] = error
            return None
        try:
            part = part_of(session, hole)
            plan = part.plan({})
        except FyiBenchError:  # of an unknown method, say: the command itself tells
            return None
        runs = [run for run in (*plan.runs, *plan.later) if not session.store.has(run)]
        s = part.session.settings
        if session.dry_run:
            return usual_estimate(runs, part.session.data, s.device, s.processes)
        return estimate_seconds(runs, part.session.data, s.device, s.threads_for(len(runs)), s.processes, rough=True)

    return estimate

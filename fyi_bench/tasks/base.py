"""What a task is: what a user asks, as options -> plan -> answer.

A task plans runs and makes an answer of their records; both are pure. Everything between (announcing, estimating, a dry
run, the deadline, workers, the queue, going on after a stop) is the executor's (fyi_bench.run.executor), the same for
every task. The command line and the Python API are generated from the task's `Options`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from fyi_bench.errors import BudgetExhausted, Interrupted
from fyi_bench.files import check_place, digest_of, write_json
from fyi_bench.reading import SetFacts
from fyi_bench.registry import Registry
from fyi_bench.run.executor import announce, compute, records_of
from fyi_bench.run.plan import Plan, Records
from fyi_bench.store.commands import save_record
from fyi_bench.store.record import plain, with_native

if TYPE_CHECKING:
    from fyi_bench.data import RealDataset
    from fyi_bench.session import Session
    from fyi_bench.store.spec import RunSpec

O = TypeVar("O")  # noqa: E741  the task's Options
Record = dict[str, Any]


class Task(Generic[O]):
    """One question of a user. A subclass in a file of `fyi_bench/tasks`, or of an entry point, is found by its name.

    name: under which it is registered, the `task` of its records. command: its word on the command line where that is
    another; empty for a task that only others ask. summary: one line of help. Options: a frozen dataclass whose fields
    are made by `fyi_bench.config.option`. settings: the common options it takes (fields of Settings), None for all.
    unused: those of them that would change nothing, with what to do instead. defaults: those that differ for this task
    ({"dataset": "cifar100"}). examples: command lines shown at the end of its help. heading: over its records on the
    report's page. keeps: whether its answer is a record for the store. returns: the entry of its answer that the Python
    word returns; the whole answer where empty.
    """

    name: ClassVar[str]
    command: ClassVar[str | None] = None
    summary: ClassVar[str]
    Options: ClassVar[type]
    settings: ClassVar[Sequence[str] | None] = None
    unused: ClassVar[Mapping[str, str]] = {}
    defaults: ClassVar[Mapping[str, Any]] = {}
    examples: ClassVar[Sequence[str]] = ()
    heading: ClassVar[str] = ""
    keeps: ClassVar[bool] = True
    returns: ClassVar[str] = ""

    def about(self, session: Session, options: O) -> Session:
        """The session the question is asked in: about another data set, where a set that is a file says which."""
        return session

    def ignored(self, options: O, given: Collection[str]) -> Mapping[str, str]:
        """Options that would change nothing, as the question is asked: name -> why. One that was given is refused.

        given: names of the options that were given.
        """
        return {}

    def plan(self, session: Session, options: O, found: Records) -> Plan:
        """The runs that answer the question, as far as they are known.

        found: records of finished runs by digest, empty at first. A plan that is `open` is asked for again when its
        runs are finished, and may then name more. Raises UsageError for impossible options before any data is read.
        A plan without runs and title, as this one, is not announced: `answer` does all there is to do.
        """
        return Plan("", "")

    def answer(self, session: Session, options: O, plan: Plan, found: Records) -> Record:
        """The record, of a plan whose runs are finished (or failed, where the plan is `tolerant`)."""
        raise NotImplementedError(self.name)

    def partial(self, session: Session, options: O, plan: Plan, found: Records) -> Record | None:
        """The answer so far when work is stopped in the middle, to be shown and not kept; None for none."""
        return None

    def files(self, session: Session, plan: Plan, found: Records, record: Record) -> Mapping[str, Path]:
        """Files that the options ask for beside the record, written once it is saved: word -> path.

        Also when work is stopped in the middle and there is an answer so far: then of the runs that are finished.
        """
        return {}

    def words(self, record: Mapping[str, Any]) -> str:
        """The answer for the terminal, 80 columns wide."""
        raise NotImplementedError(self.name)

    def numbers(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """The record with every number in its arms, as a table of them is made from."""
        return record

    def plots(self, record: Mapping[str, Any], folder: Path) -> list[Path]:
        """Pictures of the answer, written under `folder`; their paths."""
        return []

    def section(self, record: Mapping[str, Any], section: Any, store: Any) -> None:
        """Fill the record's section of the HTML report (fyi_bench.present.report.sections.Section)."""


# name -> task; a file in `fyi_bench/tasks` registers by being there
TASKS: Registry[type[Task]] = Registry("task", package="fyi_bench.tasks", group="fyi_bench.tasks", base=Task)


@dataclass(frozen=True)
class Part:
    """A task asked by another one (a hole of a table, say): its session, its options, the command a user would type."""

    task: Task
    session: Session
    options: Any
    command: str = ""

    def plan(self, found: Records) -> Plan:
        """The part's own plan."""
        return self.task.plan(self.session, self.options, found)

    def answer(self, plan: Plan, found: Records) -> Record:
        """The part's own record, with the command that would give it."""
        answer = self.task.answer(self.session, self.options, plan, found)
        # parts share workers and a clock: the part's own time is that of its runs
        spent = sum(found[run.digest].get("wall_s", 0.0) for run in plan.runs if run.digest in found)
        return {**answer, "command": self.command, "wall_s": round(spent, 3)}


class PlanOfParts(Plan):
    """A plan made of the plans of parts; `details` is [(part, its plan)], and each part's answer is saved by itself."""

    def by_data(self, session: Session) -> list[tuple[RealDataset, tuple[RunSpec, ...]]]:
        """Runs of each part with its data."""
        return [group for part, plan in self.details for group in plan.by_data(part.session)]


def perform(task: Task[O], session: Session, options: O, command: str = "", json_file: Path | None = None) -> Record:
    """Plan, compute, answer, and save the answer: what every command and every word of the Python API does.

    command: the line that asked, kept in the record. json_file: a second place for the record. When stopped in the
    middle, the answer so far is said, where there is one, and the answers of finished parts are saved. Raises PlanShown
    after a dry run or --enqueue, Declined, DivergenceError for a run that may not fail, and what `session.stop` raises
    when asked to stop; everything done is kept.
    """
    found: Records = {}
    if json_file is not None:
        check_place(json_file)
    with session.planning():
        session = task.about(session, options)
        plan = task.plan(session, options, found)
        announce(session, plan)
    with session.store.in_use() if plan.runs else contextlib.nullcontext():
        try:
            found = compute(session, task.name, plan)
            while plan.open:
                plan = task.plan(session, options, found)
                if all(run.digest in found for run in plan.runs):
                    break
                found = {**found, **compute(session, task.name, plan)}
        except (BudgetExhausted, Interrupted):
            found = records_of(session.store, plan.runs)
            _save_parts(plan, found)
            so_far = task.partial(session, options, plan, found)
            if so_far is not None:
                session.say(f"\n{task.words(so_far)}")
                for word, path in task.files(session, plan, found, so_far).items():
                    session.say(f"{word.ljust(8)} {path}")
            raise
        _save_parts(plan, found)
        record = with_native(task.answer(session, options, plan, found), found)
        record |= {"command": command} if command else {}
        if task.keeps:
            called = getattr(options, "name", getattr(options, "names", ())) if isinstance(options, SetFacts) else ()
            if called:  # a set called otherwise: another record
                record["digest"] = digest_of([record["digest"], called])
            record = save_record(session.store, record | _made_of(plan), json_file)
            for word, path in task.files(session, plan, found, record).items():
                session.say(f"{word.ljust(8)} {path}")
        elif json_file is not None:
            write_json(json_file, plain(record))
        return record


def _save_parts(plan: Plan, found: Records) -> None:
    """Save the answers of those parts whose runs are finished."""
    for part, own in plan.details if isinstance(plan, PlanOfParts) else ():
        if not own.open and all(run.digest in found or run.kind in own.tolerant for run in own.runs):
            save_record(part.session.store, with_native(part.answer(own, found), found) | _made_of(own))


def _made_of(plan: Plan) -> dict[str, list[str]]:
    """What a record says of the runs behind it, so that `store gc` keeps them."""
    return {"runs": sorted({run.digest for run in plan.runs})}


def plan_of_parts(title: str, parts: Sequence[Part], found: Records) -> PlanOfParts:
    """One plan of all parts."""
    plans = [(part, part.plan(found)) for part in parts]
    each = [plan for _, plan in plans]
    runs, later = (_unique(run for plan in each for run in getattr(plan, name)) for name in ("runs", "later"))
    protocol = each[0].protocol if each else ""
    tolerant = tuple(dict.fromkeys(kind for plan in each for kind in plan.tolerant))
    return PlanOfParts(title, protocol, runs, tolerant, any(plan.open for plan in each), later, plans)


def _unique(runs: Iterable[RunSpec]) -> tuple[RunSpec, ...]:
    return tuple({run.digest: run for run in runs}.values())

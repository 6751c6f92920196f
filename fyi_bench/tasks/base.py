"""What a task is: what a user asks, as options -> plan -> answer.

A task plans runs and makes an answer of their records; both are pure. Everything between (announcing, estimating, a dry
run, the deadline, workers, the queue, going on after a stop) is the executor's (fyi_bench.run.executor), the same for
every task. The command line and the Python API are generated from the task's `Options`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from fyi_bench.registry import Registry
from fyi_bench.run.plan import Plan, Records

if TYPE_CHECKING:
    from fyi_bench.session import Session
    from fyi_bench.store.store import RunSpec

O = TypeVar("O")  # noqa: E741  the task's Options
Record = dict[str, Any]


class Task(Generic[O]):
    """One question of a user. A subclass in a file of `fyi_bench/tasks`, or of an entry point, is found by its name.

    It is registered under the `task` of its records. name: the command's word; empty for one that another task asks.
    summary: one line of help. Options: a frozen dataclass whose fields are made by `fyi_bench.config.option`.
    settings: the common options it takes (fields of Settings), None for all. defaults: those that differ for this task
    ({"dataset": "cifar100"}). examples: command lines shown at the end of its help. heading: over its records on the
    report's page. keeps: whether its answer is a record for the store. returns: the entry of its answer that the
    Python word returns; the whole answer where empty.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    Options: ClassVar[type]
    settings: ClassVar[Sequence[str] | None] = None
    defaults: ClassVar[Mapping[str, Any]] = {}
    examples: ClassVar[Sequence[str]] = ()
    heading: ClassVar[str] = ""
    keeps: ClassVar[bool] = True
    returns: ClassVar[str] = ""

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

    def files(self, session: Session, options: O, plan: Plan, found: Records) -> Mapping[str, Path]:
        """Files that the options ask for beside the record, written once it is saved: word -> path."""
        return {}

    def words(self, record: Mapping[str, Any]) -> str:
        """The answer for the terminal, 80 columns wide."""
        raise NotImplementedError(self.name)

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


def plan_of_parts(title: str, parts: Sequence[Part], found: Records) -> Plan:
    """One plan of all parts; `details` is [(part, its plan)]."""
    plans = [(part, part.plan(found)) for part in parts]
    each = [plan for _, plan in plans]
    runs, later = (_unique(run for plan in each for run in getattr(plan, name)) for name in ("runs", "later"))
    protocol = each[0].protocol if each else ""
    return Plan(title, protocol, runs, tolerant=all(plan.tolerant for plan in each),
                open=any(plan.open for plan in each), later=later, details=plans)  # fmt: skip


def _unique(runs: Iterable[RunSpec]) -> tuple[RunSpec, ...]:
    return tuple({run.digest: run for run in runs}.values())

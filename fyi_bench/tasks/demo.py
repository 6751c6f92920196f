"""`fyi-bench demo`: the whole story on built-in data: continual learning, distillation, one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from downstream.protocol import FLOOR
from fyi_bench.present.words import arm_title, fitted, percent
from fyi_bench.run.plan import Plan, Records
from fyi_bench.session import Session
from fyi_bench.store.commands import record_path, writing
from fyi_bench.tasks.base import TASKS, Part, Record, Task, plan_of_parts
from fyi_bench.tasks.continual import Continual
from fyi_bench.tasks.distill import Distill
from fyi_bench.tasks.report import write_report

DEMO_METHOD = "dsa"


@dataclass(frozen=True)
class DemoOptions:
    """There are none: the demonstration is always the same."""


@TASKS.register("demo")
class Demo(Task[DemoOptions]):
    """Rehearse from distilled memory and condense a set, each with FYI and without; then write the report."""

    summary = "A tour on built-in data in minutes: continual learning, distillation, an HTML report."
    Options = DemoOptions
    defaults: ClassVar[Mapping[str, Any]] = {"dataset": "shapes10"}
    examples: ClassVar[Sequence[str]] = ("fyi-bench demo", "fyi-bench demo --store /tmp/demo --workers 2")
    keeps = False
    returns = "report"

    def plan(self, session: Session, options: DemoOptions, found: Records) -> Plan:
        dataset = session.settings.dataset
        parts = [
            Part(
                Continual(),
                session,
                Continual.Options(method=DEMO_METHOD, fyi=True, steps=5),
                f"fyi-bench continual --dataset {dataset} --steps 5 --method dsa --fyi",
            ),
            Part(
                Distill(),
                session,
                Distill.Options(method="dm", fyi=True),
                f"fyi-bench distill --dataset {dataset} --method dm --ipc 10 --fyi",
            ),
        ]
        title = (
            f"1/3  class-incremental learning on {dataset} from a memory by dsa (± FYI)\n"
            f"2/3  a condensed set of {dataset} by dm (± FYI) and the networks it trains\n3/3  the report"
        )
        return plan_of_parts(title, parts, found)

    def answer(self, session: Session, options: DemoOptions, plan: Plan, found: Records) -> Record:
        records, plots = [], []
        for part, part_plan in plan.details:
            records.append(part.answer(part_plan, found))
            with writing(session.store):
                plots += part.task.plots(records[-1], record_path(session.store, records[-1]).with_suffix(""))
        return {"task": self.name, "records": records, "plots": plots, "report": write_report(session.store)}

    def words(self, record: Mapping[str, Any]) -> str:
        told = [f"{TASKS.get(one['task'])().words(one)}\n" for one in record["records"]]
        told += [f"{line}\n" for one in record["records"] for line in _not_above_random(one)]
        lines = [f"plot     {path}" for path in record["plots"]]
        return "\n".join([*map(fitted, told), *lines, f"report   {record['report']}"])


def _not_above_random(record: Record) -> list[str]:
    """A line for each condensed memory that is not better than as many random real images; the pictures are easy."""
    averages = {arm_title(arm): arm["average"]["mean"] for arm in record["arms"] if "average" in arm}
    floor = averages.get(FLOOR)
    return [
        f"{name} is not above random real images here ({percent(mean)} and {percent(floor)} %): on these easy pictures"
        " and in so few steps condensing gains nothing; on CIFAR-100 it does (README)."
        for name, mean in averages.items()
        if floor is not None and mean <= floor and name.partition("+")[0] == DEMO_METHOD
    ]

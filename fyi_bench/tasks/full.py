"""Networks trained on all real train images: the ceiling of what a condensed set is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fyi_bench.config import option
from fyi_bench.present.words import count_words
from fyi_bench.run.plan import Plan, Records
from fyi_bench.run.types.accuracy import accuracy_run, full_data
from fyi_bench.session import Session
from fyi_bench.store.record import build_record
from fyi_bench.tasks import words
from fyi_bench.tasks.audit import entry_of
from fyi_bench.tasks.base import TASKS, Record, Task
from fyi_bench.tasks.common import digest_of_runs, size_of_parts


@dataclass(frozen=True)
class FullOptions:
    """Which architecture, and how many networks of it."""

    architecture: str = option("convnet", "Architecture.")
    networks: int = option(1, "Networks.")


@TASKS.register("full")
class Full(Task[FullOptions]):
    """Train networks on all real images, by the rules of the robust scores' real side, and test each once."""

    command = ""
    summary = "Accuracy of networks trained on all real images."
    Options = FullOptions
    heading = "All real images"

    def plan(self, session: Session, options: FullOptions, found: Records) -> Plan:
        data, protocol = session.data, replace(session.protocol("robust-real"), eval_model=options.architecture)
        runs = tuple(
            accuracy_run(
                data, full_data(data), len(data.train), protocol, session.settings.seed + net,
                precision=session.settings.precision,
            )
            for net in range(options.networks)
        )  # fmt: skip
        return Plan(f"all real images · {data.name}", protocol.name, runs, details=protocol)

    def answer(self, session: Session, options: FullOptions, plan: Plan, found: Records) -> Record:
        images, records = len(session.data.train), [found[run.digest] for run in plan.runs]
        entry = entry_of(options.architecture, records)
        arm = {"method": "full", "flip": "none", "ipc": None, "name": "all real images", "images": images}
        arm |= size_of_parts(session.data.train.parts, session.data.num_classes)
        return build_record(
            "full",
            **session.facts(plan.details),
            seeds=[run.inputs["seed"] for run in plan.runs],
            digest=digest_of_runs("full", plan.runs),
            arms=[{**arm, "epochs": plan.details.epochs_for(images), "architectures": [entry]}],
        )

    def words(self, record: Mapping[str, Any]) -> str:
        return "\n".join(words.lines_of(record, _what(record), *_table(record))).rstrip("\n")

    def section(self, record: Mapping[str, Any], section: Any, store: Any) -> None:
        section.table(f"Trained for {_what(record)}.", *_table(record))


def _what(record: Mapping[str, Any]) -> str:
    arm = record["arms"][0]
    return f"{count_words(arm['epochs'], 'epoch')} on {arm['images']:,} images"


def _table(record: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and one row."""
    [arm], names = record["arms"], words.architectures_of(record)
    costs = [part for name in names for part in words.network_cost(record, name)]
    return ["", *names, "time a network", "memory"], [[arm["name"], *words.accuracies(arm, names), *costs]]

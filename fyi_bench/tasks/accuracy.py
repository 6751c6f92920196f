"""`fyi-bench evaluate`: accuracy of networks trained on a set that is a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, ClassVar

from downstream.protocol import Protocol
from fyi_bench.config import option
from fyi_bench.errors import UsageError
from fyi_bench.present.words import arm_title, bytes_words
from fyi_bench.reading import OneSetFacts
from fyi_bench.run.plan import Plan, Records
from fyi_bench.run.types.accuracy import accuracy_run
from fyi_bench.session import Session
from fyi_bench.store.record import build_record
from fyi_bench.tasks import words
from fyi_bench.tasks.base import TASKS, Record, Task
from fyi_bench.tasks.common import ARCHITECTURES, SET_HELP, digest_of_runs, summary
from fyi_bench.tasks.distill import accuracy_section
from fyi_bench.tasks.given import given_set, session_of_sets
from fyi_bench.tasks.robust import Robust


@dataclass(frozen=True)
class AccuracyOptions(OneSetFacts):
    """Which set, on which architectures; none: the protocol's own."""

    path: Path = option(MISSING, SET_HELP, argument="SET")
    architectures: tuple[str, ...] = ARCHITECTURES(())
    robust: bool = option(False, "Scores that labels and augmentation cannot inflate.")


@TASKS.register("accuracy")
class Accuracy(Task[AccuracyOptions]):
    """Train networks of each architecture on the set, and test each once; `--robust` asks the task of that name."""

    command = "evaluate"
    summary = "Accuracy of networks trained on a condensed set."
    Options = AccuracyOptions
    heading = "Accuracy of a set"
    examples: ClassVar[Sequence[str]] = (
        "fyi-bench evaluate res_DM_CIFAR10_ConvNet_10ipc.pt",
        "fyi-bench evaluate set.safetensors --arch convnet3 vgg11 --seed 1",
        "fyi-bench evaluate set.safetensors --robust",
    )

    def about(self, session: Session, options: AccuracyOptions) -> Session:
        return session_of_sets(session, [options.path], options.facts)

    def plan(self, session: Session, options: AccuracyOptions, found: Records) -> Plan:
        if options.robust:
            return Robust().plan(session, options, found)
        given = given_set(session, options.path, options.facts)
        protocol = session.protocol("accuracy", given.method)
        names = list(options.architectures) or [protocol.eval_model]
        runs = {
            (name, net): accuracy_run(
                session.data, given.reference, len(given.image_set), protocol, session.settings.seed + net, name,
                session.settings.precision,
            )
            for name in names
            for net in range(protocol.nets)
        }  # fmt: skip
        said = [*given.said, *_lacking(protocol, given.path)]
        what = f"{self.command or self.name} {given.path.name} · {session.data.name}"
        title = "\n".join([*said, what])
        return Plan(title, protocol.name, tuple(runs.values()), details=(given, protocol, runs))

    def answer(self, session: Session, options: AccuracyOptions, plan: Plan, found: Records) -> Record:
        if options.robust:
            return Robust().answer(session, options, plan, found)
        given, protocol, runs = plan.details
        by_name: dict[str, list[Mapping[str, Any]]] = {}
        for (name, _), run in runs.items():
            by_name.setdefault(name, []).append(found[run.digest])
        return build_record(
            self.name,
            **session.facts(protocol),
            seeds=[session.settings.seed + net for net in range(protocol.nets)],
            digest=digest_of_runs(self.name, runs.values()),
            arms=[{**given.entry, "architectures": [_entry(name, records) for name, records in by_name.items()]}],
        )

    def words(self, record: Mapping[str, Any]) -> str:
        if record["task"] == "robust":
            return Robust().words(record)
        arms = record["arms"]
        rows = [
            [
                name,
                *(words.accuracies(arm, [name])[0] for arm in arms),
                str(max(_repetitions(arm, name) for arm in arms)),
                *words.network_cost(record, name),
            ]
            for name in words.architectures_of(record)
        ]
        header = ["", *map(arm_title, arms), "networks", "time a network", "memory"]
        lines = words.lines_of(record, words.images_words(arms[0]), header, rows)
        sizes = [
            f"size     {arm_title(arm)}   {bytes_words(arm['set_bytes'])} with labels"
            for arm in arms
            if "set_bytes" in arm
        ]
        return "\n".join([*lines, *sizes, *words.set_lines(record)]).rstrip("\n")

    def section(self, record: Mapping[str, Any], section: Any, store: Any) -> None:
        accuracy_section(record, section, store)


def _entry(name: str, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracies of one architecture, and what a network cost: seconds of training and testing, MiB at most."""
    return {
        "name": name,
        **summary([record["value"] for record in records]),
        "seconds": [record["wall_s"] for record in records],
        "peak_memory_mib": max(record["peak_memory_mib"] for record in records),
    }


def _lacking(protocol: Protocol, path: Path) -> list[str]:
    """A file is one set: nothing is picked among checkpoints, and there are no images behind an average."""
    if protocol.warm == "raw":
        raise UsageError(
            f"{protocol.name} trains on the images behind the average first, and {path.name} does not have them.\n"
            f"Run: fyi-bench distill --method ftd --protocol {protocol.name}, or evaluate with legacy-mtt."
        )
    if not protocol.checkpoints_every:
        return []
    return [f"{protocol.name} picks the best of several checkpoints; this file is taken as the only one"]


def _repetitions(arm: Mapping[str, Any], name: str) -> int:
    return sum(len(entry["values"]) for entry in arm.get("architectures", []) if entry["name"] == name)

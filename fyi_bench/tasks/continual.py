"""`fyi-bench continual`: class-incremental learning from distilled memory, against random real images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from downstream.protocol import Protocol
from fyi_bench.config import option
from fyi_bench.present.figures.continual import continual_drawing, continual_figure
from fyi_bench.present.words import arm_title, count_words, mean_and_std
from fyi_bench.run.plan import Plan, Records
from fyi_bench.run.types.continual import continual_run
from fyi_bench.run.types.expert import prerequisites
from fyi_bench.session import Session
from fyi_bench.store.record import build_record
from fyi_bench.store.spec import RunSpec
from fyi_bench.tasks import words
from fyi_bench.tasks.base import TASKS, Record, Task
from fyi_bench.tasks.common import (
    METHOD,
    NETWORKS_OF_A_SET,
    Arm,
    Comparison,
    digest_of_runs,
    flip_difference,
    recipes_of,
    seeds_of,
    summary_of_sets,
    titles,
)

Owner = tuple[int, int]  # seed of the class order, seed of its sets
SetKey = tuple[Arm, Owner, int]  # arm, whose, step
TestKey = tuple[Arm, Owner, int, int]  # arm, whose, step, network


@dataclass(frozen=True)
class ContinualOptions(Comparison):
    """How the classes come, and with what memory they are rehearsed."""

    method: str = METHOD("dsa")
    steps: int = option(10, "Steps the classes come in.")


@dataclass(frozen=True)
class _Details:
    protocol: Protocol
    seeds: Sequence[int]
    orders: Mapping[int, list[int]]
    sets: Mapping[SetKey, RunSpec]
    tests: Mapping[TestKey, RunSpec]


@TASKS.register("continual")
class Continual(Task[ContinualOptions]):
    """Distil each step's classes, and rehearse from the memory after each step.

    Class orders are those of seeds seed, seed + 1, … (numpy's legacy permutation, as published); the set of a step is
    distilled with the order's seed. Where there are fewer orders than draws of random images, each order has several.
    """

    summary = "Class-incremental learning from distilled memory (Avalanche), against random real images."
    Options = ContinualOptions
    defaults: ClassVar[Mapping[str, Any]] = {"dataset": "cifar100"}
    heading = "Continual learning"
    examples: ClassVar[Sequence[str]] = (
        "fyi-bench continual --steps 10 --method dsa --fyi",
        "fyi-bench continual --dataset shapes10 --steps 5 --method dm --fyi --ipc 5",
        "fyi-bench continual --method dsa --fyi --only --seeds 5 --workers 4",
    )

    def plan(self, session: Session, options: ContinualOptions, found: Records) -> Plan:
        from downstream.continual import class_order, step_classes
        from fyi_bench.run.types.distill import distill_run

        arms, steps, precision = options.arms, options.steps, session.settings.precision
        recipes = recipes_of(session, arms, options.ipc)
        protocol = session.protocol("continual")
        seeds = seeds_of(session, protocol.orders)
        orders = {seed: class_order(seed, session.data.num_classes) for seed in seeds}
        classes = {seed: step_classes(order, steps) for seed, order in orders.items()}
        often = {arm: protocol.repetitions(arm.method, len(seeds)) for arm in arms}
        owners = {arm: _owners(seeds, count) for arm, (count, _) in often.items()}
        sets = {
            (arm, owner, step): distill_run(
                session.data,
                arm.method,
                arm.flip,
                options.ipc,
                owner[1],
                recipes[arm],
                classes[owner[0]][step],
                precision,
            )
            for step in range(steps)
            for arm in arms
            for owner in owners[arm]
        }
        tests = {
            (arm, owner, step, net): continual_run(
                session.data, [sets[arm, owner, earlier] for earlier in range(step + 1)], owner[0], steps, step,
                NETWORKS_OF_A_SET * owner[1] + net, protocol, precision,
            )
            for arm in arms
            for owner in owners[arm]
            for step in range(steps)
            for net in range(often[arm][1])
        }  # fmt: skip
        # the longest runs first, so that no worker is left with one at the end
        rehearsals = sorted(tests.values(), key=lambda run: -run.inputs["step"])
        return Plan(
            f"continual {titles(arms)} · {session.data.name} · {steps} steps · {options.ipc} images per class",
            protocol.name,
            (*prerequisites(sets.values()), *sets.values(), *rehearsals),
            details=_Details(protocol, seeds, orders, sets, tests),
        )

    def answer(self, session: Session, options: ContinualOptions, plan: Plan, found: Records) -> Record:
        d = plan.details
        results = {key: found[run.digest] for key, run in d.tests.items()}
        return build_record(
            "continual",
            **session.facts(d.protocol),
            seeds=d.seeds,
            digest=digest_of_runs("continual", [*d.sets.values(), *d.tests.values()]),
            steps=options.steps,
            class_orders=list(d.orders.values()),
            networks=d.protocol.nets,
            arms=[
                {"method": arm.method, "flip": arm.flip, "ipc": options.ipc, **_arm_entry(arm, d, results, found)}
                for arm in options.arms
            ],
            **_difference(options, results),
        )

    def words(self, record: Mapping[str, Any]) -> str:
        header, rows = _table(record)
        orders = count_words(len(record["class_orders"]), "class order")
        what = f"{count_words(record['steps'], 'step')} · {words.images_words(record['arms'][0])} · {orders}"
        return "\n".join(words.lines_of(record, what, header, rows)).rstrip("\n")

    def plots(self, record: Mapping[str, Any], folder: Path) -> list[Path]:
        return continual_figure(record, folder)

    def section(self, record: Mapping[str, Any], section: Any, store: Any) -> None:
        several = any(len(row["values"]) > 1 for arm in record["arms"] for row in arm["accuracy"])
        section.figure(
            "Accuracy on all classes seen so far, %",
            "Band: ± one standard deviation over runs." if several else "One run a step.",
            "curves",
            lambda name, width: continual_drawing(record, name, (width, 3.2 if width > 5 else 2.9), bare=True),
        )
        header, rows = _table(record, ", %")
        runs = count_words(len(record["class_orders"]), "class order")
        caption = f"Mean ± standard deviation over {runs}." if several else "One run a step."
        section.table(caption, header, rows, marked=len(rows) - record["steps"])
        section.notes += words.spread_lines(record)
        section.sets(record, store)


def _owners(seeds: Sequence[int], count: int) -> list[Owner]:
    """At least `count` pairs of a class order and the seed of its sets, equally many an order, first its own seed."""
    return [(seed, seed + k * len(seeds)) for k in range(-(-count // len(seeds))) for seed in seeds]


def _arm_entry(arm: Arm, d: _Details, results: Mapping[TestKey, Mapping[str, Any]], found: Records) -> dict[str, Any]:
    rows: dict[int, list[Mapping[str, Any]]] = {}
    owners: dict[int, list[Owner]] = {}
    for (other, owner, step, _), record in results.items():
        if other == arm:
            rows.setdefault(step, []).append(record)
            owners.setdefault(step, []).append(owner)
    runs = [run for key, run in d.sets.items() if key[0] == arm]
    return {
        "accuracy": [
            {"classes_seen": same[0]["classes_seen"], "images": same[0]["images"],
             **summary_of_sets([record["value"] for record in same], owners[step])}
            for step, same in rows.items()
        ],
        "average": summary_of_sets(_averages(arm, results), owners[0]),
        "cells": [run.digest for run in runs],
        "distill_s": round(sum(found[run.digest]["wall_s"] for run in runs), 1),
    }  # fmt: skip


def _averages(arm: Arm, results: Mapping[TestKey, Mapping[str, Any]]) -> list[float]:
    """Accuracy averaged over the steps ('average incremental accuracy'), one value a (class order, set, network)."""
    runs: dict[tuple[Owner, int], list[float]] = {}
    for (other, owner, _, net), record in results.items():
        if other == arm:
            runs.setdefault((owner, net), []).append(record["value"])
    return [sum(values) / len(values) for values in runs.values()]


def _difference(options: ContinualOptions, results: Mapping[TestKey, Mapping[str, Any]]) -> dict[str, Any]:
    """Paired differences with the flip and without: of the average over steps, and step by step."""
    arms = options.arms
    orders = [owner[1] for arm, owner, step, _ in results if (arm, step) == (arms[0], 0)]
    overall = flip_difference(arms, {arm: _averages(arm, results) for arm in arms}, orders)
    if overall is None:
        return {}

    def at(arm: Arm, step: int) -> list[float]:
        return [record["value"] for key, record in results.items() if key[0] == arm and key[2] == step]

    by_step = [flip_difference(arms, {arm: at(arm, step) for arm in arms}, orders) for step in range(options.steps)]
    return {"difference": overall, "difference_by_step": by_step}


def _table(record: Mapping[str, Any], unit: str = "") -> tuple[list[str], list[list[str]]]:
    """Header and rows: a row a step and, where it is known, one of the average; a column an arm."""
    arms = record["arms"]
    rows = [
        [str(step[0]["classes_seen"]), *map(mean_and_std, step)] for step in zip(*(arm["accuracy"] for arm in arms))
    ]
    if all("average" in arm for arm in arms):
        rows.append(["average over steps", *(mean_and_std(arm["average"]) for arm in arms)])
    return ["classes seen", *(arm_title(arm) + unit for arm in arms)], rows

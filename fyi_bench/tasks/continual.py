"""`fyi-bench continual`: class-incremental learning from distilled memory, against random real images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fyi_bench.run.types.continual import continual_cell
from fyi_bench.run.types.distill import distill_cell
from fyi_bench.run.types.expert import prerequisites
from fyi_bench.session import Session
from fyi_bench.store.record import build_record
from fyi_bench.store.spec import RunSpec
from fyi_bench.tasks.common import Arm, arms_of, digest_of_cells, flip_difference, recipes_of, summary

NETWORK_SEEDS_PER_ORDER = 1000  # network k of order o is drawn with seed 1000·o + k

SetKey = tuple[Arm, int, int]  # arm, order seed, step
TestKey = tuple[Arm, int, int, int]  # arm, order seed, step, network


def continual_job(session: Session, method: str, flip: str, ipc: int, steps: int, only: bool = False) -> dict[str, Any]:
    """Distil each step's classes, rehearse from the memory after each step, return the record.

    Class orders are those of seeds seed, seed + 1, … (numpy's legacy permutation, as published); the set of a step
    is distilled with the order's seed.
    """
    from downstream.continual import class_order, step_classes

    arms = arms_of(method, flip, only, floor=True)
    recipes = recipes_of(session, arms, ipc)
    protocol = session.protocol("continual")
    count = session.settings.seeds or protocol.orders
    seeds = [session.settings.seed + k for k in range(count)]
    classes = {seed: step_classes(class_order(seed, session.data.num_classes), steps) for seed in seeds}
    sets = {
        (arm, seed, step): distill_cell(
            session.data, arm.method, arm.flip, ipc, seed, recipes[arm], chosen, session.settings.precision
        )
        for step in range(steps)
        for seed in seeds
        for arm, chosen in ((arm, classes[seed][step]) for arm in arms)
    }
    tests = _rehearsal_cells(session, arms, seeds, steps, sets, protocol)
    title = (
        f"continual {', '.join(a.title for a in arms)} · {session.data.name} · {steps} steps · {ipc} images per class"
    )
    stages = [
        ("training experts", prerequisites(sets.values())),
        ("distilling", list(sets.values())),
        # the longest cells first, so that no worker is left with one at the end
        ("rehearsing", sorted(tests.values(), key=lambda cell: -cell.inputs["step"])),
    ]
    records = session.announce_and_compute(title, protocol.name, stages)
    results = {key: records[cell.digest] for key, cell in tests.items()}
    return build_record(
        "continual",
        **session.facts(protocol),
        seeds=seeds,
        digest=digest_of_cells("continual", [*sets.values(), *tests.values()]),
        steps=steps,
        class_orders=[class_order(seed, session.data.num_classes) for seed in seeds],
        networks=protocol.nets,
        arms=[_arm_entry(arm, ipc, steps, sets, records, results) for arm in arms],
        **_difference(arms, steps, results),
        data={"note": session.data.note, "train": session.data.train_digest},
        store=str(session.store.root),
    )


def _rehearsal_cells(
    session: Session,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    steps: int,
    sets: Mapping[SetKey, RunSpec],
    protocol: Any,
) -> dict[TestKey, RunSpec]:
    return {
        (arm, seed, step, net): continual_cell(
            session.data,
            [sets[arm, seed, earlier] for earlier in range(step + 1)],
            seed,
            steps,
            step,
            NETWORK_SEEDS_PER_ORDER * seed + net,
            protocol,
            session.settings.precision,
        )
        for arm in arms
        for seed in seeds
        for step in range(steps)
        for net in range(protocol.nets)
    }


def _arm_entry(arm: Arm, ipc: int, steps: int, sets, records, results) -> dict[str, Any]:
    rows = []
    for step in range(steps):
        found = [record for key, record in results.items() if key[0] == arm and key[2] == step]
        values = [record["value"] for record in found]
        rows.append({"classes_seen": found[0]["classes_seen"], "images": found[0]["images"], **summary(values)})
    cells = [cell for key, cell in sets.items() if key[0] == arm]
    return {
        "method": arm.method,
        "flip": arm.flip,
        "ipc": ipc,
        "accuracy": rows,
        "average": summary(_averages(arm, results)),
        "cells": [cell.digest for cell in cells],
        "distill_s": round(sum(records[cell.digest]["wall_s"] for cell in cells), 1),
    }


def _averages(arm: Arm, results: Mapping[TestKey, Mapping[str, Any]]) -> list[float]:
    """Accuracy averaged over the steps ('average incremental accuracy'), one value a (class order, network)."""
    runs: dict[tuple[int, int], list[float]] = {}
    for (owner, seed, _, net), record in results.items():
        if owner == arm:
            runs.setdefault((seed, net), []).append(record["value"])
    return [sum(values) / len(values) for values in runs.values()]


def _difference(arms: Sequence[Arm], steps: int, results: Mapping[TestKey, Mapping[str, Any]]) -> dict[str, Any]:
    """Paired differences with the flip and without: of the average over steps, and step by step."""
    orders = [seed for arm, seed, step, _ in results if (arm, step) == (arms[0], 0)]
    overall = flip_difference(arms, {arm: _averages(arm, results) for arm in arms}, orders)
    if overall is None:
        return {}
    by_step = [
        flip_difference(arms, {arm: _at_step(arm, step, results) for arm in arms}, orders) for step in range(steps)
    ]
    return {"difference": overall, "difference_by_step": by_step}


def _at_step(arm: Arm, step: int, results: Mapping[TestKey, Mapping[str, Any]]) -> list[float]:
    return [record["value"] for key, record in results.items() if key[0] == arm and key[2] == step]

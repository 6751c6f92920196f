"""`fyi-bench distill`: condensed sets of one method, with and without the flip, and how well they train networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fyi_bench.run.types.accuracy import accuracy_cell
from fyi_bench.run.types.distill import distill_cell
from fyi_bench.run.types.expert import prerequisites
from fyi_bench.run.types.unequalness import unequalness_cell
from fyi_bench.run.worker import SET_FILE
from fyi_bench.session import Session
from fyi_bench.store.record import build_record
from fyi_bench.store.spec import RunSpec
from fyi_bench.tasks.checkpoints import NETWORKS_OF_A_SET, checkpoint_job
from fyi_bench.tasks.common import Arm, arms_of, digest_of_cells, flip_difference, recipes_of, summary

EVALUATION_SEEDS_PER_SET = NETWORKS_OF_A_SET


def distill_job(
    session: Session,
    method: str,
    flip: str,
    ipc: int,
    only: bool = False,
    architectures: Sequence[str] = (),
    task: str = "distill",
) -> dict[str, Any]:
    """Distil what is missing, evaluate every set on every architecture, return the record.

    Arms: the method without the flip, with it, and random real images; `only` keeps the one asked for.
    architectures: names for evaluation, default the protocol's; ('none',) leaves evaluation out.
    task: 'distill', or 'cross-arch' where the architectures are the point.
    """
    arms = arms_of(method, flip, only, floor=True)
    recipes = recipes_of(session, arms, ipc)
    # one procedure for all arms of a comparison: the method's own where it has one
    protocol = session.protocol("accuracy", method)
    count = session.settings.seeds or protocol.sets
    seeds = [session.settings.seed + k for k in range(count)]
    precision = session.settings.precision
    sets = {
        (arm, seed): distill_cell(session.data, arm.method, arm.flip, ipc, seed, recipes[arm], precision=precision)
        for arm in arms
        for seed in seeds
    }
    names = [] if tuple(architectures) == ("none",) else list(architectures) or [protocol.eval_model]
    title = f"{task} {', '.join(a.title for a in arms)} · {session.data.name} · {ipc} images per class"
    if protocol.checkpoints_every and names:
        return checkpoint_job(session, title, task, ipc, protocol, sets, names)
    tests = evaluation_cells(session, sets, names, protocol)
    scores = {
        key: unequalness_cell({"cell": cell.digest}, images_of(cell), session.settings.seed)
        for key, cell in sets.items()
    }
    stages = [
        ("training experts", prerequisites(sets.values())),
        ("distilling", list(sets.values())),
        ("evaluating", [*tests.values(), *scores.values()]),
    ]
    records = session.announce_and_compute(title, protocol.name, stages)
    values = {key: records[cell.digest]["value"] for key, cell in tests.items()}
    return build_record(
        task,
        **{**session.facts(protocol), "precision": precision},
        seeds=seeds,
        digest=digest_of_cells(task, [*sets.values(), *tests.values()]),
        arms=[_arm_entry(session, arm, ipc, seeds, sets, scores, records, names, values) for arm in arms],
        **_difference(arms, names, values),
        data={"note": session.data.note, "train": session.data.train_digest},
        store=str(session.store.root),
    )


def evaluation_cells(
    session: Session, sets: Mapping[tuple[Arm, int], RunSpec], names: Sequence[str], protocol: Any
) -> dict[tuple[Arm, str, int, int], RunSpec]:
    """Cells of every (arm, architecture, set seed, network number)."""
    return {
        (arm, name, seed, net): accuracy_cell(
            session.data,
            {"cell": cell.digest},
            images_of(cell),
            protocol,
            EVALUATION_SEEDS_PER_SET * seed + net,
            model=name,
            precision=session.settings.precision,
        )
        for (arm, seed), cell in sets.items()
        for name in names
        for net in range(protocol.nets)
    }


def _arm_entry(session, arm, ipc, seeds, sets, scores, records, names, values) -> dict[str, Any]:
    cells = [sets[arm, seed] for seed in seeds]
    first = records[cells[0].digest]
    entry = {
        "method": arm.method,
        "flip": arm.flip,
        "ipc": ipc,
        "set": str(session.store.artefact("distill", cells[0].digest, SET_FILE)),
        "set_digest": first["set_digest"],
        "sets": [str(session.store.artefact("distill", c.digest, SET_FILE)) for c in cells],
        "cells": [c.digest for c in cells],
        **{key: first[key] for key in ("iterations", "loss_first", "loss_last", "set_bytes")},
        "unequalness": _scores([records[scores[arm, seed].digest] for seed in seeds]),
        "distill_s": [records[c.digest]["wall_s"] for c in cells],
    }
    if names:
        entry["architectures"] = [{"name": name, **summary(_of(values, arm, name))} for name in names]
    return entry


def images_of(cell: RunSpec) -> int:
    """Images of the set a distill cell makes."""
    return len(cell.inputs["classes"]) * cell.inputs["ipc"]


def _scores(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Symmetry score of the arm: mean over its sets, and the spread over networks of its first set."""
    first = records[0]
    return {"mean": sum(r["mean"] for r in records) / len(records), "std": first["std"], "networks": first["networks"]}


def _of(values: Mapping[tuple, float], arm: Arm, name: str) -> list[float]:
    return [value for key, value in values.items() if key[:2] == (arm, name)]


def _difference(arms: Sequence[Arm], names: Sequence[str], values: Mapping[tuple, float]) -> dict[str, Any]:
    """The paired difference on the first architecture, pairs being networks of equal seed."""
    if not names:
        return {}
    seeds = [seed for arm, name, seed, _ in values if (arm, name) == (arms[0], names[0])]
    difference = flip_difference(arms, {arm: _of(values, arm, names[0]) for arm in arms}, seeds)
    return {"difference": difference} if difference else {}

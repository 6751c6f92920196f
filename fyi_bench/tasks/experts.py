"""`fyi-bench experts`: train the expert trajectories that MTT and others match, ahead of any set that needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fyi_bench.config import option
from fyi_bench.errors import UsageError
from fyi_bench.present.words import bytes_words, count_words, seconds_words, short
from fyi_bench.run.plan import Plan, Records
from fyi_bench.run.types.expert import TRAJECTORY_FILE, expert_runs
from fyi_bench.session import Session
from fyi_bench.store.record import build_record
from fyi_bench.tasks.base import TASKS, Record, Task
from fyi_bench.tasks.common import IPC, METHOD, digest_of_runs


@dataclass(frozen=True)
class ExpertsOptions:
    """Whose experts. The recipe decides on ZCA and the model; recipes that agree in these share their experts."""

    method: str = METHOD("mtt", help="Whose experts: mtt, ftd, haba, speed, or a plug-in's.")
    ipc: int = IPC(10)
    count: int | None = option(None, "How many; default: as many as the recipe.")


@TASKS.register("experts")
class Experts(Task[ExpertsOptions]):
    """Train what is missing of the first `count` experts."""

    summary = "Train the expert trajectories that MTT and others match; resumable one by one."
    Options = ExpertsOptions
    unused: ClassVar[Mapping[str, str]] = {
        "seed": "Experts are counted: --count N",
        "seeds": "Experts are counted: --count N",
    }
    heading = "Expert trajectories"
    examples: ClassVar[Sequence[str]] = (
        "fyi-bench experts --dataset cifar10",
        "fyi-bench experts --method ftd --count 2 --budget 30m",
    )

    def plan(self, session: Session, options: ExpertsOptions, found: Records) -> Plan:
        from distill.methods import METHODS
        from fyi_bench.run.types.distill import distill_run

        recipe = session.recipe(options.method, options.ipc)
        session.check_overrides([recipe])
        whole = distill_run(
            session.data, options.method, "none", options.ipc, 0, recipe, precision=session.settings.precision
        )
        runs = expert_runs(whole.inputs, whole.notes, options.count)
        if not runs:
            usable, _ = METHODS.usable()
            matching = [name for name, method in usable.items() if hasattr(method.Config, "expert_config")]
            raise UsageError(
                f"The method {options.method} matches no expert trajectories.\nName one of {', '.join(matching)}."
            )
        space, epochs = whole.inputs["space"]["kind"], runs[0].inputs["expert"]["epochs"]
        title = f"{len(runs)} experts of {options.method} · {session.data.name} · {epochs} epochs · {space} images"
        return Plan(title, recipe.label, tuple(runs))

    def answer(self, session: Session, options: ExpertsOptions, plan: Plan, found: Records) -> Record:
        records = [found[run.digest] for run in plan.runs]
        files = [session.store.artefact("expert", run.digest, TRAJECTORY_FILE, whole=False) for run in plan.runs]
        arm = {
            "method": options.method,
            "flip": "none",
            "ipc": options.ipc,
            "experts": [str(path) for path in files],
            "cells": [run.digest for run in plan.runs],
            "losses": [record["losses"] for record in records],
            "bytes": sum(path.stat().st_size for path in files),
            "expert_s": [record["wall_s"] for record in records],
        }
        return build_record(
            "experts",
            **session.facts(plan.protocol),
            seeds=range(len(plan.runs)),
            digest=digest_of_runs("experts", plan.runs),
            arms=[arm],
        )

    def words(self, record: Mapping[str, Any]) -> str:
        return f"{len(record['arms'][0]['cells'])} experts are ready."

    def section(self, record: Mapping[str, Any], section: Any, store: Any) -> None:
        [first, *_] = record["arms"]
        epochs = count_words(len(first["losses"][0]), "epoch")
        section.headline = f"{count_words(len(first['losses']), 'expert')} of {epochs}."
        rows = []
        for arm in record["arms"]:
            losses = arm["losses"]
            last = short(sum(one[-1] for one in losses) / len(losses), 3)
            size, time = bytes_words(arm["bytes"]), seconds_words(sum(arm["expert_s"]))
            rows.append([arm["method"], str(len(losses)), str(len(losses[0])), last, size, time])
        header = ["", "experts", "epochs", "mean last loss", "size", "time"]
        section.table("Networks trained on real images, kept epoch by epoch.", header, rows)

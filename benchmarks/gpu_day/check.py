"""Does a GPU compute what the CPU computes: every method's step, an expert, the trainer; in float64, tiny sizes.

Each is done on the CPU, on the device step by step (eager), and on the device as it is meant to be (recorded and
replayed). Problems and recipes are those of the tests (`tests/tiny.py`), so a new method is checked by being there.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch

import tiny
from distill.captured import WARM_UP
from distill.engine import distill
from distill.experts import ExpertConfig, train_expert
from distill.gsam import GSAM
from distill.methods import METHODS
from distill.problem import Problem
from downstream.protocol import protocol
from downstream.training import Conditions, new_network, train_together
from fyi_bench.run.deadline import Deadline

TOLERANCE = 1e-6
TRAINER_TOLERANCE = 1e-3  # it knows float32 alone
SWITCH = "FYI_BENCH_GRAPHS"  # of `distill.captured`
FLIPS = ("fyi", "none")  # the one that does more comes first, should time end
Subject = Callable[[str, torch.dtype], list[torch.Tensor]]  # computes on a device, in a type


def subjects(methods: Sequence[str] = ()) -> Iterator[tuple[str, float, Subject]]:
    """(name, tolerance, computation) of all that is to be checked; methods: all that learn where none are named."""
    for name, gsam in (("expert sgd", None), ("expert gsam", GSAM(0.05, 0.4, False))):
        yield name, TOLERANCE, _expert(gsam)
    for schedule, cutmix in (("drop-restart", 0.0), ("cosine", 0.7)):
        yield f"trainer {schedule}", TRAINER_TOLERANCE, _trainer(schedule, cutmix)
    learn = [name for name in METHODS.names() if tiny.config(name).iterations]
    for flip in FLIPS:
        for method in methods or learn:
            yield f"{method} {flip}", TOLERANCE, _method(method, flip)


def check(device: str, stop: Deadline, say: Callable[[str], None], methods: Sequence[str] = ()) -> dict[str, Any]:
    """Compare each subject; a row for each, one that fails among them, and the names that time did not reach."""
    rows, left = [], []
    for name, tolerance, subject in subjects(methods):
        if stop.requested():
            left.append(name)
            continue
        began = time.monotonic()
        row = {"name": name, "tolerance": tolerance, **_compare(subject, device, tolerance)}
        row["seconds"] = round(time.monotonic() - began, 2)
        rows.append(row)
        say(f"{name}: {row.get('error') or ('right' if row['right'] else 'WRONG')} {row.get('distance', '')}")
    return {"device": device, "rows": rows, "left": left, "wrong": [row["name"] for row in rows if not row["right"]]}


def _compare(subject: Subject, device: str, tolerance: float) -> dict[str, Any]:
    """distance: largest |device − CPU| over the larger of 1 and |CPU|, by way; right: the float64 ones are small."""
    ways = {
        "eager": ("0", torch.float64),
        "recorded": ("1", torch.float64),
        "float32": ("1", torch.float32),
    }
    found: dict[str, Any] = {"distance": {}, "right": False}
    try:
        plain = subject("cpu", torch.float64)
        for way, (recorded, dtype) in ways.items():
            with (
                patch.dict(os.environ, {SWITCH: recorded}),
                _without_tf32(),
                warnings.catch_warnings(record=True) as told,
            ):
                warnings.simplefilter("always")
                tensors = subject(device, dtype)
            found["distance"][way] = max(map(_distance, tensors, plain))
            if unrecorded := [str(w.message) for w in told if "could not be recorded" in str(w.message)]:
                found["unrecorded"] = unrecorded[0]
    except Exception as error:  # told in the row; the next subject may work, and a lease is too short to stop at one
        return {**found, "error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    exact = [found["distance"][way] for way, (_, dtype) in ways.items() if dtype == torch.float64]
    return {**found, "right": max(exact) <= tolerance and "unrecorded" not in found}


@contextlib.contextmanager
def _without_tf32() -> Iterator[None]:
    """Convolutions in full float32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _distance(found: torch.Tensor, plain: torch.Tensor) -> float:
    away = (found.detach().cpu().double() - plain.double()).abs() / plain.double().abs().clamp(min=1)
    return float(away.max())


def _problem(method: str, device: str, dtype: torch.dtype, **changes: Any) -> Problem:
    space = METHODS.get(method).space_kind
    given = {"space": tiny.SPACES[space]} if space in tiny.SPACES else {}
    made = tiny.problem(dtype=torch.float64, **given, **changes)  # its experts are those of float64, for all
    return replace(made, device=torch.device(device), dtype=dtype)


def _method(method: str, flip: str) -> Subject:
    config = tiny.config(method, WARM_UP + 4, **tiny.UNTIED.get(method, {}))
    return lambda device, dtype: [distill(_problem(method, device, dtype), method, config, flip).images]


def _expert(gsam: GSAM | None) -> Subject:
    config = ExpertConfig(
        model=tiny.MODEL, epochs=3, lr=0.05, momentum=0.5, wd=1e-3, batch=8, augment="color_crop_flip_rotate",
        dispatcher="dsa", storage="fp32", gsam=gsam,
    )  # fmt: skip

    def walk(device: str, dtype: torch.dtype) -> list[torch.Tensor]:
        problem = _problem("mtt", device, dtype, experts=lambda: ())
        return [train_expert(problem, config).trajectory.at(config.epochs)]

    return walk


def _trainer(schedule: str, cutmix: float) -> Subject:
    rules = replace(protocol("quick", "accuracy"), epochs=6, min_steps=0, batch=16, schedule=schedule, cutmix=cutmix)

    def learn(device: str, dtype: torch.dtype) -> list[torch.Tensor]:
        real = tiny.real_set()
        networks = [new_network(model, real, seed) for seed, model in enumerate((tiny.MODEL, "convnet-w8-d1-batch"))]
        trained = train_together(networks, real, rules, [0, 1], Conditions(device))
        return [torch.tensor(one.losses, dtype=torch.float64) for one in trained]

    return learn

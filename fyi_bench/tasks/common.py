"""What several tasks share: options of a comparison, its arms and sets, summaries over repetitions, digests."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from downstream.protocol import FLOOR, Protocol
from fyi_bench.config import ARCHITECTURE_NAMES, FLIP_NAMES, METHOD_NAMES, option
from fyi_bench.errors import UsageError
from fyi_bench.files import digest_of
from fyi_bench.session import Session

if TYPE_CHECKING:
    from distill.recipes import Recipe
    from fyi_bench.store.spec import RunSpec

DEFAULT_METHOD = "dm"
NETWORKS_OF_A_SET = 1000  # network k of set s is drawn with seed 1000·s + k
# options of several tasks, each with its own default
METHOD = partial(option, help="Distillation method; `fyi-bench ls methods`.", names=METHOD_NAMES)
IPC = partial(option, help="Images per class.")
ARCHITECTURES = partial(option, help="Architecture(s) to evaluate.", flag="--arch", names=ARCHITECTURE_NAMES)
NOT_MADE = "a set in a file is there already, and none is made"
SET_HELP = "A condensed set: ours, any public format, hf:OWNER/NAME."


@dataclass(frozen=True)
class Comparison:
    """Options of a task that compares a method's sets with the flip, without it, and with random real images."""

    method: str | None = METHOD(DEFAULT_METHOD)
    fyi: bool = option(False, "Short for --flip fyi.")
    flip: str | None = option(None, "none, fyi, random, vertical, rotate or scale.", names=FLIP_NAMES)
    ipc: int = IPC(10)
    only: bool = option(False, "Only this arm, not the one without the flip nor random images.")

    def __post_init__(self) -> None:
        if self.fyi and self.flip not in (None, "fyi"):
            raise UsageError(f"--fyi and --flip {self.flip} contradict each other.\nGive one of them.")

    @property
    def arms(self) -> list[Arm]:
        """The method without the flip, with it, and random real images as the floor; `only` keeps the one asked for."""
        flip = "fyi" if self.fyi else self.flip or "none"
        method = self.method or DEFAULT_METHOD
        if self.only:
            return [Arm(method, flip)]
        arms = [Arm(method, "none"), Arm(method, flip), Arm(FLOOR, "none")]
        return list(dict.fromkeys(arms))


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: a method with or without a flip. name: what the user calls it, where that is else."""

    method: str
    flip: str
    name: str = ""

    @property
    def title(self) -> str:
        """'dsa', 'dsa+fyi', 'random', or its name."""
        if self.name:
            return self.name
        return self.method if self.flip == "none" else f"{self.method}+{self.flip}"

    @property
    def facts(self) -> dict[str, str]:
        """What the arm of a record says of it."""
        return {"method": self.method, "flip": self.flip, **({"name": self.name} if self.name else {})}


def titles(arms: Iterable[Arm]) -> str:
    """'dsa, dsa+fyi, random'."""
    return ", ".join(arm.title for arm in arms)


def recipes_of(session: Session, arms: Sequence[Arm], ipc: int) -> dict[Arm, Recipe]:
    """Each arm's recipe. The user's values hold for the method in question, not for the random floor beside it.

    Raises UnknownNameError or UsageError for unknown methods, flips and keys, before any data is read.
    """
    from distill.fyi import FLIPS
    from distill.methods import METHODS

    for arm in arms:
        METHODS.get(arm.method)
        FLIPS.get(arm.flip)
    recipes = {arm: session.recipe(arm.method, ipc, overridden=arm.method == arms[0].method) for arm in arms}
    session.check_overrides(list(recipes.values()))
    return recipes


def set_runs(session: Session, seeds: Mapping[Arm, Sequence[int]], ipc: int) -> dict[tuple[Arm, int], RunSpec]:
    """The run of every set of whole data: (arm, seed) -> it, for the seeds of each arm."""
    from fyi_bench.run.types.distill import distill_run

    recipes, precision = recipes_of(session, list(seeds), ipc), session.settings.precision
    return {
        (arm, seed): distill_run(session.data, arm.method, arm.flip, ipc, seed, recipes[arm], precision=precision)
        for arm, own in seeds.items()
        for seed in own
    }


def facts_of(session: Session, options: Any) -> dict[str, Any]:
    """What the options of `continual` or `nas` state about sets that are files; `--ipc` only where it was given."""
    return options.facts | ({"ipc": options.ipc} if "ipc" in session.settings.given else {})


def seeds_of(session: Session, count: int) -> list[int]:
    """As many seeds as the user asked for, else `count`."""
    return [session.settings.seed + k for k in range(session.settings.seeds or count)]


@dataclass(frozen=True)
class Repeated:
    """Seeds of the sets of an arm, and how many networks are trained on each.

    elsewhere: of every architecture but the first.
    """

    seeds: Sequence[int]
    networks: int
    elsewhere: int


def repeated(session: Session, protocol: Protocol, arms: Iterable[Arm], sets: int) -> dict[Arm, Repeated]:
    """How often each arm is repeated: `sets` times or as the user asks, the floor as `Protocol.repetitions` has it."""
    found, first = {}, session.settings.seed
    for arm in arms:
        # what draws and what networks differ by is told apart on one architecture; large ones cost more than the rest
        (count, networks), (_, elsewhere) = (
            protocol.repetitions(arm.method, session.settings.seeds or sets, fewest) for fewest in (2, 1)
        )
        found[arm] = Repeated([first + k for k in range(count)], networks, elsewhere)
    return found


def images_of(run: RunSpec) -> int:
    """Images of the set a `distill` run makes."""
    return len(run.inputs["classes"]) * run.inputs["ipc"]


def shown_images(run: RunSpec, shape: tuple[int, int, int]) -> int:
    """Images that a pass over the set of a `distill` run shows, which may be more than it stores."""
    from distill.methods import METHODS

    inputs, classes = run.inputs, len(run.inputs["classes"])
    return classes * METHODS.get(inputs["method"]).shown(inputs["config"], inputs["ipc"], classes, shape)


def summary(values: Sequence[float]) -> dict[str, Any]:
    """values, mean and population standard deviation (the papers' convention)."""
    from fyi_bench.stats import mean_std

    mean, std = mean_std(values)
    return {"values": list(values), "mean": mean, "std": std}


def summary_of_sets(values: Sequence[float], owners: Sequence[Hashable]) -> dict[str, Any]:
    """`summary` of networks, and apart what sets and what networks differ by; owners: the set of each value."""
    from fyi_bench.stats import spread

    return {**summary(values), "spread": spread(values, owners)}


def flip_difference(
    arms: Sequence[Arm], values: Mapping[Arm, Sequence[float]], seeds: Sequence[int]
) -> dict[str, Any] | None:
    """Paired difference (with the flip minus without) where two arms differ only in it; else None.

    seeds: of the set (or class order) behind each value. Networks trained on one set are not independent, so with
    several sets their differences are averaged set by set first; with a single set the networks are the pairs.
    """
    from fyi_bench.stats import paired_difference

    groups = list(seeds) if len(set(seeds)) > 1 else None
    for arm in arms:
        base = Arm(arm.method, "none")
        if arm.flip != "none" and base in values:
            return paired_difference(values[arm], values[base], groups=groups)
    return None


def size_of_parts(parts: Mapping[str, int], classes: int) -> dict[str, Any]:
    """What every record says of the size of a set: `set_bytes`, and `bits_per_class` by part with their `total`.

    parts: bytes of the `stored` images or rows, the `labels` and the `decoder`, as `ImageSet.parts` has them.
    """
    bits = {name: 8 * size / classes for name, size in parts.items()}
    return {"set_bytes": sum(parts.values()), "bits_per_class": {**bits, "total": sum(bits.values())}}


def size_of(made: Mapping[str, Any], classes: int) -> dict[str, Any]:
    """`size_of_parts` of the set that a run's record is about; earlier runs say the total alone."""
    if parts := made.get("set_parts"):
        return size_of_parts(parts, classes)
    return {"set_bytes": made["set_bytes"], "bits_per_class": {"total": 8 * made["set_bytes"] / classes}}


def size_of_draw(made: Mapping[str, Any], classes: int) -> dict[str, Any]:
    """`size_of_parts` of random real images, by the record of the run that drew them."""
    parts = {"stored": made["set_bytes"] - made["label_bytes"], "labels": made["label_bytes"], "decoder": 0}
    return size_of_parts(parts, classes)


def digest_of_runs(task: str, runs: Iterable[RunSpec]) -> str:
    """Digest of an answer: of the runs it is made of."""
    return digest_of({"task": task, "cells": sorted({run.digest for run in runs})})

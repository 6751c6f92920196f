"""What several commands share: arms of a comparison, summaries over repetitions, the digest of a command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill.fyi import FLIPS
from distill.methods import METHODS
from distill.recipes import Recipe
from fyi_bench.files import digest_of
from fyi_bench.session import Session
from fyi_bench.stats import mean_std, paired_difference
from fyi_bench.store.spec import RunSpec

FLOOR = "random"  # the coreset that every comparison is held against


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: a method with or without a flip."""

    method: str
    flip: str

    @property
    def title(self) -> str:
        """'dsa', 'dsa+fyi', 'random'."""
        return self.method if self.flip == "none" else f"{self.method}+{self.flip}"


def arms_of(method: str, flip: str, only: bool, floor: bool) -> list[Arm]:
    """The arms a command runs: with a flip also without it, and random real images as the floor; `only` drops both."""
    if only:
        return [Arm(method, flip)]
    arms = [Arm(method, "none")]
    if flip != "none":
        arms.append(Arm(method, flip))
    if floor and method != FLOOR:
        arms.append(Arm(FLOOR, "none"))
    return arms


def recipes_of(session: Session, arms: Sequence[Arm], ipc: int) -> dict[Arm, Recipe]:
    """Each arm's recipe. The user's values hold for the method in question, not for the random floor beside it.

    Raises UnknownNameError or UsageError for unknown methods, flips and keys, before any data is read.
    """
    for arm in arms:
        METHODS.get(arm.method)
        FLIPS.get(arm.flip)
    recipes = {arm: session.recipe(arm.method, ipc, overridden=arm.method == arms[0].method) for arm in arms}
    session.check_overrides(list(recipes.values()))
    return recipes


def summary(values: Sequence[float]) -> dict[str, Any]:
    """values, mean and population standard deviation (the papers' convention)."""
    mean, std = mean_std(values)
    return {"values": list(values), "mean": mean, "std": std}


def flip_difference(
    arms: Sequence[Arm], values: Mapping[Arm, Sequence[float]], seeds: Sequence[int]
) -> dict[str, Any] | None:
    """Paired difference (with the flip minus without) where two arms differ only in it; else None.

    seeds: of the set (or class order) behind each value. Networks trained on one set are not independent, so with
    several sets their differences are averaged set by set first; with a single set the networks are the pairs.
    """
    groups = list(seeds) if len(set(seeds)) > 1 else None
    for arm in arms:
        base = Arm(arm.method, "none")
        if arm.flip != "none" and base in values:
            return paired_difference(values[arm], values[base], groups=groups)
    return None


def digest_of_cells(task: str, cells: Iterable[RunSpec]) -> str:
    """Digest of a command: of the cells it consists of."""
    return digest_of({"task": task, "cells": sorted({cell.digest for cell in cells})})

"""The sets of a search: those that are condensed, those that come as files, and the real ones beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fyi_bench.run.types.architecture import Material, set_run, set_source
from fyi_bench.session import Session
from fyi_bench.store.spec import RunSpec
from fyi_bench.tasks.common import FLOOR, Arm, facts_of, seeds_of, set_runs, shown_images
from fyi_bench.tasks.given import given_set
from fyi_bench.tasks.nas.options import HERDING, NasOptions


@dataclass
class Sets:
    """The sets of every arm. runs: that make them. sources: (set seed, source) of each."""

    seeds: Sequence[int]
    runs: list[RunSpec] = field(default_factory=list)
    sources: dict[Arm, list[tuple[int, Material]]] = field(default_factory=dict)
    ipcs: dict[Arm, int | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add(self, arm: Arm, seed: int, run: RunSpec, images: int, ipc: int | None) -> None:
        self.runs.append(run)
        self.sources.setdefault(arm, []).append((seed, set_source(run, images)))
        self.ipcs[arm] = ipc


def condensed(session: Session, options: NasOptions) -> Sets:
    """The sets of every arm that is asked for."""
    made = Sets(seeds_of(session, 1))
    seeds = {arm: _draws(session, arm, made.seeds) for arm in options.arms}
    for (arm, seed), run in set_runs(session, seeds, options.ipc).items():
        made.add(arm, seed, run, shown_images(run, session.data.train.shape), options.ipc)
    return made


def _draws(session: Session, arm: Arm, seeds: Sequence[int]) -> list[int]:
    """Seeds of an arm's sets: those of all arms, or for the floor so many times as many that there are enough draws.

    A ranking by several sets is better than one by one of them, so each of the floor's is made of as many draws as
    another arm has sets.
    """
    draws, _ = session.protocol("nas").repetitions(arm.method, len(seeds))
    return [seeds[0] + k for k in range(math.ceil(draws / len(seeds)) * len(seeds))]


def rankings_of(arm: Arm, made: Sets) -> int:
    """How many rankings an arm's networks give: of the floor as many as it has draws beside another arm's sets."""
    return len(made.sources[arm]) // len(made.seeds) if arm == Arm(FLOOR, "none") else 1


def from_files(session: Session, options: NasOptions) -> Sets:
    """The sets of files, and real images by lot and by herding, in the number of the first, beside them."""
    from fyi_bench.run.types.distill import distill_run

    seed = session.settings.seed
    made = Sets([seed])
    for path, name in zip(options.set_files, options.names or [""] * len(options.set_files), strict=True):
        given = given_set(session, path, facts_of(session, options))
        arm = Arm(given.method, given.flip, name or given.name)
        if arm in made.sources:
            arm = replace(arm, name=f"{arm.title} ({path.stem})")
        made.add(arm, seed, set_run(given.image_set, given.path), len(given.image_set), given.image_set.ipc)
        made.warnings += given.said
    first = next(iter(made.ipcs.values()))
    for arm in (Arm(FLOOR, "none"), HERDING):
        if options.only or not first or arm in made.sources:
            continue
        recipe, precision = session.recipe(arm.method, first, overridden=False), session.settings.precision
        for draw in _draws(session, arm, made.seeds):
            run = distill_run(session.data, arm.method, "none", first, draw, recipe, precision=precision)
            made.add(arm, draw, run, shown_images(run, session.data.train.shape), first)
    return made

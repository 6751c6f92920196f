"""`fyi-bench distill` under a protocol that evaluates a set on its way and reports the best by test accuracy.

This is how several published numbers were made (protocols `legacy-mtt`, `legacy-ftd`, `legacy-datadam` …). The number
is biased upwards by the choice; it is never put beside one of another protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.methods import METHODS
from fyi_bench.run.types.accuracy import accuracy_cell
from fyi_bench.run.types.expert import prerequisites
from fyi_bench.run.types.trail import raw_name, set_name, trail_cell
from fyi_bench.run.types.unequalness import unequalness_cell
from fyi_bench.store.record import build_record
from fyi_bench.store.spec import RunSpec
from fyi_bench.tasks.common import Arm, digest_of_cells, flip_difference, summary

if TYPE_CHECKING:
    from downstream.protocol import Protocol
    from fyi_bench.session import Session

NETWORKS_OF_A_SET = 1000  # network k of set s is drawn with seed 1000·s + k

TestKey = tuple[Arm, int, str, int, int]  # arm, set seed, architecture, iteration, network


@dataclass(frozen=True)
class Trails:
    """The sets of every arm on their way. sets: (arm, set seed) -> the `distill` cell whose way it is."""

    session: Session
    protocol: Protocol
    sets: Mapping[tuple[Arm, int], RunSpec]
    names: Sequence[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "cells", {key: self._trail(*key) for key in self.sets})

    def _trail(self, arm: Arm, seed: int) -> RunSpec:
        made = self.sets[arm, seed]
        iterations = made.inputs["config"]["iterations"]
        at = self.protocol.checkpoints(iterations) if iterations else [0]
        return trail_cell(made, at, self.warm(arm))

    def warm(self, arm: Arm) -> bool:
        """Whether networks of this arm are first trained on the images behind the average."""
        return self.protocol.warm == "raw" and METHODS.get(arm.method).averages

    def images(self, key: tuple[Arm, int]) -> int:
        """Images of a set."""
        made = self.sets[key]
        return len(made.inputs["classes"]) * made.inputs["ipc"]

    def reference(self, key: tuple[Arm, int], name: str) -> dict[str, str]:
        """A set of the way, as workers find it."""
        return {"kind": "trail", "cell": self.cells[key].digest, "name": name}

    def tests(self) -> dict[TestKey, RunSpec]:
        """The cells of every network of every checkpoint."""
        return {
            (arm, seed, name, at, net): accuracy_cell(
                self.session.data,
                self.reference((arm, seed), set_name(at)),
                self.images((arm, seed)),
                self.protocol,
                NETWORKS_OF_A_SET * seed + net,
                model=name,
                precision=self.session.settings.precision,
                warm=self.reference((arm, seed), raw_name(at)) if self.warm(arm) else None,
            )
            for (arm, seed), trail in self.cells.items()
            for name in self.names
            for at in trail.inputs["at"]
            for net in range(self.protocol.nets)
        }


@dataclass(frozen=True)
class Pick:
    """The best checkpoint of a set on an architecture: its iteration, its values, the mean of every checkpoint."""

    iteration: int
    values: list[float]
    means: dict[int, float]


def pick(values: Mapping[int, Sequence[float]]) -> Pick:
    """The checkpoint with the best mean; of equal ones the earliest, as a comparison with `>` leaves it."""
    means = {at: sum(found) / len(found) for at, found in sorted(values.items())}
    best = max(means, key=lambda at: (means[at], -at))
    return Pick(best, list(values[best]), means)


def checkpoint_job(
    session: Session, title: str, task: str, ipc: int, protocol: Protocol, sets: dict, names: Sequence[str]
) -> dict[str, Any]:
    """Take every set to its checkpoints, evaluate all of them, and return the record with the best of each."""
    trails = Trails(session, protocol, sets, names)
    tests = trails.tests()
    records = session.announce_and_compute(
        title,
        protocol.name,
        [
            ("training experts", prerequisites(sets.values())),
            ("distilling", list(trails.cells.values())),
            ("evaluating", list(tests.values())),
        ],
    )
    picks = _picks(trails, {key: records[cell.digest]["value"] for key, cell in tests.items()})
    scores = _scores(session, trails, picks)
    arms = list(dict.fromkeys(arm for arm, _ in sets))
    seeds = list(dict.fromkeys(seed for _, seed in sets))
    values = {arm: [v for seed in seeds for v in picks[arm, seed, names[0]].values] for arm in arms}
    difference = flip_difference(arms, values, [seed for seed in seeds for _ in range(protocol.nets)])
    return build_record(
        task,
        **session.facts(protocol),
        seeds=seeds,
        digest=digest_of_cells(task, [*trails.cells.values(), *tests.values()]),
        arms=[_arm_entry(trails, arm, ipc, seeds, picks, records, scores) for arm in arms],
        **({"difference": difference} if difference else {}),
        chosen_on_test=True,
        data={"note": session.data.note, "train": session.data.train_digest},
        store=str(session.store.root),
    )


def _picks(trails: Trails, values: Mapping[TestKey, float]) -> dict[tuple[Arm, int, str], Pick]:
    gathered: dict[tuple[Arm, int, str], dict[int, list[float]]] = {}
    for (arm, seed, name, at, _), value in values.items():
        gathered.setdefault((arm, seed, name), {}).setdefault(at, []).append(value)
    return {key: pick(found) for key, found in gathered.items()}


def _scores(session: Session, trails: Trails, picks: Mapping) -> dict[tuple[Arm, int], dict[str, Any]]:
    """Symmetry of the set that was picked on the first architecture."""
    cells = {
        (arm, seed): unequalness_cell(
            trails.reference((arm, seed), set_name(picks[arm, seed, trails.names[0]].iteration)),
            trails.images((arm, seed)),
            session.settings.seed,
        )
        for arm, seed in trails.sets
    }
    records = session.compute([("symmetry", list(cells.values()))])
    return {key: records[cell.digest] for key, cell in cells.items()}


def _arm_entry(trails: Trails, arm: Arm, ipc: int, seeds: Sequence[int], picks, records, scores) -> dict[str, Any]:
    cells = [trails.cells[arm, seed] for seed in seeds]
    chosen = [picks[arm, seed, trails.names[0]] for seed in seeds]
    first = records[cells[0].digest]
    files = [
        str(trails.session.store.artefact("trail", cell.digest, set_name(one.iteration)))
        for cell, one in zip(cells, chosen, strict=True)
    ]
    return {
        "method": arm.method,
        "flip": arm.flip,
        "ipc": ipc,
        "set": files[0],
        "sets": files,
        "set_digest": first["set_digests"][str(chosen[0].iteration)],
        **{key: first[key] for key in ("loss_first", "loss_last", "set_bytes")},
        "iterations": chosen[0].iteration,
        "unequalness": {
            "mean": sum(scores[arm, seed]["mean"] for seed in seeds) / len(seeds),
            **{key: scores[arm, seeds[0]][key] for key in ("std", "networks")},
        },
        "distill_s": [records[cell.digest]["wall_s"] for cell in cells],
        "architectures": [
            {
                "name": name,
                **summary([v for seed in seeds for v in picks[arm, seed, name].values]),
                "picked": [picks[arm, seed, name].iteration for seed in seeds],
                "checkpoints": [{str(at): mean for at, mean in picks[arm, seed, name].means.items()} for seed in seeds],
            }
            for name in trails.names
        ],
    }

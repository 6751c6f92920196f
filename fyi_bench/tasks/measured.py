"""Sets of several arms and seeds, the networks that are trained on them, and what a record says of both.

A protocol may evaluate a set on its way and report the best by test accuracy (`legacy-mtt`, `legacy-ftd`,
`legacy-datadam` …): this is how several published numbers were made. Such a number is biased upwards by the choice; it
is never put beside one of another protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from downstream.protocol import Protocol
from fyi_bench.run.plan import Records
from fyi_bench.run.run_type import SET_FILE
from fyi_bench.run.types.accuracy import accuracy_run
from fyi_bench.run.types.expert import prerequisites
from fyi_bench.run.types.trail import raw_name, set_name, trail_run
from fyi_bench.run.types.unequalness import unequalness_run
from fyi_bench.session import Session
from fyi_bench.store.run_dir import absent_names
from fyi_bench.store.spec import RunSpec
from fyi_bench.tasks.common import NETWORKS_OF_A_SET, Arm, Repeated, images_of, shown_images, size_of, summary_of_sets

SetKey = tuple[Arm, int]  # arm, set seed
TestKey = tuple[Arm, str, int, int, int]  # arm, architecture, set seed, iteration, network


@dataclass(frozen=True)
class Pick:
    """The best checkpoint of a set on an architecture: its iteration, its values, the mean of every checkpoint."""

    iteration: int
    values: list[float]
    means: dict[int, float]


Picks = Mapping[tuple[Arm, str, int], Pick]  # by arm, architecture, set seed


def pick(values: Mapping[int, Sequence[float]]) -> Pick:
    """The checkpoint with the best mean; of equal ones the earliest, as a comparison with `>` leaves it."""
    means = {at: sum(found) / len(found) for at, found in sorted(values.items())}
    best = max(means, key=lambda at: means[at])
    return Pick(best, list(values[best]), means)


@dataclass(frozen=True)
class Measured:
    """What is trained and tested. repeated: how often, arm by arm; made: the `distill` run of every set.

    names: of the architectures.

    on_the_way: whether sets are evaluated at the protocol's checkpoints; else at their end alone, called 0.
    """

    session: Session
    protocol: Protocol
    repeated: Mapping[Arm, Repeated]
    made: Mapping[SetKey, RunSpec]
    names: Sequence[str]

    @property
    def on_the_way(self) -> bool:
        """Whether there is a choice among checkpoints."""
        return bool(self.protocol.checkpoints_every and self.names)

    @cached_property
    def makers(self) -> dict[SetKey, RunSpec]:
        """The run that makes each set."""
        if not self.on_the_way:
            return dict(self.made)
        return {key: trail_run(run, self._checkpoints(key), self._warm(key)) for key, run in self.made.items()}

    @cached_property
    def tests(self) -> dict[TestKey, RunSpec]:
        """The run of every network of every architecture on every set."""
        return {
            (arm, name, seed, at, net): accuracy_run(
                self.session.data, self._reference((arm, seed), at), shown_images(made, self.session.data.train.shape),
                self.protocol,
                NETWORKS_OF_A_SET * seed + net, model=name, precision=self.session.settings.precision,
                warm=self._reference((arm, seed), at, raw=True) if self._warm((arm, seed)) else None,
            )
            for (arm, seed), made in self.made.items()
            for name in self.names
            for at in self._checkpoints((arm, seed))
            for net in range(self._networks(arm, name))
        }  # fmt: skip

    @property
    def runs(self) -> list[RunSpec]:
        """Experts, sets and networks."""
        return [*prerequisites(self.made.values()), *self.makers.values(), *self.tests.values()]

    def picks(self, found: Records) -> Picks:
        """The checkpoint of every set that counts on every architecture."""
        gathered: dict[tuple[Arm, str, int], dict[int, list[float]]] = {}
        for (arm, name, seed, at, _), run in self.tests.items():
            gathered.setdefault((arm, name, seed), {}).setdefault(at, []).append(found[run.digest]["value"])
        return {key: pick(values) for key, values in gathered.items()}

    def scores(self, picks: Picks) -> dict[SetKey, RunSpec]:
        """Symmetry of the sets that count on the first architecture."""
        seed = self.session.settings.seed
        return {
            key: unequalness_run(self._reference(key, self._chosen(key, picks)), images_of(made), seed)
            for key, made in self.made.items()
        }

    def values(self, arm: Arm, picks: Picks, name: str) -> list[float]:
        """Accuracies of an arm on an architecture."""
        return [value for seed in self.repeated[arm].seeds for value in picks[arm, name, seed].values]

    def owners(self, arm: Arm, name: str) -> list[int]:
        """The set, by its seed, behind each of these values."""
        return [seed for seed in self.repeated[arm].seeds for _ in range(self._networks(arm, name))]

    def entry(self, arm: Arm, picks: Picks, found: Records) -> dict[str, Any]:
        """What the arm of a record says of its sets and of the networks trained on them."""
        keys, all_scores = [(arm, seed) for seed in self.repeated[arm].seeds], self.scores(picks)
        runs, at = [self.makers[key] for key in keys], [self._chosen(key, picks) for key in keys]
        records, scores = [found[run.digest] for run in runs], [found[all_scores[key].digest] for key in keys]
        first = records[0]
        names = [set_name(one) if self.on_the_way else SET_FILE for one in at]
        files = [self._file(run, name) for run, name in zip(runs, names, strict=True)]
        facts = {key: first.get(key) for key in ("set_digest", "iterations")}
        if self.on_the_way:
            facts = {"set_digest": first["set_digests"][str(at[0])], "iterations": at[0]}
        entry = {
            "set": files[0],
            "sets": files,
            **facts,
            **{key: first[key] for key in ("loss_first", "loss_last")},
            **size_of(first, len(self.made[keys[0]].inputs["classes"])),
            # over its sets, and the spread over networks of its first one
            "unequalness": {
                "mean": sum(score["mean"] for score in scores) / len(scores),
                **{key: scores[0][key] for key in ("std", "networks")},
            },
            "distill_s": [record["wall_s"] for record in records],
        }
        if not self.on_the_way:
            entry["cells"] = [run.digest for run in runs]
        if self.names:
            entry["architectures"] = [self._architecture(arm, name, picks) for name in self.names]
        return entry

    def _file(self, run: RunSpec, name: str) -> str | None:
        """Where a set lies; None in an excerpt of a store that has it by its digest alone."""
        store = self.session.store
        if name in absent_names(store.root / run.kind / run.digest):
            return None
        return str(store.artefact(run.kind, run.digest, name))

    def _architecture(self, arm: Arm, name: str, picks: Picks) -> dict[str, Any]:
        entry = {"name": name, **summary_of_sets(self.values(arm, picks, name), self.owners(arm, name))}
        if self.on_the_way:
            picked = [picks[arm, name, seed] for seed in self.repeated[arm].seeds]
            entry["picked"] = [one.iteration for one in picked]
            entry["checkpoints"] = [{str(at): mean for at, mean in one.means.items()} for one in picked]
        return entry

    def _networks(self, arm: Arm, name: str) -> int:
        own = self.repeated[arm]
        return own.networks if name == self.names[0] else own.elsewhere

    def _checkpoints(self, key: SetKey) -> Sequence[int]:
        whole = self.made[key].inputs["config"]["iterations"]
        return self.protocol.checkpoints(whole) if self.on_the_way and whole else [0]

    def _warm(self, key: SetKey) -> bool:
        """Whether networks of this arm are first trained on the images behind the average."""
        from distill.methods import METHODS

        return self.on_the_way and self.protocol.warm == "raw" and METHODS.get(key[0].method).averages

    def _reference(self, key: SetKey, at: int, raw: bool = False) -> dict[str, str]:
        """A set, as workers find it."""
        run = self.makers[key]
        on_the_way = {"kind": run.kind, "name": (raw_name if raw else set_name)(at)} if self.on_the_way else {}
        return {"cell": run.digest, **on_the_way}

    def _chosen(self, key: SetKey, picks: Picks) -> int:
        return picks[key[0], self.names[0], key[1]].iteration if self.on_the_way else 0

"""Results that go into one number, and what they say: accuracies of networks, searches over the 720 ConvNets."""

from __future__ import annotations

import bisect
import functools
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from distill.methods import METHODS
from distill.recipes import Recipe, declared, recipe
from downstream import nas
from downstream.protocol import protocol
from fyi_bench.data.entry import DATASETS, find_entry
from fyi_bench.errors import FyiBenchError
from fyi_bench.present.published import Published
from fyi_bench.present.words import is_number
from fyi_bench.stats import mean_interval, mean_std, paired_difference, paired_rank_difference, rank_report, spread
from search_space import space720

PAPER = "paper"
SPACE = "space720"  # stands as the architecture of a search
FEWEST_SETS = 3  # that a verdict needs
ROUNDING = 0.0005  # published accuracies have one decimal in percent
WITHIN, OUTSIDE, UNDECIDED = "within", "outside", "undecided"
VERDICT_RULE = (
    f"{WITHIN}: our mean lies in the published mean ± deviation. {OUTSIDE}: it does not, and neither does any value "
    f"of the 95 % interval (Student's t) of our mean over sets. {UNDECIDED}: fewer than {FEWEST_SETS} sets, or the "
    "mean lies outside and the interval still reaches in. The published deviation is of single networks, sets and "
    "networks pooled; 0.05 points are allowed for rounding."
)
PRECISION = "precision "  # begins the mark of a number that was not computed in fp32
Result = tuple[int, int, str]  # seed of the set, seed of the network, architecture


@dataclass(frozen=True)
class Ours:
    """Our number, all its values measured by one protocol from one setting.

    values: by (seed of the set, seed of the network), fractions for accuracies. expected: values the protocol asks for.
    low, high: 95 % interval where the metric has one. differs: what is not as published, in words. remarks: what the
    recipe says of itself, its notes and what of it is inferred.
    """

    values: Mapping[tuple[int, int], float]
    mean: float
    std: float
    protocol: str
    version: int
    expected: int
    low: float | None = None
    high: float | None = None
    differs: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def marks(self) -> tuple[str, ...]:
        """All that is to be said of the number, in words."""
        return (*self.differs, *self.remarks)

    @cached_property
    def sets(self) -> Mapping[int, list[float]]:
        """The values by the seed of their set."""
        found: dict[int, list[float]] = defaultdict(list)
        for (of_set, _), value in self.values.items():
            found[of_set].append(value)
        return found

    @cached_property
    def interval(self) -> Mapping[str, Any]:
        """{mean, low, high, n} over the sets, networks of each averaged first."""
        return mean_interval([sum(v) / len(v) for v in self.sets.values()])

    def verdict(self, published: Published) -> str:
        """The word of `VERDICT_RULE` on this number beside a published one."""
        allowed = (published.std or 0.0) + ROUNDING
        if len(self.sets) < FEWEST_SETS:
            return UNDECIDED
        if abs(self.mean - published.value) <= allowed:
            return WITHIN
        low, high = (self.interval[end] - published.value for end in ("low", "high"))
        return UNDECIDED if low <= allowed and high >= -allowed else OUTSIDE

    @property
    def spread(self) -> dict[str, Any]:
        """What sets and what networks on one set differ by (`fyi_bench.stats.spread`)."""
        return spread(list(self.values.values()), [of_set for of_set, _ in self.values])


@dataclass
class Group:
    """Results of one method and flip, measured in one way.

    made, tested: inputs of one of its sets, and of one run that tested it. setup: digest of what has to be equal where
    two groups are compared. note: what is missing of the data. values: accuracies, None of networks that diverged.
    """

    made: Mapping[str, Any]
    tested: Mapping[str, Any]
    arch: str
    protocol: str
    version: int
    setup: str
    note: str
    values: dict[Result, float | None] = field(default_factory=dict)

    def number(self, metric: str) -> Ours | None:
        """The group as one number, None where it is not enough for one."""
        raise NotImplementedError

    def minus(self, plain: Group, metric: str) -> dict[str, Any] | None:
        """{mean, low, high, pairs} of this group's metric minus that of `plain`; None where nothing can be paired."""
        raise NotImplementedError

    @property
    def precision(self) -> str:
        """Precision of set and networks; 'mixed' where they differ."""
        return self.made["precision"] if self.made["precision"] == self.tested["precision"] else "mixed"

    def changes(self) -> list[str]:
        """Settings of the set that are not those of the protocol's recipe, as 'lr_img 0.5, not 1'."""
        found = self._recipe
        plain = {} if found is None else json.loads(json.dumps(dict(found.values)))
        changed = ((key, value) for key, value in self.made["config"].items() if key in plain and plain[key] != value)
        return [f"{key} {_short(value)}, not {_short(plain[key])}" for key, value in changed]

    @functools.cached_property
    def _recipe(self) -> Recipe | None:
        """The recipe its sets were made by; None where none is known here."""
        try:
            return recipe(self.made["method"], self.made["dataset"], self.made["ipc"], self.protocol.split("+")[0])
        except FyiBenchError:
            return None

    @property
    def _remarks(self) -> tuple[str, ...]:
        return () if self._recipe is None else tuple(self._recipe.remarks(self.made["flip"]))

    def _differs(self, few: str) -> list[str]:
        """What is not as published, in words; few: of how much was measured."""
        return [
            *([] if self.protocol == PAPER else [other_protocol(self.protocol)]),
            *filter(None, [few]),
            *([f"data: {self.note}"] if self.note else []),
            *([] if self.precision == "fp32" else [PRECISION + self.precision]),
        ]

    def _comparable(self, other: Group) -> bool:
        return (self.setup, self.protocol) == (other.setup, other.protocol)


class Accuracies(Group):
    """Test accuracies of networks of one architecture."""

    def number(self, metric: str) -> Ours:
        """Mean and population deviation over networks and sets."""
        values = {key[:2]: value for key, value in self.values.items() if value is not None}
        mean, std = mean_std(list(values.values()))
        expected, count = self._expected(), len(values)
        differs = self._differs(f"{count} of {expected} networks" if count < expected else "")
        if self.protocol == PAPER and self.made["method"] in METHODS:
            differs += filter(None, [declared(self.made["method"]).published_pick])
        return Ours(
            dict(sorted(values.items())), mean, std, self.protocol, self.version, expected, differs=tuple(differs),
            remarks=self._remarks,
        )  # fmt: skip

    def minus(self, plain: Group, metric: str) -> dict[str, Any] | None:
        """The paired difference over equal seeds.

        With several sets a pair is a set (its networks averaged, as they are not independent), else a network.
        """
        keys = sorted(self.values.keys() & plain.values.keys())
        if not keys or not self._comparable(plain):
            return None
        sets = [key[0] for key in keys]
        groups = sets if len(set(sets)) > 1 else None
        return paired_difference([self.values[k] for k in keys], [plain.values[k] for k in keys], groups=groups)

    def _expected(self) -> int:
        """Networks times sets that the protocol asks for; 0 where the protocol is not known here."""
        try:
            asked = protocol(self.protocol.split("+")[0], "accuracy", self.made["method"], self.made["dataset"])
        except FyiBenchError:
            return 0
        sets, networks = asked.repetitions(self.made["method"], asked.sets)
        return sets * networks


@dataclass
class RealSide:
    """Accuracies after training on real images: seed -> architecture -> accuracy, None where it diverged.

    protocol, images (None: all): how it was trained. stored: a ranking that comes with the package, of which a search
    takes the architectures there are. words: what of it is not the protocol's way.
    """

    protocol: str
    images: int | None
    runs: dict[int, dict[str, float | None]] = field(default_factory=dict)
    stored: bool = False
    words: str = ""

    @property
    def seed(self) -> int:
        """The seed that most architectures have."""
        return min(self.runs, key=lambda seed: (-len(self.runs[seed]), seed), default=0)

    @property
    def scores(self) -> dict[str, float | None]:
        """Accuracies with that seed."""
        return self.runs.get(self.seed, {})


@dataclass
class Search(Group):
    """Accuracies of the architectures of the space, to be ranked and held against a real side.

    An architecture counts with the mean of its networks that did not diverge. Only a sub-space that is complete is
    ranked: of a search under way the cheap architectures are there first, which are no sample of the space.
    """

    real: RealSide = field(default_factory=lambda: RealSide("", None))

    def number(self, metric: str) -> Ours | None:
        """A rank correlation with its interval over architectures."""
        if not self.names:
            return None
        found = self._report[metric]
        if found["value"] is None:
            return None
        differs = [*self._differs(f"{len(self.names)} of 720 architectures" if len(self.names) < 720 else "")]
        differs += [self.real.words] if self.real.words else []
        return Ours(
            {(0, 0): found["value"]}, found["value"], 0.0, self.protocol, self.version, 1, found["low"], found["high"],
            tuple(differs), self._remarks,
        )  # fmt: skip

    def minus(self, plain: Group, metric: str) -> dict[str, Any] | None:
        """The difference of both correlations with the real side, paired over architectures."""
        if not isinstance(plain, Search) or not self._comparable(plain) or self.real != plain.real:
            return None
        names = [name for name in self.names if name in plain.names]
        if not names:
            return None
        sides = [self.real.scores[name] for name in names], self.scores(names), plain.scores(names)
        found = paired_rank_difference(*sides, self.real.seed)[metric]
        return found if is_number(found["mean"]) else None

    def scores(self, names: Sequence[str]) -> list[float | None]:
        """Accuracy of each architecture over the networks whose seeds have all architectures that are ranked."""
        runs = [run for run in self._runs.values() if run.keys() >= set(self.names)]
        kept = [[value for run in runs if (value := run[name]) is not None] for name in names]
        return [sum(values) / len(values) if values else None for values in kept]

    @functools.cached_property
    def names(self) -> list[str]:
        """The architectures that are ranked, in the order in which a search trains them; none while it is under way."""
        real = self.real.scores.keys()
        covered = max((run.keys() & real for run in self._runs.values()), key=len)

        def space(count: int) -> dict[str, space720.Point]:
            points = {nas.architecture_name(point): point for point in space720.subset(count)}
            return {name: points[name] for name in points if name in real or not self.real.stored}

        # sub-spaces are nested: the largest that is complete
        counts = range(1, len(space720.SPACE) + 1)
        count = bisect.bisect_left(counts, True, key=lambda count: not space(count).keys() <= covered)
        found = space(count) if count else {}
        if 2 * len(found) < len(covered):
            return []
        return [nas.architecture_name(point) for point in nas.cheap_first(found.values(), *self._sizes())]

    def _sizes(self) -> tuple[int, int, int]:
        """Channels, pixels a side and classes of the images; the size of most for a data set that is not known here."""
        name, classes = self.made["dataset"], len(self.made["classes"])
        if name.partition(":")[0] not in DATASETS:
            return 3, 32, classes
        entry = find_entry(name)
        return entry.channels, entry.size or 32, entry.num_classes or classes

    @functools.cached_property
    def _report(self) -> dict[str, Any]:
        return rank_report([self.real.scores[name] for name in self.names], self.scores(self.names), self.real.seed)

    @functools.cached_property
    def _runs(self) -> dict[tuple[int, int], dict[str, float | None]]:
        """Architecture -> accuracy, for the seeds of each set and network."""
        found: dict[tuple[int, int], dict[str, float | None]] = {}
        for (of_set, of_network, name), value in sorted(self.values.items(), key=lambda item: item[0]):
            found.setdefault((of_set, of_network), {})[name] = value
        return found


def other_protocol(name: str) -> str:
    """'protocol quick ≠ paper'."""
    return f"protocol {name} ≠ {PAPER}"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

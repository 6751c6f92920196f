"""The architecture-search space: 720 ConvNets, 4 widths x 4 depths x 5 norms x 3 activations x 3 poolings.

The grid is the set of ablations of the dataset-condensation code (Zhao et al. 2021); FYI and FTD rank its
networks. A point's name lists its factors, `w128-d3-instance-relu-avg`, and `convnet-` before it makes it an
architecture name. The order is fixed: results refer to it, and a test holds its digest.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from fyi_bench.errors import UnknownNameError, UsageError
from fyi_bench.rng import key_seed
from search_space import names
from search_space.convnet import ConvNetConfig, count_flops, count_parameters

# Order matters: names, indices and subsets follow from it.
LEVELS: dict[str, tuple[Any, ...]] = {
    "width": (32, 64, 128, 256),
    "depth": (1, 2, 3, 4),
    "norm": ("none", "batch", "layer", "instance", "group"),
    "act": ("sigmoid", "relu", "leakyrelu"),
    "pool": ("none", "max", "avg"),
}


@dataclass(frozen=True, order=True)
class Point:
    """One architecture of the space."""

    width: int
    depth: int
    norm: str
    act: str
    pool: str

    @property
    def name(self) -> str:
        return names.spell(**asdict(self))

    @property
    def index(self) -> int:
        return _INDEX[self]

    @property
    def architecture(self) -> str:
        """What `search_space.build` knows it by."""
        return f"convnet-{self.name}"

    @property
    def factors(self) -> dict[str, Any]:
        """Level of each design factor."""
        return asdict(self)

    def config(self, channels: int = 3, size: int = 32, classes: int = 10) -> ConvNetConfig:
        """The ConvNet of this point for images [channels, size, size]."""
        return ConvNetConfig(channels, size, classes, **asdict(self))


SPACE: tuple[Point, ...] = tuple(Point(*levels) for levels in itertools.product(*LEVELS.values()))
_INDEX = {point: index for index, point in enumerate(SPACE)}


def name(index: int) -> str:
    """Index 0..719 -> name. UsageError outside."""
    if not 0 <= index < len(SPACE):
        raise UsageError(f"The search space has points 0 to {len(SPACE) - 1}, there is no {index}.")
    return SPACE[index].name


def index(name: str) -> int:
    """Name -> index; the parts may come in any order."""
    return point(name).index


def point(name: str) -> Point:
    """Name -> point. UnknownNameError for an unknown part or level, UsageError for a missing or doubled factor."""
    levels = names.read(name)
    missing = [factor for factor in LEVELS if factor not in levels]
    if missing:
        raise UsageError(
            f"'{name}' does not say the {' and '.join(missing)}.\nA full name is like {SPACE[0].name} or {_EXAMPLE}."
        )
    for factor, level in levels.items():
        if level not in LEVELS[factor]:
            known = [names.spell(**{factor: allowed}) for allowed in LEVELS[factor]]
            raise UnknownNameError(f"{factor} of the search space", names.spell(**{factor: level}), known)
    return Point(**levels)


_SWEEPS = 2
_EXAMPLE = Point(128, 3, "instance", "relu", "avg").name


def parameters(point: Point, channels: int = 3, size: int = 32, classes: int = 10) -> int:
    """Trainable parameters of a point (see `convnet.count_parameters`)."""
    return count_parameters(point.config(channels, size, classes))


def flops(point: Point, channels: int = 3, size: int = 32, classes: int = 10) -> int:
    """Forward operations of one image, a multiply-add counted as 2 (see `convnet.count_flops`)."""
    return count_flops(point.config(channels, size, classes))


def subset(n: int, seed: int = 0) -> tuple[Point, ...]:
    """`n` points, stratified: for every factor, the counts of its levels differ by at most 1.

    Deterministic, in the order of SPACE; every point is equally likely over seeds. Subsets of one seed are
    nested (`subset(60)` is part of `subset(120)`), so a search can be widened and keeps its results.
    `subset(720)` is the whole space. UsageError unless 1 <= n <= 720.
    """
    if not 1 <= n <= len(SPACE):
        raise UsageError(f"A subset of the search space has 1 to {len(SPACE)} points, not {n}.")
    return tuple(SPACE[i] for i in sorted(_sequence(seed)[:n]))


@lru_cache(maxsize=16)
def _sequence(seed: int) -> tuple[int, ...]:
    """All indices in an order whose every prefix is balanced in every factor.

    Width, norm and activation cycle with periods 4, 5 and 3, coprime, so 60 steps meet each of their 60
    combinations once. Depth is the width's position plus a shift that is constant over 4 aligned steps,
    pooling the activation's plus one constant over 3: both stay balanced in each such block. A shift is
    the sum of one for the place in the round of 60 and one for the round; over the 12 rounds the latter
    run through all 4 x 3 pairs, so that no point comes twice.
    """
    order = {factor: _shuffled(len(levels), seed, factor) for factor, levels in LEVELS.items()}
    rounds4, rounds3 = _shuffled(4, seed, "depth rounds"), _shuffled(3, seed, "pool rounds")
    places = _balanced_round(seed)
    sequence = []
    for turn in range(12):
        shift = (0, rounds4[turn % 4], 0, 0, rounds3[turn % 3])
        for positions in places:
            levels = (
                LEVELS[factor][order[factor][(position + moved) % len(LEVELS[factor])]]
                for factor, position, moved in zip(LEVELS, positions, shift)
            )
            sequence.append(_INDEX[Point(*levels)])
    return tuple(sequence)


def _balanced_round(seed: int) -> list[tuple[int, ...]]:
    """Level positions, in the order of LEVELS, of the 60 places of a round.

    Each run of shifts is a permutation, so any choice of permutations keeps the factors balanced; from a
    keyed start, each in turn takes the one that balances the pairs of factors best.
    """
    depth = [tuple(_shuffled(4, seed, f"depth places {run}")) for run in range(4)]
    pool = [tuple(_shuffled(3, seed, f"pool places {run}")) for run in range(7)]
    for _, runs in itertools.product(range(_SWEEPS), (depth, pool)):
        for position, current in enumerate(runs):
            scores: dict[tuple[int, ...], float] = {}
            for trial in (current, *itertools.permutations(sorted(current))):
                runs[position] = trial
                scores.setdefault(trial, _pair_imbalance(_places(depth, pool)))
            runs[position] = min(scores, key=scores.__getitem__)
    return _places(depth, pool)


def _places(depth: list[tuple[int, ...]], pool: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    shifts4, shifts3 = list(itertools.chain(*depth)), list(itertools.chain(*pool))
    return [(t % 4, (t + shifts4[t // 4]) % 4, t % 5, t % 3, (t + shifts3[t // 3]) % 3) for t in range(60)]


def _pair_imbalance(places: list[tuple[int, ...]]) -> float:
    """Squared excess of the counts of all pairs of levels, after each third of the round."""
    sizes = [len(levels) for levels in LEVELS.values()]
    total = 0.0
    for n, (a, b) in itertools.product((20, 40, 60), itertools.combinations(range(len(sizes)), 2)):
        counts = Counter((place[a], place[b]) for place in places[:n])
        total += sum(count**2 for count in counts.values()) / n - n / (sizes[a] * sizes[b])
    return total


def _shuffled(count: int, seed: int, purpose: str) -> list[int]:
    # sorted by keyed hash: the same on every machine and with every version of every library
    return sorted(range(count), key=lambda item: key_seed(seed, "space720", purpose, item))

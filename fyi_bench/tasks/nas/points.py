"""Which architectures a search is about: a whole space, a part of it, a list in a file, or as many as fit a time.

The part that fits follows from what is asked, for two cores of a stated speed: it is the same on every machine that
computes in this precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.duration import format_duration, parse_duration
from fyi_bench.errors import DataError, UnknownNameError, UsageError
from fyi_bench.files import read_text
from fyi_bench.present.words import count_words

if TYPE_CHECKING:
    from downstream.nas import Architecture
    from fyi_bench.data import RealDataset
    from search_space.spaces import SearchSpace

Known = Mapping[str, Any] | None  # what a stored ranking has, by name
AUTO = "auto"
CONVNETS = "convnets"
SPACE_SEED = 0  # one sequence of sub-spaces, so that results of all seeds and machines are about the same networks
FEWEST = 3  # architectures below which nothing can be ranked
# below so many a bootstrap is no interval (their coverage was measured from 30 on), and of those trained twice
FEWEST_TOLD, FEWEST_REPEATED = 20, 10
# a part that is sized by itself: the least, of which as many stay as can be told from; then in such steps; the most
_LEAST, _STEP, _MOST = 25, 12, 720
HALF_AN_HOUR = 1800.0  # seconds
# a network is costly that alone takes such a share of the time; so large a share of a part may be left out for that,
# and of the least part all but as many as can be told from, as there is no other way to fit
_COSTLY, _MOST_COSTLY = 0.1, 1 / 6
# two cores, what of their time networks get, and the part of a training pass that a test pass takes
_CORES, _NETWORKS_SHARE, TEST_PASS = 2, 0.85, 0.35
# seconds a core takes for an image's effort, forward and backward; bf16 is for cores that have instructions for it,
# fp32 is measured on slow ones without, so that a search is done in time on nearly every machine
_SECONDS_AN_EFFORT = {"bf16": 7e-12, "fp32": 28e-12}


@dataclass(frozen=True)
class Part:
    """The architectures of a search. of: how many its space has.

    seconds: of two cores that it was cut to fit, None where it was not. costly: how many were left out for that.
    fits: whether it does, by an estimate; the least part may not. unranked: how many of those that were asked for are
    not in the stored ranking. held: how many of the space that has, None without one.
    """

    space: str
    points: Sequence[Architecture]
    of: int
    seconds: float | None = None
    costly: int = 0
    fits: bool = True
    unranked: int = 0
    held: int | None = None

    @property
    def cut(self) -> bool:
        """Whether there was no time for all that could be compared."""
        there = self.of if self.held is None else self.held
        return self.seconds is not None and len(self.points) < there

    @property
    def words(self) -> list[str]:
        """What was left out and how to ask for all, where the part was cut."""
        if self.unranked:
            missing = count_words(self.unranked, "architecture")
            return [f"{missing} left out that the ranking does not have; all: --reference train"]
        if self.held is not None and len(self.points) == self.held < self.of:
            return [f"the {self.held} architectures that the ranking has; others: --reference train"]
        if self.seconds is None or not self.cut:
            return []
        others = "N" if self.space == CONVNETS else f"{self.space}:N"
        here, how = (
            (self.of, "a stratified choice") if self.space == CONVNETS else (f"{self.space}:{self.of}", "drawn by lot")
        )
        costly = f", {count_words(self.costly, 'costly one')} left out" if self.costly else ""
        fit = f" fit {format_duration(self.seconds)} of 2 cores" if self.fits else ", the least part there is"
        return [
            f"{len(self.points)} of {self.of:,} architectures{fit}{costly};",
            f"{how}; all: --space {here}; others: --space {others} (finished runs are used again)",
        ]


@dataclass(frozen=True)
class Passes:
    """Images that go through every network of a search: trained on, tested on."""

    trained: float = 0.0
    tested: float = 0.0

    def plus(self, other: Passes, times: float = 1.0) -> Passes:
        """The sum of these passes and `times` the other ones."""
        return Passes(self.trained + times * other.trained, self.tested + times * other.tested)


def part_of(
    text: str, data: RealDataset, whole: bool, passes: Passes, known: Known = None, precision: str = "fp32"
) -> Part:
    """The architectures that `--space` asks for.

    whole: whether a space without a number or time is all of it, and not what fits half an hour of two cores. passes:
    of each network, in this precision. known: names that a stored ranking has, or None. Raises UsageError or
    UnknownNameError for what is no space, DataError where a stored ranking has too few of it.
    """
    space, asked = _asked(text)
    total = len(space.names)
    if asked is None:
        asked = total if whole and total <= _MOST else HALF_AN_HOUR
    if isinstance(asked, int):
        if 0 < asked < FEWEST:
            raise UsageError(f"{count_words(asked, 'architecture')} cannot be ranked.\nAsk for {FEWEST} or more.")
        there = ranked_in(_subset(space, asked, known), known)
        return Part(space.name, there, total, unranked=asked - len(there))
    found, costly, fits = _fitting(space, data, asked / _SECONDS_AN_EFFORT[precision], passes, known)
    held = None if known is None else sum(in_ranking(point, known) for point in space.subset(total, SPACE_SEED))
    return Part(space.name, ranked_in(found, known), total, asked, costly, fits, held=held)


def _subset(space: SearchSpace, count: int, known: Known) -> Sequence[Architecture]:
    """So many of a space; of one that is drawn by lot those that a stored ranking has, as far as they go."""
    from search_space.spaces import SearchSpace

    if known is None or type(space).subset is not SearchSpace.subset:
        return space.subset(count, SPACE_SEED)
    ranked = {name.removeprefix(f"{space.name}:") for name in known}
    held = sum(name in ranked for name in space.names)
    return space.drawn(min(count, held), SPACE_SEED, ranked) if held else space.subset(count, SPACE_SEED)


def _asked(text: str) -> tuple[SearchSpace, int | float | None]:
    """The space, and how many of it or (a float) seconds of two cores that it is to fit; None where neither is said."""
    from search_space.spaces import SPACES, space

    name, colon, count = text.rpartition(":")
    if colon and name == AUTO:
        return space(CONVNETS), parse_duration(count)
    if text == AUTO or text in SPACES:
        return space(CONVNETS if text == AUTO else text), None
    if text.lstrip("-").isdigit():
        return space(CONVNETS), int(text)
    if colon and count.isdigit() and name in SPACES:
        return space(name), int(count)
    if Path(text).is_file():
        listed = listed_space(Path(text))
        return listed, len(listed.names)
    raise UnknownNameError(
        "search space", text, [AUTO, f"{AUTO}:10m", *SPACES.names(), "a number", "a file with a name on each line"]
    )


def listed_space(path: Path) -> SearchSpace:
    """The architectures that a file names, one a line; what follows `#` is a remark.

    A name is one of the 720 ConvNets, one of another search space with that before a colon, or any of
    `fyi-bench ls archs`.
    """
    from search_space.architectures import candidate
    from search_space.spaces import SearchSpace

    found: dict[str, Architecture] = {}
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}.\nGive a text file with one name on each line.") from error
    for number, line in enumerate(lines, start=1):
        word = line.partition("#")[0].strip()
        if not word:
            continue
        try:
            point = candidate(word)
        except UnknownNameError as error:
            raise UnknownNameError(f"{path.name}, line {number}: {error.kind}", error.name, error.known) from None
        except UsageError as error:
            raise UsageError(f"{path.name}, line {number}: {error}") from None
        if point.name in found:
            raise UsageError(f"{path.name}, line {number}: {point.name} comes twice.\nRemove one of the lines.")
        found[point.name] = point
    if len(found) < FEWEST:
        raise UsageError(f"{path.name} names {len(found)} architectures, too few to rank.\nName {FEWEST} or more.")

    class Listed(SearchSpace):
        """What the file names."""

        def subset(self, count: int, seed: int = 0) -> tuple[Architecture, ...]:
            return tuple(found.values())[:count]

    listed = Listed()
    listed.name, listed.names = path.name, tuple(found)  # type: ignore[misc]
    return listed


def _fitting(
    space: SearchSpace, data: RealDataset, efforts: float, passes: Passes, known: Known
) -> tuple[Sequence[Architecture], int, bool]:
    """The largest part whose networks fit, of those that the ranking has if there is one; how many were too costly;
    whether they fit, which the least part may not.

    efforts: that a core makes in the time there is.
    """
    from downstream.nas import effort

    sizes = *data.train.shape[:2], data.num_classes
    images = passes.trained + TEST_PASS * passes.tested
    most, fits = min(len(space.names), _MOST), _NETWORKS_SHARE * efforts * _CORES
    chosen: Sequence[Architecture] = ()
    costly, total = 0, 0.0
    for count in sorted({min(_LEAST, most), *range(3 * _STEP, most, _STEP), most}):
        points = [point for point in space.subset(count, SPACE_SEED) if known is None or in_ranking(point, known)]
        takes = {point: images * effort(point, *sizes) for point in points}
        dear = sorted((point for point in points if takes[point] > _COSTLY * fits), key=lambda point: -takes[point])
        told = len(chosen) >= FEWEST_TOLD
        spare = int(_MOST_COSTLY * len(points)) if told else max(0, len(points) - FEWEST_TOLD)
        out = set(dear[:spare])  # of equal ones the first of the space, in every process
        spent = sum(takes[point] for point in points if point not in out)
        if told and spent > fits:
            break
        chosen, costly, total = [point for point in points if point not in out], len(out), spent
    return chosen, costly, total <= fits


def in_ranking(point: Architecture, known: Mapping[str, Any]) -> bool:
    """Whether a ranking has this architecture, by its whole name or by that in its space."""
    return ranked_name(point, known) is not None


def ranked_name(point: Architecture, known: Mapping[str, Any]) -> str | None:
    """The name by which a ranking has an architecture."""
    names = (point.name, point.name.partition(":")[2], point.architecture)
    return next((name for name in names if name in known), None)


def ranked_in(points: Sequence[Architecture], known: Known) -> Sequence[Architecture]:
    """The points that a ranking has. DataError where these are too few to compare."""
    if known is None:
        return points
    found = [point for point in points if in_ranking(point, known)]
    if len(found) < FEWEST:
        raise DataError(
            f"The ranking has {len(found)} of the {len(points)} architectures asked for, too few to compare.\n"
            "Use --reference train, or a --space that the ranking covers."
        )
    return found

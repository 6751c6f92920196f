"""Search spaces by name: sets of architectures that a search ranks, built in or from plug-ins.

A space of your own is a subclass of `SearchSpace` with `names` and `build(name) -> nn.Module`, under the entry points
`fyi_bench.spaces`. Its architectures are called `space:name` in runs and rankings, and `search_space.build` makes them
by that name, so that every command that takes an architecture takes one of these.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fyi_bench.errors import UnknownNameError, UsageError
from fyi_bench.registry import PluginError, Registry
from fyi_bench.rng import key_seed

if TYPE_CHECKING:
    from torch import nn

    from search_space.space720 import Point


@dataclass(frozen=True)
class Candidate:
    """One architecture of a search. name: in rankings. architecture: what `search_space.build` knows it by.

    levels: its design factors, (factor, level) each; none where the space tells none.
    """

    name: str
    architecture: str
    levels: tuple[tuple[str, Any], ...] = ()

    @property
    def factors(self) -> dict[str, Any]:
        """Level of each design factor."""
        return dict(self.levels)


class SearchSpace:
    """A set of architectures, each with a name.

    name: under which it is registered. names: of all of them, each once, without a comma.
    """

    name: ClassVar[str]
    names: Sequence[str] = ()

    def build(self, name: str) -> nn.Module:
        """The untrained network of a name. It may take `channels`, `size` and `classes` of the images as well."""
        raise NotImplementedError(f"the search space {self.name} has no build(name)")

    def factors(self, name: str) -> Mapping[str, Any]:
        """Design factors of an architecture, of which a report says what a proxy misjudges; none by default."""
        return {}

    def candidate(self, name: str) -> Candidate:
        """The architecture of a name, with or without `space:` before it. Raises UnknownNameError for another one."""
        own = name.removeprefix(f"{self.name}:")
        if own not in self.names:
            raise UnknownNameError(f"architecture of the search space {self.name}", own, self.names[:1000])
        full = f"{self.name}:{own}"
        return Candidate(full, full, tuple(self.factors(own).items()))

    def subset(self, count: int, seed: int = 0) -> tuple[Candidate | Point, ...]:
        """So many of them, drawn by the seed, in the order of `names`. Draws of one seed are nested."""
        return self.drawn(count, seed, set(self.names))

    def drawn(self, count: int, seed: int, among: Collection[str]) -> tuple[Candidate, ...]:
        """So many of the names that are `among` these, drawn by the seed, in the order of `names`; nested."""
        there = [k for k, name in enumerate(self.names) if name in among]
        if not 1 <= count <= len(there):
            raise UsageError(f"The search space {self.name} has 1 to {len(there)} points, not {count}.")
        by_lot = sorted(there, key=lambda k: key_seed(seed, "search space", self.name, self.names[k]))
        return tuple(self.candidate(self.names[k]) for k in sorted(by_lot[:count]))

    def network(self, name: str, channels: int, size: int, classes: int) -> nn.Module:
        """`build` with those facts of the images that it takes."""
        facts = {"channels": channels, "size": size, "classes": classes}
        takes = inspect.signature(self.build).parameters
        return self.build(name, **{key: value for key, value in facts.items() if key in takes})


# name -> space; a file in `search_space/spaces` registers by being there
SPACES: Registry[type[SearchSpace]] = Registry(
    "search space", package="search_space.spaces", group="fyi_bench.spaces", base=SearchSpace
)


def space(name: str) -> SearchSpace:
    """The space of a name. Raises UnknownNameError with the nearest one, PluginError for one that cannot be used."""
    entry = SPACES.get(name)
    found = entry() if isinstance(entry, type) else entry
    if not found.names:
        raise UsageError(f"The search space '{name}' names no architecture.\nGive it names = (…).")
    if not SPACES.owner(name).built_in:
        _check_names(name, found.names)
    return found


def _check_names(name: str, names: Sequence[str]) -> None:
    """PluginError for a space from outside whose names are no texts, or not each one's own."""
    if isinstance(names, str) or not all(isinstance(one, str) for one in names):
        raise PluginError(f'The search space \'{name}\' has names that are no texts.\nGive it names = ("…", "…").')
    if len(set(names)) < len(names):
        twice = next(one for one in names if list(names).count(one) > 1)
        raise PluginError(f"The search space '{name}' has two architectures '{twice}'.\nGive each its own name.")

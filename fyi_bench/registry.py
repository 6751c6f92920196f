"""One registry for everything that is chosen by name: methods, architectures, data sets, protocols …

Entries register by being imported; third parties add theirs through entry points of the
registry's group (for example `fyi_bench.methods`), loaded at the first look-up.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from fyi_bench.errors import UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """Name -> entry, with suggestions for unknown names.

    Parameters: `kind` is the word used in messages; `package` is scanned once so that a file in it
    registers by being there; `group` is the entry-point group of third parties.
    """

    def __init__(self, kind: str, package: str | None = None, group: str | None = None):
        self.kind, self._package, self._group = kind, package, group
        self._entries: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str, entry: T | None = None) -> Any:
        """Add an entry, directly or as a decorator. A second entry of the same name is an error."""
        if entry is None:
            return lambda thing: self.register(name, thing) or thing
        if self._entries.get(name, entry) is not entry:
            raise ValueError(f"{self.kind} '{name}' is registered twice")
        self._entries[name] = entry
        return None

    def get(self, name: str) -> T:
        """The entry, or UnknownNameError with the nearest name."""
        self._load()
        if name not in self._entries:
            raise UnknownNameError(self.kind, name, self._entries)
        return self._entries[name]

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._load()
        return sorted(self._entries)

    def __contains__(self, name: str) -> bool:
        self._load()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        if self._package:
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                if not module.name.startswith("_"):
                    importlib.import_module(f"{self._package}.{module.name}")
        if self._group:
            self._load_entry_points()

    def _load_entry_points(self) -> None:
        from importlib.metadata import entry_points

        for point in entry_points(group=self._group):
            loaded: Callable | Any = point.load()
            if point.name not in self._entries:
                self._entries[point.name] = loaded

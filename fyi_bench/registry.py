"""Things chosen by name: methods, architectures, data sets, tasks …, built in or from plug-ins, all found the same way.

Built-in entries register when their file is imported. A plug-in's stand in the entry points of the registry's group;
each is imported when it is first asked for, so that a broken one harms nobody who does not use it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from fyi_bench.errors import FyiBenchError, UnknownNameError, UsageError
from fyi_bench.files import tree_digest

T = TypeVar("T")

PACKAGES = ("search_space", "distill", "downstream", "fyi_bench")


class PluginError(FyiBenchError):
    """Something from outside that cannot be used: it does not load, is no such thing, or has the name of another."""


@dataclass(frozen=True)
class Owner:
    """Who registered an entry: a module, and for a plug-in its distribution ('name version')."""

    module: str
    distribution: str = ""

    @property
    def built_in(self) -> bool:
        """Whether the entry belongs to fyi-bench itself."""
        return not self.distribution and self.package in PACKAGES

    @property
    def package(self) -> str:
        """Top-level module the entry comes from."""
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        if self.distribution:
            return f"the distribution {self.distribution}"
        return "fyi-bench itself" if self.built_in else f"the module {self.module}"


class Registry(Generic[T]):
    """Name -> entry, in any case and with or without dashes; with suggestions for unknown names.

    kind: the word used in messages. package: its files register by being there; `by_file`: each one entry of the
    file's name, imported alone. group: entry points of plug-ins. base: class that entries are of, as subclass or
    instance ('module:Class' where it is not to be imported yet); without one they are functions. numerics: version of
    the built-in entries' numbers that state none of their own.
    """

    def __init__(
        self,
        kind: str,
        package: str | None = None,
        group: str | None = None,
        *,
        base: type | str | None = None,
        numerics: int = 1,
        by_file: bool = False,
    ):
        self.kind, self._package, self._group, self._base = kind, package, group, base
        self._family, self._by_file, self._imported = numerics, by_file, False
        self._entries: dict[str, T] = {}
        self._owners: dict[str, Owner] = {}

    def register(self, name: str, entry: T | None = None) -> Any:
        """Add an entry, directly or as a decorator. A second one of the same name is an error that names both owners.

        A class that has no name of its own gets this one, where entries have a `name`.
        """
        owner = Owner(sys._getframe(1).f_globals["__name__"])
        if entry is None:
            return lambda thing: self._add(name, thing, owner)
        self._add(name, entry, owner)
        return None

    def get(self, name: str) -> T:
        """The entry. Raises UnknownNameError with the nearest name, PluginError for one that cannot be used."""
        name = self.spelled(name)
        if name not in self._entries:
            self._import_package(name)
        if name not in self._points:
            if name not in self._entries:
                raise UnknownNameError(self.kind, name, self.names())
            return self._entries[name]
        points = [point for point in self._points.get(name, ()) if self._is_other(name, point)]
        owners = [self.owner(name)] * (name in self._entries) + [_owner(point) for point in points]
        if len(owners) > 1:
            raise PluginError(
                f"The {self.kind} '{name}' is offered by {' and by '.join(map(str, owners))}.\n"
                "Uninstall one of them, or have its entry point renamed."
            )
        if points:
            self._load(points[0])
        return self._entries[name]

    def spelled(self, name: str) -> str:
        """The name as it is registered, by `spelled_as`; one that is unknown stays what it is."""
        return name if name in self._entries else spelled_as(name, self.names())

    def names(self) -> list[str]:
        """All names, sorted; no plug-in is imported for it."""
        if not self._by_file:
            self._import_package()
        return sorted({*self._files, *self._entries, *self._points})

    def usable(self) -> tuple[dict[str, T], list[str]]:
        """All entries by name that can be used, and what is wrong with the others, for a list of what there is."""
        found, complaints = {}, []
        for name in self.names():
            try:
                found[name] = self.get(name)
            except PluginError as error:
                complaints.append(str(error))
        return found, complaints

    def owner(self, name: str) -> Owner:
        """Who registered the entry, or would."""
        name = self.spelled(name)
        return self._owners.get(name) or (_owner(self._points[name][0]) if name in self._points else Owner(__name__))

    def from_outside(self) -> set[str]:
        """Names of the entries that are not built in; nothing is imported for it."""
        return {name for name in {*self._owners, *self._points} if not self.owner(name).built_in}

    def numerics(self, name: str) -> int | str:
        """Version of an entry's numbers: its own, else its family's; of a plug-in that states none, a key of its code.

        A plug-in class built on a built-in one adds that one's version.
        """
        name = self.spelled(name)
        entry = self.get(name)
        if self.owner(name).built_in:
            return getattr(entry, "numerics", None) or self._family
        classes = entry.__mro__ if isinstance(entry, type) else (type(entry),)
        bases = [cls for cls in classes if cls.__module__.partition(".")[0] in PACKAGES]
        stated = None if _inherits(entry, bases) else getattr(entry, "numerics", None)
        own = stated if stated is not None else f"source {_source_key(self.owner(name).package, self.kind, name)}"
        below = next((n for n in (getattr(cls, "numerics", None) for cls in bases) if isinstance(n, int)), None)
        return own if below is None else f"{own} on {below}"

    def __contains__(self, name: str) -> bool:
        return self.spelled(name) in self.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    # built-in entries ------------------------------------------------------------------------------------------

    @cached_property
    def _files(self) -> dict[str, str]:
        """Entry -> module, of a package with one entry a file."""
        return {name.replace("_", "-"): f"{self._package}.{name}" for name in self._modules} if self._by_file else {}

    @cached_property
    def _modules(self) -> list[str]:
        folders = importlib.import_module(self._package).__path__ if self._package else []
        return [module.name for module in pkgutil.iter_modules(folders) if not module.name.startswith("_")]

    def _import_package(self, name: str = "") -> None:
        if name in self._files:
            importlib.import_module(self._files[name])
        elif not self._by_file and not self._imported:
            self._imported = True
            for module in self._modules:
                importlib.import_module(f"{self._package}.{module}")

    def _add(self, name: str, entry: T, owner: Owner) -> T:
        if self._entries.get(name, entry) is not entry:
            raise ValueError(f"The {self.kind} '{name}' is registered twice: by {self.owner(name)} and by {owner}.")
        self._check(name, entry, owner)
        self._entries[name], self._owners[name] = entry, owner
        return entry

    def _check(self, name: str, entry: Any, owner: Owner) -> None:
        base = self._base if not isinstance(self._base, str) else _named(self._base)
        fits = isinstance(entry, base) or _subclass(entry, base) if base else callable(entry)
        if not fits:
            wanted = f"a {base.__name__}" if base else "a function"
            raise PluginError(
                f"The {self.kind} '{name}' of {owner} is {entry!r:.60}, not {wanted}.\n"
                "Its module, or the entry point in its pyproject.toml, has to name one."
            )
        if _subclass(entry, base) and "name" in getattr(base, "__annotations__", {}):
            if vars(entry).get("name", name) != name:
                raise PluginError(
                    f"The {self.kind} '{name}' of {owner} calls itself '{entry.name}'.\nGive both the same name."
                )
            entry.name = name

    # plug-ins --------------------------------------------------------------------------------------------------

    @cached_property
    def _points(self) -> Mapping[str, list[EntryPoint]]:
        points: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self._group) if self._group else ():
            points.setdefault(point.name, []).append(point)
        return {name: sorted(found, key=lambda point: str(_owner(point))) for name, found in points.items()}

    def _is_other(self, name: str, point: EntryPoint) -> bool:
        """Whether the point is another thing than what is registered under this name already."""
        return name not in self._entries or self.owner(name).package != point.module.partition(".")[0]

    def _load(self, point: EntryPoint) -> None:
        name, owner = point.name, _owner(point)
        try:
            entry = point.load()
        except Exception as error:
            raise PluginError(
                f"The {self.kind} '{name}' of {owner} cannot be loaded: {type(error).__name__}: {_first_line(error)}\n"
                f"Its entry point is '{name} = {point.value}': mend it, or uninstall {owner}."
            ) from error
        if not (isinstance(entry, ModuleType) and name in self._entries):  # a module may have registered what is in it
            self._check(name, entry, owner)
            self._entries[name] = entry
        self._owners[name] = owner


def spelled_as(name: str, known: Iterable[str]) -> str:
    """The one of the known names that differs from this in case, dashes and underscores alone; else the name itself.

    'ResNet-18' is 'resnet18'. Raises UsageError where several do and none is the very name.
    """
    known = list(known)
    found = [name] if name in known else [one for one in known if _folded(one) == _folded(name)]
    if len(found) > 1:
        raise UsageError(f"'{name}' may be {' or '.join(map(repr, sorted(found)))}.\nWrite the one that is meant.")
    return found[0] if found else name


def _folded(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def pick(kind: str, name: str, table: Mapping[str, T]) -> T:
    """The entry of a table that is closed to plug-ins. Raises UnknownNameError with the nearest name."""
    if name not in table:
        raise UnknownNameError(kind, name, table)
    return table[name]


def _subclass(entry: Any, base: Any) -> bool:
    return isinstance(entry, type) and isinstance(base, type) and issubclass(entry, base)


def _named(path: str) -> type:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _owner(point: EntryPoint) -> Owner:
    return Owner(point.module, f"{point.dist.name} {point.dist.version}" if point.dist else "without a name")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


def _inherits(entry: Any, bases: list[type]) -> bool:
    """Whether an entry's `numerics` is a built-in base's, so that it says nothing of the entry itself."""
    if not isinstance(entry, type):
        return False
    stating = next((cls for cls in entry.__mro__ if "numerics" in vars(cls)), None)
    return stating in bases


@functools.cache
def _source_key(package: str, kind: str, name: str) -> str:
    """Digest of the code of a top-level module. Raises PluginError where there is none on the disk."""
    module = sys.modules.get(package)
    files = list(getattr(module, "__path__", None) or filter(None, [getattr(module, "__file__", None)]))
    if not files:
        raise PluginError(
            f"The {kind} '{name}' has no file whose change could be seen, so its results cannot be kept.\n"
            "Give it a version of its numbers: numerics = 1."
        )
    return tree_digest(map(Path, files))

"""The hyper-parameters of (method, data set, images a class, protocol), each with the source of its value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from distill.recipes.tables import Layer, Library, MethodFile, Table, library
from fyi_bench.errors import DataError, UnknownNameError, UsageError, unknown_name_message
from fyi_bench.files import digest_of

SET_BY_USER = "set by the user"
USUAL_IPC = (1, 10, 50)
# protocols that distil as published: the published one, and those that differ from it in the evaluation only
_AS_PUBLISHED = re.compile(r"paper|legacy(-.+)?")
_NO_DATA = "no values for this data set: the method's common ones"


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters and where they come from.

    values: key -> value (int, float, bool, str, or a tuple of numbers); the keys are described in keys.toml.
    sources: key -> where the value is published, with the reason in brackets where it is inferred.
    inferred: keys whose value is not published for this method, data set and images a class.
    overrides: what the user changed.
    """

    method: str
    dataset: str
    ipc: int
    protocol: str
    values: Mapping[str, Any]
    sources: Mapping[str, str]
    inferred: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """16 hex digits of method and values: equal digests mean equal hyper-parameters, whatever their sources."""
        return digest_of({"method": self.method, "values": dict(self.values)})

    @property
    def label(self) -> str:
        """The protocol with what the user changed, for example 'paper+lr_img=0.2'."""
        return self.protocol + "".join(f"+{key}={show(value)}" for key, value in sorted(self.overrides.items()))

    def with_overrides(self, changes: Mapping[str, Any]) -> Recipe:
        """The recipe with values given by the user, as text ('1.0', 'true', '1200,1600') or already typed.

        Raises UsageError for a key the recipe does not have (with the nearest one) or a value of the wrong type.
        """
        keys = library().keys
        for key in changes:
            if key not in self.values:
                raise UsageError(unknown_name_message(f"key of the {self.method} recipe", key, self.values))
        parsed = {key: keys[key].parse(value) for key, value in changes.items()}
        changed = {key: value for key, value in parsed.items() if value != self.values[key]}
        return replace(
            self,
            values={**self.values, **parsed},
            sources={**self.sources, **dict.fromkeys(parsed, SET_BY_USER)},
            inferred=self.inferred - set(parsed),
            overrides={**self.overrides, **changed},
        )


def recipe(method: str, dataset: str, ipc: int, protocol: str = "paper") -> Recipe:
    """The recipe of a method for a data set at `ipc` images a class.

    Order of the tables, later ones win: the method it extends, its common values, the data set's, each followed by
    the table for the images a class; then the same of the protocol's file ('quick'; 'paper' and 'legacy-…' have none).
    Images a class without published values take those of the largest published number that is not above, else of
    the smallest; data sets without values borrow as datasets.toml says, else take the common ones. Both are marked.
    Raises UnknownNameError for a method or protocol, UsageError for an impossible number of images.
    """
    books = library()
    if method not in books.methods:
        raise UnknownNameError("method", method, books.methods)
    if protocol not in books.overlays and not _AS_PUBLISHED.fullmatch(protocol):
        raise UnknownNameError("protocol", protocol, ["paper", *books.overlays])
    if ipc < 1:
        raise UsageError(f"Images per class must be 1 or more, not {ipc}.")
    collected = _Collected()
    collected.published(_chain(books.methods, method), _Home(books, method, dataset), ipc)
    if protocol in books.overlays:
        collected.overlay(books, protocol, method, dataset, ipc)
    values = {key: value for key, value in collected.values.items() if key in books.keys}
    return Recipe(
        method,
        dataset,
        ipc,
        protocol,
        values,
        collected.sources,
        frozenset(collected.inferred),
        tuple(dict.fromkeys(collected.notes)),
    )


def recipe_methods() -> list[str]:
    """Methods that have a recipe file, sorted; those without code are kept as data."""
    return sorted(library().methods)


def list_recipes(
    method: str | None = None, dataset: str | None = None, protocol: str = "paper"
) -> list[dict[str, Any]]:
    """One row per method, data set and images a class that the files know of, for `fyi-bench ls recipes`.

    Keys of a row: method, dataset, ipc, main (text of the values that differ most), status ('published',
    or how many values are 'inferred'), source (of the step size), digest.
    """
    rows = []
    for name in [method] if method else recipe_methods():
        for data in [dataset] if dataset else _datasets(name):
            for ipc in _published_ipcs(name, data):
                rows.append(_row(recipe(name, data, ipc, protocol)))
    return rows


def show(value: Any) -> str:
    """A value as a user would type it after --set key=."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(show(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


_MAIN = ("model", "iterations", "lr_img", "outer_loop", "inner_loop", "syn_steps", "max_start_epoch", "init", "augment")


def _row(found: Recipe) -> dict[str, Any]:
    inferred = sorted(found.inferred)
    return {
        "method": found.method,
        "dataset": found.dataset,
        "ipc": found.ipc,
        "main": " ".join(f"{key}={show(found.values[key])}" for key in _MAIN if key in found.values),
        "status": f"{len(inferred)} of {len(found.values)} inferred" if inferred else "published",
        "source": found.sources.get("lr_img", ""),
        "digest": found.digest,
    }


def _datasets(method: str) -> list[str]:
    """Data sets with a table of their own, families by their first member; 'any' where it does not matter."""
    books = library()
    first = {family: member for member, family in reversed(books.family.items())}
    names = {name for file in _chain(books.methods, method) for name in file.tables if name != "common"}
    return sorted(first.get(name, name) for name in names) or ["any"]


def _published_ipcs(method: str, dataset: str) -> tuple[int, ...]:
    books = library()
    home = _Home(books, method, dataset)
    return _published(_chain(books.methods, method), home) or USUAL_IPC


def _chain(methods: Mapping[str, MethodFile], method: str) -> list[MethodFile]:
    """The method's file after those it extends, base first. Raises DataError for a base that does not exist."""
    files, name = [], method
    while name:
        if name not in methods or methods[name] in files:
            raise DataError(f"The recipe of {method} extends '{name}', which has no recipe or extends itself.")
        files.insert(0, methods[name])
        name = methods[name].extends
    return files


class _Home:
    """Where a data set's values stand: names of tables, base first, and why they count as inferred ('' if not)."""

    def __init__(self, books: Library, method: str, dataset: str):
        files = _chain(books.methods, method)
        known = {name for file in files for name in file.tables}
        family = books.family.get(dataset, dataset)
        borrowed, why = books.like.get(dataset, ("", ""))
        own = dataset if dataset in known else family
        self.names: tuple[str, ...] = (own,) if own in known else (borrowed,) if borrowed in known else ()
        self.why = why if self.names == (borrowed,) else ""
        tables = [file.tables[own] for file in files if own in file.tables]
        likes = [table.like for table in tables if table.like]
        if likes:
            self.names, self.why = (likes[-1], own), f"no values of its own: those of {likes[-1]}"
        reasons = [table.unpublished for table in tables if table.unpublished]
        self.why = reasons[-1] if reasons else self.why
        if not self.names and not any(f.tables["common"].any_dataset for f in files if "common" in f.tables):
            self.why = _NO_DATA


def _tables(files: list[MethodFile], home: _Home) -> Iterator[Table]:
    for file in files:
        for name in ("common", *home.names):
            if name in file.tables:
                yield file.tables[name]


def _published(files: list[MethodFile], home: _Home) -> tuple[int, ...]:
    """Images a class with published values, () where the values hold for any; the last table that says so wins."""
    said = [table.published for table in _tables(files, home) if table.published]
    return said[-1] if said else ()


class _Collected:
    """Values while the layers are put on top of each other."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.inferred: set[str] = set()
        self.notes: list[str] = []

    def published(self, files: list[MethodFile], home: _Home, ipc: int) -> None:
        known = _published(files, home)
        nearest = max((n for n in known if n <= ipc), default=min(known, default=ipc))
        rule = "" if nearest == ipc else f"{ipc} images per class are not published: the value at {nearest}"
        for table in _tables(files, home):
            self._put(table.layer, ipc, home.why)
            layer = table.layer_at(nearest)
            if layer is not None:
                self._put(layer, ipc, home.why or rule)

    def overlay(self, books: Library, protocol: str, method: str, dataset: str, ipc: int) -> None:
        """A protocol's own values: chosen, not inferred. Keys the method does not have are an error of the file."""
        overlays = books.overlays[protocol]
        files = [overlays[f.method] for f in _chain(books.methods, method) if f.method in overlays]
        names = ("common", books.like.get(dataset, ("",))[0], books.family.get(dataset, ""), dataset)
        before = set(self.values)
        for file in files:
            for table in (file.tables[name] for name in names if name in file.tables):
                self._put(table.layer, ipc, "")
                layer = table.layer_at(ipc)
                if layer is not None:
                    self._put(layer, ipc, "")
        foreign = sorted(set(self.values) - before)
        if foreign:
            raise DataError(f"The protocol '{protocol}' sets '{foreign[0]}', which the {method} recipe does not have.")

    def _put(self, layer: Layer, ipc: int, why: str) -> None:
        scaled = {key: float(f"{value * ipc:.12g}") for key, value in layer.scaled.items()}
        for key, value in {**layer.values, **scaled}.items():
            self.values[key], self.sources[key] = value, layer.sources[key]
            self.inferred.discard(key)
            self._infer(key, "; ".join(filter(None, (layer.inferred.get(key, ""), why))))
        for key in set(layer.inferred) - set(layer.sources):
            self._infer(key, layer.inferred[key])
        self.notes.extend(layer.notes)

    def _infer(self, key: str, reason: str) -> None:
        if reason:
            self.inferred.add(key)
            self.sources[key] += f" [inferred: {reason}]"

"""Recipe files: TOML read once into layers of values, each value with its source.

A method's file has `method`, `source` (of every value that has none of its own) and optionally `extends`, the method
whose values come first. Tables are `[common]`, `[<dataset>]` and, inside either, `[<table>.ipc.<n>]`. Beside values a
table may hold these words:

  source, sources     of all values of the table; of single keys
  inferred            key -> why; these values, set here or by an earlier table, are not published
  per_ipc             key -> value for one image a class; the value is multiplied by the images a class
  ipc                 n -> table that holds from n images a class on, until the next one (at a published ipc)
  published           list of images a class with published values; others take those of the nearest (see recipe.py)
  unpublished         why nothing is published for this data set: every value counts as inferred
  like                data set whose tables come first, and from which everything is then inferred
  any_dataset         true in [common] where values do not depend on the data set
  notes               sentences for whoever uses the table

A protocol's file (`protocol = "quick"`) holds such tables per method: `[dm.common]`, `[dm.cifar10.ipc.10]`.
"""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fyi_bench.errors import DataError, UsageError

FOLDER = Path(__file__).parent
_WORDS = frozenset(
    ["source", "sources", "inferred", "per_ipc", "ipc", "published", "unpublished", "like", "any_dataset", "notes"]
)  # everything else in a table is a value


@dataclass(frozen=True)
class Key:
    """A key of recipes: its type by name, its least value (or None), its meaning."""

    name: str
    type: str
    meaning: str
    least: float | None = None

    def parse(self, value: Any) -> Any:
        """A value, or its text as typed by a user, in the key's type. Raises UsageError for anything else."""
        try:
            parsed = _PARSERS[self.type](value)
        except (TypeError, ValueError, KeyError):
            raise UsageError(f"'{value}' is not a value for {self.name}.\nIt is {_NAMES[self.type]}.") from None
        if self.least is not None and parsed < self.least:
            raise UsageError(f"{self.name} must be {self.least:g} or more, not {value}.\nIt is the {self.meaning}.")
        return parsed


@dataclass(frozen=True)
class Layer:
    """Values of one table with their sources; `scaled` are those to be multiplied by the images a class."""

    values: Mapping[str, Any]
    scaled: Mapping[str, Any]
    sources: Mapping[str, str]
    inferred: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A layer, the layers by images a class below it, and what is said about what is published."""

    layer: Layer
    by_ipc: Mapping[int, Layer]
    published: tuple[int, ...] = ()
    unpublished: str = ""
    like: str = ""
    any_dataset: bool = False

    def layer_at(self, ipc: int) -> Layer | None:
        """The layer of the largest n that is not above `ipc`."""
        below = [n for n in self.by_ipc if n <= ipc]
        return self.by_ipc[max(below)] if below else None


@dataclass(frozen=True)
class MethodFile:
    """A method's tables by name ('common' and data sets), and the method it extends."""

    method: str
    extends: str
    tables: Mapping[str, Table] = field(default_factory=dict)


@dataclass(frozen=True)
class Library:
    """All recipe files: keys, methods, overlays of protocols, and which data sets borrow from which."""

    keys: Mapping[str, Key]
    methods: Mapping[str, MethodFile]
    overlays: Mapping[str, Mapping[str, MethodFile]]
    family: Mapping[str, str]
    like: Mapping[str, tuple[str, str]]


_added: list[Path] = []


def add_recipe_file(path: str | Path) -> None:
    """Use one more recipe file, for a method from outside; a `[keys]` table in it may describe keys of its own."""
    path = Path(path)
    if path in _added:
        return
    _added.append(path)
    library.cache_clear()
    try:
        library()
    except DataError:
        _added.remove(path)
        raise


@functools.cache
def library() -> Library:
    """Everything in the recipe folder and in the files added. Raises DataError naming the file that is wrong."""
    raw = {path: read_toml(path) for path in (*sorted(FOLDER.glob("*.toml")), *_added)}
    borrowed = raw.pop(FOLDER / "datasets.toml")
    described = dict(raw.pop(FOLDER / "keys.toml"))
    for content in raw.values():
        described |= content.pop("keys", {})
    keys = {name: Key(name, **about) for name, about in described.items()}
    files = {path: content for path, content in raw.items() if "method" in content}
    methods = {content["method"]: _method_file(path, content, keys) for path, content in files.items()}
    overlays = {c["protocol"]: _overlay(p, c, keys) for p, c in raw.items() if p not in files}
    return Library(
        keys=keys,
        methods=methods,
        overlays=overlays,
        family={member: name for name, members in borrowed["families"].items() for member in members},
        like={name: (entry["dataset"], entry["why"]) for name, entry in borrowed["like"].items()},
    )


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file. Raises DataError with the line where it is not one."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"The recipe file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"The recipe file {path} is not TOML: {error}.") from error


def _method_file(path: Path, content: Mapping[str, Any], keys: Mapping[str, Key]) -> MethodFile:
    head = {"method", "extends", "source"}
    tables = {
        name: _table(f"{path.name} [{name}]", table, keys, content.get("source", ""))
        for name, table in content.items()
        if name not in head
    }
    return MethodFile(content["method"], content.get("extends", ""), tables)


def _overlay(path: Path, content: Mapping[str, Any], keys: Mapping[str, Key]) -> dict[str, MethodFile]:
    head = {"protocol", "source"}
    return {
        name: _method_file(path, {"method": name, "source": content["source"], **tables}, keys)
        for name, tables in content.items()
        if name not in head
    }


def _table(where: str, raw: Mapping[str, Any], keys: Mapping[str, Key], source: str) -> Table:
    source = raw.get("source", source)
    by_ipc = {int(n): _layer(f"{where} ipc {n}", table, keys, source) for n, table in raw.get("ipc", {}).items()}
    return Table(
        layer=_layer(where, raw, keys, source),
        by_ipc=by_ipc,
        published=tuple(raw.get("published", ())),
        unpublished=raw.get("unpublished", ""),
        like=raw.get("like", ""),
        any_dataset=raw.get("any_dataset", False),
    )


def _layer(where: str, raw: Mapping[str, Any], keys: Mapping[str, Key], source: str) -> Layer:
    own = {k: v for k, v in raw.items() if k not in _WORDS}
    scaled = raw.get("per_ipc", {})
    named = [*own, *scaled, *raw.get("inferred", {})]
    _require(where, named, keys, "is not a key of recipes; describe it in keys.toml")
    _require(where, raw.get("sources", {}), {**own, **scaled}, "has a source, but no value")
    if (own or scaled) and not raw.get("source", source):
        raise DataError(f"Recipe {where}: values without a source.\nGive the table or the file a source.")
    sources = {k: raw.get("sources", {}).get(k, raw.get("source", source)) for k in [*own, *scaled]}
    return Layer(
        values={k: keys[k].parse(v) for k, v in own.items()},
        scaled={k: keys[k].parse(v) for k, v in scaled.items()},
        sources=sources,
        inferred=dict(raw.get("inferred", {})),
        notes=tuple(raw.get("notes", ())),
    )


def _require(where: str, names: Iterable[str], known: Mapping[str, Any], complaint: str) -> None:
    for name in names:
        if name not in known:
            raise DataError(f"Recipe {where}: '{name}' {complaint}.")


def _whole(value: Any) -> int:
    """int, or text of a whole number ('1e3' is one). Raises ValueError."""
    number = value if isinstance(value, int) and not isinstance(value, bool) else _number(value)
    if number != int(number):
        raise ValueError(value)
    return int(number)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError(value)
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(value)
    return value.strip()


def _truth(value: Any) -> bool:
    return value if isinstance(value, bool) else _TRUTH[str(value).strip().lower()]


def _parts(value: Any) -> list[Any]:
    return [part for part in value.strip("[]() ").split(",") if part.strip()] if isinstance(value, str) else list(value)


_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_PARSERS = {
    "int": _whole,
    "float": _number,
    "str": _text,
    "bool": _truth,
    "ints": lambda value: tuple(_whole(part) for part in _parts(value)),
    "floats": lambda value: tuple(_number(part) for part in _parts(value)),
}
_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "str": "a word",
    "bool": "true or false",
    "ints": "whole numbers separated by commas",
    "floats": "numbers separated by commas",
}

"""What a method declares of its hyper-parameters, read once: layers of values, each value with its source.

Built-in methods declare them in the TOML file beside their code, a plug-in there or in the class attribute `recipe`,
a mapping of the same form. At the top stand `source` (of every value that has none of its own) and optionally
`extends`, the method whose values come first, and `published_pick`, what the published number is where it is not the
accuracy after the last epoch. Tables of values are `common` and data sets, and inside either `ipc.<n>`. Beside values
a table may hold these words:

  source, sources     of all values of the table; of single keys
  inferred            key -> why; these values, set here or by an earlier table, are not published
  per_ipc             key -> value for one image a class; the value is multiplied by the images a class
  ipc                 n -> table that holds from n images a class on, until the next one (at a published ipc)
  published           list of images a class with published values; others take those of the nearest (see recipe.py)
  unpublished         why nothing is published for this data set: every value counts as inferred
  like                data set whose tables come first, and from which everything is then inferred
  any_dataset         true in `common` where values do not depend on the data set
  notes               sentences for whoever uses the table: what is known to differ from what is published
  fyi_notes           such sentences about the method with FYI
  fyi_inferred        key -> why; with FYI these values are not published, without it they are

`quick` holds such tables again, `quick.common` and so on, which the protocol of that name lays over the others: minutes
on two CPU cores, chosen so that distilled sets are clearly better than random real images, never to show an effect of
FYI. So does a `legacy-…` protocol that distils otherwise than the method's own code. `keys` describes the method's own
keys (see keys.toml); keys that a plug-in's `Config` has as fields need none.
"""

from __future__ import annotations

import functools
import inspect
import reprlib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill.methods import METHODS
from distill.recipes.keys import NUMBERS, Key, keys_of, keys_of_config
from fyi_bench.errors import DataError
from fyi_bench.files import read_text

QUICK = "quick"
QUICK_SOURCE = "quick protocol (chosen by experiment, see docs)"
FOLDER = Path(__file__).parent
_BUILT_IN, _WITHOUT_CODE = FOLDER.parent / "methods", FOLDER / "without_code"


def _counts(value: Any) -> bool:
    """Whether these are whole numbers from 1 on."""
    return isinstance(value, list | tuple) and all(type(one) is int and one > 0 for one in value)


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _all_text(values: Iterable[Any]) -> bool:
    return all(isinstance(one, str) for one in values)


# what a word may hold: a test, and how a message calls it
_Form = tuple[Callable[[Any], bool], str]
_TEXT: _Form = (lambda value: isinstance(value, str), "a text")
_TABLE: _Form = (_is_table, "a table")
_TEXTS: _Form = (lambda value: _is_table(value) and _all_text(value.values()), "a table of texts")
_LIST: _Form = (lambda value: isinstance(value, list | tuple) and _all_text(value), "a list of texts")
_HEAD = {"extends": _TEXT, "source": _TEXT, "published_pick": _TEXT, "keys": _TABLE}
_WORDS: dict[str, _Form] = {
    "source": _TEXT, "sources": _TEXTS, "inferred": _TEXTS, "per_ipc": _TABLE,
    "ipc": (lambda value: _is_table(value) and all(str(n).isdecimal() for n in value), "tables by images a class"),
    "published": (_counts, "a list of whole numbers from 1 on"), "unpublished": _TEXT, "like": _TEXT,
    "any_dataset": (lambda value: isinstance(value, bool), "true or false"), "notes": _LIST, "fyi_notes": _LIST,
    "fyi_inferred": _TEXTS,
}  # fmt: skip
# everything else in a table is a value


@dataclass(frozen=True)
class Table:
    """Values with their sources, and what is said about them in the words at the top.

    scaled: values to be multiplied by the images a class; by_ipc: tables over this one, by the images a class.
    """

    values: Mapping[str, Any]
    scaled: Mapping[str, Any]
    sources: Mapping[str, str]
    inferred: Mapping[str, str]
    by_ipc: Mapping[int, Table]
    notes: tuple[str, ...] = ()
    fyi_notes: tuple[str, ...] = ()
    fyi_inferred: Mapping[str, str] = field(default_factory=dict)
    published: tuple[int, ...] = ()
    unpublished: str = ""
    like: str = ""
    any_dataset: bool = False

    def layers(self, ipc: int) -> list[Table]:
        """The table, and over it that of the largest number of images a class which is not above `ipc`."""
        below = [n for n in self.by_ipc if n <= ipc]
        return [self, *([self.by_ipc[max(below)]] if below else [])]


@dataclass(frozen=True)
class Declared:
    """A method's tables by name ('common' and data sets), those of protocols that change it, its keys, and its base."""

    method: str
    base: Declared | None
    tables: Mapping[str, Table]
    protocols: Mapping[str, Mapping[str, Table]]
    keys: Mapping[str, Key]
    published_pick: str = ""

    @property
    def chain(self) -> list[Declared]:
        """The methods it extends, first the one that extends nothing, and itself."""
        return [*(self.base.chain if self.base else []), self]


def declared(method: str, *extending: str) -> Declared:
    """What a method declares; `extending` are the methods that extend it.

    Raises UnknownNameError with the methods that can run, and DataError for a mistake in the declaration.
    """
    file = _file(method)
    return _of_file(method, file, extending) if file else _of_class(method, extending)


def _file(method: str) -> Path | None:
    """The file of a built-in method, with code or still without; None of another."""
    paths = (folder / f"{method.replace('-', '_')}.toml" for folder in (_BUILT_IN, _WITHOUT_CODE))
    return None if method in METHODS.from_outside() else next((path for path in paths if path.exists()), None)


@functools.cache
def _of_file(method: str, path: Path, extending: tuple[str, ...]) -> Declared:
    return _parsed(method, read_toml(path), path.name, extending)


def _of_class(method: str, extending: tuple[str, ...]) -> Declared:
    """Of a method that a plug-in brought, or that was registered by hand."""
    found, owner = METHODS.get(method), METHODS.owner(method)
    raw, where = getattr(found, "recipe", None), f"of '{method}' from {owner}"
    if raw is None:
        beside = Path(inspect.getfile(found)).with_suffix(".toml")
        if not beside.exists():
            raise DataError(
                f"The method '{method}' of {owner} declares no recipe.\n"
                f"Give its class `recipe = {{…}}`, or put {beside.name} beside its file."
            )
        raw, where = read_toml(beside), beside.name
    return _parsed(method, {"source": str(owner), **raw}, where, extending, keys_of_config(found.Config))


def _parsed(
    method: str, raw: Mapping[str, Any], where: str, extending: tuple[str, ...], fields: Mapping[str, Key] | None = None
) -> Declared:
    """A declaration checked and ordered; `fields`: keys by the fields of the method's config."""
    _check_forms(where, raw, _HEAD)
    extends = raw.get("extends", "")
    if extends and (extends in (*extending, method) or not (_file(extends) or extends in METHODS)):
        raise DataError(f"The recipe of {method} extends '{extends}', which has no recipe or extends itself.")
    base = declared(extends, *extending, method) if extends else None
    keys = {**(fields or {}), **shared_keys(), **(base.keys if base else {}), **keys_of(raw.get("keys", {}), where)}
    tables = {name: table for name, table in raw.items() if name not in _HEAD}
    protocols = {name: tables.pop(name) for name in list(tables) if name == QUICK or name.startswith("legacy-")}
    return Declared(
        method,
        base,
        {name: _table(f"{where} [{name}]", table, keys, raw.get("source", "")) for name, table in tables.items()},
        {protocol: _laid_over(where, protocol, found, keys) for protocol, found in protocols.items()},
        keys,
        raw.get("published_pick", ""),
    )


def _laid_over(where: str, protocol: str, raw: Any, keys: Mapping[str, Key]) -> dict[str, Table]:
    _check_forms(f"{where} [{protocol}]", {protocol: raw}, {protocol: _TABLE})
    source = QUICK_SOURCE if protocol == QUICK else ""
    return {name: _table(f"{where} [{protocol}.{name}]", table, keys, source) for name, table in raw.items()}


@functools.cache
def shared_keys() -> Mapping[str, Key]:
    """Keys that several methods have."""
    return keys_of(read_toml(FOLDER / "keys.toml"), "keys.toml")


@functools.cache
def lenders() -> tuple[Mapping[str, str], Mapping[str, tuple[str, str]]]:
    """Whose values a data set without its own takes: member -> family, and data set -> (another, why)."""
    raw = read_toml(FOLDER / "datasets.toml")
    family = {member: name for name, members in raw["families"].items() for member in members}
    return family, {name: (entry["dataset"], entry["why"]) for name, entry in raw["like"].items()}


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file. Raises DataError with the line where it is not one."""
    try:
        return tomllib.loads(read_text(path))
    except OSError as error:
        raise DataError(f"The recipe file {path} cannot be read: {error.strerror}.") from error
    except RecursionError:
        raise DataError(f"The recipe file {path} is not TOML: it is nested too deeply.") from None
    except ValueError as error:
        raise DataError(f"The recipe file {path} is not TOML: {error}.") from error


def _table(where: str, raw: Any, keys: Mapping[str, Key], source: str) -> Table:
    if not isinstance(raw, Mapping):
        raise DataError(f"Recipe {where}: a table of values is wanted, not {reprlib.repr(raw)}.")
    _check_forms(where, raw, _WORDS)
    own = {k: v for k, v in raw.items() if k not in _WORDS}
    scaled, source = raw.get("per_ipc", {}), raw.get("source", source)
    known = [*own, *scaled, *raw.get("inferred", {}), *raw.get("fyi_inferred", {})]
    _require(where, known, keys, "is not a key of recipes; describe it in `keys`")
    _require(where, raw.get("sources", {}), {**own, **scaled}, "has a source, but no value")
    if (own or scaled) and not source:
        raise DataError(f"Recipe {where}: values without a source.\nGive the table or the file a source.")
    return Table(
        values={k: keys[k].parse(v) for k, v in own.items()},
        scaled={k: _scalable(where, keys[k], v) for k, v in scaled.items()},
        sources={k: raw.get("sources", {}).get(k, source) for k in [*own, *scaled]},
        inferred=dict(raw.get("inferred", {})),
        fyi_inferred=dict(raw.get("fyi_inferred", {})),
        by_ipc={int(n): _table(f"{where} ipc {n}", table, keys, source) for n, table in raw.get("ipc", {}).items()},
        notes=tuple(raw.get("notes", ())),
        fyi_notes=tuple(raw.get("fyi_notes", ())),
        published=tuple(raw.get("published", ())),
        **{word: raw[word] for word in ("unpublished", "like", "any_dataset") if word in raw},
    )


def _scalable(where: str, key: Key, value: Any) -> float:
    """A value of `per_ipc`, which is multiplied."""
    if key.type not in NUMBERS:
        raise DataError(f"Recipe {where}: '{key.name}' is no number that could grow with the images a class.")
    return float(key.parse(value))


def _check_forms(where: str, raw: Mapping[str, Any], forms: Mapping[str, _Form]) -> None:
    """Raise DataError for a word that says something else than it can."""
    for word, (fits, wanted) in forms.items():
        if word in raw and not fits(raw[word]):
            raise DataError(f"Recipe {where}: {word} has to be {wanted}, not {reprlib.repr(raw[word])}.")


def _require(where: str, names: Iterable[str], known: Mapping[str, Any], complaint: str) -> None:
    for name in names:
        if name not in known:
            raise DataError(f"Recipe {where}: '{name}' {complaint}.")

"""Keys of recipes: what each means, and how a value given as text is read. Shared ones stand in keys.toml."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from fyi_bench.errors import DataError, UsageError
from fyi_bench.registry import pick

NUMBERS = ("int", "float")  # types of keys that have a least value, and may grow with the images a class


@dataclass(frozen=True)
class Key:
    """A key of recipes: its type by name, its meaning, its least value (or None)."""

    name: str
    type: str
    meaning: str = ""
    least: float | None = None

    def check(self) -> None:
        """Raise TypeError or UsageError where this describes no key."""
        if not (isinstance(self.type, str) and isinstance(self.meaning, str)):
            raise TypeError("type and meaning are texts")
        pick("type", self.type, _TYPES)
        if self.least is not None and (type(self.least) not in (int, float) or self.type not in NUMBERS):
            raise TypeError("least is a number, of a key that is one")

    def parse(self, value: Any) -> Any:
        """A value, or its text as typed by a user, in the key's type. Raises UsageError for anything else."""
        parser, words = pick(f"type of the key {self.name}", self.type, _TYPES)
        try:
            parsed = parser(value)
        except (TypeError, ValueError, KeyError):
            raise UsageError(f"'{value}' is not a value for {self.name}.\nIt is {words}.") from None
        if self.least is not None and parsed < self.least:
            meaning = f"\nIt is the {self.meaning}." if self.meaning else ""
            raise UsageError(f"{self.name} must be {self.least:g} or more, not {value}.{meaning}")
        return parsed


def keys_of(described: Mapping[str, Mapping[str, Any]], where: str) -> dict[str, Key]:
    """Keys as a table describes them. Raises DataError naming one that is described wrongly."""
    found = {}
    for name, about in described.items():
        try:
            found[name] = Key(name, **about)
            found[name].check()
        except (TypeError, UsageError) as error:
            raise DataError(f"{where}: the key '{name}' is described wrongly: {str(error).splitlines()[0]}") from error
    return found


def keys_of_config(config: type) -> dict[str, Key]:
    """Keys of the fields of a method's `Config`, whose annotations say the types."""
    written = {f.name: f.type.__name__ if type(f.type) is type else str(f.type) for f in fields(config)}
    return {name: Key(name, _ANNOTATIONS[words]) for name, words in written.items() if words in _ANNOTATIONS}


def show(value: Any) -> str:
    """A value as a user would type it after --set key=."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(show(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


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


_SPELLED = re.compile(r"(convnet|freponet|kipnet)[a-z0-9]*(-[a-z0-9]+)*|[a-z]+[0-9]*")  # no capital, no other separator


def _architecture(value: Any) -> str:
    """Its name as it is known, given in any case."""
    name = _text(value)
    if _SPELLED.fullmatch(name):
        return name  # as all recipes write it: these are read without torch
    from search_space.architectures import spelled

    return spelled(name)


def _truth(value: Any) -> bool:
    return value if isinstance(value, bool) else _TRUTH[str(value).strip().lower()]


def _parts(value: Any) -> list[Any]:
    return [part for part in value.strip("[]() ").split(",") if part.strip()] if isinstance(value, str) else list(value)


_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_TYPES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "int": (_whole, "a whole number"),
    "float": (_number, "a number"),
    "str": (_text, "a word"),
    "architecture": (_architecture, "an architecture"),
    "bool": (_truth, "true or false"),
    "ints": (lambda value: tuple(_whole(part) for part in _parts(value)), "whole numbers separated by commas"),
    "floats": (lambda value: tuple(_number(part) for part in _parts(value)), "numbers separated by commas"),
}
_ANNOTATIONS = {**{name: name for name in _TYPES}, "tuple[int, ...]": "ints", "tuple[float, ...]": "floats"}

"""Parameters of a command: read from options dataclasses and functions, and given as texts or as Python values.

The command line and the Python API take what a user gives through the same `bind`, so both have one set of words,
types, defaults and messages.
"""

from __future__ import annotations

import inspect
import os
import pkgutil
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, replace
from pathlib import Path
from typing import Any

from fyi_bench.config import Option, options_of
from fyi_bench.errors import UsageError, unknown_name_message

_NUMBERS = {int: "a whole number", float: "a number"}
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Parameter:
    """One thing a user can set.

    type: of a single value (str, int, float, bool or Path). several: any number of them. default: MISSING for a
    required one. strict: whether nothing but `type` will do; an argument that takes an object as well is not.
    positional: whether a Python call may leave out its name. common: one that many commands have.
    """

    name: str
    option: Option
    type: type
    default: Any = MISSING
    several: bool = False
    strict: bool = True
    positional: bool = False
    common: bool = False

    @property
    def flag(self) -> str:
        """The word on the command line: '--data-root', '--no-wait' for a switch that is on by default."""
        return self.option.flag or "--" + self.name.replace("_", "-")

    @property
    def shown(self) -> str:
        """How messages call it."""
        return self.option.argument or self.flag

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is MISSING

    def read(self, value: Any) -> Any:
        """The value of a text, of several texts, or of a Python value. Raises UsageError for what cannot be it."""
        if value is None and not self.required:
            return self.default
        if self.option.parse is not None:
            texts = self.several and not isinstance(value, Mapping)
            return self.option.parse(self._split(value) if texts else value)
        return tuple(self._one(each) for each in self._split(value)) if self.several else self._one(value)

    def _split(self, value: Any) -> list[Any]:
        """Each of several values. A comma separates texts, but not within the name of a file that is there, and of
        key=value only where another key follows."""
        if isinstance(value, str) or not isinstance(value, Iterable):
            value = [value]
        comma = r",(?=[\w.-]+=)" if typing.get_origin(self.type) is not None else ","
        found: list[Any] = []
        for each in value:
            whole = not isinstance(each, str) or (self.type is Path and Path(each).exists())
            found += [each] if whole else [part for part in re.split(comma, each) if part]
        return found

    def _one(self, value: Any) -> Any:
        if not self.strict and not isinstance(value, str):
            return value
        try:
            if self.type is bool:
                return value if isinstance(value, bool) else _TRUTH[value.lower()]
            if self.type in _NUMBERS and (isinstance(value, bool) or (self.type is int and isinstance(value, float))):
                raise TypeError(value)
            read = self.type(os.fspath(value) if isinstance(value, os.PathLike) else value)
        except (TypeError, ValueError, KeyError, AttributeError):
            wanted = _NUMBERS.get(self.type, "yes or no" if self.type is bool else "a text")
            raise UsageError(f"{self.shown} takes {wanted}, not {value!r}.") from None
        return pkgutil.resolve_name(self.option.names)(read) if self.option.names else read


def of_dataclass(
    kind: type, defaults: Mapping[str, Any] | None = None, *, first_positional: bool = False, common: bool = False
) -> list[Parameter]:
    """Parameters of an options dataclass, in their order; `defaults` replace those of its fields.

    first_positional: where it has no argument, its first option needs no name in Python.
    """
    hints = typing.get_type_hints(kind)
    found = []
    for name, (field, option) in options_of(kind).items():
        default = (defaults or {}).get(name, _default_of(field))
        found.append(Parameter(name, option, *_shape(hints[name], default), bool(option.argument), common))
    if found and first_positional and not any(each.positional for each in found):
        found[0] = replace(found[0], positional=True)
    return found


def of_function(function: Callable[..., Any]) -> list[Parameter]:
    """Parameters of a function whose arguments are annotated `Annotated[type, Option(…)]`; others are passed over."""
    asked = {name: hint for name, hint in function.__annotations__.items() if name != "return"}
    hints = typing.get_type_hints(types.SimpleNamespace(__annotations__=asked), function.__globals__, None, True)
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        hint: Any = hints.get(name)
        option = next((each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Option)), None)
        if option is not None:
            default = MISSING if parameter.default is inspect.Parameter.empty else parameter.default
            places = parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
            found.append(Parameter(name, option, *_shape(hint.__origin__, default), places))
    return found


def bind(word: str, parameters: Sequence[Parameter], values: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, by the name of its parameter; what was left out is not in it, unless the environment says it.

    word: what is called, for messages. Raises UsageError for a value too many, a name that is unknown, and a required
    one that is missing.
    """
    places = [each for each in parameters if each.positional]
    known = {each.name: each for each in parameters}
    if len(values) > len(places):
        raise UsageError(
            f"{word} takes {len(places)} value(s) without a name, not {len(values)}.\n"
            f"Give the others as {next((name for name in known if not known[name].positional), 'name')}=… and so on."
        )
    given = dict(zip((each.name for each in places), values))
    for name, value in named.items():
        if name not in known:
            flags = {each.flag.lstrip("-").replace("-", "_"): each.name for each in parameters}
            if name in flags:
                raise UsageError(f"{word} has no keyword '{name}'.\nIn Python it is '{flags[name]}'.")
            raise UsageError(unknown_name_message(f"keyword of {word}", name, known))
        if name in given:
            raise UsageError(f"{word} was given '{name}' twice.")
        given[name] = value
    for each in parameters:
        if each.name not in given and each.option.environment in os.environ:
            given[each.name] = os.environ[each.option.environment]
        if each.name not in given and each.required:
            raise UsageError(f"{word} needs '{each.name}': {each.option.help}")
    return {name: known[name].read(value) for name, value in given.items()}


def dress(call: Callable[..., Any], word: str, summary: str, parameters: Sequence[Parameter], result: str,
          more: Mapping[str, tuple[str, Any]]) -> Callable[..., Any]:  # fmt: skip
    """Give a function of any keywords the name, signature and help of its parameters.

    result: type of what it returns. more: further keywords: name -> (type, default).
    """
    kind = inspect.Parameter
    own = [
        kind(
            each.name,
            kind.POSITIONAL_OR_KEYWORD if each.positional else kind.KEYWORD_ONLY,
            default=kind.empty if each.required else each.default,
            annotation=_type_text(each),
        )
        for each in sorted(parameters, key=lambda each: not each.positional)
    ]
    added = [kind(name, kind.KEYWORD_ONLY, annotation=text, default=default) for name, (text, default) in more.items()]
    call.__name__ = call.__qualname__ = word
    call.__signature__ = inspect.Signature([*own, *added], return_annotation=result)  # type: ignore[attr-defined]
    call.__annotations__ = {each.name: each.annotation for each in (*own, *added)} | {"return": result}
    lines = [f"{each.name}: {each.option.help}" for each in parameters if not each.common]
    common = ", ".join(each.name for each in parameters if each.common)
    wrapped = [
        line for text in lines for line in textwrap.wrap(text, 108, initial_indent="    ", subsequent_indent=" " * 8)
    ]
    rest = textwrap.wrap(f"Common options, as fyi_bench.config.Settings has them: {common}.", 108) if common else []
    parts = [[summary], ["Args:", *wrapped] if wrapped else [], rest]
    call.__doc__ = "\n\n".join("\n".join(part) for part in parts if part)
    return call


def _type_text(each: Parameter) -> str:
    """What Python may give, in the words of a type checker: also a text where the command line reads one."""
    if typing.get_origin(each.type) is not None:
        return "Mapping[str, object] | Sequence[str]"
    single = "str | PathLike[str]" if each.type is Path else each.type.__name__
    kinds = [f"Sequence[{single}]"] if each.several else []
    kinds += [single, "" if each.strict else "Any", "str" if each.option.parse else "", ""]
    kinds += ["None"] if each.default is None else []
    return " | ".join(dict.fromkeys(kind for kind in kinds if kind))


def _default_of(field: Field) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _shape(hint: Any, default: Any) -> tuple[type, Any, bool, bool]:
    """type, default, several, strict of `Path | None`, `tuple[str, ...]`, `Mapping[str, str]`, `ImageSet | Path` …"""
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    members = tuple(each for each in members if each is not types.NoneType)
    plain = [each for each in members if each in (str, int, float, bool, Path)]
    if len(members) == 1 and not plain:
        origin = typing.get_origin(members[0])
        if isinstance(origin, type) and issubclass(origin, Iterable):
            mapping = issubclass(origin, Mapping)
            return members[0] if mapping else typing.get_args(members[0])[0], default, True, True
    if not plain:
        raise TypeError(f"no text can be read as {hint}")
    chosen = Path if Path in plain else plain[0]
    return chosen, default, False, len(plain) == len(members)

"""The Python API: the words of the command line as functions, made of the same options when they are first used.

`python -m fyi_bench.api` writes `api.pyi`, from which editors and type checkers know them.
"""

from __future__ import annotations

import importlib
import inspect
import json
import keyword
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin

from fyi_bench.catalogue import TaskEntry, build_options, built_in_tasks, find_task, parameters_of, settings_of, tasks
from fyi_bench.errors import UsageError
from fyi_bench.parameters import Parameter, bind
from fyi_bench.tools import TOOLS, Say, silent

if TYPE_CHECKING:
    from fyi_bench.session import Session
    from fyi_bench.tasks.base import Task

# words that are neither a task nor a tool: where they are, as module:name
OTHERS = {"CondensedBuffer": "downstream.continual:condensed_buffer", "make_report": "fyi_bench.tools:report"}
OLD = ("distill", "continual", "nas", "evaluate", "cross_arch", "table", "demo")  # until each is a task


def words() -> list[str]:
    """Every word of the API, those of plug-ins too."""
    found = {entry.word for entry in tasks().values()} | {tool.word for tool in TOOLS.values()} | set(OTHERS)
    return sorted(word for word in found if word and not keyword.iskeyword(word))


def __getattr__(name: str) -> Any:
    for tool in TOOLS.values():
        if tool.word == name:
            return tool.function
    if name in OTHERS:
        module, _, own = OTHERS[name].partition(":")
        return getattr(importlib.import_module(module), own)
    entry = None if name.startswith("_") else find_task(name.replace("_", "-"))
    if entry is None and name in OLD:
        return getattr(importlib.import_module("fyi_bench.api_old"), name)
    if entry is None:
        raise AttributeError(f"module 'fyi_bench' has no attribute '{name}'")
    globals()[name] = made = _function_of(entry)
    return made


def _function_of(entry: TaskEntry) -> Callable[..., Any]:
    task = entry.load()
    parameters = parameters_of(task)

    def call(*values: Any, session: Session | None = None, say: Say = silent, **named: Any) -> Any:
        from fyi_bench.session import Session
        from fyi_bench.tasks.base import perform

        options, settings = build_options(task, bind(entry.word, parameters, values, named))
        if session is not None and settings.given:
            raise UsageError(f"A session has its settings already.\nLeave out {', '.join(sorted(settings.given))}.")
        answer = perform(task(), session or Session(settings, say=say), options)
        return answer[task.returns] if task.returns else answer

    call.__name__ = call.__qualname__ = entry.word
    call.__doc__ = _doc(task, parameters)
    call.__annotations__ = {}
    call.__signature__ = _signature(parameters)  # type: ignore[attr-defined]
    return call


def _signature(parameters: Sequence[Parameter]) -> inspect.Signature:
    places = [each for each in parameters if each.positional]
    named = [each for each in parameters if not each.positional]
    kinds = inspect.Parameter
    return inspect.Signature(
        [
            *(_argument(each, kinds.POSITIONAL_OR_KEYWORD) for each in places),
            *(_argument(each, kinds.KEYWORD_ONLY) for each in named),
            kinds("session", kinds.KEYWORD_ONLY, default=None, annotation="Session | None"),
            kinds("say", kinds.KEYWORD_ONLY, default=silent, annotation="Callable[[str], None]"),
        ]
    )


def _argument(each: Parameter, kind: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if each.required else each.default
    return inspect.Parameter(each.name, kind, default=default, annotation=_annotation(each))


def _annotation(each: Parameter) -> str:
    """What the API takes, in the words of a type checker: also a text where the command line reads one."""
    if get_origin(each.type) is not None:
        return "Mapping[str, object] | Sequence[str]"
    single = {"Path": "str | PathLike[str]"}.get(each.type.__name__, each.type.__name__)
    text = f"Sequence[{single}] | {single}" if each.several else single
    parts = [text, "" if each.strict else "Any", "str" if each.option.parse and each.type is not str else "",
             "None" if each.default is None else ""]  # fmt: skip
    return " | ".join(part for part in parts if part)


def _doc(task: type[Task], parameters: Sequence[Parameter]) -> str:
    """The summary, a line for each option of the task, and which common ones there are."""
    common = [each.name for each in settings_of(task)]
    own = [f"{each.name}: {each.option.help}" for each in parameters if each.name not in common]
    more = [f"Common (fyi_bench.config.Settings): {', '.join(common)}."] if common else []
    end = ["session: settings, data and store at work. say: hears each line that the command would print."]
    lines = [line for text in (*own, *more, *end) for line in textwrap.wrap(text, 112, subsequent_indent="    ")]
    return "\n".join([task.summary, "", *lines])


# the stub ----------------------------------------------------------------------------------------------------------

STUB = Path(__file__).with_suffix(".pyi")
_HEAD = """# Generated by `python -m fyi_bench.api`; not to be edited.
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from distill.image_set import ImageSet
from downstream.continual import condensed_buffer as CondensedBuffer
from fyi_bench.session import Session
"""


def stub() -> str:
    """The text of `api.pyi`: every built-in word with its types, defaults and help."""
    parts = []
    for entry in built_in_tasks().values():
        task = entry.load()
        parameters = parameters_of(task)
        tail = ["session: Session | None = None", "say: Callable[[str], None] = ..."]
        result = "Any" if task.returns else "dict[str, Any]"
        parts.append(_stub_of(entry.word, parameters, tail, result, _doc(task, parameters)))
    for tool in TOOLS.values():
        if tool.word:
            own = inspect.unwrap(tool.function)
            tail = ["say: Callable[[str], None] = ..."] if "say" in own.__annotations__ else []
            doc = inspect.getdoc(own) or ""
            parts.append(_stub_of(tool.word, tool.parameters, tail, own.__annotations__["return"], doc))
    return "\n".join([_HEAD, *sorted(parts), "make_report = report\n"])


def _stub_of(word: str, parameters: Sequence[Parameter], tail: Sequence[str], result: str, doc: str) -> str:
    places = [_stub_argument(each) for each in parameters if each.positional]
    named = [*(_stub_argument(each) for each in parameters if not each.positional), *tail]
    arguments = [*places, *(["*"] if named else []), *named]
    body = [f'"""{doc}"""'] if "\n" not in doc else [f'"""{doc}', '"""']
    return "\n".join([f"def {word}(", *(f"    {each}," for each in arguments), f") -> {result}:",
                      *("    " + line if line else "" for line in "\n".join(body).split("\n")), ""])  # fmt: skip


def _stub_argument(each: Parameter) -> str:
    text = f"{each.name}: {_annotation(each)}"
    if each.required:
        return text
    plain = isinstance(each.default, str | int | float | bool | None)
    return f"{text} = {_quoted(each.default) if plain else '...'}"


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")

"""What commands there are, found without importing any of them: a task's name and summary are read in its source."""

from __future__ import annotations

import functools
import importlib
import os
import re
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.config import Settings
from fyi_bench.errors import UsageError
from fyi_bench.parameters import Parameter, of_dataclass

if TYPE_CHECKING:
    from fyi_bench.tasks.base import Task

GROUP = "fyi_bench.tasks"  # entry points of plug-ins, and the package of the built-in ones
_CLASS = re.compile(r'^@TASKS\.register\("([\w-]+)"\)\nclass (.*?)(?=^\S|\Z)', re.DOTALL | re.MULTILINE)
_FIELD = r'^    %s(?:: [^=\n]+)? = \(?\s*"([^"\n]*)"'


@dataclass(frozen=True)
class TaskEntry:
    """A task before it is imported. key: its name in TASKS. name: the command's word. module: of a built-in one."""

    key: str
    name: str
    summary: str
    module: str = ""

    @property
    def word(self) -> str:
        """Its name in Python."""
        return self.name.replace("-", "_")

    def load(self) -> type[Task]:
        """The class; no other task is imported for it. Raises PluginError for one from outside that cannot be used."""
        from fyi_bench.tasks.base import TASKS

        if self.module:
            importlib.import_module(self.module)
        return TASKS.get(self.key)


@functools.cache
def built_in_tasks() -> dict[str, TaskEntry]:
    """The tasks in `fyi_bench/tasks`, by their command's word."""
    found = {}
    folder = Path(__file__).parent / "tasks"
    for path in sorted(folder.rglob("*.py")):
        inner = path.relative_to(folder).with_suffix("").parts
        module = ".".join([GROUP, *(part for part in inner if part != "__init__")])
        for key, body in _CLASS.findall(path.read_text(encoding="utf-8")):
            command, summary = (re.search(_FIELD % field, body, re.MULTILINE) for field in ("command", "summary"))
            name = command[1] if command else key
            if name:
                found[name] = TaskEntry(key, name, summary[1] if summary else "", module)
    return found


@functools.cache
def tasks() -> dict[str, TaskEntry]:
    """Every task, those of plug-ins too, by the command's word; nothing is imported."""
    found = dict(built_in_tasks())
    for point in entry_points(group=GROUP):
        owner = point.dist.name if point.dist else point.value
        found.setdefault(point.name, TaskEntry(point.name, point.name, f"Of the plug-in {owner}."))
    return found


def find_task(name: str) -> TaskEntry | None:
    """The task of a command's word; plug-ins are looked up only where no built-in has it."""
    return built_in_tasks().get(name) or tasks().get(name)


def parameters_of(task: type[Task]) -> list[Parameter]:
    """What a user can set: the task's own options, then the common ones."""
    return [*of_dataclass(task.Options, first_positional=True), *settings_of(task)]


def settings_of(task: type[Task]) -> list[Parameter]:
    """The common options that the task takes, with its own defaults."""
    common = of_dataclass(Settings, task.defaults, common=True)
    taken = {each.name for each in common} if task.settings is None else {*task.settings}
    return [each for each in common if each.name in taken - {*task.unused}]


def build_options(task: type[Task], given: dict[str, Any]) -> tuple[Any, Settings]:
    """The task's Options and the Settings that were given, by `fyi_bench.parameters.bind`, the task's own defaults.

    Raises UsageError for an option that would change nothing, where the user and not the environment gives it.
    """
    parameters = {each.name: each for each in parameters_of(task)}
    common = {each.name for each in settings_of(task)}
    options = task.Options(**{name: value for name, value in given.items() if name not in common})
    for name, why in task().ignored(options, given).items():
        if name in given and str(given[name]) != os.environ.get(parameters[name].option.environment):
            raise UsageError(f"{parameters[name].flag} changes nothing here: {why}.\nLeave it out.")
    stated = {name: value for name, value in given.items() if name in common}
    return options, Settings(**{**task.defaults, **stated}, given=frozenset(given))

"""The command line, generated: a command for each task and each tool, its options those of its parameters.

Nothing is imported before a command needs it; the list of commands needs nothing but their names.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

from fyi_bench import listing, stored  # noqa: F401  they register their commands
from fyi_bench.catalogue import TaskEntry, build_options, find_task, parameters_of, tasks
from fyi_bench.config import Settings, option
from fyi_bench.errors import (
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    FyiBenchError,
    StoreError,
    UnknownNameError,
    UsageError,
    printable,
)
from fyi_bench.parameters import Parameter, bind, of_dataclass, of_function
from fyi_bench.reading import PANEL
from fyi_bench.terminal import echo, end_output, ready_streams, refused, say, told
from fyi_bench.tools import TOOLS, Tool
from fyi_bench.version import __version__

if TYPE_CHECKING:
    from fyi_bench.session import Session
    from fyi_bench.tasks.base import Task

GROUPS = {
    "store": "Results: list, show, merge from another machine, verify, remove.",
    "data": "Real data sets: list, classes, get (download), verify.",
}
PANELS = ("Arguments", "Options", PANEL, "Common options", "Advanced options")
_METAVARS = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True)
class Terminal:
    """What only a command line is asked for."""

    json_file: Path | None = option(None, "Write the record to this file.", flag="--json")
    dry_run: bool = option(False, "Show plan and estimate, then stop.")
    yes: bool = option(False, "Do not ask before long work, nor stop at a doubtful input.")
    quiet: bool = option(False, "No progress display.")


def gather(words: Sequence[str], parameters: Sequence[Parameter]) -> list[str]:
    """The words of a command with its options first, each followed by one value, and its arguments last.

    One rule for every option that takes several values: all words up to the next option belong to it, so that
    `--arch a b`, `--arch a --arch b` and `--arch a,b` are the same. An argument of the command that would otherwise be
    missing takes the last of these words: `evaluate --arch mlp vgg11 SET` (of several such options the last that can
    spare one; never a key=value of --set).
    """
    flags = {each.flag: each for each in parameters if not each.option.argument}
    options: list[str] = []
    arguments: list[str] = []
    groups: list[tuple[Parameter, list[str]]] = []
    rest, inside = list(words), False
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        each = flags.get(name)
        if word == "--":
            arguments += rest
            break
        if not word.startswith("-") or word == "-" or word[1:2].isdigit():
            (groups[-1][1] if inside else arguments).append(word)
            continue
        inside = False
        if each is not None and each.several:
            inside = True
            groups.append((each, [value] if equals else []))
        elif each is None or each.type is bool or equals:
            options.append(word)
        elif not rest:
            raise UsageError(f"{each.flag} needs a value: {each.option.help}")
        else:
            options += [word, rest.pop(0)]
    needed = sum(each.required for each in parameters if each.option.argument) - len(arguments)
    taken: list[str] = []
    for each, values in reversed(groups):
        keyed = get_origin(each.type) is not None
        while len(taken) < needed and len(values) > 1 and not (keyed and "=" in values[-1]):
            taken.insert(0, values.pop())
    for each, values in groups:
        if not values:
            raise UsageError(f"{each.flag} needs a value: {each.option.help}")
        options += [word for value in values for word in (each.flag, value)]
    return [*options, "--", *arguments, *taken]


class Command(TyperCommand):
    """A command that gathers several values, and whose help has panels and examples."""

    parameters: Sequence[Parameter] = ()
    examples: Sequence[str] = ()
    unused: Mapping[str, str] = {}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As everywhere, after `gather`. An option that other commands have and this one has no use for is refused."""
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        flags = {each.flag for each in self.parameters}
        for each in of_dataclass(Settings):
            if each.flag not in flags and any(word.partition("=")[0] == each.flag for word in args):
                instead = self.unused.get(each.name) or "Leave it out"
                raise UsageError(f"{ctx.info_name} has no use for {each.flag}.\n{instead}.")
        return super().parse_args(ctx, gather(args, self.parameters))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """'[OPTIONS]', and the arguments, in brackets where they may be left out."""
        arguments = [each for each in self.parameters if each.option.argument]
        return ["[OPTIONS]", *(e.option.argument if e.required else f"[{e.option.argument}]" for e in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The command's arguments and own options, what to say of a set in a file, the common and the advanced ones."""
        panels: dict[str, list[tuple[str, str]]] = {title: [] for title in PANELS}
        for each in self.parameters:
            o = each.option
            title = "Arguments" if o.argument else o.panel or PANELS[4 if o.advanced else 3 if each.common else 1]
            panels[title].append((o.argument or f"{_flags(each)} {_metavar(each)}".rstrip(), _help(each)))
        panels["Options"].append(("--help", "Show this message."))
        for title, lines in panels.items():
            if lines:
                with formatter.section(title):
                    formatter.write_dl(lines)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The examples, each on a line of its own."""
        if self.examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {example}\n" for example in self.examples))
                if any("  # " in example for example in self.examples):
                    formatter.write("  Times are those of two CPU cores under quick; --dry-run tells any.\n")


class Commands(TyperGroup):
    """A group that makes a command when it is asked for. prefix: 'store ' within that group."""

    prefix = ""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands, those of plug-ins too."""
        return list(self._summaries())

    def _summaries(self) -> dict[str, str]:
        found = {} if self.prefix else {entry.name: entry.summary for entry in tasks().values()} | GROUPS
        for tool in TOOLS.values():
            if tool.name.startswith(self.prefix) and " " not in (name := tool.name.removeprefix(self.prefix)) and name:
                found[name] = tool.summary
        return found

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name, or None. Raises what a plug-in's import raises."""
        if not self.prefix and cmd_name in GROUPS:
            return _group(cmd_name)
        tool, entry = self._found(cmd_name)
        if tool is not None:
            return tool_command(tool)
        try:
            return task_command(entry.name, entry.load()) if entry else None
        except FyiBenchError:
            if ctx.resilient_parsing:  # completion goes on without a plug-in that cannot be used
                return None
            raise

    def _found(self, name: str) -> tuple[Tool | None, TaskEntry | None]:
        tool = TOOLS.get(self.prefix + name)
        return (tool, None) if tool and tool.name else (None, None if self.prefix else find_task(name))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Name and summary of each command; none is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(self._summaries().items()))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As everywhere; an unknown name gets a suggestion."""
        known = any(self._found(args[0])) or (args[0] in GROUPS and not self.prefix)
        if known or args[0].startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        raise UnknownNameError("command", self.prefix + args[0], self.list_commands(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As everywhere; without a command the help is shown."""
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help())
            raise typer.Exit(EXIT_USAGE)
        return super().parse_args(ctx, args)


def command(
    name: str, summary: str, parameters: Sequence[Parameter], examples: Sequence[str], run: Callable[..., None]
) -> Command:
    """A command that calls run(context, **parameters), None or [] for those left out."""
    kind = inspect.Parameter.KEYWORD_ONLY
    context = inspect.Parameter("ctx", kind, annotation=typer.Context)
    options = [inspect.Parameter(each.name, kind, **_asked(each)) for each in parameters]
    run.__signature__ = inspect.Signature([context, *options])  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in (context, *options)}
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name, cls=Command, help=summary)(run)
    made: Any = typer.main.get_command(app)
    made.parameters, made.examples = parameters, examples
    return made


def _given(asked_for: Mapping[str, Any]) -> dict[str, Any]:
    """What the user typed, by name."""
    return {key: value for key, value in asked_for.items() if value not in (None, [])}


def _asked(each: Parameter) -> dict[str, Any]:
    """How typer asks for a parameter: as texts, None where it was left out; `bind` reads them."""
    kind = bool if each.type is bool else list[str] if each.several else str
    asked = (
        typer.Argument(metavar=each.option.argument)
        if each.option.argument
        else typer.Option(_flags(each), help=each.option.help)
    )
    return {"default": ... if each.required else None, "annotation": Annotated[kind | None, asked]}


def _flags(each: Parameter) -> str:
    return f"{each.flag}/--no-{each.flag[2:]}" if each.type is bool and each.default is not False else each.flag


def _metavar(each: Parameter) -> str:
    if each.type is bool:
        return ""
    kind = str if each.option.parse and not each.several else each.type
    return _METAVARS.get(kind, "KEY=VALUE") + ("…" if each.several else "")


def _help(each: Parameter) -> str:
    notes = [each.option.help]
    if each.option.environment:
        notes.append(f"[env var: {each.option.environment}]")
    if each.required:
        notes.append("[required]")
    elif each.type is not bool and each.default not in (None, (), {}, ""):
        shown = each.default if each.several else [each.default]
        notes.append(f"[default: {' '.join(f'{one:,}' if type(one) is int else str(one) for one in shown)}]")
    return " ".join(notes)


def task_command(name: str, task: type[Task]) -> Command:
    """The command of a task."""
    own = of_dataclass(Terminal, common=True)
    parameters = parameters_of(task)

    def run(ctx: typer.Context, **asked_for: Any) -> None:
        from fyi_bench.session import Session
        from fyi_bench.tasks.base import perform

        given, words = _given(asked_for), ctx.find_root().obj
        here = Terminal(**bind(name, own, (), {p.name: given.pop(p.name) for p in own if p.name in given}))
        options, settings = build_options(task, bind(name, parameters, (), given))
        display = "silent" if here.quiet else "auto"
        session = Session(settings, say, _asker(here.yes), here.dry_run, display, here.yes)
        asked = task()
        _tell(asked, session, perform(asked, session, options, shlex.join(["fyi-bench", *words]), here.json_file))

    made = command(name, task.summary, [*parameters, *own], task.examples, run)
    made.unused = task.unused
    return made


def _tell(task: Task, session: Session, record: dict[str, Any]) -> None:
    """Print the answer, where it is kept, how to repeat it, and its pictures."""
    from fyi_bench.present.words import fitted
    from fyi_bench.store.commands import record_path, writing

    lines = [fitted(task.words(record)) if task.keeps else task.words(record)]
    if task.keeps:
        place, plots = record_path(session.store, record), []
        if os.access(place.parent, os.W_OK):  # a store that may only be read tells its answers too
            with writing(session.store):
                plots = task.plots(record, place.with_suffix(""))
        lines = ["", *lines, f"record   {place}", f"repeat   {record['command']}", *(f"plot     {p}" for p in plots)]
    echo("\n".join(lines))


def tool_command(tool: Tool) -> Command:
    """The command of a tool."""
    own = [each for each in of_dataclass(Terminal) if each.name == "json_file"] if tool.json else []
    telling = of_function(tool.lines) if tool.lines else []  # how it is told: no matter in Python

    def run(ctx: typer.Context, **asked_for: Any) -> None:
        from fyi_bench.files import write_json

        given = _given(asked_for)
        file = bind(tool.name, own, (), {"json_file": given.pop("json_file")} if "json_file" in given else {})
        saying = {"say": echo} if "say" in tool.function.__annotations__ else {}
        how = bind(tool.name, telling, (), {p.name: given.pop(p.name) for p in telling if p.name in given})
        result = tool.function(**given, **saying)
        for line in tool.lines(result, **how) if tool.lines else result:
            echo(line)
        if file:
            write_json(file["json_file"], result)

    return command(tool.name.split()[-1], tool.summary, [*tool.parameters, *telling, *own], tool.examples, run)


def _group(name: str) -> Commands:
    group = Commands(name=name, help=GROUPS[name], rich_markup_mode=None)
    group.prefix = f"{name} "
    return group


def _asker(yes: bool) -> Callable[[str], bool]:
    """Ask only where somebody can answer; elsewhere long work simply starts."""
    if yes or not sys.stdin.isatty():
        return lambda question: True
    return lambda question: typer.confirm(question, default=True)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fyi-bench {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="fyi-bench",
    cls=Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Is a condensed set a faithful proxy for the real data? Distil with and without FYI, and measure it.",
)


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Options before the command."""


def _check_folder() -> None:
    """Raise UsageError where the present folder was removed: libraries end the process then, without a word."""
    try:
        os.getcwd()
    except OSError as error:
        raise UsageError(f"The present folder is gone ({error.strerror}).\nGo to another one.") from None


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line (default: this process's); returns its exit code. Errors become one or two lines."""
    given = list(sys.argv[1:] if words is None else words)
    asked = [word for word in given if word != "--debug"]
    ready_streams()
    try:
        _check_folder()
        try:
            code = typer.main.get_command(app).main(asked, "fyi-bench", standalone_mode=False, obj=asked) or 0
        except SystemExit as end:  # typer's silent end where nobody reads what it prints
            if not isinstance(end.__context__, OSError):
                raise
            raise refused(end.__context__) from end
        if code == EXIT_INTERRUPTED:  # typer's word for Ctrl-C
            raise KeyboardInterrupt
        end_output()
        return code
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in given and not isinstance(error, KeyboardInterrupt):
            raise
        message, code = told(error)
        if message:
            with contextlib.suppress(OSError):  # stderr may be the trouble
                if isinstance(error, KeyboardInterrupt) and sys.stderr.isatty():  # which shows ^C
                    print(file=sys.stderr)
                print(f"fyi-bench: {printable(message)}", file=sys.stderr)
        with contextlib.suppress(StoreError):  # the first cause is told; Python is not to add its own at the end
            end_output()
        return code


if __name__ == "__main__":
    sys.exit(main())

"""The command line: one sub-command a job, thin. Nothing heavy is imported before a job needs it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fyi_bench import __version__
from fyi_bench.commands import lists, search, sets, work
from fyi_bench.errors import EXIT_INTERRUPTED, FyiBenchError

app = typer.Typer(
    name="fyi-bench",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Is a condensed set a faithful proxy for the real data? Distil with and without FYI, and measure it.",
)
for group in (work.app, search.app, sets.app, lists.app):
    app.registered_commands += group.registered_commands
app.add_typer(lists.store_app, name="store")
app.add_typer(lists.data_app, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fyi-bench {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Options before the command."""


def several_values(words: list[str]) -> list[str]:
    """`--arch a b c` as `--arch a --arch b --arch c`: all words up to the next option or path belong to --arch."""
    found: list[str] = []
    inside = ""
    for word in words:
        if word.startswith("-"):
            inside = word if word == "--arch" else ""
        elif inside and found[-1] != inside:
            inside = "" if "/" in word or "." in word else inside
            found += [inside] if inside else []
        found.append(word)
    return found


def main() -> None:
    """Run the command line; turn errors into one or two lines and an exit code."""
    debug = "--debug" in sys.argv
    try:
        app(args=several_values([a for a in sys.argv[1:] if a != "--debug"]), standalone_mode=True)
    except FyiBenchError as error:
        if debug:
            raise
        if str(error):
            print(f"fyi-bench: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("fyi-bench: interrupted; everything done is kept, run the same command to go on.", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()

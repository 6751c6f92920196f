"""Commands about condensed sets as files, and about pages and tables made of results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fyi_bench.commands.options import DatasetOption, with_session

app = typer.Typer()

SetArgument = Annotated[Path, typer.Argument(metavar="SET", help="A condensed set: our file, or any public format.")]
FormatOption = Annotated[str | None, typer.Option("--format", help="Layout; guessed from the content where not given.")]
SpaceOption = Annotated[str | None, typer.Option("--space", help="pixel, normalized or zca, where the guess is wrong.")]
OfOption = Annotated[str | None, typer.Option("--dataset", help="Data set it stands for, where it cannot be guessed.")]
FactorOption = Annotated[int | None, typer.Option("--factor", help="Tiles a side in each image (IDC), where not told.")]


@app.command()
@with_session
def table(
    session: Any,
    json_file: Any,
    name: Annotated[str, typer.Argument(metavar="1|2|3|4|A|B")],
    form: Annotated[str, typer.Option("--format", help="text, markdown, latex, csv or html.")] = "text",
    out: Annotated[Path | None, typer.Option("--out", help="Write to this file instead of printing.")] = None,
    run: Annotated[bool, typer.Option("--run", help="Fill the holes first, within --budget.")] = False,
    dataset: str = "cifar10",
) -> None:
    """A table of the paper with our numbers beside the published ones, and commands for the holes."""
    from fyi_bench.files import write_text
    from fyi_bench.tasks.table import table_job

    chosen = any(word.split("=")[0] in ("--protocol", "--set") for word in sys.argv)
    asked = session.protocol("accuracy").name if chosen else None
    text = table_job(session, name, form, run, asked, typer.echo)
    if out is None:
        typer.echo(text)
    else:
        typer.echo(f"table    {write_text(out, text)}")


@app.command()
@with_session
def figure(
    session: Any,
    json_file: Any,
    name: Annotated[str, typer.Argument(metavar="2…12|A…E")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the pictures; default: in the store.")] = None,
    run: Annotated[bool, typer.Option("--run", help="Compute what it needs first, within --budget.")] = False,
    dataset: str = "cifar10",
) -> None:
    """A figure of the paper, from our data and results."""
    from fyi_bench.data import load_dataset
    from fyi_bench.present.figures.request import Request, figure_needs
    from fyi_bench.present.figures.request import figure as draw
    from fyi_bench.tasks.fill import fill

    s = session.settings
    if session.dry_run:
        plan_figure(session, figure_needs(name, s.protocol))
    if run:
        fill(session, figure_needs(name, s.protocol), typer.echo)
    request = Request(
        session.store,
        lambda wanted: load_dataset(wanted, s.data_root),
        protocol=s.protocol,
        seed=s.seed,
        device=s.device,
        folder=out,
        stop=session.stop,
        say=typer.echo,
    )
    for path in draw(name, request):
        typer.echo(f"plot     {path}")


def plan_figure(session: Any, needs: list[Any]) -> None:
    """Print the commands a figure is drawn from, with their time; then stop."""
    from fyi_bench.errors import PlanShown
    from fyi_bench.present.words import seconds_words
    from fyi_bench.tasks.time import estimate_with

    estimate = estimate_with(session.settings)
    for need in needs:
        typer.echo(f"{need.command}   (about {seconds_words(estimate(need))})")
    if not needs:
        typer.echo("It measures real images itself; nothing has to be run before.")
    raise PlanShown


__all__ = ["DatasetOption", "app"]

"""Commands about condensed sets as files, and about pages and tables made of results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fyi_bench.commands.options import DatasetOption, RootOption, StoreOption, with_session

app = typer.Typer()

SetArgument = Annotated[Path, typer.Argument(metavar="SET", help="A condensed set: our file, or any public format.")]
FormatOption = Annotated[str | None, typer.Option("--format", help="Layout; guessed from the content where not given.")]
SpaceOption = Annotated[str | None, typer.Option("--space", help="pixel, normalized or zca, where the guess is wrong.")]
OfOption = Annotated[str | None, typer.Option("--dataset", help="Data set it stands for, where it cannot be guessed.")]
FactorOption = Annotated[int | None, typer.Option("--factor", help="Tiles a side in each image (IDC), where not told.")]


@app.command()
def inspect(
    path: SetArgument,
    format: FormatOption = None,
    space: SpaceOption = None,
    dataset: OfOption = None,
    factor: FactorOption = None,
    unequalness: Annotated[bool, typer.Option("--unequalness", help="Also measure the symmetry score.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write what is known to this file.")] = None,
) -> None:
    """Everything known about a condensed set: classes, space, duplicates, symmetry, provenance."""
    from fyi_bench.files import write_json
    from fyi_bench.formats.inspection import format_report, inspect_set

    given = {"format": format, "space": space, "dataset": dataset, "factor": factor}
    report = inspect_set(path, unequalness=unequalness, **given)
    typer.echo(format_report(report))
    if json_file is not None:
        write_json(json_file, report)


@app.command("import")
def import_set(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Files or folders of others.")],
    format: FormatOption = None,
    space: SpaceOption = None,
    dataset: OfOption = None,
    factor: FactorOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where to write; default: beside, as .safetensors.")] = None,
) -> None:
    """Read other people's condensed sets and write them as ours. Files that carry code are refused, never run."""
    from fyi_bench.errors import UsageError
    from fyi_bench.formats import load_set, save_imported

    if out is not None and len(paths) > 1:
        raise UsageError("--out names one file, but several are to be imported.\nImport them one by one.")
    for path in paths:
        found = load_set(path, format=format, space=space, dataset=dataset, factor=factor)
        place = save_imported(found, out or path.with_name(path.stem + ".imported.safetensors"))
        for line in (*found.guesses, *found.warnings):
            typer.echo(f"  {line}")
        typer.echo(f"{path} -> {place}")


@app.command("export")
def export(
    path: SetArgument,
    format: Annotated[str, typer.Option("--format", help="folder, parquet, dc, mtt …")],
    out: Annotated[Path, typer.Option("--out", help="File or folder to write.")],
) -> None:
    """Write a set for other people's readers."""
    from fyi_bench.formats import load_set
    from fyi_bench.formats.exporters import export_set

    exported = export_set(load_set(path).image_set, out, format)
    for line in exported.notes:
        typer.echo(f"  {line}")
    typer.echo("\n".join(str(place) for place in exported.paths))


@app.command()
def unequalness(
    what: Annotated[str, typer.Argument(metavar="SET|DATASET", help="A file, or the name of a data set.")],
    images: Annotated[int, typer.Option("--images", help="Real images a class, for a data set.")] = 10,
    distance: Annotated[str, typer.Option("--distance", help="dm or dc.")] = "dm",
    networks: Annotated[int, typer.Option("--networks", help="Random networks to average over.")] = 20,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    data_root: RootOption = None,
) -> None:
    """Symmetry score of a set or of real images (FYI eq. 5): 0 where every image's mirror image is there too."""
    from distill.decode import decoded
    from distill.fyi import set_unequalness
    from fyi_bench.data import DATASETS, load_dataset
    from fyi_bench.formats import load_set

    if what in DATASETS:
        from distill.problem import Problem

        data = load_dataset(what, data_root, test=False)
        rows = Problem(data.train, data.space, images, seed).draw_rows(images, "unequalness").flatten()
        chosen, space = data.train.select(rows), data.space
    else:
        chosen, space = decoded(load_set(what).image_set), None
    found = set_unequalness(chosen, seed, networks=networks, distance=distance, space=space)
    typer.echo(f"{what}: {found['mean']:.4g} ± {found['std']:.2g} over {networks} networks ({distance} distance)")


@app.command()
def report(store: StoreOption = None) -> None:
    """One self-contained HTML page out of everything the store holds."""
    from fyi_bench.present.report import report_of_store
    from fyi_bench.store.store import Store

    typer.echo(f"report   {report_of_store(Store(store))}")


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

"""Commands that list and look after things: names, results, data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fyi_bench.commands.options import RootOption, StoreOption

app = typer.Typer()
store_app = typer.Typer(no_args_is_help=True, help="Results: list, merge from another machine, verify.")
data_app = typer.Typer(no_args_is_help=True, help="Real data sets: list, download, verify.")


@app.command("ls")
def list_things(what: Annotated[str, typer.Argument(help="methods, archs, datasets, protocols, recipes …")]) -> None:
    """Names that other commands take."""
    from fyi_bench.listing import LISTINGS

    for line in LISTINGS.get(what)():
        typer.echo(line)


@store_app.command("ls")
def store_ls(store: StoreOption = None) -> None:
    """Finished, partial and diverged runs."""
    from fyi_bench.listing import store_lines
    from fyi_bench.store.store import Store

    for line in store_lines(Store(store)):
        typer.echo(line)


@store_app.command("merge")
def store_merge(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Another store.")], store: StoreOption = None
) -> None:
    """Bring finished runs of another machine's store into this one."""
    from fyi_bench.store.store import Store

    typer.echo("\n".join(Store(store).merge(folder).lines()))


@store_app.command("verify")
def store_verify(store: StoreOption = None) -> None:
    """Check every record and file of the store against its checksum."""
    from fyi_bench.errors import StoreError
    from fyi_bench.store.store import Store

    problems = Store(store).verify()
    for problem in problems:
        typer.echo(str(problem))
    if problems:
        raise StoreError(f"{len(problems)} file(s) are not what their records say.\nSee the lines above.")
    typer.echo("Everything is whole.")


@data_app.command("list")
def data_list(data_root: RootOption = None) -> None:
    """Data sets, and where each was found."""
    from fyi_bench.listing import data_lines

    for line in data_lines(data_root):
        typer.echo(line)


@data_app.command("get")
def data_get(name: Annotated[str, typer.Argument()], data_root: RootOption = None) -> None:
    """Download a data set into the data root."""
    from fyi_bench.data import get

    typer.echo(str(get(name, data_root)))


@data_app.command("verify")
def data_verify(name: Annotated[str, typer.Argument()], data_root: RootOption = None) -> None:
    """Count images and compare channel statistics with the published ones."""
    from fyi_bench.data import verify
    from fyi_bench.errors import DataError

    found = verify(name, data_root)
    typer.echo(str(found))
    if not found.ok:
        raise DataError(f"{name} is not what it should be.\nSee the line 'problem' above.")

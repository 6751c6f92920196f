"""The benchmark of this machine: every job against a plain twin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fyi_bench.commands.options import RootOption, StoreOption

app = typer.Typer()


@app.command()
def bench(
    parts: Annotated[
        list[str] | None, typer.Argument(help="jobs, start-up or growth; the first two by default.")
    ] = None,
    only: Annotated[list[str], typer.Option("--only", help="These jobs: dc dsa dm idc mtt expert …")] = [],  # noqa: B006
    ipc: Annotated[list[int], typer.Option("--ipc", help="These images a class.")] = [],  # noqa: B006
    dataset: Annotated[list[str], typer.Option("--dataset", help="cifar10, cifar100.")] = [],  # noqa: B006
    precision: Annotated[list[str], typer.Option("--precision", help="fp32, bf16; both by default.")] = [],  # noqa: B006
    repeats: Annotated[int | None, typer.Option(help="Rounds of each case; 5, or 3 with --quick.", min=1)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few cases, in minutes.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure anew what was measured before.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="Threads of each side; all cores by default.", min=1)] = None,
    budget: Annotated[str | None, typer.Option(help="Stop cleanly in time, such as 9m; the next call goes on.")] = None,
    data_root: RootOption = None,
    store: StoreOption = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the record to this file.")] = None,
) -> None:
    """Time every job against a plain twin, interleaved; start-up; growth with size (docs/speed.md)."""
    from fyi_bench.bench.case import PRECISIONS
    from fyi_bench.bench.command import run_parts
    from fyi_bench.bench.run import Request, machine_of
    from fyi_bench.config import Settings
    from fyi_bench.duration import parse_duration
    from fyi_bench.run.deadline import Budget, Deadline

    settings = Settings(store=store).resolved() if store is None else Settings(store=store)
    request = Request(
        machine=machine_of(device, threads, data_root),
        store=settings.store,
        only=tuple(only),
        datasets=tuple(dataset),
        ipcs=tuple(ipc),
        precisions=tuple(precision) or PRECISIONS,
        repeats=repeats,
        quick=quick,
        fresh=fresh,
    )
    stop = Deadline(Budget(parse_duration(budget) if budget else None))
    run_parts(parts or [], request, stop, typer.echo, json_file)

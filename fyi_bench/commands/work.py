"""Commands that compute: distil, evaluate, rehearse, demonstrate."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from fyi_bench.commands.options import (
    ArchOption,
    FlipOption,
    FyiOption,
    IpcOption,
    MethodOption,
    OnlyOption,
    with_session,
)

app = typer.Typer()


@app.command()
@with_session
def distill(
    session: Any,
    json_file: Any,
    method: MethodOption = "dm",
    fyi: FyiOption = False,
    flip: FlipOption = None,
    ipc: IpcOption = 10,
    only: OnlyOption = False,
    arch: ArchOption = [],  # noqa: B006
    dataset: str = "cifar10",
) -> None:
    """Condense a data set, with and without the flip, and evaluate the sets."""
    from fyi_bench.api_old import flip_name
    from fyi_bench.present.show import show_distill
    from fyi_bench.tasks.distill import distill_job

    record = distill_job(session, method, flip_name(fyi, flip), ipc, only, arch)
    report_record(session, record, json_file, show_distill)


@app.command()
@with_session
def continual(
    session: Any,
    json_file: Any,
    steps: Annotated[int, typer.Option("--steps", help="Steps the classes come in.")] = 10,
    method: MethodOption = "dsa",
    fyi: FyiOption = False,
    flip: FlipOption = None,
    ipc: IpcOption = 10,
    only: OnlyOption = False,
    dataset: str = "cifar100",
) -> None:
    """Class-incremental learning from distilled memory (Avalanche), against random real images."""
    from fyi_bench.api_old import flip_name
    from fyi_bench.present.figures import continual_figure
    from fyi_bench.present.show import show_continual
    from fyi_bench.tasks.continual import continual_job

    record = continual_job(session, method, flip_name(fyi, flip), ipc, steps, only)
    place = report_record(session, record, json_file, show_continual)
    for path in continual_figure(record, place.with_suffix("")):
        typer.echo(f"plot     {path}")


@app.command()
@with_session
def evaluate(
    session: Any,
    json_file: Any,
    path: Annotated[Path, typer.Argument(metavar="SET", help="A condensed set: our file, or any public format.")],
    arch: ArchOption = [],  # noqa: B006
    robust: Annotated[
        bool, typer.Option("--robust", help="Scores that labels and augmentation cannot inflate.")
    ] = False,
    dataset: str = "cifar10",
) -> None:
    """Accuracy of networks trained on a condensed set."""
    from fyi_bench.present.show import show_evaluate
    from fyi_bench.present.show_robust import show_robust
    from fyi_bench.tasks.evaluate import evaluate_job
    from fyi_bench.tasks.robust import robust_job

    job, show = (robust_job, show_robust) if robust else (evaluate_job, show_evaluate)
    report_record(session, job(session, path, arch), json_file, show)


def report_record(session: Any, record: dict[str, Any], json_file: Path | None, show: Callable[[dict], str]) -> Path:
    """Print the result, save the record, say where everything is and how to repeat it."""
    from fyi_bench.store.commands import save_record

    record["command"] = " ".join(["fyi-bench", *sys.argv[1:]])
    place = save_record(session.store, record, json_file)
    typer.echo("")
    typer.echo(show(record))
    typer.echo(f"record   {place}")
    typer.echo(f"repeat   {record['command']}")
    return place


@app.command("cross-arch")
@with_session
def cross_arch(
    session: Any,
    json_file: Any,
    method: MethodOption = "dm",
    fyi: FyiOption = False,
    flip: FlipOption = None,
    ipc: IpcOption = 50,
    only: OnlyOption = False,
    arch: ArchOption = ["convnet", "vgg11", "resnet18"],  # noqa: B006
    dataset: str = "cifar10",
) -> None:
    """Accuracy of other architectures trained on a condensed set (Table 3)."""
    from fyi_bench.api_old import flip_name
    from fyi_bench.present.show import show_distill
    from fyi_bench.tasks.distill import distill_job

    record = distill_job(session, method, flip_name(fyi, flip), ipc, only, arch, task="cross-arch")
    report_record(session, record, json_file, show_distill)


@app.command()
@with_session
def experts(
    session: Any,
    json_file: Any,
    method: Annotated[str, typer.Option("--method", help="Whose experts: mtt or ftd.")] = "mtt",
    ipc: IpcOption = 10,
    count: Annotated[int | None, typer.Option("--count", help="How many; default: as many as the recipe.")] = None,
    dataset: str = "cifar10",
) -> None:
    """Train the expert trajectories that MTT and FTD match; resumable one by one."""
    from fyi_bench.tasks.experts import experts_job

    record = experts_job(session, method, ipc, count)
    report_record(session, record, json_file, lambda r: f"{len(r['arms'][0]['cells'])} experts are ready.")


@app.command()
@with_session
def demo(session: Any, json_file: Any, dataset: str = "shapes10") -> None:
    """The whole story on built-in data in minutes: distil, rehearse, and an HTML report."""
    from fyi_bench.tasks.demo import demo_job

    demo_job(session, typer.echo)

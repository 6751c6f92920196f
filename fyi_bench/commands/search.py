"""Architecture search and the workers of its sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fyi_bench.commands.options import FlipOption, FyiOption, IpcOption, OnlyOption, with_session

app = typer.Typer()

StorageOption = Annotated[
    str | None,
    typer.Option("--storage", envvar="FYI_BENCH_STORAGE", help="Database: postgresql+psycopg://… or sqlite:///…"),
]
ArtefactsOption = Annotated[
    str | None, typer.Option("--artefacts", help="Where finished runs travel when workers share no store.")
]


@app.command()
@with_session
def nas(
    session: Any,
    json_file: Any,
    method: Annotated[str | None, typer.Option("--method", help="Distillation method of the proxy set.")] = None,
    fyi: FyiOption = False,
    flip: FlipOption = None,
    ipc: IpcOption = 50,
    space: Annotated[int, typer.Option("--space", help="How many of the 720, a stratified choice.")] = 720,
    proxy: Annotated[list[Path], typer.Option("--set-file", help="A set as the proxy.")] = [],  # noqa: B006
    reference: Annotated[str, typer.Option("--reference", help="train, or a stored ranking: name or CSV.")] = "train",
    reference_images: Annotated[
        int | None, typer.Option("--reference-images", help="Real images of the reference; 0: all.")
    ] = None,
    test_images: Annotated[int | None, typer.Option("--test-images", help="Test images; 0: all.")] = None,
    reference_epochs: Annotated[int | None, typer.Option("--reference-epochs", help="Epochs of the reference.")] = None,
    only: OnlyOption = False,
    storage: StorageOption = None,
    artefacts: ArtefactsOption = None,
    enqueue: Annotated[bool, typer.Option("--enqueue", help="Leave the work to `fyi-bench worker`.")] = False,
    save_ranking: Annotated[Path | None, typer.Option("--save-ranking", help="CSV of the real ranking.")] = None,
    dataset: str = "cifar10",
) -> None:
    """Rank ConvNets on a condensed set, and say how far the ranking can be trusted (Table B)."""
    from fyi_bench.api_old import flip_name
    from fyi_bench.commands.work import report_record
    from fyi_bench.present.figures.nas import nas_figure
    from fyi_bench.present.show_nas import show_nas
    from fyi_bench.tasks.nas import Question, nas_job

    question = Question(
        method=method,
        flip=flip_name(fyi, flip),
        ipc=ipc,
        set_paths=tuple(proxy),
        space=space,
        reference=reference,
        reference_images=reference_images,
        test_images=test_images,
        reference_epochs=reference_epochs,
        only=only,
        storage=storage,
        artefacts=artefacts,
        enqueue_only=enqueue,
        save_ranking=save_ranking,
    )
    record = nas_job(session, question, show_nas)
    place = report_record(session, record, json_file, show_nas)
    for path in nas_figure(record, place.with_suffix("")):
        typer.echo(f"plot     {path}")


@app.command()
@with_session
def worker(
    session: Any,
    json_file: Any,
    storage: StorageOption = None,
    study: Annotated[str | None, typer.Option("--study", help="One sweep; default: all.")] = None,
    artefacts: ArtefactsOption = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Leave as soon as no job waits.")] = False,
    dataset: str = "cifar10",
) -> None:
    """Take part in the sweeps of a storage until no job is left."""
    from fyi_bench.tasks.worker import Duty, worker_job

    duty = Duty(storage, study, artefacts, linger=not no_wait)
    worker_job(session.settings, duty, typer.echo, session.display, session.stop)

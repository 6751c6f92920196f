"""Options that commands share, and how a command gets a Session instead of twenty options."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

DatasetOption = Annotated[str, typer.Option("--dataset", help="Data set; `fyi-bench ls datasets` lists them.")]
RootOption = Annotated[
    Path | None, typer.Option("--data-root", envvar="FYI_BENCH_DATA", help="Folder of real data sets.")
]
StoreOption = Annotated[Path | None, typer.Option("--store", envvar="FYI_BENCH_STORE", help="Folder of results.")]


def common_options(
    data_root: RootOption = None,
    store: StoreOption = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="auto (paper on a GPU, quick on a CPU), or a name of `fyi-bench ls protocols`: paper, quick, legacy-…"
        ),
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, or bf16 where first derivatives are enough.")] = "fp32",
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    seeds: Annotated[int | None, typer.Option(help="Independently distilled sets, or class orders.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that share the work; on a CPU one a core.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Of each worker; on a CPU the cores over the cells, 1 under quick.")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Stop cleanly in time, such as 9m; the next call goes on.")] = None,
    set_: Annotated[list[str], typer.Option("--set", help="key=value of the recipe or the protocol.")] = [],  # noqa: B006
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the record to this file.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show plan and estimate, then stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before long work.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress display.")] = False,
) -> None:
    """The options of every command that computes; `with_session` adds them to a command's own."""


def with_session(job: Callable[..., None]) -> Callable[..., None]:
    """Give a command the common options; it receives a Session and the file of --json instead."""
    own = list(inspect.signature(job, eval_str=True).parameters.values())
    shared = list(inspect.signature(common_options, eval_str=True).parameters.values())
    mine = [p for p in own if p.name not in ("session", "json_file")]

    @functools.wraps(job)
    def command(**given: Any) -> None:
        kept = {p.name: given[p.name] for p in mine if p.name != "dataset"}
        session = _session(**{p.name: given[p.name] for p in shared}, dataset=given["dataset"])
        job(session=session, json_file=given["json_file"], **kept)

    dataset = inspect.Parameter(
        "dataset", inspect.Parameter.KEYWORD_ONLY, annotation=DatasetOption, default=_default_of(own, "dataset")
    )
    others = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*mine, *shared) if p.name != "dataset"]
    command.__signature__ = inspect.Signature([*others, dataset])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in (*others, dataset)}
    del command.__wrapped__  # type: ignore[attr-defined]  # typer would read the job's own signature
    return command


def _default_of(parameters: list[inspect.Parameter], name: str) -> Any:
    return next((p.default for p in parameters if p.name == name), "cifar10")


def _session(**o: Any) -> Any:
    from fyi_bench.config import Settings, parse_overrides
    from fyi_bench.duration import parse_duration
    from fyi_bench.session import Session

    settings = Settings(
        dataset=o["dataset"],
        data_root=o["data_root"],
        store=o["store"],
        protocol=o["protocol"],
        device=o["device"],
        precision=o["precision"],
        seed=o["seed"],
        seeds=o["seeds"],
        workers=o["workers"],
        threads=o["threads"],
        budget=parse_duration(o["budget"]) if o["budget"] else None,
        overrides=parse_overrides(o["set_"]),
    )
    display = "silent" if o["quiet"] else "auto"
    return Session(settings, say=typer.echo, confirm=_asker(o["yes"]), dry_run=o["dry_run"], display=display)


def _asker(yes: bool) -> Callable[[str], bool]:
    """Ask only where somebody can answer; elsewhere long work simply starts."""
    if yes or not sys.stdin.isatty():
        return lambda question: True
    return lambda question: typer.confirm(question, default=True)


MethodOption = Annotated[str, typer.Option("--method", help="Distillation method; `fyi-bench ls methods`.")]
FyiOption = Annotated[bool, typer.Option("--fyi", help="Short for --flip fyi.")]
FlipOption = Annotated[str | None, typer.Option("--flip", help="none, fyi, random, vertical, rotate or scale.")]
IpcOption = Annotated[int, typer.Option("--ipc", help="Images per class.")]
OnlyOption = Annotated[bool, typer.Option("--only", help="Only this arm: no comparison without the flip or random.")]
ArchOption = Annotated[list[str], typer.Option("--arch", help="Architecture(s) to evaluate; 'none' for none.")]

"""The command line: one sub-command a job, thin. Nothing heavy is imported before a job needs it."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from fyi_bench import __version__
from fyi_bench.errors import EXIT_INTERRUPTED, FyiBenchError

app = typer.Typer(
    name="fyi-bench",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Is a condensed set a faithful proxy for the real data? Distil with and without FYI, and measure it.",
)
store_app = typer.Typer(no_args_is_help=True, help="Results: list, merge from another machine, verify.")
data_app = typer.Typer(no_args_is_help=True, help="Real data sets: list, download, verify.")
app.add_typer(store_app, name="store")
app.add_typer(data_app, name="data")

DatasetOption = Annotated[str, typer.Option("--dataset", help="Data set; `fyi-bench ls datasets` lists them.")]
RootOption = Annotated[
    Path | None, typer.Option("--data-root", envvar="FYI_BENCH_DATA", help="Folder of real data sets.")
]
StoreOption = Annotated[Path | None, typer.Option("--store", envvar="FYI_BENCH_STORE", help="Folder of results.")]


def common_options(
    data_root: RootOption = None,
    store: StoreOption = None,
    protocol: Annotated[str, typer.Option(help="auto (paper on a GPU, quick on a CPU), paper, quick.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, or bf16 where first derivatives are enough.")] = "fp32",
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    seeds: Annotated[int | None, typer.Option(help="Independently distilled sets, or class orders.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that share the work.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of each worker.")] = None,
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
    from fyi_bench.budget import parse_duration
    from fyi_bench.config import Settings, parse_overrides
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
    from fyi_bench.api import flip_name
    from fyi_bench.jobs.distill import distill_job
    from fyi_bench.show import show_distill

    record = distill_job(session, method, flip_name(fyi, flip), ipc, only, arch)
    _report(session, record, json_file, show_distill)


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
    from fyi_bench.api import flip_name
    from fyi_bench.figures import continual_figure
    from fyi_bench.jobs.continual import continual_job
    from fyi_bench.show import show_continual

    record = continual_job(session, method, flip_name(fyi, flip), ipc, steps, only)
    place = _report(session, record, json_file, show_continual)
    for path in continual_figure(record, place.with_suffix("")):
        typer.echo(f"plot     {path}")


@app.command()
@with_session
def evaluate(
    session: Any,
    json_file: Any,
    path: Annotated[Path, typer.Argument(metavar="SET", help="A condensed set.")],
    arch: ArchOption = [],  # noqa: B006
    dataset: str = "cifar10",
) -> None:
    """Accuracy of networks trained on a condensed set."""
    from fyi_bench.jobs.evaluate import evaluate_job
    from fyi_bench.show import show_evaluate

    record = evaluate_job(session, path, arch)
    _report(session, record, json_file, show_evaluate)


def _report(session: Any, record: dict[str, Any], json_file: Path | None, show: Callable[[dict], str]) -> Path:
    """Print the result, save the record, say where everything is and how to repeat it."""
    from fyi_bench.jobs.save import save_record

    record["command"] = " ".join(["fyi-bench", *sys.argv[1:]])
    place = save_record(session.store, record, json_file)
    typer.echo("")
    typer.echo(show(record))
    typer.echo(f"record   {place}")
    typer.echo(f"repeat   {record['command']}")
    return place


@app.command()
def inspect_set(path: Annotated[Path, typer.Argument(metavar="SET")]) -> None:
    """Everything known about a condensed set: classes, space, symmetry, provenance."""
    from fyi_bench.inspection import format_report, inspect_set

    typer.echo(format_report(inspect_set(path)))


app.registered_commands[-1].name = "inspect"


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
    from fyi_bench.store import Store

    for line in store_lines(Store(store)):
        typer.echo(line)


@store_app.command("merge")
def store_merge(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Another store.")], store: StoreOption = None
) -> None:
    """Bring finished runs of another machine's store into this one."""
    from fyi_bench.store import Store

    typer.echo(str(Store(store).merge(folder)))


@store_app.command("verify")
def store_verify(store: StoreOption = None) -> None:
    """Check every record and file of the store against its checksum."""
    from fyi_bench.errors import StoreError
    from fyi_bench.store import Store

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

    typer.echo(str(verify(name, data_root)))


@app.command()
@with_session
def demo(session: Any, json_file: Any, dataset: str = "shapes10") -> None:
    """The whole story on built-in data in minutes: distil, rehearse, and an HTML report."""
    from fyi_bench.jobs.demo import demo_job

    demo_job(session, typer.echo)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fyi-bench {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Options before the command."""


def main() -> None:
    """Run the command line; turn errors into one or two lines and an exit code."""
    debug = "--debug" in sys.argv
    try:
        app(args=[a for a in sys.argv[1:] if a != "--debug"], standalone_mode=True)
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

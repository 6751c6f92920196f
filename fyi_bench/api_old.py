"""The Python API: the words of the command line as functions that return records or sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.config import Settings
from fyi_bench.session import Session
from fyi_bench.store.commands import save_record

if TYPE_CHECKING:
    from distill.image_set import ImageSet

DEFAULT_IPC = 10
DEFAULT_STEPS = 10
CROSS_ARCH_IPC = 50
CROSS_ARCHITECTURES = ("convnet", "vgg11", "resnet18")
CONTINUAL_DATASET = "cifar100"
DEMO_DATASET = "shapes10"


def distill(
    method: str = "dm",
    *,
    fyi: bool = False,
    flip: str | None = None,
    ipc: int = DEFAULT_IPC,
    only: bool = False,
    architectures: Sequence[str] = (),
    session: Session | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Condense a data set and evaluate the result; returns the record (`arms[i]["set"]` is the file).

    flip: 'none', 'fyi', 'random', 'vertical', 'rotate' or 'scale'; `fyi=True` is short for 'fyi'. only: leave out
    the other arms. settings: fields of `Settings` (dataset, protocol, device, seed, seeds, overrides …).
    Raises UsageError, DataError, DivergenceError, BudgetExhausted … of `fyi_bench.errors`.
    """
    from fyi_bench.tasks.distill import distill_job

    session = session or Session(Settings(**settings))
    record = distill_job(session, method, flip_name(fyi, flip), ipc, only, architectures)
    save_record(session.store, record)
    return record


def continual(
    method: str = "dsa",
    *,
    steps: int = DEFAULT_STEPS,
    fyi: bool = False,
    flip: str | None = None,
    ipc: int = DEFAULT_IPC,
    only: bool = False,
    session: Session | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Class-incremental learning from distilled memory; returns the record (`arms[i]["accuracy"]`, a row a step)."""
    from fyi_bench.tasks.continual import continual_job

    session = session or Session(Settings(**{"dataset": CONTINUAL_DATASET, **settings}))
    record = continual_job(session, method, flip_name(fyi, flip), ipc, steps, only)
    save_record(session.store, record)
    return record


def nas(
    method: str | None = None,
    *,
    fyi: bool = False,
    flip: str | None = None,
    sets: Sequence[str | Path] = (),
    session: Session | None = None,
    question: Mapping[str, Any] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """How wrong a ranking of ConvNets on a condensed set is; returns the record (docs/nas.md).

    method None: the default one, or the sets of the files `sets`. question: further fields of `jobs.nas.Question`
    (ipc, space, reference, only, storage …). Raises what `distill` raises, and StoreError for a bad storage.
    """
    from fyi_bench.tasks.nas import Question, nas_job

    session = session or Session(Settings(**settings))
    asked = Question(method, flip_name(fyi, flip), set_paths=tuple(map(Path, sets)), **(question or {}))
    record = nas_job(session, asked)
    save_record(session.store, record)
    return record


def evaluate(
    path: str | Path,
    *,
    architectures: Sequence[str] = (),
    robust: bool = False,
    session: Session | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Accuracy of networks trained on a set that is a file; returns the record.

    robust: label-robust and augmentation-robust scores instead (downstream.robust_scores), on one architecture.
    """
    from fyi_bench.tasks.evaluate import evaluate_job
    from fyi_bench.tasks.robust import robust_job

    session = session or Session(Settings(**settings))
    record = (robust_job if robust else evaluate_job)(session, path, architectures)
    save_record(session.store, record)
    return record


def cross_arch(
    method: str = "dm",
    *,
    fyi: bool = False,
    flip: str | None = None,
    ipc: int = CROSS_ARCH_IPC,
    only: bool = False,
    architectures: Sequence[str] = CROSS_ARCHITECTURES,
    session: Session | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Accuracy of several architectures trained on one method's sets, with and without the flip; returns the record."""
    from fyi_bench.tasks.distill import distill_job

    session = session or Session(Settings(**settings))
    record = distill_job(session, method, flip_name(fyi, flip), ipc, only, architectures, task="cross-arch")
    save_record(session.store, record)
    return record


def load(path: str | Path, **options: Any) -> ImageSet:
    """Read a condensed set, ours or of any public format; DataError names what is wrong with a broken one.

    options: what is not to be guessed: format, space, dataset, factor.
    """
    from fyi_bench.formats import load_set

    return load_set(path, **options).image_set


def export(image_set: ImageSet | str | Path, path: str | Path, format: str) -> list[Path]:
    """Write a set for other people's readers: 'dc', 'idc', 'mtt', 'dd-ranking', 'image-folder', 'parquet'."""
    from fyi_bench.formats.export import export_set

    given = load(image_set) if isinstance(image_set, str | Path) else image_set
    return export_set(given, path, format).paths


def table(name: str, *, form: str = "text", run: bool = False, session: Session | None = None, **settings: Any) -> str:
    """Table '1', '2', '3', '4', 'A' or 'B' of the paper as text, markdown, latex, csv or html.

    run: fill the holes first. Which numbers: those of the protocol in `settings`, else what the store has.
    """
    from fyi_bench.tasks.table import session_protocol, table_job

    asked = "protocol" in settings or "overrides" in settings
    session = session or Session(Settings(**settings))
    return table_job(session, name, form, run, session_protocol(session) if asked else None, session.say)


def make_report(store: str | Path | None = None) -> Path:
    """One self-contained HTML page out of everything a store holds; returns its place."""
    from fyi_bench.present.report import report_of_store
    from fyi_bench.store.store import Store

    return report_of_store(Store(store))


def inspect(path: str | Path, **options: Any) -> dict[str, Any]:
    """Everything known about a condensed set, as a dictionary; options as `formats.inspection.inspect_set` takes."""
    from fyi_bench.formats.inspection import inspect_set

    return inspect_set(path, **options)


def demo(*, say: Any = print, session: Session | None = None, **settings: Any) -> Path:
    """The whole story on built-in data; prints through `say` and returns the place of the HTML report."""
    from fyi_bench.tasks.demo import demo_job

    return demo_job(session or Session(Settings(**{"dataset": DEMO_DATASET, **settings}), say=say), say)[1]


def CondensedBuffer(method: str = "dsa", fyi: bool = True, **options: Any) -> Any:
    """Storage policy for Avalanche's strategies that distils each experience; see downstream.continual."""
    from downstream.continual import condensed_buffer

    return condensed_buffer(method, fyi, **options)


def flip_name(fyi: bool, flip: str | None) -> str:
    """The flip that `--fyi` and `--flip` ask for together. Raises UsageError when they contradict each other."""
    from fyi_bench.errors import UsageError

    if fyi and flip not in (None, "fyi"):
        raise UsageError(f"--fyi and --flip {flip} contradict each other.\nGive one of them.")
    return "fyi" if fyi else flip or "none"

"""Commands that need no runs, as functions: what is in a file, other people's formats, listings, the report.

Each is a word of the Python API as it stands; the command line reads its options from the annotations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fyi_bench.config import DATASET_NAMES, Option, Settings, option, options_of
from fyi_bench.errors import StoreError, UnknownNameError, UsageError
from fyi_bench.parameters import Parameter, bind, dress, of_dataclass, of_function
from fyi_bench.reading import PANEL, OneSetFacts, is_bare_name, stated_facts
from fyi_bench.registry import pick

if TYPE_CHECKING:
    from distill.image_set import ImageSet

Say = Callable[[str], None]


def silent(line: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Tool:
    """A command that is a function. name: its words on the command line, '' for none. word: in Python, '' for none.

    lines: what to print of the result, by options of its own; None: it yields the lines itself. json: whether --json
    can keep the result.
    """

    name: str
    function: Callable[..., Any]
    summary: str
    parameters: Sequence[Parameter]
    lines: Callable[..., Iterable[str]] | None = None
    examples: Sequence[str] = ()
    word: str = ""
    json: bool = field(default=False, kw_only=True)


TOOLS: dict[str, Tool] = {}


def tool(
    name: str,
    lines: Callable[..., Iterable[str]] | None = None,
    *,
    examples: Sequence[str] = (),
    options: type | None = None,
    json: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as a command; `options` is a dataclass of more options, which reach it as keywords."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        parameters = [*of_function(function), *(of_dataclass(options) if options else ())]

        more = {"say": ("Callable[[str], None]", silent)} if "say" in function.__annotations__ else {}

        def call(*values: Any, **named: Any) -> Any:
            rest = {name: named.pop(name) for name in more if name in named}
            return function(**bind(function.__name__, parameters, values, named), **rest)

        word = "" if lines is None else function.__name__
        summary = (function.__doc__ or "").partition("\n")[0]
        dress(call, function.__name__, summary, parameters, function.__annotations__["return"], more)
        TOOLS[name or word] = Tool(name, call, summary, parameters, lines, examples, word, json=json)
        return call

    return register


def _common(name: str) -> Option:
    return options_of(Settings)[name][1]


SetArgument = Annotated[Path | Any, Option("A condensed set: ours, any public format, hf:OWNER/NAME.", argument="SET")]
Root = Annotated[Path | None, _common("data_root")]
StoreFolder = Annotated[Path | None, _common("store")]


@dataclass(frozen=True, kw_only=True)
class Reading(OneSetFacts):
    """What is not to be guessed about other people's files, their data set among it."""

    dataset: str | None = option(
        None, "Data set it stands for, where it cannot be guessed.", names=DATASET_NAMES, panel=PANEL
    )  # fmt: skip
    data_root: Path | None = option(None, _common("data_root").help, environment="FYI_BENCH_DATA", advanced=True)


@tool("", lambda image_set: (), options=Reading)
def load(path: Annotated[Path, Option("A condensed set.", argument="SET")], **reading: Any) -> ImageSet:
    """Read a condensed set, ours or of any public format; DataError names what is wrong with a broken one."""
    from fyi_bench.formats import load_set

    return load_set(path, **reading).image_set


def _inspect_lines(report: dict[str, Any]) -> list[str]:
    from fyi_bench.formats.inspection import format_report

    return [format_report(report)]


@tool("inspect", _inspect_lines, options=Reading, json=True,
      examples=("fyi-bench inspect runs/distill/0123456789abcdef/set.safetensors",
                "fyi-bench inspect res_DM_CIFAR10_ConvNet_10ipc.pt --unequalness"))  # fmt: skip
def inspect(
    path: SetArgument,
    *,
    unequalness: Annotated[bool, Option("Also measure the symmetry score.")] = False,
    networks: Annotated[int, Option("Random networks of the score.", advanced=True)] = 20,
    seed: Annotated[int, Option("First seed of these networks.", advanced=True)] = 0,
    duplicates: Annotated[bool, Option("Look for pairs of equal images.", advanced=True)] = True,
    **reading: Any,
) -> dict[str, Any]:
    """Everything known about a condensed set: classes, space, duplicates, symmetry, provenance."""
    from fyi_bench.formats.inspection import inspect_set

    if not unequalness and (networks, seed) != (20, 0):
        raise UsageError("--networks and --seed are of the symmetry score.\nGive --unequalness too.")
    return inspect_set(path, unequalness=unequalness, networks=networks, seed=seed, duplicates=duplicates, **reading)


@tool("import", lambda places: (), options=Reading,
      examples=("fyi-bench import res_DM_CIFAR10_ConvNet_10ipc.pt",
                "fyi-bench import images_best.pt --dataset cifar10 --space zca --out theirs.safetensors"))  # fmt: skip
def import_set(
    paths: Annotated[tuple[Path, ...], Option("Files or folders of others.", argument="FILE…")],
    *,
    out: Annotated[Path | None, Option("Where to write; default: beside, as .safetensors.")] = None,
    say: Say = silent,
    **reading: Any,
) -> list[Path]:
    """Read other people's condensed sets and write them as ours. Files that carry code are refused, never run."""
    from fyi_bench.data.hub import is_address
    from fyi_bench.formats import load_set, save_imported
    from fyi_bench.formats.guard import agreement_of

    if out is not None and len(paths) > 1:
        raise UsageError("--out names one file, but several are to be imported.\nImport them one by one.")
    places = []
    for path in paths:
        found = load_set(path, **reading)
        beside = Path() if is_address(path) else path.parent
        places.append(save_imported(found, out or beside / (path.stem + ".imported.safetensors")))
        agreement = agreement_of(found, reading.get("data_root"))
        doubt = [agreement.doubt] if agreement and agreement.doubtful else []
        for line in (*found.guesses, *found.warnings, *doubt):
            say(f"  {line}")
        say(f"{path} -> {places[-1]}")
    return places


@tool("export", lambda places: map(str, places),
      examples=("fyi-bench export set.safetensors --format dc --out res_DM_CIFAR10_ConvNet_10ipc.pt",
                "fyi-bench export set.safetensors --format hub --out my-set --card card.json"))  # fmt: skip
def export(
    image_set: SetArgument,
    path: Annotated[Path, Option("File or folder to write.", flag="--out")],
    format: Annotated[str, Option("dc, mtt, idc, hub, parquet, image-folder …")],
    *,
    card: Annotated[Path | None, Option("Record of its card, for the page of a hub's repository.")] = None,
    say: Say = silent,
) -> list[Path]:
    """Write a set for other people's readers."""
    from fyi_bench.formats.export import export_set

    if card is not None and format != "hub":
        raise UsageError(f"--card is for the page of --format hub, and '{format}' has none.\nLeave it out.")
    chosen = load(image_set) if isinstance(image_set, Path) else image_set
    results = None if card is None else _results_of(card, chosen)
    exported = export_set(chosen, path, format)
    if results is not None:
        from fyi_bench.formats.layouts.hub import with_results

        with_results(Path(path), results)
    for line in exported.notes:
        say(f"  {line}")
    return exported.paths


_MAKE_CARD = "Make one: fyi-bench card SET --json FILE"


def _card_of(path: Path) -> dict[str, Any]:
    from fyi_bench.store.record import read_record

    try:
        record = read_record(path)
    except StoreError as error:
        if not path.exists():
            raise UsageError(f"There is no file {path}.\nMake it: fyi-bench card SET --json {path}") from None
        raise UsageError(f"{error.args[0].splitlines()[0]}\n{_MAKE_CARD}") from error
    if record.get("task") != "card":
        raise UsageError(f"{path} is no record of a card.\n{_MAKE_CARD}")
    return record


def _results_of(card: Path, image_set: ImageSet) -> str:
    """A card as Markdown. Raises UsageError where it is no card, or one of another set."""
    from fyi_bench.tasks.card.words import markdown_of

    record = _card_of(card)
    if record["arms"][0]["set_digest"] != image_set.digest:
        raise UsageError(f"{card} is the card of another set.\nMake one of this set: fyi-bench card SET --json FILE")
    return markdown_of(record)


def _cards_lines(rows: list[list[str]], format: Annotated[str, Option("table or markdown.")] = "table") -> list[str]:
    from fyi_bench.present.tables.forms import markdown_table
    from fyi_bench.present.words import columns

    forms: dict[str, Callable[[list[str], list[list[str]]], Iterable[str]]] = {
        "table": lambda header, lines: columns([header, *lines]), "markdown": markdown_table,
    }  # fmt: skip
    return list(pick("format", format, forms)(rows[0], rows[1:]))


@tool("cards", _cards_lines, examples=("fyi-bench cards dm.json dm-fyi.json",
                                       "fyi-bench cards dm.json dm-fyi.json --format markdown"))  # fmt: skip
def cards(
    records: Annotated[
        tuple[Path, ...], Option("Records of cards, as --json of `card` writes them.", argument="CARD…")
    ],
) -> list[list[str]]:
    """Cards side by side: a row for each answer and number, a column for each card."""
    from fyi_bench.tasks.card.words import side_by_side

    header, rows = side_by_side([_card_of(path) for path in records])
    return [header, *rows]


@tool("push", lambda address: [f"pushed   {address}"],
      examples=("fyi-bench push my-set OWNER/NAME", "fyi-bench push my-set OWNER/NAME --private"))  # fmt: skip
def push(
    folder: Annotated[Path, Option("A folder that `export --format hub` wrote.", argument="FOLDER")],
    repository: Annotated[str, Option("OWNER/NAME of the data set repository.", argument="REPOSITORY")],
    *,
    private: Annotated[bool, Option("Make a new repository private.")] = False,
    token: Annotated[str | None, Option("Access token; default: HF_TOKEN, or who logged in.", advanced=True)] = None,
    endpoint: Annotated[str | None, Option("Address of the Hub.", environment="HF_ENDPOINT", advanced=True)] = None,
) -> str:
    """Put an exported set on the Hugging Face Hub, with your token; needs the extra `hub`."""
    from fyi_bench.formats.layouts.hub import push_folder

    return push_folder(folder, repository, private=private, token=token, endpoint=endpoint)


def _unequalness_lines(found: Mapping[str, Any]) -> list[str]:
    from fyi_bench.present.words import count_words

    networks, std = found["networks"], f" ± {found['std']:.2g}" if found["networks"] > 1 else ""
    return [f"{found['what']}: {found['mean']:.4g}{std} over {count_words(networks, 'network')}"
            f" ({found['distance']} distance)"]  # fmt: skip


@tool("unequalness", _unequalness_lines, options=Reading, json=True,
      examples=("fyi-bench unequalness cifar10", "fyi-bench unequalness set.safetensors --distance dc"))  # fmt: skip
def unequalness(
    what: Annotated[str, Option("A file, or the name of a data set.", argument="SET|DATASET")],
    *,
    images: Annotated[int, Option("Real images a class, for a data set.")] = 10,
    distance: Annotated[str, Option("dm, dc, dsa or mtt.")] = "dm",
    networks: Annotated[int, Option("Random networks to average over.")] = 20,
    seed: Annotated[int, Option("Seed of the networks, and of the images drawn.")] = 0,
    **reading: Any,
) -> dict[str, Any]:
    """Symmetry score of a set or of real images (FYI eq. 5): 0 where every image's mirror image is there too."""
    from distill.decode import decoded
    from distill.fyi import set_unequalness
    from distill.problem import Problem
    from fyi_bench.data import DATASETS, load_dataset

    if what in DATASETS and (DATASETS.spelled(what) == what or not Path(what).exists()):
        if stated := stated_facts(Reading(**reading), Reading).keys() - {"data_root"}:
            raise UsageError(
                f"{what} is a data set, and --{min(stated).replace('_', '-')} is about a file.\nLeave it out."
            )
        what = DATASETS.spelled(what)
        data = load_dataset(what, reading.get("data_root"), test=False)
        rows = Problem(data.train, data.space, images, seed).draw_rows(images, "unequalness").flatten()
        chosen, space = data.train.select(rows), data.space
    elif is_bare_name(what):
        raise UnknownNameError("set or data set", what, DATASETS)
    else:
        if images != 10:
            raise UsageError(f"--images is about real images, and {what} is a file.\nLeave it out.")
        chosen, space = decoded(load(Path(what), **reading)), None
    found = set_unequalness(chosen, seed, networks=networks, distance=distance, space=space)
    return {"what": what, "distance": distance, **found}


@tool("report", lambda path: [f"report   {path}"], examples=("fyi-bench report", "fyi-bench report --store ~/runs"))
def report(store: StoreFolder = None) -> Path:
    """One self-contained HTML page about everything in the store."""
    from fyi_bench.store.store import Store
    from fyi_bench.tasks.report import write_report

    return write_report(Store(store))

"""Commands that list names and look after data. They yield lines for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from fyi_bench.config import DATASET_NAMES, Option
from fyi_bench.errors import DataError
from fyi_bench.present.words import columns, wrapped
from fyi_bench.registry import Registry, pick, spelled_as
from fyi_bench.tools import Root, StoreFolder, tool


def methods() -> list[str]:
    """Name and first line of each method."""
    from distill.methods import METHODS

    return _entries(METHODS, lambda name: (METHODS.get(name).__doc__ or "").strip().split("\n")[0])


def architectures() -> list[str]:
    """Name and description of each architecture."""
    import search_space

    return _entries(search_space.ARCHITECTURES, search_space.describe)


def datasets() -> list[str]:
    """Names of the data sets."""
    from fyi_bench.data import DATASETS

    return _entries(DATASETS)


def flips() -> list[str]:
    """Names of the flips."""
    from distill.fyi import FLIPS

    return _entries(FLIPS)


def protocols() -> list[str]:
    """Name of each protocol, its version, the tasks it defines, and what it is."""
    from downstream.protocol import protocol_data, protocol_names

    found = ((name, protocol_data(name)) for name in protocol_names())
    return columns([(name, _version(d), ", ".join(d["task"]), d["about"]) for name, d in found])


def _version(protocol: Mapping[str, Any]) -> str:
    """'version 1 (2: mnist, svhn)'."""
    others: dict[int, list[str]] = {}
    for dataset, table in protocol["common"].get("dataset", {}).items():
        if "version" in table:
            others.setdefault(table["version"], []).append(dataset)
    return " ".join([f"version {protocol['version']}", *(f"({v}: {', '.join(names)})" for v, names in others.items())])


def recipes() -> list[str]:
    """Every (method, data set, images per class) with recorded hyper-parameters, and whether they are published."""
    from distill.recipes import list_recipes

    keys = ("method", "dataset", "ipc", "main", "status", "source")
    return columns([keys, *(tuple(row[key] for key in keys) for row in list_recipes())])


def runs() -> list[str]:
    """What the store holds."""
    from fyi_bench.stored import store_ls

    return list(store_ls())


# what `fyi-bench ls` can list -> function giving the lines
LISTINGS: dict[str, Callable[[], list[str]]] = {
    "methods": methods, "archs": architectures, "datasets": datasets, "flips": flips, "protocols": protocols,
    "recipes": recipes, "runs": runs,
}  # fmt: skip


def _entries(registry: Registry[Any], about: Callable[[str], str] = lambda name: "") -> list[str]:
    """One line an entry, and below them what is wrong with those that cannot be used."""
    found, complaints = registry.usable()
    return [*columns([(name, about(name)) for name in found]), *complaints]


@tool("ls", examples=("fyi-bench ls methods", "fyi-bench ls recipes"))
def list_things(
    what: Annotated[str, Option("methods, archs, datasets, protocols, recipes …", argument="WHAT")] = "",
) -> Iterator[str]:
    """Names that other commands take; alone, what can be listed."""
    if what:
        yield from pick("listing", spelled_as(what, LISTINGS), LISTINGS)()
    else:
        yield from columns([(f"fyi-bench ls {name}", (of.__doc__ or "").strip()) for name, of in LISTINGS.items()])


@tool("replication", examples=(
    "fyi-bench replication --store results",
    "fyi-bench replication --store results --out docs/replication.md --readme README.md",
))  # fmt: skip
def replication(
    out: Annotated[Path | None, Option("Write the page to this file instead of printing.")] = None,
    readme: Annotated[
        Path | None, Option("Renew the head of this page, between its marks, and the picture it shows.", advanced=True)
    ] = None,
    store: StoreFolder = None,
) -> Iterator[str]:
    """Every published number of the FYI paper beside others' and ours, with a verdict, as Markdown."""
    from fyi_bench.files import write_text
    from fyi_bench.present.replication import page, renew
    from fyi_bench.store.store import Store

    opened = Store(store)
    opened.must_exist()
    if out is not None:
        yield f"page     {write_text(out, page(opened))}"
    if readme is not None:
        yield from (f"renewed  {path}" for path in renew(opened, readme))
    if out is None and readme is None:
        yield page(opened)


NameArgument = Annotated[
    str, Option("A data set; `fyi-bench data list` lists them.", argument="NAME", names=DATASET_NAMES)
]


@tool("data list", examples=("fyi-bench data list", "fyi-bench data list --data-root ~/data"))
def data_list(data_root: Root = None) -> Iterator[str]:
    """Data sets: classes, size, counts, and where each was found."""
    from fyi_bench.data import list_datasets

    rows: list[tuple[object, ...]] = [("name", "classes", "size", "train", "test", "state", "where")]
    remarks: dict[str, list[str]] = {}
    for row in list_datasets(data_root):
        numbers = ("" if n is None else n for n in (row.classes, row.size, row.train, row.test))
        state = row.state.partition(":")[0] if row.found else "not here"
        if state != row.state:
            remarks.setdefault(row.state, []).append(row.name)
        rows.append((row.name, *numbers, state, row.found))
    yield from columns(rows)
    yield ""
    yield from wrapped(f"{', '.join(names)}: {remark}" for remark, names in remarks.items())


@tool("data classes", examples=("fyi-bench data classes imagewoof", "fyi-bench data classes cifar100"))
def data_classes(name: NameArgument, data_root: Root = None) -> Iterator[str]:
    """Number and names of each class; a file of such lines, in another order, is what `--classes` takes."""
    from fyi_bench.data.classes import class_table

    table = class_table(name, data_root)
    if table is None:
        raise DataError(f"Only its files say the classes of {name}, and they are not here.\nName their --data-root.")
    for number, names in enumerate(table.rows):
        yield "\t".join([str(number), *dict.fromkeys(names)])


@tool("data get", examples=("fyi-bench data get cifar10",))
def data_get(name: NameArgument, data_root: Root = None) -> Iterator[str]:
    """Download a data set into the data root."""
    from fyi_bench.data import get

    yield str(get(name, data_root))


@tool("data verify", examples=("fyi-bench data verify cifar10",))
def data_verify(name: NameArgument, data_root: Root = None) -> Iterator[str]:
    """Count images and compare channel statistics with the published ones."""
    from fyi_bench.data import verify

    found = verify(name, data_root)
    yield str(found)
    if not found.ok:
        raise DataError(f"{name} is not what it should be.\nSee the line 'problem' above.")

"""Lines for people: what names there are, what the store holds, where data was found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from fyi_bench.registry import Registry
from fyi_bench.store.store import Store

# what `fyi-bench ls` can list -> function giving the lines
LISTINGS: Registry[Callable[[], Iterable[str]]] = Registry("listing")


def columns(rows: Sequence[Sequence[object]]) -> list[str]:
    """Rows as left-aligned text columns."""
    texts = [[str(entry) for entry in row] for row in rows]
    widths = [max(len(row[i]) for row in texts) for i in range(len(texts[0]))] if texts else []
    return ["  ".join(entry.ljust(width) for entry, width in zip(row, widths)).rstrip() for row in texts]


@LISTINGS.register("methods")
def methods() -> list[str]:
    """Name and first sentence of each method."""
    from distill.method import METHODS

    return columns([(name, _first_sentence(METHODS.get(name).__doc__)) for name in METHODS])


@LISTINGS.register("archs")
def architectures() -> list[str]:
    """Name and description of each architecture."""
    import search_space

    return columns([(name, search_space.describe(name)) for name in search_space.ARCHITECTURES])


@LISTINGS.register("datasets")
def datasets() -> list[str]:
    """Names of the data sets."""
    from fyi_bench.data import DATASETS

    return DATASETS.names()


@LISTINGS.register("protocols")
def protocols() -> list[str]:
    """Name of each protocol, its version, the tasks it defines, and what it is."""
    from downstream.protocol import protocol_data, protocol_names

    found = ((name, protocol_data(name)) for name in protocol_names())
    return columns([(name, f"version {d['version']}", ", ".join(d["task"]), d["about"]) for name, d in found])


@LISTINGS.register("flips")
def flips() -> list[str]:
    """Names of the flips."""
    from distill.fyi import FLIPS

    return FLIPS.names()


@LISTINGS.register("recipes")
def recipes() -> list[str]:
    """Every (method, data set, images per class) with recorded hyper-parameters, and whether they are published."""
    from distill.recipes import list_recipes

    keys = ("method", "dataset", "ipc", "main", "status", "source")
    return columns([keys, *(tuple(row[key] for key in keys) for row in list_recipes())])


@LISTINGS.register("runs")
def runs() -> list[str]:
    """What the store holds."""
    return store_lines(Store())


def store_lines(store: Store) -> list[str]:
    """One line a run: state, kind, digest, what it is, size."""
    found = store.ls()
    if not found:
        return [f"The store {store.root} is empty."]
    rows = [("state", "kind", "digest", "what", "KiB")]
    for run in found:
        i = run.inputs
        what = " ".join(str(i[key]) for key in ("dataset", "method", "flip", "ipc", "step", "seed") if key in i)
        state = run.state + (f" at {run.step}" if run.step is not None and run.state != "done" else "")
        rows.append((state, run.kind, run.digest, what + (f" · {run.detail}" if run.detail else ""), run.bytes // 1024))
    return columns(rows)


def data_lines(root: Path | None) -> list[str]:
    """One line a data set: classes, size, counts, where it was found."""
    from fyi_bench.data import list_datasets

    rows = [("name", "classes", "size", "train", "test", "state", "where")]
    for row in list_datasets(root):
        numbers = ("" if n is None else n for n in (row.classes, row.size, row.train, row.test))
        rows.append((row.name, *numbers, row.state if row.found else f"not here: {row.state}", row.found))
    return columns(rows)


def _first_sentence(text: str | None) -> str:
    return (text or "").strip().split("\n")[0]

"""Rows and columns of the paper's tables, taken from the published numbers; those of Table 4 are written down here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fyi_bench.present.published import FULL, Published, published
from fyi_bench.present.tables.model import Column, Row
from fyi_bench.registry import Registry

# rows that stand for everything in a column group, like the full data set's, have no images per class
_UNITS = {"spearman_all": "all", "spearman_top50": "top 50 %", "time_min": "time, min", "images": "images"}
_FLIP_LABELS = {"none": "", "fyi": " + FYI", "random": " + Flip", "vertical": " + vertical flip",
                "rotate": " + rotate 15°", "scale": " + scale 1.2"}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """What a table compares: its title, rows, columns, and the published number of each place."""

    title: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    published: dict[tuple[Row, Column], Published]
    notes: tuple[str, ...] = ()

    def asks(self, row: Row, column: Column) -> bool:
        """Whether the paper has a number here; where its numbers cannot be read, everywhere."""
        return not self.published or (row, column) in self.published

    def fillable(self, row: Row, column: Column) -> bool:
        """Whether a command fills the place: training on the whole data set is only quoted."""
        return self.asks(row, column) and row.method != FULL and column.ipc is not None and column.measurable


# name of a table -> function giving its layout
LAYOUTS: Registry[Callable[[], Layout]] = Registry("table", group="fyi_bench.tables")


def layout(name: str) -> Layout:
    """The layout of '1', '2', '3', '4', 'A' or 'B', in either case; UnknownNameError for others."""
    return LAYOUTS.get(name.upper())()


def _from_published(name: str, title: str, heading: Callable[[Published], tuple[str, str]], *notes: str) -> Layout:
    found = published(name)
    rows = {(r.method, r.flip): Row(r.method, r.flip, _row_label(r)) for r in found}
    columns = {_place(r): Column(r.dataset, r.ipc, r.arch, r.metric, *heading(r)) for r in found}
    # the full data set comes last, as printed; its columns follow those of the same data set
    order = sorted(rows, key=lambda key: key[0] == FULL)
    numbers = {(rows[r.method, r.flip], columns[_place(r)]): r for r in found}
    return Layout(title, tuple(rows[key] for key in order), _grouped(columns.values()), numbers, notes)


def _place(r: Published) -> tuple:
    return r.dataset, r.ipc, r.arch, r.metric


def _grouped(columns) -> tuple[Column, ...]:
    """Columns of one heading together, in order of first appearance."""
    headings = list(dict.fromkeys(column.heading for column in columns))
    return tuple(sorted(columns, key=lambda column: headings.index(column.heading)))


def _row_label(r: Published) -> str:
    return {FULL: "Full data"}.get(r.method, r.method_label.split("+Flip")[0] + _FLIP_LABELS[r.flip])


def _by_ipc(r: Published) -> tuple[str, str]:
    return r.dataset_label, "full" if r.ipc is None else f"{r.ipc} IPC"


@LAYOUTS.register("1")
def table_1() -> Layout:
    """Main results."""
    return _from_published("1", "Accuracy on CIFAR-10, CIFAR-100 and Tiny-ImageNet, %", _by_ipc)


@LAYOUTS.register("2")
def table_2() -> Layout:
    """ImageNet subsets."""
    return _from_published("2", "Accuracy on ImageNet subsets, %", _by_ipc)


@LAYOUTS.register("3")
def table_3() -> Layout:
    """Other architectures."""
    title = "Accuracy of other architectures trained on sets made with a ConvNet, CIFAR-10, 50 images per class, %"
    return _from_published("3", title, lambda r: ("", r.arch_label))


@LAYOUTS.register("4")
def table_4() -> Layout:
    """FYI against other transformations; which methods the paper compares is inferred from its Table 3."""
    column = Column("cifar10", 50, "convnet3", "accuracy", "CIFAR-10", "50 IPC")
    flips = ("none", "rotate", "scale", "vertical", "fyi")
    rows = tuple(Row(m, flip, m.upper() + _FLIP_LABELS[flip]) for m in ("dc", "dsa", "dm", "mtt") for flip in flips)
    note = "The paper prints this table as a picture: its numbers are not available, and its methods are inferred."
    return Layout(
        "FYI against other transformations, concatenated in its place, accuracy, %", rows, (column,), {}, (note,)
    )


@LAYOUTS.register("A")
def table_a() -> Layout:
    """Random flips without concatenation."""
    return _from_published("A", "FYI against random flips without concatenation, accuracy, %", _by_ipc)


@LAYOUTS.register("B")
def table_b() -> Layout:
    """Architecture search."""
    note = "The paper's times and numbers of images are identical to those of FTD's Table 5: not measured anew."
    found = _from_published(
        "B", "Rank correlation with the search on real data, 720 ConvNets, CIFAR-10, 50 images per class",
        lambda r: ("Spearman" if r.metric.startswith("spearman") else "cost", _UNITS[r.metric]), note,
    )  # fmt: skip
    return _one_column_a_metric(found)


def _one_column_a_metric(found: Layout) -> Layout:
    """Real data and condensed sets in one column, though they differ in images a class."""
    columns = {column.metric: column for column in found.columns if column.ipc is not None}
    numbers = {(row, columns[column.metric]): number for (row, column), number in found.published.items()}
    return Layout(found.title, found.rows, tuple(columns.values()), numbers, found.notes)

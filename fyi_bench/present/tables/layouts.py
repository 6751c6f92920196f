"""Rows and columns of the paper's tables, taken from the published numbers; those of Table 4 are written down here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial

from downstream.protocol import EARLY_STOPPING
from fyi_bench.present.published import FULL, Published, published
from fyi_bench.registry import Registry

# rows that stand for everything in a column group, like the full data set's, have no images per class
_UNITS = {"spearman_all": "all", "spearman_top50": "top 50 %", "time_min": "time, min", "images": "images"}
_FLIP_LABELS = {"none": "", "fyi": " + FYI", "random": " + Flip", "vertical": " + vertical flip",
                "rotate": " + rotate 15°", "scale": " + scale 1.2"}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A row of a table: a method with a flip."""

    method: str
    flip: str
    label: str


@dataclass(frozen=True)
class Column:
    """A column: data set, images a class (None: all), architecture and metric; heading and sub-heading as printed."""

    dataset: str
    ipc: int | None
    arch: str
    metric: str
    heading: str
    label: str

    @property
    def measurable(self) -> bool:
        """Whether a command of ours measures it; times and numbers of images are only quoted."""
        return self.metric == "accuracy" or self.metric.startswith("spearman")

    @property
    def title(self) -> str:
        """Heading and label in one."""
        return " ".join(filter(None, (self.heading, self.label)))


@dataclass(frozen=True)
class Layout:
    """What a table compares: its title, rows, columns, and the published numbers by (row, column)."""

    title: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    published: dict[tuple[Row, Column], Published] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def asks(self, row: Row, column: Column) -> bool:
        """Whether the paper has a number here; where its numbers cannot be read, everywhere."""
        return not self.published or (row, column) in self.published

    def fillable(self, row: Row, column: Column) -> bool:
        """Whether a command gives a number here: training on the whole data set is only quoted."""
        return self.asks(row, column) and row.method != FULL and column.ipc is not None and column.measurable

    def published_difference(self, row: Row, column: Column) -> float | None:
        """The published number with the flip minus the one without."""
        plain = (n for (r, c), n in self.published.items() if (r.method, r.flip, c) == (row.method, "none", column))
        base, here = next(plain, None), self.published.get((row, column))
        if row.flip == "none" or not column.measurable or base is None or here is None:
            return None
        return here.value - base.value


# name of a table -> function giving its layout
LAYOUTS: Registry[Callable[[], Layout]] = Registry("table", group="fyi_bench.tables")


def layout(name: str) -> Layout:
    """The layout of a table such as '1' or 'B', in either case; UnknownNameError for others."""
    return LAYOUTS.get(name)()


def _from_published(
    name: str, title: str, heading: Callable[[Published], tuple[str, str]], notes: tuple[str, ...] = ()
) -> Layout:
    found = published(name)
    rows = {(r.method, r.flip): Row(r.method, r.flip, _row_label(r)) for r in found}
    columns = {_key(r): Column(*_key(r), *heading(r)) for r in found}
    # the full data set comes last, as printed; its columns follow those of the same data set
    order = sorted(rows, key=lambda key: key[0] == FULL)
    numbers = {(rows[r.method, r.flip], columns[_key(r)]): r for r in found}
    return Layout(title, tuple(rows[key] for key in order), _grouped(columns.values()), numbers, notes)


def _key(r: Published) -> tuple[str, int | None, str, str]:
    return r.dataset, r.ipc, r.arch, r.metric


def _grouped(columns: Iterable[Column]) -> tuple[Column, ...]:
    """Columns of one heading together, in order of first appearance."""
    columns = list(columns)
    headings = list(dict.fromkeys(column.heading for column in columns))
    return tuple(sorted(columns, key=lambda column: headings.index(column.heading)))


def _row_label(r: Published) -> str:
    return {FULL: "Full data"}.get(r.method, r.method_label.split("+Flip")[0] + _FLIP_LABELS[r.flip])


def _by_ipc(r: Published) -> tuple[str, str]:
    return r.dataset_label, "full" if r.ipc is None else f"{r.ipc} IPC"


for _name, _title, _heading in (
    ("1", "Accuracy on CIFAR-10, CIFAR-100 and Tiny-ImageNet, %", _by_ipc),
    ("2", "Accuracy on ImageNet subsets, %", _by_ipc),
    ("3", "Accuracy of other architectures trained on sets made with a ConvNet, CIFAR-10, 50 images per class, %",
     lambda r: ("", r.arch_label)),
    ("A", "FYI against random flips without concatenation, accuracy, %", _by_ipc),
):  # fmt: skip
    LAYOUTS.register(_name, partial(_from_published, _name, _title, _heading))


@LAYOUTS.register("4")
def other_transformations() -> Layout:
    """FYI against other transformations; which methods the paper compares is inferred from its Table 3."""
    column = Column("cifar10", 50, "convnet3", "accuracy", "CIFAR-10", "50 IPC")
    flips = ("none", "rotate", "scale", "vertical", "fyi")
    rows = tuple(Row(m, flip, m.upper() + _FLIP_LABELS[flip]) for m in ("dc", "dsa", "dm", "mtt") for flip in flips)
    note = "The paper prints this table as a picture: its numbers are not available, and its methods are inferred."
    title = "FYI against other transformations, concatenated in its place, accuracy, %"
    return Layout(title, rows, (column,), notes=(note,))


@LAYOUTS.register("B")
def architecture_search() -> Layout:
    """Rank correlations; real data and condensed sets in one column, though they differ in images a class."""
    notes = (
        "The paper's times and numbers of images are identical to those of FTD's Table 5: not measured anew.",
        "Both sides are ranked by test accuracy, as FTD says; FYI says validation accuracy, which `nas` prints beside.",
    )
    found = _from_published(
        "B", "Rank correlation with the search on real data, 720 ConvNets, CIFAR-10, 50 images per class",
        lambda r: ("Spearman" if r.metric.startswith("spearman") else "cost", _UNITS[r.metric]), notes,
    )  # fmt: skip
    columns = {column.metric: column for column in found.columns if column.ipc is not None}
    numbers = {(row, columns[column.metric]): number for (row, column), number in found.published.items()}
    early = Row(EARLY_STOPPING, "none", "Early stopping")  # ours: the paper has no such row
    return replace(found, rows=(*found.rows, early), columns=tuple(columns.values()), published=numbers)

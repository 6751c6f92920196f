"""Condensed images of chosen classes with and without FYI: figures 1, 7, 8, 9 and 11."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from fyi_bench.present.figures.request import FIGURES, PaperFigure, Request, lacking
from fyi_bench.present.figures.sets import paired_sets
from fyi_bench.present.figures.style import SOFT, Drawing, draw, frame
from fyi_bench.present.images import as_pictures, mosaic
from fyi_bench.present.missing import Missing
from fyi_bench.present.words import arm_title, count_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from distill.image_set import ImageSet

_TILE = 0.92  # inches of a class's picture
_MOST_EACH = 4
MIRRORED_DIGITS = "mnist-mirrored"


@dataclass(frozen=True)
class Grid:
    """What a grid shows. classes: (data set, name of the class or its number); methods, ipcs: what is compared."""

    name: str
    title: str
    classes: tuple[tuple[str, str | int], ...]
    methods: tuple[str, ...]
    ipcs: tuple[int, ...]
    note: str = ""

    @property
    def datasets(self) -> list[str]:
        """Data sets the classes are of, in order of appearance."""
        return list(dict.fromkeys(dataset for dataset, _ in self.classes))

    def needs(self, protocol: str) -> list[Missing]:
        """Commands that make the sets, without evaluating them."""
        return [
            Missing("distill", method, "fyi", dataset, ipc, (), protocol, options=("--arch", "none"))
            for method in self.methods
            for ipc in self.ipcs
            for dataset in self.datasets
        ]


def _of(dataset: str, *names: str | int) -> tuple[tuple[str, str | int], ...]:
    return tuple((dataset, name) for name in names)


GRIDS = (
    Grid("1", "One image a class, without and with FYI", _of("cifar100", "camel", "chair", "lawn mower"),
         ("mtt", "dsa"), (1,)),
    Grid("7", "MTT without and with FYI",
         (*_of("imagesquawk", "bald eagle"), *_of("imagenette", "English springer"), *_of("imagemeow", "tabby"),
          *_of("imagenette", "French horn", "chain saw"), *_of("imagemeow", "tiger"),
          *_of("imagenette", "parachute", "garbage truck")), ("mtt",), (1,)),
    Grid("8", "DM without and with FYI", _of("tinyimagenet", *range(10)), ("dm",), (1,),
         "images per class are not stated in the paper"),
    Grid("9", "DSA without and with FYI", _of("cifar10", "dog", "frog", "horse", "ship", "truck"), ("dsa",), (10,),
         "images per class are not stated in the paper"),
    Grid("11", "Digits and their mirror images, condensed", _of(MIRRORED_DIGITS, *range(10)), ("dsa",), (1, 2)),
)  # fmt: skip


def grid_drawing(grid: Grid, request: Request) -> Drawing:
    """A row for every method and flip, a column for every class. Raises DataError where the store has no set of it."""
    rows = [row for method in grid.methods for ipc in grid.ipcs for row in _rows(grid, request, method, ipc)]
    if not rows:
        raise lacking(f"The store {request.store.root} has no set to show", grid.needs(request.protocol))
    names = [_class_name(rows, dataset, wanted) for dataset, wanted in grid.classes]
    size = (1.15 + _TILE * len(names) + 0.1, 0.42 + _TILE * len(rows) + 0.6)

    def paint(figure: Figure) -> None:
        bottom, top = frame(figure, grid.title, _caption(grid, rows), below=0.05)
        panels = figure.subplots(len(rows), len(names), squeeze=False)
        figure.subplots_adjust(1.15 / size[0], bottom, 1 - 0.1 / size[0], top - 0.1 / size[1], 0.06, 0.06)
        for line, row in zip(panels, rows, strict=True):
            line[0].annotate(row.label, (0, 0.5), (-8, 0), "axes fraction", "offset points", ha="right", va="center",
                             fontweight="bold", fontsize=8.5)  # fmt: skip
            for axes, (dataset, wanted) in zip(line, grid.classes, strict=True):
                axes.set_axis_off()
                picture = _picture(row.sets.get(dataset), wanted, min(_MOST_EACH, max(grid.ipcs)))
                if picture is not None:
                    axes.imshow(picture, interpolation="nearest", aspect="equal")
        for axes, name in zip(panels[0], names, strict=True):
            axes.set_title(name, fontsize=7.5, color=SOFT, loc="center", fontweight="normal", pad=3)

    return draw(f"figure-{grid.name}", size, paint)


@dataclass(frozen=True)
class _Row:
    """Sets of one method and flip by data set. iterations: of the first."""

    label: str
    ipc: int
    sets: Mapping[str, ImageSet]
    iterations: int


def _rows(grid: Grid, request: Request, method: str, ipc: int) -> list[_Row]:
    """The rows of a method: without FYI, with it, as far as the store has them."""
    pairs = {dataset: paired_sets(request.store, dataset, method, ipc) for dataset in grid.datasets}
    found = []
    for flip in ("none", "fyi"):
        runs = {dataset: pair[flip] for dataset, pair in pairs.items() if flip in pair}
        if runs:
            label = arm_title({"method": method, "flip": flip}) + (f"\n{ipc} IPC" if len(grid.ipcs) > 1 else "")
            sets = {dataset: as_pictures(run.load()) for dataset, run in runs.items()}
            found.append(_Row(label, ipc, sets, next(iter(runs.values())).iterations))
    return found


def _picture(image_set: ImageSet | None, wanted: str | int, each: int) -> Any:
    """The first images of a class; None where the set has none of it."""
    label = class_index(image_set, wanted) if image_set is not None else None
    if image_set is None or label is None:
        return None
    count = min(each, len(image_set.indices_of(label)))
    return mosaic(image_set, [label], count, columns=1 if count == 1 else 2).numpy()


def class_index(image_set: ImageSet, wanted: str | int) -> int | None:
    """The class of this number or name (any spelling: 'lawn_mower', 'Lawn mower'); None where the set lacks it."""
    if isinstance(wanted, int):
        return wanted if wanted in image_set.classes else None
    names = [_spelled(name) for name in image_set.class_names]
    return names.index(_spelled(wanted)) if _spelled(wanted) in names else None


def _spelled(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _class_name(rows: Sequence[_Row], dataset: str, wanted: str | int) -> str:
    """The name of a column; a number is replaced by the name that the sets have for it."""
    known = [row.sets[dataset].class_names for row in rows if dataset in row.sets]
    return next((names[wanted] for names in known if isinstance(wanted, int) and names), str(wanted))


def _caption(grid: Grid, rows: Sequence[_Row]) -> str:
    made = dict.fromkeys(f"{row.label.splitlines()[0]}: {count_words(row.iterations, 'iteration')}" for row in rows)
    note = f" · {grid.note}" if grid.note else ""
    there = {row.ipc for row in rows}
    shown, absent = (
        _sizes(ipc for ipc in grid.ipcs if ipc in there),
        _sizes(ipc for ipc in grid.ipcs if ipc not in there),
    )
    holes = f"\nnot run: {absent}" if absent else ""
    return f"{', '.join(grid.datasets)} · {shown}{note} · {', '.join(made)}{holes}"


def _sizes(ipcs: Iterable[int]) -> str:
    """'1 image and 2 images per class'; nothing for none."""
    words = " and ".join(count_words(ipc, "image") for ipc in ipcs)
    return f"{words} per class" if words else ""


for _grid in GRIDS:
    FIGURES.register(_grid.name, PaperFigure(_grid.title, partial(grid_drawing, _grid), _grid.needs))

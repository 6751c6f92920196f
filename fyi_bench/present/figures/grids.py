"""Condensed images of chosen classes with and without FYI: figures 1, 7, 8, 9 and 11."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fyi_bench.present.figures.mosaic import as_pictures, mosaic
from fyi_bench.present.figures.request import FIGURES, PaperFigure, Request, lacking
from fyi_bench.present.figures.sets import SetRun, paired_sets
from fyi_bench.present.figures.style import SOFT, Drawing, draw, frame
from fyi_bench.present.missing import Missing
from fyi_bench.present.words import arm_title, count_words

if TYPE_CHECKING:
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
    each = min(_MOST_EACH, max(grid.ipcs))
    names = [_class_name(rows, dataset, wanted) for dataset, wanted in grid.classes]
    size = (1.15 + _TILE * len(names) + 0.1, 0.42 + _TILE * len(rows) + 0.6)

    def paint(figure) -> None:
        bottom, top = frame(figure, grid.title, _caption(grid, rows), below=0.05)
        panels = figure.subplots(len(rows), len(names), squeeze=False)
        figure.subplots_adjust(1.15 / size[0], bottom, 1 - 0.1 / size[0], top - 0.1 / size[1], 0.06, 0.06)
        for line, (label, sets, _) in zip(panels, rows, strict=True):
            line[0].annotate(label, (0, 0.5), (-8, 0), "axes fraction", "offset points", ha="right", va="center",
                             fontweight="bold", fontsize=8.5)  # fmt: skip
            for axes, (dataset, wanted) in zip(line, grid.classes, strict=True):
                axes.set_axis_off()
                if dataset in sets:
                    _show(axes, sets[dataset], wanted, each)
        for axes, name in zip(panels[0], names, strict=True):
            axes.set_title(name, fontsize=7.5, color=SOFT, loc="center", fontweight="normal", pad=3)

    return draw(f"figure-{grid.name}", size, paint)


Row = tuple[str, dict[str, "ImageSet"], SetRun]


def _rows(grid: Grid, request: Request, method: str, ipc: int) -> list[Row]:
    """The rows of a method: without FYI, with it, as far as the store has them."""
    pairs = {dataset: paired_sets(request.store, dataset, method, ipc) for dataset in grid.datasets}
    found = []
    for flip in ("none", "fyi"):
        runs = {dataset: pair[flip] for dataset, pair in pairs.items() if flip in pair}
        if not runs:
            continue
        label = arm_title({"method": method, "flip": flip}) + (f"\n{ipc} IPC" if len(grid.ipcs) > 1 else "")
        sets = {dataset: as_pictures(run.load()) for dataset, run in runs.items()}
        found.append((label, sets, next(iter(runs.values()))))
    return found


def _show(axes, image_set: ImageSet, wanted: str | int, each: int) -> None:
    label = class_index(image_set, wanted)
    if label is None:
        return
    count = min(each, len(image_set.indices_of(label)))
    picture = mosaic(image_set, [label], count, columns=1 if count == 1 else 2)
    axes.imshow(picture.numpy(), interpolation="nearest", aspect="equal")


def class_index(image_set: ImageSet, wanted: str | int) -> int | None:
    """The class of this number or name (any spelling: 'lawn_mower', 'Lawn mower'); None where the set lacks it."""
    if isinstance(wanted, int):
        return wanted if wanted in image_set.classes else None
    names = [_spelled(name) for name in image_set.class_names]
    return names.index(_spelled(wanted)) if _spelled(wanted) in names else None


def _spelled(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _class_name(rows: Sequence[Row], dataset: str, wanted: str | int) -> str:
    """The name of a column; a number is replaced by the name that the sets have for it."""
    known = [sets[dataset].class_names for _, sets, _ in rows if dataset in sets]
    return next((names[wanted] for names in known if isinstance(wanted, int) and names), str(wanted))


def _caption(grid: Grid, rows: Sequence[Row]) -> str:
    made = [f"{label.splitlines()[0]}: {count_words(run.iterations, 'iteration')}" for label, _, run in rows]
    note = f" · {grid.note}" if grid.note else ""
    ipcs = " and ".join(count_words(ipc, "image") for ipc in grid.ipcs)
    return f"{', '.join(grid.datasets)} · {ipcs} per class{note} · {', '.join(dict.fromkeys(made))}"


def _register(grid: Grid) -> None:
    FIGURES.register(
        grid.name, PaperFigure(grid.name, grid.title, lambda request: grid_drawing(grid, request), grid.needs)
    )


for _grid in GRIDS:
    _register(_grid)

"""Time and memory of an iteration against each thing that grows: a column an axis, both scales logarithmic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fyi_bench.present.figures.style import FYI, GREEN, VANILLA, VIOLET, Drawing, draw, frame, logarithmic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMN, _HEIGHT = 2.0, 4.9
_LINES = {
    "dm": (VANILLA, "o", "-"),
    "dsa": (FYI, "s", "--"),
    "mtt": (GREEN, "D", "-."),
    "mtt-unroll": (VIOLET, "^", ":"),
}
_ROWS = (("seconds", "seconds an iteration"), ("work_mib", "MiB beyond the start"))
TITLE = "What an iteration costs as a problem grows"


def growth_drawing(record: Mapping[str, Any]) -> Drawing:
    """The plot of a growth record; on a GPU, where a process's own memory says nothing, peak memory instead."""
    axes_names = list(dict.fromkeys(point["axis"] for point in record["points"]))
    size = (_COLUMN * len(axes_names) + 1.2, _HEIGHT)

    def paint(figure: Figure) -> None:
        bottom, top = frame(figure, TITLE, _caption(record))
        grid = figure.subplots(2, len(axes_names), squeeze=False, sharey="row")
        figure.subplots_adjust(
            0.62 / size[0], bottom, 1 - 0.12 / size[0], top - 0.05 / size[1], hspace=0.16, wspace=0.12
        )
        for row, (key, label) in zip(grid, _ROWS, strict=True):
            for axes, name in zip(row, axes_names, strict=True):
                _paint_lines(axes, [p for p in record["points"] if p["axis"] == name], key)
            row[0].set_ylabel(label)
        for axes, name in zip(grid[1], axes_names, strict=True):
            axes.set_xlabel(name)
        handles = {text: h for axes in grid.flat for h, text in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles, loc="upper right", ncols=len(handles), bbox_to_anchor=(1, 1))

    return draw("growth", size, paint)


def _paint_lines(axes: Axes, points: list[Mapping[str, Any]], key: str) -> None:
    values = sorted({point["value"] for point in points})
    for job, (color, marker, dash) in _LINES.items():
        mine = [p for p in points if p["job"] == job]
        heights = [p[key] if p[key] is not None else p["peak_mib"] for p in mine]
        if mine:
            axes.plot([p["value"] for p in mine], heights, color=color, marker=marker, linestyle=dash, label=job)
    logarithmic(axes.xaxis)
    logarithmic(axes.yaxis)
    axes.set_xticks(values, [str(value) for value in values])
    axes.set_xlim(values[0] / 1.25, values[-1] * 1.25)


def _caption(record: Mapping[str, Any]) -> str:
    base = record["base"]
    return (
        f"{record['device']}, {record['threads']} thread(s), fp32; unless it is what grows: {base['ipc']} images per"
        f" class, {base['classes']} classes, {base['size']} pixels, {base['model']}, {base['changes']['batch_real']}"
        f" real images per class, {base['changes']['syn_steps']} student steps. Workers share the threads: wall"
        " time divided by the iterations of all of them, memory of all of them."
    )

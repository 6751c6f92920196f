"""Every value as a dot: accuracies of the networks, symmetry of the sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fyi_bench.present.figures.style import SOFT, Drawing, draw, frame, lines_of
from fyi_bench.present.words import arm_label, is_number, percent, short, unequalness_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = Mapping[str, Any]
_ROW, _GAP = 0.27, 0.34  # inches a row takes, and a heading above a group of rows


def accuracy_drawing(record: Record, name: str, width: float) -> Drawing:
    """A row an arm and a group an architecture: a dot a network, a bar at the mean, which is printed beside."""
    names = list(dict.fromkeys(entry["name"] for arm in record["arms"] for entry in arm.get("architectures", [])))
    groups = [
        [(arm, entry) for arm in record["arms"] for entry in arm.get("architectures", []) if entry["name"] == one]
        for one in names
    ]
    values = [100 * v for group in groups for _, entry in group for v in entry["values"] if is_number(v)]

    def paint(figure: Figure) -> None:
        bottom, top = frame(figure, below=0.42)
        ratios = [len(group) for group in groups]
        panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
        room = _name_inches(record) / width
        top -= 0.2 / figure.get_size_inches()[1]
        figure.subplots_adjust(room, bottom, 1 - 0.5 / width, top, hspace=_GAP / _ROW / max(ratios) + 0.1)
        for axes, one, group in zip(panels, names, groups, strict=True):
            _rows(axes, [arm for arm, _ in group])
            for place, ((_, entry), line) in enumerate(zip(group, lines_of(a for a, _ in group), strict=True)):
                shown = [100 * v for v in entry["values"]]
                axes.plot(shown, [place] * len(shown), "o", color=line.color, alpha=0.55, markeredgewidth=0)
                axes.plot([100 * entry["mean"]] * 2, [place - 0.32, place + 0.32], color=line.color, linewidth=2)
                _value(axes, place, percent(entry["mean"]), line.color)
            axes.set_title(one, fontsize=8.5, pad=3)
        panels[-1].set_xlabel("accuracy on the test images, %")
        low, high = min(values), max(values)
        margin = max(1.0, 0.08 * (high - low))
        panels[-1].set_xlim(max(0.0, low - margin), min(100.0, high + margin))

    rows = sum(map(len, groups))
    return draw(name, (width, 0.62 + rows * _ROW + len(groups) * _GAP), paint)


def unequalness_drawing(record: Record, name: str, width: float) -> Drawing:
    """A bar an arm: mean score of eq. 5, a whisker of one standard deviation over networks where it is known."""
    found = [(arm, score) for arm in record["arms"] if (score := unequalness_of(arm)) is not None]
    arms = [arm for arm, _ in found]

    def paint(figure: Figure) -> None:
        bottom, top = frame(figure, below=0.42)
        left = _name_inches(record) / width
        axes = figure.add_axes((left, bottom, 1 - 0.62 / width - left, top - bottom))
        _rows(axes, arms)
        for place, ((arm, score), line) in enumerate(zip(found, lines_of(arms), strict=True)):
            spread = arm["unequalness"].get("std") if isinstance(arm["unequalness"], Mapping) else None
            axes.barh(place, score, 0.56, color=line.color, xerr=spread,
                      error_kw={"ecolor": SOFT, "elinewidth": 1.2})  # fmt: skip
            _value(axes, place, short(score, 3), line.color)
        axes.set_xlabel("unequalness (0: mirror-invariant)")
        axes.set_xlim(left=0)

    return draw(name, (width, 0.65 + len(arms) * _ROW), paint)


def _rows(axes: Axes, arms: list[Mapping[str, Any]]) -> None:
    axes.set_yticks(range(len(arms)), [arm_label(arm) for arm in arms])
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")


def _value(axes: Axes, place: int, text: str, color: str) -> None:
    axes.annotate(text, (1.0, place), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
                  color=color, fontsize=8.5, fontweight="bold", va="center", annotation_clip=False)  # fmt: skip


def _name_inches(record: Record) -> float:
    return 0.2 + 0.085 * max(len(arm_label(arm)) for arm in record["arms"])

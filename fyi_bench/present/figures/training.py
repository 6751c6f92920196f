"""What happened while sets were made: loss against iteration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fyi_bench.present.figures.style import Drawing, draw, frame, label_ends, label_inches, lines_of, logarithmic
from fyi_bench.present.words import arm_label, is_number

LOSS_CAVEAT = (
    "Losses of arms with and without FYI are not of one size: with FYI the mean runs over twice as many images, which "
    "lowers it by itself."
)

FEW_POINTS = 12  # so many are marked one by one


@dataclass(frozen=True)
class Curve:
    """One line: the arm it belongs to (method, flip), iterations and values; values that are no numbers are gaps."""

    arm: Mapping[str, Any]
    x: Sequence[float]
    y: Sequence[float | str | None]

    @property
    def numbers(self) -> list[float]:
        """The values with NaN where there is none."""
        return [float(v) if is_number(v) else float("nan") for v in self.y]


def loss_curve(provenance: Mapping[str, Any]) -> Curve | None:
    """The loss curve of a set from its provenance; None where there are fewer than two points."""
    values = provenance.get("loss_curve") or []
    if len(values) < 2:
        return None
    every = provenance.get("loss_every", 1)
    return Curve(provenance, [every * k for k in range(len(values))], values)


def curves_drawing(
    curves: Sequence[Curve], name: str, size: tuple[float, float], ylabel: str, title: str = "", caption: str = ""
) -> Drawing:
    """Lines against iteration with their names at the right; logarithmic where positive values span much."""

    def paint(figure) -> None:
        bottom, top = frame(figure, title, caption)
        left = 0.62 / size[0]
        right = 1 - label_inches(arm_label(curve.arm) for curve in curves) / size[0]
        paint_curves(figure.add_axes((left, bottom, right - left, top - bottom)), curves, ylabel)

    return draw(name, size, paint)


def paint_curves(axes: Any, curves: Sequence[Curve], ylabel: str) -> None:
    """The lines of the curves into axes, with names at their ends."""
    ends = []
    for curve, line in zip(curves, lines_of(curve.arm for curve in curves), strict=True):
        y = curve.numbers
        marker = {"marker": line.marker, "markersize": 4.0} if len(y) <= FEW_POINTS else {}
        axes.plot(curve.x, y, color=line.color, linestyle=line.dash, linewidth=1.5, **marker)
        finite = [v for v in y if is_number(v)]
        if finite:
            ends.append((finite[-1], arm_label(curve.arm), line.color))
    shown = [v for curve in curves for v in curve.numbers if is_number(v)]
    if shown and min(shown) > 0 and max(shown) > 10 * min(shown):
        logarithmic(axes.yaxis)
    else:
        axes.set_ylim(min(0.0, *shown, 0.0), 1.06 * max(0.0, *shown, 0.0) or 1.0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("iteration")
    axes.set_ylabel(ylabel)
    axes.margins(x=0.01)
    label_ends(axes, ends)

"""How every figure looks, and how it is written: one palette, no change of matplotlib's settings left behind.

Colours are near those of Okabe and Ito, so that any colour vision tells them apart, and dark enough to write with; a
dash, a marker and a name at the line tell the same once more.
The same records give the same bytes: no date, no random identifiers in the SVG.
"""

from __future__ import annotations

import contextlib
import io
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.files import write_bytes, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

DPI = 200
INK, SOFT, RULE = "#22262b", "#5c6570", "#d7dbe0"
VANILLA, FYI, NEUTRAL = "#0072b2", "#c05000", "#6f7781"
GREEN, ROSE, VIOLET, GOLD = "#007d5a", "#a8487f", "#7b4fb5", "#8a6500"
# by flip, so that an arm has one colour in every figure
_BY_FLIP = {"none": VANILLA, "unknown": VANILLA, "fyi": FYI, "random": ROSE, "vertical": GREEN, "rotate": VIOLET,
            "scale": GOLD}  # fmt: skip
_FURTHER = (GREEN, ROSE, VIOLET, GOLD)
# colour -> variable of the page that has it in a lighter shade where the page is dark
_THEMED = {INK: "currentColor", SOFT: "var(--soft)", RULE: "var(--rule)", "#ffffff": "var(--page)",
           VANILLA: "var(--vanilla)", FYI: "var(--fyi)", NEUTRAL: "var(--neutral)", GREEN: "var(--green)",
           ROSE: "var(--rose)", VIOLET: "var(--violet)", GOLD: "var(--gold)"}  # fmt: skip
_MARKERS = "osD^vPX"
_LABEL_SIZE = 8.5
_CAPTION_SIZE, _CAPTION_LEADING = 7.2, 1.45

RC: dict[Any, Any] = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9.0,
    "text.color": INK, "text.parse_math": False,  # names come from files: a dollar sign is a dollar sign
    "axes.edgecolor": SOFT, "axes.labelcolor": INK, "axes.linewidth": 0.7, "axes.unicode_minus": True,
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.grid.axis": "y", "axes.axisbelow": True, "grid.color": RULE, "grid.linewidth": 0.6,
    "axes.titlesize": 9.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "xtick.color": SOFT, "xtick.labelcolor": INK, "xtick.major.width": 0.7,
    "ytick.color": SOFT, "ytick.labelcolor": INK, "ytick.major.width": 0.7,
    "legend.frameon": False, "legend.fontsize": 8.5,
    "lines.linewidth": 1.8, "lines.markersize": 5.2, "lines.solid_capstyle": "round", "path.simplify": True,
    "figure.dpi": DPI, "figure.facecolor": "white", "savefig.facecolor": "white", "svg.fonttype": "none",
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """How one arm is drawn."""

    color: str
    marker: str
    dash: str

    def keywords(self) -> dict[str, Any]:
        """Keyword arguments of `Axes.plot`."""
        return {"color": self.color, "marker": self.marker, "linestyle": self.dash, "markeredgecolor": "white",
                "markeredgewidth": 0.7}  # fmt: skip


def lines_of(arms: Iterable[Mapping[str, Any]]) -> list[Line]:
    """A line for each arm: colour by flip, grey and dotted for random images; equal ones are told apart."""
    lines: list[Line] = []
    for arm in arms:
        floor = arm["method"] == "random" and arm["flip"] == "none"
        color = NEUTRAL if floor else _BY_FLIP.get(arm["flip"], NEUTRAL)
        if any(line.color == color for line in lines):
            color = next((c for c in _FURTHER if all(line.color != c for line in lines)), color)
        dash = ":" if floor else "--" if arm["flip"] in ("none", "unknown") else "-"
        lines.append(Line(color, _MARKERS[len(lines) % len(_MARKERS)], dash))
    return lines


@contextlib.contextmanager
def styled(salt: str) -> Iterator[None]:
    """matplotlib's defaults with this style on top, all as before afterwards; `salt` names identifiers in the SVG."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**RC, "svg.hashsalt": salt})
        yield


def draw(name: str, size: tuple[float, float], paint: Callable[[Figure], None]) -> Drawing:
    """Paint a new figure of this size in inches. The figure belongs to nobody else: pyplot is not involved."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with styled(name):
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        paint(figure)
    return Drawing(name, figure)


@dataclass(frozen=True)
class Drawing:
    """A finished figure; PNG bytes and SVG text are made when they are asked for."""

    name: str
    figure: Figure

    @property
    def png(self) -> bytes:
        """The picture at 200 dots per inch."""
        return self._bytes("png", {"Software": None})

    @property
    def svg(self) -> str:
        """The drawing as SVG with text as text."""
        return self._bytes("svg", {"Date": None, "Creator": None}).decode()

    def _bytes(self, kind: str, nothing: dict[str, None]) -> bytes:
        buffer = io.BytesIO()
        with styled(self.name):
            self.figure.savefig(buffer, format=kind, dpi=DPI, metadata=nothing)
        return buffer.getvalue()

    def write(self, folder: str | Path) -> list[Path]:
        """`name.png` and `name.svg` in the folder; returns both paths."""
        folder = Path(folder)
        png = write_bytes(folder / f"{self.name}.png", self.png)
        return [png, write_text(folder / f"{self.name}.svg", self.svg)]

    def inline(self, label: str) -> str:
        """The SVG for an HTML page: ink follows the page's text colour, no background, its own identifiers."""
        return inline_svg(self.svg, self.name, label)


def inline_svg(svg: str, prefix: str, label: str) -> str:
    """An `<svg>` element that fits its column; `label` is read out by screen readers."""
    from html import escape

    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', body)
    for color, variable in _THEMED.items():
        body = re.sub(color, variable, body, flags=re.IGNORECASE)
    body = body.replace("'DejaVu Sans', sans-serif", "var(--sans)")
    head = f'<svg role="img" aria-label="{escape(label, quote=True)}" class="figure"'
    return re.sub(r'\s(width|height)="[\d.]+pt"', "", body.replace("<svg", head, 1), count=2)


def frame(figure: Figure, title: str = "", caption: str = "", below: float = 0.45) -> tuple[float, float]:
    """Title at the top left, caption at the bottom left, wrapped; returns (bottom, top) of what is left, as shares.

    Without title and caption, for a page that has its own, the axes get their room. below: inches that tick labels and
    an axis label need under the axes.
    """
    width, height = figure.get_size_inches()
    letters = int(72 * width / (0.54 * _CAPTION_SIZE))
    lines = [part for line in caption.split("\n") for part in textwrap.wrap(line, letters)]
    figure.text(0.08 / width, 1 - 0.12 / height, title, fontsize=11, fontweight="bold", va="top")
    figure.text(0.08 / width, 0.08 / height, "\n".join(lines), fontsize=_CAPTION_SIZE, color=SOFT, va="bottom",
                linespacing=_CAPTION_LEADING)  # fmt: skip
    caption_height = len(lines) * _CAPTION_SIZE * _CAPTION_LEADING / 72 + 0.16 if lines else 0.03
    return (caption_height + below) / height, 1 - (0.5 if title else 0.1) / height


@dataclass(frozen=True)
class Room:
    """Where panels stand in a figure, in shares of it: left and right edge, room over each row, room between them."""

    left: float
    right: float
    above: float
    between_rows: float
    between_columns: float


def panels(
    figure: Figure, count: int, columns: int, room: Room, head: tuple[str, str] = ("", ""), **options: Any
) -> list[Axes]:
    """Axes of so many panels, row by row, under a title and over a caption; options: of `Figure.subplots`."""
    bottom, top = frame(figure, *head)
    grid = figure.subplots(-(-count // columns), columns, squeeze=False, **options)
    figure.subplots_adjust(room.left, bottom, room.right, top - room.above, room.between_columns, room.between_rows)
    for axes in grid.flat[count:]:
        axes.set_visible(False)
    return list(grid.flat[:count])


def logarithmic(axis: Axis) -> None:
    """A logarithmic axis with plain numbers: 1, 10, 100; also 2 and 5 where it spans little."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

    axis.axes.set(**{f"{axis.axis_name}scale": "log"})  # type: ignore[attr-defined]
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 150 * low else (1.0,)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], size: float = _LABEL_SIZE) -> None:
    """Names at the right ends of lines, moved apart where they would touch. ends: (y, text, colour).

    Call it when limits and scale of the axes are final.
    """
    x = axes.get_xlim()[0]
    wished = [(axes.transData - axes.transAxes).transform((x, y))[1] for y, _, _ in ends]
    inches = axes.get_window_extent().height / axes.figure.dpi
    for (_, text, color), y in zip(ends, spread(wished, size * 1.35 / 72 / inches), strict=True):
        axes.annotate(
            text, (1.0, y), xycoords="axes fraction", xytext=(6, 0), textcoords="offset points",
            color=color, fontsize=size, fontweight="bold", va="center", annotation_clip=False,
        )  # fmt: skip


def label_inches(names: Iterable[str], size: float = _LABEL_SIZE) -> float:
    """Room that `label_ends` needs beside the axes."""
    return 0.2 + max((0.66 * size * len(name) / 72 for name in names), default=0.0)


def spread(values: Sequence[float], gap: float) -> list[float]:
    """The values moved as little as needed to be at least `gap` apart, in the same order of size.

    Groups that would touch are merged and centred on the mean of their wishes (isotonic regression).
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    groups: list[list[float]] = []  # wishes of members, each less its place in the group
    for place, index in enumerate(order):
        groups.append([values[index] - place * gap])
        while len(groups) > 1 and _mean(groups[-2]) > _mean(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    levels = [_mean(group) for group in groups for _ in group]
    moved = [0.0] * len(values)
    for place, index in enumerate(order):
        moved[index] = levels[place] + place * gap
    return moved


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

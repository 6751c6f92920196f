"""Real against proxy accuracy of every architecture, coloured by a design factor; agreement against cost and images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import UnknownNameError
from fyi_bench.present.figures import style
from fyi_bench.present.figures.request import FIGURES, PaperFigure, Request, lacking
from fyi_bench.present.missing import Missing
from fyi_bench.present.words import arm_label, arm_title, correlation, count_words, is_number, protocol_words
from fyi_bench.store.commands import command_records
from search_space.space720 import LEVELS, point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = Mapping[str, Any]
PANEL = (3.2, 3.1)
TITLE = "Accuracy on real images against accuracy on the proxy, %"
COST_TITLE = "Agreement with the ranking by real data, against its cost"
GROWTH_TITLE = "Agreement with the ranking by real data, against what a set is given"
GROWTH = {"spearman_all": "Spearman, all", "spearman_top50": "Spearman, better half"}  # its panels
GROWTH_IPC, GROWTH_SPACE = (1, 10, 50), "36"  # of the searches that are named where a store has none
_REAL_SIDE = ("kind", "name", "protocol", "images", "test_images", "epochs", "precision")  # what makes it the same
LEAST_SECONDS = 0.1  # what is counted in less has no place on a logarithmic axis
_COLORS, _MARKERS = (style.VANILLA, style.FYI, style.GREEN, style.ROSE, style.VIOLET, style.GOLD), "osD^vP"
_LEGEND_INCHES = 1.25
_MARGIN = 2.0  # percentage points around the dots


@dataclass(frozen=True)
class Panel:
    """One proxy: accuracies in [0, 1] or None, one an architecture, and Spearman's correlation over all of them."""

    title: str
    proxy: Sequence[float | None]
    spearman: float | None
    trained_on: str = "the proxy"


def nas_figure(record: Record, folder: str | Path, factor: str | None = None) -> list[Path]:
    """Write the plots of a `nas` record as PNG and SVG: `nas`, and `nas-cost` where a cost is known; their paths."""
    cost = cost_drawing(record).write(folder) if costs_of(record) else []
    return [*nas_drawing(record, factor).write(folder), *cost]


def nas_drawing(
    record: Record, factor: str | None = None, name: str = "nas", bare: bool = False, columns: int = 2
) -> style.Drawing:
    """A panel an arm, and one of the real ranking against itself where it was made twice.

    factor: what the colours tell (width, depth, norm, act or pool); by default the factor that the arm with the flip,
    or the first one, misjudges most. bare: without title and caption. columns: of panels, at most.
    Raises UnknownNameError for another factor.
    """
    factor, shown = factor_of(record, factor), panels_of(record)
    columns = min(columns, len(shown))
    size = (PANEL[0] * columns + _LEGEND_INCHES, PANEL[1] * -(-len(shown) // columns) + 0.6)
    room = style.Room(0.62 / size[0], 1 - (_LEGEND_INCHES + 0.1) / size[0], 0.22 / size[1], 0.42, 0.16)

    def paint(figure: Figure) -> None:
        head = ("", "") if bare else (TITLE, nas_caption(record))
        axes = style.panels(figure, len(shown), columns, room, head, sharey=True)
        for one, panel in zip(axes, shown, strict=True):
            _paint_panel(one, panel, record["architectures"], factor)
        for one in axes[::columns]:
            one.set_ylabel("accuracy after real images")
        handles, labels = axes[0].get_legend_handles_labels()
        if factor:
            figure.legend(handles, labels, loc="center left", bbox_to_anchor=(1 - _LEGEND_INCHES / size[0], 0.55),
                          title=factor)  # fmt: skip

    return style.draw(name, size, paint)


def costs_of(record: Record) -> list[tuple[str, float, Record]]:
    """(name, seconds, Spearman's correlation) of every side whose ranking took a time that is known.

    Real data, measured by their other seed (on so many architectures); of a proxy condensing counts where it was done
    here; of one ranking where there are several.
    """
    real, ceiling = record["reference"].get("train_s"), record["ceiling"]
    on = "" if ceiling["evaluated"] == record["space"] else f" ({ceiling['evaluated']})"
    sides = [(f"real data again{on}", real, ceiling["spearman_all"])] if real and ceiling["evaluated"] else []
    sides += [
        (arm_label(arm), arm["train_s"] + (arm["distill_s"] or 0.0), arm["spearman_all"]) for arm in record["arms"]
    ]
    sides += [(one["method"], one["seconds"], one["spearman_all"]) for one in record.get("scores", ())]
    return [(name, max(seconds, LEAST_SECONDS), value) for name, seconds, value in sides if is_number(value["value"])]


def cost_drawing(record: Record, name: str = "nas-cost", bare: bool = False, width: float = 6.4) -> style.Drawing:
    """A dot a side: how well it ranks, with its 95 % interval over architectures, against the seconds it takes."""
    found = costs_of(record)
    looks = [(color, marker) for marker in _MARKERS for color in (*_COLORS, style.NEUTRAL, style.INK)]
    height = max(3.4, 0.26 * len(found) + 1.2)

    def paint(figure: Figure) -> None:
        bottom, top = style.frame(figure, *(("", "") if bare else (COST_TITLE, cost_caption(record))))
        right = 1 - style.label_inches(one for one, _, _ in found) / width
        left, top = 0.75 / width, top - 0.2 / height  # names may stand a little above the axes
        axes = figure.add_axes((left, bottom, right - left, top - bottom))
        for (_, seconds, value), (color, marker) in zip(found, looks, strict=False):
            if is_number(value["low"]) and is_number(value["high"]):
                axes.plot([seconds] * 2, [value["low"], value["high"]], color=color, linewidth=1.1, alpha=0.6)
            axes.plot([seconds], [value["value"]], marker, color=color, markeredgecolor="white", markeredgewidth=0.6)
        style.logarithmic(axes.xaxis)
        axes.grid(visible=True, axis="both")
        axes.set_xlabel("seconds")
        axes.set_ylabel("Spearman, all architectures")
        ends = [(value["value"], one, color) for (one, _, value), (color, _) in zip(found, looks, strict=False)]
        style.label_ends(axes, ends)

    return style.draw(name, (width, height), paint)


def cost_caption(record: Record) -> str:
    """What stands below the plot of agreement against cost."""
    reckoned = "; those of real data are reckoned from the others" if record["reference"].get("reckoned") else ""
    parts = (
        record["dataset"], f"{record['space']} architectures", f"protocol {protocol_words(record['protocol'])}",
        "95 % intervals over architectures", "seconds of one process for training all and for condensing what did not"
        f" come as a file, at least {LEAST_SECONDS}{reckoned}",
    )  # fmt: skip
    return " · ".join(parts)


def factor_of(record: Record, factor: str | None = None) -> str:
    """The factor that the colours tell, by default the most misjudged one."""
    if factor is None:
        flipped = [arm for arm in record["arms"] if arm["flip"] not in ("none", "unknown")]
        return next(iter((flipped or record["arms"])[0]["misjudged"]), "")
    known = _factors(record["architectures"][0])
    if factor not in known:
        raise UnknownNameError("factor of the search space", factor, known)
    return factor


def _factors(entry: Record) -> Mapping[str, Any]:
    """Design factors of an architecture of a record: those it states, else those of its name among the 720."""
    return entry["factors"] if "factors" in entry else point(entry["name"]).factors


def _levels(architectures: Sequence[Record], factor: str) -> list[Any]:
    """The levels of a factor, in the order of the 720 ConvNets or as they come; one without a name for no factor."""
    if factor in LEVELS:
        return list(LEVELS[factor])
    return list(dict.fromkeys(_factors(entry).get(factor, "") for entry in architectures))


def panels_of(record: Record) -> list[Panel]:
    """The panels of a record: the ceiling where there is one, then every arm."""
    again = [entry["real_again"] for entry in record["architectures"]]
    panels = []
    for arm in record["arms"]:
        several = f", mean of {arm['draws']} draws" if arm.get("draws", 1) > 1 else ""
        panels.append(Panel(arm_title(arm), arm["accuracy"], arm["spearman_all"]["value"], f"the proxy{several}"))
    if any(is_number(value) for value in again):
        ceiling = record["ceiling"]["spearman_all"]["value"]
        panels.insert(0, Panel("real, another seed", again, ceiling, "real images, again"))
    return panels


def _paint_panel(axes: Axes, panel: Panel, architectures: Sequence[Record], factor: str) -> None:
    """Dots by level of the factor; an architecture that failed on either side has none."""
    dots: dict[Any, list[tuple[float, float]]] = {level: [] for level in _levels(architectures, factor)}
    for entry, proxy in zip(architectures, panel.proxy, strict=True):
        if is_number(entry["real"]) and is_number(proxy):
            dots[_factors(entry).get(factor, "")].append((100 * proxy, 100 * entry["real"]))
    for (level, found), marker, color in zip(dots.items(), _MARKERS, _COLORS, strict=False):
        axes.plot([x for x, _ in found], [y for _, y in found], marker, color=color, label=str(level),
                  markersize=4.6, alpha=0.85, markeredgecolor="white", markeredgewidth=0.5)  # fmt: skip
    shown = [x for found in dots.values() for x, _ in found]
    if shown:
        axes.set_xlim(min(shown) - _MARGIN, max(shown) + _MARGIN)
    axes.grid(visible=True, axis="both")
    axes.set_xlabel(f"accuracy after {panel.trained_on}")
    agreement = f"Spearman {correlation(panel.spearman)}" if is_number(panel.spearman) else "no correlation defined"
    axes.set_title(panel.title)
    axes.annotate(agreement, (1.0, 1.0), xycoords="axes fraction", xytext=(0, 5), textcoords="offset points",
                  ha="right", fontsize=8.5, color=style.SOFT)  # fmt: skip


def nas_caption(record: Record) -> str:
    """What was compared, and what is not among the dots."""
    parts = (
        record["dataset"], f"{record['space']} architectures", f"protocol {protocol_words(record['protocol'])}",
        record["device"], real_side_words(record["reference"]),
    )  # fmt: skip
    failed = sum(arm["failed"] for arm in record["arms"]) + record["reference"]["failed"]
    return " · ".join(parts) + (f"\n{failed} networks failed; they have no dot and rank last" if failed else "")


def real_side_words(reference: Record) -> str:
    """How the real ranking was made: 'real side: 2 epochs on 4,000 images'."""
    if reference["kind"] == "table":
        return f"real side: the table '{reference['name']}'"
    return f"real side: {count_words(reference['epochs'], 'epoch')} on {reference['images']:,} images"


@dataclass(frozen=True)
class _Growth:
    """A row of the plot of growth. lines: name of an arm -> (place on the axis, arm of a record) of each search."""

    axis: str
    lines: Mapping[str, Sequence[tuple[int, Record]]]


def growth_drawing(records: Sequence[Record], left_out: int = 0) -> style.Drawing:
    """A line an arm: Spearman's correlation over all architectures and the really better half, by what a set is given.

    The first row is against images a class, the second against epochs at one number of images, where the searches
    differ in these. records: of searches with one real side and the same architectures. An arm whose trainer was
    changed otherwise (`--set`) is a line of its own. left_out: further searches, that the caption counts.
    """
    rows = [row for row in (_by_images(records), _by_epochs(records)) if row]
    ceiling = records[0]["ceiling"]
    room_right = style.label_inches([name for row in rows for name in (*row.lines, "real data again")])
    size = (7.6, 0.9 + 3.0 * len(rows))
    room = style.Room(0.6 / size[0], 1 - room_right / size[0], 0.3 / size[1], 0.45, 0.2)

    def paint(figure: Figure) -> None:
        head = (GROWTH_TITLE, growth_caption(records, left_out))
        axes = style.panels(figure, len(rows) * len(GROWTH), len(GROWTH), room, head)
        for number, row in enumerate(rows):
            mine = axes[number * len(GROWTH) : (number + 1) * len(GROWTH)]
            for one, (measure, title) in zip(mine, GROWTH.items(), strict=True):
                ends = _grow(one, row, measure)
                if ceiling["evaluated"] and is_number(ceiling[measure]["value"]):
                    one.axhline(ceiling[measure]["value"], color=style.INK, linewidth=0.9, linestyle=":")
                    ends.append((ceiling[measure]["value"], "real data again", style.INK))
                one.set_title(title)
            style.label_ends(mine[-1], ends)

    return style.draw("growth", size, paint)


def _grow(axes: Axes, row: _Growth, measure: str) -> list[tuple[float, str, str]]:
    """Draw the lines of a row into one panel; where each ends, with its name and colour."""
    ends = []
    looks = style.lines_of(arms[0][1] for arms in row.lines.values())
    for number, ((name, arms), look) in enumerate(zip(row.lines.items(), looks, strict=True)):
        beside = 1.035 ** (number - (len(row.lines) - 1) / 2)  # so that intervals do not hide one another
        placed = sorted(arms, key=lambda one: one[0])
        found = [(n * beside, arm[measure]) for n, arm in placed if is_number(arm[measure]["value"])]
        for x, value in found:
            if is_number(value["low"]) and is_number(value["high"]):
                axes.plot([x, x], [value["low"], value["high"]], color=look.color, linewidth=0.8, alpha=0.45)
        axes.plot([x for x, _ in found], [value["value"] for _, value in found], **look.keywords())
        # a line without a dot, of too few architectures, has its name at the bottom
        ends.append((found[-1][1]["value"] if found else axes.get_ylim()[0], name, look.color))
    places = [place for arms in row.lines.values() for place, _ in arms]
    axes.set_xlim(min(places) / 1.5, max(places) * 1.5)
    style.logarithmic(axes.xaxis)
    axes.set_xlabel(row.axis)
    return ends


def _by_images(records: Sequence[Record]) -> _Growth | None:
    """Lines against images a class; a search of changed length that has no other number of images is in none."""
    changes: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        changes[" ".join(_changes(record))].append(record)
    lines: dict[str, list[tuple[int, Record]]] = defaultdict(list)
    for change, mine in changes.items():
        if len(set(map(_images, mine))) > 1 or not _of_length(mine[0]):
            for record in mine:
                for arm in record["arms"]:
                    lines[f"{arm_label(arm)} {change}".strip()].append((_images(record), arm))
    return _Growth("images a class", lines) if _places(lines) > 1 else None


def _by_epochs(records: Sequence[Record]) -> _Growth | None:
    """Lines against epochs at the number of images that was trained on for most different lengths."""
    found: dict[int, dict[str, list[tuple[int, Record]]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if not _changes(record) or _of_length(record):
            for arm in record["arms"]:
                found[_images(record)][arm_label(arm)].append((record["arms"][0]["epochs"], arm))
    images = max(found, key=lambda one: (_places(found[one]), one), default=0)
    if _places(found[images]) < 2:
        return None
    return _Growth(f"epochs on {images} images a class", found[images])


def _places(lines: Mapping[str, Sequence[tuple[int, Record]]]) -> int:
    """How many different places on the axis the lines have."""
    return len({place for arms in lines.values() for place, _ in arms})


def growth_caption(records: Sequence[Record], left_out: int) -> str:
    """What stands below the plot of growth: how it was measured, and how long each set was trained on."""
    first = records[0]
    plain = [record for record in records if not _changes(record)]
    lengths = {_images(record): record["arms"][0]["epochs"] for record in plain}
    parts = [
        first["dataset"], f"{first['space']} architectures", f"protocol {protocol_words(_base(first))}",
        first["device"], real_side_words(first["reference"]),
    ]  # fmt: skip
    if lengths:
        told = ", ".join(f"{epochs} on {ipc}" for ipc, epochs in sorted(lengths.items()))
        parts.append(f"epochs on so many images a class, where no other is named: {told}")
    parts.append("95 % intervals over architectures")
    more = f"\nLeft out, of other architectures or another real side: {count_words(left_out, 'record')}"
    return " · ".join(parts) + (more if left_out else "")


def _images(record: Record) -> int:
    """Images a class of a search: of its first set, since real data that are stopped early state none."""
    return next((arm["ipc"] for arm in record["arms"] if arm.get("ipc")), 0)


def _changes(record: Record) -> list[str]:
    """What `--set` changed of the protocol: ['epochs=30', 'min_steps=0']."""
    return record["protocol"]["name"].split("+")[1:]


def _of_length(record: Record) -> bool:
    """Whether a search was changed in its length alone."""
    changes = _changes(record)
    return bool(changes) and all(one.partition("=")[0] in ("epochs", "min_steps") for one in changes)


def _asked(record: Record) -> Any:
    """What tells a search from others of its family."""
    return _images(record), record["protocol"]["name"], [(arm["method"], arm["flip"]) for arm in record["arms"]]


def _base(record: Record) -> Record:
    return record["protocol"] | {"name": record["protocol"]["name"].split("+")[0]}


def _growth(request: Request) -> style.Drawing:
    """The largest family of searches in the store that differ in images and training alone."""
    families: dict[Any, list[Record]] = defaultdict(list)
    records = sorted(command_records(request.store, "nas"), key=lambda record: record.get("date", ""), reverse=True)
    for record in records:
        base, reference = _base(record), record["reference"]
        if base["name"] == request.protocol and _images(record):
            real = [reference.get(one) for one in _REAL_SIDE]
            names = [entry["name"] for entry in record["architectures"]]
            key = [record["dataset"], base, record["precision"], record["seeds"], real, names]
            same = [one for one in families[repr(key)] if _asked(one) == _asked(record)]
            families[repr(key)] += [] if same else [record]  # of repeated searches the newest
    several = [one for one in families.values() if _by_images(one) or _by_epochs(one)]
    if not several:
        what = f"The store {request.store.root} has no searches that differ in their images or epochs alone"
        raise lacking(what, _growth_needs(request.protocol))
    shown = max(several, key=lambda one: (len(one), one[0]["space"]))
    return growth_drawing(shown, sum(map(len, families.values())) - len(shown))


def _growth_needs(protocol: str) -> list[Missing]:
    return [
        Missing("nas", "dm", "none", "cifar10", ipc, (), protocol, options=("--space", GROWTH_SPACE))
        for ipc in GROWTH_IPC
    ]


FIGURES.register(
    "growth", PaperFigure("How the ranking on a set grows better with images and epochs", _growth, _growth_needs)
)

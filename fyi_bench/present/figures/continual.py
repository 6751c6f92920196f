"""Accuracy against classes seen: one record, or several beside each other (the paper's Fig. E)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.files import atomic_write
from fyi_bench.present.figures.request import FIGURES, PaperFigure, Request, lacking
from fyi_bench.present.figures.style import (
    Drawing,
    Room,
    draw,
    frame,
    label_ends,
    label_inches,
    lines_of,
    logarithmic,
    panels,
)
from fyi_bench.present.missing import Missing
from fyi_bench.present.words import arm_label, count_words, difference_words, protocol_words
from fyi_bench.store.commands import command_records

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from distill.image_set import ImageSet

Record = Mapping[str, Any]
SIZE, PANEL = (6.6, 4.3), (4.1, 3.0)
MOST_MAPS, MOST_WRITTEN = 4, 10  # heat maps side by side; steps up to which their numbers are written
METHODS, STEPS, IPC, DATASET = ("dm", "dsa"), (5, 10), 10, "cifar100"  # of the paper's Fig. E
TITLE = "Accuracy on all classes seen so far, %"


def continual_figure(record: Record, folder: str | Path) -> list[Path]:
    """Write a `continual` record's curves, and where it has them its steps and bytes, as .png and .svg; their paths."""
    found = continual_drawing(record).write(folder)
    if any("per_experience" in arm for arm in record["arms"]):
        found += step_map(record).write(folder)
    if has_bytes(record):
        found += cost_drawing(record).write(folder)
    return found


def continual_drawing(
    record: Record, name: str = "continual", size: tuple[float, float] = SIZE, bare: bool = False
) -> Drawing:
    """One line an arm, a band of one standard deviation where there are several values a step.

    size: inches. bare: without title and caption, for a page that has its own.
    """

    def paint(figure: Figure) -> None:
        bottom, top = frame(figure) if bare else frame(figure, TITLE, continual_caption(record))
        left, right = 0.42 / size[0], 1 - label_inches(map(arm_label, record["arms"])) / size[0]
        axes = figure.add_axes((left, bottom, right - left, top - bottom))
        ends = paint_curves(axes, record)
        axes.set_ylim(bottom=0)
        label_ends(axes, ends)

    return draw(name, size, paint)


def step_map(
    record: Record, name: str = "steps", size: tuple[float, float] = (6.6, 3.0), bare: bool = False
) -> Drawing:
    """Heat maps of up to `MOST_MAPS` arms: accuracy after each step (rows) on the classes of each step (columns)."""
    arms = [arm for arm in record["arms"] if "per_experience" in arm][:MOST_MAPS]
    room = Room(0.6 / size[0], 1 - 0.1 / size[0], 0.3 / size[1], 0.3, 0.25)

    def paint(figure: Figure) -> None:
        head = ("", "") if bare else ("Accuracy on the classes of each step, %", _setting(record))
        for number, (axes, arm) in enumerate(zip(panels(figure, len(arms), len(arms), room, head), arms, strict=True)):
            rows = arm["per_experience"]
            cells = [[100 * v for v in row] + [float("nan")] * (len(rows) - len(row)) for row in rows]
            axes.grid(False)
            axes.imshow(cells, cmap="viridis", vmin=0, vmax=100, aspect="auto")
            axes.set_title(arm_label(arm))
            axes.set_xlabel("step of the classes")
            ticks = _ticks(range(len(rows)))
            axes.set_xticks(ticks, [str(k + 1) for k in ticks])
            axes.set_yticks(ticks, [str(k + 1) for k in ticks] if number == 0 else [""] * len(ticks))
            if number == 0:
                axes.set_ylabel("after step")
            if len(rows) <= MOST_WRITTEN:
                for y, row in enumerate(rows):
                    for x, value in enumerate(row):
                        ink = "black" if value > 0.55 else "white"
                        axes.text(x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=6, color=ink)

    return draw(name, size, paint)


def cost_drawing(record: Record) -> Drawing:
    """Average accuracy against the bytes of the memory after the last step, a point an arm; bounds as lines."""

    def paint(figure: Figure) -> None:
        bottom, top = frame(figure, "Bytes of the memory and accuracy", _setting(record))
        right = 1 - (label_inches(map(arm_label, record["arms"])) + 0.2) / SIZE[0]
        axes = figure.add_axes((0.55 / SIZE[0], bottom, right - 0.55 / SIZE[0], top - bottom))
        for number, (arm, line) in enumerate(zip(record["arms"], lines_of(record["arms"]), strict=True)):
            held, mean = arm["accuracy"][-1].get("bytes"), 100 * arm["average"]["mean"]
            if held and arm["method"] != "joint":
                # smaller and smaller, so that one behind another is seen
                drawn = {**line.keywords(), "linestyle": "none", "markersize": max(4.0, 10.0 - 2.5 * number)}
                axes.plot([held / 2**20], [mean], **drawn, label=arm_label(arm))
            else:
                axes.axhline(mean, color=line.color, linewidth=1, linestyle="--", label=arm_label(arm))
        logarithmic(axes.xaxis)
        axes.set_xlabel("memory after the last step, MiB")
        axes.set_ylabel("average over steps, %")
        axes.set_ylim(bottom=0)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=7)

    return draw("bytes", SIZE, paint)


def growth_picture(sets: Sequence[ImageSet], path: Path, most: int = 20) -> Path:
    """A PNG of a memory as it grows: a row a step, with images of the classes that it brought, class by class."""
    import torch
    from PIL import Image

    rows = []
    for one in sets:
        shown = one.decoded()
        each = max(1, most // len(shown.classes))
        index = torch.cat([shown.indices_of(c)[:each] for c in shown.classes])[:most]
        rows.append((shown.select(index).pixels().clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1))
    height, width = rows[0].shape[2:]
    canvas = torch.full((3, len(rows) * (height + 3), max(map(len, rows)) * (width + 1)), 255, dtype=torch.uint8)
    for y, images in enumerate(rows):
        for x, image in enumerate(images):
            top, left = y * (height + 3), x * (width + 1)
            canvas[:, top : top + height, left : left + width] = image
    picture = Image.fromarray(canvas.permute(1, 2, 0).contiguous().numpy())
    return atomic_write(path, lambda place: picture.save(place, format="PNG"))


def has_bytes(record: Record) -> bool:
    """Whether the memories of at least two arms state what they take."""
    found = [arm for arm in record["arms"] if arm["accuracy"][-1].get("bytes") and "average" in arm]
    return len(found) > 1 and all("average" in arm for arm in record["arms"])


def continual_panels(records: Sequence[Record], name: str = "figure-E") -> Drawing:
    """Several `continual` records, a panel each, with one scale."""
    columns = min(2, len(records))
    height = PANEL[1] * -(-len(records) // columns)
    names = label_inches(arm_label(arm) for record in records for arm in record["arms"])
    room = Room(0.06, 1 - names / (PANEL[0] * columns), 0.25 / height, 0.42, 0.42)

    def paint(figure: Figure) -> None:
        caption = "\n".join(sorted(set(map(_setting, records))))
        axes = panels(figure, len(records), columns, room, (TITLE, caption), sharey=True)
        ends = [paint_curves(*pair) for pair in zip(axes, records, strict=True)]
        axes[0].set_ylim(bottom=0, top=1.05 * max(one.dataLim.y1 for one in axes))
        for one, record, found in zip(axes, records, ends, strict=True):
            one.set_title(f"{_methods(record)}, {count_words(record['steps'], 'step')}")
            label_ends(one, found)

    return draw(name, (PANEL[0] * columns, height + 0.4), paint)


def paint_curves(axes: Axes, record: Record) -> list[tuple[float, str, str]]:
    """The lines and bands of a record's arms, accuracies in percent; returns what `label_ends` needs."""
    ends = []
    for arm, line in zip(record["arms"], lines_of(record["arms"]), strict=True):
        seen = [row["classes_seen"] for row in arm["accuracy"]]
        mean = [100 * row["mean"] for row in arm["accuracy"]]
        if all(len(row["values"]) > 1 for row in arm["accuracy"]):
            std = [100 * row["std"] for row in arm["accuracy"]]
            bounds = [m - s for m, s in zip(mean, std)], [m + s for m, s in zip(mean, std)]
            axes.fill_between(seen, *bounds, color=line.color, alpha=0.16, linewidth=0)
        axes.plot(seen, mean, **line.keywords())
        ends.append((mean[-1], arm_label(arm), line.color))
    axes.set_xticks(_ticks(seen))
    axes.set_xlabel("classes seen")
    return ends


def _ticks(seen: Sequence[int]) -> Sequence[int]:
    """At most ten of the steps, the last one among them."""
    every = -(-len(seen) // 10)
    return seen[::-1][::every][::-1]


def _methods(record: Record) -> str:
    return " and ".join(dict.fromkeys(arm["method"].upper() for arm in record["arms"] if arm["method"] != "random"))


def _setting(record: Record) -> str:
    orders = len(record["class_orders"])
    runs = count_words(orders, "class order")
    networks = count_words(record.get("networks", 1), "network")
    ipc = record["arms"][0]["ipc"]
    alone = [arm_label(arm) for arm in record["arms"] if len(arm["accuracy"][-1]["values"]) < orders]
    runs += f" (the first alone: {', '.join(alone)})" if alone else ""
    return (
        f"{record['dataset']} · {count_words(ipc, 'image')} per class · {runs} × {networks} · protocol"
        f" {protocol_words(record['protocol'])} · {record['device']}"
    )


def continual_caption(record: Record) -> str:
    """What was run, and the paired difference with its interval."""
    lines = [f"{count_words(record['steps'], 'step')} · {_setting(record)}"]
    if any(len(row["values"]) > 1 for arm in record["arms"] for row in arm["accuracy"]):
        lines[0] += " · band: ± 1 std"
    flips = [arm["flip"] for arm in record["arms"] if arm["flip"] != "none"]
    if "difference" in record and flips:
        lines.append(f"average over steps: {difference_words(record['difference'], flips[0])}")
    return "\n".join(lines)


def _figure_e(request: Request) -> Drawing:
    """What of the paper's four panels the store has, by the protocol asked for."""
    found = {}
    for record in command_records(request.store, "continual"):
        arms = [arm for arm in record["arms"] if arm["method"] in METHODS]
        ours = record["dataset"] == DATASET and record["protocol"]["name"] == request.protocol
        if ours and arms and arms[0]["ipc"] == IPC:
            found[record["steps"], arms[0]["method"]] = record
    shown = [found[key] for key in ((steps, method) for steps in STEPS for method in METHODS) if key in found]
    if not shown:
        raise lacking(
            f"The store {request.store.root} has no continual learning for figure E", _needs(request.protocol)
        )
    return continual_panels(shown)


def _needs(protocol: str) -> list[Missing]:
    return [
        Missing("continual", method, "fyi", DATASET, IPC, (), protocol, options=("--steps", str(steps)))
        for steps in STEPS
        for method in METHODS
    ]


FIGURES.register("E", PaperFigure("Continual learning, DM and DSA, 5 and 10 steps", _figure_e, _needs))

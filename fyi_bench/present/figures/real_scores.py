"""Unequalness of N real images a class: figures 3, 10 and D, and the measuring behind them.

The score (eq. 5, DM distance) of a random sample of real images falls as 1/N by averaging alone; what says something
about the data is the level at which it stops falling. So the 1/N line from the first point is drawn beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from fyi_bench import rng
from fyi_bench.errors import UnknownNameError
from fyi_bench.files import digest_of
from fyi_bench.present.figures import style
from fyi_bench.present.figures.request import EFFORTS, FIGURES, PaperFigure, Request, by_seed
from fyi_bench.stats import mean_std
from fyi_bench.store.record import read_record, write_sealed

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from distill.image_set import ImageSet
    from distill.spaces import Space

NUMERICS = 1  # raise it whenever the same request would give other scores
DISTANCES = {"DC": ("dc", False), "DSA": ("dc", True), "DM": ("dm", False)}  # label -> (distance, augmented)


@dataclass(frozen=True)
class Series:
    """One curve to measure. mirrored: each real image is mirrored with probability 1/2 first."""

    label: str
    distance: str
    augmented: bool = False
    flip: str = "fyi"
    mirrored: bool = False
    color: str = field(default=style.VANILLA, compare=False)

    def keyed(self) -> dict[str, Any]:
        """What decides the numbers."""
        return {"distance": self.distance, "augmented": self.augmented, "flip": self.flip, "mirrored": self.mirrored}


def measure(images: ImageSet, space: Space, series: Series, request: Request) -> list[dict]:
    """Rows {n, mean, std, values}: the class mean of the score of n images a class, over networks and resamples.

    images: real images. A sample of n is drawn without replacement and holds the smaller ones; every network sees the
    same samples, and both arguments of the score the same network (and the same augmentation).
    """
    import torch

    effort, seed = request.measured, request.seed
    counts = [n for n in effort.counts if n <= int(images.counts[images.classes].min())]
    values: dict[int, list[float]] = {n: [] for n in counts}
    for resample in range(effort.resamples):
        picked = _sample(images, max(counts), seed, resample)
        pixels = images.batch(picked.flatten(), space).unflatten(0, picked.shape)
        if series.mirrored:
            chosen = torch.rand(picked.shape, generator=rng.stream(seed, "figure-mirror", resample)) < 0.5
            pixels = torch.where(chosen[..., None, None, None], pixels.flip(-1), pixels)
        for number in range(effort.networks):
            request.check()
            for n in counts:
                values[n].append(_score(pixels[:, :n].to(request.device), images, series, request, number))
    return [dict(zip(("n", "mean", "std", "values"), (n, *mean_std(found), found))) for n, found in values.items()]


def measured(name: str, series: Series, request: Request) -> list[dict]:
    """`measure` on the train images of a data set, kept in the store and read from there the next time."""
    data = request.data(name)
    facts = {"figure": "real-scores", "numerics": NUMERICS, "data": data.train_digest, "space": data.space.describe()}
    key = digest_of({**facts, **series.keyed(), "effort": asdict(request.measured), "seed": request.seed})
    path = request.store.root / "figures" / f"real-scores-{key}.json"
    if path.exists():
        return read_record(path)["rows"]
    request.say(f"measuring {series.label} on {name} …")
    rows = measure(data.train, data.space, series, request)
    write_sealed(path, {**facts, **series.keyed(), "seed": request.seed, "rows": rows})
    return rows


def scores_drawing(
    name: str, title: str, caption: str, shown: Sequence[tuple[str, Sequence[tuple[Series, list[dict]]]]]
) -> style.Drawing:
    """A panel each: score against number of images, both logarithmic, with a band of one deviation and the 1/N line."""
    columns = min(len(shown), 3 if len(shown) != 4 else 2)
    size = (3.1 * columns + 0.9, 2.75 * -(-len(shown) // columns) + 0.75)
    names = [series.label for _, curves in shown for series, _ in curves if len(curves) > 1]
    room = style.Room(
        0.62 / size[0], 1 - style.label_inches(names) / size[0], 0.22 / size[1], 0.5, 0.62 if names else 0.3
    )

    def paint(figure: Figure) -> None:
        axes = style.panels(figure, len(shown), columns, room, (title, caption))
        for one, (heading, curves) in zip(axes, shown, strict=True):
            _paint_panel(one, heading, curves)
        for one in axes[::columns]:
            one.set_ylabel("unequalness")

    return style.draw(name, size, paint)


def _paint_panel(axes: Any, heading: str, curves: Sequence[tuple[Series, list[dict]]]) -> None:
    ends = []
    for series, rows in curves:
        n, mean = [row["n"] for row in rows], [row["mean"] for row in rows]
        low = [max(row["mean"] - row["std"], 0.02 * row["mean"]) for row in rows]
        axes.fill_between(n, low, [row["mean"] + row["std"] for row in rows], color=series.color, alpha=0.16, lw=0)
        axes.plot(n, mean, "o-", color=series.color, markersize=3.5)
        if series.distance == "dm":  # a mean's squared distance; a cosine distance has no such law
            axes.plot(n, [mean[0] * n[0] / k for k in n], ":", color=style.NEUTRAL, linewidth=1.0)
        ends.append((mean[-1], series.label, series.color))
    for axis in (axes.xaxis, axes.yaxis):
        style.logarithmic(axis)
    axes.set_title(heading)
    axes.set_xlabel("real images per class")
    if len(ends) > 1:
        style.label_ends(axes, ends)


def _sample(images: ImageSet, most: int, seed: int, resample: int) -> torch.Tensor:
    """int64 [classes, most]: a random order of each class's images, the first `most` of it."""
    import torch

    rows = []
    for label in images.classes:
        index = images.indices_of(label)
        generator = rng.stream(seed, "figure-sample", resample, label)
        rows.append(index[torch.randperm(len(index), generator=generator)[:most]])
    return torch.stack(rows)


def _score(pixels: torch.Tensor, images: ImageSet, series: Series, request: Request, number: int) -> float:
    """Class mean of eq. 5 for pixels [classes, n, ch, H, W] under network `number`."""
    import torch

    import search_space
    from distill.augment import Augmentation
    from distill.fyi import class_unequalness

    channels, size, _ = images.shape
    effort, seed = request.measured, request.seed
    generator = rng.stream(seed, "figure-network", number)
    network = search_space.build(effort.model, channels, size, images.num_classes, generator).to(pixels.device)
    labels = torch.tensor(images.classes).repeat_interleave(pixels.shape[1])
    augmentation = Augmentation()
    draws = [
        augmentation.draw(rng.stream(seed, "figure-augment", number, k), 1, size, siamese=True)
        for k in range(effort.draws if series.augmented else 0)
    ]
    flat = pixels.flatten(0, 1)
    return float(
        class_unequalness(
            flat, labels, network, series.distance, series.flip, augmentation if draws else None, draws
        ).mean()
    )


def _caption(name: str, request: Request) -> str:
    e, data = request.measured, request.data(name)
    note = f", {data.note}" if data.note else ""
    return (
        f"{name}{note} · {e.networks} random {e.model} × {e.resamples} samples without replacement, mean over classes ·"
        " band: ± 1 std · dotted, for DM: score(1)/N, what averaging alone gives; the level at which a curve leaves it"
        " is the asymmetry of the data"
    )


@dataclass(frozen=True)
class _Figure:
    """A figure with a panel for each (heading, curves) about real images of a data set."""

    name: str
    heading: str
    dataset: str
    shown: Sequence[tuple[str, Sequence[Series]]]

    def make(self, request: Request) -> style.Drawing:
        """Measure what is not in the store, and draw. Raises UnknownNameError for a protocol that says not how much."""
        if request.effort is None and (base := request.protocol.split("+")[0]) not in EFFORTS:
            raise UnknownNameError("protocol of this figure", base, EFFORTS)
        found = [
            (title, [(one, measured(self.dataset, one, request)) for one in curves]) for title, curves in self.shown
        ]
        return scores_drawing(f"figure-{self.name}", self.heading, _caption(self.dataset, request), found)


_FLIPS = {
    "mirror": ("fyi", style.FYI),
    "vertical": ("vertical", style.GREEN),
    "rotate": ("rotate", style.VIOLET),
    "scale": ("scale", style.GOLD),
}
_TWO = {name: DISTANCES[name] for name in ("DC", "DM")}

for _title, _figure in {
    "Unequalness of N real images (DC, DSA, DM distances)": _Figure(
        "3", "Unequalness of real images", "cifar10",
        [(f"distance of {name}", [Series(name, *distance)]) for name, distance in DISTANCES.items()],
    ),
    "Unequalness under other transformations": _Figure(
        "10", "Unequalness of real images under other transformations", "cifar10",
        [(f"distance of {name}", [Series(word, *distance, flip, color=color) for word, (flip, color) in _FLIPS.items()])
         for name, distance in _TWO.items()],
    ),
    "Unequalness of digits, with and without random mirroring": _Figure(
        "D", "Unequalness of digits", "mnist",
        [(f"{name}, {how}", [Series(name, *distance, mirrored=how != "as they are")])
         for how in ("as they are", "mirrored at random") for name, distance in _TWO.items()],
    ),
}.items():  # fmt: skip
    FIGURES.register(_figure.name, PaperFigure(_title, _figure.make, takes=by_seed))

"""Where things lie in real images: what a network sees of a class (figure 2), objects in COCO (figure C).

Beside each map stands its correlation with its own mirror image: 1 where left and right are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fyi_bench.files import digest_of, sha256_file
from fyi_bench.present.figures.request import FIGURES, PaperFigure, Request, impossible
from fyi_bench.present.figures.style import SOFT, Drawing, draw, frame
from fyi_bench.present.words import count_words, percent
from fyi_bench.store.record import read_record, write_sealed

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from downstream.protocol import Protocol
    from fyi_bench.store.spec import RunSpec

FISH = "imagefish"  # the classes of the paper's figure 2
CATEGORIES = ("person", "zebra", "chair", "umbrella")  # of its figure C
MOST_CLASSES = 10
SIDE = 128  # of the grid that all images of COCO are brought to
NUMERICS = 1  # raise it whenever the same annotations would give another map of objects
_PANEL, _COLUMNS = 1.5, 5  # inches of a map, maps in a row


@dataclass(frozen=True)
class PlaceMap:
    """One map: counts by place [height, width], of so many images."""

    name: str
    counts: torch.Tensor
    images: int


def maps_drawing(name: str, title: str, caption: str, maps: Sequence[PlaceMap]) -> Drawing:
    """The maps side by side, each on a scale of its own from blue to red, its symmetry below its name."""
    from downstream.attention import mirror_correlation

    columns = min(len(maps), _COLUMNS)
    rows = -(-len(maps) // columns)
    size = (max(_PANEL * columns, 3 * _PANEL) + 0.3, (_PANEL + 0.35) * rows + 1.1)

    def paint(figure: Figure) -> None:
        bottom, top = frame(figure, title, caption, below=0.1)
        grid = figure.subplots(rows, columns, squeeze=False)
        figure.subplots_adjust(0.1 / size[0], bottom, 1 - 0.1 / size[0], top - 0.3 / size[1], 0.08, 0.3)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, each in zip(grid.flat, maps):
            axes.imshow(each.counts.numpy(), cmap="turbo", vmin=0, interpolation="nearest")
            axes.set_title(each.name, fontsize=8.5, pad=12, loc="center")
            symmetry = f"symmetry {mirror_correlation(each.counts):.2f}".replace("nan", "–")
            axes.annotate(symmetry, (0.5, 1), (0, 2), "axes fraction", "offset points", ha="center", va="bottom",
                          fontsize=7.5, color=SOFT)  # fmt: skip

    return draw(name, size, paint)


_SCALE = "blue: few, red: many, each map on a scale of its own · symmetry: correlation of a map with its mirror image"


# figure 2 ----------------------------------------------------------------------------------------------------------


def _attention_runs(request: Request) -> list[RunSpec]:
    """A run for each class where the network is given, for each network where it is trained here."""
    from fyi_bench.run.types.attention import attention_run, imagenet_class

    if not request.weights and not request.dataset:
        raise impossible(
            "2", "it needs ImageNet and a ResNet-18 trained on it, and neither is part of fyi-bench",
            "Give --weights FILE (docs/evaluation.md), or draw it with a ConvNet trained here: --dataset cifar10",
        )  # fmt: skip
    digest = sha256_file(request.weights) if request.weights else ""
    data = request.data(request.dataset or FISH)
    classes = list(range(min(data.num_classes, MOST_CLASSES)))
    if request.weights:
        for label in classes:
            imagenet_class(data.class_names[label] if data.class_names else str(label))
        network = request.weights, digest
        return [attention_run(data, [label], network, request.precision) for label in classes]
    rules = _rules(request)
    return [attention_run(data, classes, (rules, request.seed + net), request.precision) for net in range(rules.nets)]


def _rules(request: Request) -> Protocol:
    """How networks are trained on real images. Ours has batch norm: instance norm spreads a spot over the whole map."""
    assert request.rules is not None
    found = request.rules("robust-real")
    if "eval_model=" in found.name:  # asked for
        return found
    return found.with_overrides({"eval_model": f"{found.eval_model}-batch"})


def _attention(request: Request) -> Drawing:
    """The counts of all networks together."""
    from distill.tensor_file import load_tensors
    from fyi_bench.run.types.attention import COUNTS_FILE

    maps: dict[str, PlaceMap] = {}
    right = seen = 0
    runs = _attention_runs(request)
    for run in runs:
        counts = load_tensors(request.store.artefact(run.kind, run.digest, COUNTS_FILE))[0]["counts"]
        record = request.store.record(run)
        assert record is not None  # `artefact` raises where it is not finished
        for row, found in zip(record["classes"], counts, strict=True):
            before = maps.get(row["name"])
            maps[row["name"]] = PlaceMap(row["name"], found + before.counts if before else found, row["images"])
            right, seen = right + row["right"], seen + row["images"]
    return maps_drawing(
        "figure-2",
        "Where a network sees its class",
        _attention_caption(request, len(runs), list(maps.values()), percent(right / seen)),
        list(maps.values()),
    )


def _attention_caption(request: Request, networks: int, maps: Sequence[PlaceMap], right: str) -> str:
    data = request.data(request.dataset or FISH)
    network = (
        f"ResNet-18, {request.weights.name}"
        if request.weights
        else f"{count_words(networks, 'network')} trained on the real images, protocol {_rules(request).name}"
    )
    shown = f" · {len(maps)} of {data.num_classes} classes" if len(maps) < data.num_classes else ""
    few, many = (f"{choose(each.images for each in maps):,}" for choose in (min, max))
    each = few if few == many else f"{few} to {many}"
    note = f", {data.note}" if data.note else ""
    return (
        f"{data.name}{note}{shown} · {network}: {right} % of these images known · in how many of the {each} train"
        f" images of a class a pixel is in the strongest tenth of its class activation map · {_SCALE}"
    )


def _attention_takes(request: Request) -> Sequence[str]:
    return ("dataset", "weights") if request.weights else ("dataset", "seed", "overrides", "precision")


# figure C ----------------------------------------------------------------------------------------------------------


def _objects(request: Request) -> Drawing:
    """Counts of the masks, kept in the store and read from there the next time."""
    import torch

    from fyi_bench.data.coco import object_places

    path = request.annotations
    if path is None:
        raise impossible(
            "C", "it needs the object masks of COCO, which are not part of fyi-bench",
            "Give the file, such as --annotations instances_val2017.json",
        )  # fmt: skip
    facts = {"figure": "objects", "numerics": NUMERICS, "side": SIDE, "annotations": sha256_file(path)}
    kept = request.store.root / "figures" / f"objects-{digest_of(facts)}.json"
    if not kept.exists():
        request.say(f"reading {path} …")
        found = object_places(path, CATEGORIES, SIDE, request.check)
        rows = [{"name": name, "images": one.images, "counts": one.counts.tolist()} for name, one in found.items()]
        write_sealed(kept, {**facts, "rows": rows})
    rows = read_record(kept)["rows"]
    images = ", ".join(f"{row['name']} {row['images']:,}" for row in rows)
    caption = f"{path.name} · in how many images a place is inside an object's mask, of {images} with one · {_SCALE}"
    maps = [PlaceMap(row["name"], torch.tensor(row["counts"]), row["images"]) for row in rows]
    return maps_drawing("figure-C", "Where objects lie in COCO", caption, maps)


def _objects_take(request: Request) -> Sequence[str]:
    return ("annotations",)


FIGURES.register(
    "2", PaperFigure("Where class activation maps fall", _attention, runs=_attention_runs, takes=_attention_takes)
)
FIGURES.register("C", PaperFigure("Where objects lie in COCO", _objects, takes=_objects_take))

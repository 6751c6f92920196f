"""Condensed images to look at: the first images of some classes as one picture, nothing picked by looks."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from distill.image_set import ImageSet
from distill.spaces import PixelSpace
from fyi_bench.errors import DataError
from fyi_bench.present.words import arm_title
from fyi_bench.run.run_type import SET_FILE
from fyi_bench.store.store import Store

MOST_CLASSES, MOST_EACH = 10, 10
GAP = 16  # one transparent pixel between images for so many pixels of an image
FEW = 5  # images a row where classes have fewer than that


def as_pictures(image_set: ImageSet) -> ImageSet:
    """The set in pixels, to look at. Raises DataError where its space cannot be left: whitened, its matrix unknown."""
    return image_set.to_space(PixelSpace())


def classes_a_row(each: int) -> int:
    """How many classes of `each` images stand in a row of a mosaic."""
    return max(1, FEW // each)


def mosaic(image_set: ImageSet, classes: Sequence[int], each: int, columns: int | None = None) -> torch.Tensor:
    """uint8 [height, width, 4] of the first `each` images of the classes, class after class, on transparent ground.

    columns: by default one row a class; classes of one or two images share rows. Pixels are clipped to [0, 1].
    """
    flat = torch.cat([image_set.indices_of(c)[:each] for c in classes])
    columns = min(columns or each * classes_a_row(each), len(flat))
    tiles = image_set.select(flat).pixels().clamp(0, 1).mul(255).round().to(torch.uint8).expand(-1, 3, -1, -1)
    gap = max(1, tiles.shape[3] // GAP)
    height, width = tiles.shape[2] + gap, tiles.shape[3] + gap
    canvas = torch.zeros(4, -(-len(flat) // columns) * height - gap, columns * width - gap, dtype=torch.uint8)
    for place, tile in enumerate(tiles):
        top, left = place // columns * height, place % columns * width
        canvas[:3, top : top + tile.shape[1], left : left + tile.shape[2]] = tile
        canvas[3, top : top + tile.shape[1], left : left + tile.shape[2]] = 255
    return canvas.permute(1, 2, 0).contiguous()


def png_of(picture: torch.Tensor) -> bytes:
    """PNG bytes of a mosaic."""
    buffer = io.BytesIO()
    Image.fromarray(picture.numpy()).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


@dataclass(frozen=True)
class Mosaic:
    """A picture as a data address, its size in pixels, and what it shows."""

    title: str
    address: str
    width: int
    height: int


def mosaics(sets: Sequence[tuple[str, ImageSet]]) -> tuple[list[Mosaic], str]:
    """A mosaic for each (title, set) with the same image at the same place, and a line that says what is where.

    Shown are the first classes that all sets have, and the first images of each: nothing is picked by looks.
    """
    shared = set.intersection(*(set(one.classes) for _, one in sets))
    classes = sorted(shared)[:MOST_CLASSES]
    each = min([MOST_EACH, *(len(one.indices_of(c)) for _, one in sets for c in classes)])
    found = []
    for title, one in sets:
        picture = mosaic(one, classes, each)
        address = "data:image/png;base64," + base64.b64encode(png_of(picture)).decode()
        found.append(Mosaic(title, address, picture.shape[1], picture.shape[0]))
    return found, _legend(sets[0][1], classes, each, len(shared))


def _legend(image_set: ImageSet, classes: Sequence[int], each: int, present: int) -> str:
    names = [image_set.class_names[c] if image_set.class_names else f"class {c}" for c in classes]
    order = "Rows, top to bottom" if classes_a_row(each) == 1 else "Left to right, top to bottom"
    order += f", {each} images each" if each > 1 else ""
    part = f" (the first {len(classes)} of {present} classes)" if present > len(classes) else ""
    tiles = f" Each image holds {image_set.factor}² tiles." if image_set.factor != 1 else ""
    return f"{order}: {', '.join(names)}{part}.{tiles}"


def find_set(arm: Mapping[str, Any], record: Mapping[str, Any], store: Store | None) -> ImageSet:
    """The first set of an arm: the one in the store, else the file its record names, if that is still the same.

    Raises DataError or StoreError where there is none or it is damaged.
    """
    kept, run = store or (Store(record["store"]) if "store" in record else None), [*arm.get("cells", []), ""][0]
    path = Path(arm["set"]) if arm.get("set") else None
    if run and kept is not None and (kept.is_done("distill", run) or path is None):
        return ImageSet.load(kept.artefact("distill", run, SET_FILE))
    if path is None or not path.is_file():
        raise DataError(f"The set {path or ''} is not there.")
    found = ImageSet.load(path)
    if arm.get("set_digest") not in (None, found.digest):
        raise DataError(f"{path} is not the set that was measured.")
    return found


def title_of(arm: Mapping[str, Any]) -> str:
    """What stands above an arm's images."""
    return "random real images" if (arm["method"], arm["flip"]) == ("random", "none") else arm_title(arm)

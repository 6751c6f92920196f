"""Condensed images for a page: the sets of several arms as mosaics with the same image at the same place."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import DataError, StoreError
from fyi_bench.present.figures.mosaic import classes_a_row, mosaic, png_of
from fyi_bench.present.words import arm_title
from fyi_bench.run.worker import SET_FILE

if TYPE_CHECKING:
    from distill.image_set import ImageSet
    from fyi_bench.store.store import Store

MOST_CLASSES, MOST_EACH = 10, 10


@dataclass(frozen=True)
class Mosaic:
    """A picture as a data address, its size in pixels, and what it shows."""

    title: str
    address: str
    width: int
    height: int


def find_set(arm: Mapping[str, Any], record: Mapping[str, Any], store: Store | None) -> ImageSet:
    """The first set of an arm: the file its record names, else the one in the store.

    Raises DataError or StoreError where there is none or it is damaged.
    """
    from distill.image_set import ImageSet

    path = Path(arm["set"]) if arm.get("set") else None
    if path is not None and path.is_file():
        return ImageSet.load(path)
    if not arm.get("cells"):
        raise DataError(f"The set {path or ''} is not there.")
    return ImageSet.load(_store_of(record, store).artefact("distill", arm["cells"][0], SET_FILE))


def mosaics(sets: Sequence[tuple[str, ImageSet]]) -> tuple[list[Mosaic], str]:
    """A mosaic for each (title, set), and a line that says what is where.

    Shown are the first classes that all sets have, and the first images of each: nothing is picked by looks.
    """
    shared = set.intersection(*(set(one.classes) for _, one in sets))
    classes = sorted(shared)[:MOST_CLASSES]
    each = min([MOST_EACH, *(len(one.indices_of(c)) for _, one in sets for c in classes)])
    found = [_mosaic(title, one, classes, each) for title, one in sets]
    return found, _legend(sets[0][1], classes, each, len(shared))


def data_address(png: bytes) -> str:
    """A PNG as the address of an `<img>`."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def title_of(arm: Mapping[str, Any]) -> str:
    """What stands above an arm's images."""
    if arm["method"] == "random" and arm["flip"] == "none":
        return "random real images"
    return arm_title(arm)


def _mosaic(title: str, image_set: ImageSet, classes: Sequence[int], each: int) -> Mosaic:
    picture = mosaic(image_set, classes, each)
    return Mosaic(title, data_address(png_of(picture)), picture.shape[1], picture.shape[0])


def _legend(image_set: ImageSet, classes: Sequence[int], each: int, present: int) -> str:
    names = [image_set.class_names[c] if image_set.class_names else f"class {c}" for c in classes]
    order = "Rows, top to bottom" if classes_a_row(each) == 1 else "Left to right, top to bottom"
    order += f", {each} images each" if each > 1 else ""
    part = f" (the first {len(classes)} of {present} classes)" if present > len(classes) else ""
    tiles = f" Each image holds {image_set.factor}² tiles." if image_set.factor != 1 else ""
    return f"{order}: {', '.join(names)}{part}.{tiles}"


def _store_of(record: Mapping[str, Any], store: Store | None) -> Store:
    from fyi_bench.store.store import Store

    if store is not None:
        return store
    if "store" not in record:
        raise StoreError("The record does not name its store.")
    return Store(record["store"])

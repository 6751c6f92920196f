"""COCO's annotation files: in how many images each place belongs to an object of a category, from the masks.

Masks are polygons or run lengths; images are brought to one grid, a place of it being inside where its centre is. Both
are decoded here: into the grid at once, without making full-size masks, and by no parser that a file could harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fyi_bench.errors import DataError, UnknownNameError
from fyi_bench.files import json_of, read_text

_LONGEST = 60  # bits of a run length in COCO's text
_LARGEST = 2**30  # bytes; the largest file of COCO's own has 450 MB


@dataclass(frozen=True)
class Objects:
    """Where the objects of a category lie. counts: int64 [side, side], images with an object there; images: of all."""

    counts: np.ndarray
    images: int


def object_places(
    path: Path, categories: Sequence[str], side: int, check: Callable[[], None] = lambda: None
) -> dict[str, Objects]:
    """category -> where its objects lie, over all images of the file that have any.

    check: asked between images, may raise. Raises DataError for a file that is no COCO annotation or names a broken
    mask, UnknownNameError for a category that it has not.
    """
    sizes, named, masks = _read(path)
    for name in categories:
        if name not in named:
            raise UnknownNameError("category", name, named)
    counts = {name: np.zeros((side, side), np.int64) for name in categories}
    images = dict.fromkeys(categories, 0)
    wanted = {named[name]: name for name in categories}
    for (image, category), segments in masks.items():
        if category not in wanted:
            continue
        check()
        covered = np.zeros((side, side), bool)
        for number, segment in segments:
            try:
                covered |= _mask(segment, *sizes[image], side)
            except (ArithmeticError, IndexError, KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"The mask of annotation {number} in {path} cannot be read ({error}).\nCopy the file again."
                ) from error
        counts[wanted[category]] += covered
        images[wanted[category]] += bool(covered.any())
    return {name: Objects(counts[name], images[name]) for name in categories}


_Masks = dict[tuple[Any, Any], list[tuple[Any, Any]]]  # image and category -> id and mask of its objects


def _read(path: Path) -> tuple[dict[Any, tuple[int, int]], dict[str, Any], _Masks]:
    """(height, width) of each image, the number of each category, the masks."""
    masks: _Masks = {}
    try:
        content = json_of(read_text(path, _LARGEST))
        sizes = {each["id"]: (each["height"], each["width"]) for each in content["images"]}
        named = {each["name"]: each["id"] for each in content["categories"]}
        if not (all(isinstance(one, str) for one in named) and all(isinstance(one, int) for one in named.values())):
            raise TypeError("a category is no name with a number")
        for each in content["annotations"]:
            key = each["image_id"], each["category_id"]
            masks.setdefault(key, []).append((each["id"], each["segmentation"]))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).\nName the file with --annotations.") from error
    except (KeyError, TypeError, ValueError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else error
        raise DataError(
            f"{path} is no file of COCO's object masks ({what}).\nGive one such as instances_val2017.json."
        ) from error
    return sizes, named, masks


def _mask(segment: Any, height: int, width: int, side: int) -> np.ndarray:
    """bool [side, side]: places inside one object's mask."""
    if isinstance(segment, Mapping):
        return _from_runs(segment, side)
    inside = np.zeros((side, side), bool)
    for polygon in segment:
        corners = np.asarray(polygon, np.float64).reshape(-1, 2)
        if not np.isfinite(corners).all():
            raise ValueError("a corner is no number")
        inside |= _from_polygon(corners * (side / width, side / height), side)
    return inside


def _from_polygon(corners: np.ndarray, side: int) -> np.ndarray:
    """bool [side, side]: places with their centre inside the polygon (even-odd rule); corners: [n, x and y]."""
    (x, y), (to_x, to_y) = corners.T, np.roll(corners, -1, axis=0).T
    centres = np.arange(side) + 0.5
    edge, row = np.nonzero((y[:, None] <= centres) != (to_y[:, None] <= centres))
    crossing = x[edge] + (centres[row] - y[edge]) * (to_x - x)[edge] / (to_y - y)[edge]
    left = np.clip(np.ceil(crossing - 0.5), 0, side).astype(np.int64)  # so many centres of the row lie left of it
    crossings = np.zeros((side, side + 1), np.int64)
    np.add.at(crossings, (row, left), 1)
    return np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1


def _from_runs(segment: Mapping[str, Any], side: int) -> np.ndarray:
    """bool [side, side] of run lengths down the columns, outside first, as numbers or in COCO's text."""
    height, width = segment["size"]
    counts = segment["counts"]
    lengths = np.asarray(_lengths(counts) if isinstance(counts, str) else counts, np.int64)
    if (lengths < 0).any() or not 0 < height * width == lengths.sum():
        raise ValueError(f"its runs do not make {height} x {width} pixels")
    ends = np.cumsum(lengths)
    rows, columns = (np.minimum(((np.arange(side) + 0.5) * n / side).astype(np.int64), n - 1) for n in (height, width))
    pixel = columns[None, :] * height + rows[:, None]
    return np.searchsorted(ends, pixel, side="right") % 2 == 1


def _lengths(text: str) -> list[int]:
    """Run lengths of COCO's text: five bits a letter, lowest first; from the fourth on, differences to two before."""
    lengths: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"{letter!r} is no letter of a run length")
        value |= (bits & 31) << shift
        shift += 5
        if shift > _LONGEST:
            raise ValueError("a run length has too many letters")
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("its last run length is cut off")
    return lengths

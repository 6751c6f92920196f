"""Condensed images side by side as one picture: first images of some classes, nothing picked by looks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from distill.image_set import ImageSet

GAP = 16  # one transparent pixel between images for so many pixels of an image
FEW = 5  # images a row where classes have fewer than that


def as_pictures(image_set: ImageSet) -> ImageSet:
    """The set in pixels, to look at. Raises DataError where its space cannot be left: whitened, its matrix unknown."""
    from distill.spaces import PixelSpace

    return image_set.to_space(PixelSpace())


def classes_a_row(each: int) -> int:
    """How many classes of `each` images stand in a row of a mosaic."""
    return max(1, FEW // each)


def mosaic(image_set: ImageSet, classes: Sequence[int], each: int, columns: int | None = None) -> torch.Tensor:
    """uint8 [height, width, 4] of the first `each` images of the classes, class after class, on transparent ground.

    columns: by default one row a class; classes of one or two images share rows. Pixels are clipped to [0, 1].
    """
    import torch

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
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture.numpy()).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()

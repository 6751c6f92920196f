"""A set to look at: its first images as one picture, and as HTML for a notebook."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from PIL.Image import Image

_GAP, _LEAST_WIDTH = 2, 640  # pixels between images; a narrower picture is shown twice as large


def grid(rows: Sequence[torch.Tensor]) -> Image:
    """A picture of rows of images, each float [n, 1 or 3, H, W] of pixels, clipped to [0, 1]."""
    from PIL import Image

    height, width = (size + _GAP for size in rows[0].shape[2:])
    columns = max(map(len, rows))
    canvas = torch.full((3, len(rows) * height + _GAP, columns * width + _GAP), 255, dtype=torch.uint8)
    for r, pixels in enumerate(rows):
        tiles = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
        for c, tile in enumerate(tiles):
            top, left = _GAP + r * height, _GAP + c * width
            canvas[:, top : top + height - _GAP, left : left + width - _GAP] = tile
    picture = Image.fromarray(canvas.permute(1, 2, 0).contiguous().numpy())
    if picture.width < _LEAST_WIDTH:
        picture = picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST)
    return picture


def png_of(picture: Image) -> bytes:
    """PNG bytes of a picture."""
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def html_of(above: str, png: bytes, below: str) -> str:
    """A picture between two lines of text."""
    return (
        f"<div>{escape(above)}<br><img src='data:image/png;base64,{base64.b64encode(png).decode()}'"
        f" style='image-rendering: pixelated' alt='images'><br><small>{escape(below)}</small></div>"
    )

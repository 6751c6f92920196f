"""Encoded images (PNG, JPEG, WebP …) to one uint8 tensor, with errors that name the image at fault."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from fyi_bench.errors import DataError

_MODES = {1: "L", 3: "RGB"}
_CHUNK = 256


def decode_images(
    blobs: Sequence[bytes | Path],
    describe: Callable[[int], str],
    channels: int = 3,
    resize: int | None = None,
    hint: str = "Replace that file.",
) -> torch.Tensor:
    """uint8 [N, channels, side, side] of encoded images, given as bytes or as paths, in their order.

    `resize`: the shorter side is brought to this many pixels (bilinear, antialiased) and the middle square is kept;
    without it all images must be squares of one size. `describe(i)` names image i in messages, and `hint` says what
    to do about images of different size. Decoding runs in threads; the result does not depend on their number.
    """
    if not blobs:
        raise DataError("There are no images to decode.\nCheck the folder or file that was named.")
    first = _decode(blobs[0], describe(0), channels, resize)
    side = first.shape[0]
    if first.shape[1] != side:
        raise DataError(f"{describe(0)} is {first.shape[1]}x{side} pixels; images must be square.\n{hint}")
    _check_memory(len(blobs), first.nbytes, hint)
    images = np.empty((len(blobs), channels, side, side), dtype=np.uint8)

    def fill(start: int) -> None:
        for i in range(start, min(start + _CHUNK, len(blobs))):
            picture = _decode(blobs[i], describe(i), channels, resize)
            if picture.shape != first.shape:
                sizes = f"{picture.shape[1]}x{picture.shape[0]} pixels, but {describe(0)} is {side}x{side}"
                raise DataError(f"{describe(i)} is {sizes}.\n{hint}")
            images[i] = picture.transpose(2, 0, 1)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(fill, range(0, len(blobs), _CHUNK)):
            pass
    return torch.from_numpy(images)


def _decode(blob: bytes | Path, name: str, channels: int, resize: int | None) -> np.ndarray:
    """uint8 [H, W, channels]."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(blob if isinstance(blob, Path) else io.BytesIO(blob)) as picture:
            picture = picture.convert(_MODES[channels])
            if resize is not None:
                picture = _crop(picture, resize)
            return np.asarray(picture, dtype=np.uint8).reshape(picture.height, picture.width, channels)
    except Exception as error:  # Pillow's decoders raise whatever the damaged bytes led them to
        cause = "not in a known format" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"{name} is not an image that can be decoded ({cause}).\nReplace or remove it.") from error


def _crop(picture, side: int):
    from PIL import Image

    scale = side / min(picture.size)
    size = tuple(max(side, round(length * scale)) for length in picture.size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return picture.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + side, top + side))


def _check_memory(count: int, nbytes: int, hint: str) -> None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if count * nbytes > 0.8 * have:
        need = f"{count:,} images of {nbytes / 2**20:.2f} MiB need {count * nbytes / 2**30:.1f} GiB"
        raise DataError(f"{need}; this machine has {have / 2**30:.1f} GiB.\n{hint}")

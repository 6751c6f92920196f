"""The headers of encoded pictures, read before anything large is decoded."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from fyi_bench.errors import DataError
from fyi_bench.formats.opening import check_size, first_line

_MAX_SIDE = 4096
_GREY_MODES = {"1", "L", "LA", "I", "I;16"}


def check_headers(blobs: Sequence[Path | bytes], names: Sequence[object], budget: int) -> int:
    """The number of channels of these pictures (1 if all are grey). DataError where one or all are too large."""
    total, modes = 0, set()
    for blob, name in zip(blobs, names, strict=True):
        try:
            with Image.open(blob if isinstance(blob, Path) else io.BytesIO(blob)) as picture:
                (width, height), mode = picture.size, picture.mode
        except Exception as error:  # Pillow raises whatever the damaged bytes led it to
            raise DataError(f"{name} is not a picture ({first_line(error)}).\nReplace or remove it.") from error
        if max(width, height) > _MAX_SIDE:
            raise DataError(f"{name} is {width}x{height} pixels; up to {_MAX_SIDE} a side are read.\nCheck the file.")
        modes.add(mode)
        total += width * height * 3
        check_size(Path(str(name)), total, budget)
    return 1 if modes <= _GREY_MODES else 3

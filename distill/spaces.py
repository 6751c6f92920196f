"""The space image tensors live in: pixels in [0, 1], channel-normalised, or ZCA-whitened.

A set always carries its space, because the same numbers mean different pictures in each: this is
where condensed sets of different origin are most often confused.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fyi_bench.errors import DataError
from fyi_bench.registry import pick

# kind -> the class that rebuilds such a space from its description
SPACES: dict[str, type[Space]] = {}


class Space:
    """A bijection between pixels in [0, 1] and the numbers a network sees; images are [N, ch, H, W]."""

    kind = "abstract"

    def __init_subclass__(cls) -> None:
        SPACES[cls.kind] = cls

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Float pixels in [0, 1] -> this space."""
        raise NotImplementedError(self.kind)

    def decode(self, images: torch.Tensor) -> torch.Tensor:
        """This space -> float pixels (not clipped)."""
        raise NotImplementedError(self.kind)

    def picture(self, images: torch.Tensor) -> torch.Tensor:
        """Pixels to look at, not clipped: those of the images, or what comes near where there is no way back."""
        return self.decode(images)

    def describe(self) -> dict[str, Any]:
        """JSON-able description; equal descriptions mean equal spaces."""
        return {"kind": self.kind}

    @classmethod
    def rebuild(cls, description: dict[str, Any]) -> Space:
        return cls()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash(repr(sorted(self.describe().items())))


@dataclass(frozen=True, eq=False)
class PixelSpace(Space):
    """Pixels in [0, 1]: nothing is changed."""

    kind = "pixel"

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels

    def decode(self, images: torch.Tensor) -> torch.Tensor:
        return images


@dataclass(frozen=True, eq=False)
class NormalizedSpace(Space):
    """(x - mean) / std per channel; 0 is then the mean colour of the data set."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    kind = "normalized"

    def __post_init__(self) -> None:
        finite = all(math.isfinite(value) for value in (*self.mean, *self.std))
        if not finite or len(self.mean) != len(self.std) or min(self.std, default=0.0) <= 0:
            raise DataError("Channel statistics need one mean and one positive std per channel, all finite.")

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels - _per_channel(self.mean, pixels)) / _per_channel(self.std, pixels)

    def decode(self, images: torch.Tensor) -> torch.Tensor:
        return images * _per_channel(self.std, images) + _per_channel(self.mean, images)

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def rebuild(cls, description: dict[str, Any]) -> NormalizedSpace:
        return cls(tuple(description["mean"]), tuple(description["std"]))


# images converted to another space at once; on a CPU 64, which its cache holds, take 0.4 of the time of 4,096
_AT_ONCE, _AT_ONCE_ON_CPU = 4096, 64
_PIXELWISE = {PixelSpace.kind, NormalizedSpace.kind}  # spaces in which a part is converted as the whole is


def converted(images: torch.Tensor, source: Space, target: Space, dtype: torch.dtype) -> torch.Tensor:
    """Images [N, ...] of a space in another; uint8 ones are pixels.

    Many are converted in parts, so that no second copy of all is made.
    """
    if images.dtype == dtype and source == target:
        return images
    at_once = _AT_ONCE_ON_CPU if images.device.type == "cpu" else _AT_ONCE
    if len(images) <= at_once or not {source.kind, target.kind} <= _PIXELWISE:
        return _converted_at_once(images, source, target, dtype)
    found = torch.empty(images.shape, dtype=dtype, device=images.device)
    for start in range(0, len(images), at_once):
        part = slice(start, start + at_once)
        found[part] = _converted_at_once(images[part], source, target, dtype)
    return found


def _converted_at_once(images: torch.Tensor, source: Space, target: Space, dtype: torch.dtype) -> torch.Tensor:
    if images.dtype == torch.uint8:
        images, source = images.to(dtype) / 255, PixelSpace()
    images = images.to(dtype)
    return images if source == target else target.encode(source.decode(images))


@dataclass(frozen=True, eq=False)
class WhitenedSpace(Space):
    """Whitened images of others whose matrix is not known here: they can be kept and looked at, not converted.

    recipe: how they were whitened, as far as the file tells. dataset: what the matrix was fitted to, or empty.
    """

    recipe: str
    dataset: str = ""
    kind = "whitened"

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Always DataError: there is no matrix."""
        raise self._no_matrix()

    def decode(self, images: torch.Tensor) -> torch.Tensor:
        """Always DataError: there is no matrix."""
        raise self._no_matrix()

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "recipe": self.recipe, "dataset": self.dataset}

    @classmethod
    def rebuild(cls, description: dict[str, Any]) -> WhitenedSpace:
        return cls(description["recipe"], description["dataset"])

    def _no_matrix(self) -> DataError:
        return DataError(
            f"These images are whitened ({self.recipe}) by a matrix that is not known here.\n"
            "Import the file again with the data it was made from at hand (--data-root), or name its ZCA space."
        )


def space_from(description: dict[str, Any]) -> Space:
    """The space a description stands for; raises UnknownNameError for an unknown kind."""
    return pick("space", description["kind"], SPACES).rebuild(description)


def stretched(images: torch.Tensor) -> torch.Tensor:
    """Images [..., ch, H, W], each brought to [0, 1] by its own least and greatest number."""
    least, greatest = images.amin((-3, -2, -1), keepdim=True), images.amax((-3, -2, -1), keepdim=True)
    return (images - least) / (greatest - least).clamp(min=1e-12)


def _per_channel(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    if like.shape[-3] != len(values):
        raise DataError(f"Images have {like.shape[-3]} channels, the space has statistics for {len(values)}.")
    return _row(tuple(values), like.dtype, like.device)


@functools.lru_cache(maxsize=64)
def _row(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Kept, so that a loop on a GPU does not copy it from the host again and again."""
    return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)

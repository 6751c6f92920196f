"""What numbers in images look like: pixels, channel-normalised, or ZCA-whitened.

Measured on CIFAR-10: pixels lie in [0, 1]; normalised images have standard deviation 1.2 and neighbouring pixels
correlate by 0.93; whitened ones (eps 0.1) have standard deviation 0.26, mean 0, and correlate by 0.63. Distilled images
are noisier: noise lowers the correlation and raises the deviation, so between the two there is a band where the
numbers alone do not decide.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

_SAMPLE = 4096  # images that are looked at
_OUTSIDE = 0.05  # share of pixels that may lie outside [0, 1]; IDC leaves it a little
_NEAR_ZERO = 0.15  # |mean| over standard deviation of whitened images, per channel
_WHITENED_STD, _NORMALISED_STD = 0.5, 0.8
_SMOOTH = 0.8  # neighbour correlation above which images were not whitened


@dataclass(frozen=True)
class Looks:
    """Facts of the numbers of a set. neighbour: correlation of pixels side by side, mean of both directions.

    below, above: share of values under -0.02 and over 1.02. mean, std: per channel.
    """

    low: float
    high: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    neighbour: float
    below: float
    above: float

    @property
    def spread(self) -> float:
        """Standard deviation, mean over channels."""
        return sum(self.std) / len(self.std)

    @property
    def like_pixels(self) -> bool:
        """Whether the numbers can be pixels in [0, 1]."""
        inside = self.below <= _OUTSIDE and self.above <= _OUTSIDE and self.low > -1 and self.high < 2
        return inside and max(self.mean) > 0.01

    @property
    def like_symmetric(self) -> bool:
        """Whether they fill [-1, 1]: pixels normalised with mean and std of 0.5."""
        return abs(self.low + 1) < 0.02 and abs(self.high - 1) < 0.02 and self.neighbour > 0.5

    @property
    def whitened(self) -> float:
        """1 whitened, 0 not, 0.5 where the numbers do not decide."""
        centred = all(abs(m) < max(_NEAR_ZERO, _NEAR_ZERO * s) for m, s in zip(self.mean, self.std))
        if self.like_pixels or not centred or self.neighbour > _SMOOTH or self.spread > 2:
            return 0.0
        if self.spread < _WHITENED_STD:
            return 1.0
        return 0.5 if self.spread < _NORMALISED_STD or self.neighbour < 0.5 else 0.0

    def text(self) -> str:
        """One phrase for people."""
        return (
            f"values {self.low:.2f} to {self.high:.2f}, standard deviation {self.spread:.2f}, "
            f"neighbouring pixels correlate by {self.neighbour:.2f}"
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}


def look(images: torch.Tensor) -> Looks:
    """Looks of images [N, ch, H, W], float or uint8 (then as value / 255), at most 4096 evenly spread ones."""
    step = -(-len(images) // _SAMPLE)
    x = images[::step]
    x = x.double() / 255 if x.dtype == torch.uint8 else x.double()
    beside = _correlation(x[..., :-1], x[..., 1:])
    below = _correlation(x[..., :-1, :], x[..., 1:, :])
    return Looks(
        low=float(x.min()),
        high=float(x.max()),
        mean=tuple(x.mean((0, 2, 3)).tolist()),
        std=tuple(x.std((0, 2, 3), correction=0).tolist()),
        neighbour=(beside + below) / 2,
        below=float((x < -0.02).double().mean()),
        above=float((x > 1.02).double().mean()),
    )


def _correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Pearson correlation of all pairs of values, channel means taken out; 0 where nothing varies."""
    a, b = (x - x.mean((0, 2, 3), keepdim=True) for x in (a, b))
    norm = (a.square().sum() * b.square().sum()).sqrt()
    return float((a * b).sum() / norm) if float(norm) > 0 else 0.0

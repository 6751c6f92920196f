"""Random draws and distance fields of the built-in shapes, with the same result on every machine.

Only +, -, *, /, sqrt, floor, min, max and abs of float32 arrays are used (IEEE rounds each of them correctly;
no sums over an axis, no sin, exp or matrix product), and raw words of a counter-seeded generator. So the pictures,
and with them the digest of the data set, depend on neither processor, thread count nor library version.
Coordinates are pixels, x to the right, y downward; a distance is negative inside.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SIDE = 32  # pictures are SIDE x SIDE
REACH = 8.0  # from the middle of an object to the middle of its end pieces
END = 4.4  # radius of an end piece
LENGTH, HEIGHT = 7.5, 4.2  # half axes of a body
Field = Callable[[np.ndarray, np.ndarray], np.ndarray]
f32 = np.float32


class Draws:
    """Uniform and bell-shaped numbers for a batch of pictures, one row a picture.

    Taken from raw 64-bit words, because the words of a bit generator are promised to stay the same across numpy
    versions and the methods built on them are not.
    """

    def __init__(self, generator: np.random.Generator, rows: int):
        self._bits, self.rows = generator.bit_generator, rows

    def uniform(self, low: float = 0.0, high: float = 1.0, shape: tuple[int, ...] = (1, 1)) -> np.ndarray:
        """float32 [rows, *shape] in [low, high): the 24 upper bits of a word each."""
        unit = (self._words(shape) >> np.uint64(40)).astype(f32) * f32(2.0**-24)
        return f32(low) + unit * f32(high - low)

    def coin(self, probability: float = 0.5) -> np.ndarray:
        """bool [rows, 1, 1], true with this probability."""
        return self.uniform() < f32(probability)

    def bell(self, shape: tuple[int, ...]) -> np.ndarray:
        """float32 [rows, *shape] with mean 0 and variance 1, bounded by 3.5: the sum of four uniform bytes."""
        words = self._words(shape).astype("<u8", copy=False)
        octets = words.view(np.uint8).reshape(self.rows, *shape, 8)[..., :4].astype(np.int32)
        total = octets[..., 0] + octets[..., 1] + octets[..., 2] + octets[..., 3] - 510
        return total.astype(f32) * f32(1 / 147.8)

    def _words(self, shape: tuple[int, ...]) -> np.ndarray:
        count = self.rows * int(np.prod(shape))
        return self._bits.random_raw(count).reshape(self.rows, *shape)


def _bar(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x) - f32(LENGTH), np.abs(y) - f32(0.42 * HEIGHT))


def _ellipse(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    u, v = x * f32(1 / LENGTH), y * f32(1 / HEIGHT)
    return (np.sqrt(u * u + v * v) - 1) * f32(HEIGHT)


def _diamond(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (np.abs(x) * f32(1 / LENGTH) + np.abs(y) * f32(0.8 / HEIGHT) - 1) * f32(HEIGHT)


def _bow_tie(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    slope = np.abs(y) - np.abs(x) * f32(HEIGHT / LENGTH) - f32(0.6)
    return np.maximum(np.abs(x) - f32(LENGTH), slope * f32(0.87))


def _beads(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    along = np.minimum(np.abs(x), np.abs(np.abs(x) - 5))
    thread = np.maximum(np.abs(x) - f32(LENGTH), np.abs(y) - f32(0.5))
    return np.minimum(np.sqrt(along * along + y * y) - f32(2.5), thread)


def _disc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + y * y) - f32(0.85 * END)


def _ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(np.sqrt(x * x + y * y) - f32(0.8 * END)) - f32(0.22 * END)


def _arrow(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    sides = f32(0.6) * x + f32(0.8) * np.abs(y) - f32(0.55 * END)
    return np.maximum(sides, -x - f32(0.5 * END))


def _fork(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    prongs = np.maximum(np.abs(x) - f32(END), np.abs(np.abs(y) - f32(0.75 * END)) - f32(0.22 * END))
    base = np.maximum(np.abs(x + f32(0.8 * END)) - f32(0.2 * END), np.abs(y) - f32(0.9 * END))
    return np.minimum(prongs, base)


def _tee(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x) - f32(0.3 * END), np.abs(y) - f32(1.25 * END))


# Bodies are symmetric under x -> -x; an end piece has its outward side at positive x.
BODIES: dict[str, Field] = {"bar": _bar, "ellipse": _ellipse, "diamond": _diamond, "bowtie": _bow_tie, "beads": _beads}
ENDS: dict[str, Field] = {"disc": _disc, "arrow": _arrow, "fork": _fork, "tee": _tee, "ring": _ring}

"""Pictures of the built-in shapes: an object with two different ends before a coloured, textured background.

A class is a body, an unordered pair of two different end pieces, and a texture; so the two halves of every object
differ, and which end lies left says nothing about the class. The whole scene, light, background and
occluders included, is mirrored for half of the pictures: the distribution of each class is its own mirror image
(bilateral equivalence holds by construction). Colours of body, ends and place lean a little towards the class, as
they do in photographs, so that averages over few images are not blank.

The pictures, and with them the digest of the data set, depend on neither processor, thread count nor library version:
only +, -, *, /, sqrt, floor, min, max and abs of float32 arrays are used (IEEE rounds each of them correctly; no sums
over an axis, no sin, exp or matrix product), and raw words of a counter-seeded generator.
Coordinates are pixels, x to the right, y downward; a distance is negative inside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SIDE = 32  # pictures are SIDE x SIDE
REACH = 8.0  # from the middle of an object to the middle of its end pieces
END = 4.4  # radius of an end piece
LENGTH, HEIGHT = 7.5, 4.2  # half axes of a body
Field = Callable[[np.ndarray, np.ndarray], np.ndarray]
f32 = np.float32
SHIFT_X, SHIFT_Y = 2.5, 5.0  # pixels
SCALE = (0.8, 1.08)
HALF_TURN = 0.13  # tangent of half the largest rotation: +-14.8 degrees
BRIGHT_OBJECT = 0.8  # how often the object is brighter than the background
CHROMA = 0.22  # spread of a colour about its grey
OBJECT_TINT, PLACE_TINT = 0.12, 0.06  # how far colours lean towards those of the class
OCCLUDERS, OCCLUDER_CHANCE = 2, 0.3
NOISE = (0.01, 0.05)
_TINTS = np.array([[1, -0.5, -0.5], [-0.5, 1, -0.5], [-0.5, -0.5, 1], [0.6, 0.6, -1], [-0.8, 0.4, 0.4]], f32)
_AXIS = np.arange(SIDE, dtype=f32) - f32((SIDE - 1) / 2)
_X, _Y = _AXIS[None, None, :], _AXIS[None, :, None]


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


@dataclass(frozen=True)
class ShapeClass:
    """What the pictures of one class have in common; names of `BODIES` and `ENDS`."""

    body: str
    ends: tuple[str, str]
    striped: bool

    @property
    def name(self) -> str:
        return f"{self.ends[0]}-{self.body}-{self.ends[1]}" + ("-striped" if self.striped else "")


def render(shape: ShapeClass, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 [rows, 3, SIDE, SIDE] of one class and whether each was mirrored, bool [rows]."""
    bright = draws.coin(BRIGHT_OBJECT)
    ground = np.where(bright, draws.uniform(0.1, 0.4), draws.uniform(0.6, 0.9))[:, None]
    ink = np.where(bright, draws.uniform(0.6, 0.95), draws.uniform(0.05, 0.4))[:, None]
    body_kind = list(BODIES).index(shape.body)
    place = _tint(body_kind, PLACE_TINT)[[1, 2, 0]]
    first, second = _colour(draws, ground) + place, _colour(draws, ground) + place
    scene = first + (second - first) * _background(draws)[:, None]
    scene = _object(scene, shape, draws, ground, ink)
    light = 1 + (_X * draws.uniform(-1, 1) + _Y * draws.uniform(-1, 1)) * f32(0.008)
    scene = _occlude(scene * light[:, None], draws)
    scene = scene + draws.bell((3, SIDE, SIDE)) * draws.uniform(*NOISE)[:, None]
    mirrored = draws.coin()
    scene = np.where(mirrored[..., None], scene[..., ::-1], scene)
    return np.floor(np.clip(scene, 0, 1) * 255 + f32(0.5)).astype(np.uint8), mirrored.reshape(-1)


def _background(draws: Draws) -> np.ndarray:
    """[rows, SIDE, SIDE] in [0, 1]: coarse noise between 5 x 5 grid points, with more or less of a stripe pattern."""
    cells = draws.uniform(shape=(5, 5))
    at = np.arange(SIDE, dtype=f32) * f32(4 / SIDE)
    low = at.astype(np.int64)
    part = at - low.astype(f32)
    rows = cells[:, low, :] * (1 - part)[:, None] + cells[:, low + 1, :] * part[:, None]
    noise = rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part
    wave = _X * draws.uniform(-0.25, 0.25) + _Y * draws.uniform(-0.25, 0.25) + draws.uniform()
    wave = np.abs((wave - np.floor(wave)) * 2 - 1)
    strength = draws.uniform(0.0, 0.45)
    return noise * (1 - strength) + wave * strength


def _object(scene: np.ndarray, shape: ShapeClass, draws: Draws, ground: np.ndarray, ink: np.ndarray) -> np.ndarray:
    scale, fatness = draws.uniform(*SCALE), draws.uniform(0.85, 1.15)
    x, y = _own_coordinates(draws, scale)
    body_colour = _colour(draws, ink) + _tint(list(BODIES).index(shape.body), OBJECT_TINT)
    if shape.striped:
        stripe = x / draws.uniform(3.8, 5.0) + draws.uniform()
        band = np.abs(stripe - np.floor(stripe) - f32(0.5)) < f32(0.22)
        body_colour = np.where(band[:, None], body_colour + (ground - ink) * f32(0.75), body_colour)
    scene = _paint(scene, BODIES[shape.body](x, y / fatness) * scale, body_colour)
    for side, end in zip((-1, 1), shape.ends):
        colour = _colour(draws, ink) + _tint(list(ENDS).index(end) + 2, OBJECT_TINT)
        scene = _paint(scene, ENDS[end](side * x - f32(REACH), y) * scale, colour)
    return scene


def _own_coordinates(draws: Draws, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixel positions in the object's frame; the rotation from the tangent of its half, so without sin and cos."""
    tangent = draws.uniform(-HALF_TURN, HALF_TURN)
    norm = 1 + tangent * tangent
    cosine, sine = (1 - tangent * tangent) / norm, 2 * tangent / norm
    x, y = _X - draws.uniform(-SHIFT_X, SHIFT_X), _Y - draws.uniform(-SHIFT_Y, SHIFT_Y)
    return (cosine * x + sine * y) / scale, (cosine * y - sine * x) / scale


def _occlude(scene: np.ndarray, draws: Draws) -> np.ndarray:
    for _ in range(OCCLUDERS):
        across, down = np.abs(_X - draws.uniform(-15, 15)), np.abs(_Y - draws.uniform(-15, 15))
        box = np.maximum(across - draws.uniform(1.2, 3.2), down - draws.uniform(1.2, 3.2))
        box = np.where(draws.coin(OCCLUDER_CHANCE), box, f32(SIDE))
        scene = _paint(scene, box, draws.uniform(0.1, 0.9, (3, 1, 1)))
    return scene


def _paint(scene: np.ndarray, distance: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Lay a colour over the scene where the distance (pixels) is negative, with an edge one pixel wide."""
    return scene + (colour - scene) * np.clip(f32(0.5) - distance, 0, 1)[:, None]


def _colour(draws: Draws, grey: np.ndarray) -> np.ndarray:
    return grey + draws.uniform(-CHROMA, CHROMA, (3, 1, 1))


def _tint(kind: int, strength: float) -> np.ndarray:
    return _TINTS[kind % len(_TINTS)][:, None, None] * f32(strength)

"""Pictures of the built-in shapes: an object with two different ends before a coloured, textured background.

A class is a body, an unordered pair of two different end pieces, and a texture; so the two halves of every object
differ, and which end lies left says nothing about the class. The whole scene, light, background and
occluders included, is mirrored for half of the pictures: the distribution of each class is its own mirror image
(bilateral equivalence holds by construction). Colours of body, ends and place lean a little towards the class, as
they do in photographs, so that averages over few images are not blank.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fyi_bench.data.drawing import BODIES, ENDS, REACH, SIDE, Draws, f32

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

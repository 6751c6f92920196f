"""The pure augmentation operations against plain twins, and their derivatives."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from distill import augment_ops as ops
from distill.augment_ops import COLUMNS, OPERATIONS, AugmentStrength, Operation
from fyi_bench import rng

STRENGTH = AugmentStrength()
SHAPES = [(3, 8, 8), (1, 7, 7), (3, 6, 10)]


def images(n: int, shape: tuple[int, int, int], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn((n, *shape), generator=rng.stream(0, "images", n, *shape), dtype=torch.float64).to(dtype)


def draws(name: str, n: int, size: tuple[int, int]) -> torch.Tensor:
    u = torch.rand(n, COLUMNS, generator=rng.stream(1, name, n), dtype=torch.float64)
    return OPERATIONS.get(name).finish(u, size, STRENGTH)


def bilinear(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """One image [ch, H, W] sampled at matrix · q, pixel by pixel."""
    _, height, width = x.shape
    out = torch.zeros_like(x)
    for i in range(height):
        for j in range(width):
            q = torch.tensor([2 * j / (width - 1) - 1, 2 * i / (height - 1) - 1], dtype=x.dtype)
            px, py = ((matrix @ q) + 1) / 2 * torch.tensor([width - 1, height - 1])
            for row in range(height):
                for column in range(width):
                    weight = max(0.0, 1 - abs(float(px) - column)) * max(0.0, 1 - abs(float(py) - row))
                    out[:, i, j] += weight * x[:, row, column]
    return out


def plain_color(x: torch.Tensor, v: list[float]) -> torch.Tensor:
    x = x + (v[0] - 0.5)
    grey = sum(x[c] for c in range(x.shape[0])) / x.shape[0]
    x = (x - grey) * (2 * v[1]) + grey
    return (x - x.mean()) * (v[2] + 0.5) + x.mean()


def plain_crop(x: torch.Tensor, v: list[float]) -> torch.Tensor:
    out = torch.zeros_like(x)
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            row, column = i + int(v[0]), j + int(v[1])
            if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                out[:, i, j] = x[:, row, column]
    return out


def plain_cutout(x: torch.Tensor, v: list[float], share: float = 0.5) -> torch.Tensor:
    out = x.clone()
    tall, wide = int(x.shape[1] * share + 0.5), int(x.shape[2] * share + 0.5)
    for i in range(tall):
        for j in range(wide):
            row = min(max(int(v[0]) - tall // 2 + i, 0), x.shape[1] - 1)
            column = min(max(int(v[1]) - wide // 2 + j, 0), x.shape[2] - 1)
            out[:, row, column] = 0
    return out


def plain_flip(x: torch.Tensor, v: list[float]) -> torch.Tensor:
    return x[:, :, list(range(x.shape[2]))[::-1]] if v[0] < 0.5 else x


def plain_scale(x: torch.Tensor, v: list[float]) -> torch.Tensor:
    sx, sy = (u * (1.2 - 1 / 1.2) + 1 / 1.2 for u in v[:2])
    return bilinear(x, torch.tensor([[sx, 0], [0, sy]], dtype=x.dtype))


def plain_rotate(x: torch.Tensor, v: list[float]) -> torch.Tensor:
    angle = math.radians((v[0] - 0.5) * 30)
    cos, sin = math.cos(angle), math.sin(angle)
    return bilinear(x, torch.tensor([[cos, -sin], [sin, cos]], dtype=x.dtype))


def plain_zoom(x: torch.Tensor, v: list[float]) -> torch.Tensor:
    side = 0.8 + 0.45 * v[0]
    return bilinear(x, torch.tensor([[side, 0], [0, side]], dtype=x.dtype))


def plain_dc_scale(x: torch.Tensor, v: list[float]) -> torch.Tensor:
    channels, height, width = x.shape
    tall, wide = int(v[0]), int(v[1])
    side = max(tall, wide, height, width)
    canvas = torch.zeros(channels, side, side, dtype=x.dtype)
    row, column = (side - tall) // 2, (side - wide) // 2
    canvas[:, row : row + tall, column : column + wide] = F.interpolate(x[None], (tall, wide))[0]
    row, column = (side - height) // 2, (side - width) // 2
    return canvas[:, row : row + height, column : column + width]


def plain_dc_rotate(x: torch.Tensor, v: list[float]) -> torch.Tensor:
    cos, sin = math.cos(math.radians(v[0])), math.sin(math.radians(v[0]))
    return bilinear(x, torch.tensor([[cos, -sin], [sin, cos]], dtype=x.dtype))


PLAIN = {
    "dc-crop": plain_crop,
    "dc-scale": plain_dc_scale,
    "dc-rotate": plain_dc_rotate,
    "color": plain_color,
    "crop": plain_crop,
    "cutout": plain_cutout,
    "flip": plain_flip,
    "scale": plain_scale,
    "rotate": plain_rotate,
    "frepo-color": plain_color,
    "frepo-crop": plain_zoom,
    "frepo-cutout": lambda x, v: plain_cutout(x, v, 0.25),
}


def test_every_operation_has_a_plain_twin() -> None:
    assert set(PLAIN) == set(OPERATIONS.names())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", PLAIN)
def test_operation_is_its_plain_twin(name: str, shape: tuple[int, int, int]) -> None:
    x, values = images(5, shape), draws(name, 5, shape[1:])
    expected = torch.stack([PLAIN[name](image, row.tolist()) for image, row in zip(x, values, strict=True)])
    before = x.clone()
    torch.testing.assert_close(OPERATIONS.get(name).apply(x, values, STRENGTH), expected, rtol=0, atol=1e-12)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", PLAIN)
def test_one_row_serves_all_images(name: str) -> None:
    x, values = images(4, (3, 8, 8)), draws(name, 1, (8, 8))
    apply = OPERATIONS.get(name).apply
    assert torch.equal(apply(x, values, STRENGTH), apply(x, values.expand(4, -1), STRENGTH))


@pytest.mark.long
@pytest.mark.parametrize("name", PLAIN)
def test_first_and_second_derivatives(name: str) -> None:
    shape = (2, 5, 6)
    x, values = images(2, shape).requires_grad_(), draws(name, 2, shape[1:])

    def function(x: torch.Tensor) -> torch.Tensor:
        return OPERATIONS.get(name).apply(x, values, STRENGTH).sin()

    assert torch.autograd.gradcheck(function, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.parametrize("name", PLAIN)
def test_many_networks_at_once(name: str) -> None:
    """vmap over a leading dimension, values and gradients, is the loop over it."""
    x, values = images(6, (3, 6, 6)).view(2, 3, 3, 6, 6), draws(name, 6, (6, 6)).view(2, 3, -1)

    def loss(x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return OPERATIONS.get(name).apply(x, values, STRENGTH).pow(3).sum()

    gradients = torch.func.vmap(torch.func.grad(loss))(x, values)
    expected = torch.stack([torch.func.grad(loss)(a, b) for a, b in zip(x, values, strict=True)])
    torch.testing.assert_close(gradients, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(9, 9), (6, 11)])
@pytest.mark.parametrize("kind", ["scale", "rotate"])
def test_gathered_adjoint_is_the_scattered_one(kind: str, size: tuple[int, int]) -> None:
    """The form used on GPUs, run here on the CPU, against torch's own backward."""
    gradient = images(40, (2, *size))
    u = torch.rand(40, generator=rng.stream(2, kind), dtype=torch.float64)
    if kind == "rotate":
        angle, reach = (u - 0.5) * math.pi, math.sqrt(2)
        rows = (angle.cos(), -angle.sin(), angle.sin(), angle.cos())
    else:
        reach = 1.5
        rows = (u / 2 + 1 / reach, 0 * u, 0 * u, 1.4 - u / 2)
    matrices = torch.stack(rows, dim=1).view(-1, 2, 2)
    if kind == "rotate" and size[0] != size[1]:
        reach *= max(size) / min(size) * 1.2  # corners at ±1 on both sides: the map shears in pixels
    gathered = ops._collect(gradient, matrices, math.ceil(2 * reach))
    torch.testing.assert_close(gathered, ops._sample_back(gradient, matrices, 0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", PLAIN)
def test_types_are_kept(name: str, dtype: torch.dtype) -> None:
    x, values = images(4, (3, 8, 8), dtype), draws(name, 4, (8, 8))
    out = OPERATIONS.get(name).apply(x, values, STRENGTH)
    assert out.dtype == dtype
    exact = OPERATIONS.get(name).apply(x.double(), values, STRENGTH)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), exact, rtol=eps, atol=max(4 * eps, 1e-5))


@pytest.mark.parametrize(("side", "reach", "box"), [(32, 4, 16), (64, 8, 32), (28, 4, 14), (27, 3, 14), (10, 1, 5)])
def test_ranges_of_the_integers(side: int, reach: int, box: int) -> None:
    """Shifts reach ±s inclusive; centres 0 … side for even boxes, 0 … side - 1 for odd ones."""
    size = (side, side)
    assert ops.crop_reach(size, STRENGTH) == (reach, reach)
    assert ops.cutout_box(size, STRENGTH) == (box, box)
    shifts = draws("crop", 20_000, size)[:, :2]
    assert sorted(shifts.unique().tolist()) == list(range(-reach, reach + 1))
    centres = draws("cutout", 20_000, size)[:, :2]
    assert sorted(centres.unique().tolist()) == list(range(side + 1 - box % 2))
    ends = torch.tensor([[0.0] * COLUMNS, [1 - 2**-53] * COLUMNS], dtype=torch.float64)
    assert OPERATIONS.get("crop").finish(ends, size, STRENGTH)[:, 0].tolist() == [-reach, reach]
    assert OPERATIONS.get("cutout").finish(ends, size, STRENGTH)[:, 0].tolist() == [0, side - box % 2]


def test_ranges_of_dc() -> None:
    """Offsets 0 … 7 of a border of 4, sides of 0.8 to 1.2, whole degrees below 45."""
    found = {name: draws(name, 20_000, (28, 28))[:, 0].unique().tolist() for name in PLAIN if name.startswith("dc-")}
    assert found == {
        "dc-crop": list(range(-4, 4)), "dc-scale": list(range(22, 34)), "dc-rotate": list(range(-45, 45)),
    }  # fmt: skip


def test_strength_is_respected() -> None:
    x = images(3, (3, 8, 8))
    half = torch.full((1, COLUMNS), 0.5, dtype=torch.float64)
    torch.testing.assert_close(ops.rotate(x, half, AugmentStrength(rotate=90)), x, rtol=0, atol=1e-12)
    quarter = ops.rotate(x, torch.ones(1, 1, dtype=torch.float64), AugmentStrength(rotate=90))
    torch.testing.assert_close(quarter, x.rot90(1, (2, 3)), rtol=0, atol=1e-12)  # counter-clockwise
    assert torch.equal(ops.flip(x, half, AugmentStrength(prob_flip=0.0)), x)
    assert torch.equal(ops.flip(x, half, AugmentStrength(prob_flip=1.0)), x.flip(-1))
    assert ops.crop_reach((32, 48), AugmentStrength(crop_pad=0.25)) == (8, 12)
    assert float(ops.cutout(torch.ones(1, 1, 8, 8), half * 8, AugmentStrength(cutout=0.25)).sum()) == 64 - 4


def test_operation_states_its_columns() -> None:
    with pytest.raises(ValueError, match="1 to 3 draws"):
        Operation(4, ops.color)

"""The augmentation operations of the dataset-distillation literature, as pure functions of images and draws.

Formulae: differentiable siamese augmentation (Zhao and Bilen, ICML 2021), which took colour, crop and cutout
from DiffAugment (Zhao et al., NeurIPS 2020). Images are [N, ch, H, W] in the space the network sees; what an
operation uncovers is 0, in normalised space the mean colour.

An operation's draws are `values` [N, k], or [1, k] for one draw shared by all images: uniform numbers u in
[0, 1), or integers for crop and cutout. All operations are differentiable twice with respect to the images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fyi_bench.registry import Registry

COLUMNS = 3  # draws an operation may use per image; the colour operation needs three


@dataclass(frozen=True)
class AugmentStrength:
    """How strong each operation is; the defaults are those of every published setting.

    prob_flip: probability of a mirror. scale: sizes lie in (1/scale, scale). rotate: angles lie in
    (-rotate, rotate) degrees. crop_pad: largest shift, a share of the side. cutout: side of the box, a share
    of the side. brightness: width of the additive range. saturation: factors lie in (0, saturation).
    contrast: factors lie in (contrast, contrast + 1).
    """

    prob_flip: float = 0.5
    scale: float = 1.2
    rotate: float = 15.0
    crop_pad: float = 0.125
    cutout: float = 0.5
    brightness: float = 1.0
    saturation: float = 2.0
    contrast: float = 0.5


Size = tuple[int, int]


@dataclass(frozen=True)
class Operation:
    """One augmentation operation.

    apply(x, values, strength): the images changed by these draws.
    finish(u, size, strength): uniform numbers [..., COLUMNS] -> the operation's own draws, same shape; the
    columns beyond `columns` are not used. (H, W) is the size of the images the draws are for.
    """

    columns: int
    apply: Callable[[Tensor, Tensor, AugmentStrength], Tensor]
    finish: Callable[[Tensor, Size, AugmentStrength], Tensor] = lambda u, size, strength: u

    def __post_init__(self) -> None:
        if not 1 <= self.columns <= COLUMNS:
            raise ValueError(f"an operation uses 1 to {COLUMNS} draws per image, not {self.columns}")


# name (a part of a strategy string) -> operation
OPERATIONS: Registry[Operation] = Registry("augmentation operation", group="fyi_bench.augmentations", base=Operation)

_FREPO_CUTOUT = 0.25  # side of the box that FRePo's evaluation cuts out, of the image's


def brightness(x: Tensor, values: Tensor, strength: AugmentStrength) -> Tensor:
    """x + (u - 1/2) · brightness."""
    (u,) = _columns(x, values, 1)
    return x + (u - 0.5) * strength.brightness


def saturation(x: Tensor, values: Tensor, strength: AugmentStrength) -> Tensor:
    """Distance of every pixel from its mean over channels times u · saturation."""
    (u,) = _columns(x, values, 1)
    grey = x.mean(dim=1, keepdim=True)
    return (x - grey) * (u * strength.saturation) + grey


def contrast(x: Tensor, values: Tensor, strength: AugmentStrength) -> Tensor:
    """Distance from the image's mean times u + contrast."""
    (u,) = _columns(x, values, 1)
    mean = x.flatten(1).mean(dim=1).view(-1, 1, 1, 1)
    return (x - mean) * (u + strength.contrast) + mean


def color(x: Tensor, values: Tensor, strength: AugmentStrength) -> Tensor:
    """Brightness, saturation, contrast, in this order; values [N or 1, 3] hold the three u."""
    y = _wide(x)
    for column, operation in enumerate((brightness, saturation, contrast)):
        y = operation(y, values[:, column : column + 1], strength)
    return y.to(x.dtype)


def crop(x: Tensor, values: Tensor, strength: AugmentStrength) -> Tensor:
    """out[i, j] = x[i + ty, j + tx] with 0 outside; values hold the integers (ty, tx)."""
    offsets = values[:, :2].to(device=x.device, dtype=torch.int64)
    return _Linear.apply(x, offsets, _translate, _translate_back)


def crop_reach(size: Size, strength: AugmentStrength) -> Size:
    """Largest shift (rows, columns) of a crop in images of this size."""
    return tuple(int(side * strength.crop_pad + 0.5) for side in size)  # type: ignore[return-value]


def cutout(x: Tensor, values: Tensor, strength: AugmentStrength) -> Tensor:
    """A box set to 0; values hold the integers (oy, ox), the centre, and boxes are cut off at the border."""
    inside, size = [], (x.shape[-2], x.shape[-1])
    for column, (side, box) in enumerate(zip(size, cutout_box(size, strength), strict=True)):
        first = values[:, column : column + 1].to(device=x.device, dtype=torch.int64) - box // 2
        position = torch.arange(side, device=x.device)
        low, high = first.clamp(0, side - 1), (first + box - 1).clamp(0, side - 1)
        inside.append((position >= low) & (position <= high))
    rows, columns = inside
    return x.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


def small_cutout(x: Tensor, values: Tensor, strength: AugmentStrength) -> Tensor:
    """`cutout` of a box with a quarter of the side (FRePo)."""
    return cutout(x, values, replace(strength, cutout=_FREPO_CUTOUT))


def cutout_box(size: Size, strength: AugmentStrength) -> Size:
    """(height, width) of the box cut out of images of this size."""
    return tuple(int(side * strength.cutout + 0.5) for side in size)  # type: ignore[return-value]


def flip(x: Tensor, values: Tensor, strength: AugmentStrength) -> Tensor:
    """Mirrored along the width where u < prob_flip."""
    chosen = values[:, :1].to(device=x.device) < strength.prob_flip
    return torch.where(chosen.view(-1, 1, 1, 1), x.flip(-1), x)


def scale(x: Tensor, values: Tensor, strength: AugmentStrength) -> Tensor:
    """Zoom by u · (r - 1/r) + 1/r of the width and, independently, of the height; over 1 shrinks the picture."""
    low = 1 / strength.scale
    sx, sy = (u.flatten() * (strength.scale - low) + low for u in _columns(x, values, 2))
    zero = torch.zeros_like(sx)
    return resample(x, torch.stack((sx, zero, zero, sy), dim=1).view(-1, 2, 2), reach=max(strength.scale, 1.0))


def zoom(x: Tensor, values: Tensor, strength: AugmentStrength) -> Tensor:
    """Zoom by 0.8 + 0.45 u of both sides; over 1 shrinks the picture (FRePo)."""
    (u,) = _columns(x, values, 1)
    side = 0.8 + 0.45 * u.flatten()
    zero = torch.zeros_like(side)
    return resample(x, torch.stack((side, zero, zero, side), dim=1).view(-1, 2, 2), reach=1.25)


def rotate(x: Tensor, values: Tensor, strength: AugmentStrength) -> Tensor:
    """Turned by (u - 1/2) · 2 · rotate degrees, counter-clockwise as one looks at the picture."""
    (u,) = _columns(x, values, 1)
    angle = (u.flatten() - 0.5) * (2 * strength.rotate * math.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    return resample(x, torch.stack((cos, -sin, sin, cos), dim=1).view(-1, 2, 2), reach=math.sqrt(2))


def dc_scale(x: Tensor, values: Tensor, strength: AugmentStrength) -> Tensor:
    """Resized to (height, width) pixels, nearest pixel, then its middle; values hold these integers."""
    sizes = values[:, :2].to(device=x.device, dtype=torch.int64).clamp(min=1)
    canvas = sizes.amax(dim=1, keepdim=True).clamp(min=max(x.shape[-2:]))
    positions = []
    for size, side in zip(sizes.split(1, dim=1), x.shape[-2:], strict=True):
        place = torch.arange(side, device=x.device) + (canvas - side) // 2 - (canvas - size) // 2
        nearest = (place * (side / size.float())).long().clamp(max=side - 1)
        positions.append(torch.where((place >= 0) & (place < size), nearest, -1))
    rows, columns = torch.broadcast_tensors(positions[0].unsqueeze(2), positions[1].unsqueeze(1))
    return _gather(x, rows, columns)


def dc_rotate(x: Tensor, values: Tensor, strength: AugmentStrength) -> Tensor:
    """Turned by these degrees; values hold the integer."""
    (degrees,) = _columns(x, values, 1)
    angle = degrees.flatten() * (math.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    return resample(x, torch.stack((cos, -sin, sin, cos), dim=1).view(-1, 2, 2), reach=math.sqrt(2))


def resample(x: Tensor, matrices: Tensor, reach: float) -> Tensor:
    """Bilinear resampling about the centre: the output at position q is the input at matrix · q, 0 outside.

    matrices: [N, 2, 2], or [1, 2, 2] for all images, acting on (x to the right, y down), each from -1 to 1
    between the centres of the outermost pixels (square images: corner alignment makes no difference).
    reach: a bound on the sum of absolute values in each row of the inverse matrices (√2 for any rotation).
    """
    work = _wide(x)
    taps = math.ceil(2 * reach)
    matrices = matrices.to(device=work.device, dtype=work.dtype)
    return _Linear.apply(work, matrices, _sample, partial(_sample_back, taps=taps)).to(x.dtype)


def _finish_crop(u: Tensor, size: Size, strength: AugmentStrength) -> Tensor:
    """Integers from -reach to reach, both included."""
    reach = torch.tensor([*crop_reach(size, strength), 0], dtype=u.dtype)
    return _integers(u, 2 * reach + 1) - reach


def _finish_frepo_color(u: Tensor, size: Size, strength: AugmentStrength) -> Tensor:
    """Brightness within ± 0.25; factors of saturation and contrast exp(-0.25) to exp(0.25), evenly in logarithm."""
    factor = (0.25 * (2 * u - 1)).exp()
    shift = 0.5 + 0.5 * (u[..., 0] - 0.5) / strength.brightness
    saturated, contrasted = factor[..., 1] / strength.saturation, factor[..., 2] - strength.contrast
    return torch.stack((shift, saturated, contrasted), dim=-1)


def _finish_cutout(u: Tensor, size: Size, strength: AugmentStrength) -> Tensor:
    """Integers from 0 to the side, which is included only where the box is even."""
    box = cutout_box(size, strength)
    counts = [side + 1 - k % 2 for side, k in zip(size, box, strict=True)]
    return _integers(u, torch.tensor([*counts, 1], dtype=u.dtype))


def _finish_small_cutout(u: Tensor, size: Size, strength: AugmentStrength) -> Tensor:
    """`_finish_cutout` for a box with a quarter of the side."""
    return _finish_cutout(u, size, replace(strength, cutout=_FREPO_CUTOUT))


def _finish_dc_crop(u: Tensor, size: Size, strength: AugmentStrength) -> Tensor:
    """Integers from -4 to 3: the published code never draws the last offset."""
    return _integers(u, torch.full((), 8.0, dtype=u.dtype)) - 4


def _finish_dc_scale(u: Tensor, size: Size, strength: AugmentStrength) -> Tensor:
    """Whole pixels: 0.8 to 1.2 of each side, rounded down."""
    return ((0.8 + 0.4 * u) * torch.tensor([*size, 0], dtype=u.dtype)).floor()


def _finish_dc_rotate(u: Tensor, size: Size, strength: AugmentStrength) -> Tensor:
    """Whole degrees from -45 to 44."""
    return _integers(u, torch.full((), 90.0, dtype=u.dtype)) - 45


def _integers(u: Tensor, counts: Tensor) -> Tensor:
    """Uniform integers 0 .. counts - 1 from uniform u."""
    return torch.minimum((u * counts).floor(), counts - 1)


def _columns(x: Tensor, values: Tensor, count: int) -> tuple[Tensor, ...]:
    """The first draws as [N or 1, 1, 1, 1] in the type and on the device of the computation."""
    wide = torch.float32 if x.dtype in _HALF else x.dtype
    return tuple(values[:, k].to(device=x.device, dtype=wide).view(-1, 1, 1, 1) for k in range(count))


_HALF = (torch.bfloat16, torch.float16)


def _wide(x: Tensor) -> Tensor:
    """Half-precision images as float32: positions and means need more digits than they have."""
    return x.float() if x.dtype in _HALF else x


class _Linear(torch.autograd.Function):
    """A linear map of images whose derivative is its stated adjoint, as often as one asks.

    The adjoints of crop and resampling are written as gathers: unlike torch's own (scattered additions) they
    give the same bits in every run on a GPU, and they have derivatives themselves.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, parameters: Tensor, function: Callable, adjoint: Callable) -> Tensor:
        return function(x, parameters)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, parameters, ctx.function, ctx.adjoint = inputs
        ctx.save_for_backward(parameters)
        ctx.save_for_forward(parameters)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (parameters,) = ctx.saved_tensors
        return _Linear.apply(gradient, parameters, ctx.adjoint, ctx.function), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: object) -> Tensor:
        (parameters,) = ctx.saved_tensors
        return _Linear.apply(tangent, parameters, ctx.function, ctx.adjoint)


def _gather(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """x[n, :, rows, columns] for int64 [N or 1, H, W] positions; 0 where a position lies outside."""
    n, channels, height, width = x.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    flat = (rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)).flatten(1).unsqueeze(1)
    picked = x.flatten(2).gather(2, flat.expand(n, channels, -1)).unflatten(2, rows.shape[1:])
    return picked.masked_fill(~inside.unsqueeze(1), 0)


def _translate(x: Tensor, offsets: Tensor) -> Tensor:
    rows = torch.arange(x.shape[2], device=x.device) + offsets[:, :1]
    columns = torch.arange(x.shape[3], device=x.device) + offsets[:, 1:]
    rows, columns = torch.broadcast_tensors(rows.unsqueeze(2), columns.unsqueeze(1))
    return _gather(x, rows, columns)


def _translate_back(gradient: Tensor, offsets: Tensor) -> Tensor:
    return _translate(gradient, -offsets)


def _sample(x: Tensor, matrices: Tensor) -> Tensor:
    grid = _grid(matrices, x.shape)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def _grid(matrices: Tensor, shape: torch.Size) -> Tensor:
    """Positions [N, H, W, 2] from -1 to 1 that each output pixel looks at."""
    n, _, height, width = shape
    x, y = (torch.linspace(-1, 1, side, device=matrices.device, dtype=matrices.dtype) for side in (width, height))
    a, b, c, d = (m.view(-1, 1, 1) for m in matrices.flatten(1).unbind(1))
    y = y.unsqueeze(1)
    return torch.stack((a * x + b * y, c * x + d * y), dim=3).expand(n, -1, -1, -1)


def _sample_back(gradient: Tensor, matrices: Tensor, taps: int) -> Tensor:
    """Adjoint of `_sample`. torch's own is the faster one on a CPU, where it gives the same bits in every run."""
    if gradient.device.type != "cpu":
        return _collect(gradient, matrices, taps)
    grid = _grid(matrices, gradient.shape)
    back = torch.ops.aten.grid_sampler_2d_backward(gradient, gradient, grid, 0, 0, True, [True, False])
    return back[0]


def _collect(gradient: Tensor, matrices: Tensor, taps: int) -> Tensor:
    """Adjoint of `_sample` by gathering: an input pixel collects from the outputs whose footprint holds it.

    Those outputs lie within one pixel of it after the map, so around its preimage, at most `taps` a direction.
    """
    height, width = gradient.shape[-2:]
    x, y = _centred(width, gradient), _centred(height, gradient).unsqueeze(1)
    a, b, c, d = (m.view(-1, 1, 1) for m in matrices.flatten(1).unbind(1))
    b, c = b * ((width - 1) / (height - 1)), c * ((height - 1) / (width - 1))  # the same map in pixels
    determinant = a * d - b * c
    first_x = ((d * x - b * y - d.abs() - b.abs()) / determinant - x[0]).floor() + 1
    first_y = ((a * y - c * x - a.abs() - c.abs()) / determinant - y[0]).floor() + 1
    total = torch.zeros_like(gradient)
    for dy in range(taps):
        for dx in range(taps):
            column, row = first_x + dx, first_y + dy
            qx, qy = column + x[0], row + y[0]
            weight = _tent(a * qx + b * qy - x) * _tent(c * qx + d * qy - y)
            total = total + _gather(gradient, row.long(), column.long()) * weight.unsqueeze(1)
    return total


def _centred(side: int, like: Tensor) -> Tensor:
    return torch.arange(side, device=like.device, dtype=like.dtype) - (side - 1) / 2


def _tent(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp(min=0)


OPERATIONS.register("color", Operation(3, color))
OPERATIONS.register("crop", Operation(2, crop, _finish_crop))
OPERATIONS.register("cutout", Operation(2, cutout, _finish_cutout))
OPERATIONS.register("flip", Operation(1, flip))
OPERATIONS.register("scale", Operation(2, scale))
OPERATIONS.register("rotate", Operation(1, rotate))
# those of DC's own evaluation, of fixed strength (the dispatcher `dc`). What they uncover is 0 here and for `scale`
# there; its `crop` and `rotate` fill in the batch's mean, and its `rotate` is a cubic spline.
OPERATIONS.register("dc-crop", Operation(2, crop, _finish_dc_crop))
OPERATIONS.register("dc-scale", Operation(2, dc_scale, _finish_dc_scale))
OPERATIONS.register("dc-rotate", Operation(1, dc_rotate, _finish_dc_rotate))
# those of FRePo's evaluation that are of another strength (the dispatcher `frepo`)
OPERATIONS.register("frepo-color", Operation(3, color, _finish_frepo_color))
OPERATIONS.register("frepo-crop", Operation(1, zoom))
OPERATIONS.register("frepo-cutout", Operation(2, small_cutout, _finish_small_cutout))

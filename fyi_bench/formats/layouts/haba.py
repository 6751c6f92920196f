"""HaBa: bases images_<it|best>.pt (no labels) and hallucinators styles_<it>.pt or weights_best.pt, decoded.

Liu et al., "Dataset Distillation via Factorization", NeurIPS 2022. A hallucinator is a 3x3 convolution without
padding, a scale and a shift for every pixel and channel, and a 3x3 transposed convolution back; each of the five turns
each base into one image, so n bases a class become 5n images.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fyi_bench.errors import DataError
from fyi_bench.formats.base import Format, Options, Raw, register
from fyi_bench.formats.layouts._shared import is_array, need
from fyi_bench.formats.pixels import prepare, to_tensor
from fyi_bench.formats.source import FOLDER, Source

_BASES = re.compile(r"images_(best|\d+)\.pt")
_KEY = re.compile(r"(?:module\.)?(\d+)\.(.+)")
_KERNEL = 3
_BACK, _SHIFT = re.compile(r"dec|trans|up|back|out"), re.compile(r"shift|bias|beta")
_CHUNK = 512


@dataclass(frozen=True)
class Hallucinator:
    """Weights [mid, ch, 3, 3] and biases of both convolutions; scale and shift [mid, H - 2, W - 2]."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    scale: torch.Tensor
    shift: torch.Tensor
    back_weight: torch.Tensor
    back_bias: torch.Tensor | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Bases [N, ch, H, W] -> images of the same shape."""
        hidden = F.conv2d(x, self.weight, self.bias) * self.scale + self.shift
        return F.conv_transpose2d(hidden, self.back_weight, self.back_bias)


def _files(source: Source) -> tuple[str, str] | None:
    """Names of the bases and of the hallucinators, or None where there are none."""
    if source.kind == FOLDER:
        found = sorted(m[1] for name in source.names if (m := _BASES.fullmatch(name)))
        tags = sorted(found, key=lambda tag: (tag == "best", int(tag) if tag != "best" else 0), reverse=True)
    else:
        named = re.fullmatch(r"(?:images|styles|weights)_(best|\d+)\.pt", source.name)
        tags = [named[1]] if named else []
    for tag in tags:
        styles = next((name for name in (f"weights_{tag}.pt", f"styles_{tag}.pt") if source.has(name)), "")
        if styles and source.has(f"images_{tag}.pt"):
            return f"images_{tag}.pt", styles
    return None


def recognise(source: Source) -> str:
    found = _files(source)
    return f"bases {found[0]} and hallucinators {found[1]}" if found else ""


@torch.no_grad()
def read(source: Source, options: Options) -> Raw:
    """The decoded set: the five images of a base one after the other, bases class by class."""
    found = _files(source)
    need(found is not None, source, "a folder with images_<it|best>.pt and weights_<it|best>.pt or styles_<it>.pt")
    pixels = prepare(source.content(found[0]), options.max_bytes)
    bases = pixels.images.float()
    state = source.content(found[1])
    need(isinstance(state, dict), source, f"complete: {found[1]} holds no weights", "Copy that file again.")
    models = hallucinators(state, tuple(bases.shape[1:]), options)
    decoded = torch.stack([torch.cat([model(x) for x in bases.split(_CHUNK)]) for model in models], dim=1)
    raw = Raw(decoded.flatten(0, 1), method="haba")
    raw.guesses.append(f"{len(bases)} bases decoded by {len(models)} hallucinators: {len(raw.images)} images")
    stored = sum(t.nbytes for t in state.values() if isinstance(t, torch.Tensor))
    raw.facts |= {"bases": len(bases), "hallucinators": len(models), "stored_bytes": bases.nbytes + stored}
    if pixels.per_class:
        raw.labels = torch.arange(len(bases) // pixels.per_class).repeat_interleave(pixels.per_class * len(models))
    return raw


def hallucinators(state: dict, shape: tuple[int, ...], options: Options) -> list[Hallucinator]:
    """The models of a state dictionary `<number>.<name>` for bases of this shape (ch, H, W); DataError otherwise."""
    groups: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in state.items():
        match = _KEY.fullmatch(str(key))
        if match and is_array(value):
            groups.setdefault(int(match[1]), {})[match[2]] = to_tensor(value, f"weights '{key}'", options.max_bytes)
    models = [_model(groups[number], shape) for number in sorted(groups)]
    if not models:
        raise DataError(f"No hallucinators in the file (keys {', '.join(map(str, list(state)[:4]))}).\nName another.")
    return models


def _model(parts: dict[str, torch.Tensor], shape: tuple[int, ...]) -> Hallucinator:
    channels, height, width = shape
    kernels = [name for name, t in parts.items() if t.ndim == 4 and tuple(t.shape[2:]) == (_KERNEL, _KERNEL)]
    inner = (height - _KERNEL + 1, width - _KERNEL + 1)
    planes = [name for name, t in parts.items() if t.ndim >= 3 and tuple(t.shape[-2:]) == inner and name not in kernels]
    if len(kernels) != 2 or len(planes) != 2 or any(parts[name].shape[1] != channels for name in kernels):
        listed = ", ".join(f"{name} {list(t.shape)}" for name, t in parts.items())
        raise DataError(
            f"These are not HaBa's hallucinators for {height}x{width} bases: {listed}.\n"
            "Known are two 3x3 convolutions with a scale and a shift for every pixel between them."
        )
    forth, back = sorted(kernels, key=lambda name: bool(_BACK.search(name.lower())))
    scale, shift = sorted(planes, key=lambda name: bool(_SHIFT.search(name.lower())))
    bias = {name: parts.get(name.removesuffix("weight") + "bias") for name in kernels}
    middle = [parts[name].float().reshape(-1, *inner) for name in (scale, shift)]
    weights = parts[forth].float(), bias[forth], *middle, parts[back].float(), bias[back]
    return Hallucinator(*(t if t is None else t.float() for t in weights))


register(Format("haba", "HaBa: images_*.pt (bases) and weights_best.pt or styles_*.pt", recognise, read, 15, "mtt"))

"""HaBa: bases images_<it|best>.pt (no labels) and hallucinators styles_<it>.pt or weights_best.pt, decoded.

Liu et al., "Dataset Distillation via Factorization", NeurIPS 2022. A hallucinator is a 3x3 convolution without
padding, a scale and a shift for every pixel and channel, and a 3x3 transposed convolution back; each of the five turns
each base into one image, so n bases a class become 5n images, of which a use shows one a base, as published.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
import torch.nn.functional as F

from fyi_bench.errors import DataError
from fyi_bench.formats.arrays import dims, to_tensor
from fyi_bench.formats.base import FORMATS, Format, Options, Raw
from fyi_bench.formats.input_files import FOLDER, InputFiles
from fyi_bench.formats.layouts.mtt import newest
from fyi_bench.formats.pixels import prepare

_FILE = re.compile(r"(?:images|styles|weights)_(best|\d+)\.pt")
_KEY = re.compile(r"(?:module\.)?(\d+)\.(.+)")
_KERNEL = 3
_BACK, _SHIFT = re.compile(r"dec|trans|up|back|out"), re.compile(r"shift|bias|beta")
_CHUNK = 512
Hallucinator = Callable[[torch.Tensor], torch.Tensor]  # bases [N, ch, H, W] -> images of the same shape


def _names(files: InputFiles) -> tuple[str, str] | None:
    """Names of the bases and of the hallucinators, the best or latest of a folder; None where there are none."""
    there = files.names if files.kind == FOLDER else [files.name]
    tags = {match[1] for name in there if (match := _FILE.fullmatch(name))}
    pairs = {tag: [(f"images_{tag}.pt", f"{what}_{tag}.pt") for what in ("weights", "styles")] for tag in tags}
    whole = {tag: next((pair for pair in both if files.has(*pair)), None) for tag, both in pairs.items()}
    return whole.get(newest([tag for tag, pair in whole.items() if pair]))


def hallucinators(state: dict, shape: tuple[int, ...], options: Options) -> list[Hallucinator]:
    """The models of a state dictionary `<number>.<name>` for bases of this shape (ch, H, W); DataError otherwise."""
    groups: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in state.items():
        match = _KEY.fullmatch(str(key))
        if match and dims(value) >= 0:
            groups.setdefault(int(match[1]), {})[match[2]] = to_tensor(value, f"weights '{key}'", options.max_bytes)
    if not groups:
        raise DataError(f"No hallucinators in the file (keys {', '.join(map(str, list(state)[:4]))}).\nName another.")
    return [_model(groups[number], shape) for number in sorted(groups)]


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
    planes.sort(key=lambda name: bool(_SHIFT.search(name.lower())))
    parts = {name: t.float() for name, t in parts.items()}
    into, out = (parts.get(name.removesuffix("weight") + "bias") for name in (forth, back))
    scale, shift = (parts[name].reshape(-1, *inner) for name in planes)
    return lambda x: F.conv_transpose2d(F.conv2d(x, parts[forth], into) * scale + shift, parts[back], out)


@FORMATS.register("haba")
class HaBa(Format):
    """HaBa: images_*.pt (bases) and weights_best.pt or styles_*.pt"""

    rank, family = 15, "mtt"

    def looks(self, files: InputFiles) -> str:
        names = _names(files)
        return f"bases {names[0]} and hallucinators {names[1]}" if names else ""

    @torch.no_grad()
    def read(self, files: InputFiles, options: Options) -> Raw:
        """The decoded set: the five images of a base one after the other, bases class by class."""
        names = files.need(
            _names(files), "a folder with images_<it|best>.pt and weights_<it|best>.pt or styles_<it>.pt"
        )
        pixels = prepare(files.content(names[0]), options.max_bytes)
        bases, state = pixels.images.float(), files.content(names[1])
        files.need(isinstance(state, dict), f"complete: {names[1]} holds no weights", "Copy that file again.")
        models = hallucinators(state, tuple(bases.shape[1:]), options)
        decoded = torch.stack([torch.cat([model(x) for x in bases.split(_CHUNK)]) for model in models], dim=1)
        raw = Raw(decoded.flatten(0, 1), method="haba", variants=len(models))
        raw.guesses.append(f"{len(bases)} bases decoded by {len(models)} hallucinators: {len(raw.images)} images")
        stored = sum(t.nbytes for t in state.values() if isinstance(t, torch.Tensor))
        raw.facts = {"bases": len(bases), "hallucinators": len(models), "stored_bytes": bases.nbytes + stored}
        if pixels.per_class:
            raw.labels = torch.arange(len(bases) // pixels.per_class).repeat_interleave(pixels.per_class * len(models))
        return raw

"""HaBa: bases images_<it|best>.pt (no labels) and hallucinators styles_<it>.pt or weights_best.pt.

Liu et al., "Dataset Distillation via Factorization", NeurIPS 2022. A hallucinator is a 3x3 convolution without
padding, a scale and a shift for every pixel and channel, and a 3x3 transposed convolution back; each use of a base
draws one of them, as published.
"""

from __future__ import annotations

import re

import torch

from distill.decoders.hallucinators import Hallucinators
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


def _names(files: InputFiles) -> tuple[str, str] | None:
    """Names of the bases and of the hallucinators, the best or latest of a folder; None where there are none."""
    there = files.names if files.kind == FOLDER else [files.name]
    tags = {match[1] for name in there if (match := _FILE.fullmatch(name))}
    pairs = {tag: [(f"images_{tag}.pt", f"{what}_{tag}.pt") for what in ("weights", "styles")] for tag in tags}
    whole = {tag: next((pair for pair in both if files.has(*pair)), None) for tag, both in pairs.items()}
    return whole.get(newest([tag for tag, pair in whole.items() if pair]))


def hallucinators(state: dict, bases: torch.Tensor, options: Options) -> Hallucinators:
    """The decoder of a state dictionary `<number>.<name>` for bases [N, ch, H, W]; DataError otherwise."""
    groups: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in state.items():
        match = _KEY.fullmatch(str(key))
        if match and dims(value) >= 0:
            groups.setdefault(int(match[1]), {})[match[2]] = to_tensor(value, f"weights '{key}'", options.max_bytes)
    if not groups:
        raise DataError(f"No hallucinators in the file (keys {', '.join(map(str, list(state)[:4]))}).\nName another.")
    models = [_model(groups[number], tuple(bases.shape[1:])) for number in sorted(groups)]
    tensors = {name: torch.stack([model[name] for model in models]) for name in Hallucinators.needs}
    return Hallucinators((tensors["back.bias"].shape[1], *bases.shape[2:]), tensors)


def _model(parts: dict[str, torch.Tensor], shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """One hallucinator by the names of the decoder; parts go by their shapes, and by words in their names."""
    channels, height, width = shape
    kernels = [name for name, t in parts.items() if t.ndim == 4 and tuple(t.shape[2:]) == (_KERNEL, _KERNEL)]
    inner = (height - _KERNEL + 1, width - _KERNEL + 1)
    planes = [name for name, t in parts.items() if t.ndim >= 3 and tuple(t.shape[-2:]) == inner and name not in kernels]
    kernels.sort(key=lambda name: bool(_BACK.search(name.lower())))
    planes.sort(key=lambda name: bool(_SHIFT.search(name.lower())))
    whole = len(kernels) == 2 and len(planes) == 2 and parts[kernels[0]].shape[1] == channels
    middle = parts[kernels[0]].shape[0] if whole else 0
    sizes = {parts[name].numel() for name in planes}
    if not whole or parts[kernels[1]].shape[0] != middle or sizes != {middle * inner[0] * inner[1]}:
        listed = ", ".join(f"{name} {list(t.shape)}" for name, t in parts.items())
        raise DataError(
            f"These are not HaBa's hallucinators for {height}x{width} bases: {listed}.\n"
            "Known are two 3x3 convolutions with a scale and a shift for every pixel between them."
        )
    forth, back = (parts[name].float() for name in kernels)
    into, out = (parts.get(name.removesuffix("weight") + "bias") for name in kernels)
    return {
        "forth.weight": forth,
        "forth.bias": torch.zeros(middle) if into is None else into.float(),
        "scale": parts[planes[0]].float().reshape(middle, *inner),
        "shift": parts[planes[1]].float().reshape(middle, *inner),
        "back.weight": back,
        "back.bias": torch.zeros(back.shape[1]) if out is None else out.float(),
    }


@FORMATS.register("haba")
class HaBa(Format):
    """HaBa: images_*.pt (bases) and weights_best.pt or styles_*.pt"""

    rank, family = 15, "mtt"

    def looks(self, files: InputFiles) -> str:
        names = _names(files)
        return f"bases {names[0]} and hallucinators {names[1]}" if names else ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """Bases as rows, class by class, and the hallucinators as their decoder."""
        names = files.need(
            _names(files), "a folder with images_<it|best>.pt and weights_<it|best>.pt or styles_<it>.pt"
        )
        pixels = prepare(files.content(names[0]), options.max_bytes)
        bases, state = pixels.images.float(), files.content(names[1])
        files.need(isinstance(state, dict), f"complete: {names[1]} holds no weights", "Copy that file again.")
        decoder = hallucinators(state, bases, options)
        raw = Raw(method="haba").from_rows(decoder, bases)
        raw.guesses.append(f"{len(bases)} bases, each shown by one of {decoder.variants} hallucinators at a use")
        if pixels.per_class:
            raw.labels = torch.arange(len(bases) // pixels.per_class).repeat_interleave(
                pixels.per_class * decoder.variants
            )
        return raw

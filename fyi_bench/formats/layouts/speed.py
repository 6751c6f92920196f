"""SPEED: tokens saet_<it|best>.pt, sparse codes scm_*.pt, the decoder freenet_*.pt and the step size syn_lr_*.pt.

Wei et al., "Sparse Parameterization for Epitomic Dataset Distillation", NeurIPS 2023. Images class by class, no labels.
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch

from distill.decoders.epitomes import Epitomes
from fyi_bench.errors import DataError
from fyi_bench.formats.arrays import scalar, to_tensor
from fyi_bench.formats.base import FORMATS, Format, Options, Raw
from fyi_bench.formats.input_files import FOLDER, InputFiles
from fyi_bench.formats.layouts.mtt import newest
from fyi_bench.formats.opening import load_torch
from fyi_bench.formats.pickle_scan import SPARSE_NAMES

_FILE = re.compile(r"(?:saet|scm|freenet|syn_lr)_(best|\d+)\.pt")
_KEY = re.compile(r"(?:module\.)?decoder_blocks\.(\d+)\.(norm1|mhsc\.proj|norm2|mlp\.fc1|mlp\.fc2)\.(weight|bias)")
_NAMES = {"mhsc.proj": "mix", "mlp.fc1": "mlp1", "mlp.fc2": "mlp2"}
_COLOURS = 3  # the authors' decoder has no other


def _tag(files: InputFiles) -> str:
    """Of the best or latest set of a folder, or of the file that was named."""
    there = files.names if files.kind == FOLDER else [files.name]
    tags = {match[1] for name in there if (match := _FILE.fullmatch(name))}
    return newest([tag for tag in tags if files.has(*(f"{part}_{tag}.pt" for part in ("saet", "scm", "freenet")))])


@FORMATS.register("speed")
class SPEED(Format):
    """SPEED: saet_*.pt, scm_*.pt, freenet_*.pt, syn_lr_*.pt"""

    rank, family = 13, "mtt"

    def looks(self, files: InputFiles) -> str:
        tag = _tag(files)
        return f"tokens saet_{tag}.pt, codes scm_{tag}.pt and their decoder" if tag else ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """Codes as rows, tokens and layers as their decoder."""
        tag = files.need(_tag(files), "a folder with saet_<it|best>.pt, scm_… and freenet_…")
        tokens = to_tensor(files.content(f"saet_{tag}.pt"), "tokens", options.max_bytes).float()
        stored = load_torch(files.used(files.folder / f"scm_{tag}.pt"), options.max_bytes, SPARSE_NAMES)
        codes = _dense(stored, options.max_bytes).float()
        layers = _layers(files.content(f"freenet_{tag}.pt"), options.max_bytes)
        if codes.ndim != 4 or tokens.ndim != 2 or codes.shape[3] != len(tokens) or tokens.shape[1] % codes.shape[1]:
            raise DataError(
                f"Tokens {list(tokens.shape)} and codes {list(codes.shape)} do not go together.\nCopy the files again."
            )
        numbers, positions = layers["patch.weight"].shape[0], codes.shape[2]
        patch = math.isqrt(numbers // _COLOURS)
        side = math.isqrt(positions) * patch
        if patch**2 * _COLOURS != numbers or side**2 != positions * patch**2:
            raise DataError(f"{positions} patches of {numbers} numbers make no square image.\nCopy the files again.")
        kept = int((codes != 0).flatten(2).sum(2).max())
        decoder = Epitomes(
            (_COLOURS, side, side), {"tokens": tokens, **layers}, {"patch": patch, "top_k": max(kept, 1)}
        )
        raw = Raw(method="speed")
        if files.has(f"syn_lr_{tag}.pt"):
            raw.lr = scalar(files.content(f"syn_lr_{tag}.pt"))
        raw.guesses.append(f"{len(codes)} images of {len(tokens)} tokens, {kept} codes an image and head")
        return raw.from_rows(decoder, codes)


def _dense(value: Any, budget: int) -> torch.Tensor:
    """A sparse tensor with its zeros, its places checked before they are used."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.sparse_coo:
        return to_tensor(value, "codes", budget)
    places, numbers, size = value._indices(), value._values(), torch.tensor(value.shape)
    check = f"The codes are a sparse tensor {list(value.shape)} that is not whole.\nCopy the file again."
    if numbers.ndim != 1 or len(places) != len(size) or places.shape[1:] != numbers.shape:
        raise DataError(check)
    if places.numel() and (int(places.min()) < 0 or bool((places >= size.unsqueeze(1)).any())):
        raise DataError(check)
    check_size_of = math.prod(value.shape) * numbers.element_size()
    if check_size_of > budget:
        raise DataError(f"The codes would take {check_size_of:,} bytes.\nCheck the file, or raise --max-bytes.")
    return torch.sparse_coo_tensor(places, numbers.detach(), tuple(value.shape), check_invariants=True).to_dense()


def _layers(state: Any, budget: int) -> dict[str, torch.Tensor]:
    """The layers of the authors' decoder by the names they have here; DataError for another decoder."""
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items() if isinstance(state, dict) else ():
        name = str(key)
        if match := _KEY.fullmatch(name):
            name = f"{match[1]}.{_NAMES.get(match[2], match[2])}.{match[3]}"
        elif name.removeprefix("module.").startswith("decoder_pred."):
            name = "patch." + name.rpartition(".")[2]
        else:
            raise DataError(f"'{key}' is no layer of SPEED's decoder.\nName the file freenet_….pt that its code wrote.")
        found[name] = to_tensor(value, f"weights '{key}'", budget).float()
    weight = found.get("patch.weight")
    if weight is None or weight.ndim != 2 or "patch.bias" not in found or "0.mix.weight" not in found:
        raise DataError("The decoder lacks layers.\nCopy the file freenet_….pt again.")
    return found

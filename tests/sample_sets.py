"""Small condensed sets with the facts that real ones carry, for the tests of what people see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from distill.image_set import ImageSet
from distill.spaces import NormalizedSpace
from fyi_bench import rng

SPACE = NormalizedSpace((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
NAMES = ("cat", "dog", "ship")


def image_set(method: str, flip: str, ipc: int = 2, size: int = 8, seed: int = 0, **provenance: Any) -> ImageSet:
    """Three classes of coloured noise; every image has its own mean, so that places can be told."""
    n = len(NAMES) * ipc
    noise = torch.rand(n, 3, size, size, generator=rng.stream(seed, method, flip)) * 0.2
    pixels = noise + torch.linspace(0.1, 0.7, n).view(n, 1, 1, 1)
    facts = {"method": method, "flip": flip, "ipc": ipc, "seed": seed, "data_digest": "0123456789abcdef"}
    facts |= {"recipe": {"lr_img": 1.0, "model": "convnet"}, "numerics": {"engine": 1}}
    if method != "random":
        scale = 1.0 if flip == "none" else 0.7
        facts |= {"loss_every": 5, "loss_curve": [scale * 30 / (k + 1) + 0.5 for k in range(40)], "iterations": 200}
    labels = torch.arange(len(NAMES)).repeat_interleave(ipc)
    return ImageSet(SPACE.encode(pixels), labels, SPACE, len(NAMES), NAMES, provenance=facts | provenance)


def with_sets(record: dict[str, Any], folder: Path, **more: Any) -> dict[str, Any]:
    """The record with a set saved for each arm below the folder, `more` as for `image_set`."""
    for number, arm in enumerate(record["arms"]):
        place = folder / f"set-{number}" / "set.safetensors"
        found = image_set(arm["method"], arm["flip"], **more)
        arm |= {"set": str(found.save(place, preview=False)), "set_digest": found.digest}
    return record

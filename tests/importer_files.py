"""Tiny condensed sets, written in the layouts of others by what is known of those layouts."""

from __future__ import annotations

import functools
import io
import os
import pickle
from pathlib import Path

import torch
from PIL import Image

from distill.spaces import NormalizedSpace

CIFAR10 = NormalizedSpace((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
CIFAR100 = NormalizedSpace((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762))


@functools.cache
def pictures(count: int = 20, channels: int = 3, size: int = 32, seed: int = 0) -> torch.Tensor:
    """Smooth pictures in [0, 1], float32 [count, channels, size, size]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 5, 5, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    return (fine - fine.amin()) / (fine.amax() - fine.amin())


def normalised(count: int = 20, space: NormalizedSpace = CIFAR10, seed: int = 0) -> torch.Tensor:
    """The same pictures, per channel (x - mean) / std."""
    return space.encode(pictures(count, seed=seed))


@functools.cache
def whitened(count: int = 20, size: int = 32) -> torch.Tensor:
    """Noise with the deviation that ZCA of CIFAR leaves, neighbours uncorrelated."""
    return 0.26 * torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def labels(count: int = 20, classes: int = 10) -> torch.Tensor:
    """Class-major int64 labels."""
    return torch.arange(classes).repeat_interleave(count // classes)


def dc_file(folder: Path, name: str = "res_DSA_CIFAR10_ConvNet_2ipc.pt", experiments: int = 2, **saving) -> Path:
    """DC's layout: several experiments, and accuracies as Python numbers."""
    data = [[normalised(seed=i), labels()] for i in range(experiments)]
    torch.save({"data": data, "accs_all_exps": {"ConvNet": [0.25, 0.35]}}, folder / name, **saving)
    return folder / name


def mtt_folder(folder: Path, images: torch.Tensor, targets: torch.Tensor, tag: str = "best", prefix: str = "") -> Path:
    """A pair of files images_<tag>.pt and labels_<tag>.pt."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(images, folder / f"{prefix}images_{tag}.pt")
    torch.save(targets, folder / f"{prefix}labels_{tag}.pt")
    return folder


def png(image: torch.Tensor) -> bytes:
    """PNG bytes of a float picture [ch, H, W] in [0, 1]."""
    levels = (image * 255).round().to(torch.uint8)
    buffer = io.BytesIO()
    array = levels[0].numpy() if len(levels) == 1 else levels.permute(1, 2, 0).numpy()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def picture_folder(folder: Path, names: list[str], each: int = 2, channels: int = 3, size: int = 8) -> torch.Tensor:
    """`<class>/<n>.png`; the pixels as uint8 in the order of `names`."""
    images = pictures(len(names) * each, channels, size)
    for i, image in enumerate(images):
        path = folder / names[i // each] / f"{i % each}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(image))
    return (images * 255).round().to(torch.uint8)


class Trap:
    """Runs a shell command when it is unpickled by a reader that runs what a pickle asks for."""

    def __init__(self, sentinel: Path):
        self.sentinel = sentinel

    def __reduce__(self):
        return os.system, (f"touch {self.sentinel}",)


def trap_bytes(sentinel: Path, protocol: int = 2) -> bytes:
    """A pickle that makes the sentinel file when it is opened carelessly."""
    return pickle.dumps(Trap(sentinel), protocol=protocol)

"""One sample of every layout that is read, as its makers save it, for the tests that every layout must pass.

A new layout has to be added to `SAMPLES`; `test_layouts.py` fails until it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from test_formats_decoded import speed_folder
from test_formats_hub import NAMES, rows, save_to_disk
from test_importers import hallucinator_weights

from distill.image_set import ImageSet
from distill.spaces import NormalizedSpace, PixelSpace
from fyi_bench.formats import export_set
from importer_files import CIFAR10, labels, mtt_folder, pictures, png

COUNT, CLASSES = 20, 10
# in no order, so that labels that are not read are seen
SHUFFLED = labels()[torch.randperm(COUNT, generator=torch.Generator().manual_seed(5))]


@dataclass(frozen=True)
class Sample:
    """write(folder, images, labels) saves pixels float [N, ch, H, W] in [0, 1] in a layout, and returns what is named.

    close: how far pixels may be from those that were written; None where they are made of something else. ordered: the
    labels are class by class, as the layout stores none. exact: the labels come back as they are, not their largest
    entries. pair: images and labels are tensors that can be of different numbers.
    """

    write: Callable[[Path, torch.Tensor, torch.Tensor], Path]
    close: float | None = 2e-6
    ordered: bool = False
    pair: bool = True
    exact: bool = True


def _one_hot(y: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(y, CLASSES).float()


def _normal(x: torch.Tensor) -> torch.Tensor:
    return CIFAR10.encode(x)


def _saved(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def _arrays(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def _own(folder: Path, x: torch.Tensor, y: torch.Tensor) -> Path:
    return _set(x, y).save(folder / "set.safetensors", preview=False)


def _set(x: torch.Tensor, y: torch.Tensor) -> ImageSet:
    levels, facts = (x * 255).round().to(torch.uint8), {"dataset": "cifar10"}
    return ImageSet(levels, y, PixelSpace(), CLASSES, tuple(NAMES), provenance=facts)


def _hub(folder: Path, x: torch.Tensor, y: torch.Tensor) -> Path:
    export_set(_set(x, y), folder / "repository", "hub")
    return folder / "repository"


def _pictures(folder: Path, x: torch.Tensor, y: torch.Tensor) -> Path:
    for number, (image, label) in enumerate(zip(x, y.tolist())):
        path = folder / "cifar10_pictures" / NAMES[label] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(image))
    return folder / "cifar10_pictures"


def _parquet(folder: Path, x: torch.Tensor, y: torch.Tensor) -> Path:
    import pyarrow.parquet as parquet

    parquet.write_table(rows(y.tolist(), names=NAMES, images=x), folder / "cifar10.parquet")
    return folder / "cifar10.parquet"


def _arrow(folder: Path, x: torch.Tensor, y: torch.Tensor) -> Path:
    return save_to_disk(folder / "cifar10", rows(y.tolist(), names=NAMES, images=x))


def _continual(folder: Path, x: torch.Tensor, y: torch.Tensor) -> Path:
    first = y < CLASSES // 2
    steps = [[_normal(x)[part], y[part[: len(y)]]] for part in (first, ~first)]
    return _saved(folder / "cl_DM_CIFAR10_ConvNet_2ipc_2steps_seed0.pt", {"data": steps})


def _datm(folder: Path, x: torch.Tensor, y: torch.Tensor) -> Path:
    mtt_folder(folder / "CIFAR10", _normal(x), 6 * _one_hot(y) - 1)
    _saved(folder / "CIFAR10" / "lr_best.pt", torch.tensor(0.02))
    return folder / "CIFAR10"


def _dc_bench(folder: Path, x: torch.Tensor, y: torch.Tensor) -> Path:
    _saved(folder / "cifar10_IPC2_normalize_labels.pt", y)
    return _saved(folder / "cifar10_IPC2_normalize_images.pt", _normal(x))


def _dd_ranking(folder: Path, x: torch.Tensor, y: torch.Tensor) -> Path:
    place = folder / "cifar10"
    for name, content in (("images", _normal(x)), ("labels", y), ("lr", torch.tensor(0.02))):
        _saved(place / f"{name}.pt", content)
    return place


def _idc(folder: Path, x: torch.Tensor, y: torch.Tensor) -> Path:
    place = folder / "cifar10"
    _saved(place / "data.pt", [x, y])
    (place / "args.txt").write_text(json.dumps({"factor": 1}))
    return place


def _haba(folder: Path, x: torch.Tensor, y: torch.Tensor) -> Path:
    _saved(folder / "CIFAR10" / "weights_best.pt", hallucinator_weights(3))
    return _saved(folder / "CIFAR10" / "images_best.pt", _normal(x)).parent


def _speed(folder: Path, x: torch.Tensor, y: torch.Tensor) -> Path:
    speed_folder(folder / "CIFAR10")
    return folder / "CIFAR10"


def _fred(folder: Path, x: torch.Tensor, y: torch.Tensor) -> Path:
    _saved(folder / "CIFAR10" / "mask.pt", torch.ones_like(x))
    return mtt_folder(folder / "CIFAR10", _normal(x), y)


def _targets(names: tuple[str, str], file: str) -> Callable[[Path, torch.Tensor, torch.Tensor], Path]:
    def write(folder: Path, x: torch.Tensor, y: torch.Tensor) -> Path:
        images = (_normal(x) * 0.26).permute(0, 2, 3, 1).numpy()
        return _arrays(folder / file, **{names[0]: images, names[1]: (_one_hot(y) - 1 / CLASSES).numpy()})

    return write


def _dd(folder: Path, x: torch.Tensor, y: torch.Tensor) -> Path:
    half = len(y) // 2
    theirs = NormalizedSpace(CIFAR10.mean, (0.247, 0.243, 0.261)).encode(x)
    pairs = ((theirs[:half], y[:half]), (theirs[half:], y[half:]))
    return _saved(folder / "Cifar10" / "results.pth", [(a, b, torch.tensor(0.02)) for a, b in pairs])


def _dc(name: str, kind: torch.dtype = torch.int64) -> Callable[[Path, torch.Tensor, torch.Tensor], Path]:
    return lambda folder, x, y: _saved(folder / name, {"data": [[_normal(x), y.to(kind)]], "accs_all_exps": {}})


SAMPLES: dict[str, Sample] = {
    "hub": Sample(_hub, 0.5 / 255, pair=False),
    "fyi-bench": Sample(_own, 0.5 / 255, pair=False),
    "dc": Sample(_dc("res_DM_CIFAR10_ConvNet_2ipc.pt")),
    "dm-continual": Sample(_continual, ordered=True),
    "cafe": Sample(_dc("res_CAFE_CIFAR10_ConvNet_2ipc.pt", torch.int32)),
    "datadam": Sample(_dc("res_DataDAM_CIFAR10_ConvNet_2ipc_.pt")),
    "idm": Sample(_dc("res_IDM_CIFAR10_ConvNet_2ipc.pt")),
    "mtt": Sample(lambda folder, x, y: mtt_folder(folder / "CIFAR10", _normal(x), y)),
    "ftd": Sample(lambda folder, x, y: mtt_folder(folder / "CIFAR10", _normal(x), y, prefix="ema_")),
    "datm": Sample(_datm, exact=False),
    "dc-bench": Sample(_dc_bench),
    "dd-ranking": Sample(_dd_ranking),
    "idc": Sample(_idc),
    "dream": Sample(_idc),
    "haba": Sample(_haba, None, ordered=True),
    "speed": Sample(_speed, None, ordered=True, pair=False),
    "fred": Sample(_fred, 1e-4),
    "kip": Sample(_targets(("images", "labels"), "kip_cifar10_ConvNet3_ssize20_zca_nol.npz"), None, exact=False),
    "frepo": Sample(_targets(("x_proto", "y_proto"), "cifar10_frepo.npz"), None, exact=False),
    "dd": Sample(_dd),
    "image-folder": Sample(_pictures, 0.5 / 255, pair=False),
    "parquet": Sample(_parquet, 0.5 / 255, pair=False),
    "arrow": Sample(_arrow, 0.5 / 255, pair=False),
    "tensors": Sample(lambda folder, x, y: _saved(folder / "cifar10.pt", {"images": x, "labels": y})),
}


def written(name: str, folder: Path, pixels: torch.Tensor | None = None, classes: torch.Tensor | None = None) -> Path:
    """The sample of a layout: 20 pictures of 10 classes in no order, or these; what a user would name."""
    folder.mkdir(parents=True, exist_ok=True)
    sample = SAMPLES[name]
    y = classes if classes is not None else labels() if sample.ordered else SHUFFLED
    return sample.write(folder, pictures(len(y)) if pixels is None else pixels, y)

"""Real images packed for a machine that nothing but files reaches: lossless WebP, in parts below a limit of size.

A part holds rows of the train images followed by the test images. Whatever parts are there make the data set; where
train images are missing its digest is another one and its note says so, as everywhere.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from distill.image_set import ImageSet
from distill.spaces import PixelSpace
from fyi_bench.data import RealDataset
from fyi_bench.data.entry import find_entry
from fyi_bench.data.load import note_of
from fyi_bench.data.real import statistics
from fyi_bench.errors import DataError
from fyi_bench.files import write_bytes

SIDE = 10  # a picture holds SIDE x SIDE images: smaller than one by one
PATTERN = "{name}-part-*.npz"


def pack(data: RealDataset, folder: Path, parts: int) -> list[Path]:
    """Write the data set in so many parts of about equal size; their paths."""
    images = torch.cat([data.train.images, data.test.images])
    labels = torch.cat([data.train.labels, data.test.labels])
    bounds = [len(images) * k // parts for k in range(parts + 1)]
    places = []
    for number, (begin, end) in enumerate(pairwise(bounds)):
        pictures = [_encode(images[i : min(i + SIDE * SIDE, end)]) for i in range(begin, end, SIDE * SIDE)]
        facts = [begin, len(data.train), len(data.test), *images.shape[1:]]
        buffer = io.BytesIO()
        np.savez(
            buffer,
            facts=np.array(facts, dtype=np.int64),
            labels=labels[begin:end].numpy(),
            sizes=np.array([len(one) for one in pictures], dtype=np.int64),
            pictures=np.frombuffer(b"".join(pictures), dtype=np.uint8),
        )
        places.append(write_bytes(folder / f"{data.name}-part-{number}.npz", buffer.getvalue()))
    return places


def unpack(name: str, folders: Sequence[Path]) -> RealDataset:
    """The data set of the parts in these folders. Raises DataError where no test images are among them."""
    pattern = PATTERN.format(name=name)
    found = {path.name: path for folder in folders for path in sorted(folder.glob(pattern))}
    if not found:
        raise DataError(f"There is no {pattern} in {' or '.join(map(str, folders)) or 'any folder'}.\nPack it first.")
    rows: list[torch.Tensor] = []
    images: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    train = test = 0
    for path in sorted(found.values(), key=lambda path: path.name):
        with np.load(path, allow_pickle=False) as part:
            begin, train, test, channels, *_ = part["facts"].tolist()
            labels.append(torch.from_numpy(part["labels"]))
            ends = part["sizes"].cumsum().tolist()
            content, starts = part["pictures"].tobytes(), [0, *ends[:-1]]
            images += [_decode(content[a:b], channels) for a, b in zip(starts, ends, strict=True)]
            rows.append(torch.arange(begin, begin + len(labels[-1])))
    pixels, numbers, at = torch.cat(images), torch.cat(labels), torch.cat(rows)
    if (at >= train).sum() != test:
        raise DataError(
            f"The parts of {name} in {' or '.join(map(str, folders))} lack test images.\nBring the last one."
        )
    entry = find_entry(name)
    classes = entry.num_classes or int(numbers.max()) + 1
    train_set, test_set = (
        ImageSet(pixels[chosen], numbers[chosen], PixelSpace(), classes, entry.class_names)
        for chosen in (at < train, at >= train)
    )
    note = note_of(entry, train_set, test_set)
    return RealDataset(name, train_set, test_set, *statistics(name), note=note, where=str(folders[0]))


def write_parquet(data: RealDataset, root: Path) -> list[Path]:
    """Write the data set below a data folder, so that every command finds it; the paths."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    places = []
    for split, image_set in (("train", data.train), ("test", data.test)):
        names = {"names": image_set.class_names, "_type": "ClassLabel"}
        facts = {b"huggingface": json.dumps({"info": {"features": {"label": names}}}).encode()}
        pictures = arrow.array([{"bytes": _png(image)} for image in image_set.images])
        table = arrow.table({"img": pictures, "label": image_set.labels.tolist()}).replace_schema_metadata(facts)
        places.append(root / data.name / f"{split}-00000-of-00001.parquet")
        places[-1].parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, places[-1])
    return places


def _png(image: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).squeeze(-1).numpy()).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def _encode(images: torch.Tensor) -> bytes:
    """A picture of up to SIDE² images [n, channels, h, w], one below the other and in rows; the first pixel is n."""
    count, _, height, width = images.shape
    tiles = torch.zeros(SIDE * SIDE, 3, height, width, dtype=torch.uint8)
    tiles[:count] = images.expand(-1, 3, -1, -1)
    sheet = tiles.unflatten(0, (SIDE, SIDE)).permute(0, 3, 1, 4, 2).reshape(SIDE * height, SIDE * width, 3)
    mark = torch.full((1, sheet.shape[1], 3), count, dtype=torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(torch.cat([mark, sheet]).numpy()).save(buffer, "WEBP", lossless=True, quality=100, method=2)
    return buffer.getvalue()


def _decode(content: bytes, channels: int) -> torch.Tensor:
    sheet = torch.from_numpy(np.array(Image.open(io.BytesIO(content)).convert("RGB")))
    count, sheet = int(sheet[0, 0, 0]), sheet[1:]
    tiles = sheet.unflatten(0, (SIDE, -1)).unflatten(2, (SIDE, -1)).permute(0, 2, 4, 1, 3).flatten(0, 1)
    return tiles[:count, :channels].contiguous()

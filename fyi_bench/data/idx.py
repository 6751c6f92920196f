"""The idx files of MNIST and Fashion-MNIST, packed with gzip or not."""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fyi_bench.data.entry import Decoded, Source, Split, places
from fyi_bench.errors import DataError

_STEMS: dict[Split, str] = {"train": "train", "test": "t10k"}
_LIMIT = 4 * 2**30  # bytes; a header that promises more is not believed
_AGAIN = "Copy or download the file again."


@dataclass(frozen=True)
class IdxLayout:
    """`<root>/<folder>/train-images-idx3-ubyte[.gz]` and its three sisters."""

    folders: tuple[str, ...]

    @property
    def looks_like(self) -> str:
        return f"{self.folders[0]}/train-images-idx3-ubyte[.gz]"

    def find(self, root: Path) -> Source | None:
        for folder in places(root, self.folders):
            if _existing(folder, "train-images-idx3-ubyte"):
                return IdxSource(folder)
        return None


@dataclass(frozen=True)
class IdxSource:
    """The idx files in one folder."""

    where: Path
    complete: bool = True

    def files(self, split: Split) -> list[Path]:
        found = []
        for name in (f"{_STEMS[split]}-images-idx3-ubyte", f"{_STEMS[split]}-labels-idx1-ubyte"):
            path = _existing(self.where, name)
            if path is None:
                raise DataError(f"{self.where} has no {name}[.gz], which holds the {split} set.\nCopy it there.")
            found.append(path)
        return found

    def options(self) -> dict[str, Any]:
        return {"layout": "idx"}

    def read(self, split: Split) -> Decoded:
        images_path, labels_path = self.files(split)
        images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
        if len(images) != len(labels):
            raise DataError(f"{images_path} has {len(images)} images, {labels_path} {len(labels)} labels.\n{_AGAIN}")
        if images.size == 0:
            raise DataError(f"{images_path} holds no images.\n{_AGAIN}")
        tensor = torch.from_numpy(images).unsqueeze(1)
        return Decoded(tensor, torch.from_numpy(labels.astype(np.int64)), int(labels.max()) + 1)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """uint8 array of an idx file with this many dimensions; DataError for a wrong magic number or length."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as handle:
            head = handle.read(4 + 4 * dimensions)
            if len(head) < 4 + 4 * dimensions or head[:4] != bytes([0, 0, 8, dimensions]):
                raise DataError(
                    f"{path} does not begin like an idx file of {dimensions}-dimensional bytes "
                    f"(0x{head[:4].hex()}, not 0x000008{dimensions:02x}).\n{_AGAIN}"
                )
            shape = struct.unpack(f">{dimensions}I", head[4:])
            wanted = 1
            for side in shape:
                wanted *= side
            if wanted > _LIMIT:
                raise DataError(f"{path} promises {wanted:,} bytes, more than any known set.\n{_AGAIN}")
            data = handle.read(wanted + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}).\n{_AGAIN}") from error
    if len(data) != wanted:
        relation = "more than" if len(data) > wanted else f"{len(data):,} of"
        raise DataError(f"{path} holds {relation} the {wanted:,} bytes its header promises.\n{_AGAIN}")
    return np.frombuffer(bytearray(data), dtype=np.uint8).reshape(shape)


def _existing(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)

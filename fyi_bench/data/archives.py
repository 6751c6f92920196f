"""Data in the layouts torchvision downloads: CIFAR's batches, SVHN's .mat files, MNIST's idx files; the download.

CIFAR's batches are pickles. They are opened by torchvision only, after it has compared each with the published
md5; a file that differs is refused before it is opened, so no foreign pickle is ever run.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import socket
import struct
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fyi_bench.data.entry import DataFiles, Decoded, Split
from fyi_bench.errors import DataError

BOTH_SPLITS = ({"train": True}, {"train": False})
_STEMS: dict[Split, str] = {"train": "train", "test": "t10k"}
_LIMIT = 4 * 2**30  # bytes; an idx header that promises more is not believed
_COPY = "Copy or download the file again."
_AGAIN = "Copy the file again, or remove it and run `fyi-bench data get`."


@dataclass(frozen=True)
class CifarBatches(DataFiles):
    """torchvision's folder of CIFAR batches; `dataset` is the name of its class, `names` the file of class names."""

    layout = "torchvision"
    dataset: str = ""
    train: tuple[str, ...] = ("train",)
    test: tuple[str, ...] = ("test",)
    names: str = "meta"

    def files(self, split: Split) -> list[Path]:
        paths = [self.folder / name for name in (*(self.train if split == "train" else self.test), self.names)]
        for path in paths:
            if not path.is_file():
                raise DataError(f"{path} is absent.\n{_AGAIN}")
        return paths

    def read(self, split: Split) -> Decoded:
        from search_space.torchvision_compat import torchvision

        self.files(split)
        known = getattr(torchvision.datasets, self.dataset)
        # a subclass that knows only this split's files, so that the other split is not opened, even to check it
        only = {"train_list": known.train_list, "test_list": []} if split == "train" else {"train_list": []}
        try:
            loaded = type(self.dataset, (known,), only)(self.folder.parent, train=split == "train")
        except RuntimeError as error:
            raise DataError(
                f"A file of the {split} split in {self.folder} is not the published one.\n{_AGAIN}"
            ) from error
        images = torch.from_numpy(np.ascontiguousarray(loaded.data.transpose(0, 3, 1, 2)))
        names = tuple(loaded.classes)
        return Decoded(images, torch.tensor(loaded.targets, dtype=torch.int64), len(names), names)


@dataclass(frozen=True)
class MatFiles(DataFiles):
    """SVHN: `train_32x32.mat` and `test_32x32.mat`."""

    layout, looks_like = "mat", "train_32x32.mat"

    def places(self, root: Path) -> list[Path]:
        return [root, *super().places(root)]

    def lie_in(self, folder: Path) -> bool:
        return (folder / "train_32x32.mat").is_file()

    def files(self, split: Split) -> list[Path]:
        path = self.folder / f"{split}_32x32.mat"
        if not path.is_file():
            raise DataError(f"{path} is absent, and it holds the {split} set.\nCopy it there.")
        return [path]

    def read(self, split: Split) -> Decoded:
        from scipy.io import loadmat

        (path,) = self.files(split)
        try:
            content = loadmat(path)
        except Exception as error:  # scipy's reader raises whatever the damaged bytes led it to
            raise DataError(f"{path} is not a readable .mat file ({error}).\n{_AGAIN}") from error
        images, labels = content.get("X"), content.get("y")
        if images is None or labels is None or images.ndim != 4 or images.shape[3] != labels.size:
            raise DataError(f"{path} is not an SVHN file: it needs X [32, 32, 3, N] and y [N].\n{_AGAIN}")
        # the files call the digit 0 class 10
        digits = torch.from_numpy(labels.astype(np.int64).reshape(-1) % 10)
        pixels = np.ascontiguousarray(images.transpose(3, 2, 0, 1), dtype=np.uint8)
        return Decoded(torch.from_numpy(pixels), digits, 10)


@dataclass(frozen=True)
class IdxFiles(DataFiles):
    """`<root>/<folder>/train-images-idx3-ubyte[.gz]` and its three sisters: MNIST and Fashion-MNIST."""

    layout = "idx"

    @property
    def looks_like(self) -> str:
        return f"{self.folders[0]}/train-images-idx3-ubyte[.gz]"

    def lie_in(self, folder: Path) -> bool:
        return _existing(folder, "train-images-idx3-ubyte") is not None

    def files(self, split: Split) -> list[Path]:
        found = []
        for name in (f"{_STEMS[split]}-images-idx3-ubyte", f"{_STEMS[split]}-labels-idx1-ubyte"):
            path = _existing(self.folder, name)
            if path is None:
                raise DataError(f"{self.folder} has no {name}[.gz], which holds the {split} set.\nCopy it there.")
            found.append(path)
        return found

    def read(self, split: Split) -> Decoded:
        images_path, labels_path = self.files(split)
        images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
        if len(images) != len(labels):
            raise DataError(f"{images_path} has {len(images)} images, {labels_path} {len(labels)} labels.\n{_COPY}")
        if images.size == 0:
            raise DataError(f"{images_path} holds no images.\n{_COPY}")
        found = torch.from_numpy(labels.astype(np.int64))
        return Decoded(torch.from_numpy(images).unsqueeze(1), found, int(labels.max()) + 1)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """uint8 array of an idx file with this many dimensions; DataError for a wrong magic number or length."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as handle:
            head = handle.read(4 + 4 * dimensions)
            if len(head) < 4 + 4 * dimensions or head[:4] != bytes([0, 0, 8, dimensions]):
                raise DataError(
                    f"{path} does not begin like an idx file of {dimensions}-dimensional bytes "
                    f"(0x{head[:4].hex()}, not 0x000008{dimensions:02x}).\n{_COPY}"
                )
            shape = struct.unpack(f">{dimensions}I", head[4:])
            wanted = math.prod(shape)
            if wanted > _LIMIT:
                raise DataError(f"{path} promises {wanted:,} bytes, more than any known set.\n{_COPY}")
            data = handle.read(wanted + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}).\n{_COPY}") from error
    if len(data) != wanted:
        relation = "more than" if len(data) > wanted else f"{len(data):,} of"
        raise DataError(f"{path} holds {relation} the {wanted:,} bytes its header promises.\n{_COPY}")
    return np.frombuffer(bytearray(data), dtype=np.uint8).reshape(shape)


def _existing(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def downloader(dataset: str, archive: str, splits: Sequence[dict[str, Any]] = BOTH_SPLITS) -> Callable[[Path], None]:
    """A function that lets torchvision's class `dataset` download into a folder, once for each set of arguments.

    Two processes that ask at once: one downloads, the other waits and finds the files. With the `archive` already
    in the folder no network is needed. Raises DataError with the cause in one line.
    """

    def download(root: Path) -> None:
        from search_space.torchvision_compat import torchvision

        known = getattr(torchvision.datasets, dataset)
        try:
            root.mkdir(parents=True, exist_ok=True)
            if not (root / archive).is_file():
                _reach(_address(known))
            with _alone(root / f".{dataset}.lock"):
                for arguments in splits:
                    known(root, download=True, **arguments)
        except Exception as error:  # network, disk, archive and checksum errors have no common type
            cause = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"The download of {dataset} into {root} failed: {cause[:160]}") from error

    return download


def _address(known: Any) -> str:
    """The first address torchvision would fetch from."""
    if hasattr(known, "mirrors"):
        return known.mirrors[0]
    return known.split_list["train"][0] if hasattr(known, "split_list") else known.url


def _reach(address: str) -> None:
    """Raise OSError soon where the host cannot be reached; torchvision itself would wait without limit."""
    if urllib.request.getproxies():
        return
    parts = urllib.parse.urlsplit(address)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    try:
        socket.create_connection((str(parts.hostname), port), timeout=10).close()
    except OSError as error:
        raise OSError(f"no connection to {parts.hostname} ({error})") from error


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the system releases it when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: no lock, two downloads at once are then the user's care
        yield
        return
    with open(path, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield

"""Data in the layouts torchvision downloads: CIFAR's python batches, SVHN's .mat files; and the download itself.

CIFAR's batches are pickles. They are opened by torchvision only, after it has compared each with the published
md5; a file that differs is refused before it is opened, so no foreign pickle is ever run.
"""

from __future__ import annotations

import contextlib
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fyi_bench.data.entry import Decoded, Source, Split, places
from fyi_bench.errors import DataError

_AGAIN = "Copy the file again, or remove it and run `fyi-bench data get`."


@dataclass(frozen=True)
class CifarLayout:
    """torchvision's folder of CIFAR batches; `dataset` is the name of its class."""

    dataset: str
    folder: str
    batches: dict[Split, tuple[str, ...]]
    names_file: str

    @property
    def looks_like(self) -> str:
        return f"{self.folder}/"

    def find(self, root: Path) -> Source | None:
        found = places(root, (self.folder,))
        return CifarSource(found[0], self) if found else None


@dataclass(frozen=True)
class CifarSource:
    """One folder of CIFAR batches."""

    where: Path
    layout: CifarLayout
    complete: bool = True

    def files(self, split: Split) -> list[Path]:
        paths = [self.where / name for name in (*self.layout.batches[split], self.layout.names_file)]
        for path in paths:
            if not path.is_file():
                raise DataError(f"{path} is absent.\n{_AGAIN}")
        return paths

    def options(self) -> dict[str, Any]:
        return {"layout": "torchvision"}

    def read(self, split: Split) -> Decoded:
        from search_space.torchvision_compat import torchvision

        self.files(split)
        known = getattr(torchvision.datasets, self.layout.dataset)
        # a subclass that knows only this split's files, so that the other split is not opened, even to check it
        only = {"train_list": known.train_list, "test_list": []} if split == "train" else {"train_list": []}
        try:
            loaded = type(self.layout.dataset, (known,), only)(self.where.parent, train=split == "train")
        except RuntimeError as error:
            raise DataError(
                f"A file of the {split} split in {self.where} is not the published one.\n{_AGAIN}"
            ) from error
        images = torch.from_numpy(np.ascontiguousarray(loaded.data.transpose(0, 3, 1, 2)))
        names = tuple(loaded.classes)
        return Decoded(images, torch.tensor(loaded.targets, dtype=torch.int64), len(names), names)


@dataclass(frozen=True)
class MatLayout:
    """SVHN: `train_32x32.mat` and `test_32x32.mat`."""

    folders: tuple[str, ...]

    @property
    def looks_like(self) -> str:
        return "train_32x32.mat"

    def find(self, root: Path) -> Source | None:
        for folder in (root, *places(root, self.folders)):
            if (folder / "train_32x32.mat").is_file():
                return MatSource(folder)
        return None


@dataclass(frozen=True)
class MatSource:
    """The .mat files in one folder."""

    where: Path
    complete: bool = True

    def files(self, split: Split) -> list[Path]:
        path = self.where / f"{split}_32x32.mat"
        if not path.is_file():
            raise DataError(f"{path} is absent, and it holds the {split} set.\nCopy it there.")
        return [path]

    def options(self) -> dict[str, Any]:
        return {"layout": "mat"}

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


def downloader(dataset: str, archive: str, *splits: dict[str, Any]) -> Callable[[Path], None]:
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

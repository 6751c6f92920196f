"""What a data set is to the harness: an entry with facts about it, and the ways its files may lie on disk.

Adding one is one registration: a file in `fyi_bench/data/sets`, or an entry point of the group `fyi_bench.datasets`
that names a `DatasetEntry`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from fyi_bench.errors import DataError
from fyi_bench.registry import Registry

Split = Literal["train", "test"]
Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std per channel, of pixels in [0, 1]


@dataclass(frozen=True)
class Decoded:
    """One split as stored: images uint8 [N, channels, H, W], labels int64 [N], names of all classes (or none)."""

    images: torch.Tensor
    labels: torch.Tensor
    num_classes: int
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataFiles:
    """A way the files of a data set may lie on disk, in one of these folders; `where` is the one they were found in.

    One split is read at a time, so that training never opens the test files.
    """

    layout: ClassVar[str] = ""  # names it in the key of cached images
    folders: tuple[str, ...] = ()
    where: Path | None = field(default=None, kw_only=True)

    @property
    def folder(self) -> Path:
        """The folder they were found in; ValueError before they were."""
        if self.where is None:
            raise ValueError(f"{self} was not found yet")
        return self.where

    @property
    def looks_like(self) -> str:
        """How messages describe what is looked for."""
        return f"{self.folders[0]}/"

    @property
    def complete(self) -> bool:
        """False when parts of the train split are known to be absent."""
        return True

    def find(self, root: Path) -> DataFiles | None:
        """The files below this folder, or None."""
        return next((replace(self, where=folder) for folder in self.places(root) if self.lie_in(folder)), None)

    def places(self, root: Path) -> list[Path]:
        """Folders that may hold the data: `root/name` for each name, and `root` where it is itself called so."""
        below, parts = [root / name for name in self.folders], root.resolve().parts
        own = [root for name in self.folders if parts[-len(Path(name).parts) :] == Path(name).parts]
        return [folder for folder in (*below, *own) if folder.is_dir()]

    def lie_in(self, folder: Path) -> bool:
        """Whether an existing folder of the right name holds them."""
        return True

    def files(self, split: Split) -> list[Path]:
        """The files this split is read from; DataError when the split is not there. Opens none of them."""
        return []

    def count(self, split: Split) -> int | None:
        """Images of the split, without decoding any; None where that would take reading them."""
        return None

    def options(self) -> dict[str, Any]:
        """Whatever else decides the pixels (a resize, a generator's version); JSON-able."""
        return {"layout": self.layout}

    def read(self, split: Split) -> Decoded:
        """Decode the split; DataError naming the file that is wrong."""
        raise NotImplementedError


@dataclass(frozen=True)
class DatasetEntry:
    """A data set by name.

    layouts: tried in order in each folder; complete files win over incomplete ones.
    statistics: channel constants by family (`dc`, others where they differ); empty = measured on the train images.
    num_classes, size (side in pixels), train, test (published numbers of images): None where they depend on the files.
    fixed: the files where nothing is searched: generated data, or a folder that was named.
    mirrored: every image counts once as it is and once mirrored, in both splits.
    download: fetches the data into a folder; `obtain` says what to do where there is no download.
    packed: glob of archives that users unpack themselves.
    at: makes the entry for `name:ARGUMENT` (as in `imagefolder:PATH`).
    source: what finds it from any folder, where that is more than the name (`imagefolder:PATH`, PATH absolute).
    """

    name: str
    layouts: tuple[DataFiles, ...] = ()
    statistics: Mapping[str, Statistics] = field(default_factory=dict)
    num_classes: int | None = None
    size: int | None = None
    channels: int = 3
    train: int | None = None
    test: int | None = None
    class_names: tuple[str, ...] = ()
    fixed: DataFiles | None = None
    mirrored: bool = False
    download: Callable[[Path], None] | None = None
    obtain: str = ""
    packed: str = ""
    at: Callable[[str], DatasetEntry] | None = None
    source: str = ""


DATASETS: Registry[DatasetEntry] = Registry(
    "data set", package="fyi_bench.data.sets", group="fyi_bench.datasets", base=DatasetEntry
)


def spelled(name: str) -> str:
    """The name as it is registered, given in any case; the argument of `name:ARGUMENT` stays what it is."""
    head, colon, argument = name.partition(":")
    return DATASETS.spelled(head) + colon + argument


def find_entry(name: str) -> DatasetEntry:
    """The entry of `name` or `name:ARGUMENT`; UnknownNameError with a suggestion, DataError for a wrong argument."""
    head, colon, argument = name.partition(":")
    entry = DATASETS.get(head)
    if entry.at is None:
        if colon:
            raise DataError(f"The data set '{head}' takes no argument, but '{name}' was asked for.\nSay '{head}'.")
        return entry
    if not argument:
        raise DataError(f"'{head}' needs a path, as in '{head}:PATH'.\n{entry.obtain}")
    return entry.at(argument)

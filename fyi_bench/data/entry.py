"""What a data set is to the harness: an entry with facts about it and the layouts it may have on disk.

Adding one is one file in `fyi_bench/data/sets` (or an entry point of the group `fyi_bench.datasets`) that registers
a `DatasetEntry`. A layout looks into a folder and returns a `Source` if the data is there; a source reads one
split at a time, so that training never opens the test files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

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


class Source(Protocol):
    """Data found in one place. `complete` is False when parts of the train split are known to be absent."""

    where: Path | None
    complete: bool

    def files(self, split: Split) -> list[Path]:
        """The files this split is read from; DataError when the split is not there. Opens none of them."""

    def options(self) -> dict[str, Any]:
        """Whatever else decides the pixels (a resize, a generator's version); JSON-able."""

    def read(self, split: Split) -> Decoded:
        """Decode the split; DataError naming the file that is wrong."""


class Layout(Protocol):
    """A way data may lie on disk; `looks_like` is how messages describe it."""

    looks_like: str

    def find(self, root: Path) -> Source | None:
        """The source below this folder, or None."""


@dataclass(frozen=True)
class DatasetEntry:
    """A data set by name.

    layouts: tried in order in each folder; a complete source wins over an incomplete one.
    statistics: channel constants by family (`dc`, and `mtt` where it differs); empty = measured on the train images.
    num_classes, size (side in pixels), train, test (published numbers of images): None where they depend on the files.
    fixed: the source where nothing is searched: generated data, or a folder that was named.
    download: fetches the data into a folder; `obtain` says what to do where there is no download.
    packed: glob of archives that users unpack themselves.
    at: makes the entry for `name:ARGUMENT` (as in `imagefolder:PATH`).
    """

    name: str
    layouts: tuple[Layout, ...] = ()
    statistics: Mapping[str, Statistics] = field(default_factory=dict)
    num_classes: int | None = None
    size: int | None = None
    channels: int = 3
    train: int | None = None
    test: int | None = None
    class_names: tuple[str, ...] = ()
    fixed: Source | None = None
    download: Callable[[Path], None] | None = None
    obtain: str = ""
    packed: str = ""
    at: Callable[[str], DatasetEntry] | None = None


DATASETS: Registry[DatasetEntry] = Registry(
    "data set", package="fyi_bench.data.sets", group="fyi_bench.datasets", base=DatasetEntry
)


def register(entry: DatasetEntry) -> DatasetEntry:
    """Make an entry known by its name."""
    DATASETS.register(entry.name, entry)
    return entry


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


def places(root: Path, names: tuple[str, ...]) -> list[Path]:
    """Folders that may hold the data: `root/name` for each name, and `root` where it is itself called so."""
    below = [root / name for name in names]
    parts = root.resolve().parts
    own = [root for name in names if parts[-len(Path(name).parts) :] == Path(name).parts]
    return [folder for folder in (*below, *own) if folder.is_dir()]

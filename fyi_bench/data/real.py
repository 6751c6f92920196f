"""RealDataset: a real data set in memory, train and test, with its channel statistics and its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from distill.image_set import ImageSet
from distill.spaces import NormalizedSpace
from fyi_bench.data.entry import Split, Statistics, find_entry
from fyi_bench.errors import DataError, UnknownNameError
from fyi_bench.files import digest_of

FAMILIES = ("dc", "mtt", "dd", "frepo", "rtp")


@dataclass(frozen=True, eq=False, repr=False)
class RealDataset:
    """Real images with labels, train and test.

    train, held_out: uint8 images [N, channels, size, size] in pixel space, int64 labels; without held-out images (None)
    reading `test` raises DataError.
    mean, std: per channel of pixels in [0, 1], the constants of the DC family; `space` normalises with them.
    note: what is missing of the published set ("25,000 of 50,000 train images"), or empty; belongs in records.
    where: the folder the data came from, or "built in".
    sums: sha256 of the stored tensors by split, where a checked file already has them.
    source: see `DatasetEntry`; it travels with runs. measured: whether mean and std are of these very images.
    """

    name: str
    train: ImageSet
    held_out: ImageSet | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    note: str = ""
    where: str = ""
    sums: Mapping[Split, Mapping[str, str]] = field(default_factory=dict)
    source: str = ""
    measured: bool = False

    def __repr__(self) -> str:
        test = f"{len(self.test):,} test" if self.has_test else "test not loaded"
        note = f", {self.note}" if self.note else ""
        return f"RealDataset({self.name}: {len(self.train):,} train, {test}, {self.num_classes} classes{note})"

    @property
    def has_test(self) -> bool:
        """Whether the test images were loaded."""
        return self.held_out is not None

    @property
    def test(self) -> ImageSet:
        """The test images. Raises DataError where they were not loaded, so that nothing can reach them by accident."""
        if self.held_out is None:
            raise DataError(
                f"The test images of {self.name} were not loaded (test=False), and something asked for them.\n"
                "Nothing may be chosen on the test set: load with test=True only to report the last result."
            )
        return self.held_out

    @property
    def space(self) -> NormalizedSpace:
        """The space networks are trained in: (x - mean) / std per channel."""
        return NormalizedSpace(self.mean, self.std)

    @property
    def num_classes(self) -> int:
        return self.train.num_classes

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.train.class_names

    @property
    def channels(self) -> int:
        return self.train.shape[0]

    @property
    def size(self) -> int:
        """Side of the square images, pixels."""
        return self.train.shape[1]

    @cached_property
    def train_digest(self) -> str:
        """16 hex digits over pixels and labels of the train images: the key of everything made without the test set."""
        return self._split_digest("train", self.train)

    @cached_property
    def test_digest(self) -> str:
        """16 hex digits over pixels and labels of the test images; DataError where they were not loaded."""
        return self._split_digest("test", self.test)

    @property
    def digest(self) -> str:
        """16 hex digits over train and test; DataError where the test images were not loaded (use train_digest)."""
        return digest_of({"train": self.train_digest, "test": self.test_digest})

    def _split_digest(self, split: Split, images: ImageSet) -> str:
        sums = self.sums.get(split) or {"images": _sha256(images.images), "labels": _sha256(images.labels)}
        facts = {"shape": list(images.images.shape), "num_classes": images.num_classes}
        return digest_of({**facts, "images": sums["images"], "labels": sums["labels"]})


def statistics(dataset: str | RealDataset, family: str = "dc") -> Statistics:
    """Channel (mean, std) that a family of published code normalises with.

    `dc`: DC, DSA, DM, DataDAM …; `mtt`: MTT, TESLA, FTD, CAFE and IDC, which use the constants of CIFAR-10
    for CIFAR-100 as well; `dd`, `frepo` (and KIP): with other deviations of CIFAR-10. Elsewhere they agree.
    Sources: the constants in each repository's data code.
    Raises UnknownNameError for another family, DataError for a name without published constants (load the data).
    """
    if family not in FAMILIES:
        raise UnknownNameError("family of channel statistics", family, FAMILIES)
    if isinstance(dataset, RealDataset):
        own = (dataset.mean, dataset.std)
        return own if family == "dc" else _published(dataset.name).get(family, own)
    published = find_entry(dataset).statistics
    found = published.get(family) or published.get("dc")
    if found is None:
        raise DataError(
            f"There are no published channel statistics for '{dataset}'.\nLoad the data: they are then measured."
        )
    return found


def _published(name: str) -> Mapping[str, Statistics]:
    try:
        return find_entry(name).statistics
    except (UnknownNameError, DataError):  # a set made by hand, or by a path: it has its own constants only
        return {}


def pixel_statistics(images: torch.Tensor) -> Statistics:
    """Exact channel (mean, population std) of uint8 images [N, channels, H, W] as pixels in [0, 1]."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in range(images.shape[1]):
        counts = torch.zeros(256, dtype=torch.int64)
        for part in images[:, channel].split(4096):
            counts += torch.bincount(part.reshape(-1), minlength=256)
        share = counts.double() / counts.sum()
        mean.append(float((share * levels).sum()))
        std.append(float(((levels - mean[-1]) ** 2 * share).sum().sqrt()))
    return tuple(mean), tuple(std)


def describe(dataset: RealDataset) -> dict[str, Any]:
    """What a record says about the data: name, digests, numbers of images, note."""
    facts = {"name": dataset.name, "train": len(dataset.train), "train_digest": dataset.train_digest}
    if dataset.has_test:
        facts |= {"test": len(dataset.test), "digest": dataset.digest}
    return facts | {"num_classes": dataset.num_classes, "size": dataset.size, "note": dataset.note}


def image_digests(images: torch.Tensor) -> list[bytes]:
    """A digest of each image's own bytes: equal for images that are equal in every value."""
    rows = images.contiguous().flatten(1).view(torch.uint8).numpy()
    return [hashlib.blake2b(memoryview(row), digest_size=16).digest() for row in rows]


def _sha256(tensor: torch.Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()

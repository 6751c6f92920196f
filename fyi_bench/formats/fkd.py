"""Stored soft labels of a teacher (FKD): for every use of an image a crop, a flip, a mix and logits.

SRe2L, CDA, LPLD, DWA, G-VBSM and EDC publish them as `epoch_<e>/batch_<b>.tar`, beside pictures in
`new000/class000_id000.jpg`. The .tar are files of `torch.save`, read without running code: a list [boxes, flips,
partners, share, mix box, logits], and of some makers the rows as a seventh entry. Where rows are not stored they follow
from a seed, 42 in the makers' code: an epoch's rows are the next permutation of a `RandomSampler`, cut into batches.

    labels = FKDLabels.open("FKD_cutmix_fp16")
    batch = labels.batch(epoch=0, number=3)
    images = crop(set.images[batch.rows], batch.boxes_in(224, 224)), mirrored where batch.flips
    images = batch.mix(images) if batch.mix else images
    loss of the network's logits against batch.logits

Nothing but the file of one batch is in memory at a time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import RandomSampler

from fyi_bench.errors import DataError
from fyi_bench.formats.arrays import scalar
from fyi_bench.formats.opening import DAMAGED, load_torch

SEED = 42  # of the makers' sampler
MOST_BYTES = 2**29  # of one batch; 1024 rows of ImageNet-21K's logits in float32 are 43 MB
_LAYOUT = "epoch_<e>/batch_<b>.tar"
_BATCH = re.compile(r"batch_(\d{1,6})\.tar")
_EPOCH = re.compile(r"epoch_(\d{1,6})")
_ROUNDING = 1e-3  # how far a stored box may leave the image
_LARGEST_SIDE = 4096


@dataclass(frozen=True)
class Mix:
    """How the images of a batch were mixed. partners: int64 [B], places in the batch; share: of the image itself.

    box: (top, left, bottom, right) in pixels, what CutMix takes from the partner; None for MixUp.
    """

    partners: Tensor
    share: float
    box: tuple[int, int, int, int] | None

    def __call__(self, images: Tensor) -> Tensor:
        """The images [B, ch, H, W], mixed."""
        others = images[self.partners.to(images.device)]
        if self.box is None:
            return self.share * images + (1 - self.share) * others
        top, left, bottom, right = self.box
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
        return mixed


@dataclass(frozen=True)
class FKDBatch:
    """One step of training. rows: int64 [B], images of the set in the order of its folders and names.

    boxes: float32 [B, 4], (top, left, height, width) of each crop as shares of the image's sides. flips: bool [B],
    whether the crop is mirrored. mix: after that; None where nothing is mixed. logits: float16 or float32 [B, classes],
    of the teacher for the mixed images.
    """

    rows: Tensor
    boxes: Tensor
    flips: Tensor
    mix: Mix | None
    logits: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def boxes_in(self, height: int, width: int) -> Tensor:
        """int64 [B, 4]: (top, left, height, width) of each crop in pixels of an image of this size."""
        sides = torch.tensor([height, width, height, width], dtype=torch.float64)
        return (self.boxes.double() * sides).round().long()


@dataclass(frozen=True)
class FKDLabels:
    """A folder of stored soft labels: `epochs` times `batches` files for `images` images of `classes` classes.

    batch_size: of all batches but the last of an epoch. seed: of the order of rows that are not stored.
    """

    folder: Path
    epochs: int
    batches: int
    batch_size: int
    images: int
    classes: int
    stores_rows: bool
    seed: int = SEED
    _states: list[Tensor] = field(default_factory=list, repr=False, compare=False)

    @staticmethod
    def open(folder: str | Path, seed: int = SEED) -> FKDLabels:
        """The labels in a folder; its first and its last batch are read.

        Raises DataError for a folder that has no such files, for one that lacks some, and for what is broken.
        """
        found = fkd_folder(Path(folder).expanduser())
        if found is None:
            raise DataError(f"{folder} holds no stored soft labels ({_LAYOUT}).\nName the folder of epoch_0.")
        epochs = _numbers(found, _EPOCH)
        batches = _numbers(found / "epoch_0", _BATCH)
        for epoch in range(epochs):
            if epoch and (count := _numbers(found / f"epoch_{epoch}", _BATCH)) != batches:
                raise DataError(
                    f"{found / f'epoch_{epoch}'} has {count} batches, epoch_0 has {batches}.\nCopy its files again."
                )
        first, last = (_read(found / "epoch_0" / f"batch_{number}.tar") for number in (0, batches - 1))
        size, classes = first.logits.shape
        images = size * (batches - 1) + len(last.logits)
        labels = FKDLabels(found, epochs, batches, size, images, classes, first.rows is not None, seed)
        labels.batch(0, batches - 1)
        return labels

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all files."""
        names = (self.folder / f"epoch_{e}" / f"batch_{b}.tar" for e in range(self.epochs) for b in range(self.batches))
        return sum(name.stat().st_size for name in names)

    def batch(self, epoch: int, number: int) -> FKDBatch:
        """One batch, read now. Raises DataError for a file that is broken or does not go with the others."""
        if not (0 <= epoch < self.epochs and 0 <= number < self.batches):
            raise DataError(
                f"{self.folder} has the epochs 0 to {self.epochs - 1} of {self.batches} batches, not batch {number} of"
                f" epoch {epoch}.\nTrain for at most {self.epochs} epochs."
            )
        path = self.folder / f"epoch_{epoch}" / f"batch_{number}.tar"
        start, found = number * self.batch_size, _read(path)
        size = min(self.batch_size, self.images - start)
        if tuple(found.logits.shape) != (size, self.classes) or (found.rows is not None) != self.stores_rows:
            raise DataError(
                f"{path} has logits of the shape {list(found.logits.shape)}, not [{size}, {self.classes}].\n{DAMAGED}"
            )
        rows = found.rows if found.rows is not None else self.order(epoch)[start : start + size]
        if int(rows.min()) < 0 or int(rows.max()) >= self.images:
            raise DataError(f"{path} names images outside 0..{self.images - 1}.\n{DAMAGED}")
        return FKDBatch(rows, found.boxes, found.flips, found.mix, found.logits)

    def order(self, epoch: int) -> Tensor:
        """int64 [images]: the rows of an epoch one after the other, as the makers' sampler draws them."""
        generator = torch.Generator()
        if not self._states:
            self._states.append(generator.manual_seed(self.seed).get_state())
        while True:
            generator.set_state(self._states[min(epoch, len(self._states) - 1)])
            sampler = RandomSampler(
                range(self.images), generator=generator
            )  # the class itself: it draws twice an epoch
            rows = torch.tensor(list(sampler))
            if epoch < len(self._states):
                return rows
            self._states.append(generator.get_state())


def fkd_folder(folder: Path) -> Path | None:
    """The folder itself or the only one in it that holds `epoch_0/batch_0.tar`; None where there is none."""
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []
    found = [path for path in (folder, *inner) if (path / "epoch_0" / "batch_0.tar").is_file()]
    return found[0] if len(found) == 1 else None


def _numbers(folder: Path, pattern: re.Pattern[str]) -> int:
    """How many entries match; DataError where their numbers are not 0, 1, 2 …"""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    found = {int(match[1]) for name in names if (match := pattern.fullmatch(name))}
    if missing := sorted(set(range(max(found, default=0) + 1)) - found):
        name = pattern.pattern.replace(r"(\d{1,6})", str(missing[0])).replace("\\", "")
        raise DataError(f"{folder / name} is absent.\nCopy it there: labels of all batches are needed.")
    return len(found)


@dataclass(frozen=True)
class _Stored:
    """A batch as its file has it; rows: None where they are not stored."""

    boxes: Tensor
    flips: Tensor
    mix: Mix | None
    logits: Tensor
    rows: Tensor | None


def _read(path: Path) -> _Stored:
    content = load_torch(path, MOST_BYTES)
    if not isinstance(content, list | tuple) or not 6 <= len(content) <= 8:
        raise DataError(f"{path} is no batch of soft labels (a list of crops, flips, mixes and logits).\n{DAMAGED}")
    boxes, flips, partners, share, box, logits, *more = content
    count = len(logits) if isinstance(logits, Tensor) and logits.ndim == 2 else 0
    if not count or not logits.is_floating_point() or logits.shape[1] < 2 or not _whole(logits):
        raise DataError(f"{path} has no logits [images, classes].\n{DAMAGED}")
    if not isinstance(boxes, Tensor) or tuple(boxes.shape) != (count, 4) or not _inside(boxes):
        raise DataError(f"{path} has no crop in the image for each of its {count} images.\n{DAMAGED}")
    if not isinstance(flips, Tensor) or tuple(flips.shape) != (count,) or not bool(((flips == 0) | (flips == 1)).all()):
        raise DataError(f"{path} does not say which of its {count} images are mirrored.\n{DAMAGED}")
    rows = _indices(more[0]) if more else None
    if rows is not None and len(rows) != count:
        raise DataError(f"{path} names {len(rows)} images and has logits of {count}.\n{DAMAGED}")
    return _Stored(boxes.float(), flips.bool(), _mix(path, (partners, share, box), count), logits, rows)


def _whole(tensor: Tensor) -> bool:
    """Whether its numbers are all stored, and finite: one that claims to be expanded is none."""
    return tensor.untyped_storage().nbytes() >= tensor.nbytes and bool(torch.isfinite(tensor).all())


def _inside(boxes: Tensor) -> bool:
    if not boxes.is_floating_point() or not _whole(boxes):
        return False
    ends = boxes[:, :2] + boxes[:, 2:]
    return float(boxes.min()) >= -_ROUNDING and float(ends.max()) <= 1 + _ROUNDING and float(boxes[:, 2:].min()) > 0


def _indices(value: Any) -> Tensor | None:
    whole = isinstance(value, Tensor) and value.ndim == 1 and not value.is_floating_point() and _whole(value)
    return value.long() if whole else None


def _mix(path: Path, stored: tuple[Any, Any, Any], count: int) -> Mix | None:
    """The mix of a batch; DataError where its parts do not go together."""
    if stored[0] is None:
        return None
    partners, share = _indices(stored[0]), scalar(stored[1])
    ends = None if stored[2] is None else [scalar(end) for end in stored[2]]
    if partners is None or not torch.equal(partners.sort().values, torch.arange(count)):
        raise DataError(f"{path} does not mix each of its {count} images once.\n{DAMAGED}")
    if share is None or not 0 <= share <= 1:
        raise DataError(f"{path} mixes images by a share of {share}.\n{DAMAGED}")
    if ends is None:
        return Mix(partners, share, None)
    box = tuple(int(end) for end in ends if end is not None and 0 <= end <= _LARGEST_SIDE)
    if len(box) != 4 or len(ends) != 4 or box[0] > box[2] or box[1] > box[3]:
        raise DataError(f"{path} mixes images in the box {ends}.\n{DAMAGED}")
    return Mix(partners, share, (box[0], box[1], box[2], box[3]))

"""A memory of condensed sets: as plain torch data, in what it costs, and condensed from any data set's images."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from distill.decode import decoded
from distill.engine import distill
from distill.fyi import FLIPS
from distill.image_set import ImageSet, concatenate
from distill.methods import config_of
from distill.problem import Problem
from distill.recipes import recipe
from distill.spaces import PixelSpace, Space
from fyi_bench.errors import DataError, UnknownNameError, UsageError

JPEG_QUALITY = 90
Transform = Callable[[torch.Tensor], torch.Tensor]


class MemoryDataset(torch.utils.data.Dataset):
    """Images of one or several sets as a torch dataset of (float [ch, H, W] in `space`, int label).

    It needs no Avalanche. space: of the images given, by default that of the first set. transform: applied to each
    image when it is read, as a train transform is. `targets` and `classes` are as torchvision's data sets have them.
    """

    def __init__(
        self, sets: ImageSet | Sequence[ImageSet], space: Space | None = None, transform: Transform | None = None
    ):
        given = [sets] if isinstance(sets, ImageSet) else list(sets)
        self.space = space or given[0].space
        joined = given[0] if len(given) == 1 else concatenate([one.to_space(self.space) for one in given])
        joined = decoded(joined)
        self.images, self.source, self.transform = joined.images, joined, transform
        if joined.images.is_floating_point():
            self.images = joined.to_space(self.space).images
        self.targets: list[int] = joined.hard_labels.tolist()
        self.classes = list(joined.class_names)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = self.images[index]
        if not image.is_floating_point():
            image = self.source.batch(slice(index, index + 1), self.space)[0]
        return image if self.transform is None else self.transform(image), self.targets[index]


def images_worth(image_set: ImageSet) -> int:
    """Images a set stores, or as many float32 images as have the bytes of its rows and decoder, rounded up."""
    if image_set.decoder is None:
        return len(image_set)
    return math.ceil(image_bytes(image_set) / (4 * math.prod(image_set.shape)))


def image_bytes(image_set: ImageSet) -> int:
    """Bytes of a memory beside its hard labels, by `memory_parts`."""
    return sum(memory_parts(image_set).values())


def memory_parts(image_set: ImageSet) -> dict[str, int]:
    """`ImageSet.parts` of a memory: hard labels follow from the order of its images and cost nothing, soft ones count.

    Images whose pixels are whole levels, as real ones are, cost a byte a value whatever they are held as.
    """
    parts = image_set.parts
    if image_set.decoder is None and image_set.images.element_size() > 1 and _whole_levels(image_set):
        parts["stored"] = image_set.images.numel()
    return {**parts, "labels": _label_bytes(image_set)}


def _label_bytes(image_set: ImageSet) -> int:
    return image_set.labels.nbytes if image_set.labels.ndim == 2 else 0


def _whole_levels(image_set: ImageSet) -> bool:
    levels = image_set.pixels() * 255
    return bool(((levels - levels.round()).abs() < 1e-2).all()) and bool((levels > -0.5).all() & (levels < 255.5).all())


# how a memory is kept -> the set as it comes back, and its bytes by part; float32 as made is no entry

Stored = tuple[ImageSet, dict[str, int]]


def _as_uint8(image_set: ImageSet) -> Stored:
    """Pixels rounded to whole levels, one byte each."""
    kept = replace(image_set.decoded(), images=_levels(image_set), space=PixelSpace())
    return kept.to_space(image_set.space), memory_parts(kept)


def _as_jpeg(image_set: ImageSet) -> Stored:
    """Each image as a JPEG file of quality `JPEG_QUALITY`."""
    from PIL import Image

    levels, shown, size = _levels(image_set), [], 0
    for one in levels.permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(one.squeeze(-1) if one.shape[-1] == 1 else one).save(file, "JPEG", quality=JPEG_QUALITY)
        size += file.tell()
        back = np.array(Image.open(file))
        shown.append(torch.from_numpy(back.reshape(one.shape)).permute(2, 0, 1))
    kept = replace(image_set.decoded(), images=torch.stack(shown), space=PixelSpace())
    parts = {"stored": size, "labels": _label_bytes(image_set), "decoder": 0}
    return kept.to_space(image_set.space), parts


def _levels(image_set: ImageSet) -> torch.Tensor:
    return (image_set.pixels().clamp(0, 1) * 255).round().to(torch.uint8)


STORAGE: Mapping[str, Callable[[ImageSet], Stored]] = {"uint8": _as_uint8, "jpeg": _as_jpeg}


def kept_as(image_set: ImageSet, storage: str = "") -> Stored:
    """The set as it comes back from a storage of `STORAGE`, and its bytes by part; as it is where none is named.

    Raises UnknownNameError for another name.
    """
    if not storage:
        return image_set, memory_parts(image_set)
    if storage not in STORAGE:
        raise UnknownNameError("storage of a memory", storage, STORAGE)
    return STORAGE[storage](image_set)


@dataclass(frozen=True)
class Condenser:
    """How a memory is condensed: the method, and which recipe it takes.

    dataset, protocol: whose recipe. overrides: keys of it with other values, as texts.
    """

    method: str = "dsa"
    flip: str = "fyi"
    dataset: str = "cifar100"
    protocol: str = "quick"
    seed: int = 0
    overrides: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # a wrong name or key is told now, not when the first experience has been learned
        recipe(self.method, self.dataset, 1, self.protocol).with_overrides(dict(self.overrides))
        FLIPS.get(self.flip)

    def __call__(self, real: ImageSet, ipc: int, classes: Sequence[int] = ()) -> ImageSet:
        """The condensed set of these classes (default: all) of the real images, labels kept.

        Raises UsageError where the method finds nothing to match in a single class.
        """
        values = recipe(self.method, self.dataset, ipc, self.protocol).with_overrides(dict(self.overrides)).values
        problem = Problem(real, real.space, ipc, self.seed, classes=tuple(classes))
        made = distill(problem, self.method, config_of(self.method, values), self.flip)
        if problem.num_classes == 1 and values["iterations"]:
            first = distill(problem, self.method, config_of(self.method, {**values, "iterations": 0}), self.flip)
            if torch.equal(first.images, made.images):
                raise UsageError(
                    f"{self.method} learns from a classifier, and one class alone has none: its images did not move.\n"
                    "Condense several classes at a time, or use a method that matches features: dm."
                )
        return made


def condense(data: Any, ipc: int, condenser: Condenser | None = None, space: Space | None = None) -> ImageSet:
    """Condense a torch dataset of (image, label, …) to `ipc` images a class, labels kept.

    data: images as float tensors [ch, H, W], such as a task's of Mammoth without augmentation. space: in which they
    are; where it is not said, that of a set of ours, else pixels in [0, 1]. Raises DataError for images that are no
    tensors.
    """
    return (condenser or Condenser())(read_images(data, space), ipc)


def read_images(data: Any, space: Space | None = None, num_classes: int | None = None) -> ImageSet:
    """A dataset of (float image, label, …) as one ImageSet. num_classes: of the head, by default as the labels say."""
    items = [data[index] for index in range(len(data))]
    if not items:
        raise DataError("There are no images to condense.\nAn experience needs one image a class, at least.")
    if not all(isinstance(image, torch.Tensor) for image, *_ in items):
        raise DataError(
            f"The images to condense are {type(items[0][0]).__name__}, not tensors.\n"
            "Give the benchmark an eval_transform that ends in a tensor, as ToTensor() does."
        )
    labels = torch.tensor([int(label) for _, label, *_ in items])
    classes = num_classes or int(labels.max()) + 1
    space = space or getattr(data, "space", None) or PixelSpace()
    return ImageSet(torch.stack([image for image, *_ in items]), labels, space, classes).validate()

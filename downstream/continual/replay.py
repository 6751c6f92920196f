"""How a condensed image stands in for the real ones of an experience: its transforms, and its attributes.

Real images are condensed as eval mode shows them. When a condensed image is replayed it passes through the train
transforms of the experience, as a stored real image would: what comes before the tensor (crops, flips) is applied to
the condensed pixels, what normalises comes after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from distill.image_set import ImageSet
from distill.spaces import NormalizedSpace, PixelSpace, Space
from downstream.continual.library import AvalancheDataset, DataAttribute, TaskLabels, TransformGroups
from downstream.continual.memory import MemoryDataset
from fyi_bench.errors import DataError

# transforms, by their names in torchvision, that turn a picture into a tensor of pixels; a condensed image is one
_TO_TENSOR = {"ToTensor", "PILToTensor", "ToImage", "ToDtype", "ConvertImageDtype", "ConvertDtype"}
_LOOKED_AT = 4  # images read twice, to see whether eval mode draws


@dataclass(frozen=True)
class Transforms:
    """What an experience's data set does to an image, step by step, in eval and in train mode."""

    eval: list[Any]
    train: list[Any]

    @property
    def space(self) -> Space:
        """The space of an image in eval mode: normalised, where normalising comes last; else pixels."""
        last: Any = self.eval[-1] if self.eval else None
        if type(last).__name__ == "Normalize":
            return NormalizedSpace(tuple(map(float, last.mean)), tuple(map(float, last.std)))
        return PixelSpace()

    @property
    def same(self) -> bool:
        """Whether train mode does what eval mode does."""
        return repr(self.eval) == repr(self.train)

    def replay(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """The train transforms for an image in eval mode's space. Raises DataError where they cannot be derived."""
        names = [type(step).__name__ for step in self.eval]
        after = names[max((k for k, name in enumerate(names) if name in _TO_TENSOR), default=-1) + 1 :]
        if [name for name in after if name != "Normalize"] and any(name in _TO_TENSOR for name in names):
            raise DataError(
                f"What eval mode does after {_TO_TENSOR & set(names)} ({', '.join(after)}) cannot be undone before the"
                " train transforms.\nGive CondensedBuffer(transform=…), for images as eval mode shows them."
            )
        space = self.space
        steps = [step for step in self.train if type(step).__name__ not in _TO_TENSOR]

        def replay(image: torch.Tensor) -> torch.Tensor:
            shown = space.decode(image[None])[0]
            for step in steps:
                shown = step(shown)
            return shown

        return replay


def transforms_of(data: Any) -> Transforms:
    """What an AvalancheDataset does to its images. Raises DataError where parts of it do different things."""
    found = {group: list(_chains(data._flat_data, group)) for group in ("eval", "train")}
    for chains in found.values():
        if any(repr(chain) != repr(chains[0]) for chain in chains[1:]):
            raise DataError(
                "The experience joins images with different transforms.\nGive CondensedBuffer(transform=…)."
            )
    return Transforms(*(chains[0] if chains else [] for chains in found.values()))


def _chains(data: Any, group: str) -> Iterator[list[Any]]:
    """The steps that reach each of the data sets below, innermost first."""
    own = [
        step
        for groups in (getattr(data, "_frozen_transform_groups", None), getattr(data, "_transform_groups", None))
        if groups is not None
        for step in _steps(groups.transform_groups[group])
    ]
    inner = getattr(data, "_datasets", None)
    if not inner:
        yield own
        return
    for one in inner:
        for chain in _chains(one, group):
            yield [*chain, *own]


def _steps(transform: Any) -> list[Any]:
    """A transform as single steps: of pairs for image and label the image's, of compositions each."""
    if transform is None:
        return []
    name: str = type(transform).__name__
    parts: Any = getattr(transform, "transforms", None)
    if name == "TupleTransform":
        return _steps(parts[0])
    if name in ("Compose", "MultiParamCompose"):
        return [step for part in parts for step in _steps(part)]
    return [transform]


def stand_ins(
    image_set: ImageSet, real: Any, transform: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> AvalancheDataset:
    """Condensed images as an Avalanche data set like `real`, the data set of the experience they stand for.

    Items have the fields of `real`'s: a task label, and any attribute that all its images of a class share. transform:
    instead of the experience's train transforms. Raises DataError for an attribute that images of one class differ in,
    and for train transforms that do not take tensors.
    """
    labels = image_set.hard_labels.tolist()
    plain = MemoryDataset(image_set)
    chosen = transform or _train_transform(real, plain)
    groups = None if chosen is None else TransformGroups({"train": chosen, "eval": None})
    attributes = [_attribute(attribute, real, labels) for attribute in real._data_attributes.values()]
    return type(real)([plain], data_attributes=attributes, transform_groups=groups)


def _train_transform(real: Any, plain: MemoryDataset) -> Callable[[torch.Tensor], torch.Tensor] | None:
    found = transforms_of(real)
    if found.same:
        return None
    replay = found.replay()
    try:
        shape = replay(plain[0][0]).shape
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise DataError(
            f"The train transforms of the experience do not take a tensor ({error}).\n"
            "Give CondensedBuffer(transform=…), for images as eval mode shows them."
        ) from error
    if shape != plain[0][0].shape:
        raise DataError(
            f"The train transforms turn a condensed image of {tuple(plain[0][0].shape)} into {tuple(shape)}.\n"
            "Give CondensedBuffer(transform=…)."
        )
    return replay


def _attribute(attribute: Any, real: Any, labels: Sequence[int]) -> Any:
    """The attribute for images with these labels: what the real images of their class have."""
    if attribute.name == "targets":
        return DataAttribute(labels, "targets", use_in_getitem=attribute.use_in_getitem)
    of: dict[int, Any] = {}
    for target, value in zip(real.targets, attribute, strict=True):
        if of.setdefault(int(target), value) is not value and bool(of[int(target)] != value):
            raise DataError(
                f"Images of class {int(target)} differ in '{attribute.name}', so a condensed one has no value of it.\n"
                "Leave the attribute out of the benchmark, or write a storage policy that knows it."
            )
    values = [of[label] for label in labels]
    if attribute.name == "targets_task_labels":
        return TaskLabels([int(value) for value in values])
    return DataAttribute(values, attribute.name, use_in_getitem=attribute.use_in_getitem)


def check_eval_mode(data: Any) -> None:
    """Raise DataError where eval mode shows another image each time: then augmentation would be condensed too."""
    for index in range(min(_LOOKED_AT, len(data))):
        first, second = data[index][0], data[index][0]
        if isinstance(first, torch.Tensor) and not torch.equal(first, second):
            raise DataError(
                "In eval mode the experience shows another image each time, so its augmentation would be condensed.\n"
                "Give the benchmark an eval_transform that draws nothing, and the data set itself no transform."
            )

"""CondensedBuffer: condensed memory as a storage policy of Avalanche, for its own strategies and a user's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from distill.image_set import ImageSet, concatenate
from distill.spaces import Space
from downstream.continual.library import (
    DER,
    ExemplarsBuffer,
    FlatData,
    TensorDataAttribute,
    as_classification_dataset,
    concat_datasets,
)
from downstream.continual.memory import Condenser, MemoryDataset, images_worth, read_images
from downstream.continual.replay import check_eval_mode, stand_ins, transforms_of
from fyi_bench.errors import DataError, UsageError

_LOGITS = "logits"
# strategies and plugins of Avalanche that keep a memory of their own making
_OWN_MEMORY = ("GEMPlugin", "AGEMPlugin", "_ICaRLPlugin", "GSS_greedyPlugin", "CoPEPlugin", "RARPlugin")


class _Size(int):
    """A memory's size that says so in words where a plugin compares it with another one."""

    def __eq__(self, other: object) -> bool:
        if isinstance(other, int) and int(other) != int(self):
            raise UsageError(
                f"The plugin's mem_size is {int(other)}, and the max_size of its CondensedBuffer {int(self)}.\n"
                f"Give both the same number: mem_size={int(other)} and max_size={int(other)}."
            )
        return int(self) == other

    __hash__ = int.__hash__


class SetBuffer(ExemplarsBuffer):
    """Memory of finished sets, of up to `max_size` images, that `append` adds to."""

    def __init__(self, max_size: int):
        super().__init__(_Size(max_size))
        self.sets: list[ImageSet] = []
        self._parts: list[Any] = []

    def append(self, image_set: ImageSet, real: Any = None) -> None:
        """Add a finished set. Raises DataError when the memory would exceed its size.

        real: data set of the experience that it stands for, whose fields and train transforms its images get.
        """
        size = images_worth(image_set) + sum(map(images_worth, self.sets))
        if size > int(self.max_size):
            raise DataError(
                f"The memory would hold {size} images, more than its {int(self.max_size)}.\n"
                "Raise max_size or lower the images per class."
            )
        self._add(image_set, as_dataset(image_set) if real is None else stand_ins(image_set, real))

    def _add(self, image_set: ImageSet, part: Any) -> None:
        self.sets.append(image_set)
        self._parts.append(part)
        self.buffer = concat_datasets(self._parts)

    def update(self, strategy: Any, **kwargs: Any) -> None:
        """What Avalanche's plugins call; its own version does the same and warns of a later one."""
        self.post_adapt(strategy, strategy.experience)

    @property
    def image_set(self) -> ImageSet:
        """The whole memory as one ImageSet."""
        return concatenate(self.sets)

    def resize(self, strategy: Any, new_size: int) -> None:
        """Condensed images are not dropped one by one: shrinking below what is held raises DataError."""
        if new_size < sum(map(images_worth, self.sets)):
            raise DataError("A condensed memory cannot be shrunk.\nDistil again with fewer images per class.")
        self.max_size = _Size(new_size)


class CondensedBuffer(SetBuffer):
    """A storage policy that condenses each experience it meets: `ReplayPlugin(mem_size=200, storage_policy=…)`.

    method, fyi (short for flip='fyi'), flip, seed: how an experience is condensed. dataset, protocol, overrides: whose
    recipe is taken (`fyi-bench ls recipes`), with what other values.
    max_size: images in all, the same number as the plugin's mem_size. ipc: images per class; by default max_size shared
    equally among the classes of all experiences; a class met in two of them is condensed in each. adaptive: share
    max_size among the classes met so far instead; images of earlier steps are then dropped, the last ones of each class
    first, as their real images are gone.
    sets: finished sets (`fyi_bench.load(path)`) instead of a method; an experience takes the images of its classes.
    num_classes: of the network's head, where the benchmark does not show all classes. space: of the images in eval
    mode, where their transforms do not tell. transform: of replayed images, instead of the experience's own train
    transforms.

    Images are condensed as eval mode shows them and replayed with the experience's train transforms. Items have the
    fields of the experience's own: (image, label), or (image, label, task label) as SplitCIFAR10 gives. In DER the
    network's answers are stored with them.
    """

    def __init__(
        self,
        method: str = "dsa",
        fyi: bool = True,
        *,
        flip: str | None = None,
        ipc: int | None = None,
        max_size: int = 200,
        adaptive: bool = False,
        sets: ImageSet | Sequence[ImageSet] = (),
        num_classes: int | None = None,
        dataset: str = "cifar100",
        protocol: str = "quick",
        seed: int = 0,
        overrides: dict[str, str] | None = None,
        space: Space | None = None,
        transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ):
        given = [sets] if isinstance(sets, ImageSet) else list(sets)
        if not all(isinstance(one, ImageSet) for one in given):
            raise UsageError("`sets` takes ImageSets.\nRead a file with fyi_bench.load(path).")
        if not hasattr(max_size, "__index__") or max_size < 1:
            raise UsageError(f"`max_size` is a number of images, 1 or more, not {max_size!r}.")
        if adaptive and ipc is not None:
            raise UsageError("adaptive=True and ipc contradict each other.\nGive one of them.")
        super().__init__(max_size)
        self.condenser = Condenser(
            method, flip or ("fyi" if fyi else "none"), dataset, protocol, seed, dict(overrides or {})
        )
        self.given = given
        self.ipc, self.adaptive, self.num_classes = ipc, adaptive, num_classes
        self.space, self.transform = space, transform

    def post_adapt(self, agent_state: Any, exp: Any) -> None:
        """Condense the experience's classes and add the set to the memory."""
        classes = sorted(int(c) for c in exp.classes_in_this_experience)
        share = self._share(exp, len(classes))
        shown = exp.dataset.eval()
        space = self.space or transforms_of(exp.dataset).space
        if self.given:
            made = self._picked(classes, share).to_space(space)
        else:
            check_eval_mode(shown)
            everything = [int(c) for one in exp.origin_stream for c in one.classes_in_this_experience]
            real = read_images(shown, space, self.num_classes or max(everything) + 1)
            made = self.condenser(real, share, classes)
        if self.adaptive:
            self._cut(share)
        held = images_worth(made) + sum(map(images_worth, self.sets))
        if held > int(self.max_size):
            raise DataError(
                f"The memory would hold {held} images, more than its {int(self.max_size)}.\n"
                "Raise max_size or lower the images per class."
            )
        part = stand_ins(made, exp.dataset, self.transform)
        self._add(made, _with_logits(part, agent_state) if isinstance(agent_state, DER) else part)

    def attach(self, strategy: Any) -> Any:
        """Make this the memory of a strategy or plugin that is built already, and return that.

        Raises UsageError where its size is another, or where it keeps a memory of its own making (GEM, AGEM, iCaRL).
        """
        holders = [strategy, *getattr(strategy, "plugins", ())]
        for one in holders:
            if hasattr(one, "storage_policy"):
                if self.max_size == one.mem_size:
                    one.storage_policy = self
                return strategy
        names = [type(one).__name__ for one in holders if type(one).__name__ in _OWN_MEMORY]
        what = names[0].strip("_").removesuffix("Plugin") if names else type(strategy).__name__
        raise UsageError(
            f"{what} takes no storage policy: it keeps images of its own choice.\n"
            "Use ReplayPlugin, GDumb, ER_ACE, DER or your own strategy; or see its memory filled in docs/continual.md."
        )

    def _share(self, exp: Any, classes: int) -> int:
        """Images a class."""
        if self.ipc is not None:
            return self.ipc
        if self.adaptive:
            groups = sum(len(one.classes) for one in self.sets) + classes
        else:
            groups = sum(len(one.classes_in_this_experience) for one in exp.origin_stream)
        share = int(self.max_size) // groups
        if not share:
            raise UsageError(
                f"{int(self.max_size)} images are none for each class of each experience, {groups} in all.\n"
                "Raise max_size."
            )
        return share

    def _cut(self, share: int) -> None:
        """Keep the first images of each class, so many."""
        for number, one in enumerate(self.sets):
            kept = torch.cat([one.indices_of(c)[:share] for c in one.classes]).sort().values
            if len(kept) < len(one):
                self.sets[number] = one.select(kept)
                self._parts[number] = self._parts[number].subset(kept.tolist())

    def _picked(self, classes: Sequence[int], share: int) -> ImageSet:
        """The images of these classes from the sets that were given, at most so many each."""
        found = [part for one in self.given if len(part := one.decoded().of_classes(classes))]
        held = {c for one in found for c in one.classes}
        if lacking := sorted(set(classes) - held):
            raise DataError(
                f"The sets have no images of class {lacking[0]}.\nGive sets of all classes of the benchmark, numbered"
                " as it numbers them."
            )
        joined = concatenate([one.to_space(found[0].space) for one in found])
        index = torch.cat([joined.indices_of(c)[: share * joined.variants] for c in classes])
        return joined.select(index)


def as_dataset(image_set: ImageSet, space: Space | None = None) -> Any:
    """An ImageSet as an Avalanche classification dataset."""
    return as_classification_dataset(MemoryDataset(image_set, space))


@torch.no_grad()
def _with_logits(part: Any, strategy: Any) -> Any:
    """The images with what the strategy's network answers to each, as DER stores it."""
    model, shown, rows = strategy.model, part.eval(), []
    training = model.training
    model.eval()
    size = max(1, strategy.train_mb_size)
    for start in range(0, len(shown), size):
        images = torch.stack([shown[index][0] for index in range(start, min(start + size, len(shown)))])
        rows += list(model(images.to(strategy.device)).cpu())
    model.train(training)
    data = FlatData([rows], discard_elements_not_in_indices=True)
    return part.update_data_attribute(_LOGITS, TensorDataAttribute(data, _LOGITS, use_in_getitem=True))

"""The space of foreign images: what the caller says, else what the format says, else what the numbers look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from distill.recipes import recipe
from distill.spaces import NormalizedSpace, PixelSpace, Space, WhitenedSpace
from fyi_bench.data.entry import DatasetEntry, Statistics, find_entry
from fyi_bench.data.load import load_dataset
from fyi_bench.data.real import statistics
from fyi_bench.data.whitening import zca_space
from fyi_bench.errors import DataError, UnknownNameError, UsageError
from fyi_bench.formats.base import Options, Raw
from fyi_bench.formats.looks import Looks
from fyi_bench.formats.origin import Origin

KINDS = ("pixel", "normalized", "zca")  # what `space=` may say
_MTT_WHITENING = "ZCA with eps 0.1"
_MOSTLY = 0.25  # share of values outside [0, 1] that no pixels have


@dataclass
class Case:
    """Everything that decides the space, and what is told of the decision.

    per_class: images per class, or None. family: of channel constants. notes: what was guessed; warnings: what is odd.
    """

    images: torch.Tensor
    looks: Looks
    raw: Raw
    options: Options
    origin: Origin
    per_class: int | None
    family: str
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def resolve(self) -> Space:
        """The space of the set. Raises DataError where what was stated cannot be, or constants are not known."""
        given, looks = self.options.space, self.looks
        if isinstance(given, Space):
            self._check_possible(given.kind)
            return given
        kind = _stated_kind(self.options)
        if kind:
            self._check_possible(kind)
        else:
            kind = self._guessed_kind()
        if kind == "pixel":
            return PixelSpace()
        found = self._normalised() if kind == "normalized" else self._whitened()
        if kind == "normalized" and looks.like_pixels and looks.low >= 0:
            self.warnings.append("stated to be normalised, but the values lie in [0, 1] like pixels")
        return found

    def _check_possible(self, kind: str) -> None:
        looks = self.looks
        if self.images.dtype == torch.uint8 and kind != "pixel":
            raise DataError(
                f"The images are uint8, so they are pixels, not '{kind}'.\nLeave space, mean, std and zca out."
            )
        if kind == "pixel" and looks.below + looks.above > _MOSTLY:
            raise DataError(
                f"These are no pixels in [0, 1]: {looks.text()}.\nSay space='normalized' or 'zca', or nothing."
            )
        if kind in ("zca", "whitened") and looks.like_pixels and looks.low >= 0:
            raise DataError(f"These are no whitened images: {looks.text()}.\nSay space='pixel', or nothing.")

    def _guessed_kind(self) -> str:
        looks, raw = self.looks, self.raw
        if self.images.dtype == torch.uint8:
            self.notes.append("space pixel: uint8 images")
            return "pixel"
        seen = "pixel" if looks.like_pixels else "zca" if looks.whitened == 1 else "normalized"
        if raw.space == seen or (raw.space and "pixel" not in (raw.space, seen)):
            self.notes.append(f"space {raw.space}: {raw.space_reason}")
            if raw.space == "normalized" and looks.whitened == 1:
                self.warnings.append(f"it looks whitened ({looks.text()}): state space='zca' if it is")
            return raw.space
        if raw.space:
            odd = f"{raw.space_reason} ({raw.space}), but it looks {seen} ({looks.text()}): taken so"
            self.warnings.append(odd)
            return seen
        if looks.whitened == 0.5:
            return self._undecided()
        self.notes.append(f"space {seen}: {looks.text()}")
        return seen

    def _undecided(self) -> str:
        """Where the numbers fit both, the published setting of the method, or of such files' writer, decides."""
        published = self._published_zca()
        kind = "zca" if published else "normalized"
        habit = {True: "uses ZCA", False: "uses channel normalisation", None: "is not known"}[published]
        self.notes.append(f"space {kind}: {self.looks.text()}, which fits both; the published setting {habit}")
        self.warnings.append(
            "whether these images are whitened is not certain: state space='normalized' or space='zca'"
        )
        return kind

    def _published_zca(self) -> bool | None:
        method = self.raw.method or self.raw.writer
        if not (method and self.origin.name and self.per_class):
            return None
        try:
            return bool(recipe(method, self.origin.name, self.per_class).values.get("zca", False))
        except UnknownNameError:  # a method without a recipe
            return None

    def _normalised(self) -> Space:
        channels, options, entry = self.images.shape[1], self.options, self.origin.entry
        if options.mean is not None and options.std is not None:
            return _stated_constants(channels, options.mean, options.std)
        if self.looks.like_symmetric:
            self.notes.append("mean and std 0.5: values fill [-1, 1]")
            return NormalizedSpace((0.5,) * channels, (0.5,) * channels)
        if entry is None:
            raise DataError(
                f"The images look normalised ({self.looks.text()}), but it is not known with which constants.\n"
                "State the data set (dataset=cifar10 …), or mean=… and std=…."
            )
        constants = self._constants(entry)
        others = [
            name for name in self.origin.rivals
            if not find_entry(name).statistics or statistics(name, self.family) != constants
        ]  # fmt: skip
        if others:
            odd = f"the constants are {entry.name}'s, but it may be {', '.join(others)}: state dataset=…"
            self.warnings.append(odd)
        return NormalizedSpace(*constants)

    def _constants(self, entry: DatasetEntry) -> Statistics:
        """The published ones of a data set, else those of its train images on this machine."""
        if not entry.statistics:
            self.notes.append(f"channel constants: of the train images of {entry.name}")
            return statistics(load_dataset(entry.name, self.options.data_root, test=False, download=False), self.family)
        constants = statistics(entry.name, self.family)
        borrowed = constants != statistics(entry.name)
        of = " are those of CIFAR-10, as code of this family has them" if borrowed else ""
        self.notes.append(f"channel constants of {entry.name}{of}")
        return constants

    def _whitened(self) -> Space:
        given, raw, name = self.options.zca, self.raw, self.origin.name
        if given:
            return given if isinstance(given, Space) else self._fitted_to(given)
        if not name:
            of = f"whitened as {raw.whitening}" if raw.whitening else "whitened, and the data set is not known"
            what = "the matrix is not here, so the images cannot be turned to pixels or trained against test data"
            self.warnings.append(f"{of}: {what}")
            return WhitenedSpace(raw.whitening or "ZCA", name)
        try:
            return self._fitted_to(name)
        except DataError as error:
            reason = str(error).splitlines()[0].rstrip(".")
            odd = f"the ZCA matrix of {name} is not known without its train images ({reason}): name their folder"
            self.warnings.append(odd)
            return WhitenedSpace(raw.whitening or _MTT_WHITENING, name)

    def _fitted_to(self, name: str) -> Space:
        """The ZCA space of the train images of a data set of this machine; its matrix is fitted at first use."""
        data, shape = load_dataset(name, self.options.data_root, test=False, download=False), self.images.shape[1:]
        if data.train.shape != tuple(shape):
            raise DataError(
                f"Images of shape {tuple(shape)} cannot be whitened by {name}'s matrix.\nName the right data."
            )
        self.notes.append(f"ZCA matrix: of the train images of {name}")
        if data.note:
            odd = f"the ZCA matrix is of {data.note}; the file's makers had all, so pixels differ a little"
            self.warnings.append(odd)
        constants = NormalizedSpace(*statistics(name, self.family)) if find_entry(name).statistics else None
        return zca_space(data, self.raw.zca, constants) if self.raw.zca else zca_space(data)


def _stated_kind(options: Options) -> str:
    """The kind of space that the options say, directly or by their constants; UsageError where they disagree."""
    if (options.mean is None) != (options.std is None):
        raise UsageError("mean and std belong together.\nState both, or neither.")
    named = str(options.space or "")
    if named and named not in KINDS:
        raise UnknownNameError("space", named, KINDS)
    says = {k for k, v in (("normalized", options.mean), ("zca", options.zca), (named, named)) if v}
    if len(says) > 1:
        raise UsageError(f"The options state two spaces, {' and '.join(sorted(says))}.\nGive one of them.")
    return says.pop() if says else ""


def _stated_constants(channels: int, mean: Sequence[float], std: Sequence[float]) -> NormalizedSpace:
    if len(mean) != channels or len(std) != channels:
        raise DataError(f"The images have {channels} channels; mean has {len(mean)} values.\nGive one a channel.")
    if min(std) <= 0:
        raise DataError(f"std is {min(std):g} in a channel.\nGive one positive std a channel.")
    return NormalizedSpace(tuple(map(float, mean)), tuple(map(float, std)))

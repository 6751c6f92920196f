"""The space of foreign images: what the caller says, else what the format says, else what the numbers look like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from distill.spaces import NormalizedSpace, PixelSpace, Space, WhitenedSpace
from fyi_bench.errors import DataError, UnknownNameError, UsageError
from fyi_bench.formats.base import Options, Raw
from fyi_bench.formats.looks import Looks
from fyi_bench.formats.origin import Origin

KINDS = ("pixel", "normalized", "zca")  # what `space=` may say
_MTT_WHITENING = "ZCA with eps 0.1"
_MOSTLY = 0.25  # share of values outside [0, 1] that no pixels have


@dataclass
class Found:
    """The space, what was guessed, and what is odd."""

    space: Space
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Case:
    """Everything that decides the space. per_class: images per class, or None. family: of channel constants."""

    images: torch.Tensor
    looks: Looks
    raw: Raw
    options: Options
    origin: Origin
    per_class: int | None
    family: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.images.shape[1:])


def resolve(case: Case) -> Found:
    """The space of a set. Raises DataError where what was stated cannot be, or constants are not known."""
    given = case.options.space
    if isinstance(given, Space):
        _check_possible(case, given.kind)
        return Found(given)
    kind, notes, warnings = _stated_kind(case.options), [], []
    if kind:
        _check_possible(case, kind)
    else:
        kind, notes, warnings = _guessed_kind(case)
    found = _BUILDERS[kind](case)
    if kind == "normalized" and case.looks.like_pixels and case.looks.low >= 0:
        found.warnings.append("stated to be normalised, but the values lie in [0, 1] like pixels")
    return Found(found.space, notes + found.notes, warnings + found.warnings)


def _stated_kind(options: Options) -> str:
    """The kind of space that the options say, directly or by their constants; UsageError where they disagree."""
    if (options.mean is None) != (options.std is None):
        raise UsageError("mean and std belong together.\nState both, or neither.")
    says = {k for k, v in (("normalized", options.mean), ("zca", options.zca), (options.space, options.space)) if v}
    unknown = says - set(KINDS)
    if unknown:
        raise UnknownNameError("space", str(unknown.pop()), KINDS)
    if len(says) > 1:
        raise UsageError(f"The options state two spaces, {' and '.join(sorted(says))}.\nGive one of them.")
    return says.pop() if says else ""


def _check_possible(case: Case, kind: str) -> None:
    looks, images = case.looks, case.images
    if images.dtype == torch.uint8 and kind != "pixel":
        raise DataError(f"The images are uint8, so they are pixels, not '{kind}'.\nLeave space, mean, std and zca out.")
    if kind == "pixel" and looks.below + looks.above > _MOSTLY:
        raise DataError(f"These are no pixels in [0, 1]: {looks.text()}.\nSay space='normalized' or 'zca', or nothing.")
    if kind in ("zca", "whitened") and looks.like_pixels and looks.low >= 0:
        raise DataError(f"These are no whitened images: {looks.text()}.\nSay space='pixel', or nothing.")


def _guessed_kind(case: Case) -> tuple[str, list[str], list[str]]:
    """(kind, notes, warnings)."""
    looks, raw = case.looks, case.raw
    if case.images.dtype == torch.uint8:
        return "pixel", ["space pixel: uint8 images"], []
    seen = "pixel" if looks.like_pixels else "zca" if looks.whitened == 1 else "normalized"
    if raw.space == seen or (raw.space and "pixel" not in (raw.space, seen)):
        odd = raw.space == "normalized" and looks.whitened == 1
        doubt = [f"it looks whitened ({looks.text()}): state space='zca' if it is"] if odd else []
        return raw.space, [f"space {raw.space}: {raw.space_reason}"], doubt
    if raw.space:
        return seen, [], [f"{raw.space_reason} ({raw.space}), but it looks {seen} ({looks.text()}): taken so"]
    if looks.whitened == 0.5:
        return _undecided(case)
    return seen, [f"space {seen}: {looks.text()}"], []


def _undecided(case: Case) -> tuple[str, list[str], list[str]]:
    """Where the numbers fit both, the published setting of the method decides."""
    published = _published_zca(case)
    kind = "zca" if published else "normalized"
    habit = {True: "uses ZCA", False: "uses channel normalisation", None: "is not known"}[published]
    note = f"space {kind}: {case.looks.text()}, which fits both; the published setting {habit}"
    return kind, [note], ["whether these images are whitened is not certain: state space='normalized' or space='zca'"]


def _published_zca(case: Case) -> bool | None:
    from distill.recipes import recipe

    if not (case.raw.method and case.origin.name and case.per_class):
        return None
    try:
        return bool(recipe(case.raw.method, case.origin.name, case.per_class).values.get("zca", False))
    except UnknownNameError:  # a method without a recipe file
        return None


def _pixel(case: Case) -> Found:
    return Found(PixelSpace())


def _normalised(case: Case) -> Found:
    from fyi_bench.data.real import statistics

    channels, options = case.shape[0], case.options
    if options.mean is not None:
        mean, std = tuple(map(float, options.mean)), tuple(map(float, options.std))
        if len(mean) != channels or len(std) != channels:
            raise DataError(f"The images have {channels} channels; mean has {len(mean)} values.\nGive one a channel.")
        if min(std) <= 0:
            raise DataError(f"std is {min(std):g} in a channel.\nGive one positive std a channel.")
        return Found(NormalizedSpace(mean, std))
    if case.looks.like_symmetric:
        return Found(NormalizedSpace((0.5,) * channels, (0.5,) * channels), ["mean and std 0.5: values fill [-1, 1]"])
    entry = case.origin.entry
    if entry is None:
        raise DataError(
            f"The images look normalised ({case.looks.text()}), but it is not known with which constants.\n"
            "State the data set (dataset=cifar10 …), or mean=… and std=…."
        )
    constants = statistics(entry.name, case.family)
    borrowed = " are those of CIFAR-10, as code of this family has them" if constants != statistics(entry.name) else ""
    found = Found(NormalizedSpace(*constants), [f"channel constants of {entry.name}{borrowed}"])
    others = [name for name in case.origin.rivals if statistics(name, case.family) != constants]
    if others:
        found.warnings.append(f"the constants are {entry.name}'s, but it may be {', '.join(others)}: state dataset=…")
    return found


def _zca(case: Case) -> Found:
    given, raw, name = case.options.zca, case.raw, case.origin.name
    if isinstance(given, Space):
        return Found(given)
    if given:
        return _fitted_to(case, given)
    if raw.whitening or not name:
        of = f"whitened as {raw.whitening}" if raw.whitening else "whitened, and the data set is not known"
        warning = f"{of}: the matrix is not here, so the images cannot be turned to pixels or trained against test data"
        return Found(WhitenedSpace(raw.whitening or "ZCA", name), [], [warning])
    try:
        return _fitted_to(case, name)
    except DataError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        warning = f"the ZCA matrix of {name} is not known without its train images ({reason}): name their folder"
        return Found(WhitenedSpace(_MTT_WHITENING, name), [], [warning])


def _fitted_to(case: Case, name: str) -> Found:
    """The ZCA space of the train images of a data set that is on this machine; its matrix is fitted at first use."""
    from fyi_bench.data.load import load_dataset
    from fyi_bench.data.whitening import zca_space

    data = load_dataset(name, case.options.data_root, test=False, download=False)
    if data.train.shape != case.shape:
        raise DataError(f"Images of shape {case.shape} cannot be whitened by {name}'s matrix.\nName the right data.")
    found = Found(zca_space(data), [f"ZCA matrix: of the train images of {name}"])
    if data.note:
        found.warnings.append(f"the ZCA matrix is of {data.note}; the file's makers had all, so pixels differ a little")
    return found


_BUILDERS: dict[str, Callable[[Case], Found]] = {"pixel": _pixel, "normalized": _normalised, "zca": _zca}

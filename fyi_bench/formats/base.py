"""The parts of an import: what a format is, what its reader hands over, and what the caller gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.formats.common import SIZE_BUDGET
from fyi_bench.registry import Registry

if TYPE_CHECKING:
    from distill.image_set import ImageSet
    from distill.spaces import Space
    from fyi_bench.formats.source import Source

LAST = -1


@dataclass(frozen=True)
class Options:
    """What the caller states about a file; None = guess it, and say so. The fields are those of `load_set`."""

    dataset: str | None = None
    space: str | Space | None = None
    ipc: int | None = None
    factor: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    zca: str | Space | None = None
    experiment: int = LAST
    step: int | None = None
    labels: str | None = None
    lr: float | None = None
    data_root: str | Path | None = None
    max_bytes: int = SIZE_BUDGET


@dataclass
class Raw:
    """What a reader found, as it was stored.

    images: a tensor or array in any layout and type (`pixels` mends it). labels: likewise, or None where the file
    has none (then they are class-major). label_kind: 'hard', 'probabilities', 'logits', 'targets' (regression
    targets) or '' where the numbers must tell. space: 'pixel', 'normalized' or 'zca' where the format says
    so, with the reason. method: the name of the method, as far as it is known. family: whose channel constants.
    dataset: what the file says it was made from. finished: an ImageSet that needs no further guess.
    """

    images: Any = None
    labels: Any = None
    label_kind: str = ""
    space: str = ""
    space_reason: str = ""
    whitening: str = ""
    class_names: tuple[str, ...] = ()
    num_classes: int | None = None
    dataset: str = ""
    method: str = ""
    family: str = ""
    factor: int = 1
    decode_type: str = "single"
    lr: float | None = None
    guesses: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    finished: ImageSet | None = None


@dataclass(frozen=True)
class Format:
    """A layout of files.

    title: one line for listings. recognise(source): why the source is of this layout, or ''; it may raise DataError
    for content that is damaged. read(source, options): the content; DataError where it is not of this layout.
    rank: formats are tried from low to high, so that special ones come before those they are a case of.
    family: whose channel constants its makers used ('dc' or 'mtt', see `fyi_bench.data.statistics`).
    takes: which of the options 'experiment' and 'step' mean something for it.
    """

    name: str
    title: str
    recognise: Callable[[Source], str]
    read: Callable[[Source, Options], Raw]
    rank: int = 50
    family: str = "dc"
    takes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Imported:
    """A set of others as an ImageSet, with everything that was not stated but guessed, and what is odd about it."""

    image_set: ImageSet
    format: str
    guesses: list[str]
    warnings: list[str]


# name -> format; a file in `fyi_bench/formats/layouts` registers by being there
IMPORTERS: Registry[Format] = Registry(
    "format", package="fyi_bench.formats.layouts", group="fyi_bench.formats", base=Format
)


def register(entry: Format) -> Format:
    """Make a format known by its name."""
    IMPORTERS.register(entry.name, entry)
    return entry

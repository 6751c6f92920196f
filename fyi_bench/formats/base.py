"""The parts of a format: what it is, what its reader hands over, and what the callers get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fyi_bench.errors import DataError, UnknownNameError
from fyi_bench.formats.opening import SIZE_BUDGET
from fyi_bench.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from distill.decoders import Decoder
    from distill.image_set import ImageSet
    from distill.spaces import Space
    from distill.zca import ZCASpace
    from fyi_bench.formats.input_files import InputFiles

LAST = -1


@dataclass(frozen=True)
class Options:
    """What the caller states about a file; None = guess it, and say so.

    dataset: what it was made from. space: 'pixel', 'normalized', 'zca' or a Space; mean and std: constants of
    'normalized' (one a channel); zca: the ZCA Space, or the data set its matrix is fitted to. ipc: images per class.
    factor: tiles a side of each image (IDC). experiment: which of several in one file, counted from the end if
    negative; step: which step of a continual file (default: all). labels: what soft rows are, 'hard' (take the
    largest), 'logits' or 'probabilities'. lr: learned step size. classes: file that lists the classes in the order of
    the set's numbers. data_root: folder of real data, for ZCA and names of classes. method: what made
    it; name: what to call it. max_bytes: what the file may unpack to.
    """

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
    classes: str | Path | None = None
    method: str | None = None
    name: str | None = None
    data_root: str | Path | None = None
    max_bytes: int = SIZE_BUDGET


@dataclass
class Raw:
    """What a reader found, as it was stored.

    images: a tensor or array in any layout and type (`pixels` mends it). labels: likewise, or None where the file
    has none (then they are class-major). label_kind: 'hard', 'probabilities', 'logits', 'targets' (regression
    targets) or '' where the numbers must tell. class_names: what the file calls the classes that its labels number;
    numbered: whether it states these numbers, or they are only the order in which the names were found.
    space: 'pixel', 'normalized' or 'zca' where the format says so, with the reason. method: the name of the method, as
    far as it is known. writer: the method whose code writes such files, whose settings decide where numbers do not.
    dataset: what the file says it was made from. variants: images in turn that stand for one.
    finished: an ImageSet that needs no further guess.
    factor: tiles a side as the file says it; tiled: whether files of this layout usually hold several.
    rows, decoder: the stored form, where `images` are what its decoder makes of it (`from_rows`). zca: how its makers
    whiten, where it is not MTT's way.
    """

    images: Any = None
    labels: Any = None
    label_kind: str = ""
    space: str = ""
    space_reason: str = ""
    whitening: str = ""
    class_names: tuple[str, ...] = ()
    numbered: bool = False
    num_classes: int | None = None
    dataset: str = ""
    method: str = ""
    writer: str = ""
    factor: int | None = None
    tiled: bool = False
    decode_type: str = "single"
    variants: int = 1
    lr: float | tuple[float, ...] | None = None
    rows: Tensor | None = None
    decoder: Decoder | None = None
    zca: type[ZCASpace] | None = None
    guesses: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    finished: ImageSet | None = None

    def from_rows(self, decoder: Decoder, rows: Tensor) -> Raw:
        """It, with a stored form as our files keep it. Raises DataError where the decoder cannot read the rows."""
        from distill.decoders import images_of

        try:
            decoder = replace(decoder, tensors=dict(sorted(decoder.tensors.items())))
            rows = decoder.unpack(decoder.pack(rows))
            images = images_of(decoder, rows)
        except (RuntimeError, ValueError, KeyError, IndexError) as error:
            what = str(error).splitlines()[0][:100]
            raise DataError(f"Its decoder cannot read the stored rows ({what}).\nCopy all its files again.") from error
        return replace(self, images=images, rows=rows, decoder=decoder, variants=decoder.variants)


class Format:
    """A public layout of files: a subclass says how it is read (`looks`, `read`), written (`write`), or both.

    Its docstring's first line is its title. A file in `fyi_bench/formats/layouts` is found by being there, a plug-in's
    by its entry point of the group `fyi_bench.formats`.
    rank: formats are tried from low to high, so that special ones come before those they are a case of. family: whose
    channel constants its makers use ('dc' or 'mtt', see `fyi_bench.data.statistics`). takes: which of the options
    'experiment' and 'step' mean something for it.
    suffix: of the one file it writes; '' = it writes a folder. spaces: kinds of space its readers expect, the first
    being what others are converted to; empty = any, kept as it is. bytes_only: images are written as uint8 pixels.
    tiles, soft: whether it can say that images hold several tiles, and soft labels with a learned step size.
    whole: whether it can say all that a set can: decoders, kinds of soft labels.
    """

    name: ClassVar[str]
    rank: ClassVar[int] = 50
    family: ClassVar[str] = "dc"
    takes: ClassVar[tuple[str, ...]] = ()
    suffix: ClassVar[str] = ""
    spaces: ClassVar[tuple[str, ...]] = ()
    bytes_only: ClassVar[bool] = False
    tiles: ClassVar[bool] = False
    soft: ClassVar[bool] = False
    whole: ClassVar[bool] = False

    def looks(self, files: InputFiles) -> str:
        """Why the files are of this layout, or '' (then others are tried); DataError for damaged content."""
        return ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """What the files hold; DataError where they are not of this layout."""
        raise NotImplementedError(self.name)

    def write(self, image_set: ImageSet, path: Path) -> list[Path]:
        """The files it wrote. The set comes as the format can hold it; what that lost has been told."""
        raise NotImplementedError(self.name)


def formats_that(can: str) -> dict[str, Format]:
    """The usable formats by name that can 'read' or 'write'."""
    found, _ = FORMATS.usable()
    return {name: entry() for name, entry in found.items() if getattr(entry, can) is not getattr(Format, can)}


def named_format(name: str, can: str) -> Format:
    """The format of this name, which can 'read' or 'write'. Raises UnknownNameError, PluginError for a broken one."""
    known, name = formats_that(can), FORMATS.spelled(name)
    if name in FORMATS and name not in known:
        FORMATS.get(name)  # says what is wrong with a broken one
    if name not in known:
        raise UnknownNameError("export format" if can == "write" else "format", name, known)
    return known[name]


@dataclass(frozen=True)
class Imported:
    """A set of others as an ImageSet, with everything that was not stated but guessed, and what is odd about it.

    dataset: what it was made from, as far as that was stated or guessed, else ''. contradiction: what says otherwise.
    own: whether the file carries all its facts, so that nothing was guessed.
    """

    image_set: ImageSet
    format: str
    guesses: list[str]
    warnings: list[str]
    dataset: str = ""
    contradiction: str = ""
    own: bool = False


# name -> format
FORMATS: Registry[type[Format]] = Registry(
    "format", package="fyi_bench.formats.layouts", group="fyi_bench.formats", base=Format
)

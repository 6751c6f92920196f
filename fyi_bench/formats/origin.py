"""Where a set comes from: its data set (by what the caller says, else names, else shapes) and its method (by names)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from fyi_bench.data.classes import stated_classes
from fyi_bench.data.entry import DATASETS, DatasetEntry, find_entry
from fyi_bench.errors import DataError

_METHODS = (
    r"dsa|datadam|cafe|dc|dm|idm|herding|random|kmeans|kcenter|mtt|tesla|ftd|datm|idc|dream|haba|kip|frepo|fred|rtp"
)
_METHODS += r"|sre2l|cda|g_?vbsm|rded|edc|delt|cudd|lpld|dwa|ncfm|minimax"
_FREE_FORMS = {"tinyimagenet": r"tiny[-_ ]?imagenet", "fashionmnist": r"fashion[-_ ]?mnist|fmnist"}
# of sets with the same shape and number of classes, the one most published files are of
_USUAL = ("cifar10", "mnist")


def method_in(*texts: str) -> str:
    """The method that the first of these names of files and folders names, as a word of its own, or ''."""
    found = (re.search(rf"(?<![a-z])({_METHODS})(?![a-z0-9])", text.lower()) for text in texts)
    return next((match.group(1) for match in found if match), "")


@dataclass
class Origin:
    """entry: the data set, or None. sure: False where only the shape speaks for it, `rivals` then has the others.

    called: name of a data set whose classes these are, though its images have another size. contradiction: what names
    another data set than the one that was stated, or ''.
    """

    entry: DatasetEntry | None = None
    sure: bool = True
    rivals: list[str] = field(default_factory=list)
    called: str = ""
    contradiction: str = ""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the data set where it is sure, else ''."""
        return self.entry.name if self.entry and self.sure else ""

    @property
    def classes_of(self) -> str:
        """Name of the data set whose classes these are, else ''."""
        return self.name or self.called

    @property
    def found_by(self) -> str:
        """What finds the data set whose classes these are: its name, or where a user's folder is."""
        return (self.entry.source if self.entry and self.sure else "") or self.classes_of

    @property
    def num_classes(self) -> int | None:
        """Number of classes of the data set, where known."""
        return self.entry.num_classes if self.entry else None


def stated(name: str, shape: tuple[int, ...], classes: int | None, names: Sequence[tuple[str, str]] = ()) -> Origin:
    """The data set the caller named; DataError where the images cannot be of it.

    names: (where, text) that may say otherwise, as `names_of` gives them.
    """
    entry = find_entry(name)
    problem = _misfit(entry, shape, classes)
    if problem:
        raise DataError(f"The file is not of {entry.name}: {problem}.\nName the right data set, or leave it out.")
    where, text, other = next(((w, t, e) for w, t in names if (e := _named(t))), ("", "", None))
    differs = other is not None and not same_data(other.name, entry.name) and not _misfit(other, shape, classes)
    origin = Origin(entry)
    if other is not None and differs:
        origin.contradiction = f"{where} '{text}' says {other.name}, but {entry.name} was stated"
        origin.warnings.append(origin.contradiction)
    return origin


def channels_of(name: str | None, names: Sequence[tuple[str, str]]) -> int | None:
    """Channels of the data set that was stated, or else is named; None where none is."""
    entry = find_entry(name) if name else next((e for _, text in names if (e := _named(text))), None)
    return entry.channels if entry else None


def same_data(name: str, other: str) -> bool:
    """Whether two names are of one data set, as mnist and mnist-mirrored, which has its classes and its files."""
    if name == other:
        return True
    entries = DATASETS.usable()[0]
    layouts = [entries[each].layouts for each in (name, other) if each in entries]
    return len(layouts) == 2 and layouts[0] == layouts[1] != ()


def names_of(hint: str, named: Sequence[str]) -> list[tuple[str, str]]:
    """Where a data set may be named: in the file (`hint`), in its name, in those of its folders."""
    return [("the file", hint), *(("the name", part) for part in named)]


def guessed(
    hint: str, named: Sequence[str], shape: tuple[int, ...], classes: int | None, names: Sequence[str] = ()
) -> Origin:
    """The data set by what the file says (`hint`), by the names of file and folders, or by shape and classes.

    shape: (channels, height, width). classes: their number, or None where the file does not tell; names: theirs.
    """
    origin = Origin()
    for where, text in names_of(hint, named):
        if entry := _named(text):
            if problem := _misfit(entry, shape, classes):
                origin.warnings.append(f"{where} '{text}' says {entry.name}, but {problem}: not believed")
                break
            origin.entry = entry
            origin.notes.append(f"data set {entry.name}: {where} '{text}' says so")
            return origin
    return _by_shape(origin, shape, classes, names)


def _by_shape(origin: Origin, shape: tuple[int, ...], classes: int | None, names: Sequence[str]) -> Origin:
    every = [entry for entry in DATASETS.usable()[0].values() if entry.size and not entry.fixed]
    known = [entry for entry in every if not _misfit(entry, shape, classes)]
    if names and not all(name.isdigit() for name in names):
        fits = {entry.name for entry in known}
        called = [entry for entry in every if _has_classes(entry, names)]
        called = [entry for entry in called if entry.name in fits] or called
        if len(called) == 1 and called[0].name in fits:
            origin.entry = called[0]
            origin.notes.append(f"data set {called[0].name}: the names of the classes")
        elif len(called) == 1 and len(names) == called[0].num_classes:
            origin.called = called[0].name
        return origin
    fitting = [entry for entry in known if entry.num_classes == classes]
    fitting.sort(key=lambda entry: entry.name not in _USUAL)
    if fitting:
        origin.entry, origin.rivals = fitting[0], [entry.name for entry in fitting[1:]]
        origin.sure = not origin.rivals
        also = f" (so are {', '.join(origin.rivals)})" if origin.rivals else ""
        facts = f"{classes} classes of {shape[2]}x{shape[1]} pixels, {shape[0]} channel{'s' * (shape[0] > 1)}"
        origin.notes.append(f"data set {fitting[0].name}: {facts}{also}")
    return origin


def _has_classes(entry: DatasetEntry, names: Sequence[str]) -> bool:
    """Whether all are classes of a data set, as far as that is known without its files."""
    table = stated_classes(entry)
    return table is not None and all(table.find(name) is not None for name in names)


def _named(text: str) -> DatasetEntry | None:
    """The data set whose name is in the text, the longest first (cifar100 before cifar10)."""
    entries, _ = DATASETS.usable()
    for name in sorted((n for n, entry in entries.items() if entry.at is None), key=len, reverse=True):
        pattern = _FREE_FORMS.get(name) or re.sub(r"(?<=[a-z])(?=\d)", "[-_ ]?", name)
        if re.search(rf"(?<![a-z])(?:{pattern})(?!\d)", text.lower()):
            return entries[name]
    return None


def _misfit(entry: DatasetEntry, shape: tuple[int, ...], classes: int | None) -> str:
    """Why images of this shape and number of classes cannot be of the data set, or ''."""
    channels, height, width = shape
    if channels != entry.channels:
        return f"it has {channels} channel{'s' * (channels > 1)}, {entry.name} has {entry.channels}"
    if entry.size and (height, width) != (entry.size, entry.size):
        return f"it has images of {width}x{height} pixels, {entry.name} has {entry.size}x{entry.size}"
    if classes and entry.num_classes and classes > entry.num_classes:
        counted = " (do they count from 1? subtract 1 then)" if classes == entry.num_classes + 1 else ""
        return f"it has labels up to {classes - 1}, {entry.name} has {entry.num_classes} classes{counted}"
    return ""

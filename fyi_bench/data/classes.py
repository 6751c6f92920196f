"""Which class of a data set a name means: its own name, another usual spelling, the name of its folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fyi_bench.data.entry import DatasetEntry, find_entry
from fyi_bench.data.load import find_files, load_dataset, search_roots
from fyi_bench.data.parquet import ParquetFiles
from fyi_bench.data.pictures import PictureFolder
from fyi_bench.errors import DataError
from fyi_bench.files import json_of, read_text

_WNID = re.compile(r"(n\d{8})(?!\d)")
_LARGEST_LIST = 2**20
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# names that public code gives to classes, by the name here; case, spaces and punctuation never count
_SPELLINGS = {
    "airplane": ("plane", "aeroplane"), "automobile": ("car", "auto"), "T-shirt": ("T-shirt/top", "tshirt/top", "tee"),
    "trouser": ("trousers", "pants"), "sneaker": ("trainers",), "ankle boot": ("boot",), "couch": ("sofa",),
    "keyboard": ("computer keyboard",), "streetcar": ("tram",), "television": ("tv",), "pickup_truck": ("pickup",),
    "maple_tree": ("maple",), "oak_tree": ("oak",), "palm_tree": ("palm",), "pine_tree": ("pine",),
    "willow_tree": ("willow",), "lawn_mower": ("mower",), "motorcycle": ("motorbike",), "possum": ("opossum",),
    "English springer": ("English springer spaniel",), "chain saw": ("chainsaw",), "gas pump": ("petrol pump",),
    "garbage truck": ("dustcart",), "Samoyed": ("Samoyede",), "Old English sheepdog": ("bobtail",),
    "tabby": ("tabby cat",),
    **{str(i): (word, f"{i} - {word}", f"digit {i}") for i, word in enumerate(_DIGITS)},
}  # fmt: skip


def plain(name: str) -> str:
    """Letters and digits alone, in small letters: 'Pickup_truck' and 'pickup truck' are one name."""
    return re.sub(r"[\W_]", "", name.casefold())


@dataclass(frozen=True)
class ClassTable:
    """rows: the names of each class, the one that is shown first; in the order of the labels."""

    rows: tuple[tuple[str, ...], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each class that is shown."""
        return tuple(row[0] for row in self.rows)

    @cached_property
    def _known(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for label, row in enumerate(self.rows):
            for name in row:
                for other in (name, *_SPELLINGS.get(name, ())):
                    found.setdefault(plain(other), label)
        return found

    def find(self, name: str) -> int | None:
        """The label of a class that is called so, in the singular or plural, or by its WordNet number; else None.

        A number before or after the name, set off from it, does not count.
        """
        wnid = _WNID.search(name)
        words = name if wnid else re.sub(r"^[\W_]*\d+[\W_]+(?=\D)|(?<=\D)[\W_]+\d+[\W_]*$", "", name)
        tried = [plain(each) for each in (name, wnid[1] if wnid else "", name.split(",")[0], words)]
        tried += [each.removesuffix(end) for end in ("s", "es") for each in tried]
        return next((self._known[each] for each in tried if each in self._known), None)

    @property
    def several_orders(self) -> bool:
        """Whether others number these classes by the order of their WordNet numbers, which is not the order here."""
        wnids = [row[1] for row in self.rows if len(row) > 1 and _WNID.fullmatch(row[1])]
        return wnids != sorted(wnids)


def class_table(name: str, root: str | Path | None = None) -> ClassTable | None:
    """The classes of a data set in the order of its labels; None where only its files say them, and they are absent."""
    entry = find_entry(name)
    return stated_classes(entry) or _of_files(entry, root)


def stated_classes(entry: DatasetEntry) -> ClassTable | None:
    """The classes that are known without any file."""
    listed = [layout.classes for layout in entry.layouts if isinstance(layout, PictureFolder) and layout.classes]
    if listed:
        return ClassTable(tuple((shown, folder) for folder, shown in listed[0]))
    return _rows(entry.class_names)


def _of_files(entry: DatasetEntry, root: str | Path | None) -> ClassTable | None:
    try:
        files = entry.fixed or find_files(entry, search_roots(root))
        if isinstance(files, PictureFolder):
            return ClassTable(tuple(zip(files.names, files.class_folders, strict=True)))
        if files is None or isinstance(files, ParquetFiles):
            return None if files is None else _rows(files.class_names)
        return _rows(load_dataset(entry.name, root, test=False, download=False).class_names)
    except DataError:  # files that cannot be read say nothing of their classes
        return None


def _rows(names: Sequence[str]) -> ClassTable | None:
    return ClassTable(tuple((name,) for name in names)) if names else None


def read_class_file(path: Path) -> ClassTable:
    """The classes that a file lists in the order of their numbers: JSON, or a class a line.

    A line may hold several names of the class, and its number before them, separated by tabs. JSON is a list, or an
    object of numbers and names, either way round. Raises DataError for anything else.
    """
    try:
        text = read_text(path, _LARGEST_LIST)
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"{path} is not a list of classes ({cause}).\nName a file with a class a line.") from error
    found = _of_json(text) if text.lstrip()[:1] in ("[", "{") else _of_lines(text)
    numbers = [number for number, _ in found]
    if not found or sorted(numbers) != list(range(len(numbers))):
        raise DataError(f"{path} does not number its classes 0, 1, 2 ….\nWrite a class a line, as `data classes` does.")
    return ClassTable(tuple(names for _, names in sorted(found)))


def _of_lines(text: str) -> list[tuple[int, tuple[str, ...]]]:
    lines = [[part.strip() for part in line.split("\t") if part.strip()] for line in text.splitlines() if line.strip()]
    numbered = all(len(parts) > 1 and parts[0].isdigit() for parts in lines)
    return [(int(p[0]), tuple(p[1:])) if numbered else (i, tuple(p)) for i, p in enumerate(lines)]


def _of_json(text: str) -> list[tuple[int, tuple[str, ...]]]:
    try:
        value = json_of(text)
    except ValueError:
        return []
    pairs = list(enumerate(value)) if isinstance(value, list) else list(value.items())
    if all(isinstance(each, int) and not isinstance(each, bool) for _, each in pairs) and isinstance(value, dict):
        pairs = [(number, name) for name, number in pairs]
    found = []
    for number, names in pairs:
        names = names if isinstance(names, list) else [names]
        if not str(number).isdigit() or not names or not all(isinstance(name, str) for name in names):
            return []
        found.append((int(number), tuple(names)))
    return found

"""Which class each label of a file is: by the names and numbers that the file states, never by an order alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from distill.image_set import ImageSet
from fyi_bench.data.classes import ClassTable, class_table, read_class_file
from fyi_bench.data.real import RealDataset
from fyi_bench.errors import DataError, UsageError
from fyi_bench.formats.base import Options, Raw
from fyi_bench.formats.labels import TARGETS, Labels
from fyi_bench.formats.origin import Origin

_AT_START, _AT_END = re.compile(r"(\d+)(?!\d)"), re.compile(r"(?<!\d)(\d+)$")
_WNID = re.compile(r"n\d{8}(?!\d)")
_LARGEST = 6  # digits of a class number
_LISTED = 5
_NO_CLASS = -1e30  # logit of a class that a file's soft labels do not have


def numbers_in(names: Sequence[str]) -> list[int] | None:
    """The number in each name where all follow one pattern (class_7, n7, new007, 7_cat, cat_7); None where not.

    WordNet numbers are names, not numbers. DataError where two names have the same number.
    """
    if not names or all(_WNID.match(name) for name in names):
        return None
    start, end = _around(names)
    if len(names) == 1:
        start, end = re.split(r"\d", names[0], maxsplit=1)[0], ""
    first = [_AT_START.match(name[len(start) :]) for name in names]
    last = [_AT_END.search(name[: len(name) - len(end)]) for name in names]
    readings = [[int(m[1]) for m in each if m and len(m[1]) <= _LARGEST] for each in (first, last)]
    whole = [numbers for numbers in readings if len(numbers) == len(names)]
    distinct = [numbers for numbers in whole if len(set(numbers)) == len(numbers)]
    if len(whole) == 2 and whole[0] == whole[1] and not distinct:
        twice = [name for name, number in zip(names, whole[0]) if whole[0].count(number) > 1]
        raise DataError(f"{' and '.join(twice[:2])} have the same number.\nGive each class its own number, or a name.")
    widths = {len(m[1]) for m in first if m}
    padded = all(first) and len(widths) == 1 and min(widths) > 1  # as folders are written here
    if len(distinct) == 2 and distinct[0] != distinct[1] and not padded:
        raise DataError(f"'{names[0]}' has two numbers that could be its class.\nLeave one in the names.")
    return distinct[0] if distinct else None


def _around(names: Sequence[str]) -> tuple[str, str]:
    """What all names begin with and end with, without digits towards the middle."""
    end = _shared([name[::-1] for name in names])[::-1]
    return re.sub(r"\d+$", "", _shared(names)), re.sub(r"^\d+", "", end)


def _shared(names: Sequence[str]) -> str:
    """What all begin with."""
    low, high = min(names), max(names)
    return low[: next((i for i, (a, b) in enumerate(zip(low, high)) if a != b), min(len(low), len(high)))]


@dataclass
class ClassOrder:
    """labels: the class of each stored label, None where they stay as they are. names: of all classes, or ()."""

    labels: list[int] | None = None
    count: int | None = None
    names: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def class_order(raw: Raw, options: Options, origin: Origin) -> ClassOrder:
    """The classes of a file, and its labels among those of its data set.

    Raises DataError where only some of the names are known, or none of those of a known data set.
    """
    table = class_table(origin.found_by, options.data_root) if origin.classes_of else None
    if options.classes is not None:
        return _listed(raw, read_class_file(Path(options.classes)), table, origin, str(options.classes))
    names = raw.class_names
    if table and names and (found := _by_name(names, table, origin.classes_of) or _by_core(names, table)):
        note = f"labels: by the names of the classes of {origin.classes_of}"
        return ClassOrder(found, len(table.rows), table.names, [note])
    numbers = numbers_in(names) if names else None
    order = ClassOrder(numbers, origin.num_classes, table.names if table else ())
    if names and numbers is None:
        return _unknown(names, raw, origin, table)
    if numbers is not None:
        order.notes.append(f"labels: the number in each name ('{names[0]}' is class {numbers[0]})")
        if not origin.name:
            order.names = _words(names, numbers)
    if table and table.several_orders:
        odd = f"the classes of {origin.name} are numbered in several ways; taken as `data classes {origin.name}`"
        order.warnings.append(f"{odd} prints them (else state classes=FILE)")
    return order


def _by_name(names: Sequence[str], table: ClassTable, dataset: str) -> list[int]:
    """The label of each name; [] where none is a class. DataError where some are, or two are the same."""
    found = [table.find(name) for name in names]
    if all(label is None for label in found):
        return []
    labels = [label for label in found if label is not None]
    if strange := [name for name, label in zip(names, found) if label is None]:
        raise DataError(
            f"{_list(strange)} {'is' if len(strange) == 1 else 'are'} no class of {dataset}, the other"
            f" {len(labels)} are.\nRename or remove them (fyi-bench data classes {dataset} prints the names), or state"
            " classes=FILE."
        )
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        same = [name for name, label in zip(names, labels) if label == twice[0]]
        raise DataError(f"{_list(same)} are the same class of {dataset}.\nJoin or rename them.")
    return labels


def _by_core(names: Sequence[str], table: ClassTable) -> list[int]:
    """The label of each name without what all begin and end with (class_3_cat_syn); [] unless all of them differ."""
    start, end = _around(names)
    cores = [name[len(start) : len(name) - len(end)] for name in names]
    found = [label for core in cores if (label := table.find(core)) is not None]
    return found if len(set(found)) == len(names) > 1 else []


def _unknown(names: Sequence[str], raw: Raw, origin: Origin, table: ClassTable | None) -> ClassOrder:
    """Names that are those of no known data set: kept, so that they can be compared; refused where they should be."""
    if origin.name and (table or len(names) != origin.num_classes):
        why = "none of them is one" if table else "and those are not known here without its files"
        raise DataError(
            f"{_list(names)} should be classes of {origin.name}, {why}.\n"
            f"State their order with classes=FILE (as fyi-bench data classes {origin.name} prints it)."
        )
    how = "as the file numbers them" if raw.numbered else "in alphabetical order, as nothing else is known of them"
    return ClassOrder(list(range(len(names))), len(names), tuple(names), [f"labels: the names {how}"])


def _listed(raw: Raw, stated: ClassTable, table: ClassTable | None, origin: Origin, file: str) -> ClassOrder:
    """The order that a file lists: names or numbers of the set are looked up there, its names in the data set."""
    names = raw.class_names
    rows = _by_name(names, stated, file) if names else list(range(len(stated.rows)))
    rows = rows or numbers_in(names) or []
    if not rows or max(rows) >= len(stated.rows):
        raise DataError(f"{file} lists {len(stated.rows)} classes, but not those of the set.\nList them all.")
    note = [f"labels: the classes that {file} lists"]
    if table is None:
        return ClassOrder(rows, len(stated.rows), stated.names, note)
    found = [next((n for name in row if (n := table.find(name)) is not None), None) for row in stated.rows]
    strange = [stated.rows[row][0] for row in rows if found[row] is None]
    labels = [label for row in rows if (label := found[row]) is not None]
    if strange or len(set(labels)) < len(labels):
        what = f"{_list(strange)} of {file} is no class" if strange else f"{file} names a class twice"
        raise DataError(f"{what} of {origin.name}.\nName them as fyi-bench data classes {origin.name} does.")
    return ClassOrder(labels, origin.num_classes, table.names, note)


def relabelled(found: Labels, order: ClassOrder) -> Labels:
    """The labels among the classes of the order. DataError for a label that it does not know."""
    if order.labels is None:
        return found
    count = order.count or max(order.labels) + 1
    size = max(count, max(order.labels) + 1)
    if found.classes > len(order.labels):
        raise DataError(f"Labels reach to {found.classes - 1}, but {len(order.labels)} classes are named.\nName all.")
    target = torch.tensor(order.labels)
    if found.labels.ndim == 1:
        return replace(found, labels=target[found.labels], classes=int(target[found.labels].max()) + 1)
    absent = float(found.labels.min()) if found.kind == TARGETS else _NO_CLASS
    rows = torch.full((len(found.labels), size), absent)
    rows[:, target[: found.classes]] = found.labels
    return replace(found, labels=rows, classes=size)


def in_order_of(image_set: ImageSet, data: RealDataset) -> tuple[ImageSet, list[str]]:
    """The set with its labels among the data's, by the names of the classes, and what was done for it.

    Raises UsageError where both name their classes, and one of the set is not one of the data.
    """
    names, theirs = image_set.class_names, data.class_names
    if not names or not theirs or names == theirs:
        return image_set, []
    table = ClassTable(tuple((name,) for name in theirs))
    labels = [table.find(name) for name in names]
    strange = [name for name, label in zip(names, labels) if label is None]
    if strange or len(set(labels)) < len(labels):
        raise UsageError(
            f"The set's class '{(strange or names)[0]}' is none of {data.name}: {', '.join(theirs[:5])} ….\n"
            "Name the right --dataset, or state the order of its classes with --classes FILE."
        )
    order = ClassOrder([label for label in labels if label is not None], len(theirs), theirs)
    if order.labels == list(range(len(theirs))):
        return image_set, []
    moved = relabelled(Labels(image_set.labels, len(names), kind=image_set.label_kind), order).labels
    note = f"labels: by the names of its classes, which {data.name} numbers otherwise"
    return replace(image_set, labels=moved, class_names=theirs), [note]


def _words(names: Sequence[str], numbers: Sequence[int]) -> tuple[str, ...]:
    """What stands beside the numbers, in their order, where they are all there and differ."""
    if sorted(numbers) != list(range(len(numbers))):
        return ()
    words = [re.sub(r"^\d+[\W_]*|[\W_]*\d+$", "", name) for _, name in sorted(zip(numbers, names))]
    return tuple(words) if all(words) and len(set(words)) == len(words) else ()


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:_LISTED]) + (" …" if len(names) > _LISTED else "")

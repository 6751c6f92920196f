"""The plainest layouts: a dictionary or .npz with images and labels, a list of the two, or a file each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fyi_bench.errors import DataError
from fyi_bench.formats.arrays import dims, is_pair
from fyi_bench.formats.base import FORMATS, Format, Options, Raw
from fyi_bench.formats.beside import IMAGES, LABELS, images_file, labels_beside, role, step_size_beside, step_size_in
from fyi_bench.formats.input_files import FOLDER, InputFiles
from fyi_bench.formats.opening import NumpyArray
from fyi_bench.formats.origin import method_in

_NAMES = {
    IMAGES: ("images", "image", "imgs", "x", "X", "data", "image_syn", "images_train"),
    LABELS: ("labels", "label", "targets", "target", "y", "Y", "label_syn", "labels_train"),
}
_KINDS = ("torch", "npz", "npy")
_MADE = frozenset({"syn", "synthetic", "learned", "distilled", "condensed", "final", "best"})  # of a condensed set
_CLASSES = ("classes", "classnames", "classtoidx", "idxtoclass", "labelnames")
_LISTED = 4
_DIGITS = 7


def _keys(content: Mapping[str, Any], wanted: str, ranks: tuple[int, ...]) -> list[str]:
    """The entries of a role that have so many dimensions: the usual names first, then others that speak of it."""
    names = [*_NAMES[wanted], *(str(key) for key in content if role(str(key))[0] == wanted)]
    return [name for name in dict.fromkeys(names) if dims(content.get(name)) in ranks]


def _images_key(content: Mapping[str, Any]) -> str:
    """The entry of images, '' for none: of several the plain one, or the one that is said to be condensed.

    Raises DataError where that is no answer.
    """
    found = _keys(content, IMAGES, (3, 4, 5)) or _keys(content, IMAGES, tuple(range(8)))
    for chosen in ([name for name in found if not role(name)[1]], [name for name in found if role(name)[1] & _MADE]):
        if len(found) > 1 and chosen:
            return chosen[0]
    if len(found) > 1:
        raise DataError(
            f"It holds several sets of images ({', '.join(found[:_LISTED])}).\n"
            "Save the set that is meant in a file of its own."
        )
    return found[0] if found else ""


def _labels_key(content: Mapping[str, Any], images: str) -> tuple[str, list[str]]:
    """The entry of labels that goes with that of the images, '' for none, and the others that are passed over.

    Raises DataError where several could.
    """
    found, own = _keys(content, LABELS, (1, 2)), role(images)[1]
    for ignored in (frozenset(), _MADE):
        alike = [name for name in found if role(name)[1] - ignored == own - ignored]
        if alike:
            return alike[0], [name for name in found if name != alike[0]]
    if len(found) > 1:
        raise DataError(
            f"'{images}' has no labels of its name, and they may be {', '.join(found[:_LISTED])}.\n"
            "Give the two entries names that differ in 'images' and 'labels' alone."
        )
    odd = next((name for name in _NAMES[LABELS] if content.get(name) is not None), "")  # said when it is read
    return (found[0] if found else odd), []


def _class_names(content: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes that a file names in the order of its labels, () where it does not."""
    for key, value in content.items():
        if str(key).lower().replace("-", "_").replace("_", "") not in _CLASSES:
            continue
        value = value.value if isinstance(value, NumpyArray) else value
        listed = value.tolist() if isinstance(value, np.ndarray) and value.ndim == 1 else value
        pairs = list(listed.items()) if isinstance(listed, Mapping) else list(enumerate(listed or ()))
        pairs = [(b, a) if isinstance(a, str) and isinstance(b, int) else (a, b) for a, b in pairs]
        pairs = [(int(a), b) if isinstance(a, str) and a.isdigit() and len(a) < _DIGITS else (a, b) for a, b in pairs]
        numbers = [number for number, _ in pairs]
        if all(type(n) is int and isinstance(name, str) for n, name in pairs) and sorted(numbers) == [
            *range(len(pairs))
        ]:
            return tuple(name for _, name in sorted(pairs))
    return ()


def from_mapping(files: InputFiles, content: Mapping[str, Any]) -> Raw:
    """Raw of named tensors."""
    images = _images_key(content)
    files.need(images, f"a file with an entry 'images' (it has {', '.join(map(str, list(content)[:6]))})")
    labels, others = _labels_key(content, images)
    lr, told = step_size_in(content)
    found = content[labels] if labels else None
    if others:
        told.append(f"labels: the entry '{labels}'; not read: {', '.join(others[:_LISTED])}")
    if found is None and files.name:
        found, more = labels_beside(files, files.name)
        told += more
    raw = Raw(content[images], found, method=method_in(files.name), lr=lr, guesses=told)
    raw.class_names = _class_names(content)
    raw.numbered = bool(raw.class_names)
    return raw


@FORMATS.register("tensors")
class Tensors(Format):
    """images and labels in a dictionary, a list, .npz or .npy"""

    rank = 100

    def looks(self, files: InputFiles) -> str:
        name = images_file(files) if files.kind == FOLDER else files.name
        if not name or (files.kind not in _KINDS and files.kind != FOLDER):
            return ""
        content = files.content(name)
        if is_pair(content):
            return "a list [images, labels]"
        if isinstance(content, dict):
            ranks = (3, 4, 5) if _keys(content, LABELS, (1, 2)) else (4, 5)
            found = _images_key(content) if _keys(content, IMAGES, ranks) else ""
            return f"a dictionary with the entry '{found}'" if found else ""
        return "a tensor of images" if dims(content) in (4, 5) else ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """Images, labels where they are there or beside it, and a learned step size likewise."""
        name = images_file(files) if files.kind == FOLDER else files.name
        content = files.content(name) if name and files.kind in (*_KINDS, FOLDER) else None
        if isinstance(content, dict):
            return from_mapping(files, content)
        images, labels = content if content is not None and is_pair(content) else (content, None)
        files.need(dims(images) > 2, "a file of images and labels")
        raw = Raw(images, labels, method=method_in(name))
        if labels is None:
            raw.labels, raw.guesses = labels_beside(files, name)
        raw.lr, told = step_size_beside(files, name)
        raw.guesses += told
        return raw

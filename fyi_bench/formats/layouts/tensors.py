"""The plainest layouts: a dictionary or .npz with images and labels, a list of the two, or a file each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fyi_bench.formats.arrays import dims, is_pair
from fyi_bench.formats.base import FORMATS, Format, Options, Raw
from fyi_bench.formats.beside import IMAGES, LABELS, images_file, labels_beside, role, step_size_beside, step_size_in
from fyi_bench.formats.input_files import FOLDER, InputFiles
from fyi_bench.formats.origin import method_in

_NAMES = {
    IMAGES: ("images", "image", "imgs", "x", "X", "data", "image_syn", "images_train"),
    LABELS: ("labels", "label", "targets", "target", "y", "Y", "label_syn", "labels_train"),
}
_KINDS = ("torch", "npz", "npy")


def _key(content: Mapping[str, Any], wanted: str, ranks: tuple[int, ...]) -> str:
    """The entry of a role that has so many dimensions: the usual names first, then others that speak of it."""
    names = [*_NAMES[wanted], *(str(key) for key in content if role(str(key))[0] == wanted)]
    return next((name for name in names if dims(content.get(name)) in ranks), "")


def from_mapping(files: InputFiles, content: Mapping[str, Any]) -> Raw:
    """Raw of named tensors."""
    images = _key(content, IMAGES, (3, 4, 5)) or _key(content, IMAGES, tuple(range(8)))
    labels = next((name for name in _NAMES[LABELS] if content.get(name) is not None), "")
    labels = labels or _key(content, LABELS, (1, 2))
    files.need(images, f"a file with an entry 'images' (it has {', '.join(map(str, list(content)[:6]))})")
    lr, told = step_size_in(content)
    found = content[labels] if labels else None
    if found is None and files.name:
        found, more = labels_beside(files, files.name)
        told += more
    return Raw(content[images], found, method=method_in(files.name), lr=lr, guesses=told)


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
            ranks = (3, 4, 5) if _key(content, LABELS, (1, 2)) else (4, 5)
            found = _key(content, IMAGES, ranks)
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

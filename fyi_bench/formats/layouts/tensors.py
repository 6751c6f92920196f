"""The plainest layouts: a dictionary or .npz with images and labels, a list [images, labels], or images alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fyi_bench.formats.arrays import dims, is_pair, scalar
from fyi_bench.formats.base import FORMATS, Format, Options, Raw
from fyi_bench.formats.input_files import InputFiles
from fyi_bench.formats.origin import method_in

_IMAGES = ("images", "image", "imgs", "x", "X", "data", "image_syn", "images_train")
_LABELS = ("labels", "label", "targets", "target", "y", "Y", "label_syn", "labels_train")
_KINDS = ("torch", "npz", "npy")


def _key(content: Mapping[str, Any], names: tuple[str, ...], ranks: tuple[int, ...]) -> str:
    return next((name for name in names if dims(content.get(name)) in ranks), "")


def from_mapping(files: InputFiles, content: Mapping[str, Any]) -> Raw:
    """Raw of named tensors."""
    arrays = [name for name in _IMAGES if dims(content.get(name)) >= 0]
    images = _key(content, _IMAGES, (3, 4, 5)) or next(iter(arrays), "")
    labels = next((name for name in _LABELS if content.get(name) is not None), "")
    files.need(images, f"a file with an entry 'images' (it has {', '.join(map(str, list(content)[:6]))})")
    lr = scalar(content.get("lr"))
    return Raw(content[images], content[labels] if labels else None, method=method_in(files.name), lr=lr)


@FORMATS.register("tensors")
class Tensors(Format):
    """images and labels in a dictionary, a list, .npz or .npy"""

    rank = 100

    def looks(self, files: InputFiles) -> str:
        if files.kind not in _KINDS:
            return ""
        content = files.content()
        if is_pair(content):
            return "a list [images, labels]"
        if isinstance(content, dict):
            ranks = (3, 4, 5) if _key(content, _LABELS, (1, 2)) else (4, 5)
            found = _key(content, _IMAGES, ranks)
            return f"a dictionary with the entry '{found}'" if found else ""
        return "a tensor of images" if dims(content) in (4, 5) else ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """Images, labels where they are there, and a learned step size under 'lr'."""
        content = files.content() if files.kind in _KINDS else None
        if isinstance(content, dict):
            return from_mapping(files, content)
        images, labels = content if content is not None and is_pair(content) else (content, None)
        files.need(dims(images) > 2, "a file of images and labels")
        return Raw(images, labels, method=method_in(files.name))

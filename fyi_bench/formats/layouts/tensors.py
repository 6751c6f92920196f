"""The plainest layouts: a dictionary or .npz with images and labels, a list [images, labels], or images alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fyi_bench.formats.base import Format, Options, Raw, register
from fyi_bench.formats.layouts._shared import dims, is_array, is_pair, method_in, need, scalar
from fyi_bench.formats.source import Source

_IMAGES = ("images", "image", "imgs", "x", "X", "data", "image_syn", "images_train")
_LABELS = ("labels", "label", "targets", "target", "y", "Y", "label_syn", "labels_train")
_KINDS = ("torch", "npz", "npy")


def _key(content: Mapping[str, Any], names: tuple[str, ...], ranks: tuple[int, ...]) -> str:
    return next((name for name in names if dims(content.get(name)) in ranks), "")


def recognise(source: Source) -> str:
    if source.kind not in _KINDS:
        return ""
    content = source.content()
    if is_pair(content):
        return "a list [images, labels]"
    if isinstance(content, dict):
        ranks = (3, 4, 5) if _key(content, _LABELS, (1, 2)) else (4, 5)
        found = _key(content, _IMAGES, ranks)
        return f"a dictionary with the entry '{found}'" if found else ""
    return "a tensor of images" if dims(content) in (4, 5) else ""


def read(source: Source, options: Options) -> Raw:
    """Images, labels where they are there, and a learned step size under 'lr'."""
    content = source.content() if source.kind in _KINDS else None
    if isinstance(content, dict):
        return from_mapping(source, content)
    need(is_pair(content) or dims(content) > 2, source, "a file of images and labels")
    images, labels = content if is_pair(content) else (content, None)
    return Raw(images, labels, method=method_in(source.name))


def from_mapping(source: Source, content: Mapping[str, Any]) -> Raw:
    """Raw of named tensors."""
    images = _key(content, _IMAGES, (3, 4, 5)) or next((name for name in _IMAGES if is_array(content.get(name))), "")
    labels = next((name for name in _LABELS if content.get(name) is not None), "")
    listed = ", ".join(map(str, list(content)[:6]))
    need(bool(images), source, f"a file with an entry 'images' (it has {listed})")
    found = Raw(content[images], content[labels] if labels else None, method=method_in(source.name))
    found.lr = scalar(content.get("lr"))
    return found


register(Format("tensors", "images and labels in a dictionary, a list, .npz or .npy", recognise, read, rank=100))

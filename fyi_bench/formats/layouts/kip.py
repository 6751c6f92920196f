"""KIP (kip_*.npz) and FRePo (image, label or x_proto, y_proto): images channels last, regression targets as labels.

Both whiten in a way of their own, KIP so that there is no way back to pixels, with a matrix that is not in the file.
"""

from __future__ import annotations

import re
from typing import Any

from distill.zca import ImageZCASpace, RelativeZCASpace
from fyi_bench.formats.arrays import dims
from fyi_bench.formats.base import FORMATS, Format, Options, Raw
from fyi_bench.formats.input_files import InputFiles
from fyi_bench.formats.labels import TARGETS
from fyi_bench.formats.origin import method_in

_NAMES = (("x_proto", "y_proto"), ("image", "label"))  # of a checkpoint's state, and in the .npz its code writes
_X, _Y = _NAMES[0]
_KIP_WHITENING, _FREPO_WHITENING = "KIP's ZCA of centred unit-length images", "FRePo's ZCA, regularised by 0.1"


@FORMATS.register("kip")
class KIP(Format):
    """KIP: kip_*.npz with images and labels"""

    rank, family = 12, "frepo"

    def looks(self, files: InputFiles) -> str:
        if files.kind != "npz":
            return ""
        if files.name.startswith("kip_"):
            return "the name is one of KIP's"
        content = files.content()
        last = dims(content.get("images")) == 4 and content["images"].shape[3] in (1, 3)
        return "images channels last with a row of targets each" if last and dims(content.get("labels")) == 2 else ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """Images [N, H, W, ch] and targets [N, C]."""
        content = files.content() if files.kind == "npz" else {}
        files.need({"images", "labels"} <= set(content), "a .npz file with images and labels")
        method = method_in(files.name)
        raw = Raw(content["images"], content["labels"], TARGETS, whitening=_KIP_WHITENING, method=method)
        raw.zca = ImageZCASpace
        if said := re.search(r"(?<![a-z])(no[-_]?)?zca(?![a-z])", files.name.lower()):
            raw.space, raw.space_reason = "normalized" if said[1] else "zca", f"'{said[0]}' in the name"
        return raw


def _prototypes(files: InputFiles) -> tuple[Any, Any] | None:
    if files.kind == "npz":
        content = files.content()
        there = next((pair for pair in _NAMES if set(pair) <= set(content)), None)
        found = (content[there[0]], content[there[1]]) if there else None
        return found if found and (there == _NAMES[0] or (dims(found[0]) == 4 and dims(found[1]) == 2)) else None
    pair = f"{_X}.npy", f"{_Y}.npy"
    named = files.name in ("", *pair) and files.has(*pair)
    return (files.content(pair[0]), files.content(pair[1])) if named else None


@FORMATS.register("frepo")
class FRePo(Format):
    """FRePo: .npz with image and label, or arrays x_proto and y_proto (.npz or two .npy)"""

    rank, family = 11, "frepo"

    def looks(self, files: InputFiles) -> str:
        return "images, and a row of targets each, by FRePo's names" if _prototypes(files) else ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """Prototypes [N, H, W, ch] and centred, scaled targets [N, C]."""
        images, labels = files.need(_prototypes(files), f"arrays {_X} and {_Y} (.npz, or two .npy files)")
        method = method_in(files.name, *files.folders[:1])
        raw = Raw(images, labels, TARGETS, whitening=_FREPO_WHITENING, method=method)
        raw.zca = RelativeZCASpace
        if images.ndim == 4 and images.shape[3] == 3:
            raw.space, raw.space_reason = "zca", "FRePo whitens colour images"
        return raw

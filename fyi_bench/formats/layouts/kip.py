"""KIP (kip_*.npz) and FRePo (x_proto, y_proto as .npz or two .npy): images channels last, regression targets as labels.

Both whiten in a way of their own (each image is centred and scaled to length 1 first), with a matrix that is not in
the file.
"""

from __future__ import annotations

from typing import Any

from fyi_bench.formats.arrays import dims
from fyi_bench.formats.base import FORMATS, Format, Options, Raw
from fyi_bench.formats.input_files import InputFiles
from fyi_bench.formats.labels import TARGETS

_X, _Y = "x_proto", "y_proto"
_KIP_WHITENING, _FREPO_WHITENING = "KIP's ZCA of centred unit-length images", "FRePo's ZCA, regularised by 0.1"


@FORMATS.register("kip")
class KIP(Format):
    """KIP: kip_*.npz with images and labels"""

    rank = 12

    def looks(self, files: InputFiles) -> str:
        if files.kind != "npz":
            return ""
        if files.name.startswith("kip_"):
            return "the name is one of KIP's"
        content = files.content()
        last = dims(content.get("images")) == 4 and content["images"].shape[3] in (1, 3)
        return "images channels last with a row of targets each" if last and dims(content.get("labels")) == 2 else ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """Images [N, H, W, ch] and targets [N, C]; the class is the largest target."""
        content = files.content() if files.kind == "npz" else {}
        files.need({"images", "labels"} <= set(content), "a .npz file with images and labels")
        raw = Raw(content["images"], content["labels"], TARGETS, whitening=_KIP_WHITENING, method="kip")
        if "zca" in files.name.lower():
            raw.space, raw.space_reason = "zca", "'zca' in the name"
        return raw


def _prototypes(files: InputFiles) -> tuple[Any, Any] | None:
    if files.kind == "npz":
        content = files.content()
        return (content[_X], content[_Y]) if {_X, _Y} <= set(content) else None
    pair = f"{_X}.npy", f"{_Y}.npy"
    named = files.name in ("", *pair) and files.has(*pair)
    return (files.content(pair[0]), files.content(pair[1])) if named else None


@FORMATS.register("frepo")
class FRePo(Format):
    """FRePo: arrays x_proto and y_proto (.npz or two .npy)"""

    rank = 11

    def looks(self, files: InputFiles) -> str:
        return f"arrays {_X} and {_Y}" if _prototypes(files) else ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """Prototypes [N, H, W, ch] and centred, scaled soft labels [N, C]; the class is the largest entry."""
        images, labels = files.need(_prototypes(files), f"arrays {_X} and {_Y} (.npz, or two .npy files)")
        raw = Raw(images, labels, TARGETS, whitening=_FREPO_WHITENING, method="frepo")
        if images.ndim == 4 and images.shape[3] == 3:
            raw.space, raw.space_reason = "zca", "FRePo whitens colour images"
        return raw

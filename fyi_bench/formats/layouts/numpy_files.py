"""KIP (kip_*.npz) and FRePo (x_proto, y_proto as .npz or two .npy): images channels last, regression targets as labels.

Both whiten in a way of their own (each image is centred and scaled to length 1 first), with a matrix that is not in
the file.
"""

from __future__ import annotations

from typing import Any

from fyi_bench.formats.base import Format, Options, Raw, register
from fyi_bench.formats.labels import TARGETS
from fyi_bench.formats.layouts._shared import dims, need
from fyi_bench.formats.source import Source

_X, _Y = "x_proto", "y_proto"
_KIP_WHITENING, _FREPO_WHITENING = "KIP's ZCA of centred unit-length images", "FRePo's ZCA, regularised by 0.1"


def recognise_kip(source: Source) -> str:
    if source.kind != "npz":
        return ""
    if source.name.startswith("kip_"):
        return "the name is one of KIP's"
    content = source.content()
    last = dims(content.get("images")) == 4 and content["images"].shape[3] in (1, 3)
    return "images channels last with a row of targets each" if last and dims(content.get("labels")) == 2 else ""


def read_kip(source: Source, options: Options) -> Raw:
    """Images [N, H, W, ch] and targets [N, C]; the class is the largest target."""
    content = source.content() if source.kind == "npz" else {}
    need({"images", "labels"} <= set(content), source, "a .npz file with images and labels")
    raw = Raw(content["images"], content["labels"], TARGETS, whitening=_KIP_WHITENING, method="kip")
    if "zca" in source.name.lower():
        raw.space, raw.space_reason = "zca", "'zca' in the name"
    return raw


def _prototypes(source: Source) -> tuple[Any, Any] | None:
    if source.kind == "npz":
        content = source.content()
        return (content[_X], content[_Y]) if {_X, _Y} <= set(content) else None
    named = source.name in ("", f"{_X}.npy", f"{_Y}.npy")
    if named and source.has(f"{_X}.npy") and source.has(f"{_Y}.npy"):
        return source.content(f"{_X}.npy"), source.content(f"{_Y}.npy")
    return None


def recognise_frepo(source: Source) -> str:
    return f"arrays {_X} and {_Y}" if _prototypes(source) else ""


def read_frepo(source: Source, options: Options) -> Raw:
    """Prototypes [N, H, W, ch] and centred, scaled soft labels [N, C]; the class is the largest entry."""
    found = _prototypes(source)
    need(found is not None, source, f"arrays {_X} and {_Y} (.npz, or two .npy files)")
    raw = Raw(*found, TARGETS, whitening=_FREPO_WHITENING, method="frepo")
    if found[0].ndim == 4 and found[0].shape[3] == 3:
        raw.space, raw.space_reason = "zca", "FRePo whitens colour images"
    return raw


register(Format("frepo", "FRePo: arrays x_proto and y_proto (.npz or two .npy)", recognise_frepo, read_frepo, 11))
register(Format("kip", "KIP: kip_*.npz with images and labels", recognise_kip, read_kip, 12))

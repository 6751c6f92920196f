"""DD-Ranking: a folder with images.pt, and perhaps labels.pt (soft) and lr.pt; its PNG folders are image-folder."""

from __future__ import annotations

from fyi_bench.formats.base import Format, Options, Raw, register
from fyi_bench.formats.layouts._shared import method_in, need, scalar
from fyi_bench.formats.source import FOLDER, Source

_IMAGES, _LABELS, _LR = "images.pt", "labels.pt", "lr.pt"


def recognise(source: Source) -> str:
    named = source.kind == FOLDER or source.name in (_IMAGES, _LABELS)
    return f"the file {_IMAGES}" if named and source.has(_IMAGES) else ""


def read(source: Source, options: Options) -> Raw:
    """Images, and labels where they are there; hard ones are class-major in this layout."""
    need(source.has(_IMAGES), source, f"a folder with {_IMAGES}")
    raw = Raw(source.content(_IMAGES), method=method_in(source.folder.name) or method_in(source.folder.parent.name))
    raw.labels = source.content(_LABELS) if source.has(_LABELS) else None
    raw.lr = scalar(source.content(_LR)) if source.has(_LR) else None
    return raw


register(Format("dd-ranking", "DD-Ranking: images.pt, labels.pt, lr.pt in a folder", recognise, read, 25, "mtt"))

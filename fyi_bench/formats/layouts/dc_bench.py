"""DC-Bench's coresets: <set>_IPC<n>[_normalize]_images.pt beside …_labels.pt.

Its other sets are in DC's and MTT's layouts.
"""

from __future__ import annotations

import re

from fyi_bench.formats.base import Format, Options, Raw, register
from fyi_bench.formats.layouts._shared import method_in, need
from fyi_bench.formats.source import FOLDER, Source

_IMAGES = re.compile(r"(?P<stem>.+)_images\.pt")


def _stem(source: Source) -> str:
    """What the names of the two files begin with, or ''."""
    names = source.names if source.kind == FOLDER else [source.name.replace("_labels.pt", "_images.pt")]
    stems = [match["stem"] for name in names if (match := _IMAGES.fullmatch(name))]
    stems = [stem for stem in stems if source.has(f"{stem}_images.pt") and source.has(f"{stem}_labels.pt")]
    return stems[0] if len(stems) == 1 else ""


def recognise(source: Source) -> str:
    return "files …_images.pt and …_labels.pt of one name" if _stem(source) else ""


def read(source: Source, options: Options) -> Raw:
    """The pair of files; 'normalize' in their name says the space."""
    stem = _stem(source)
    need(bool(stem), source, "one of a pair …_images.pt and …_labels.pt")
    method = method_in(stem) or next(filter(None, map(method_in, _folders(source))), "")
    raw = Raw(source.content(f"{stem}_images.pt"), source.content(f"{stem}_labels.pt"), dataset=stem, method=method)
    if "normalize" in stem:
        raw.space, raw.space_reason = "normalized", "'normalize' in the name"
    return raw


def _folders(source: Source) -> list[str]:
    return [source.folder.name, source.folder.parent.name]


register(Format("dc-bench", "DC-Bench's random and k-means sets: *_images.pt and *_labels.pt", recognise, read, 24))

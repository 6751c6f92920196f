"""DC-Bench's coresets: <set>_IPC<n>[_normalize]_images.pt beside …_labels.pt.

Its other sets are in DC's and MTT's layouts.
"""

from __future__ import annotations

from fyi_bench.formats.base import FORMATS, Format, Options, Raw
from fyi_bench.formats.input_files import FOLDER, InputFiles
from fyi_bench.formats.origin import method_in

_IMAGES, _LABELS = "_images.pt", "_labels.pt"


def _stem(files: InputFiles) -> str:
    """What the names of the two files begin with, or ''."""
    names = files.names if files.kind == FOLDER else [files.name.replace(_LABELS, _IMAGES)]
    stems = [name.removesuffix(_IMAGES) for name in names if name.endswith(_IMAGES)]
    stems = [stem for stem in stems if stem and files.has(stem + _IMAGES, stem + _LABELS)]
    return stems[0] if len(stems) == 1 else ""


@FORMATS.register("dc-bench")
class DCBench(Format):
    """DC-Bench's random and k-means sets: *_images.pt and *_labels.pt"""

    rank = 24

    def looks(self, files: InputFiles) -> str:
        return "files …_images.pt and …_labels.pt of one name" if _stem(files) else ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """The pair of files; 'normalize' in their name says the space."""
        stem = files.need(_stem(files), "one of a pair …_images.pt and …_labels.pt")
        method = method_in(stem, *files.folders[:2])
        raw = Raw(files.content(stem + _IMAGES), files.content(stem + _LABELS), dataset=stem, method=method)
        if "normalize" in stem:
            raw.space, raw.space_reason = "normalized", "'normalize' in the name"
        return raw

"""DD-Ranking: a folder with images.pt, and perhaps labels.pt (soft) and lr.pt; its PNG folders are image-folder."""

from __future__ import annotations

from pathlib import Path

from distill.image_set import ImageSet
from fyi_bench.formats.base import FORMATS, Format, Options, Raw
from fyi_bench.formats.beside import LABELS, labels_beside, role, step_size_beside
from fyi_bench.formats.export import WITH_ZCA, save_parts
from fyi_bench.formats.input_files import FOLDER, InputFiles
from fyi_bench.formats.origin import method_in

_IMAGES, _LABELS, _LR = _PARTS = "images.pt", "labels.pt", "lr.pt"


@FORMATS.register("dd-ranking")
class DDRanking(Format):
    """DD-Ranking: images.pt, labels.pt, lr.pt in a folder"""

    rank, family, spaces, soft = 25, "mtt", WITH_ZCA, True

    def looks(self, files: InputFiles) -> str:
        named = files.kind == FOLDER or files.name in (_IMAGES, _LABELS)
        return f"the file {_IMAGES}" if named and files.has(_IMAGES) else ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """Images, and labels where they are there; hard ones are class-major in this layout."""
        files.need(files.has(_IMAGES), f"a folder with {_IMAGES}")
        labels, told = (files.content(_LABELS), []) if files.has(_LABELS) else labels_beside(files, _IMAGES)
        others = [name for name in files.names if name != _LABELS and role(name)[0] == LABELS] if not told else []
        told += [f"labels: the file {_LABELS}; not read: {', '.join(others[:4])}"] if others else []
        lr, more = step_size_beside(files, _IMAGES)
        method = method_in(*files.folders[:2])
        return Raw(files.content(_IMAGES), labels, lr=lr, method=method, guesses=[*told, *more])

    def write(self, image_set: ImageSet, path: Path) -> list[Path]:
        """The three files in a folder."""
        return save_parts(image_set, *(path / name for name in _PARTS))

"""Pairs of files images_<it|best>.pt and labels_<it|best>.pt: MTT, TESLA, FYI, FTD (ema_…), DATM (with lr_….pt).

`images_zca_<it>.pt` holds, against its name, pixels with the whitening undone. DC-Bench splits its largest sets into
images_best_0.pt … images_best_4.pt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from distill.image_set import ImageSet
from fyi_bench.formats.arrays import dims, to_tensor
from fyi_bench.formats.base import FORMATS, Format, Options, Raw
from fyi_bench.formats.beside import step_size_beside
from fyi_bench.formats.export import WITH_ZCA, save_parts
from fyi_bench.formats.input_files import FOLDER, InputFiles
from fyi_bench.formats.origin import method_in

_IMAGES = re.compile(r"(?P<ema>ema_)?images_(?P<undone>zca_)?(?P<tag>best|\d+)(_(?P<part>\d))?\.pt")
_WANTED = "one of the files images_<it|best>.pt or labels_<it|best>.pt, nor a folder of them"


@dataclass(frozen=True)
class Pair:
    """Names of the files of one set (several where it is split), and what they say of it."""

    images: list[str]
    labels: list[str]
    lr: str
    tag: str
    ema: bool
    undone: bool


def newest(tags: list[str]) -> str:
    """'best' where it is among the tags, else the largest number; '' where there are none."""
    return max(tags, key=lambda tag: (tag == "best", int(tag) if tag != "best" else 0), default="")


def find_pair(files: InputFiles) -> Pair | None:
    """The set a file belongs to, or the best (else the latest) one of a folder; None where there is none."""
    if files.kind == FOLDER:
        found = [match for name in files.names if (match := _IMAGES.fullmatch(name)) and not match["undone"]]
        tag = newest([match["tag"] for match in found])
        chosen = next((match for match in found if match["tag"] == tag), None)
    else:
        chosen = _IMAGES.fullmatch(files.name.replace("labels_", "images_", 1))
    if chosen is None:
        return None
    ema, tag = chosen["ema"] or "", chosen["tag"]
    start = f"{ema}images_{chosen['undone'] or ''}{tag}"
    parts = [""] if chosen["part"] is None and files.has(f"{start}.pt") else []
    parts = parts or [f"_{i}" for i in range(10) if files.has(f"{start}_{i}.pt")]
    images, labels = [f"{start}{part}.pt" for part in parts], [f"{ema}labels_{tag}{part}.pt" for part in parts]
    return Pair(images, labels, f"lr_{tag}.pt", tag, bool(ema), bool(chosen["undone"])) if parts else None


def _joined(files: InputFiles, names: list[str], options: Options) -> torch.Tensor:
    tensors = [to_tensor(files.content(name), f"contents of {name}", options.max_bytes) for name in names]
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


@FORMATS.register("mtt")
class MTT(Format):
    """MTT, TESLA, FYI: images_<it|best>.pt and labels_<it|best>.pt"""

    rank, family, spaces, soft = 22, "mtt", WITH_ZCA, True
    reason = "images_ and labels_ files of one name"

    def applies(self, files: InputFiles, pair: Pair) -> bool:
        """Whether a whole pair of files is of this format."""
        return True

    def looks(self, files: InputFiles) -> str:
        pair = find_pair(files)
        return self.reason if pair and files.has(*pair.labels) and self.applies(files, pair) else ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """Images and labels of a pair of files, the parts of split ones joined."""
        pair = files.need(find_pair(files), _WANTED)
        absent = [name for name in (*pair.images, *pair.labels) if not files.has(name)]
        files.need(not absent, f"complete: {', '.join(absent)} is missing", "Copy that file beside it.")
        raw = Raw(method=method_in(*files.folders[:2]), writer=self.name, facts={"saved": pair.tag})
        raw.images, raw.labels = (_joined(files, names, options) for names in (pair.images, pair.labels))
        raw.lr, told = step_size_beside(files, pair.images[0])
        raw.guesses += told
        if files.kind == FOLDER:
            raw.guesses.append(f"the files …images_{pair.tag}….pt of the folder (name another for another)")
        if len(pair.images) > 1:
            raw.guesses.append(f"{len(pair.images)} parts joined, in the order of their numbers")
        if pair.undone:
            raw.space, raw.space_reason = "pixel", "images_zca_ files hold pixels, their whitening undone"
        return raw

    def write(self, image_set: ImageSet, path: Path) -> list[Path]:
        """The best set of a folder, its learned step size where there is one."""
        return save_parts(image_set, *(path / f"{what}_best.pt" for what in ("images", "labels", "lr")))


@FORMATS.register("ftd")
class FTD(MTT):
    """FTD: ema_images_*.pt and ema_labels_*.pt, the running mean of the images"""

    rank, reason, write = 21, "ema_images_ and ema_labels_", Format.write

    def applies(self, files: InputFiles, pair: Pair) -> bool:
        return pair.ema


@FORMATS.register("datm")
class DATM(MTT):
    """DATM: images_*.pt, labels_*.pt (logits), lr_*.pt"""

    rank, write = 20, Format.write
    reason = "images_, and labels_ with a row a class"

    def applies(self, files: InputFiles, pair: Pair) -> bool:
        return dims(files.content(pair.labels[0])) == 2

    def read(self, files: InputFiles, options: Options) -> Raw:
        """The pair as in MTT's files; labels are logits, the learned step size is beside them."""
        raw = super().read(files, options)
        raw.label_kind = "logits"
        return raw

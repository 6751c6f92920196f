"""IDC and DREAM: data.pt, a list [images in [0, 1], labels]; the tiles a side stand in args.txt or the folder's name.

ImageNet-100 is split into folders …_phase0, …_phase1 …; its classes are theirs one after the other.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from distill.decode import DECODE_TYPES
from distill.image_set import ImageSet
from fyi_bench.files import write_json
from fyi_bench.formats.arrays import is_pair, to_tensor
from fyi_bench.formats.base import FORMATS, Format, Options, Raw
from fyi_bench.formats.export import floats, save_torch
from fyi_bench.formats.input_files import FOLDER, InputFiles
from fyi_bench.formats.origin import method_in

_FILE, _NOTES = "data.pt", "args.txt"
_PHASE = re.compile(r".*_phase(\d+)")


def _phases(files: InputFiles) -> list[str]:
    """Names of the files of the phases below a folder, relative to it, in order."""
    if files.kind != FOLDER:
        return []
    found = [(m, f) for f in files.folder.iterdir() if (m := _PHASE.fullmatch(f.name)) and (f / _FILE).is_file()]
    return [f"{folder.name}/{_FILE}" for _, folder in sorted((int(m[1]), folder) for m, folder in found)]


def _joined(pairs: list[Any], raw: Raw, options: Options) -> tuple[torch.Tensor, torch.Tensor]:
    """Phases one after the other; labels that begin at 0 in each are moved up."""
    images = [to_tensor(pair[0], "images", options.max_bytes) for pair in pairs]
    labels = [to_tensor(pair[1], "labels", options.max_bytes).long() for pair in pairs]
    if all(int(part.min()) == 0 for part in labels):
        sizes = [int(part.max()) + 1 for part in labels]
        labels = [part + sum(sizes[:i]) for i, part in enumerate(labels)]
    raw.guesses.append(f"{len(pairs)} phases joined, their classes one after the other")
    return torch.cat(images), torch.cat(labels)


@FORMATS.register("idc")
class IDC(Format):
    """IDC: data.pt with [images, labels], args.txt beside it"""

    rank, family, suffix, spaces, tiles = 34, "mtt", ".pt", ("pixel",), True

    def looks(self, files: InputFiles) -> str:
        named = (files.kind == FOLDER and files.has(_FILE)) or files.name == _FILE
        if named and is_pair(files.content(_FILE)):
            return f"{_FILE} with [images, labels]"
        return "folders …_phase<k> with data.pt" if _phases(files) else ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """The images as stored; tiles stay packed, with their number in the set."""
        names = _phases(files) or [_FILE if files.kind == FOLDER else files.name]
        files.need(files.has(*names), f"a folder with {_FILE}")
        pairs = [files.content(name) for name in names]
        files.need(all(map(is_pair, pairs)), f"{_FILE} with a list [images, labels]")
        notes = files.json_beside(_NOTES)
        raw = Raw(space="pixel", space_reason="IDC keeps unnormalised pixels", dataset=str(notes.get("dataset", "")))
        raw.images, raw.labels = pairs[0] if len(pairs) == 1 else _joined(pairs, raw, options)
        raw.method = method_in(*files.folders)
        if isinstance(notes.get("factor"), int) and options.factor is None:
            raw.factor = notes["factor"]
            raw.guesses.append(f"factor {raw.factor}: stands in {_NOTES}")
        raw.tiled = True
        if notes.get("decode_type") in DECODE_TYPES:
            raw.decode_type = notes["decode_type"]
        if len(pairs) == 1 and _PHASE.fullmatch(files.folder.name):
            raw.warnings.append(f"{files.folder.name} is one of several phases: name the folder above for all classes")
        return raw

    def write(self, image_set: ImageSet, path: Path) -> list[Path]:
        """The pair, and notes beside it that say how many tiles an image holds."""
        s = image_set
        facts = {"factor": s.factor, "decode_type": s.decode_type, "ipc": s.ipc, "nclass": s.num_classes}
        pair = save_torch(path, [floats(s), s.labels.clone()])
        return [pair, write_json(path.with_name(_NOTES), {**facts, "size": s.shape[1]})]


@FORMATS.register("dream")
class DREAM(IDC):
    """DREAM: as idc"""

    looks, write = Format.looks, Format.write

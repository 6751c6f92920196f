"""IDC and DREAM: data.pt, a list [images in [0, 1], labels]; the tiles a side stand in args.txt or the folder's name.

ImageNet-100 is split into folders …_phase0, …_phase1 …; its classes are theirs one after the other.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from distill.decode import DECODERS
from fyi_bench.formats.base import Format, Options, Raw, register
from fyi_bench.formats.layouts._shared import is_pair, method_in, need
from fyi_bench.formats.pixels import to_tensor
from fyi_bench.formats.source import FOLDER, Source

_FILE, _NOTES = "data.pt", "args.txt"
_PHASE = re.compile(r".*_phase(\d+)")
_FACTOR = re.compile(r"(?<![a-z])factor(\d+)")


def _phases(source: Source) -> list[str]:
    """Names of the files of the phases below a folder, relative to it, in order."""
    if source.kind != FOLDER:
        return []
    found = [(m, f) for f in source.path.iterdir() if (m := _PHASE.fullmatch(f.name)) and (f / _FILE).is_file()]
    return [f"{folder.name}/{_FILE}" for _, folder in sorted((int(m[1]), folder) for m, folder in found)]


def recognise(source: Source) -> str:
    named = (source.kind == FOLDER and source.has(_FILE)) or source.name == _FILE
    if named and is_pair(source.content(_FILE)):
        return f"{_FILE} with [images, labels]"
    return "folders …_phase<k> with data.pt" if _phases(source) else ""


def read(source: Source, options: Options) -> Raw:
    """The images as stored; tiles stay packed, with their number in the set."""
    names = _phases(source) or [_FILE if source.kind == FOLDER else source.name]
    need(all(map(source.has, names)), source, f"a folder with {_FILE}")
    pairs = [source.content(name) for name in names]
    need(all(map(is_pair, pairs)), source, f"{_FILE} with a list [images, labels]")
    notes = source.json_beside(_NOTES)
    raw = Raw(space="pixel", space_reason="IDC keeps unnormalised pixels", dataset=str(notes.get("dataset", "")))
    raw.images, raw.labels = pairs[0] if len(pairs) == 1 else _joined(pairs, raw, options)
    raw.method = "dream" if "dream" in map(method_in, _folders(source)) else "idc"
    raw.factor = _factor(source, notes, options, raw)
    if notes.get("decode_type") in DECODERS:
        raw.decode_type = notes["decode_type"]
    if len(pairs) == 1 and _PHASE.fullmatch(source.folder.name):
        raw.warnings.append(f"{source.folder.name} is one of several phases: name the folder above for all classes")
    return raw


def _joined(pairs: list[Any], raw: Raw, options: Options) -> tuple[torch.Tensor, torch.Tensor]:
    """Phases one after the other; labels that begin at 0 in each are moved up."""
    images = [to_tensor(pair[0], "images", options.max_bytes) for pair in pairs]
    labels = [to_tensor(pair[1], "labels", options.max_bytes).long() for pair in pairs]
    if all(int(part.min()) == 0 for part in labels):
        sizes = [int(part.max()) + 1 for part in labels]
        labels = [part + sum(sizes[:i]) for i, part in enumerate(labels)]
    raw.guesses.append(f"{len(pairs)} phases joined, their classes one after the other")
    return torch.cat(images), torch.cat(labels)


def _folders(source: Source) -> list[str]:
    return [source.folder.name, *(parent.name for parent in list(source.folder.resolve().parents)[:3])]


def _factor(source: Source, notes: dict[str, Any], options: Options, raw: Raw) -> int:
    if options.factor is not None:
        return options.factor
    if isinstance(notes.get("factor"), int):
        raw.guesses.append(f"factor {notes['factor']}: stands in {_NOTES}")
        return notes["factor"]
    inner = [name.split("/")[0] for name in _phases(source)[:1]]
    found = next((m for name in (*inner, *_folders(source)) if (m := _FACTOR.search(name))), None)
    if found:
        raw.guesses.append(f"factor {found[1]}: stands in the folder's name")
        return int(found[1])
    raw.warnings.append("how many tiles an image holds is not in the file: taken as 1 (else state factor=2 …)")
    return 1


register(Format("idc", "IDC: data.pt with [images, labels], args.txt beside it", recognise, read, 34, "mtt"))
register(Format("dream", "DREAM: as idc", lambda source: "", read, 34, "mtt"))

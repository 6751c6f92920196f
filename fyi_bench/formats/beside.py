"""Files that belong together by their names: images, their labels, and a learned step size."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fyi_bench.errors import DataError
from fyi_bench.formats.arrays import scalar
from fyi_bench.formats.input_files import InputFiles

IMAGES, LABELS, STEP_SIZE = "images", "labels", "step size"
_SUFFIXES = (".pt", ".pth", ".npy", ".npz")
_WORDS = {
    LABELS: {"labels", "label", "lbls", "lbl", "lab", "targets", "target", "y", "ys"},
    STEP_SIZE: {"lr", "lrs", "synlr", "lrsyn"},
    IMAGES: {"images", "image", "imgs", "img", "x", "xs", "data", "pictures"},
}
_OTHER_RATES = {"img", "image", "images", "teacher", "net", "init", "scheduler", "label", "labels", "y"}
_UNREAD = (".txt", ".csv", ".tsv", ".json", ".pkl", ".pickle", ".mat", ".xml")  # in which labels are kept, too
_TAG = re.compile(r"(?<![a-z0-9])(best|last|latest|init|\d+)(?![a-z0-9])")  # what tells saves of one run apart
_EMPTY = {"syn", "synthetic", "learned", "distilled", "final"}  # what names say without telling files apart
_NAMED = 4


def role(name: str) -> tuple[str, frozenset[str]]:
    """(what a file or a key of that name holds, or '', and the other words of the name)."""
    stem = next((name.removesuffix(end) for end in _SUFFIXES if name.endswith(end)), name)
    words = re.findall(r"[a-z]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", stem).lower())
    if set(words) & _WORDS[STEP_SIZE]:
        found = "" if set(words) & _OTHER_RATES else STEP_SIZE
    else:
        found = next((what for what, known in _WORDS.items() if set(words) & known), "")
    return found, frozenset(words) - (_WORDS[found] if found else set())


def _short(name: str) -> bool:
    """Whether it is called x or y."""
    return re.match(r"(?:.*[\W_])?[xy]s?(?![a-z])", name.lower()) is not None


def _of_role(names: Iterable[str], wanted: str) -> dict[str, frozenset[str]]:
    files = ((name, role(name)) for name in names if name.endswith(_SUFFIXES))
    return {name: words for name, (what, words) in files if what == wanted}


def images_file(files: InputFiles) -> str:
    """The file of images of a folder, '' for none: the best of several; DataError where that is no answer."""
    there = _of_role(files.names, IMAGES)
    chosen = list(there) if len(there) < 2 else [name for name, words in there.items() if "best" in words]
    if there and len(chosen) != 1:
        raise DataError(f"{files.path} holds several sets ({_listed(chosen or there)}).\nName the one that is meant.")
    return chosen[0] if chosen else ""


def _partner(files: InputFiles, images: str, wanted: str) -> tuple[str, list[str]]:
    """The file of that role whose name goes with that of the images, or '', and all that could be."""
    there, own = _of_role(files.names, wanted), role(images)[1]
    there.pop(images, None)
    for ignored in (set(), _EMPTY):
        alike = [name for name, words in there.items() if words - ignored == own - ignored]
        if len(alike) > 1:  # x_syn goes with y_syn, images_syn with labels_syn
            alike = [name for name in alike if _short(name) == _short(images)] or alike
        if alike:
            return (alike[0] if len(alike) == 1 else ""), alike
    only = len(there) == 1 and len(_of_role(files.names, IMAGES)) < 2
    tags = [set(_TAG.findall(Path(name).stem.lower())) for name in (images, *there)]
    only = only and not (tags[0] and tags[1] and tags[0].isdisjoint(tags[1]))  # of another moment
    return (next(iter(there)) if only else ""), list(there)


def labels_beside(files: InputFiles, images: str) -> tuple[Any, list[str]]:
    """The labels in a file beside the images, and what is told of it; (None, []) where there is none.

    DataError where several files could hold them.
    """
    name, possible = _partner(files, images, LABELS)
    if not possible:
        _none_unread(files, images)
        return None, []
    if not name:
        raise DataError(
            f"{images} has no labels, and they may be in {_listed(possible)}.\n"
            "Give the two files names that differ in 'images' and 'labels' alone, or move the others away."
        )
    content = files.content(name)
    if isinstance(content, Mapping):
        content = next((value for key, value in content.items() if role(str(key))[0] == LABELS), content)
    return content, [f"labels: of the file {name} beside it"]


def _none_unread(files: InputFiles, images: str) -> None:
    """DataError where the labels seem to be beside the images in a file or folder that is not read."""
    try:
        there = sorted(entry.name for entry in files.folder.iterdir() if entry.is_dir() or entry.suffix in _UNREAD)
    except OSError:
        there = []
    if unread := [name for name in there if role(name)[0] == LABELS]:
        raise DataError(
            f"{images} has no labels, and they may be in {_listed(unread)}, which is not read.\n"
            "Save them as a tensor beside it, torch.save(labels, 'labels.pt'), or move that away."
        )


def step_size_beside(files: InputFiles, images: str) -> tuple[float | None, list[str]]:
    """The learned step size in a file beside the images, and what is told of it."""
    name, possible = _partner(files, images, STEP_SIZE)
    if not possible:
        return None, []
    content = files.content(name) if name else None
    found = step_size_in(content)[0] if isinstance(content, Mapping) else scalar(content)
    if found is None:
        return None, [f"the learned step size was not read: {_listed([name] if name else possible)} (state lr=…)"]
    return found, [f"learned step size {found:g}: of the file {name}"]


def step_size_in(content: Mapping[str, Any]) -> tuple[float | None, list[str]]:
    """The learned step size of a dictionary, by the usual names of its key, and what is told of it."""
    rates = {str(key): scalar(value) for key, value in content.items() if role(str(key))[0] == STEP_SIZE}
    found = {key: number for key, number in rates.items() if number is not None}
    learned = {key: number for key, number in found.items() if key != "lr"} or found
    if len(set(learned.values())) > 1:
        return None, [f"the learned step size was not read: it may be {_listed(learned)} (state lr=…)"]
    told = [(number, [f"learned step size {number:g}: the entry '{key}'"]) for key, number in learned.items()]
    return told[0] if told else (None, [])


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_NAMED]) + (" …" if len(names) > _NAMED else "")

"""load_set: a file or folder of others -> an ImageSet, with everything that had to be guessed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.image_set import ImageSet
from distill.spaces import PixelSpace, Space
from fyi_bench.errors import DataError, UsageError
from fyi_bench.formats.base import IMPORTERS, LAST, Format, Imported, Options, Raw
from fyi_bench.formats.common import SIZE_BUDGET
from fyi_bench.formats.labels import Labels, check_classes, class_major, read_labels
from fyi_bench.formats.looks import look
from fyi_bench.formats.origin import Origin, guessed, stated
from fyi_bench.formats.pixels import Pixels, prepare
from fyi_bench.formats.source import FOLDER, UNKNOWN, Source
from fyi_bench.formats.space import Case, resolve


def load_set(
    path: str | Path,
    *,
    format: str | None = None,
    dataset: str | None = None,
    space: str | Space | None = None,
    ipc: int | None = None,
    factor: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    zca: str | Space | None = None,
    experiment: int = LAST,
    step: int | None = None,
    labels: str | None = None,
    lr: float | None = None,
    data_root: str | Path | None = None,
    max_bytes: int = SIZE_BUDGET,
) -> Imported:
    """Read a condensed set in any known layout; no code in it is ever run. What is not stated is guessed and told.

    path: a file, or the folder that holds it. format: a name of `IMPORTERS`. dataset: what it was made from.
    space: 'pixel', 'normalized', 'zca' or a Space; mean and std: constants of 'normalized' (one a channel); zca: the
    ZCA Space, or the data set its matrix is fitted to. ipc: images per class. factor: tiles a side of each image
    (IDC). experiment: which of several in one file, counted from the end if negative; step: which step of a
    continual file (default: all). labels: what soft rows are, 'hard' (take the largest), 'logits' or
    'probabilities'. lr: learned step size. data_root: folder of real data, for ZCA. max_bytes: the file may unpack to.

    Raises UnknownNameError for an unknown name, UsageError for options that contradict each other, DataError for a file
    that is broken, unsafe, of no known layout, or not what was stated.
    """
    options = Options(
        dataset, space, ipc, factor, mean, std, zca, experiment, step, labels, lr, data_root, max_bytes
    )  # fmt: skip
    if ipc is not None and ipc < 1:
        raise UsageError(f"ipc={ipc}: a class has 1 image or more.\nCorrect it, or leave it out.")
    source = Source(path, max_bytes)
    chosen, guesses = _choose(source, format)
    _check_choice(chosen, options)
    raw = chosen.read(source, options)
    raw.guesses = guesses + raw.guesses
    try:
        return _own(source, chosen, raw, options) if raw.finished else _assemble(source, chosen, raw, options)
    except DataError as error:
        text = str(error)
        raise DataError(text if str(source.path) in text else f"{source.path}: {text}") from error


def save_imported(imported: Imported, path: str | Path) -> Path:
    """Write the set as a .safetensors file, with a preview where its pixels can be computed here."""
    try:
        imported.image_set.batch(slice(0, 1), PixelSpace())
    except DataError:  # whitened by a matrix that is not on this machine: the set is kept all the same
        return imported.image_set.save(path, preview=False)
    return imported.image_set.save(path)


def _choose(source: Source, name: str | None) -> tuple[Format, list[str]]:
    """The format that was named, or the first that recognises the source, with the reason."""
    if name is not None:
        return IMPORTERS.get(name), []
    for entry in sorted((IMPORTERS.get(n) for n in IMPORTERS), key=lambda f: (f.rank, f.name)):
        reason = entry.recognise(source)
        if reason:
            return entry, [f"format {entry.name}: {reason}"]
    if source.kind == UNKNOWN:
        raise DataError(
            f"{source.path} is of no kind that is known here (it begins with {source.head()!r}).\n"
            "Known are .pt, .npz, .npy, .parquet, .safetensors files and folders of pictures; if it should be one, "
            "it is damaged."
        )
    raise DataError(
        f"{source.path} is of no known layout: {describe(source)}.\n"
        f"Name one with format=…: {', '.join(IMPORTERS.names())}; or save torch.save([images, labels], 'data.pt')."
    )


def _check_choice(chosen: Format, options: Options) -> None:
    for name in ("experiment", "step"):
        if getattr(options, name) != getattr(Options(), name) and name not in chosen.takes:
            raise UsageError(
                f"Files of the format '{chosen.name}' hold one set, so {name}=… has no meaning.\nLeave it out."
            )


def describe(source: Source) -> str:
    """What a source holds, in a few words, for messages."""
    if source.kind == FOLDER:
        names = source.names
        listed = ", ".join(names[:4]) + (" …" if len(names) > 4 else "")
        return f"a folder with {len(names)} files ({listed})" if names else "a folder without pictures or tensors"
    if source.kind not in ("torch", "npz", "npy"):
        return f"a {source.kind} file"
    return f"it holds {shown(source.content())}"


def shown(value: Any, depth: int = 3) -> str:
    """A short description of parsed content: types, keys and shapes."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return f"a tensor {list(value.shape)}"
    if isinstance(value, dict):
        parts = [f"{key}: {shown(value[key], depth - 1)}" if depth else str(key) for key in list(value)[:4]]
        count = "1 entry" if len(value) == 1 else f"{len(value)} entries"
        return f"a dictionary of {count} ({', '.join(parts)}{' …' if len(value) > 4 else ''})"
    if isinstance(value, list | tuple):
        inner = f", the first {shown(value[0], depth - 1)}" if value and depth else ""
        return f"a list of {len(value)}{inner}"
    return f"a {type(value).__name__}"


def _own(source: Source, chosen: Format, raw: Raw, options: Options) -> Imported:
    """A set that carries all its facts: whatever the caller states must agree with it."""
    image_set = raw.finished
    told = {"ipc": image_set.ipc, "factor": image_set.factor, "lr": image_set.lr}
    for name, value in told.items():
        said = getattr(options, name)
        if said is not None and said != value:
            raise DataError(f"The file states {name}={value}, not {said}.\nLeave {name} out: its own facts count.")
    plain = Options(max_bytes=options.max_bytes)
    for name in (f.name for f in fields(Options)):
        same_space = name == "space" and options.space in (image_set.space, image_set.space.kind)
        if name in (*told, "data_root", "max_bytes") or same_space:
            continue
        if getattr(options, name) != getattr(plain, name):
            raise DataError(f"The file carries its own facts, so {name}=… does not apply.\nLeave it out.")
    return Imported(image_set, chosen.name, raw.guesses, raw.warnings)


def _assemble(source: Source, chosen: Format, raw: Raw, options: Options) -> Imported:
    pixels = prepare(raw.images, options.max_bytes)
    labels = read_labels(raw, options, len(pixels.images), pixels.per_class)
    origin = _origin(source, raw, options, pixels, labels)
    if labels is None:
        per_class = options.ipc or pixels.per_class
        labels = class_major(len(pixels.images), per_class, origin.num_classes)
    num_classes = raw.num_classes or origin.num_classes or labels.classes
    names = raw.class_names or (origin.entry.class_names if origin.name else ())
    check_classes(labels, num_classes, names, options.ipc)
    draft = ImageSet(
        pixels.images, labels.labels, PixelSpace(), num_classes, names if len(names) == num_classes else ()
    )
    family = raw.family or chosen.family
    found = resolve(Case(pixels.images, look(pixels.images), raw, options, origin, draft.ipc, family))
    guesses = [*raw.guesses, *pixels.notes, *labels.notes, *origin.notes, *found.notes]
    warnings = [*raw.warnings, *origin.warnings, *labels.warnings, *found.warnings]
    finished = replace(
        draft,
        space=found.space,
        factor=_factor(raw.factor if options.factor is None else options.factor, pixels),
        decode_type=raw.decode_type,
        lr=_step_size(options.lr if options.lr is not None else raw.lr),
        provenance=_provenance(source, chosen, raw, origin, draft.ipc, guesses, warnings),
    )
    return Imported(finished.validate(), chosen.name, guesses, warnings)


def _origin(source: Source, raw: Raw, options: Options, pixels: Pixels, labels: Labels | None) -> Origin:
    classes = labels.classes if labels else raw.num_classes
    if classes is None and (options.ipc or pixels.per_class):
        classes = math.ceil(len(pixels.images) / (options.ipc or pixels.per_class))
    shape = tuple(pixels.images.shape[1:])
    if options.dataset is not None:
        return stated(options.dataset, shape, classes)
    return guessed(raw.dataset, source.path, shape, classes)


def _factor(factor: int, pixels: Pixels) -> int:
    side = min(pixels.images.shape[2:])
    if not 1 <= factor <= side // 2:
        raise UsageError(f"factor={factor}: images of {side} pixels hold 1 to {side // 2} tiles a side.\nCorrect it.")
    return factor


def _step_size(lr: float | None) -> float | None:
    if lr is not None and not (math.isfinite(lr) and lr > 0):
        raise DataError(f"The learned step size is {lr}.\nA usable one is positive: state it with lr=….")
    return lr


def _provenance(
    source: Source, chosen: Format, raw: Raw, origin: Origin, ipc: int | None, guesses: list[str], warnings: list[str]
) -> dict[str, Any]:
    known = {"method": raw.method, "dataset": origin.name, "ipc": ipc}
    story = {"format": chosen.name, **source.facts(), **raw.facts, "guesses": guesses, "warnings": warnings}
    return {**{key: value for key, value in known.items() if value}, "imported": story}

"""load_set: a file or folder of others -> an ImageSet, with everything that had to be guessed."""

from __future__ import annotations

import math
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.image_set import ImageSet
from distill.spaces import PixelSpace
from fyi_bench.data.classes import read_class_file
from fyi_bench.data.entry import find_entry
from fyi_bench.errors import DataError, UnknownNameError, UsageError
from fyi_bench.formats.base import Format, Imported, Options, Raw, formats_that, named_format
from fyi_bench.formats.classes import class_order, numbers_in, relabelled
from fyi_bench.formats.fkd import fkd_folder
from fyi_bench.formats.input_files import FOLDER, UNKNOWN, InputFiles
from fyi_bench.formats.labels import Labels, check_classes, class_major, read_labels
from fyi_bench.formats.looks import look
from fyi_bench.formats.origin import Origin, channels_of, guessed, names_of, same_data, stated
from fyi_bench.formats.pixels import Pixels, as_grey, prepare
from fyi_bench.formats.space import Case
from fyi_bench.formats.tiles import tiles_of

_CLASS_LIST = re.compile(
    r"(classes|class[-_ ]?names?|class[-_ ]?to[-_ ]?idx|class[-_ ]?index|label[-_ ]?names)\.(txt|json)"
)


def load_set(path: str | Path, *, format: str | None = None, **facts: Any) -> Imported:
    """Read a condensed set in any known layout; no code in it is ever run. What is not stated is guessed and told.

    path: a file, or the folder that holds it. format: a name of `FORMATS`. facts: what is stated about it, the fields
    of `Options` (dataset, space, ipc, factor …).

    Raises UnknownNameError for an unknown name, UsageError for options that contradict each other, DataError for a file
    that is broken, unsafe, of no known layout, or not what was stated.
    """
    known = [f.name for f in fields(Options)]
    if unknown := sorted(set(facts) - set(known)):
        raise UnknownNameError("option", unknown[0], known)
    options = Options(**facts)
    if options.ipc is not None and options.ipc < 1:
        raise UsageError(f"ipc={options.ipc}: a class has 1 image or more.\nCorrect it, or leave it out.")
    files = InputFiles(path, options.max_bytes)
    try:
        chosen, guesses = _choose(files, format)
        for name in ("experiment", "step"):
            if getattr(options, name) != getattr(Options(), name) and name not in chosen.takes:
                raise UsageError(
                    f"Files of the format '{chosen.name}' hold one set, so {name}=… has no meaning.\nLeave it out."
                )
        raw = chosen.read(files, options)
        raw.guesses = guesses + raw.guesses
        return _own(raw.finished, chosen, raw, options) if raw.finished else _assemble(files, chosen, raw, options)
    except DataError as error:
        text = files.told(str(error))
        raise DataError(text if str(files.path) in text else f"{files.path}: {text}") from error


def _choose(files: InputFiles, name: str | None) -> tuple[Format, list[str]]:
    """The format that was named, or the first that looks like it, with the reason."""
    if name is not None:
        return named_format(name, "read"), []
    readers = formats_that("read")
    for entry in sorted(readers.values(), key=lambda f: (f.rank, f.name)):
        if reason := entry.looks(files):
            return entry, [f"format {entry.name}: {reason}"]
    if files.kind == FOLDER and (inner := fkd_folder(files.folder)):
        raise DataError(
            f"{files.path} holds soft labels that a teacher gave to images ({inner.name}), and not the images.\n"
            "Name the folder of the images; these labels belong to its evaluation."
        )
    if files.kind == UNKNOWN:
        raise DataError(
            f"{files.path} is of no kind that is known here (it begins with {files.head()!r}).\n"
            "Known are .pt, .npz, .npy, .parquet, .safetensors files and folders of pictures; if it should be one, "
            "it is damaged."
        )
    raise DataError(
        f"{files.path} is of no known layout: {_described(files)}.\n"
        f"Name one with format=…: {', '.join(readers)}; or save torch.save([images, labels], 'data.pt')."
    )


def _described(files: InputFiles) -> str:
    """What is there, in a few words."""
    if files.kind == FOLDER:
        names = files.names
        listed = ", ".join(names[:4]) + (" …" if len(names) > 4 else "")
        return f"a folder with {len(names)} files ({listed})" if names else "a folder without pictures or tensors"
    return f"it holds {_shown(files.content())}" if files.kind in ("torch", "npz", "npy") else f"a {files.kind} file"


def _shown(value: Any, depth: int = 3) -> str:
    """Parsed content in a few words: types, keys and shapes."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return f"a tensor {list(value.shape)}"
    if isinstance(value, dict):
        parts = [f"{key}: {_shown(value[key], depth - 1)}" if depth else str(key) for key in list(value)[:4]]
        count = "1 entry" if len(value) == 1 else f"{len(value)} entries"
        return f"a dictionary of {count} ({', '.join(parts)}{' …' if len(value) > 4 else ''})"
    if isinstance(value, list | tuple):
        inner = f", the first {_shown(value[0], depth - 1)}" if value and depth else ""
        return f"a list of {len(value)}{inner}"
    return f"a {type(value).__name__}"


def _own(image_set: ImageSet, chosen: Format, raw: Raw, options: Options) -> Imported:
    """A set that carries all its facts: whatever the caller states must agree with it."""
    nothing = Options()
    for name in ("ipc", "factor", "lr"):
        said, value = getattr(options, name), getattr(image_set, name)
        if said is not None and said != value:
            raise DataError(f"The file states {name}={value}, not {said}.\nLeave {name} out: its own facts count.")
    agrees = options.space in (image_set.space, image_set.space.kind)
    passing = {"dataset", "ipc", "factor", "lr", "name", "data_root", "max_bytes"}
    passing |= ({"space"} if agrees else set()) | (set() if "method" in image_set.provenance else {"method"})
    of = str(image_set.provenance.get("dataset") or image_set.provenance.get("data") or "")
    if options.dataset and of and not same_data(of, find_entry(options.dataset).name):
        raise DataError(f"The file is of {of}, not {options.dataset}.\nLeave dataset out, or name the right one.")
    for name in (f.name for f in fields(Options)):
        if name not in passing and getattr(options, name) != getattr(nothing, name):
            raise DataError(f"The file carries its own facts, so {name}=… does not apply.\nLeave it out.")
    image_set = replace(image_set, provenance={**image_set.provenance, **_called(options)})
    told = image_set.provenance.get("imported", {})
    guesses, warnings = [*raw.guesses, *told.get("guesses", [])], [*raw.warnings, *told.get("warnings", [])]
    return Imported(image_set, chosen.name, guesses, warnings, of or options.dataset or "", own=True)


def _assemble(files: InputFiles, chosen: Format, raw: Raw, options: Options) -> Imported:
    pixels = prepare(raw.images, options.max_bytes)
    if raw.decoder is None:
        pixels = as_grey(pixels, channels_of(options.dataset, names_of(raw.dataset, files.named)))
    if options.ipc:  # stated of rows, of which each is shown as several images
        options = replace(options, ipc=options.ipc * raw.variants)
    count, per_class = len(pixels.images), options.ipc or pixels.per_class
    labels = read_labels(raw, options, count, pixels.per_class)
    origin = _origin(files, raw, options, pixels, _class_count(raw, labels, count, per_class))
    if labels is None:
        labels = class_major(count, per_class, origin.num_classes)
    order = class_order(raw, _with_classes_beside(files, raw, options, origin), origin)
    labels = relabelled(labels, order)
    num_classes = order.count or raw.num_classes or origin.num_classes or labels.classes
    names = order.names if len(order.names) == num_classes else ()
    check_classes(labels, num_classes, names, options.ipc)
    draft = ImageSet(pixels.images, labels.labels, PixelSpace(), num_classes, names)
    case = Case(pixels.images, look(pixels.images), raw, options, origin, draft.ipc, chosen.family)
    space = case.resolve()
    factor, tiles = _tiles(files, raw, options, pixels) if raw.decoder is None else (1, [])
    guesses = [*raw.guesses, *pixels.notes, *labels.notes, *origin.notes, *order.notes, *case.notes, *tiles]
    warnings = [*raw.warnings, *origin.warnings, *order.warnings, *labels.warnings, *case.warnings]
    ipc = draft.ipc and draft.ipc // raw.variants
    known = {"method": raw.method, "dataset": origin.name, "ipc": ipc, **_called(options)}
    story = {"format": chosen.name, **files.facts(), **raw.facts, "guesses": guesses, "warnings": warnings}
    finished = replace(
        draft,
        space=space,
        factor=factor,
        decode_type=raw.decode_type,
        variants=raw.variants,
        lr=_step_size(options.lr if options.lr is not None else raw.lr),
        label_kind=labels.kind,
        provenance={**{key: value for key, value in known.items() if value}, "imported": story},
    )
    if raw.decoder is not None and raw.rows is not None:  # labels of the rows: their images come one after the other
        own = finished.labels[:: raw.variants].clone()
        finished = replace(finished, images=raw.rows, labels=own, decoder=raw.decoder, factor=1, variants=1)
    of = origin.entry.name if origin.entry else ""
    return Imported(finished.validate(), chosen.name, guesses, warnings, of, origin.contradiction)


def _with_classes_beside(files: InputFiles, raw: Raw, options: Options, origin: Origin) -> Options:
    """The options, with the list of classes that lies beside the set where nothing else names its classes."""
    stated = raw.class_names and numbers_in(raw.class_names) is None
    if options.classes is not None or stated:
        return options
    for name in files.names:
        if _CLASS_LIST.fullmatch(name.lower()):
            try:
                count = len(read_class_file(files.folder / name).rows)
            except DataError:
                raw.warnings.append(f"{name} beside it is no list of classes that is known here: not read")
                continue
            if origin.num_classes in (None, count):
                return replace(options, classes=files.folder / name)
            raw.warnings.append(
                f"{name} beside it lists {count} classes, {origin.name} has {origin.num_classes}: not read"
            )
    return options


def _called(options: Options) -> dict[str, str]:
    """What the caller says of the method that made the set and of its name."""
    return {name: value for name in ("method", "name") if (value := getattr(options, name))}


def _class_count(raw: Raw, labels: Labels | None, count: int, per_class: int | None) -> int | None:
    """How many classes the file speaks of, None where it does not say."""
    if raw.class_names:
        numbers, words = numbers_in(raw.class_names), {re.sub(r"[\d\W_]+", "", name) for name in raw.class_names}
        alone = len(words) < len(raw.class_names)  # else there are names beside the numbers, which count
        return max(numbers) + 1 if numbers and alone else len(raw.class_names)
    return labels.classes if labels else raw.num_classes or math.ceil(count / per_class) if per_class else None


def _origin(files: InputFiles, raw: Raw, options: Options, pixels: Pixels, classes: int | None) -> Origin:
    shape = tuple(pixels.images.shape[1:])
    if options.dataset is not None:
        return stated(options.dataset, shape, classes, names_of(raw.dataset, files.named))
    return guessed(raw.dataset, files.named, shape, classes, raw.class_names)


def _tiles(files: InputFiles, raw: Raw, options: Options, pixels: Pixels) -> tuple[int, list[str]]:
    """Tiles a side of an image, and what is told of it: as stated, else by names and by what is seen."""
    told: list[str] = []
    if options.factor is not None:
        factor = options.factor
    else:
        inner = [entry.name for entry in files.folder.iterdir() if entry.is_dir()] if files.kind == FOLDER else []
        names = [files.name, *files.folders, *sorted(inner)[:1]]
        factor, told = tiles_of(pixels.images, raw.factor, names, raw.method)
        if raw.tiled and raw.factor is None and not told:
            raw.warnings.append(
                "how many tiles an image holds is not in the file, and no seams are seen: taken as 1 (else state"
                " factor=2 …)"
            )
    side = min(pixels.images.shape[2:])
    if not 1 <= factor <= side // 2:
        raise UsageError(f"factor={factor}: images of {side} pixels hold 1 to {side // 2} tiles a side.\nCorrect it.")
    return factor, told


def _step_size(lr: float | tuple[float, ...] | None) -> float | tuple[float, ...] | None:
    if isinstance(lr, float | int) and not (math.isfinite(lr) and lr > 0):
        raise DataError(f"The learned step size is {lr}.\nA usable one is positive: state it with lr=….")
    return lr

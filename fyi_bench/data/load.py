"""load_dataset: find the files, decode them once, check them, give them to the caller as a RealDataset."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from distill.image_set import ImageSet
from distill.spaces import PixelSpace
from fyi_bench.data.cache import Contents, cache_folder, cached, fingerprint
from fyi_bench.data.entry import DataFiles, DatasetEntry, Decoded, Split, Statistics, find_entry
from fyi_bench.data.real import RealDataset, pixel_statistics
from fyi_bench.errors import DataError

ENVIRONMENT = "FYI_BENCH_DATA"
DECODER = 1  # raise it when a reader or a check changes what comes out of the same files
_log = logging.getLogger("fyi_bench.data")


def load_dataset(name: str, root: str | Path | None = None, test: bool = True, *, download: bool = True) -> RealDataset:
    """A real data set by name, from `root` (else `FYI_BENCH_DATA`, else `./data` and the cache folder).

    Data found in several forms is taken as Hugging Face parquet files first, then in torchvision's layout; what is not
    there is downloaded through torchvision unless `download` is False. The first call decodes and caches the
    images (see `fyi_bench.data.cache`), later ones take a fraction of a second.
    `test=False` neither opens nor lists a test file, and reading `.test` of the result raises DataError.
    Raises UnknownNameError for a name that is not registered, DataError for data that is missing, broken or incomplete
    in a class. Images that are merely fewer than published are told in `.note`.
    """
    entry = find_entry(name)
    files = locate(entry, root, download=download)
    train, facts = _split(entry, files, "train")
    held_out, test_facts = _split(entry, files, "test") if test else (None, {})
    if held_out is not None and held_out.num_classes != train.num_classes:
        counts = f"{held_out.num_classes} classes in the test files, {train.num_classes} in the train files"
        raise DataError(f"{entry.name}: {counts}.\nThey belong to different sets: copy both again.")
    mean, std = _constants(entry, facts["measured"])
    sums: dict[Split, Any] = {"train": facts.get("sha256", {}), "test": test_facts.get("sha256", {})}
    found = RealDataset(entry.name, train, held_out, mean, std, note_of(entry, train, held_out), place(files), sums)
    return replace(found, source=entry.source, measured="dc" not in entry.statistics)


def place(files: DataFiles) -> str:
    """The folder of the files, or "built in"."""
    return str(files.where) if files.where else "built in"


def search_roots(root: str | Path | None) -> list[Path]:
    """The folders data is looked for in; DataError where one that was named does not exist."""
    named = root if root is not None else os.environ.get(ENVIRONMENT) or None
    if named is None:
        return [Path("data"), cache_folder() / "datasets"]
    folder = Path(named).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        given = "" if root is not None else f" ({ENVIRONMENT} names this one)"
        raise DataError(f"The data folder {folder} {what}.\nName an existing folder with --data-root{given}.")
    return [folder]


def find_files(entry: DatasetEntry, roots: list[Path]) -> DataFiles | None:
    """The first complete files in these folders, else the first incomplete ones, else None."""
    found = [f for root in roots if root.is_dir() for layout in entry.layouts if (f := layout.find(root))]
    return next((f for f in found if f.complete), found[0] if found else None)


def locate(entry: DatasetEntry, root: str | Path | None, download: bool = True) -> DataFiles:
    """Where the data of an entry is, downloading it if need be; DataError with what was looked for and where."""
    if entry.fixed is not None:
        return entry.fixed
    roots, reason = search_roots(root), ""
    files = find_files(entry, roots)
    if files is None and entry.download is not None and download:
        _log.warning("%s is not in %s: downloading it", entry.name, " or ".join(map(str, roots)))
        try:
            entry.download(roots[-1])
            files = find_files(entry, roots)
        except DataError as error:
            reason = f" {str(error).splitlines()[0].rstrip('.')}."
    if files is None:
        raise DataError(_not_found(entry, roots, reason))
    return files


def _not_found(entry: DatasetEntry, roots: list[Path], reason: str) -> str:
    looked = ", ".join(str(root.resolve()) for root in roots)
    forms = " or ".join(layout.looks_like for layout in entry.layouts)
    get = f", or run `fyi-bench data get {entry.name}` where there is a network" if entry.download else ""
    unpack = [p for root in roots if entry.packed and root.is_dir() for p in sorted(root.glob(entry.packed))]
    packed = f" (unpack {unpack[0]} first: python -m tarfile -e FILE DIR)" if unpack else ""
    return (
        f"No {entry.name} data: looked in {looked} for {forms}.{reason}\n"
        f"Name the folder that holds it with --data-root DIR or {ENVIRONMENT}=DIR{get}{packed}. {entry.obtain}".rstrip()
    )


def _split(entry: DatasetEntry, files: DataFiles, split: Split) -> tuple[ImageSet, Mapping[str, Any]]:
    """One split as an ImageSet, and the metadata of its cache file."""

    def decode() -> Contents:
        if files.where is not None:
            _log.info("decoding the %s images of %s in %s, once", split, entry.name, files.where)
        decoded = check_decoded(entry, files.read(split), f"The {split} split of {entry.name} ({files.where})")
        images, labels = decoded.images, decoded.labels
        if entry.mirrored:
            images, labels = torch.cat([images, images.flip(-1)]), labels.repeat(2)
        facts = {"num_classes": decoded.num_classes, "class_names": list(decoded.class_names)}
        facts["measured"] = [list(values) for values in pixel_statistics(images)]
        return {"images": images, "labels": labels}, facts

    options = files.options() | ({"mirrored": True} if entry.mirrored else {})
    key: dict[str, Any] = {"decoder": DECODER, "name": entry.name, "split": split, "options": options}
    if files.where is not None:
        key["source"] = fingerprint(files.files(split), files.where)
    tensors, facts = cached(f"{entry.name}-{split}", key, decode)
    images = ImageSet(
        tensors["images"],
        tensors["labels"],
        PixelSpace(),
        facts["num_classes"],
        tuple(facts["class_names"]),
        provenance={"data": entry.name, "split": split},
    )
    return images, facts


def check_decoded(entry: DatasetEntry, decoded: Decoded, what: str) -> Decoded:
    """The split with the entry's class names where the files have none.

    DataError where it contradicts the facts of its entry or lacks images of a class.
    """
    channels, height, width = decoded.images.shape[1:]
    wanted = (entry.channels, entry.size or height, entry.size or width)
    other = "These are the files of another data set: name the right folder."
    if (channels, height, width) != wanted:
        sizes = f"{width}x{height} pixels and {channels} channels, not {wanted[2]}x{wanted[1]} and {wanted[0]}"
        raise DataError(f"{what} has images of {sizes}.\n{other}")
    classes = len(decoded.class_names) or max(decoded.num_classes, entry.num_classes or 0)
    counts = torch.bincount(decoded.labels, minlength=classes)
    if entry.num_classes and len(counts) > entry.num_classes:
        raise DataError(f"{what} has {len(counts)} classes, not {entry.num_classes}.\n{other}")
    if len(counts) > classes:
        raise DataError(
            f"{what} has the label {len(counts) - 1}, but names only {classes} classes.\nCopy the files again."
        )
    names = decoded.class_names or entry.class_names
    empty = (counts == 0).nonzero().flatten().tolist()
    if empty:
        listed = ", ".join(names[c] if names else str(c) for c in empty[:5]) + (" …" if len(empty) > 5 else "")
        raise DataError(f"{what} has no images of {len(empty)} of {classes} classes: {listed}.\nAdd the missing files.")
    return replace(decoded, num_classes=classes, class_names=names)


def _constants(entry: DatasetEntry, measured: Statistics) -> Statistics:
    if "dc" in entry.statistics:
        return entry.statistics["dc"]
    mean, std = measured
    # four decimals, like published constants; a channel without any contrast would have no usable std
    return tuple(round(m, 4) for m in mean), tuple(max(round(s, 4), 1e-3) for s in std)


def note_of(entry: DatasetEntry, train: ImageSet, test: ImageSet | None) -> str:
    parts = []
    if entry.num_classes and train.num_classes < entry.num_classes:
        parts.append(f"{train.num_classes} of {entry.num_classes} classes")
    for images, published, word in ((train, entry.train, "train"), (test, entry.test, "test")):
        if images is not None and published and len(images) != published:
            parts.append(f"{len(images):,} of {published:,} {word} images")
    return "; ".join(parts)

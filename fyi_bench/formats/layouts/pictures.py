"""Folders of pictures, a sub-folder a class (DD-Ranking's and anybody's), and Hugging Face parquet files."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from fyi_bench.data.entry import DATASETS, DatasetEntry
from fyi_bench.data.folder import SUFFIXES
from fyi_bench.data.parquet import IMAGE_COLUMNS, read_shard
from fyi_bench.data.pictures import decode_images
from fyi_bench.errors import DataError
from fyi_bench.formats.base import Format, Options, Raw, register
from fyi_bench.formats.common import DAMAGED, check_size, first_line
from fyi_bench.formats.layouts._shared import method_in, need
from fyi_bench.formats.source import FOLDER, Source

_MAX_SIDE = 4096
_GREY_MODES = ("1", "L", "LA", "I", "I;16")
_NUMBERED = re.compile(r"(\d+)[-_ ](.+)")
_SPLITS = ("train", "test", "val", "valid", "validation")
_BATCH = 64


def _pictures(folder: Path) -> Iterator[Path]:
    """Pictures of a class, also in sub-folders, in no order."""
    walked = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return (path for path in walked if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))


def _classes(source: Source) -> list[str]:
    if source.kind != FOLDER:
        return []
    return sorted(entry.name for entry in os.scandir(source.path) if entry.is_dir() and not entry.name.startswith("."))


def recognise_folder(source: Source) -> str:
    has_some = any(True for name in _classes(source) for _ in _pictures(source.path / name))
    return "a sub-folder of pictures a class" if has_some else ""


def read_folder(source: Source, options: Options) -> Raw:
    """All pictures as uint8, classes by the names of their folders."""
    folders = _classes(source)
    need(bool(folders), source, "a folder with one sub-folder of pictures a class")
    if set(folders) & set(_SPLITS):
        split = next(name for name in folders if name in _SPLITS)
        raise DataError(f"{source.path} holds whole data sets ({', '.join(folders)}).\nName {source.path / split}.")
    labels, names, note = _order(folders, options.dataset)
    listing = [(path, labels[name]) for name in folders for path in sorted(_pictures(source.path / name))]
    need(bool(listing), source, "a folder with pictures in its sub-folders")
    paths = [source.used(path) for path, _ in listing]
    raw = Raw(
        labels=torch.tensor([label for _, label in listing]), class_names=names, method=method_in(source.path.name)
    )
    raw.num_classes = len(names) or max(labels.values()) + 1
    raw.guesses.append(note)
    channels = _check_headers(paths, paths, options.max_bytes)
    raw.images = decode_images(
        paths, lambda i: str(paths[i]), channels, hint="All pictures must be squares of one size."
    )
    raw.space, raw.space_reason = "pixel", "pictures"
    return raw


def _order(folders: Sequence[str], dataset: str | None) -> tuple[dict[str, int], tuple[str, ...], str]:
    """(folder -> label, class names, how it was decided)."""
    if all(name.isdigit() for name in folders):
        return {name: int(name) for name in folders}, (), "labels: the numbers that the folders are called by"
    numbered = [_NUMBERED.fullmatch(name) for name in folders]
    if all(numbered):
        labels = {match[0]: int(match[1]) for match in numbered}
        whole = sorted(labels.values()) == list(range(len(labels)))
        names = tuple(match[2] for match in sorted(numbered, key=lambda m: int(m[1]))) if whole else ()
        return labels, names, "labels: the numbers at the beginning of the folders' names"
    entries = [DATASETS.get(dataset)] if dataset in DATASETS else [DATASETS.get(n) for n in DATASETS]
    for entry in entries:
        table = _known_names(entry)
        if set(folders) <= set(table) and (dataset or len(folders) == entry.num_classes):
            return {n: table[n] for n in folders}, entry.class_names, f"labels: the order of {entry.name}'s classes"
    return {n: i for i, n in enumerate(folders)}, tuple(folders), "labels: the alphabetical order of the folders"


def _known_names(entry: DatasetEntry) -> dict[str, int]:
    """Names and folder names of a data set's classes -> label."""
    listed = next((layout.classes for layout in entry.layouts if getattr(layout, "classes", ())), ())
    pairs = [(name, i) for i, both in enumerate(listed) for name in both]
    return dict(pairs) | {name: i for i, name in enumerate(entry.class_names)}


def _check_headers(blobs: Sequence[Path | bytes], names: Sequence[object], budget: int) -> int:
    """Read sizes only; the number of channels (1 if all are grey). DataError before anything large is decoded."""
    from PIL import Image

    total, modes = 0, set()
    for blob, name in zip(blobs, names, strict=True):
        try:
            with Image.open(blob if isinstance(blob, Path) else io.BytesIO(blob)) as picture:
                (width, height), mode = picture.size, picture.mode
        except Exception as error:  # Pillow raises whatever the damaged bytes led it to
            raise DataError(f"{name} is not a picture ({first_line(error)}).\nReplace or remove it.") from error
        if max(width, height) > _MAX_SIDE:
            raise DataError(f"{name} is {width}x{height} pixels; up to {_MAX_SIDE} a side are read.\nCheck the file.")
        modes.add(mode)
        total += width * height * 3
        check_size(Path(str(name)), total, budget)
    return 1 if modes <= set(_GREY_MODES) else 3


def _shards(source: Source) -> list[Path]:
    if source.kind == FOLDER:
        found = [source.path / name for name in source.names if name.endswith(".parquet")]
        train = [path for path in found if path.name.startswith("train")]
        return train or found
    return [source.path] if source.kind == "parquet" else []


def recognise_parquet(source: Source) -> str:
    shards = _shards(source)
    return f"{len(shards)} parquet file{'s' * (len(shards) > 1)}" if shards else ""


def read_parquet(source: Source, options: Options) -> Raw:
    """All rows of the file, or of the train files of a folder, as uint8."""
    shards = _shards(source)
    need(bool(shards), source, "a .parquet file, nor a folder with some")
    blobs, labels, rows, names = [], [], [], ()
    for path in map(source.used, shards):
        _check_parquet(path, options.max_bytes)
        shard, shard_labels, names = read_shard(path)
        blobs, labels = blobs + shard, labels + shard_labels
        rows += [f"row {i} of {path}" for i in range(len(shard))]
    need(bool(blobs), source, "a parquet file with rows")
    channels = _check_headers(blobs, rows, options.max_bytes)
    raw = Raw(labels=torch.tensor(labels), class_names=names, num_classes=len(names) or None)
    raw.images = decode_images(blobs, rows.__getitem__, channels, hint="All rows must be squares of one size.")
    raw.space, raw.space_reason = "pixel", "encoded pictures"
    raw.method = method_in(source.name)
    return raw


def _check_parquet(path: Path, budget: int) -> None:
    """Unpack in small batches, so that a column that repeats one large value is noticed before it fills the memory."""
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    total = 0
    try:
        file = parquet.ParquetFile(path)
        columns = [name for name in IMAGE_COLUMNS if name in file.schema_arrow.names]
        sizes = [file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups)]
        check_size(path, sum(sizes), budget)
        rows = min(_BATCH, max(1, budget // max([1, *sizes])))  # no value is larger than its row group
        for batch in file.iter_batches(rows, columns=columns):
            total += sum(_value_bytes(column) for column in batch.columns)
            check_size(path, total, budget)
    except (ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable parquet file ({first_line(error)}).\n{DAMAGED}") from error


def _value_bytes(column: Any) -> int:
    """Bytes of all values of an arrow column, each counted as often as it stands there."""
    import pyarrow as arrow
    import pyarrow.compute as compute

    if arrow.types.is_struct(column.type):
        return sum(_value_bytes(part) for part in column.flatten())
    if arrow.types.is_dictionary(column.type):
        lengths = compute.binary_length(column.dictionary).take(column.indices)
        return compute.sum(lengths).as_py() or 0
    return column.nbytes


register(Format("parquet", "Hugging Face parquet: columns img or image, and label", recognise_parquet, read_parquet, 2))
register(Format("image-folder", "folders of PNG or JPEG pictures, one a class", recognise_folder, read_folder, 80))

"""Sets of the Hugging Face Hub: parquet files, and Arrow files as `save_to_disk` writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from distill.image_set import ImageSet
from fyi_bench.data.arrow import arrow_files, read_arrow
from fyi_bench.data.parquet import IMAGE_COLUMNS, read_shards
from fyi_bench.data.pictures import decode_images
from fyi_bench.errors import DataError
from fyi_bench.files import atomic_write
from fyi_bench.formats.base import FORMATS, Format, Options, Raw
from fyi_bench.formats.export import png
from fyi_bench.formats.input_files import FOLDER, InputFiles
from fyi_bench.formats.opening import DAMAGED, check_pictures, check_size, first_line
from fyi_bench.formats.origin import method_in

_BATCH = 64
_SHARD = re.compile(r"[-_.]\d+-of-\d+([-.]\w+)?$")
_NUMBERED = re.compile(r"(|.*[-_.])(\d+)")
_OF = re.compile(r"-of-(\d+)[-.]")


def _shards(files: InputFiles) -> list[Path]:
    if files.kind == FOLDER:
        found = [files.folder / name for name in files.names if name.endswith(".parquet")] or _inner(files.folder)
        found = [path for path in found if path.name.startswith("train")] or found
        found = _of_one_set(files.folder, found)
        total = max((int(match[1]) for path in found if (match := _OF.search(path.name))), default=0)
        if 0 < len(found) < total:
            raise DataError(
                f"{files.folder} holds {len(found)} of the {total} files of its set.\nCopy the others there."
            )
        return found
    return [files.place] if files.kind == "parquet" else []


def _of_one_set(folder: Path, found: list[Path]) -> list[Path]:
    """The files; DataError where their names are of several sets."""
    if len(sets := _sets_of([path.name for path in found])) > 1:
        listed = ", ".join(sorted(sets)[:4])
        raise DataError(f"{folder} holds several sets ({listed}).\nName the file of one, or move the others away.")
    return found


def _sets_of(names: Sequence[str]) -> set[str]:
    """What the names of files say of their sets: 'train' of train-00000-of-00002-86921e166bc0c887.parquet, 'part' of
    part-0.parquet, part-1.parquet …; the whole of a name that is in no such row."""
    stems = [Path(name).stem for name in names]
    whole = [_SHARD.sub("", stem) for stem in stems]
    found = [_NUMBERED.fullmatch(stem) for stem in whole]
    numbers = sorted(int(match[2]) for match in found if match)
    if len(numbers) == len(names) and numbers in (list(range(len(names))), list(range(1, len(names) + 1))):
        whole = [match[1] for match in found if match]
    return set(whole)


def _unread(path: Path) -> list[str]:
    """What is said of columns of soft labels, which no reader of these files takes."""
    import pyarrow.parquet as parquet

    schema = read_arrow(path).schema if path.suffix == ".arrow" else parquet.read_schema(path)
    soft = [name for name in schema.names if "soft" in name.lower() or "logit" in name.lower()]
    return [f"not read: the column {', '.join(soft)}"] if soft else []


def _inner(folder: Path) -> list[Path]:
    """The files of a clone of a hub's repository, which keeps them in a folder; DataError for several such folders."""
    found = [path for deep in ("*", "*/*") for path in sorted(folder.glob(f"{deep}/*.parquet")) if path.is_file()]
    found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    folders = sorted({path.parent for path in found})
    if len(folders) > 1:
        listed = ", ".join(str(inner.relative_to(folder)) for inner in folders[:4])
        raise DataError(f"{folder} holds several sets ({listed}).\nName the folder of one.")
    return found


def _check(path: Path, budget: int) -> None:
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


@FORMATS.register("parquet")
class Parquet(Format):
    """Hugging Face parquet: columns img or image, and label, fine_label, labels or class_id"""

    rank, suffix, spaces, bytes_only = 2, ".parquet", ("pixel",), True

    def shards(self, files: InputFiles) -> list[Path]:
        """The files of the set, in their order; [] where there are none."""
        return _shards(files)

    def check(self, path: Path, budget: int) -> None:
        """DataError for a file that is damaged, or whose values are more than the budget."""
        _check(path, budget)

    def looks(self, files: InputFiles) -> str:
        shards = self.shards(files)
        return f"{len(shards)} {self.name} file{'s' * (len(shards) > 1)}" if shards else ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """All rows of the file, or of the train files of a folder, as uint8."""
        shards = files.need(self.shards(files), f"a .{self.name} file, nor a folder with some")
        for path in map(files.used, shards):
            self.check(path, options.max_bytes)
        blobs, rows, labels, names = read_shards(shards)
        files.need(blobs, f"a .{self.name} file with rows")
        channels = check_pictures(blobs, rows, options.max_bytes)
        return Raw(
            decode_images(blobs, rows.__getitem__, channels, hint="All rows must be squares of one size."),
            torch.tensor(labels),
            space="pixel",
            space_reason="encoded pictures",
            class_names=names,
            numbered=True,
            method=method_in(files.name, *files.folders[:2]),
            guesses=_unread(shards[0]),
        )

    def write(self, image_set: ImageSet, path: Path) -> list[Path]:
        """Columns `image` {bytes, path} and `label`, with the schema metadata `datasets` reads."""
        return [write_rows(image_set, slice(None), path)]


def write_rows(image_set: ImageSet, part: slice, path: Path, soft: torch.Tensor | None = None) -> Path:
    """Some rows of a set of uint8 pictures with hard labels; soft: labels of a further column [N, C]."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    images, labels = image_set.images[part], image_set.labels[part]
    rows = [{"bytes": png(levels), "path": f"{i:06d}.png"} for i, levels in enumerate(images, part.start or 0)]
    names = {"names": list(image_set.class_names), "_type": "ClassLabel"} if image_set.class_names else None
    features: dict[str, Any] = {"image": {"_type": "Image"}, "label": names or {"dtype": "int64", "_type": "Value"}}
    picture = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    columns = [arrow.array(rows, picture), arrow.array(labels.tolist(), arrow.int64())]
    fields = [("image", picture), ("label", arrow.int64())]
    if soft is not None:
        features["soft_label"] = {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"}
        columns.append(arrow.array(soft[part].float().tolist(), arrow.list_(arrow.float32())))
        fields.append(("soft_label", columns[-1].type))
    schema = arrow.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})
    table = arrow.table(columns, schema=schema)
    return atomic_write(path, lambda temporary: parquet.write_table(table, temporary))


@FORMATS.register("arrow")
class Arrow(Parquet):
    """Hugging Face save_to_disk: a folder of data-*.arrow with dataset_info.json"""

    rank, suffix, bytes_only, write = 3, "", False, Format.write

    def shards(self, files: InputFiles) -> list[Path]:
        if files.kind != FOLDER:
            return [files.place] if files.kind == "arrow" else []
        return _of_one_set(files.folder, arrow_files(files.folder))

    def check(self, path: Path, budget: int) -> None:
        check_size(path, path.stat().st_size, budget)
        columns = (column for column in read_arrow(path).columns for column in column.chunks)
        check_size(path, sum(map(_value_bytes, columns)), budget)

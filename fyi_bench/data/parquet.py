"""Image sets in the parquet layout of the Hugging Face hub (`train-00000-of-00002.parquet` …).

Images are the column `img` or `image`, encoded bytes or a struct with a field `bytes`; labels are `label`,
`fine_label` …: numbers, or names. Class names come from the schema's `huggingface` metadata, where it is there.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fyi_bench.data.arrow import read_arrow
from fyi_bench.data.entry import DataFiles, Decoded, Split
from fyi_bench.data.pictures import decode_images
from fyi_bench.errors import DataError
from fyi_bench.files import json_of

IMAGE_COLUMNS = ("img", "image", "images", "picture")
LABEL_COLUMNS = ("label", "fine_label", "labels", "class_id", "class", "target", "targets")
_PREFIXES: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("test", "validation", "valid")}
_INNER = ("", "data", "plain_text")  # where clones of hub repositories keep the files
_AGAIN = "It is truncated or another format: copy it again."


@dataclass(frozen=True)
class ParquetFiles(DataFiles):
    """`<root>/<folder>/train-*.parquet` and its other shards."""

    layout = "parquet"
    channels: int = 3

    @property
    def looks_like(self) -> str:
        return f"{self.folders[0]}/train-*.parquet"

    @property
    def complete(self) -> bool:
        shards = self.files("train")
        total = re.search(r"-of-(\d+)\.parquet$", shards[0].name)
        return total is None or len(shards) >= int(total.group(1))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of its classes, where the files say them; no image is read."""
        return stated_names(self.files("train")[0])

    def places(self, root: Path) -> list[Path]:
        return [folder / inner for folder in super().places(root) for inner in _INNER]

    def lie_in(self, folder: Path) -> bool:
        return any(folder.glob("train-*.parquet"))

    def files(self, split: Split) -> list[Path]:
        for prefix in _PREFIXES[split]:
            if found := sorted(self.folder.glob(f"{prefix}-*.parquet")):
                return found
        names = " or ".join(f"{prefix}-*.parquet" for prefix in _PREFIXES[split])
        raise DataError(f"{self.folder} has no {split} images ({names}).\nCopy those files into it.")

    def count(self, split: Split) -> int | None:
        return sum(map(rows_of, self.files(split)))

    def options(self) -> dict[str, Any]:
        return {**super().options(), "channels": self.channels}

    def read(self, split: Split) -> Decoded:
        blobs, rows, labels, names = read_shards(self.files(split))
        if not blobs:
            raise DataError(f"The {split} files in {self.folder} hold no images.\n{_AGAIN}")
        images = decode_images(blobs, rows.__getitem__, self.channels, hint="All rows must be squares of one size.")
        found = torch.tensor(labels, dtype=torch.int64)
        return Decoded(images, found, len(names) or int(found.max()) + 1, names)


def read_shards(paths: Sequence[Path]) -> tuple[list[bytes], list[str], list[int], tuple[str, ...]]:
    """(encoded images, what messages call each, labels, class names) of the files of one set, in their order."""
    blobs: list[bytes] = []
    rows: list[str] = []
    labels: list[Any] = []
    names: tuple[str, ...] = ()
    for path in paths:
        shard, shard_labels, shard_names = read_shard(path)
        if blobs and shard_names != names:
            raise DataError(f"{path} names other classes than the files before it.\nUse the files of one set only.")
        names = shard_names
        rows += [f"row {i} of {path}" for i in range(len(shard))]
        blobs += shard
        labels += shard_labels
    if any(isinstance(label, str) for label in labels):
        names = tuple(sorted(set(map(str, labels))))
        labels = [names.index(str(label)) for label in labels]
    return blobs, rows, labels, names


def read_shard(path: Path) -> tuple[list[bytes], list[int | str], tuple[str, ...]]:
    """(encoded images, labels, class names) of one file; DataError naming the file and what is wrong with it."""
    import pyarrow.parquet as parquet

    with _readable(path):
        whole = read_arrow(path) if path.suffix == ".arrow" else None
        schema = parquet.read_schema(path) if whole is None else whole.schema
        image, label = (_column(path, schema.names, what) for what in ("image", "label"))
        table = parquet.read_table(path, columns=[image, label]) if whole is None else whole
        values, labels = table[image].to_pylist(), table[label].to_pylist()
    blobs: list[Any] = [value.get("bytes") if isinstance(value, dict) else value for value in values]
    for i, (blob, number) in enumerate(zip(blobs, labels, strict=True)):
        if not isinstance(blob, bytes):
            raise DataError(
                f"Row {i} of {path} holds no image bytes.\nUse files with the images embedded, not links to them."
            )
        if not (isinstance(number, str) and number) and not (isinstance(number, int) and number >= 0):
            raise DataError(f"Row {i} of {path} has the label {number!r}.\nLabels must be integers from 0, or names.")
    return blobs, labels, _class_names(schema.metadata or {}, label)


def channels_of(path: Path) -> int:
    """1 where the first picture of a file is grey, else 3."""
    import io

    import pyarrow.parquet as parquet
    from PIL import Image

    try:
        column = _column(path, parquet.read_schema(path).names, "image")
        value = next(parquet.ParquetFile(path).iter_batches(1, columns=[column]))[column][0].as_py()
        with Image.open(io.BytesIO(value["bytes"] if isinstance(value, dict) else value)) as picture:
            return 1 if picture.mode in ("1", "L", "LA", "I", "I;16") else 3
    except DataError:
        raise
    except Exception as error:  # readers of pictures and parquet raise whatever the damaged bytes led them to
        raise DataError(f"{path} holds no picture in its first row.\n{_AGAIN}") from error


def rows_of(path: Path) -> int:
    """How many rows one file has; DataError for a file that cannot be read."""
    import pyarrow.parquet as parquet

    with _readable(path):
        return parquet.read_metadata(path).num_rows


def stated_names(path: Path) -> tuple[str, ...]:
    """The class names that one file states; no image is read. DataError for a file that cannot be read."""
    import pyarrow.parquet as parquet

    with _readable(path):
        schema = parquet.read_schema(path)
        return _class_names(schema.metadata or {}, _column(path, schema.names, "label"))


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Inside, what damaged bytes lead pyarrow to, names that are no text too, is a DataError about the file."""
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError, ValueError) as error:
        cause = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise DataError(f"{path} is not a readable parquet file ({cause}).\n{_AGAIN}") from error


def _column(path: Path, there: list[str], what: str) -> str:
    wanted = IMAGE_COLUMNS if what == "image" else LABEL_COLUMNS
    found = next((name for name in wanted if name in there), None)
    if found is None:
        raise DataError(
            f"{path} has no {what} column ({' or '.join(wanted)}); it has {', '.join(there)}.\n"
            "Rename the column, or use the files of the hub's set unchanged."
        )
    return found


def _class_names(metadata: dict[bytes, bytes], label: str) -> tuple[str, ...]:
    try:
        features = json_of(metadata[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[label]["names"])
    except (KeyError, TypeError, ValueError):  # files written by other tools carry no names; the entry may know them
        return ()

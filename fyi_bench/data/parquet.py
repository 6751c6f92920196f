"""Image sets in the parquet layout of the Hugging Face hub (`train-00000-of-00002.parquet` …).

Images are the column `img` or `image`, encoded bytes or a struct with a field `bytes`; labels are `label` or
`fine_label`; class names come from the schema's `huggingface` metadata, where it is there.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fyi_bench.data.entry import Decoded, Source, Split, places
from fyi_bench.data.pictures import decode_images
from fyi_bench.errors import DataError

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label")
_PREFIXES: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("test", "validation", "valid")}
_INNER = ("", "data", "plain_text")  # where clones of hub repositories keep the files
_AGAIN = "It is truncated or another format: copy it again."


@dataclass(frozen=True)
class ParquetLayout:
    """`<root>/<folder>/train-*.parquet` for any of the folder names."""

    folders: tuple[str, ...]
    channels: int = 3

    @property
    def looks_like(self) -> str:
        return f"{self.folders[0]}/train-*.parquet"

    def find(self, root: Path) -> Source | None:
        for folder in places(root, self.folders):
            for inner in _INNER:
                if any((folder / inner).glob("train-*.parquet")):
                    return ParquetSource(folder / inner, self.channels)
        return None


@dataclass(frozen=True)
class ParquetSource:
    """The shards in one folder."""

    where: Path
    channels: int

    @property
    def complete(self) -> bool:
        shards = self.files("train")
        total = re.search(r"-of-(\d+)\.parquet$", shards[0].name)
        return total is None or len(shards) >= int(total.group(1))

    def files(self, split: Split) -> list[Path]:
        for prefix in _PREFIXES[split]:
            if found := sorted(self.where.glob(f"{prefix}-*.parquet")):
                return found
        names = " or ".join(f"{prefix}-*.parquet" for prefix in _PREFIXES[split])
        raise DataError(f"{self.where} has no {split} images ({names}).\nCopy those files into it.")

    def options(self) -> dict[str, Any]:
        return {"layout": "parquet", "channels": self.channels}

    def read(self, split: Split) -> Decoded:
        blobs: list[bytes] = []
        rows: list[str] = []
        labels: list[int] = []
        names: tuple[str, ...] = ()
        for path in self.files(split):
            shard, shard_labels, shard_names = read_shard(path)
            if blobs and shard_names != names:
                raise DataError(f"{path} names other classes than the files before it.\nUse the files of one set only.")
            names = shard_names
            rows += [f"row {i} of {path}" for i in range(len(shard))]
            blobs += shard
            labels += shard_labels
        if not blobs:
            raise DataError(f"The {split} files in {self.where} hold no images.\n{_AGAIN}")
        images = decode_images(blobs, rows.__getitem__, self.channels, hint="All rows must be squares of one size.")
        found = torch.tensor(labels, dtype=torch.int64)
        return Decoded(images, found, len(names) or int(found.max()) + 1, names)


def read_shard(path: Path) -> tuple[list[bytes], list[int], tuple[str, ...]]:
    """(encoded images, labels, class names) of one file; DataError naming the file and what is wrong with it."""
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise DataError(f"Reading {path} needs the package pyarrow.\nInstall it: pip install pyarrow.") from error
    from pyarrow import ArrowException

    try:
        schema = parquet.read_schema(path)
        image, label = _column(schema, IMAGE_COLUMNS), _column(schema, LABEL_COLUMNS)
        if image is None or label is None:
            wanted, what = (IMAGE_COLUMNS, "image") if image is None else (LABEL_COLUMNS, "label")
            raise DataError(
                f"{path} has no {what} column ({' or '.join(wanted)}); it has {', '.join(schema.names)}.\n"
                "Rename the column, or use the files of the hub's set unchanged."
            )
        table = parquet.read_table(path, columns=[image, label])
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable parquet file ({_first_line(error)}).\n{_AGAIN}") from error
    blobs = _encoded(path, table[image])
    labels = table[label].to_pylist()
    bad = next((i for i, value in enumerate(labels) if not isinstance(value, int) or value < 0), None)
    if bad is not None:
        raise DataError(f"Row {bad} of {path} has the label {labels[bad]!r}.\nLabels must be integers from 0.")
    return blobs, labels, _class_names(schema.metadata or {}, label)


def _column(schema: Any, candidates: tuple[str, ...]) -> str | None:
    return next((name for name in candidates if name in schema.names), None)


def _encoded(path: Path, column: Any) -> list[bytes]:
    values: list[Any] = column.to_pylist()
    blobs = [value.get("bytes") if isinstance(value, dict) else value for value in values]
    bad = next((i for i, blob in enumerate(blobs) if not isinstance(blob, bytes)), None)
    if bad is not None:
        raise DataError(
            f"Row {bad} of {path} holds no image bytes.\nUse files with the images embedded, not links to them."
        )
    return blobs


def _class_names(metadata: dict[bytes, bytes], label: str) -> tuple[str, ...]:
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[label]["names"])
    except (KeyError, TypeError, ValueError):  # files written by other tools carry no names; the entry may know them
        return ()


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")

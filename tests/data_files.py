"""Small real-data files in the layouts users have, made on the spot (used by the test_data*.py files)."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fyi_bench.rng import numpy_stream

NAMES10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
REAL = Path(os.environ.get("FYI_BENCH_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def isolate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's is read or written, and there is no network."""

    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setenv("FYI_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FYI_BENCH_DATA", raising=False)
    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.chdir(tmp_path)


def real_file(relative: str) -> Path:
    """A file of the real-data folder; the test is skipped where it is absent."""
    path = REAL / relative
    if not path.is_file():
        pytest.skip(f"{path} is absent (name the data folder with FYI_BENCH_DATA)")
    return path


def pixels(count: int, side: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    """uint8 [count, side, side, channels]."""
    return numpy_stream(seed, "pixels").integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, format="PNG")
    return buffer.getvalue()


def write_parquet(path: Path, images, labels, columns=("img", "label"), names=NAMES10, struct_column=True) -> Path:
    """A file as the hub's converter writes it; `images` are arrays or encoded bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    blobs = [image if isinstance(image, bytes | type(None)) else png(image) for image in images]
    column = pa.array([{"bytes": b, "path": None} for b in blobs]) if struct_column else pa.array(blobs)
    table = pa.table({columns[0]: column, columns[1]: pa.array(labels, pa.int64())})
    if names:
        info = {"info": {"features": {columns[0]: {"_type": "Image"}, columns[1]: {"names": list(names)}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def write_cifar10(root: Path, per_class: int = 2, shards: int = 1, of: int = 1, seed: int = 0) -> np.ndarray:
    """`cifar10/` with train shards and a test file; returns the train images uint8 [N, 32, 32, 3]."""
    images = pixels(10 * per_class * shards, seed=seed)
    labels = [i % 10 for i in range(len(images))]
    size = 10 * per_class
    for shard in range(shards):
        part = slice(shard * size, (shard + 1) * size)
        write_parquet(root / f"cifar10/train-{shard:05d}-of-{of:05d}.parquet", images[part], labels[part])
    write_parquet(root / "cifar10/test-00000-of-00001.parquet", pixels(10, seed=seed + 1), list(range(10)))
    return images


def write_idx(path: Path, array: np.ndarray, magic: bytes | None = None, shape: tuple[int, ...] | None = None) -> Path:
    shape = shape or array.shape
    head = (magic or bytes([0, 0, 8, len(shape)])) + struct.pack(f">{len(shape)}I", *shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = head + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_mnist(folder: Path, suffix: str = ".gz") -> np.ndarray:
    """The four idx files; returns the train images uint8 [20, 28, 28]."""
    train = pixels(20, 28, 1)[..., 0]
    write_idx(folder / f"train-images-idx3-ubyte{suffix}", train)
    write_idx(folder / f"train-labels-idx1-ubyte{suffix}", np.arange(20, dtype=np.uint8) % 10)
    write_idx(folder / f"t10k-images-idx3-ubyte{suffix}", pixels(10, 28, 1, seed=1)[..., 0])
    write_idx(folder / f"t10k-labels-idx1-ubyte{suffix}", np.arange(10, dtype=np.uint8))
    return train


def write_folder(root: Path, classes=("ant", "bee"), per_class: int = 3, side: int = 16, test: str = "test") -> Path:
    """train/<class>/*.png and <test>/<class>/*.png."""
    for split, seed in (("train", 0), (test, 1)):
        for c, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for i, image in enumerate(pixels(per_class, side, seed=10 * seed + c)):
                (folder / f"{i}.png").write_bytes(png(image))
    return root

"""The decoded-image cache, the digests, and that a strict run never touches the test files."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from data_files import isolate, write_cifar10, write_mnist
from distill.image_set import ImageSet
from distill.spaces import PixelSpace
from fyi_bench.data import RealDataset, describe, load_dataset
from fyi_bench.data.cache import cache_folder
from fyi_bench.errors import DataError


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    isolate(tmp_path, monkeypatch)


def test_without_test_no_test_file_is_read(tmp_path):
    write_cifar10(tmp_path)
    (tmp_path / "cifar10/test-00000-of-00001.parquet").write_text("not parquet")
    data = load_dataset("cifar10", tmp_path, test=False)
    assert not data.has_test
    assert len(data.train) == 20
    assert describe(data)["train_digest"] == data.train_digest
    assert "test not loaded" in repr(data)
    for read in (lambda: data.test, lambda: data.digest, lambda: data.test_digest):
        with pytest.raises(DataError, match="test images of cifar10 were not loaded"):
            read()
    assert [path.name.split("-")[1] for path in (tmp_path / "cache/data").iterdir()] == ["train"]


def test_digests(tmp_path):
    write_cifar10(tmp_path / "a")
    write_cifar10(tmp_path / "b")
    write_cifar10(tmp_path / "c", seed=5)
    fresh, again, other = (load_dataset("cifar10", tmp_path / name) for name in "aac")
    same = load_dataset("cifar10", tmp_path / "b")
    assert not fresh.sums["train"]
    assert again.sums["train"]  # read from the cache file, not computed
    assert len({fresh.digest, again.digest, same.digest}) == 1
    assert len({fresh.train_digest, fresh.test_digest, fresh.digest, other.digest, other.train_digest}) == 5
    train_only = load_dataset("cifar10", tmp_path / "a", test=False)
    assert train_only.train_digest == fresh.train_digest
    assert len(fresh.digest) == 16
    by_hand = RealDataset("mine", fresh.train, fresh.test, fresh.mean, fresh.std)
    assert by_hand.digest == fresh.digest
    changed = fresh.train.labels.clone()
    changed[0] = 1
    relabelled = ImageSet(fresh.train.images, changed, PixelSpace(), 10)
    assert RealDataset("mine", relabelled, fresh.test, fresh.mean, fresh.std).digest != fresh.digest


def test_cache_is_used_and_a_changed_source_is_not(tmp_path, monkeypatch):
    write_cifar10(tmp_path)
    first = load_dataset("cifar10", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("fyi_bench.data.parquet.read_shard", lambda path: pytest.fail("decoded again"))
        assert load_dataset("cifar10", tmp_path).digest == first.digest
    write_cifar10(tmp_path, seed=9)
    assert load_dataset("cifar10", tmp_path).train_digest != first.train_digest


def test_a_source_changed_within_one_clock_tick_is_not_reused(tmp_path):
    write_mnist(tmp_path / "mnist", "")
    first = load_dataset("mnist", tmp_path)
    path = tmp_path / "mnist/train-images-idx3-ubyte"
    status = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load_dataset("mnist", tmp_path).train_digest != first.train_digest


@pytest.mark.parametrize("place", [0.02, 0.1, 0.3, 0.7, 0.999])
def test_a_damaged_cache_is_rebuilt(tmp_path, caplog, place):
    write_mnist(tmp_path / "mnist")
    first = load_dataset("mnist", tmp_path, test=False)
    (path,) = (tmp_path / "cache/data").iterdir()
    good = path.read_bytes()
    data = bytearray(good)
    data[int(place * len(data))] ^= 0x15
    path.write_bytes(data)
    second = load_dataset("mnist", tmp_path, test=False)
    assert second.train_digest == first.train_digest
    assert second.class_names == first.class_names
    assert "rebuilt from the source" in caplog.text
    assert path.read_bytes() == good


def test_many_writers_of_one_cache(tmp_path):
    write_cifar10(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        digests = set(pool.map(lambda _: load_dataset("cifar10", tmp_path).digest, range(8)))
    assert len(digests) == 1
    assert len(list((tmp_path / "cache/data").iterdir())) == 2  # train and test, and nothing half-written


def test_no_cache_folder_can_be_written(tmp_path, monkeypatch, caplog):
    write_cifar10(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FYI_BENCH_CACHE", str(tmp_path / "file/below"))
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache_folder().parent == tmp_path
    assert "decoded images go to" in caplog.text
    assert cache_folder().stat().st_mode & 0o077 == 0
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    assert len(load_dataset("cifar10", tmp_path).train) == 20

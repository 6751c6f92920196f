"""Real data sets: every layout gives the pixels that were written, the cache and the digests keep their promises."""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from data_files import (
    NAMES10,
    isolate,
    pixels,
    png,
    real_file,
    write_cifar10,
    write_folder,
    write_idx,
    write_mnist,
    write_parquet,
)
from distill.spaces import NormalizedSpace, PixelSpace
from fyi_bench.data import DATASETS, RealDataset, get, list_datasets, load_dataset, statistics, verify
from fyi_bench.data.entry import DatasetEntry, Decoded
from fyi_bench.data.real import pixel_statistics
from fyi_bench.data.sets.imagenet import SUBSETS
from fyi_bench.errors import DataError, UnknownNameError
from fyi_bench.rng import numpy_stream

CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    isolate(tmp_path, monkeypatch)


def channels_last(images: torch.Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).numpy()


def test_parquet_pixels_labels_and_names(tmp_path):
    written = write_cifar10(tmp_path)
    data = load_dataset("cifar10", tmp_path)
    assert isinstance(data, RealDataset)
    assert data.train.validate().images.dtype == torch.uint8
    assert np.array_equal(channels_last(data.train.images), written)
    assert data.train.labels.tolist() == [i % 10 for i in range(20)]
    assert data.class_names == NAMES10
    assert (data.num_classes, data.channels, data.size) == (10, 3, 32)
    assert data.space == NormalizedSpace(*CIFAR10)
    assert data.train.space == PixelSpace()
    assert data.where == str(tmp_path / "cifar10")
    assert data.note == "20 of 50,000 train images; 10 of 10,000 test images"


def test_parquet_shards_are_joined_in_the_order_of_their_names(tmp_path):
    written = write_cifar10(tmp_path, shards=2, of=2)
    assert np.array_equal(channels_last(load_dataset("cifar10", tmp_path).train.images), written)


@pytest.mark.parametrize("inner", ["", "data", "plain_text"])
def test_parquet_other_columns_and_folders(tmp_path, inner):
    images = pixels(100)
    folder = tmp_path / "cifar100" / inner
    for name in ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"):
        write_parquet(folder / name, images, list(range(100)), ("image", "fine_label"), names=(), struct_column=False)
    data = load_dataset("cifar100", tmp_path / "cifar100")  # the folder itself may be named, too
    assert np.array_equal(channels_last(data.train.images), images)
    assert data.class_names[:2] == ("apple", "aquarium_fish")  # the files have none
    assert data.num_classes == 100


def test_incomplete_parquet_gives_way_to_a_complete_source(tmp_path):
    write_parquet(tmp_path / "mnist/train-00000-of-00002.parquet", pixels(10, 28, 1), list(range(10)))
    partial = {row.name: row.state for row in list_datasets(tmp_path)}["mnist"]
    assert partial == "partial"
    written = write_mnist(tmp_path / "MNIST/raw", suffix="")
    assert np.array_equal(load_dataset("mnist", tmp_path).train.images[:, 0].numpy(), written)


@pytest.mark.parametrize(("folder", "suffix"), [("mnist", ".gz"), ("MNIST/raw", ""), ("MNIST/raw", ".gz")])
def test_idx_files(tmp_path, folder, suffix):
    written = write_mnist(tmp_path / folder, suffix)
    data = load_dataset("mnist", tmp_path)
    assert np.array_equal(data.train.images[:, 0].numpy(), written)
    assert data.train.labels.tolist() == [i % 10 for i in range(20)]
    assert data.class_names == tuple("0123456789")
    assert data.space == NormalizedSpace((0.1307,), (0.3081,))


def test_fashion_has_its_own_folder(tmp_path):
    write_mnist(tmp_path / "FashionMNIST/raw", "")
    assert load_dataset("fashionmnist", tmp_path).class_names[9] == "ankle boot"
    with pytest.raises(DataError, match="No mnist data"):
        load_dataset("mnist", tmp_path)


def test_svhn_calls_class_10_the_digit_0(tmp_path):
    from scipy.io import savemat

    images = pixels(10)
    for split in ("train", "test"):
        x = images.transpose(1, 2, 3, 0)
        savemat(tmp_path / f"{split}_32x32.mat", {"X": x, "y": np.arange(1, 11, dtype=np.uint8)[:, None]})
    data = load_dataset("svhn", tmp_path)
    assert data.train.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert np.array_equal(channels_last(data.train.images), images)


def _write_batches(root: Path, monkeypatch) -> np.ndarray:
    """CIFAR-10's python batches with other pictures, and torchvision's checksums set to theirs."""
    from search_space.torchvision_compat import torchvision

    known, folder = torchvision.datasets.CIFAR10, root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    images = pixels(50)

    def write(name: str, content: dict) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    sums = []
    for i in range(5):
        flat = images[10 * i : 10 * i + 10].transpose(0, 3, 1, 2).reshape(10, -1)
        sums.append([f"data_batch_{i + 1}", write(f"data_batch_{i + 1}", {"data": flat, "labels": list(range(10))})])
    monkeypatch.setattr(known, "train_list", sums)
    monkeypatch.setattr(known, "meta", known.meta | {"md5": write("batches.meta", {"label_names": list(NAMES10)})})
    return images


def test_torchvision_batches_without_the_test_batch(tmp_path, monkeypatch):
    written = _write_batches(tmp_path, monkeypatch)
    data = load_dataset("cifar10", tmp_path, test=False)
    assert np.array_equal(channels_last(data.train.images), written)
    with pytest.raises(DataError, match="test_batch is absent"):
        load_dataset("cifar10", tmp_path)


def test_a_foreign_pickle_is_refused_before_it_is_opened(tmp_path, monkeypatch):
    _write_batches(tmp_path, monkeypatch)
    sentinel = tmp_path / "ran"

    class Malicious:
        def __reduce__(self):
            return (os.mkdir, (str(sentinel),))

    (tmp_path / "cifar-10-batches-py/data_batch_3").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(DataError, match="not the published one"):
        load_dataset("cifar10", tmp_path, test=False)
    assert not sentinel.exists()


@pytest.mark.parametrize("test_name", ["test", "val", "validation"])
def test_a_folder_of_pictures(tmp_path, test_name):
    root = write_folder(tmp_path / "bugs", ("bee", "ant", "cat"), test=test_name)
    data = load_dataset(f"imagefolder:{root}")
    assert data.name == "imagefolder:bugs"
    assert data.class_names == ("ant", "bee", "cat")  # alphabetical, whatever the order of creation
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert np.array_equal(channels_last(data.train.images[3:6]), pixels(3, 16, seed=0))
    mean, std = pixel_statistics(data.train.images)
    assert data.mean == pytest.approx(mean, abs=1e-4)
    assert data.std == pytest.approx(std, abs=1e-4)
    assert data.note == ""


def test_pictures_of_any_size_with_a_size_named(tmp_path):
    root = write_folder(tmp_path / "photos")
    tall = np.zeros((90, 60, 3), dtype=np.uint8)
    tall[15:75] = 200  # the middle square; the bands above and below are cropped away
    (root / "train/ant/0.png").write_bytes(png(tall))
    data = load_dataset(f"imagefolder:{root}@8", test=False)
    assert data.size == 8
    assert data.name == "imagefolder:photos@8"
    assert (data.train.images[0, :, 1:-1] == 200).all()


@pytest.mark.parametrize("name", SUBSETS)
def test_pictures_of_imagenet_subsets_are_squashed_not_cropped(tmp_path, name):
    folders = [words[:9] for words in SUBSETS[name].split(", ")]
    root = write_folder(tmp_path / "imagenet", folders, per_class=1, side=8, test="val")
    wide = numpy_stream(0, "wide").integers(0, 256, (130, 300, 3), dtype=np.uint8)
    wide[:, :60] = 0
    for split in ("train", "val"):
        (root / split / folders[0] / "0.png").write_bytes(png(wide))
    data = load_dataset(name, tmp_path)
    whole = torch.from_numpy(wide).permute(2, 0, 1)[None].double()
    squashed = torch.nn.functional.interpolate(whole, (128, 128), mode="bilinear", antialias=True)[0]
    for images in (data.train.images, data.test.images):
        assert (images[0] - squashed).abs().max() <= 1  # rounded to whole levels twice
        assert (images[0, :, :, :24] == 0).all()


@pytest.mark.long
def test_tiny_imagenet_sample(tmp_path):
    import tarfile

    with tarfile.open(real_file("tiny-imagenet-20x140.tar.xz")) as archive:
        wanted = [m for m in archive.getmembers() if "/train/" not in m.name or m.name.endswith(("_0.JPEG", "_1.JPEG"))]
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # from Python 3.11.4 on
        archive.extractall(tmp_path, members=wanted)
    listed = load_dataset("tinyimagenet", tmp_path)
    assert (listed.num_classes, len(listed.train), len(listed.test), listed.size) == (20, 40, 1000, 64)
    assert listed.note == "20 of 200 classes; 40 of 100,000 train images; 1,000 of 10,000 test images"
    assert listed.class_names[0] == "goldfish"
    assert listed.test.ipc == 50
    folder = tmp_path / "tiny-imagenet-200/val"  # the same split sorted into a folder a class
    for line in (folder / "val_annotations.txt").read_text().splitlines():
        name, wnid = line.split("\t")[:2]
        (folder / wnid).mkdir(exist_ok=True)
        (folder / "images" / name).rename(folder / wnid / name)
    refoldered = load_dataset("tinyimagenet", tmp_path)
    assert refoldered.test_digest == listed.test_digest


def test_imagenet_subset_sample(tmp_path):
    with zipfile.ZipFile(real_file("imagenet-subsets-128-sample.zip")) as archive:
        archive.extractall(tmp_path, [n for n in archive.namelist() if "classes.json" not in n])
    data = load_dataset("imagenette", tmp_path)
    assert (len(data.train), len(data.test), data.size) == (80, 30, 128)
    assert data.class_names[0] == "tench"
    assert data.class_names[1] == "English springer"  # the published order, not the alphabetical one of the folders


def test_mirrored_digits_are_all_images_and_their_mirror_images(tmp_path):
    plain = write_mnist(tmp_path / "mnist")
    found = load_dataset("mnist-mirrored", tmp_path)
    images = found.train.images[:, 0].numpy()
    assert np.array_equal(images[:20], plain)
    assert np.array_equal(images[20:], plain[..., ::-1])
    assert found.train.labels.tolist() == [k % 10 for k in range(20)] * 2
    assert len(found.test) == 20
    assert found.space == load_dataset("mnist", tmp_path).space
    assert found.train_digest != load_dataset("mnist", tmp_path).train_digest


def test_real_mnist():
    real_file("mnist/train-images-idx3-ubyte.gz")
    report = verify("mnist", real_file("mnist/train-images-idx3-ubyte.gz").parents[1])
    assert report.ok
    assert (sum(report.train_counts), sum(report.test_counts)) == (60_000, 10_000)
    assert report.pixel_mean == pytest.approx(report.mean, abs=1e-4)
    assert report.pixel_std == pytest.approx(report.std, abs=1e-4)


def test_real_cifar_rows(tmp_path):
    import io

    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(real_file("cifar100/test-00000-of-00001.parquet")).slice(0, 200)
    for name in ("train-00000-of-00002", "test-00000-of-00001"):
        (tmp_path / "cifar100").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / f"cifar100/{name}.parquet")
    data = load_dataset("cifar100", tmp_path)
    blob = table["img"][7].as_py()["bytes"]
    assert np.array_equal(channels_last(data.train.images[7:8])[0], np.asarray(Image.open(io.BytesIO(blob))))
    assert data.train.labels.tolist() == table["fine_label"].to_pylist()
    assert data.train.ipc == 2
    assert data.class_names[:2] == ("apple", "aquarium_fish")


def test_statistics_by_family(tmp_path):
    assert statistics("cifar100") == ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762))
    assert statistics("cifar100", "mtt") == CIFAR10
    assert statistics("cifar100", "rtp")[1] == (0.2675, 0.2565, 0.2761)
    assert statistics("tinyimagenet", "frepo")[0] == (0.4759, 0.4481, 0.3926)
    assert statistics("cifar10", "mtt") == statistics("cifar10", "dc") == CIFAR10
    write_cifar10(tmp_path)
    loaded = load_dataset("cifar10", tmp_path)
    assert statistics(loaded, "mtt") == CIFAR10
    mine = RealDataset("mine", loaded.train, None, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    assert statistics(mine, "mtt") == ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    with pytest.raises(UnknownNameError, match="Did you mean 'mtt'"):
        statistics("cifar10", "mt")
    with pytest.raises(DataError, match="no published channel statistics"):
        statistics(f"imagefolder:{write_folder(tmp_path / 'bugs')}")


def test_pixel_statistics_against_numpy():
    images = torch.from_numpy(pixels(50).transpose(0, 3, 1, 2).copy())
    images[:, 1] //= 3
    mean, std = pixel_statistics(images)
    plain = images.double() / 255
    assert mean == pytest.approx(plain.mean(dim=(0, 2, 3)).tolist(), abs=1e-12)
    assert std == pytest.approx(plain.std(dim=(0, 2, 3), correction=0).tolist(), abs=1e-12)


def test_list_get_and_verify(tmp_path):
    write_cifar10(tmp_path)
    rows = {row.name: row for row in list_datasets(tmp_path)}
    assert rows["cifar10"].state == "partial: 20 of 50,000 train images; 10 of 10,000 test images"
    assert rows["cifar10"].found == str(tmp_path / "cifar10")
    assert rows["shapes10"].found == "built in"
    assert rows["svhn"].state == "can be downloaded"
    assert not (tmp_path / "cache/data").exists()
    assert get("cifar10", tmp_path) == str(tmp_path / "cifar10")
    assert get("shapes10") == "built in"
    report = verify("cifar10", tmp_path)
    assert report.train_counts == (2,) * 10
    assert report.test_counts == (1,) * 10
    assert report.shared == 0
    assert report.digest == load_dataset("cifar10", tmp_path).digest
    assert report.to_json()["name"] == "cifar10"
    assert "train      20 images, 2 a class" in str(report)
    assert str(report).endswith("problem    none")


def test_verify_tells_wrong_pixels_and_shared_images(tmp_path):
    dark = np.zeros((10, 28, 28), dtype=np.uint8)
    dark[:, 0, 0] = np.arange(10)
    for stem, labels in (("train", np.arange(10)), ("t10k", np.arange(10))):
        write_idx(tmp_path / f"mnist/{stem}-images-idx3-ubyte", dark)
        write_idx(tmp_path / f"mnist/{stem}-labels-idx1-ubyte", labels.astype(np.uint8))
    report = verify("mnist", tmp_path)
    assert report.shared == 10
    assert not report.ok
    assert "0.131 away from the constants" in report.problems[0]


def test_download_fills_the_folder_once(tmp_path, monkeypatch):
    calls = []

    def download(root):
        calls.append(root)
        write_cifar10(root)

    entry = DATASETS.get("cifar10")
    monkeypatch.setitem(DATASETS._entries, "cifar10", DatasetEntry(**{**vars(entry), "download": download}))
    data = load_dataset("cifar10", test=False)
    assert (len(data.train), calls) == (20, [tmp_path / "cache/datasets"])
    assert get("cifar10", tmp_path / "new") == str(tmp_path / "new/cifar10")
    load_dataset("cifar10", tmp_path / "new", test=False)
    assert len(calls) == 2


def test_the_data_folder_of_the_environment(tmp_path, monkeypatch):
    write_cifar10(tmp_path / "there")
    monkeypatch.setenv("FYI_BENCH_DATA", str(tmp_path / "there"))
    assert load_dataset("cifar10", test=False).where == str(tmp_path / "there/cifar10")


def test_a_third_party_data_set_is_one_entry(monkeypatch):
    class Two:
        where, complete = None, True

        def files(self, split):
            return []

        def options(self):
            return {"version": 1}

        def read(self, split):
            return Decoded(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), 2)

    DATASETS.names()
    monkeypatch.setitem(DATASETS._entries, "two", DatasetEntry("two", channels=1, fixed=Two()))
    data = load_dataset("two")
    assert (data.num_classes, data.channels, data.size, data.where) == (2, 1, 8, "built in")
    assert data.std == (0.001,)  # no contrast: still a usable space

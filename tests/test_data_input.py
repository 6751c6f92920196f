"""Bad data: each kind is named with the file at fault and what to do, in one or two lines."""

from __future__ import annotations

import gzip
import re
import shutil

import numpy as np
import pytest

from data_files import NAMES10, isolate, pixels, png, write_cifar10, write_folder, write_idx, write_mnist, write_parquet
from fyi_bench.cli import main
from fyi_bench.data import get, list_datasets, load_dataset
from fyi_bench.data.archives import read_idx
from fyi_bench.errors import DataError, UnknownNameError


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    isolate(tmp_path, monkeypatch)


def refused(name: str, root=None, **options) -> str:
    """The message load_dataset ends with: one or two lines, each with something in it."""
    with pytest.raises(DataError) as caught:
        load_dataset(name, root, **options)
    lines = str(caught.value).splitlines()
    assert 1 <= len(lines) <= 2
    assert all(line.strip() for line in lines)
    return str(caught.value)


def test_unknown_name():
    with pytest.raises(UnknownNameError, match="Did you mean 'cifar10'"):
        load_dataset("cifar11")


def test_neither_here_nor_downloadable(tmp_path):
    message = refused("cifar10", tmp_path)
    assert str(tmp_path) in message.splitlines()[0]
    assert "cifar10/train-*.parquet or cifar-10-batches-py/" in message
    assert "no connection to www.cs.toronto.edu" in message.splitlines()[0]
    assert "--data-root" in message.splitlines()[1]
    assert "fyi-bench data get cifar10" in message.splitlines()[1]
    with pytest.raises(DataError, match="download of CIFAR10"):
        get("cifar10", tmp_path / "new")


def test_no_download_is_tried_when_it_is_not_wanted(tmp_path):
    assert "download of" not in refused("mnist", tmp_path, download=False)


def test_all_folders_that_were_searched_are_named(tmp_path):
    message = refused("cifar10")
    assert str(tmp_path / "data") in message
    assert str(tmp_path / "cache/datasets") in message


def test_packed_archive_is_pointed_at(tmp_path):
    (tmp_path / "tiny-imagenet-20x140.tar.xz").write_bytes(b"")
    message = refused("tinyimagenet", tmp_path)
    assert "tiny-imagenet-20x140.tar.xz first: python -m tarfile" in message


@pytest.mark.parametrize("kind", ["absent", "file"])
def test_wrong_data_root(tmp_path, kind):
    root = tmp_path / "root"
    if kind == "file":
        root.write_text("")
    message = refused("cifar10", root)
    assert message.startswith(f"The data folder {root} {'is a file' if kind == 'file' else 'does not exist'}")


def test_wrong_folder_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("FYI_BENCH_DATA", str(tmp_path / "typo"))
    assert "FYI_BENCH_DATA" in refused("cifar10")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated_parquet(tmp_path, share):
    write_cifar10(tmp_path)
    path = tmp_path / "cifar10/train-00000-of-00001.parquet"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    message = refused("cifar10", tmp_path)
    assert str(path) in message
    assert "not a readable parquet file" in message


def test_web_page_saved_as_parquet(tmp_path):
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10/train-00000-of-00001.parquet").write_text("<html>" * 100)
    assert "not a readable parquet file" in refused("cifar10", tmp_path)


@pytest.mark.parametrize(("columns", "what"), [(("photo", "label"), "image"), (("img", "klass"), "label")])
def test_parquet_without_a_column(tmp_path, columns, what):
    path = tmp_path / "cifar10/train-00000-of-00001.parquet"
    write_parquet(path, pixels(10), list(range(10)), columns)
    message = refused("cifar10", tmp_path)
    assert f"{path} has no {what} column" in message
    assert ", ".join(columns) in message


@pytest.mark.parametrize(
    ("blob", "said"),
    [(None, "holds no image bytes"), (b"GIF89a", "be decoded (not in a known format)"), ("cut", "can be decoded (")],
)
def test_parquet_row_that_is_no_image(tmp_path, blob, said):
    images = [png(image) for image in pixels(10)]
    images[4] = images[4][: len(images[4]) // 2] if blob == "cut" else blob
    path = write_parquet(tmp_path / "cifar10/train-00000-of-00001.parquet", images, list(range(10)))
    message = refused("cifar10", tmp_path)
    assert said in message
    assert f"ow 4 of {path}" in message


def test_parquet_of_other_sizes(tmp_path):
    path = tmp_path / "cifar10/train-00000-of-00001.parquet"
    write_parquet(path, [*pixels(9), *pixels(1, 16)], list(range(10)))
    assert f"row 9 of {path} is 16x16 pixels, but row 0 of {path} is 32x32" in refused("cifar10", tmp_path)
    write_parquet(path, pixels(10, 16), list(range(10)))
    assert "16x16 pixels and 3 channels, not 32x32 and 3" in refused("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("labels", "names", "said"),
    [
        ([*range(9), -1], NAMES10, "Row 9 .* has the label -1"),
        ([*range(9), 12], NAMES10, "13 classes, not 10"),
        ([*range(9), 12], (), "13 classes, not 10"),
        ([*range(9), 0], NAMES10, "no images of 1 of 10 classes: truck"),
        ([*range(9), 0], (), "no images of 1 of 10 classes: truck"),
        (list(range(10)), NAMES10[:4], "names only 4 classes"),
        (list(range(10)), NAMES10 + NAMES10, "20 classes, not 10"),
    ],
)
def test_parquet_labels(tmp_path, labels, names, said):
    write_parquet(tmp_path / "cifar10/train-00000-of-00001.parquet", pixels(10), labels, names=names)
    message = refused("cifar10", tmp_path, test=False)
    assert re.search(said, message)


def test_parquet_shards_of_different_sets(tmp_path):
    write_cifar10(tmp_path, of=2)
    other = tmp_path / "cifar10/train-00001-of-00002.parquet"
    write_parquet(other, pixels(10), list(range(10)), names=NAMES10[::-1])
    assert f"{other} names other classes" in refused("cifar10", tmp_path)


def test_parquet_without_test_files(tmp_path):
    write_cifar10(tmp_path)
    (tmp_path / "cifar10/test-00000-of-00001.parquet").unlink()
    assert "has no test images" in refused("cifar10", tmp_path)
    assert len(load_dataset("cifar10", tmp_path, test=False).train) == 20


def test_train_and_test_of_different_sets(tmp_path):
    write_folder(tmp_path / "tiny-imagenet-200", side=64, test="val")
    for name in ("x", "train-00000-of-00001"):
        write_parquet(tmp_path / f"tinyimagenet/{name}.parquet", pixels(3, 64), [0, 1, 2], names=("a", "b", "c"))
    write_parquet(tmp_path / "tinyimagenet/valid-00000-of-00001.parquet", pixels(2, 64), [0, 1], names=("a", "b"))
    assert "2 classes in the test files, 3 in the train files" in refused("tinyimagenet", tmp_path)


IDX = "mnist/train-images-idx3-ubyte"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"magic": b"\x00\x00\x0d\x03"}, "0x00000d03, not 0x00000803"),
        ({"magic": b"<htm"}, "does not begin like an idx file"),
        ({"shape": (21, 28, 28)}, "holds 15,680 of the 16,464 bytes"),
        ({"shape": (19, 28, 28)}, "more than the 14,896 bytes"),
        ({"shape": (2**31, 2**31, 2**31)}, "more than any known set"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_magic_and_length(tmp_path, options, said, suffix):
    write_mnist(tmp_path / "mnist", suffix)
    write_idx(tmp_path / f"{IDX}{suffix}", pixels(20, 28, 1)[..., 0], **options)
    message = refused("mnist", tmp_path, test=False)
    assert said in message
    assert str(tmp_path / IDX) in message


def test_idx_files_that_are_cut(tmp_path):
    path = write_idx(tmp_path / "a.gz", pixels(20, 28, 1)[..., 0])
    whole = path.read_bytes()
    for sixteenth in range(16):
        path.write_bytes(whole[: len(whole) * sixteenth // 16])
        with pytest.raises(DataError, match=r"a\.gz"):
            read_idx(path, 3)
    path.write_bytes(b"no gzip at all")
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(path, 3)
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(DataError, match="does not begin"):
        read_idx(path, 3)


def test_idx_images_and_labels_of_different_number(tmp_path):
    write_mnist(tmp_path / "mnist", "")
    write_idx(tmp_path / "mnist/train-labels-idx1-ubyte", np.zeros(7, dtype=np.uint8))
    assert "20 images" in refused("mnist", tmp_path)
    (tmp_path / "mnist/train-labels-idx1-ubyte").unlink()
    assert "no train-labels-idx1-ubyte[.gz]" in refused("mnist", tmp_path)


def test_svhn_that_is_not(tmp_path):
    from scipy.io import savemat

    path = tmp_path / "train_32x32.mat"
    path.write_bytes(b"nothing")
    assert "not a readable .mat file" in refused("svhn", tmp_path)
    savemat(path, {"a": 1})
    assert "is not an SVHN file" in refused("svhn", tmp_path)


def test_folders(tmp_path):
    root = write_folder(tmp_path / "bugs")
    assert "is not a folder" in refused(f"imagefolder:{tmp_path / 'none'}")
    assert "has no sub-folder train/" in refused(f"imagefolder:{tmp_path}")
    assert "needs a path" in refused("imagefolder")
    assert "takes no argument" in refused("shapes10:x")
    (tmp_path / "empty/train").mkdir(parents=True)
    assert "has no sub-folders" in refused(f"imagefolder:{tmp_path / 'empty'}")
    shutil.rmtree(root / "test")
    assert "has train/ but no test/ or val/" in refused(f"imagefolder:{root}")


def test_folder_classes_without_pictures(tmp_path):
    root = write_folder(tmp_path / "bugs")
    (root / "train/wasp").mkdir()
    (root / "train/wasp/notes.txt").write_text("")
    assert f"{root / 'train'} has no pictures of the class wasp" in refused(f"imagefolder:{root}")
    shutil.rmtree(root / "train/wasp")
    shutil.rmtree(root / "test/bee")
    assert f"{root / 'test'} has no pictures of the class bee" in refused(f"imagefolder:{root}")
    write_folder(root, ("wasp",))
    shutil.rmtree(root / "train/wasp")
    assert "has the class wasp, which train/ has not" in refused(f"imagefolder:{root}")


def test_folder_pictures_of_unequal_size(tmp_path):
    root = write_folder(tmp_path / "bugs")
    (root / "train/bee/1.png").write_bytes(png(pixels(1, 20)[0]))
    first, message = root / "train/ant/0.png", refused(f"imagefolder:{root}")
    assert f"{root / 'train/bee/1.png'} is 20x20 pixels, but {first} is 16x16" in message
    assert "imagefolder:PATH@64" in message
    first.write_bytes(png(pixels(1, 20)[0][:, :12]))
    assert f"{first} is 12x20 pixels; images must be square" in refused(f"imagefolder:{root}")


def test_folder_picture_that_does_not_decode(tmp_path):
    root = write_folder(tmp_path / "bugs")
    (root / "test/bee/2.png").write_bytes(b"\x89PNG\r\n\x1a\n....")
    assert f"{root / 'test/bee/2.png'} is not an image" in refused(f"imagefolder:{root}")
    assert len(load_dataset(f"imagefolder:{root}", test=False).train) == 6


def test_more_pictures_than_memory(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "bugs")
    monkeypatch.setattr("os.sysconf", lambda name: 32)
    assert "this machine has" in refused(f"imagefolder:{root}")


def test_annotations_that_name_no_class(tmp_path):
    root = write_folder(tmp_path / "tiny-imagenet-200", side=64, test="val")
    shutil.rmtree(root / "val")
    (root / "val/images").mkdir(parents=True)
    (root / "val/val_annotations.txt").write_text("val_0.JPEG\tn999\t0\t0\t1\t1\n")
    assert "Line 1 of" in refused("tinyimagenet", tmp_path)


def test_the_list_of_data_sets_says_below_its_table_how_to_get_those_that_are_not_here(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["data", "list", "--data-root", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    table, remarks = lines[: lines.index("")], lines[lines.index("") + 1 :]
    assert all(len(line) <= 80 for line in lines)
    assert len(table) == 1 + len(list_datasets(tmp_path))  # a line each
    assert any(line.startswith("imagefish, imagefruit, ") for line in remarks)

"""Files that are broken or odd: each has its own message with what to do, or is mended and says so."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.spaces import PixelSpace
from fyi_bench.errors import DataError, FyiBenchError, UsageError
from fyi_bench.formats import load_set
from importer_files import CIFAR10, dc_file, labels, normalised, picture_folder, pictures


def saved(folder: Path, images, targets, name: str = "cifar10.pt") -> Path:
    torch.save({"images": images, "labels": targets}, folder / name)
    return folder / name


def notes(path: Path, **options) -> str:
    found = load_set(path, **options)
    return "\n".join([*found.guesses, *found.warnings])


def message(path: Path, **options) -> str:
    """The text of the error, which must have two lines and name the file where a file is at fault."""
    with pytest.raises(FyiBenchError) as error:
        load_set(path, **options)
    text = str(error.value)
    assert len(text.splitlines()) == 2, text
    return text


def write_kinds(folder: Path) -> dict[str, Path]:
    """One good file of each kind of bytes."""
    paths = {"zip": dc_file(folder, "res_DC_CIFAR10_new.pt")}
    paths["old"] = dc_file(folder, "res_DC_CIFAR10_old.pt", _use_new_zipfile_serialization=False)
    arrays = {"images": normalised().numpy(), "labels": labels().numpy()}
    np.savez(folder / "cifar10.npz", **arrays)
    np.savez_compressed(folder / "cifar10_small.npz", **arrays)
    np.save(folder / "cifar10.npy", normalised().numpy())
    load_set(paths["zip"]).image_set.save(folder / "set.safetensors", preview=False)
    return paths | {p.name: p for p in folder.iterdir() if p.suffix in (".npz", ".npy", ".safetensors")}


def test_truncated_files_of_any_length_are_named(tmp_path):
    for kind, path in write_kinds(tmp_path).items():
        whole = path.read_bytes()
        assert len(load_set(path).image_set) == 20, kind
        for sixteenth in range(16):
            path.write_bytes(whole[: len(whole) * sixteenth // 16])
            with pytest.raises(DataError) as error:
                load_set(path)
            assert str(path) in str(error.value), kind
            assert len(str(error.value).splitlines()) == 2, kind
        path.write_bytes(whole[:-1])
        with pytest.raises(DataError, match=path.name):
            load_set(path)


@pytest.mark.long
def test_flipped_bytes_never_crash_and_are_noticed_where_a_checksum_covers_them(tmp_path):
    for kind, path in write_kinds(tmp_path).items():
        whole = bytearray(path.read_bytes())
        for place in [*range(0, 200, 7), *range(200, len(whole), len(whole) // 40)]:
            changed = bytearray(whole)
            changed[place] ^= 0x55
            path.write_bytes(changed)
            try:
                load_set(path)
                noticed = False
            except FyiBenchError:
                noticed = True
            in_payload = len(whole) // 4 < place < len(whole) // 2
            assert noticed or not in_payload or kind in ("old", "cifar10.npy"), (kind, place)


def test_a_wrong_checksum_of_zero_means_none_was_written(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        path = dc_file(tmp_path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert {entry.CRC for entry in zipfile.ZipFile(path).infolist()} == {0}
    assert len(load_set(path).image_set) == 20


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title>", "is a web page"),
        (b"  <html><body>Sign in", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of git-lfs"),
        (b"\x1f\x8b\x08\x00" + bytes(50), "archive"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "one picture"),
        (b"hello, this is a readme", "no kind that is known"),
        (bytes(600), "no kind that is known"),
    ],
)
def test_files_that_are_something_else(tmp_path, content, expected):
    path = tmp_path / "set.pt"
    path.write_bytes(content)
    text = message(path)
    assert expected in text
    assert str(path) in text


def test_absent_files_and_folders_without_a_set(tmp_path):
    assert "There is no file or folder" in message(tmp_path / "absent.pt")
    assert "a folder without pictures or tensors" in message(tmp_path)
    assert "neither a file nor a folder" in message(Path("/dev/null"))
    (tmp_path / "notes.txt").write_text("x")
    assert "a folder with 1 files (notes.txt)" in message(tmp_path)


def test_contents_that_are_no_images_are_described(tmp_path):
    torch.save([[[torch.zeros(3)] * 14] * 3], tmp_path / "replay_buffer_0.pt")
    assert "a list of 1, the first a list of 3" in message(tmp_path / "replay_buffer_0.pt")
    torch.save({"net.weight": torch.zeros(3, 3)}, tmp_path / "net.pt")
    assert "a dictionary of 1 entry (net.weight: a tensor [3, 3])" in message(tmp_path / "net.pt")
    program = torch.jit.script(torch.nn.Linear(2, 2))
    program.save(str(tmp_path / "program.pt"))
    assert "TorchScript program" in message(tmp_path / "program.pt")


def test_channels_last_are_turned_with_a_notice(tmp_path):
    path = saved(tmp_path, normalised().permute(0, 2, 3, 1).contiguous(), labels())
    assert "channels last" in notes(path)
    assert torch.equal(load_set(path).image_set.images, normalised())


def test_grey_images_without_channels(tmp_path):
    path = saved(tmp_path, pictures(20, 1, 28)[:, 0], labels(), "mnist.pt")
    assert "taken as grey" in notes(path)
    assert load_set(path).image_set.shape == (1, 28, 28)


def test_nested_images_are_flattened_class_by_class(tmp_path):
    nested, targets = normalised().unflatten(0, (10, 2)), labels().unflatten(0, (10, 2))
    for path in (saved(tmp_path, nested, targets), saved(tmp_path, nested, labels(), "b_cifar10.pt")):
        found = load_set(path)
        assert torch.equal(found.image_set.images, normalised())
        assert torch.equal(found.image_set.labels, labels())


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (torch.zeros(20, 5, 32, 32), "5 channels"),
        (torch.zeros(20, 3072), r"shape \[20, 3072\]"),
        (torch.zeros(0, 3, 32, 32), "holds no images"),
        (torch.zeros(20, 3, 5000, 1), "not of a size"),
        (torch.full((20, 3, 8, 8), float("nan")), "20 of 20 images hold NaN"),
        (torch.zeros(20, 3, 8, 8).index_fill_(0, torch.tensor([3]), float("inf")), "1 of 20 images hold NaN"),
        (torch.zeros(20, 3, 8, 8, dtype=torch.bool), "type bool"),
        (torch.full((20, 3, 8, 8), 300, dtype=torch.int64), "from 300 to 300, not 0 to 255"),
        (torch.zeros(20, 3, 8, 8, dtype=torch.complex64), "asks for|complex"),
        (torch.zeros(20, 3, 8, 8).to_sparse(), "asks for"),
    ],
)
def test_images_that_cannot_be_mended(tmp_path, images, expected):
    path = saved(tmp_path, images, labels(len(images)) if len(images) else torch.zeros(0, dtype=torch.int64))
    with pytest.raises(DataError, match=expected):
        load_set(path, format="tensors", space="pixel")


def test_types_are_brought_to_float32_or_uint8(tmp_path):
    levels = (pictures() * 255).round()
    for dtype in (torch.uint8, torch.int64, torch.int16):
        found = load_set(saved(tmp_path, levels.to(dtype), labels()))
        assert found.image_set.images.dtype == torch.uint8
        assert torch.equal(found.image_set.images, levels.to(torch.uint8))
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        path = saved(tmp_path, normalised().to(dtype), labels())
        assert load_set(path).image_set.images.dtype == torch.float32
        assert str(dtype).removeprefix("torch.") in notes(path)


def test_values_up_to_255_are_divided(tmp_path):
    path = saved(tmp_path, pictures() * 255, labels())
    assert "divided by 255" in notes(path)
    found = load_set(path).image_set
    assert found.space == PixelSpace()
    assert torch.allclose(found.images, pictures(), atol=1e-6)


def test_gradients_strides_and_byte_orders_do_not_matter(tmp_path):
    strided = normalised(40)[::2].transpose(2, 3).requires_grad_()
    found = load_set(saved(tmp_path, strided, labels())).image_set
    assert found.images.is_contiguous()
    assert not found.images.requires_grad
    assert torch.equal(found.images, strided.detach())
    np.savez(tmp_path / "cifar10.npz", images=normalised().numpy().astype(">f4"), labels=labels().numpy().astype(">i8"))
    assert torch.equal(load_set(tmp_path / "cifar10.npz").image_set.images, normalised())
    np.save(tmp_path / "cifar10.npy", np.asfortranarray(normalised().numpy()))
    assert torch.equal(load_set(tmp_path / "cifar10.npy").image_set.images, normalised())


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (torch.arange(19), "20 images but 19 labels"),
        (labels() + 1, r"(?s)labels up to 10, cifar10 has 10 classes \(do they count from 1"),
        (labels() - 1, "smallest label is -1"),
        (labels() + 0.5, "not whole numbers"),
        (torch.full((20,), float("nan")), "labels hold NaN"),
        (torch.full((20, 10), 3), "whole numbers of shape"),
        (torch.zeros(20, 10, 2), r"shape \[20, 10, 2\]"),
        (["cat"] * 20, "list|no known layout"),
    ],
)
def test_labels_that_cannot_be_mended(tmp_path, targets, expected):
    with pytest.raises(DataError, match=expected):
        load_set(saved(tmp_path, normalised(), targets), format="tensors", dataset="cifar10")


def test_labels_that_count_from_one_are_told(tmp_path):
    path = saved(tmp_path, pictures(6, size=8), torch.tensor([1, 1, 2, 2, 3, 3]), "mine.pt")
    assert "may count from 1" in notes(path)


def test_labels_of_any_integer_type_and_shape(tmp_path):
    for targets in (labels().int(), labels().to(torch.uint8), labels().float(), labels().double()[:, None]):
        assert torch.equal(load_set(saved(tmp_path, normalised(), targets)).image_set.labels, labels())
    one_hot = torch.nn.functional.one_hot(labels(), 10)
    for targets in (one_hot, one_hot.float()):
        path = saved(tmp_path, normalised(), targets)
        assert torch.equal(load_set(path).image_set.labels, labels())
        assert "one-hot" in notes(path)


def test_missing_classes_and_unequal_sizes_are_told(tmp_path):
    targets = torch.tensor([0] * 5 + [2] * 15)
    text = notes(saved(tmp_path, normalised(), targets), dataset="cifar10")
    assert "8 of 10 classes have no image: automobile, cat, deer, dog, frog …" in text
    assert "classes differ in size: 5 to 15" in text


def test_soft_labels_are_kept_as_logits_whatever_they_were(tmp_path):
    logits = torch.randn(20, 10, generator=torch.Generator().manual_seed(0))
    shares = logits.softmax(1)
    path = saved(tmp_path, normalised(), shares)
    assert torch.allclose(load_set(path).image_set.labels.softmax(1), shares, atol=1e-6)
    assert "probabilities" in notes(path)
    certain = torch.nn.functional.one_hot(labels(), 10).float() * 0.9 + torch.tensor([0.1] + [0.0] * 9)
    kept = load_set(saved(tmp_path, normalised(), certain)).image_set.labels
    assert bool(torch.isfinite(kept).all())
    assert torch.allclose(kept.softmax(1), certain, atol=1e-6)
    raw = saved(tmp_path, normalised(), logits)
    assert "do not sum to 1: taken as logits" in notes(raw)
    assert torch.equal(load_set(raw).image_set.labels, logits)
    assert torch.equal(load_set(raw, labels="hard").image_set.labels, logits.argmax(1))
    assert "no probabilities (rows sum to" in message(raw, labels="probabilities")
    assert "Unknown kind of labels 'soft'" in message(raw, labels="soft")
    hard = saved(tmp_path, normalised(), labels())
    with pytest.raises(UsageError, match="one number an image"):
        load_set(hard, labels="logits")


def test_unreadable_pictures_are_named(tmp_path):
    picture_folder(tmp_path / "a", ["cat", "dog"])
    (tmp_path / "a" / "dog" / "1.png").write_bytes(b"not a picture")
    assert "1.png is not a picture" in message(tmp_path / "a")
    picture_folder(tmp_path / "b", ["cat", "dog"])
    whole = (tmp_path / "b" / "dog" / "1.png").read_bytes()
    (tmp_path / "b" / "dog" / "1.png").write_bytes(whole[: len(whole) // 2])
    assert "1.png" in message(tmp_path / "b")
    picture_folder(tmp_path / "c", ["cat", "dog"])
    picture_folder(tmp_path / "c", ["emu"], size=16)
    assert "All pictures must be squares of one size" in message(tmp_path / "c")
    picture_folder(tmp_path / "d" / "train", ["cat", "dog"])
    assert "Name " in message(tmp_path / "d")


def test_a_folder_without_pictures_is_no_class(tmp_path):
    picture_folder(tmp_path, ["cat", "emu"])
    (tmp_path / "dog").mkdir()
    found = load_set(tmp_path)
    assert found.image_set.class_names == ("cat", "emu")
    assert "folders without a picture are no classes: dog" in found.guesses


def test_a_set_of_ours_with_a_flipped_byte_is_refused(tmp_path):
    path = load_set(dc_file(tmp_path)).image_set.save(tmp_path / "set.safetensors", preview=False)
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    assert "do not match their checksum" in message(path)


def test_pickled_torch_file_in_memory_order_does_not_matter(tmp_path):
    """Two tensors that share one storage, and a tensor that is a part of a larger one, are read right."""
    both = normalised(40)
    buffer = io.BytesIO()
    torch.save({"data": [[both[:20], labels()], [both[20:], labels()]]}, buffer)
    (tmp_path / "res_DC_CIFAR10_ConvNet_2ipc.pt").write_bytes(buffer.getvalue())
    for number, expected in ((0, both[:20]), (1, both[20:])):
        found = load_set(tmp_path / "res_DC_CIFAR10_ConvNet_2ipc.pt", experiment=number).image_set
        assert torch.equal(found.images, expected)
        assert found.images.untyped_storage().nbytes() == found.images.nbytes
    assert found.space == CIFAR10

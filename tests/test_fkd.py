"""Stored soft labels of a teacher (FKD): read lazily, without running code, in the makers' order of images."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, RandomSampler

from fyi_bench.errors import DataError
from fyi_bench.formats import load_set
from fyi_bench.formats.fkd import FKDLabels, Mix
from importer_files import trap_bytes

IMAGES, SIZE, CLASSES = 10, 4, 5


def a_batch(count: int, seed: int = 0, mix: str = "cutmix") -> list:
    """What the makers' `save` puts into a file."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 0.4
    boxes = torch.cat([corner, torch.rand(count, 2, generator=generator) * 0.5 + 0.1], dim=1)
    mixing = [torch.randperm(count, generator=generator), 0.75, [np.int64(2), np.int64(1), np.int64(4), np.int64(3)]]
    mixing = {"cutmix": mixing, "mixup": [*mixing[:2], None], "": [None, None, None]}[mix]
    logits = torch.randn(count, CLASSES, generator=generator).half()
    return [boxes, torch.rand(count, generator=generator) < 0.5, *mixing, logits]


def write(folder, epochs: int = 2, **facts):
    """A folder of 10 images in batches of 4."""
    for epoch in range(epochs):
        (folder / f"epoch_{epoch}").mkdir(parents=True)
        for number, count in enumerate((SIZE, SIZE, IMAGES - 2 * SIZE)):
            torch.save(a_batch(count, 10 * epoch + number, **facts), folder / f"epoch_{epoch}" / f"batch_{number}.tar")
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "FKD_cutmix_fp16")


def test_a_folder_says_what_it_holds(folder):
    labels = FKDLabels.open(folder.parent)  # the only folder with labels in it
    assert (labels.epochs, labels.batches, labels.batch_size, labels.images, labels.classes) == (2, 3, 4, 10, 5)
    assert labels.nbytes == sum(path.stat().st_size for path in folder.rglob("*.tar"))


@pytest.mark.parametrize("mix", ["cutmix", "mixup", ""])
def test_a_batch_is_what_was_saved(tmp_path, mix):
    labels = FKDLabels.open(write(tmp_path / "x", mix=mix))
    boxes, flips, partners, share, box, logits = a_batch(SIZE, 11, mix)
    found = labels.batch(1, 1)
    assert len(found) == SIZE
    assert torch.equal(found.boxes, boxes)
    assert torch.equal(found.flips, flips)
    assert torch.equal(found.logits, logits)
    assert found.logits.dtype == torch.float16
    if mix:
        assert torch.equal(found.mix.partners, partners)
        assert (found.mix.share, found.mix.box) == (share, tuple(box) if box else None)
    else:
        assert found.mix is None


def test_rows_are_those_of_the_makers_sampler(folder):
    labels = FKDLabels.open(folder)
    sampler = RandomSampler(torch.arange(IMAGES), generator=torch.Generator().manual_seed(42))
    plain = [list(BatchSampler(sampler, SIZE, drop_last=False)) for _ in range(2)]
    for epoch, number in [(1, 2), (0, 0), (1, 0), (0, 2)]:  # in any order
        assert labels.batch(epoch, number).rows.tolist() == plain[epoch][number]


def test_stored_rows_count(tmp_path):
    folder = write(tmp_path / "x")
    for path in folder.rglob("*.tar"):
        content = torch.load(path, weights_only=False)
        torch.save([*content, torch.arange(len(content[0])) + 3], path)
    assert FKDLabels.open(folder).batch(0, 1).rows.tolist() == [3, 4, 5, 6]


def test_boxes_and_mixes_are_those_of_the_makers(folder):
    batch = FKDLabels.open(folder).batch(0, 0)
    top, left, height, width = batch.boxes_in(20, 30)[0].tolist()
    expected = [batch.boxes[0, i].item() * side for i, side in enumerate((20, 30, 20, 30))]
    assert [top, left, height, width] == [round(each) for each in expected]
    images = torch.arange(4 * 3 * 6 * 6).view(4, 3, 6, 6).float()
    plain = images.clone()
    plain[:, :, 2:4, 1:3] = images[batch.mix.partners][:, :, 2:4, 1:3]
    assert torch.equal(batch.mix(images), plain)
    blend = Mix(batch.mix.partners, 0.75, None)(images)
    assert torch.equal(blend, 0.75 * images + 0.25 * images[batch.mix.partners])


def spoiled(place: int, value) -> list:
    content = a_batch(SIZE)
    content[place] = value
    return content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (a_batch(SIZE)[:5], "no batch of soft labels"), ({"a": torch.zeros(1)}, "no batch of soft labels"),
        (spoiled(0, torch.full((3, 4), 0.2)), "no crop in the image"), (spoiled(0, torch.full((4, 4), 0.9)), "no crop"),
        (spoiled(0, torch.full((4, 4), float("nan"))), "no crop"), (spoiled(1, torch.ones(3)), "mirrored"),
        (spoiled(2, torch.zeros(4, dtype=torch.int64)), "each of its 4 images once"), (spoiled(3, 2.0), "share of 2"),
        (spoiled(4, [5, 5, 2, 2]), "box"), (spoiled(4, [0, 0, 2]), "box"), (spoiled(5, torch.zeros(4)), "no logits"),
        (spoiled(5, torch.full((4, 5), float("inf"))), "no logits"), (spoiled(5, torch.zeros(4, 6)), "not .4, 5."),
        (spoiled(5, torch.zeros(1, 5).expand(4, 5)), "no logits"), (a_batch(3), "not .4, 5."),
    ],
    ids=range(15),
)  # fmt: skip
def test_a_broken_batch_is_named(folder, content, words):
    torch.save(content, folder / "epoch_1" / "batch_1.tar")
    labels = FKDLabels.open(folder)
    with pytest.raises(DataError, match=words) as caught:
        labels.batch(1, 1)
    assert len(str(caught.value).splitlines()) == 2
    assert str(folder / "epoch_1" / "batch_1.tar") in str(caught.value)


@pytest.mark.long
def test_no_code_is_run_and_nothing_fills_the_memory(folder, tmp_path):
    path, sentinel = folder / "epoch_0" / "batch_0.tar", tmp_path / "ran"
    path.write_bytes(trap_bytes(sentinel))
    with pytest.raises(DataError):
        FKDLabels.open(folder)
    assert not sentinel.exists()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"")
        archive.writestr("x/data/0", bytes(2**29 + 1))
    with pytest.raises(DataError, match=r"512\.0 MiB"):
        FKDLabels.open(folder)


def test_it_is_no_set_of_images(folder):
    with pytest.raises(DataError, match=r"holds soft labels .* not the images\.\nName the folder of the images"):
        load_set(folder)


def test_missing_files_are_named(folder):
    (folder / "epoch_1" / "batch_2.tar").unlink()
    with pytest.raises(DataError, match="epoch_1 has 2 batches, epoch_0 has 3"):
        FKDLabels.open(folder)
    (folder / "epoch_1" / "batch_0.tar").unlink()
    with pytest.raises(DataError, match=r"batch_0\.tar is absent"):
        FKDLabels.open(folder)
    with pytest.raises(DataError, match="holds no stored soft labels"):
        FKDLabels.open(folder / "epoch_0")

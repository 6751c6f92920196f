"""Sets as people really keep them, whose labels could be taken wrongly: right, or refused in words that say why."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from layouts import NAMES, SHUFFLED, rows, save_to_disk
from safetensors.torch import save_file

from fyi_bench.errors import DataError
from fyi_bench.formats import load_set
from importer_files import labels, mtt_folder, normalised, picture_folder, pictures, png

OTHER = SHUFFLED.flip(0)
HOT = torch.nn.functional.one_hot(OTHER, 10).float()
# an order of the classes that is not the data set's, and the labels in it
ORDER = torch.randperm(10, generator=torch.Generator().manual_seed(1))
CALLED, RENUMBERED = [NAMES[k] for k in ORDER], ORDER.argsort()[SHUFFLED]


def saved(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def message(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_set(path)
    assert len(str(caught.value).splitlines()) == 2
    return str(caught.value)


@pytest.mark.parametrize("said", ["nozca", "no_zca", "zca"])
def test_kip_says_whether_it_whitens(tmp_path, said):
    """KIP's files are called …_nozca_… where they are not whitened."""
    path = tmp_path / f"kip_cifar10_ConvNet3_ssize20_{said}_nol_noaug_ckpt1000.npz"
    targets = np.eye(10, dtype=np.float32)[SHUFFLED] - 0.1
    np.savez(path, images=(normalised() * (0.26 if said == "zca" else 1)).permute(0, 2, 3, 1).numpy(), labels=targets)
    found = load_set(path).image_set
    assert (found.space.kind == "normalized") == (said != "zca")
    assert found.hard_labels.tolist() == SHUFFLED.tolist()


UNREAD = ["labels_best.txt", "labels.csv", "y_syn.json", "labels_best.pkl", "targets.tsv", "labels"]


@pytest.mark.parametrize("name", UNREAD)
@pytest.mark.parametrize("images", ["images_best.pt", "images.pt", "x_syn.npy"])
def test_labels_in_a_file_that_is_not_read_are_never_made_up(tmp_path, name, images):
    folder = tmp_path / "cifar10"
    folder.mkdir()
    if images.endswith(".npy"):
        np.save(folder / images, normalised().numpy())
    else:
        torch.save(normalised(), folder / images)
    if name == "labels":
        saved(folder / name / "all.pt", SHUFFLED)
    elif name.endswith(".pkl"):
        (folder / name).write_bytes(pickle.dumps(SHUFFLED.tolist()))
    else:
        (folder / name).write_text(json.dumps(SHUFFLED.tolist()))
    for path in (folder, folder / images):
        text = message(path)
        assert f"may be in {name}, which is not read" in text
        assert "torch.save(labels, 'labels.pt')" in text


def test_labels_of_another_moment_are_not_taken(tmp_path):
    folder = tmp_path / "CIFAR10"
    saved(folder / "images_best.pt", normalised())
    saved(folder / "labels_100.pt", OTHER)
    assert "they may be in labels_100.pt" in message(folder)
    (folder / "labels_100.pt").rename(folder / "labels_syn.pt")
    assert load_set(folder).image_set.labels.tolist() == OTHER.tolist()


def test_images_and_labels_of_a_dictionary_go_together_by_name(tmp_path):
    mixed = {"labels_real": OTHER, "images_real": pictures().flip(0), "images_syn": pictures(), "labels_syn": SHUFFLED}
    found = load_set(saved(tmp_path / "cifar10.pt", mixed)).image_set
    assert torch.equal(found.images, pictures())
    assert torch.equal(found.labels, SHUFFLED)
    split = {"test_labels": OTHER, "train_images": pictures(), "test_images": pictures(), "train_labels": SHUFFLED}
    assert "holds several sets of images (train_images, test_images)" in message(saved(tmp_path / "cifar10.pt", split))
    lost = {"images": pictures(), "a_labels": OTHER, "b_labels": SHUFFLED}
    assert "they may be a_labels, b_labels" in message(saved(tmp_path / "cifar10.pt", lost))
    for extra in ({"soft_labels": HOT}, {"y_soft": HOT}):
        found = load_set(saved(tmp_path / "cifar10.pt", {**extra, "images": pictures(), "labels": SHUFFLED}))
        assert torch.equal(found.image_set.labels, SHUFFLED)
        assert [text for text in found.guesses if f"not read: {next(iter(extra))}" in text]


@pytest.mark.parametrize("stated", [
    {"classes": CALLED}, {"class_names": tuple(CALLED)}, {"class_to_idx": {name: k for k, name in enumerate(CALLED)}},
    {"idx_to_class": dict(enumerate(CALLED))},
])  # fmt: skip
def test_classes_that_a_file_names_count(tmp_path, stated):
    found = load_set(saved(tmp_path / "cifar10.pt", {"images": pictures(), "labels": RENUMBERED, **stated}))
    assert found.image_set.labels.tolist() == SHUFFLED.tolist()
    assert found.image_set.class_names == tuple(NAMES)
    assert [text for text in found.guesses if "by the names of the classes" in text]


def test_classes_as_numpy_texts_count(tmp_path):
    np.savez(tmp_path / "cifar10.npz", images=pictures().numpy(), labels=RENUMBERED.numpy(), classes=np.array(CALLED))
    assert load_set(tmp_path / "cifar10.npz").image_set.labels.tolist() == SHUFFLED.tolist()


@pytest.mark.parametrize("name", ["classes.txt", "class_names.json", "class_to_idx.json"])
def test_a_list_of_classes_beside_the_set_counts(tmp_path, name):
    folder = saved(tmp_path / "cifar10" / "data.pt", [pictures(), RENUMBERED]).parent
    listed = {each: k for k, each in enumerate(CALLED)} if "idx" in name else CALLED
    (folder / name).write_text("\n".join(CALLED) if name.endswith(".txt") else json.dumps(listed))
    for path in (folder, folder / "data.pt"):
        found = load_set(path)
        assert found.image_set.labels.tolist() == SHUFFLED.tolist()
        assert [text for text in found.guesses if name in text]
    (folder / name).write_text("[3, 4]" if name.endswith("json") else "0\tcat\n0\tdog\n")
    found = load_set(folder)
    assert [text for text in found.warnings if f"{name} beside it is no list of classes" in text]
    assert found.image_set.labels.tolist() == RENUMBERED.tolist()
    (folder / name).write_text("\n".join(CALLED[:4]) if name.endswith("txt") else json.dumps(CALLED[:4]))
    assert [text for text in load_set(folder).warnings if "lists 4 classes, cifar10 has 10" in text]


def test_numbered_folders_beside_a_list_of_classes(tmp_path):
    folder = tmp_path / "cifar10"
    for i, (image, label) in enumerate(zip(pictures(), RENUMBERED.tolist())):
        (folder / f"{label:02d}").mkdir(parents=True, exist_ok=True)
        (folder / f"{label:02d}" / f"{i:02d}.png").write_bytes(png(image))
    (folder / "classes.txt").write_text("\n".join(CALLED))
    found = load_set(folder).image_set
    # pictures come folder by folder, and these are numbered otherwise than the data set's classes
    place = RENUMBERED.argsort(stable=True)
    assert found.labels.tolist() == SHUFFLED[place].tolist()
    assert float((found.pixels() - pictures()[place]).abs().max()) <= 0.5 / 255 + 1e-6


def test_images_by_class_of_another_number_of_classes_are_refused(tmp_path):
    turned = pictures().view(10, 2, 3, 32, 32).transpose(0, 1).contiguous()
    text = message(saved(tmp_path / "cifar10.pt", {"images": turned}))
    assert "20 images, 10 a class, are not 10 classes" in text
    right = load_set(saved(tmp_path / "cifar10.pt", {"images": pictures().view(10, 2, 3, 32, 32)})).image_set
    assert torch.equal(right.labels, labels())


@pytest.mark.parametrize("names", [
    ("ipc10-00000-of-00001", "ipc50-00000-of-00001"), ("ipc10", "ipc50"), ("dm", "dsa-fyi"), ("10", "50"),
])  # fmt: skip
def test_files_of_several_sets_are_not_joined(tmp_path, names):
    folder = tmp_path / "cifar10" / "data"
    folder.mkdir(parents=True)
    for name, of in zip(names, (SHUFFLED, OTHER)):
        parquet.write_table(rows(of.tolist(), names=NAMES, images=pictures()), folder / f"{name}.parquet")
    text = message(folder)
    assert "holds several sets (" in text
    assert load_set(folder / f"{names[0]}.parquet").image_set.labels.tolist() == SHUFFLED.tolist()


@pytest.mark.parametrize("splits", [["ipc1", "ipc10"], ["test", "ipc1"]])
def test_splits_of_which_none_is_train_are_not_chosen_from(tmp_path, splits):
    for name, of in zip(splits, (SHUFFLED, OTHER)):
        save_to_disk(tmp_path / "cifar10" / name, rows(of.tolist(), names=NAMES, images=pictures()))
    (tmp_path / "cifar10" / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
    assert f"holds several sets ({', '.join(splits)})" in message(tmp_path / "cifar10")
    assert load_set(tmp_path / "cifar10" / splits[1], dataset="cifar10").image_set.labels.tolist() == OTHER.tolist()
    loose = tmp_path / "cifar10-cache"
    for name in splits:
        made = save_to_disk(tmp_path / f"made-{name}", rows(SHUFFLED.tolist(), names=NAMES, images=pictures()), 1)
        loose.mkdir(exist_ok=True)
        (made / "data-00000-of-00001.arrow").rename(loose / f"{name}.arrow")
    assert "holds several sets (" in message(loose)


def test_soft_labels_that_are_not_read_are_said(tmp_path):
    folder = tmp_path / "cifar10"
    for name, content in (("images", normalised()), ("labels", SHUFFLED), ("soft_labels", HOT)):
        saved(folder / f"{name}.pt", content)
    found = load_set(folder)
    assert found.image_set.labels.tolist() == SHUFFLED.tolist()
    assert [text for text in found.guesses if "not read: soft_labels.pt" in text]
    table = rows(SHUFFLED.tolist(), names=NAMES, images=pictures()).append_column("soft_label", [HOT.tolist()])
    parquet.write_table(table, tmp_path / "cifar10.parquet")
    found = load_set(tmp_path / "cifar10.parquet")
    assert found.image_set.labels.tolist() == SHUFFLED.tolist()
    assert [text for text in found.guesses if "not read: the column soft_label" in text]


@pytest.mark.parametrize("stated", [
    {"classes": CALLED}, {"class_to_idx": {name: k for k, name in enumerate(CALLED)}},
    {"idx_to_class": dict(enumerate(CALLED))},
])  # fmt: skip
def test_classes_in_the_metadata_of_safetensors_count(tmp_path, stated):
    told = {name: json.dumps(value) for name, value in stated.items()} | {"format": "pt", "note": "{not json"}
    save_file({"images": pictures().contiguous(), "labels": RENUMBERED}, tmp_path / "cifar10.safetensors", told)
    assert load_set(tmp_path / "cifar10.safetensors").image_set.labels.tolist() == SHUFFLED.tolist()


@pytest.mark.parametrize("names", [
    ("train-00000-of-00002-86921e166bc0c887", "train-00001-of-00002-12345e166bc0c887"), ("part-0", "part-1"),
    ("0000", "0001"),
])  # fmt: skip
def test_files_of_one_set_are_joined(tmp_path, names):
    for name, part in zip(names, (slice(0, 10), slice(10, 20))):
        table = rows(SHUFFLED[part].tolist(), names=NAMES, images=pictures()[part])
        parquet.write_table(table, tmp_path / f"{name}.parquet")
    assert load_set(tmp_path, dataset="cifar10").image_set.labels.tolist() == SHUFFLED.tolist()


def test_pictures_that_are_not_read_are_said(tmp_path):
    picture_folder(tmp_path / "cifar10", NAMES, size=32)
    first = next(iter(sorted((tmp_path / "cifar10").rglob("*.png"))))
    first.rename(first.with_suffix(".gif"))
    found = load_set(tmp_path / "cifar10")
    assert [text for text in found.guesses if "1 pictures of kinds that are not read were left out (0.gif" in text]
    first.with_suffix(".gif").rename(first.with_suffix(".jfif"))
    assert len(load_set(tmp_path / "cifar10").image_set) == 20


def test_saves_of_one_run_stay_with_their_own(tmp_path):
    folder = mtt_folder(tmp_path / "CIFAR10", normalised(), SHUFFLED)
    mtt_folder(folder, normalised().flip(0), OTHER, tag="100")
    assert load_set(folder / "images_100.pt").image_set.labels.tolist() == OTHER.tolist()
    assert load_set(folder / "images_best.pt").image_set.labels.tolist() == SHUFFLED.tolist()

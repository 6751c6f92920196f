"""Which class a label is: numbers and names that a file states, other spellings, orders that a file lists."""

from __future__ import annotations

import json

import pytest
import torch

from fyi_bench.data import DATASETS
from fyi_bench.data.classes import class_table
from fyi_bench.errors import DataError
from fyi_bench.formats import load_set
from fyi_bench.formats.classes import numbers_in
from importer_files import picture_folder, png

ANIMALS = DATASETS.get("cifar10").class_names
NUMBERED = [*range(7), 8, 9, 11]  # with gaps, and beyond ten, where an order of texts differs


@pytest.mark.parametrize(
    "pattern",
    [
        "class_{}",
        "n{}",
        "new{:03d}",
        "{:05d}",
        "{}_cat",
        "{} - a b",
        "cat_{}",
        "class{}_images",
        "Class {}",
        "c-{}-x2",
        "class-{:02d}",
        "label={}",
        "v2_class{}",
        "cifar10_{}",
        "y{}_ipc10",
    ],
)
def test_numbers_in_names_that_share_a_pattern(pattern):
    assert numbers_in([pattern.format(n) for n in NUMBERED]) == NUMBERED


def test_numbers_beside_words_that_differ():
    assert numbers_in(["7_cat", "10_dog"]) == [7, 10]
    assert numbers_in(["cat_7", "dog_10"]) == [7, 10]
    assert numbers_in(["class_12"]) == [12]
    assert numbers_in(["n01440764", "n02102040"]) is None
    assert numbers_in(["cat", "dog2"]) is None
    with pytest.raises(DataError, match="7 and 07 have the same number"):
        numbers_in(["7", "07"])
    with pytest.raises(DataError, match="two numbers"):
        numbers_in(["3_12", "4_7"])


def levels(folder, **facts) -> list[tuple[int, int]]:
    """(value of the first pixel, label) of every image."""
    found = load_set(folder, **facts).image_set
    return sorted(zip(found.images[:, 0, 0, 0].tolist(), found.hard_labels.tolist()))


def flat_folder(folder, names) -> None:
    """A class each, all pixels of class i being i."""
    for i, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        (folder / name / "0.png").write_bytes(png(torch.full((3, 32, 32), i / 255)))


SPELLINGS = {
    "usual": ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "plural": ["Airplanes", "AUTOMOBILES", "birds", "cats", "deer", "dogs", "frogs", "horses", "ships", "trucks"],
    "numbered from one": [f"{i + 1:02d}_{name}" for i, name in enumerate(ANIMALS)],
    "with numbers in brackets": [f"{name.upper()} ({(i + 3) % 10})" for i, name in enumerate(ANIMALS)],
    "numbered in another order": [f"{9 - i}_{name}" for i, name in enumerate(ANIMALS)],
}


@pytest.mark.parametrize("names", SPELLINGS.values(), ids=SPELLINGS)
def test_names_of_a_data_set_decide_however_they_are_spelt(tmp_path, names):
    flat_folder(tmp_path / "set", names)
    for facts in ({"dataset": "cifar10"}, {}):
        assert levels(tmp_path / "set", **facts) == [(i, i) for i in range(10)]


@pytest.mark.parametrize("pattern", ["class_{}_{}_syn", "img {} {}", "v2-{:03d}-{}"])
def test_a_name_in_a_pattern_counts_and_not_the_number_beside_it(tmp_path, pattern):
    flat_folder(tmp_path / "set", [pattern.format((i + 3) % 10, name) for i, name in enumerate(ANIMALS)])
    assert levels(tmp_path / "set", dataset="cifar10") == [(i, i) for i in range(10)]


@pytest.mark.parametrize("name", ["classes.txt", "classes.json"])
def test_a_list_of_classes_with_a_byte_order_mark_reads(tmp_path, name):
    order = list(reversed(ANIMALS))
    text = json.dumps(order) if name.endswith("json") else "\r\n".join(order)
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    flat_folder(tmp_path / "set", [f"class-{i:02d}" for i in range(10)])
    assert levels(tmp_path / "set", classes=tmp_path / name, dataset="cifar10") == [(i, 9 - i) for i in range(10)]
    (tmp_path / name).write_text(text, encoding="utf-16")
    with pytest.raises(DataError, match=rf"{name} is not a list of classes"):
        load_set(tmp_path / "set", classes=tmp_path / name, dataset="cifar10")


def test_folders_of_whole_sets_are_no_classes(tmp_path):
    """seed0/airplane, seed1/airplane …: the number of a set is not that of a class. A folder in each class is none."""
    for seed in range(3):
        flat_folder(tmp_path / "runs" / f"seed{seed}", ANIMALS)
    with pytest.raises(DataError, match=r"seed0 holds folders of pictures itself \(airplane, .*\n.*one folder a class"):
        load_set(tmp_path / "runs", dataset="cifar10")
    flat_folder(tmp_path / "deep", [f"{name}/images" for name in ANIMALS])
    assert levels(tmp_path / "deep", dataset="cifar10") == [(i, i) for i in range(10)]


def test_fine_labels_with_spaces_and_wnids(tmp_path):
    things = DATASETS.get("cifar100").class_names
    flat_folder(tmp_path / "a", [name.replace("_", " ") for name in things])
    assert levels(tmp_path / "a") == [(i, i) for i in range(100)]
    table = class_table("imagewoof")
    assert table.several_orders
    assert not class_table("imagenette").several_orders
    assert [table.find(f"{wnid}_{name}") for name, wnid in table.rows] == list(range(10))
    assert class_table("mnist").find("0 - zero") == 0
    assert class_table("fashionmnist").find("T-shirt/top") == 0


def test_names_of_which_only_some_are_known_are_refused_by_name(tmp_path):
    flat_folder(tmp_path / "set", [*ANIMALS[:8], "lorries", "submarine"])
    with pytest.raises(DataError, match="'lorries', 'submarine' are no class of cifar10") as error:
        load_set(tmp_path / "set", dataset="cifar10")
    assert "data classes cifar10" in str(error.value)
    flat_folder(tmp_path / "none", list("abcdefghij"))
    with pytest.raises(DataError, match="none of them is one"):
        load_set(tmp_path / "none", dataset="cifar10")
    assert load_set(tmp_path / "none").image_set.class_names == tuple("abcdefghij")
    flat_folder(tmp_path / "twice", ["car", "automobile"])
    with pytest.raises(DataError, match="the same class of cifar10"):
        load_set(tmp_path / "twice", dataset="cifar10")


def test_a_file_states_another_order(tmp_path):
    other = tmp_path / "order.txt"
    other.write_text("\n".join(reversed(ANIMALS)))
    pixels = torch.arange(10).view(10, 1, 1, 1).expand(10, 3, 32, 32).to(torch.uint8).contiguous()
    torch.save([pixels, torch.arange(10)], tmp_path / "cifar10_set.pt")
    assert levels(tmp_path / "cifar10_set.pt", classes=other) == [(i, 9 - i) for i in range(10)]
    other.write_text(json.dumps({name: 9 - i for i, name in enumerate(ANIMALS)}))
    assert levels(tmp_path / "cifar10_set.pt", classes=other) == [(i, 9 - i) for i in range(10)]
    other.write_text(json.dumps({str(9 - i): ["n0", name] for i, name in enumerate(ANIMALS)}))
    assert levels(tmp_path / "cifar10_set.pt", classes=other) == [(i, 9 - i) for i in range(10)]
    torch.save([pixels, torch.eye(10) * 8 - 2], tmp_path / "cifar10_soft.pt")
    assert levels(tmp_path / "cifar10_soft.pt", classes=other) == [(i, 9 - i) for i in range(10)]
    flat_folder(tmp_path / "cifar10", [f"class_{i}" for i in range(10)])
    assert levels(tmp_path / "cifar10", classes=other) == [(i, 9 - i) for i in range(10)]
    other.write_text("\n".join([*ANIMALS[:9], "tank"]))
    with pytest.raises(DataError, match=r"'tank' of .* is no class of cifar10"):
        load_set(tmp_path / "cifar10_set.pt", classes=other)
    other.write_text("\n".join(ANIMALS[:9]))
    with pytest.raises(DataError, match="9 classes"):
        load_set(tmp_path / "cifar10_set.pt", classes=other)


def test_orders_that_differ_in_public_are_told(tmp_path):
    picture_folder(tmp_path / "imagewoof", [str(i) for i in range(10)], each=1, size=128)
    found = load_set(tmp_path / "imagewoof")
    assert any("numbered in several ways" in text and "classes=FILE" in text for text in found.warnings)

"""The published numbers: spot checks against the papers, units, names, and errors for names nobody has."""

import csv

import pytest

from fyi_bench.errors import UnknownNameError, UsageError
from fyi_bench.present.published import FILE, Published, published


def one(**wanted) -> Published:
    rows = published(**wanted)
    assert len(rows) == 1, rows
    return rows[0]


# values as printed, from the FYI paper's tables and its baselines' own pages
@pytest.mark.parametrize(
    ("wanted", "value", "std"),
    [
        ({"table": "1", "dataset": "cifar10", "ipc": 10, "method": "dsa", "fyi": True}, 0.547, 0.005),
        ({"table": "1", "dataset": "cifar10", "ipc": 10, "method": "dsa", "fyi": False}, 0.521, 0.005),
        ({"table": "1", "dataset": "cifar100", "ipc": "full", "method": "full"}, 0.562, 0.003),
        ({"table": "1", "dataset": "tinyimagenet", "ipc": 50, "method": "dm", "fyi": True}, 0.256, 0.004),
        ({"table": "2", "dataset": "imagesquawk", "ipc": 10, "method": "mtt", "fyi": True}, 0.616, 0.016),
        ({"table": "3", "method": "mtt", "arch": "resnet18", "fyi": True}, 0.611, 0.006),
        ({"table": "A", "dataset": "cifar10", "ipc": 10, "method": "mtt", "flip": "random"}, 0.677, 0.004),
        ({"table": "B", "method": "mtt", "fyi": True, "metric": "spearman_top50"}, 0.382, None),
        ({"table": "B", "method": "full", "metric": "time_min"}, 6804.0, None),
        ({"table": "ext", "dataset": "mnist", "ipc": 50, "method": "dsa"}, 0.992, None),
        ({"table": "ext", "dataset": "cifar10", "ipc": 50, "method": "random"}, 0.434, 0.010),
        ({"table": "ext", "method": "mtt", "metric": "spearman_top20"}, -0.04, None),
        ({"table": "ext", "dataset": "cifar10", "ipc": 1, "method": "idc-i"}, 0.367, None),
        ({"dataset": "cifar10", "ipc": 1, "method": "tesla"}, 0.485, 0.008),
        ({"dataset": "cifar10", "ipc": 1, "method": "frepo", "fyi": True}, 0.468, 0.007),
        ({"dataset": "cifar100", "ipc": 10, "method": "frepo", "fyi": False}, 0.425, 0.002),
        ({"dataset": "tinyimagenet", "ipc": 1, "method": "idm", "arch": "convnet3"}, 0.101, 0.002),
        ({"dataset": "tinyimagenet", "ipc": 1, "method": "ncfm", "metric": "replicated_accuracy"}, 0.12968, None),
    ],
)
def test_numbers_as_printed(wanted, value, std):
    row = one(**wanted)
    assert (row.value, row.std) == (value, std)
    assert row.source


def test_every_row_is_read_and_has_a_source_and_a_lower_case_name():
    rows = published()
    with open(FILE, newline="") as handle:
        raw = list(csv.DictReader(handle))
    assert len(rows) == len(raw) > 350
    for row, text in zip(rows, raw, strict=True):
        assert row.source == text["source"] != ""
        assert row.dataset == row.dataset.lower()
        assert row.method == row.method.lower()
        assert row.arch == row.arch.lower()
        assert (row.ipc is None) == (text["ipc"] == "full")


def test_accuracies_are_fractions_in_the_interface_and_percent_in_the_file():
    for row in published(metric="accuracy"):
        assert row.unit == "fraction"
        assert 0 < row.value < 1
        assert row.std is None or 0 <= row.std < 0.1
    assert {row.unit for row in published()} == {"fraction", "correlation", "minutes", "images"}
    with open(FILE, newline="") as handle:
        first = next(csv.DictReader(handle))
    assert (first["value"], first["unit"], published()[0].value) == ("30.3", "percent", 0.303)


def test_plain_fyi_and_random_flip_do_not_mix():
    arms = {fyi: published(table="A", dataset="cifar10", ipc=50, method="dc", fyi=fyi) for fyi in (False, True)}
    assert [row.value for row in arms[False]] == [0.539]
    assert [row.value for row in arms[True]] == [0.546]
    assert arms[True][0].flip == "fyi"
    flips = published(table="A", dataset="cifar10", ipc=50, method="dc")
    assert [row.flip for row in flips] == ["none", "random", "fyi"]
    assert flips[1].method_label == "DC+Flip"


def test_printed_labels_and_any_case_are_understood():
    assert published(dataset="CIFAR-10", method="CAFE+DSA") == published(dataset="cifar10", method="cafe-dsa")
    assert published(table="a", arch="ConvNetD3") == published(table="A", arch="convnet3")
    assert published(method="DSA", ipc="10") == published(method="dsa", ipc=10) != []


def test_no_match_is_an_empty_list():
    assert published(table="1", dataset="imagenette") == []


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"dataset": "cifar1000"}, "Did you mean 'cifar100'"),
        ({"method": "mttt"}, "Did you mean 'mtt'"),
        ({"arch": "resnet"}, "Did you mean 'resnet18'"),
        ({"metric": "acuracy"}, "Did you mean 'accuracy'"),
        ({"table": "9"}, "Unknown table of published numbers"),
        ({"flip": "vertical"}, "Unknown flip"),
        ({"methods": "dm"}, "Did you mean 'method'"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(wanted, says):
    with pytest.raises(UnknownNameError, match=says):
        published(**wanted)


def test_a_wrong_number_of_images_is_a_usage_error():
    with pytest.raises(UsageError, match="'full'"):
        published(ipc="many")


def test_names_are_those_of_the_recipes():
    from distill.recipes import declared, recipe

    quoted = {row.method for row in published() if row.metric == "replicated_accuracy" or row.metric.startswith("cl5_")}
    for method in {row.method for row in published()} - {"full", "idc-i", "forgetting"} - quoted:
        assert declared(method).method == method
    for row in published(metric="accuracy", table="1", fyi=True):
        assert recipe(row.method, row.dataset, row.ipc).values["model"] == row.arch


def test_continual_curves_of_others():
    curve = [row for row in published("ext", method="SRe2L", dataset="tinyimagenet") if row.metric.startswith("cl5_")]
    assert [row.value for row in curve] == [0.456, 0.485, 0.494, 0.498, 0.499]
    replay = published("ext", method="Distilled Replay", dataset="mnist", metric="cl5_avg_acc_exp5")
    assert [row.value for row in replay] == [0.87]
    assert published("ext", method="naive (lower bound)", dataset="cifar10", metric="cl5_avg_acc_exp5")

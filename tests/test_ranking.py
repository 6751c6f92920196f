"""Rankings of the space as files: round trip, merging, and errors that say where."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import replace
from importlib import resources

import pytest

from downstream import protocol
from downstream.training import NUMERICS
from fyi_bench.config import PRECISIONS
from fyi_bench.data.entry import DATASETS
from fyi_bench.errors import DataError, FyiBenchError, UnknownNameError, UsageError
from search_space import ranking, ranking_rules, space720
from search_space.ranking import Label, Ranking, Row

LABEL = Label("cifar10", "quick v1", 2, 4000, 2000, "bf16", 1)


def row(index: int, seed: int = 0, accuracy: float | None = 0.5) -> Row:
    return Row(space720.name(index), seed, accuracy, 12.34, "a processor, with a comma", 1, f"{index:016x}")


def rows(*indices: int, seed: int = 0) -> Ranking:
    return Ranking(LABEL, tuple(row(index, seed, index / 1000) for index in indices))


def test_a_file_holds_what_was_saved(tmp_path):
    path = tmp_path / "own.csv"
    mixed = Ranking(LABEL, (row(3, accuracy=0.1234567890123456), row(7, accuracy=None)))
    ranking.save(mixed, path)
    loaded = ranking.load(path)
    assert loaded.label == LABEL
    assert loaded.scores(0) == {space720.name(3): 0.1234567890123456, space720.name(7): None}
    assert loaded.rows[0] == replace(mixed.rows[0], seconds=12.3)
    assert ranking.to_csv(loaded) == path.read_text()


def test_rows_accumulate_in_the_order_of_the_space(tmp_path):
    path = tmp_path / "own.csv"
    for part in (rows(9, 2), rows(2, 9, seed=1), rows(4), rows(2)):
        ranking.save(part, path)
    whole = ranking.load(path)
    assert [(space720.index(r.architecture), r.seed) for r in whole.rows] == [(2, 0), (2, 1), (4, 0), (9, 0), (9, 1)]
    assert whole.seeds == [0, 1]
    assert whole.seconds == pytest.approx(5 * 12.3)
    before = path.read_bytes()
    ranking.save(rows(9), path)
    assert path.read_bytes() == before


def test_contradictions_and_other_labels_are_not_merged(tmp_path):
    path = ranking.save(rows(2), tmp_path / "own.csv")
    with pytest.raises(DataError, match=r"seed 0 has the accuracy 0\.002 in one ranking and 0\.9 in another"):
        ranking.save(Ranking(LABEL, (row(2, accuracy=0.9),)), path)
    with pytest.raises(UsageError, match="epochs is 2 and 3, precision is bf16 and fp32"):
        ranking.save(Ranking(replace(LABEL, epochs=3, precision="fp32"), (row(4),)), path)
    assert ranking.load(path).rows == (replace(row(2, accuracy=0.002), seconds=12.3),)


def text(**changes: str) -> str:
    """A whole file of two rows, the second changed."""
    head, first, second = ranking.to_csv(rows(0, 1)).splitlines()
    lines = second
    for key, value in changes.items():
        lines = lines.replace({"architecture": space720.name(1), "accuracy": "0.001", "epochs": ",2,"}[key], value)
    return "\n".join((head, first, lines)) + "\n"


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (
            text(architecture="w32-d1-nonorm-sigmoid-maxx"),
            UnknownNameError,
            r"r\.csv, line 3: .*Did you mean 'max'",
        ),
        (text(architecture="w32-d9-nonorm-sigmoid-max"), UnknownNameError, r"line 3: depth of the search space 'd9'"),
        (text(architecture="w32-d1-nonorm-sigmoid"), UsageError, r"line 3: .*does not say the pool"),
        (text(architecture=space720.name(0)), DataError, "with seed 0 comes twice"),
        (text(accuracy="43.1"), DataError, r"line 3: the accuracy 43\.1 is no fraction"),
        (text(accuracy="nan"), DataError, "line 3: 'nan' is not a number"),
        (text(accuracy="good"), DataError, "line 3: could not convert"),
        (text(epochs=",3,"), DataError, "line 3: epochs is 2 and 3.*\n.*split it"),
        (text(accuracy="0.1,extra"), DataError, "line 3 has not 14 columns"),
        ("", DataError, "first line must be\narchitecture,dataset"),
        (text().splitlines()[0] + "\n", DataError, "holds no rows"),
        ("a,b\n1,2\n", DataError, r"is no ranking(?s:.*), or architecture,accuracy for a table"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line(content, error, said):
    with pytest.raises(error, match=f"(?s){said}"):
        ranking.parse(content, "r.csv")


def test_parts_of_a_name_in_another_order_are_the_same_architecture():
    shuffled = "-".join(reversed(space720.name(1).split("-")))
    assert ranking.parse(text(architecture=shuffled), "r").scores(0).keys() == {space720.name(0), space720.name(1)}


def test_names_that_do_not_exist(tmp_path):
    with pytest.raises(UnknownNameError, match="Unknown ranking 'cifar11'"):
        ranking.load("cifar11")
    with pytest.raises(DataError, match=r"missing\.csv cannot be read: No such file"):
        ranking.load(tmp_path / "missing.csv")


@pytest.mark.parametrize("what", ["pipe", "folder", "endless", "large", "field", "rows"])
def test_what_never_ends_or_is_too_large_is_refused(tmp_path, what, monkeypatch):
    path = tmp_path / "own.csv"
    match what:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "endless":
            path.symlink_to("/dev/zero")
        case "large":
            with open(path, "wb") as file:
                file.truncate(65 * 2**20)
        case "field":
            path.write_text("architecture,accuracy\n" + "a" * 200_000 + ",0.5\n")
        case _:
            monkeypatch.setattr(ranking, "MOST_ROWS", 3)
            path.write_text("architecture,accuracy\n" + "".join(f"a{k},0.5\n" for k in range(4)))
    with pytest.raises(DataError, match=r"own\.csv.*\n"):
        ranking.load(path)


def test_rankings_that_come_with_the_package_are_whole():
    found = {name: ranking.load(name) for name in ranking.names()}
    if not found:
        pytest.skip("no ranking of the space has been measured yet: search_space/rankings holds none")
    for name, whole in found.items():
        assert name.startswith(whole.label.dataset)
        assert len(whole.scores(whole.seeds[0])) >= 36
        assert all(r.accuracy is None or 0.05 <= r.accuracy <= 1 for r in whole.rows)


# files that are handed in ---------------------------------------------------------------------------------------------

TOLD = replace(LABEL, precision="fp32", test_images=1000, data="0123456789abcdef", aside=0.1)


def handed_in(tmp_path, name: str = "cifar10-mine.csv", **cells: str):
    """A file of two rows as it should be, but for these cells: those of the label in both rows, else in the second."""
    made = Ranking(TOLD, tuple(replace(row(k), validation=0.4) for k in (0, 1)))
    records = list(csv.DictReader(io.StringIO(ranking.to_csv(made))))
    for place, record in enumerate(records):
        record |= {key: value for key, value in cells.items() if place or hasattr(TOLD, key)}
    path = tmp_path / name
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ranking.ALL_COLUMNS)
        writer.writeheader()
        writer.writerows(records)
    return path


# what `nas --reference` refuses too
UNREADABLE = [
    ({"test_images": "0"}, "test_images is 0"),
    ({"test_images": "1" + "0" * 400}, "test_images is 10"),
    ({"epochs": "0"}, "epochs is 0"),
    ({"images": "-5"}, "images is -5"),
    ({"images": "0"}, "images is 0"),
    ({"aside": "1.0"}, r"aside is 1\.0"),
    ({"aside": "nan"}, "aside is nan"),
    ({"seconds": "inf"}, "inf seconds is no time"),
    ({"seconds": "nan"}, "nan seconds is no time"),
    ({"seconds": "-1", "accuracy": "", "validation": ""}, r"-1\.0 seconds is no time"),
]
REFUSED = [
    ({"images": "50001"}, "50001 train images are more than cifar10 has"),
    ({"test_images": "10001"}, "10001 test images are more than cifar10 has"),
    ({"precision": "fp31"}, "'fp31' is no precision.*fp32 or bf16"),
    ({"precision": "auto"}, "'auto' is no precision"),
    ({"protocol": "quick"}, "'quick' is no protocol with its version"),
    ({"protocol": "quick v0"}, "'quick v0' is no protocol"),
    ({"protocol": "quicker v1"}, "'quicker v1' is no protocol"),
    ({"protocol": "quick+epochs v1"}, "no protocol"),
    ({"protocol": "quick v12"}, "quick v12 is no version of the protocol for cifar10"),
    ({"epochs": "7"}, "quick v1 trains for other than 7 epochs"),
    ({"protocol": "quick+epochs=3 v1"}, "trains for other than 2 epochs"),
    ({"images": "45011"}, "45011 train images are more than cifar10 has beside what is set aside"),
    ({"images": "9"}, "9 train or 1000 test images are fewer than cifar10 has classes"),
    ({"trainer": "99"}, "trainer is 99"),
    ({"threads": "1000000000"}, "how many threads"),
    ({"trainer": "0"}, "trainer is 0"),
    ({"data": "mine"}, "'mine' is no digest of train images"),
    ({"data": "", "validation": ""}, r"share 0\.1 is set aside of unknown images"),
    ({"data": "", "aside": "0"}, "validation accuracy and no images set aside"),
    ({"accuracy": ""}, "it failed and has a validation accuracy"),
    ({"accuracy": "0.5001"}, "no whole number of 1000 test images"),
    ({"validation": "0.4001"}, "no whole number of the images set aside"),
    ({"seed": "-1"}, "is no seed"),
    ({"seed": str(2**63)}, "is no seed"),
    ({"seconds": "0"}, r"0\.0 seconds is no time"),
    ({"cell": f"{0:016x}"}, "have one cell, 0000000000000000"),
    ({"cell": "0" * 15 + "g"}, "is no digest of a run"),
    ({"architecture": "convnet3"}, "convnet3 with seed 0: this is none of the 720 ConvNets"),
    ({"device": "  "}, "on what device"),
    ({"device": "a\x1b[2Jb"}, "on what device"),
    ({"device": ""}, "on what device"),
    ({"threads": "0"}, "how many threads"),
]


@pytest.mark.parametrize(("cells", "said"), UNREADABLE)
def test_what_nothing_can_be_planned_by_is_not_read(tmp_path, cells, said):
    with pytest.raises(DataError, match=rf"mine\.csv, line \d: .*{said}.*\n"):
        ranking.load(handed_in(tmp_path, **cells))


@pytest.mark.parametrize(("cells", "said"), REFUSED)
def test_a_file_with_a_wrong_cell_is_not_taken(tmp_path, cells, said):
    path = handed_in(tmp_path, **cells)
    ranking.load(path)
    with pytest.raises(DataError, match=f"(?s)mine.*{said}"):
        ranking.check(path)


@pytest.mark.parametrize(
    "cells",
    [
        {},
        {"protocol": "paper+batch=64+lr=0.02 v1", "epochs": "200"},
        {"protocol": "quick+epochs=5 v1", "epochs": "5", "images": "45010"},
        {"architecture": "nasbench201:" + "+".join(["|none~0|", "|none~0|none~1|", "|none~0|none~1|none~2|"])},
        {"seed": str(2**63 - 1)},
        {"accuracy": "", "validation": "", "seconds": "0.0", "device": "", "threads": "0"},  # one that diverged
        {"test_images": "10000", "validation": "0.4002"},  # of 5,000 set aside
    ],
)
def test_what_the_command_writes_is_taken(tmp_path, cells):
    assert ranking.check(handed_in(tmp_path, **cells))[0].startswith("cifar10-mine.csv: cifar10")


@pytest.mark.parametrize(
    ("name", "dataset"), [("cifar10-mine.csv", "cifar"), ("cifar10.csv", "cifar10"), ("-mine.csv", "")]
)
def test_the_name_of_a_file_begins_with_its_data_set(tmp_path, name, dataset):
    with pytest.raises(UsageError, match=f"about '{dataset}'.*\nBegin its name"):
        ranking.check(handed_in(tmp_path, name, dataset=dataset))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"accuracy": 0.5}, "has the accuracy 0.3895 in one ranking and 0.5 in another"),
        ({"validation": 0.5}, "has the validation accuracy 0.377 in one ranking and 0.5 in another"),
        ({"cell": "0" * 16}, "has the cell 0000000000000000, and 0af46bb750863268 in cifar10-quick-fp32"),
        ({"validation": 0.3770000001, "seconds": 9.0, "device": "another"}, None),
        ({"validation": None}, None),
    ],
)
def test_no_row_contradicts_one_of_the_package(tmp_path, changes, said):
    shipped = ranking.load("cifar10-quick-fp32")
    own = Ranking(shipped.label, (replace(shipped.rows[0], **changes),))
    path = tmp_path / "cifar10-mine.csv"
    path.write_text(ranking.to_csv(own))
    if said is None:
        ranking.check(path)
    else:
        with pytest.raises(DataError, match=said):
            ranking.check(path)


@pytest.mark.parametrize("name", ranking.names())
def test_rankings_of_the_package_pass_their_own_check(name):
    assert ranking.check(resources.files(ranking.__package__) / ranking.FOLDER / f"{name}.csv")


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1"])
def test_a_table_with_impossible_times_is_not_read(seconds):
    with pytest.raises(DataError, match="t, line 2"):
        ranking.parse(f"architecture,accuracy,seconds\n{space720.name(0)},0.5,{seconds}\n", "t")


def test_what_the_check_knows_of_other_rooms_is_so():
    assert ranking_rules.TRAINER == NUMERICS
    for name, epochs in ranking_rules.PROTOCOLS.items():
        for dataset in ranking_rules.SIZES:
            rules = protocol.protocol(name, "nas-reference", dataset=dataset)
            assert rules.version == 1 + (dataset in ranking_rules.SECOND_VERSION)
            assert (rules.epochs_for(4000), rules.min_steps, rules.extra_epoch) == (epochs, 0, False)
    assert set(ranking_rules.PRECISIONS) == set(PRECISIONS) - {"auto"}
    names = protocol.protocol_names()
    assert list(ranking_rules.PROTOCOLS) == [
        name for name in names if "nas-reference" in protocol.protocol_data(name)["task"]
    ]
    entries = {name: DATASETS.get(name) for name in DATASETS.names() if DATASETS.owner(name).built_in}
    sizes = {name: (one.train, one.test, one.num_classes) for name, one in entries.items() if one.train}
    assert sizes == ranking_rules.SIZES


def test_every_error_is_one_for_people():
    with pytest.raises(FyiBenchError) as caught:
        ranking.parse(text(accuracy="x"), "r.csv")
    assert len(str(caught.value).splitlines()) == 2

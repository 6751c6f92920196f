"""Rankings of the space as files: round trip, merging, and errors that say where."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from fyi_bench.errors import DataError, FyiBenchError, UnknownNameError, UsageError
from search_space import ranking, space720
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
        ("a,b\n1,2\n", DataError, "is no ranking"),
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


def test_every_error_is_one_for_people():
    with pytest.raises(FyiBenchError) as caught:
        ranking.parse(text(accuracy="x"), "r.csv")
    assert len(str(caught.value).splitlines()) == 2

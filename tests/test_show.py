"""The result tables of the terminal, and the words they share with figures and the report."""

from __future__ import annotations

import math

import pytest

from commands import tell
from fyi_bench.present import words as wording
from sample_records import continual_arm, continual_record, distill_arm, distill_record, evaluate_record, record


def test_distill_shows_accuracy_symmetry_loss_and_place_of_every_arm():
    text = tell(distill_record())
    row = next(line for line in text.splitlines() if line.startswith("dm+fyi"))
    assert row.split() == [
        "dm+fyi",
        "47.1",
        "±",
        "0.8",
        "40.0",
        "±",
        "0.8",
        "56.8",
        "31.2",
        "→",
        "4.5",
        "1",
        "min",
        "01",
        "s",
    ]
    assert "set      random   runs/distill/random-none/set.safetensors" in text
    assert "protocol quick, version 1" in text
    assert "images per class" in text


def test_distill_says_what_the_interval_allows():
    text = tell(distill_record())
    assert "convnet, fyi − none: +1.1 points, 95 % interval [−0.3, +2.7], 3 pairs: it contains 0" in text
    better = tell(distill_record(difference={"mean": 0.02, "low": 0.01, "high": 0.03, "pairs": 5}))
    assert "5 pairs: better with fyi" in better
    worse = tell(distill_record(difference={"mean": -0.02, "low": -0.03, "high": -0.01, "pairs": 5}))
    assert "fyi − none: −2.0 points, 95 % interval [−3.0, −1.0], 5 pairs: worse with fyi" in worse


def test_the_random_flip_is_not_taken_for_random_images():
    record = distill_record()
    record["arms"][1]["flip"] = "random"
    text = " ".join(tell(record).split())
    assert "convnet, random flip − none: +1.1 points" in text
    assert "do not tell whether random flip helps" in text


def test_pairs_of_one_seed_are_said_to_be_that():
    wide = {"mean": 0.02, "low": 0.01, "high": 0.03, "pairs": 3}
    assert "better with fyi (one seed: sets of other seeds may differ)" in tell(distill_record(difference=wide))
    assert "one seed" not in tell(distill_record(difference=wide, seeds=[0, 1, 2]))


@pytest.mark.parametrize("bound", [None, math.nan, 0.01])
def test_one_pair_gives_no_interval_and_says_so(bound):
    text = tell(distill_record(difference={"mean": 0.01, "low": bound, "high": bound, "pairs": 1}))
    assert "+1.0 points, 1 pair: too few for an interval" in text
    assert "[" not in text


def test_columns_line_up():
    rows = tell(continual_record()).splitlines()[2:10]
    assert len({len(row) for row in rows}) == 1


def test_an_arm_not_evaluated_on_an_architecture_has_a_hole():
    row = next(line for line in tell(distill_record()).splitlines() if line.startswith("random"))
    assert row.split()[:4] == ["random", "29.0", "±", "0.8"]
    assert row.split()[4] == wording.HOLE


def test_a_set_that_was_not_evaluated_still_shows():
    text = tell(record("distill", [distill_arm("dm", "none", {})]))
    assert "unequalness" in text
    assert "±" not in text
    assert "points" not in text


def test_continual_has_a_row_a_step_and_the_average():
    rows = tell(continual_record()).splitlines()
    assert [row.split()[0] for row in rows[4:9]] == ["20", "40", "60", "80", "100"]
    assert rows[9].startswith("average over steps")
    assert rows[2].split() == ["classes", "seen", "dsa", "dsa+fyi", "random"]
    assert rows[-1].endswith("3 pairs: better with fyi")


def test_a_single_value_has_no_deviation():
    arms = [continual_arm("dm", "none", [[0.5], [0.4]], size=50)]
    one = record("continual", arms, steps=2, class_orders=[list(range(100))])
    text = tell(one)
    assert "50.0" in text
    assert "±" not in text
    assert "1 class order " in text


def test_evaluate_has_a_row_an_architecture():
    text = tell(evaluate_record())
    assert [line.split() for line in text.splitlines()[4:6]] == [
        ["convnet", "51.0", "±", "1.0", "2", "–", "–"],  # records of old do not tell what a network cost
        ["vgg11", "41.0", "1", "–", "–"],
    ]
    assert "mtt.safetensors" in text


@pytest.mark.parametrize(
    ("seconds", "words"), [(8.26, "8.3 s"), (252, "4 min 12 s"), (7499, "2 h 04 min"), (math.nan, "–"), (None, "–")]
)
def test_seconds(seconds, words):
    assert wording.seconds_words(seconds) == words


@pytest.mark.parametrize(("count", "words"), [(480, "480 B"), (122880, "120.0 KiB"), (1572864, "1.5 MiB")])
def test_bytes(count, words):
    assert wording.bytes_words(count) == words


@pytest.mark.parametrize(
    ("value", "words"), [(1234.5678, "1235"), (0.00001234, "1.234e−05"), ("nan", "nan"), (None, "–")]
)
def test_short_numbers(value, words):
    assert wording.short(value) == words


def test_a_long_title_keeps_its_end():
    arm = {"method": "a-method-with-a-very-long-name", "flip": "fyi"}
    assert wording.arm_label(arm) == "a-method-…g-name+fyi"
    assert wording.arm_label({"method": "cafe-dsa", "flip": "vertical"}) == "cafe-dsa+vertical"

"""Robust scores: the formulas against their plain twins, what each arm is trained on, and a whole tiny run."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

import fyi_bench
import tiny
from commands import tell
from downstream import robust_scores as rs
from downstream.protocol import protocol
from fyi_bench.data import load_dataset
from fyi_bench.errors import UsageError

RULES = rs.Rules((0.01, 0.1), 0.1, 40, 0.5, 0.5)
NAMES = ("real-hard", "set-hard", "set-any", "random-any", "set-plain", "random-plain")
ACCURACIES = dict(zip(NAMES, (0.85, 0.6, 0.7, 0.5, 0.4, 0.35)))


def twin(a: dict[str, float], w: float, g: float) -> tuple[float, float]:
    """Both scores with numpy, written out."""
    alpha = w * (a["set-any"] - a["random-any"]) - (1 - w) * (a["real-hard"] - a["set-hard"])
    beta = g * (a["set-any"] - a["random-any"]) + (1 - g) * (a["set-plain"] - a["random-plain"])
    return tuple((np.exp(x) - np.exp(-1.0)) / (np.exp(1.0) - np.exp(-1.0)) for x in (alpha, beta))


@pytest.mark.parametrize("weights", [(0.5, 0.5), (1.0, 0.0), (0.2, 0.9)])
def test_scores_are_those_of_the_plain_formulas(weights):
    generator = np.random.default_rng(0)
    for _ in range(20):
        values = dict(zip(ACCURACIES, generator.uniform(size=6)))
        rules = dataclasses.replace(RULES, label_weight=weights[0], augmentation_weight=weights[1])
        found = rs.robust_scores(values, rules)
        assert (found.label_robust, found.augmentation_robust) == pytest.approx(twin(values, *weights), abs=1e-14)
        assert min(found.label_robust, found.augmentation_robust) >= 0.0
        assert max(found.label_robust, found.augmentation_robust) <= 1.0


def test_recovery_and_improvement_are_differences_of_fractions():
    found = rs.robust_scores(ACCURACIES, RULES)
    assert found.recovery == pytest.approx(0.25)
    assert found.improvement == pytest.approx(0.2)


def test_the_ends_of_the_scale():
    assert rs.unit_score(-1.0) == pytest.approx(0.0)
    assert rs.unit_score(1.0) == pytest.approx(1.0)
    assert rs.unit_score(0.0) == pytest.approx((1 - math.exp(-1)) / (math.e - math.exp(-1)))


def test_percent_is_refused_instead_of_blowing_up():
    with pytest.raises(UsageError, match=r"'real-hard' is 85.*\n.*not percent"):
        rs.robust_scores({**ACCURACIES, "real-hard": 85.0}, RULES)


def test_soft_labels_alone_earn_no_label_robust_score():
    """A set that gains as much from its soft labels as random images do has the improvement of its images only."""
    plain = rs.robust_scores({**ACCURACIES, "set-any": 0.6, "random-any": 0.5}, RULES)
    labelled = rs.robust_scores({**ACCURACIES, "set-any": 0.8, "random-any": 0.7}, RULES)
    assert labelled.label_robust == pytest.approx(plain.label_robust)


def test_the_split_is_balanced_disjoint_and_always_the_same():
    real = tiny.real_set()
    rest, held = rs.set_aside(real, 0.25)
    assert rest.counts.tolist() == [9] * 3
    assert held.counts.tolist() == [3] * 3
    rows = [image.numpy().tobytes() for part in (rest, held) for image in part.images]
    assert sorted(rows) == sorted(image.numpy().tobytes() for image in real.images)
    assert torch.equal(rs.set_aside(real, 0.25)[1].images, held.images)
    with pytest.raises(UsageError, match="too few to set 100% aside"):
        rs.set_aside(real, 1.0)


def test_random_images_have_the_numbers_of_the_set():
    rest, _ = rs.set_aside(tiny.real_set(), 0.25)
    found = rs.random_like(rest, [1, 0, 4], 0)
    assert found.counts.tolist() == [1, 0, 4]
    assert not torch.equal(found.images, rs.random_like(rest, [1, 0, 4], 1).images)
    with pytest.raises(UsageError, match="has 10 images of class 2, the real data only 9"):
        rs.random_like(rest, [1, 1, 10], 0)


def test_a_teacher_labels_with_the_logits_it_has_for_each_image():
    from downstream.training import new_network

    real = tiny.real_set()
    network = new_network(tiny.MODEL, real, 0)
    found = rs.taught(real, network, tiny.SPACE)
    with torch.no_grad():
        wanted = torch.stack([network(tiny.SPACE.encode(image[None] / 255))[0] for image in real.images])
    torch.testing.assert_close(found.labels, wanted, rtol=1e-4, atol=1e-4)


def test_arms_differ_from_the_protocol_in_what_their_names_say():
    base = protocol("quick", "robust")
    arms = {arm.name: rs.settings_of(arm, base, 0.05) for arm in rs.TREATMENTS}
    assert {p.lr for p in arms.values()} == {0.05}
    assert not any(p.lr_from_set for p in arms.values())
    assert arms["set-any"] == arms["random-any"]
    assert arms["set-plain"] == arms["random-plain"]
    assert (arms["set-plain"].eval_augment, arms["set-any"].eval_augment) == ("none", base.eval_augment)


def test_the_best_step_size_is_judged_by_validation_and_ties_go_to_the_smaller():
    assert rs.best_lr({0.1: 0.5, 0.01: 0.5, 0.05: 0.4}) == 0.01


@pytest.fixture
def small_rules(monkeypatch):
    monkeypatch.setattr(rs, "rules_of", lambda name: RULES)
    return {"eval_model": "convnet-w8", "epochs": "1", "min_steps": "0", "nets": "2"}


@pytest.mark.long
@pytest.mark.parametrize("soft", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_whole_run_on_built_in_data(tmp_path, small_rules, soft):
    shapes = load_dataset("shapes10")
    rows = [int(shapes.train.indices_of(c)[k]) for c in range(10) for k in range(2)]
    image_set = shapes.train.select(rows).to_space(shapes.space)
    if soft:
        image_set = dataclasses.replace(image_set, labels=torch.eye(10)[image_set.labels] * 4)
    path = image_set.save(tmp_path / "set.safetensors")
    given = {"dataset": "shapes10", "store": tmp_path / "runs", "workers": 1, "threads": 1, "overrides": small_rules}
    record = fyi_bench.evaluate(path, robust=True, **given)
    arm = record["arms"][0]
    values = {name: entry["values"] for name, entry in arm["accuracies"].items()}
    for k in range(2):
        wanted = twin({name: found[k] for name, found in values.items()}, 0.5, 0.5)
        got = arm["label_robust"]["values"][k], arm["augmentation_robust"]["values"][k]
        assert got == pytest.approx(wanted, abs=1e-12)
    for entry in arm["accuracies"].values():
        assert set(entry["validation"]) == {"0.01", "0.1"}
        assert entry["validation"][f"{entry['lr']:g}"] == max(entry["validation"].values())
    assert arm["labels"] == ("soft" if soft else "hard")
    assert (values["set-any"] == values["set-hard"]) is not soft
    assert arm["set_bytes"] == image_set.nbytes
    assert arm["peak_memory_mib"] > 0
    text = tell(record)
    assert "label-robust score" in text
    assert "20 % of the train" not in text
    assert "10 % of the train images" in text
    assert "bit a class: images" in text
    # the cells of random images do not depend on the set: another set of as many images finds them done
    if not soft:
        before = {p.parent.name for p in (tmp_path / "runs" / "robust").glob("*/done")}
        other = dataclasses.replace(image_set, images=image_set.images.flip(-1)).save(tmp_path / "other.safetensors")
        fyi_bench.evaluate(other, robust=True, **given)
        after = {p.parent.name for p in (tmp_path / "runs" / "robust").glob("*/done")}
        assert len(after - before) == 2 * (2 + 2)  # set-hard (= set-any) and set-plain: two searched, two tested

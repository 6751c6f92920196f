"""Coresets: each choice against a plain search, ties, where features come from, and the methods around them."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from distill import coresets
from distill.coresets import FEATURES, FeatureTraining, chosen_rows, herding, k_center, k_means, kmeans_rows, lloyd
from distill.engine import distill
from distill.methods import METHODS
from fyi_bench import rng
from fyi_bench.errors import UnknownNameError, UsageError

NAMES = ["herding", "kcenter", "kmeans"]
TRAINING = FeatureTraining(model=tiny.MODEL, steps=5, batch=6, lr=0.05, momentum=0.9, weight_decay=0.0)


def points(n: int, dimensions: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, dimensions, generator=rng.stream(seed, "points", n), dtype=torch.float64)


def plain_herding(features: torch.Tensor, count: int) -> list[int]:
    chosen: list[int] = []
    for _ in range(count):
        rest = [i for i in range(len(features)) if i not in chosen]
        gaps = [float((features[[*chosen, i]].mean(0) - features.mean(0)).norm()) for i in rest]
        chosen.append(rest[gaps.index(min(gaps))])
    return chosen


def plain_k_center(features: torch.Tensor, count: int) -> list[int]:
    to_mean = [float((f - features.mean(0)).norm()) for f in features]
    chosen = [to_mean.index(min(to_mean))]
    while len(chosen) < count:
        nearest = [min(float((f - features[c]).norm()) for c in chosen) for f in features]
        chosen.append(nearest.index(max(nearest)))
    return chosen


@pytest.mark.long
@settings(deadline=None)
@given(n=st.integers(3, 14), seed=st.integers(0, 50))
def test_herding_and_k_center_are_the_plain_searches(n, seed):
    features = points(n, seed=seed)
    for count in {1, n // 2 or 1, n}:
        assert herding(features, count).tolist() == plain_herding(features, count)
        assert k_center(features, count).tolist() == plain_k_center(features, count)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 12), seed=st.integers(0, 50))
def test_every_choice_is_of_different_images(n, seed):
    features = points(n, seed=seed)
    for count in range(1, n + 1):
        for chosen in (
            herding(features, count),
            k_center(features, count),
            k_means(features, count, rng.stream(seed, "k")),
        ):
            assert sorted(set(chosen.tolist())) == sorted(chosen.tolist())
            assert len(chosen) == count


def test_equal_images_are_taken_in_the_order_of_the_data():
    features = torch.zeros(5, 2, dtype=torch.float64)
    assert herding(features, 3).tolist() == [0, 1, 2]
    assert k_center(features, 3).tolist() == [0, 1, 2]
    assert sorted(k_means(features, 3, rng.stream(0, "k")).tolist()) == [0, 1, 2]


def test_k_means_finds_clusters_that_lie_apart():
    centres = torch.tensor([[0.0, 0, 0], [50, 0, 0], [0, 50, 0], [0, 0, 50]], dtype=torch.float64)
    features = (centres.repeat_interleave(6, dim=0) + points(24))[torch.randperm(24, generator=rng.stream(1, "mix"))]
    cluster = torch.cdist(features, centres).argmin(1)
    for seed in range(5):
        chosen = k_means(features, 4, rng.stream(seed, "k"))
        assert sorted(cluster[chosen].tolist()) == [0, 1, 2, 3]
        for index in chosen:
            members = features[cluster == cluster[index]]
            nearest = (members - members.mean(0)).norm(dim=1).argmin()
            assert torch.equal(features[index], members[nearest])


@settings(deadline=None)
@given(n=st.integers(4, 30), k=st.integers(1, 4), seed=st.integers(0, 30))
def test_lloyd_ends_where_centres_are_the_means_of_what_is_nearest(n, k, seed):
    features = points(n, seed=seed)
    centres = lloyd(features, features[:k].clone())
    owner = torch.cdist(features, centres).argmin(1)
    for c in range(k):
        torch.testing.assert_close(features[owner == c].mean(0), centres[c])
    moved = lloyd(features, centres)
    torch.testing.assert_close(moved, centres)


def test_a_centre_without_images_moves_to_the_farthest_one():
    features = torch.tensor([[0.0], [1], [2], [9]], dtype=torch.float64)
    centres = lloyd(features, torch.tensor([[1.0], [1000.0]], dtype=torch.float64))
    assert sorted(centres.flatten().tolist()) == [1.0, 9.0]


def test_first_centres_are_drawn_by_squared_distance():
    """k-means++: from a point at 0, one at distance 3 is nine times as likely as one at 1."""
    features = torch.tensor([[0.0], [1], [3]], dtype=torch.float64)
    seconds = []
    for seed in range(3000):
        first, second = coresets._first_centres(features, 2, rng.stream(seed, "k")).flatten().tolist()
        if first == 0:
            seconds.append(second)
    assert 0.0 not in seconds
    assert 900 < len(seconds) < 1100
    assert seconds.count(3.0) / len(seconds) == pytest.approx(0.9, abs=0.04)


@pytest.mark.parametrize("name", FEATURES)
def test_features_are_a_function_of_the_seed(name):
    images = tiny.problem().images_at(torch.arange(5))
    found = [FEATURES.get(name)(tiny.problem(seed=s), TRAINING)(images).detach() for s in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2]) == (name == "pixels")
    assert found[0].shape[0] == 5


def test_trained_features_separate_the_classes_better_than_random_ones():
    problem = tiny.problem(real=tiny.real_set(per_class=40))
    long = FeatureTraining(model=tiny.MODEL, steps=60, batch=20, lr=0.05, momentum=0.9, weight_decay=0.0)

    def spread(name: str) -> float:
        embedding = FEATURES.get(name)(problem, long)
        with torch.no_grad():
            features = [embedding(problem.images_at(rows)).flatten(1) for rows in problem.rows]
        means = torch.stack([f.mean(0) for f in features])
        within = sum((f - f.mean(0)).square().sum(1).mean() for f in features) / len(features)
        return float(torch.pdist(means).square().mean() / within)

    assert spread("trained") > 2 * spread("random")


def test_rows_belong_to_their_class_and_repeat_where_it_is_small():
    problem = tiny.problem(ipc=2, real=tiny.real_set(per_class=3), classes=(2, 0))
    rows = chosen_rows(problem, coresets.pixel_embedding(problem, TRAINING), herding, 5)
    assert rows.shape == (2, 5)
    assert [set(problem.real.labels[r].tolist()) for r in rows] == [{2}, {0}]
    assert rows[:, 3:].tolist() == rows[:, :2].tolist()
    assert all(len(set(r)) == 3 for r in rows.tolist())
    clusters = kmeans_rows(problem, coresets.pixel_embedding(problem, TRAINING), 3)
    assert [sorted(r) for r in clusters.tolist()] == [sorted(r.tolist()) for r in problem.rows]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("features", FEATURES)
def test_a_coreset_is_real_images_of_each_class(name, features):
    problem = tiny.problem(ipc=3)
    result = distill(problem, name, tiny.config(name, features=features), "fyi")
    assert result.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    pool = {tuple(x.flatten().tolist()): int(y) for x, y in zip(
        problem.images_at(torch.arange(len(problem.real))), problem.real.labels, strict=True)}  # fmt: skip
    found = [pool[tuple(x.flatten().tolist())] for x in result.images]
    assert found == result.labels.tolist()
    assert len({tuple(x.flatten().tolist()) for x in result.images}) == 9
    assert (result.provenance["iterations"], result.provenance["loss_first"]) == (0, None)


def test_coresets_differ_and_random_is_what_real_initialisation_starts_from():
    problem = tiny.problem(ipc=3)
    sets = {name: distill(problem, name, tiny.config(name), "none") for name in [*NAMES, "random"]}
    for one, other in itertools.combinations(sets.values(), 2):
        assert not torch.equal(one.images, other.images)
    start = METHODS.get("dm")(tiny.config("dm"), problem).initial_images()
    assert torch.equal(sets["random"].images, start)


def test_wrong_settings_are_refused():
    problem = tiny.problem()
    with pytest.raises(UsageError, match="init=real has no meaning"):
        distill(problem, "kcenter", tiny.config("kcenter", init="real"))
    with pytest.raises(UnknownNameError, match="Did you mean 'pixels'"):
        distill(problem, "herding", tiny.config("herding", features="pixel"))

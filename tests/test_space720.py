"""The 720 points: order, names, costs against real networks, and the stratified subsets."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from torch import nn

from fyi_bench.errors import UnknownNameError, UsageError
from fyi_bench.files import digest_of
from search_space import build, cost, space720
from search_space.architectures import convnet_config
from search_space.convnet import ConvNet
from search_space.space720 import LEVELS, SPACE, Point, subset


def spread(points, *factors: str) -> int:
    """Largest minus smallest count over all combinations of the levels of these factors."""
    counts = Counter(tuple(getattr(p, f) for f in factors) for p in points)
    combinations = itertools.product(*(LEVELS[f] for f in factors))
    values = [counts[combination] for combination in combinations]
    return max(values) - min(values)


def test_order_is_frozen():
    assert len(SPACE) == len(set(SPACE)) == 720
    assert digest_of([point.name for point in SPACE]) == "db12fb0e7cd4a4a1"
    assert (space720.name(0), space720.name(719)) == ("w32-d1-nonorm-sigmoid-nopool", "w256-d4-group-leakyrelu-avg")


def test_names_and_indices_are_inverse():
    assert [space720.index(space720.name(i)) for i in range(720)] == list(range(720))
    assert all(SPACE[point.index] is point for point in SPACE)
    assert space720.index("avg-relu-d3-instance-w128") == space720.index("w128-d3-instance-relu-avg")
    assert space720.point("w64-d1-nonorm-relu-max") == Point(64, 1, "none", "relu", "max")


def test_names_are_architectures():
    for point in subset(40, seed=1):
        assert convnet_config(f"convnet-{point.name}", 3, 32, 10) == point.config()
    assert build(f"convnet-{SPACE[7].name}", 3, 32, 10, torch.Generator()).config == SPACE[7].config()


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("w128-d3-instanse-relu-avg", UnknownNameError, "Did you mean 'instance'"),
        ("w100-d3-instance-relu-avg", UnknownNameError, "Unknown width of the search space 'w100'"),
        ("w128-d5-instance-relu-avg", UnknownNameError, "Known: d1, d2, d3, d4"),
        ("w128-d3-instance-swish-avg", UnknownNameError, "'swish'"),
        ("w128-d3-instance", UsageError, "does not say the act and pool"),
        ("w128-d3-instance-relu-avg-max", UsageError, "sets the pool to 'max', but it is already 'avg'"),
    ],
)
def test_unknown_points(name, error, text):
    with pytest.raises(error, match=text):
        space720.index(name)


@pytest.mark.parametrize("index", [-1, 720])
def test_indices_outside(index):
    with pytest.raises(UsageError, match="points 0 to 719"):
        space720.name(index)


def counted(point: Point, channels: int, size: int, classes: int) -> tuple[int, int]:
    """The plain twin: parameters and multiply-adds x 2 of a real network, summed by hooks on a real pass."""
    net = ConvNet(point.config(channels, size, classes))
    operations = []

    def hook(layer, inputs, output):
        per_output = layer.weight[0].numel()
        operations.append(2 * per_output * output.numel())

    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(hook)
    with torch.no_grad():
        net.eval()(torch.zeros(1, channels, size, size))
    return sum(p.numel() for p in net.parameters()), sum(operations)


@pytest.mark.long
@pytest.mark.parametrize(("channels", "size", "classes"), [(3, 32, 10), (1, 28, 10), (3, 32, 100), (3, 64, 200)])
def test_closed_formulas_count_real_networks(channels, size, classes):
    points = [p for p in subset(60, seed=size + classes) if p.width < 256]
    assert {p.depth for p in points} == {1, 2, 3, 4}
    for point in points[:: 1 if size < 64 else 4]:
        found = (space720.parameters(point, channels, size, classes), space720.flops(point, channels, size, classes))
        assert found == counted(point, channels, size, classes), point.name


def test_closed_formulas_agree_with_the_operation_counter():
    for point in subset(24, seed=2):
        assert cost(f"convnet-{point.name}", 3, 32, 10) == (space720.parameters(point), space720.flops(point))


def test_known_totals():
    parameters = sorted(map(space720.parameters, SPACE))
    assert (parameters[0], parameters[-1], sum(parameters)) == (24_522, 6_496_010, 616_531_680)
    assert parameters[360] == 394_122
    # forward and backward, without the gradient of the first convolution's input: the published 573 GFLOP
    first = sum(2 * 3 * 9 * point.width * 32**2 for point in SPACE)
    assert (3 * sum(map(space720.flops, SPACE)) - first) / 1e9 == pytest.approx(573, abs=0.5)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_every_subset_is_balanced_and_part_of_the_next(seed):
    smaller: set[Point] = set()
    for n in range(1, 721):
        points = subset(n, seed)
        assert len(points) == len(set(points)) == n
        assert smaller < set(points)
        assert [p.index for p in points] == sorted(p.index for p in points)
        assert all(spread(points, factor) <= 1 for factor in LEVELS), n
        smaller = set(points)
    assert subset(720, seed) == SPACE


@pytest.mark.parametrize("seed", range(8))
def test_pairs_of_factors_are_not_confounded(seed):
    worst = {pair: spread(subset(60, seed), *pair) for pair in itertools.combinations(LEVELS, 2)}
    assert max(worst.values()) <= 6
    assert worst["width", "norm"] == worst["width", "act"] == worst["norm", "act"] == 0
    assert worst["width", "depth"] <= 1


def test_subsets_are_frozen_and_seeded():
    assert digest_of([p.index for p in subset(60, seed=0)]) == "ec2ad712bd63b97c"
    assert subset(60, seed=0) == subset(60)
    assert len({subset(12, seed) for seed in range(16)}) == 16


def test_every_point_is_drawn_about_equally_often():
    counts = Counter(point for seed in range(30) for point in subset(360, seed))
    # binomial(30, 1/2): mean 15, standard deviation 2.74
    assert all(abs(counts[point] - 15) <= 5 * 2.74 for point in SPACE)


@pytest.mark.parametrize("n", [0, -3, 721])
def test_impossible_sizes(n):
    with pytest.raises(UsageError, match="1 to 720"):
        subset(n)

"""Class gradients in one pass against the plain loop over classes, first and second derivatives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import search_space
from distill.class_gradients import class_gradients
from distill.matching import GRADIENT_METRICS
from fyi_bench import rng
from fyi_bench.errors import UsageError

CLASSES, SIZE = 3, 8
NETWORKS = [
    "convnet-w8-d2",
    "convnet-w8-d2-batch",
    "convnet-w8-d2-layer-sigmoid",
    "convnet-w8-d2-group-max",
    "convnet-w8-d2-nonorm-nopool-leakyrelu",
    "mlp",
]


def build(name: str) -> torch.nn.Module:
    return search_space.build(name, 3, SIZE, CLASSES, rng.stream(0, name)).double().eval()


def images(per_class: int, key: str) -> torch.Tensor:
    return torch.randn(CLASSES, per_class, 3, SIZE, SIZE, generator=rng.stream(1, key), dtype=torch.float64)


def loop(network, x, create_graph=False):
    """What the papers' code does: one forward and one backward pass a class."""
    rows = []
    for label, batch in enumerate(x):
        loss = F.cross_entropy(network(batch), torch.full((len(batch),), label))
        rows.append(torch.autograd.grad(loss, list(network.parameters()), create_graph=create_graph))
    return [torch.stack(values) for values in zip(*rows, strict=True)]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("per_class", [1, 4])
def test_first_derivatives_equal_the_loop(name, per_class):
    network, x = build(name), images(per_class, "x")
    for ours, theirs in zip(class_gradients(network, x), loop(network, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("metric", ["ours", "mse", "cos"])
def test_matching_gradient_of_the_images_equals_the_loop(name, metric):
    network, real = build(name), images(5, "real")
    results = []
    for gradients in (class_gradients, loop):
        x = images(2, "synthetic").requires_grad_(True)
        target = [g.detach() for g in gradients(network, real)]
        loss = GRADIENT_METRICS.get(metric)(gradients(network, x, create_graph=True), target).sum()
        results.append((loss.detach(), *torch.autograd.grad(loss, x)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_matrices_only_leaves_out_vectors():
    network = build("convnet-w8-d2")
    everything = class_gradients(network, images(2, "x"))
    matrices = class_gradients(network, images(2, "x"), matrices_only=True)
    expected = [g for g, p in zip(everything, network.parameters(), strict=True) if p.ndim > 1]
    assert len(matrices) == len(expected) < len(everything)
    for ours, theirs in zip(matrices, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


def test_parameters_keep_what_they_were():
    network = build("convnet-w8-d2")
    before = [p.clone() for p in network.parameters()]
    x = images(2, "x").requires_grad_(True)
    sum(g.square().sum() for g in class_gradients(network, x, create_graph=True)).backward()
    assert x.grad is not None
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_batch_norm_in_train_mode_is_refused():
    with pytest.raises(UsageError, match="eval mode"):
        class_gradients(build("convnet-w8-d2-batch").train(), images(2, "x"))


def test_unknown_layers_are_refused():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Bilinear(1, 1, CLASSES))
    with pytest.raises(UsageError, match="Bilinear"):
        class_gradients(network, images(2, "x"))

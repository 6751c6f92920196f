"""KIP's finite network and how its notebook trains it, against plain twins."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import search_space
import tiny
from distill.image_set import ImageSet
from distill.kernels import centred
from downstream.protocol import protocol
from downstream.regression import targets
from downstream.stable_step import stable_step
from downstream.training import new_network, train
from fyi_bench import rng
from fyi_bench.errors import UsageError


def network(width: int = 8, size: int = 8, depth: int = 2, classes: int = 3):
    return search_space.build(f"kipnet-w{width}-d{depth}", 3, size, classes, rng.stream(1, "kip"))


def plain_answers(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    for block in range(3):
        weight, bias = state[f"blocks.{block}.conv.weight"], state[f"blocks.{block}.conv.bias"]
        x = F.relu(F.conv2d(x, weight, bias, padding=1))
        x = F.avg_pool2d(x, 2) if block else x
    return x.flatten(1) @ state["classifier.weight"].T + state["classifier.bias"]


def test_one_convolution_comes_before_the_blocks_that_halve():
    net, x = network().double(), torch.randn(4, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(net(x), plain_answers(net.state_dict(), x), rtol=1e-12, atol=1e-12)
    assert search_space.build("KIPNet", 3, 32, 10, rng.stream(0, "kip")).embed_dim == 1024 * 16


def test_weights_have_variance_2_over_fan_in_and_biases_a_tenth():
    net = network(width=256)
    for layer in (net.blocks[1].conv, net.blocks[2].conv):
        assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 / layer.weight[0].numel()), rel=0.02)
        assert abs(float(layer.weight.detach().mean())) < 1e-3
    biases = torch.cat([block.conv.bias for block in net.blocks])
    assert float(biases.detach().std()) == pytest.approx(0.1, rel=0.15)


def test_a_norm_cannot_be_chosen():
    with pytest.raises(UsageError, match="No norm can be chosen of kipnet"):
        search_space.architectures.find("kipnet-w8-batch")
    with pytest.raises(UsageError, match="No act can be chosen of freponet"):
        search_space.architectures.find("freponet-w8-sigmoid")


@pytest.mark.parametrize("count", [3, 23])
def test_the_largest_stable_step_is_that_of_the_whole_jacobian(count):
    net, images = network().double(), torch.randn(count, 3, 8, 8, dtype=torch.float64)
    state = dict(net.named_parameters())

    def answers(parameters):
        return plain_answers(parameters, images).sum(1) / math.sqrt(3)

    rows = torch.cat([part.flatten(1) for part in torch.func.jacrev(answers)(state).values()], dim=1)
    most = torch.linalg.eigvalsh(rows @ rows.T)[-1]
    assert stable_step(net, images, 3) == pytest.approx(2 * count * 3 / float(most), rel=1e-9)


def test_beyond_the_largest_stable_step_the_loss_of_a_linear_network_grows():
    """Of one linear layer and one class the kernel is exact: the step is the edge between falling and growing."""
    x, y = torch.randn(6, 3, 1, 1, dtype=torch.float64), torch.randn(6, 1, dtype=torch.float64)
    for factor, falls in ((0.98, True), (1.02, False)):
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 1)).double()
        size, losses = factor * stable_step(net, x, 1), []
        for _ in range(400):
            loss = F.mse_loss(net(x), y) / 2
            losses.append(float(loss))
            slopes = torch.autograd.grad(loss, net.parameters())
            with torch.no_grad():
                for weight, slope in zip(net.parameters(), slopes, strict=True):
                    weight -= size * slope
        assert (losses[-1] < losses[0]) == falls


def test_labels_of_any_kind_as_targets():
    real = tiny.real_set()
    assert torch.equal(targets(real), centred(real.labels, 3))
    soft = torch.tensor([[2.0, 0.0, 0.0]]).repeat(len(real), 1)
    of_logits = targets(replace(real, labels=soft, label_kind="logits"))
    torch.testing.assert_close(of_logits, soft.double().softmax(1) - 1 / 3)
    assert torch.equal(targets(replace(real, labels=soft, label_kind="targets")), soft.double())


@pytest.mark.parametrize("hard", [True, False])
def test_a_network_is_trained_as_the_notebook_does(hard):
    rules = replace(protocol("legacy-kip-network", "accuracy"), eval_model="kipnet-w8-d2", min_steps=6, batch=4)
    real = tiny.real_set()
    few: ImageSet = real.select(torch.arange(8)).to_space(tiny.SPACE)
    labels = centred(few.labels, 3) if hard else torch.randn(8, 3, generator=rng.stream(2, "targets")).double()
    train_set = few if hard else replace(few, labels=labels.float(), label_kind="targets")

    trained = train(new_network("kipnet-w8-d2", train_set, 5), train_set, rules, 5)

    net, x = new_network("kipnet-w8-d2", train_set, 5), few.images
    size, momenta = stable_step(net, x, 3), [torch.zeros_like(weight) for weight in net.parameters()]
    orders = [torch.randperm(8, generator=rng.stream(5, "shuffle", epoch)) for epoch in range(3)]
    for step, rows in enumerate(part for order in orders for part in order.split(4)):
        loss = (net(x[rows]) - labels[rows].float()).square().mean() / 2
        loss = loss + 1e-3 / 2 * sum(weight.square().sum() for weight in net.parameters())
        slopes = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for weight, slope, momentum in zip(net.parameters(), slopes, momenta, strict=True):
                momentum.mul_(0.9).add_(slope)
                weight -= size * (1 + math.cos(math.pi * step / 6)) / 2 * momentum
    for ours, theirs in zip(trained.network.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)

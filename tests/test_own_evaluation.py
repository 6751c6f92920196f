"""Evaluation as the makers of DD, KIP and FRePo do it: ordered steps, regression with a kernel, Adam with a warm-up."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import tiny
from distill.augment import Augmentation
from distill.augment_ops import OPERATIONS, AugmentStrength
from distill.engine import distill
from distill.image_set import ImageSet
from distill.kernels import kernel
from distill.methods import METHODS, config_of
from distill.recipes import recipe
from downstream.accuracy import train_and_test
from downstream.ordered import batches_of, initial_weights, take_steps
from downstream.protocol import Protocol, protocol
from downstream.schedules import OPTIMISERS, SCHEDULES, WARM
from downstream.training import Conditions, accuracy, new_network
from fyi_bench import rng
from fyi_bench.errors import DivergenceError, UsageError
from search_space.init import xavier_normal


def made_by_dd(**changes) -> ImageSet:
    given = {"model": tiny.MODEL, "iterations": 3, "batch_target": 12, "distill_epochs": 2, "distill_lr": 0.05,
             "net_init": "xavier", "real_augment": "none", "init": "real", **changes}  # fmt: skip
    chosen = recipe("dd", "cifar10", 1, "quick").with_overrides({k: str(v) for k, v in given.items()}).values
    return distill(tiny.problem(ipc=2), "dd", config_of("dd", chosen), provenance={"recipe": chosen, "seed": 0})


def rules(name: str, model: str = tiny.MODEL, **changes) -> Protocol:
    return replace(protocol(name, "accuracy"), eval_model=model, **changes)


@pytest.fixture(scope="module")
def ordered() -> ImageSet:
    return made_by_dd()


def test_a_network_takes_the_steps_of_the_set_in_their_order(ordered):
    test_set = tiny.real_set()
    result, *_ = train_and_test(ordered, test_set, rules("legacy-dd"), [5], Conditions(space=tiny.SPACE))
    plain = xavier_normal(new_network(tiny.MODEL, ordered, 5), rng.stream(5, "initial weights"))
    images, parameters = ordered.images.float(), list(plain.parameters())
    assert len(ordered.lr) == 4
    for step, size in enumerate(ordered.lr):
        rows = [2 * label + step % 2 for label in range(tiny.CLASSES)]  # the first image of each class, then the second
        loss = F.cross_entropy(plain(images[rows]), torch.arange(tiny.CLASSES))
        slopes = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, slope in zip(parameters, slopes, strict=True):
                parameter -= size * slope
    mine = new_network(tiny.MODEL, ordered, 5)
    initial_weights([mine], ordered, rules("legacy-dd"), [5])
    take_steps(mine, images, ordered.labels, ordered)
    for own, expected in zip(mine.parameters(), parameters, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-6)
    assert result.accuracy == accuracy(plain, test_set, Conditions(space=tiny.SPACE))


def test_mirrored_steps_show_each_image_and_its_mirror(ordered):
    whole, by_hand = (new_network(tiny.MODEL, ordered, 1) for _ in range(2))
    images = ordered.images.float()
    take_steps(whole, images, ordered.labels, ordered, mirror=True)
    for index, size in zip(batches_of(ordered), ordered.lr, strict=True):
        both = torch.cat([images[index], images[index].flip(-1)])
        F.cross_entropy(by_hand(both), ordered.labels[index].repeat(2)).backward()
        for parameter in by_hand.parameters():
            parameter.data -= size * parameter.grad
            parameter.grad = None
    for own, expected in zip(whole.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-6)


def test_a_set_made_for_one_network_is_tested_on_that_network():
    found = made_by_dd(fixed_init="true")
    network = new_network(tiny.MODEL, found, 9)
    initial_weights([network], found, rules("legacy-dd"), [9])
    chosen = {key: found.provenance["recipe"][key] for key in METHODS.get("dd").Config.__dataclass_fields__}
    method = METHODS.get("dd")(config_of("dd", chosen), tiny.problem(ipc=2, seed=found.provenance["seed"]))
    start = method._start(None, 0)
    assert torch.equal(torch.cat([p.detach().flatten() for p in network.parameters()]), start.flatten())


def test_sets_without_ordered_steps_and_steps_that_diverge_are_said(ordered):
    network = new_network(tiny.MODEL, ordered, 0)
    with pytest.raises(UsageError, match="no ordered steps"):
        batches_of(replace(ordered, lr=0.01))
    with pytest.raises(DivergenceError, match="diverged"):
        take_steps(network, ordered.images.float(), ordered.labels, replace(ordered, lr=(1e30, 1e30, 1e30, 1e30)))


@pytest.mark.parametrize("kind", ["hard", "targets"])
def test_regression_with_the_kernel_that_is_named(kind):
    train_set, test_set = tiny.real_set(), tiny.real_set(per_class=5)
    train_set = replace(train_set, images=tiny.SPACE.encode(train_set.images / 255), space=tiny.SPACE)
    targets = F.one_hot(train_set.labels).double() - 1 / tiny.CLASSES
    if kind == "targets":
        targets = targets * torch.tensor([1.0, 3.0, 0.2])
        train_set = replace(train_set, labels=targets.float(), label_kind="targets")
    found, *_ = train_and_test(train_set, test_set, rules("legacy-kip", "kernel:fc2"), [0], Conditions())
    support = train_set.images.double()
    own = kernel("fc2", support)
    ridge = 1e-6 * own.diagonal().mean() * torch.eye(len(own), dtype=torch.float64)
    seen = tiny.SPACE.encode(test_set.images / 255)
    answers = kernel("fc2", seen, support) @ torch.linalg.inv(own + ridge) @ targets
    assert found.accuracy == float((answers.argmax(1) == test_set.labels).double().mean())
    assert found.accuracy > 0.8


def test_adam_goes_up_for_500_steps_and_then_down_to_a_hundredth():
    p = replace(rules("legacy-frepo"), min_steps=1500, batch=4)
    network = torch.nn.Linear(2, 2)
    step = SCHEDULES["warm-cosine"](network, p, 0.0003, 8)  # two steps an epoch, 750 epochs
    assert p.epochs_for(8) == 750
    found = [step(number // 2, number % 2).param_groups[0]["lr"] / 0.0003 for number in range(1500)]
    expected = [
        number / WARM if number < WARM else 0.01 + 0.99 * (1 + math.cos(math.pi * (number - WARM) / 1000)) / 2
        for number in range(1500)
    ]
    assert found == pytest.approx(expected, abs=1e-6)
    one, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    other.load_state_dict(one.state_dict())
    for network, optimiser in (
        (one, OPTIMISERS["adam"](one.parameters(), p, 0.01)),
        (other, torch.optim.Adam(other.parameters(), lr=0.01)),
    ):
        for _ in range(3):
            network(torch.ones(1, 3)).square().sum().backward()
            optimiser.step()
    torch.testing.assert_close(one.weight, other.weight)


def test_strengths_of_frepos_augmentation():
    strength, x = AugmentStrength(), torch.rand(2, 3, 16, 16)
    u = torch.tensor([[0.0, 0.25, 1.0], [1.0, 0.5, 0.0]])

    def applied(name: str, values: torch.Tensor) -> torch.Tensor:
        operation = OPERATIONS.get(name)
        drawn = values if operation.finish is None else operation.finish(values, (16, 16), strength)
        return operation.apply(x, drawn, strength)

    shift, saturation, contrast = 0.5 * (u[:, 0] - 0.5), (0.5 * (u[:, 1] - 0.5)).exp(), (0.5 * (u[:, 2] - 0.5)).exp()
    expected = x + shift.view(-1, 1, 1, 1)
    grey = expected.mean(1, keepdim=True)
    expected = (expected - grey) * saturation.view(-1, 1, 1, 1) + grey
    mean = expected.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(applied("frepo-color", u), (expected - mean) * contrast.view(-1, 1, 1, 1) + mean)
    assert (
        OPERATIONS.get("frepo-cutout").finish(torch.ones(1, 3), (28, 28), strength)[0, 0] == 27
    )  # an odd box: 28 places
    holes = applied("frepo-cutout", torch.full((2, 3), 0.5)) == 0
    assert holes.all(1).sum((1, 2)).tolist() == [16, 16]  # a quarter of the side, each way
    small = torch.full_like(x, 1.0)
    zoomed = OPERATIONS.get("frepo-crop").apply(small, torch.tensor([[1.0], [0.0]]), strength)
    assert zoomed[0, 0, 0, 0] == 0  # shrunk to 1 / 1.25, nothing around it
    assert zoomed[1].min() > 0.99  # enlarged by 1 / 0.8
    augment = Augmentation("flip_color_crop_rotate_translate_cutout", "frepo")
    assert augment.stages == (("flip", "frepo-color", "frepo-crop", "rotate", "crop", "frepo-cutout"),)


def test_the_number_of_steps_is_that_of_the_images():
    counts = {
        (10, 1): 1000, (10, 10): 2000, (10, 50): 5000, (100, 1): 2000, (100, 10): 10000, (100, 50): 40000,
        (200, 1): 20000, (200, 10): 40000, (10, 20): 20000, (10, 40): 5000, (100, 5): 5000, (10, 100): 10000,
        (200, 5): 10000, (100, 20): 40000, (10, 3): 1000,
    }  # fmt: skip
    for (classes, ipc), steps in counts.items():
        found = protocol("legacy-frepo", "accuracy", "frepo", facts={"size": 32, "classes": classes, "ipc": ipc})
        assert (found.min_steps, found.eval_model, found.optimiser) == (steps, "freponet", "adam")

"""The built-in shapes: the same on every machine, balanced, mirror-symmetric in distribution, and not linear."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fyi_bench.data import load_dataset, statistics, verify
from fyi_bench.data.scenes import BODIES, ENDS, SIDE, Draws, render
from fyi_bench.data.sets.shapes import CLASSES, PER_CLASS, STATISTICS, draw_shapes
from fyi_bench.rng import numpy_stream, stream

FROZEN = {"shapes10": "88f34801515e2d80", "shapes100": "bb2eab9cf6647270"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FYI_BENCH_CACHE", str(tmp_path / "cache"))


@pytest.mark.long
@pytest.mark.parametrize("name", FROZEN)
def test_frozen_pixels_balance_and_constants(name):
    """A change of these digests changes every result on the shapes: raise VERSION and say so."""
    data, classes = load_dataset(name), CLASSES[name]
    assert data.digest == FROZEN[name]
    assert (data.where, data.note) == ("built in", "")
    assert data.train.ipc == PER_CLASS[name]["train"]
    assert data.test.ipc == PER_CLASS[name]["test"]
    assert len(set(data.class_names)) == len(classes) == data.num_classes
    assert data.train.labels[: len(classes)].tolist() == list(range(len(classes)))
    report = verify(name)  # from the cache this time
    assert report.ok
    assert report.digest == FROZEN[name]
    assert report.shared == 0
    assert np.round(report.pixel_mean, 4).tolist() == list(STATISTICS[name][0]) == list(statistics(name)[0])
    assert np.round(report.pixel_std, 4).tolist() == list(STATISTICS[name][1])


def test_half_of_the_pictures_are_mirrored_in_every_class():
    drawn = draw_shapes("shapes10", "train")
    for label in range(10):
        share = drawn.mirrored[drawn.labels == label].float().mean().item()
        assert abs(share - 0.5) < 4 * 0.5 / 500**0.5
    assert abs(drawn.mirrored.float().mean().item() - 0.5) < 4 * 0.5 / 5000**0.5


def test_the_whole_scene_is_mirrored():
    """The same draws with the coin on the other side give exactly the mirrored picture."""

    class Turned(Draws):
        def coin(self, probability=0.5):
            tossed = super().coin(probability)
            return ~tossed if probability == 0.5 else tossed

    shape = CLASSES["shapes100"][11]
    plain, mirrored = render(shape, Draws(numpy_stream(3, "scene"), 40))
    turned, turned_mirrored = render(shape, Turned(numpy_stream(3, "scene"), 40))
    assert np.array_equal(turned, plain[..., ::-1])
    assert np.array_equal(turned_mirrored, ~mirrored)


def test_a_picture_is_a_function_of_its_class_and_row_only():
    few = draw_shapes("shapes10", "train", per_class=3)
    assert few.images.shape == (30, 3, SIDE, SIDE)
    assert torch.equal(few.images, draw_shapes("shapes10", "train", per_class=3).images)
    assert not torch.equal(few.images, draw_shapes("shapes10", "test", per_class=3).images)


def test_classes_differ_and_ends_differ():
    for name, classes in CLASSES.items():
        assert len({(c.body, frozenset(c.ends), c.striped) for c in classes}) == len(classes), name
        assert all(c.ends[0] != c.ends[1] for c in classes)
    bodies = [c.body for c in CLASSES["shapes10"]]
    assert all(bodies.count(body) == 2 for body in BODIES)
    striped = {c.body: c.striped for c in CLASSES["shapes10"]}
    assert all(striped[c.body] == c.striped for c in CLASSES["shapes10"])  # so only the ends tell the two apart


def test_bodies_are_symmetric_and_ends_are_not_all():
    axis = np.linspace(-9, 9, 37, dtype=np.float32)
    x, y = axis[None, None, :], axis[None, :, None]
    for name, body in BODIES.items():
        assert np.allclose(body(x, y), body(-x, y), atol=1e-5), name
    sided = {name for name, end in ENDS.items() if not np.allclose(end(x, y), end(-x, y), atol=1e-5)}
    assert sided == {"arrow", "fork"}


def test_draws():
    draws = Draws(numpy_stream(0, "draws"), 4000)
    uniform = draws.uniform(-2, 3, (5,))
    assert uniform.dtype == np.float32
    assert uniform.min() >= -2
    assert uniform.max() < 3
    assert abs(float(uniform.mean()) - 0.5) < 0.05
    bell = draws.bell((10,)).astype(np.float64)
    assert abs(bell.mean()) < 0.03
    assert abs(bell.std() - 1) < 0.02
    assert np.abs(bell).max() <= 3.46
    assert abs(draws.coin(0.2).mean() - 0.2) < 0.03


def convnet(classes: int, width: int) -> nn.Module:
    """Three blocks of 3x3 convolution, instance norm, ReLU and 2x2 average pooling, and a linear head."""
    layers: list[nn.Module] = []
    for inputs in (3, width, width):
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.GroupNorm(width, width), nn.ReLU(), nn.AvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 16, classes))


def accuracy(net: nn.Module, name: str, per_class: int, epochs: int, rate: float) -> float:
    """Test accuracy after SGD on the first `per_class` train images of each class (one-cycle step size)."""
    generator = stream(0, "shapes test")
    for parameter in net.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
    train, test = draw_shapes(name, "train"), draw_shapes(name, "test")
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in STATISTICS[name])
    count = per_class * len(CLASSES[name])
    x, y = (train.images[:count] / 255 - mean) / std, train.labels[:count]
    steps = epochs * -(-count // 64)
    optimizer = torch.optim.SGD(net.parameters(), rate, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(epochs):
        for index in torch.randperm(count, generator=generator).split(64):
            loss = functional.cross_entropy(net(x[index]), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        predicted = torch.cat([net((part / 255 - mean) / std).argmax(1) for part in test.images.split(250)])
    return float((predicted == test.labels).float().mean())


def linear(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, classes))


@pytest.mark.long
def test_a_linear_layer_fails_where_a_small_convnet_learns():
    linear_accuracy = accuracy(linear(10), "shapes10", 200, 10, 0.003)
    convnet_accuracy = accuracy(convnet(10, 16), "shapes10", 200, 4, 0.05)
    assert linear_accuracy < 0.5
    assert convnet_accuracy > linear_accuracy + 0.2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "epochs", "floor", "ceiling"), [("shapes10", 3, 0.95, 0.5), ("shapes100", 3, 0.92, 0.15)]
)
def test_full_data_accuracy(name, epochs, floor, ceiling, capsys):
    classes = len(CLASSES[name])
    full = accuracy(convnet(classes, 128), name, PER_CLASS[name]["train"], epochs, 0.05)
    flat = accuracy(linear(classes), name, PER_CLASS[name]["train"], 20, 0.003)
    with capsys.disabled():
        print(f"\n{name}: ConvNet {full:.3f}, linear {flat:.3f}")
    assert full > floor
    assert flat < ceiling

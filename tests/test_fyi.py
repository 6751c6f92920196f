"""The FYI operator, its ablations, and the unequalness score."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from distill import fyi
from distill.augment import Augmentation, Draw
from distill.fyi import FLIPS, class_unequalness, mirror_distance, set_unequalness
from distill.image_set import ImageSet
from distill.matching import gradient_distance
from distill.spaces import NormalizedSpace, PixelSpace
from fyi_bench import rng
from fyi_bench.errors import UnknownNameError, UsageError
from search_space.convnet import ConvNet, ConvNetConfig
from search_space.init import initialise

shapes = st.tuples(st.integers(1, 4), st.sampled_from([1, 3]), st.integers(1, 7), st.integers(1, 7))


def unequalness(*given, **how) -> torch.Tensor:
    return class_unequalness(*given, **how).mean()


def images(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=rng.stream(0, "images", *shape), dtype=torch.float64).to(dtype)


def network() -> ConvNet:
    config = ConvNetConfig(channels=3, size=8, classes=3, width=8, depth=2)
    return initialise(ConvNet(config), rng.stream(1)).double()


# the operator -------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shapes)
def test_fyi_doubles_originals_first(shape: tuple[int, ...]) -> None:
    x, y = images(*shape), torch.arange(shape[0])
    before = x.clone()
    expanded, labels = FLIPS.get("fyi").expand(x, y)
    assert expanded.shape == (2 * shape[0], *shape[1:])
    assert torch.equal(expanded[: shape[0]], x)
    plain = torch.stack([x[..., shape[3] - 1 - j] for j in range(shape[3])], dim=-1)
    assert torch.equal(expanded[shape[0] :], plain)
    assert torch.equal(labels, torch.cat([y, y]))
    assert torch.equal(fyi.mirror(fyi.mirror(x)), x)
    assert torch.equal(x, before)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(shapes)
def test_gradient_is_first_half_plus_mirrored_second(shape: tuple[int, ...]) -> None:
    x = images(*shape).requires_grad_()
    upstream = images(2 * shape[0], *shape[1:])
    FLIPS.get("fyi").expand(x).backward(upstream)
    assert torch.equal(x.grad, upstream[: shape[0]] + upstream[shape[0] :].flip(-1))


@pytest.mark.parametrize("name", FLIPS.names())
def test_classes_are_expanded_one_by_one(name: str) -> None:
    flip, x = FLIPS.get(name), images(4, 3, 3, 8, 9)
    expanded = flip.expand_classes(x, generator=rng.stream(2))
    assert expanded.shape == (4, 3 * flip.multiplier, 3, 8, 9)
    if flip.multiplier == 2:
        assert torch.equal(expanded[:, :3], x)
        for c in range(4):
            torch.testing.assert_close(expanded[c], flip.expand(x[c]), rtol=0, atol=0)


@pytest.mark.parametrize("name", FLIPS.names())
def test_every_flip_keeps_its_contract(name: str) -> None:
    flip = FLIPS.get(name)
    assert flip.name == name
    x, soft = images(5, 3, 8, 8, dtype=torch.float32).requires_grad_(), images(5, 4)
    expanded, labels = flip.expand(x, soft, generator=rng.stream(3))
    assert expanded.dtype == x.dtype
    assert expanded.shape == (5 * flip.multiplier, 3, 8, 8)
    assert torch.equal(labels, soft.repeat(flip.multiplier, 1))
    assert torch.equal(flip.expand(x, generator=rng.stream(3)), expanded)
    expanded.sum().backward()
    assert bool((x.grad != 0).any())


def test_none_changes_nothing() -> None:
    x = images(3, 3, 4, 4)
    assert FLIPS.get("none").expand(x) is x


def test_random_mirrors_half_the_images_independently() -> None:
    flip, x = FLIPS.get("random"), images(400, 1, 2, 3)
    out = flip.expand(x, generator=rng.stream(4))
    mirrored = (out == x.flip(-1)).flatten(1).all(1)
    kept = (out == x).flatten(1).all(1)
    assert bool((mirrored ^ kept).all())
    assert 150 < int(mirrored.sum()) < 250
    again = flip.expand(x, generator=rng.stream(5))
    assert not torch.equal(out, again)
    with pytest.raises(UsageError, match="Give it a generator"):
        flip.expand(x)


def test_vertical_is_an_exact_exchange_of_top_and_bottom() -> None:
    x = images(2, 3, 5, 4)
    assert torch.equal(FLIPS.get("vertical").expand(x)[2:], x.flip(-2))


def test_rotation_is_15_degrees_counter_clockwise() -> None:
    """The centre of mass of a spot on the right moves up by 15 degrees."""
    rows, columns = torch.meshgrid(*(torch.arange(41.0, dtype=torch.float64) - 20,) * 2, indexing="ij")
    spot = (-((rows**2 + (columns - 10) ** 2) / 8)).exp()[None, None]
    turned = FLIPS.get("rotate").expand(spot)[1, 0]
    right, up = (turned * columns).sum() / turned.sum(), -(turned * rows).sum() / turned.sum()
    assert math.degrees(math.atan2(float(up), float(right))) == pytest.approx(15, abs=0.05)
    assert math.hypot(float(up), float(right)) == pytest.approx(10, abs=0.05)


def test_scale_shrinks_by_a_factor_of_1_2() -> None:
    """The picture takes 1 / 1.2 of each side, and the border is 0."""
    out = FLIPS.get("scale").expand(torch.ones(1, 1, 60, 60, dtype=torch.float64))[1, 0]
    assert out[0].abs().max() == 0
    assert out[:, 0].abs().max() == 0
    assert math.sqrt(float(out.sum())) == pytest.approx(60 / 1.2, abs=1)


def test_unknown_flip_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'vertical'"):
        FLIPS.get("vertikal")


def test_fingerprint() -> None:
    """Numbers of version 1: when they change on purpose, raise `NUMERICS` in distill/fyi.py."""
    assert fyi.NUMERICS == 1
    x = torch.linspace(-2, 2, 3 * 64, dtype=torch.float64).view(1, 3, 8, 8).sin()
    weight = torch.linspace(0, 1, x.numel(), dtype=torch.float64).view_as(x)
    found = {name: float((FLIPS.get(name).expand(x, generator=rng.stream(7))[-1:] * weight).sum()) for name in FLIPS}
    assert found == pytest.approx(
        {
            "fyi": 41.9356637734,
            "none": 42.0352034296,
            "random": 41.9356637734,
            "rotate": 37.6959062699,
            "scale": 28.2588988621,
            "vertical": 35.4653926883,
        },
        rel=1e-9,
    )


# the score ----------------------------------------------------------------------------------------------------------


def labelled() -> tuple[torch.Tensor, torch.Tensor]:
    return images(9, 3, 8, 8), torch.tensor([2, 0, 1, 1, 0, 2, 2, 0, 2])


@torch.no_grad()
def plain_dm(x: torch.Tensor, net: ConvNet, transform: fyi.Transform) -> float:
    return float((net.embed(x).mean(0) - net.embed(transform(x)).mean(0)).square().sum())


def plain_dc(x: torch.Tensor, label: int, net: ConvNet, transform: fyi.Transform) -> float:
    target = torch.full((len(x),), label)
    pair = [torch.autograd.grad(F.cross_entropy(net(z), target), list(net.parameters())) for z in (x, transform(x))]
    return float(gradient_distance(*pair))


@pytest.mark.parametrize("flip", ["fyi", "vertical", "rotate", "scale"])
def test_scores_are_the_loop_over_classes(flip: str) -> None:
    (x, y), net, transform = labelled(), network(), FLIPS.get(flip).transform
    dm = class_unequalness(x, y, net, "dm", flip)
    dc = class_unequalness(x, y, net, "dc", flip)
    assert dm.tolist() == pytest.approx([plain_dm(x[y == c], net, transform) for c in range(3)], rel=1e-10)
    assert dc.tolist() == pytest.approx([plain_dc(x[y == c], c, net, transform) for c in range(3)], rel=1e-10)
    assert float(unequalness(x, y, net, "dc", flip)) == pytest.approx(float(dc.mean()))


@pytest.mark.parametrize("distance", ["dm", "dc"])
def test_large_sets_go_in_pieces(distance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (x, y), net = labelled(), network()
    whole = class_unequalness(x, y, net, distance)
    monkeypatch.setattr(fyi, "_CHUNK", 2)
    torch.testing.assert_close(class_unequalness(x, y, net, distance), whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("distance", ["dm", "dc"])
def test_score_of_a_mirror_invariant_set_is_zero(distance: str) -> None:
    (x, y), net = labelled(), network()
    expanded, labels = FLIPS.get("fyi").expand(x, y)
    assert float(unequalness(x, y, net, distance)) > 1e-3
    # the 1e-6 beside the norms keeps the cosine of equal gradients just below 1
    assert float(unequalness(expanded, labels, net, distance)) < 1e-3 * float(unequalness(x, y, net, distance))
    assert float(unequalness(fyi.mirror(x), y, net, "dm")) == pytest.approx(float(unequalness(x, y, net, "dm")))


def test_network_is_left_as_it_was() -> None:
    (x, y), net = labelled(), network().requires_grad_(False)
    unequalness(x, y, net, "dc")
    assert not any(p.requires_grad or p.grad is not None for p in net.parameters())


def test_scores_under_augmentation_are_averaged_over_draws() -> None:
    (x, y), net, augmentation = labelled(), network(), Augmentation()
    draws = [augmentation.draw_classes(rng.stream(5, k), 3, 8) for k in range(2)]
    shared = Draw.from_values(("crop", (1, -1)))
    scores = class_unequalness(x, y, net, "dc", augmentation=augmentation, draws=[*draws, shared])
    for c in range(3):
        pair = x[y == c], fyi.mirror(x[y == c])
        expected = 0.0
        for draw in [*(d.select([c]) for d in draws), shared]:
            a, b = (augmentation.apply(z, draw) for z in pair)
            grads = [
                torch.autograd.grad(F.cross_entropy(net(z), torch.full((len(z),), c)), list(net.parameters()))
                for z in (a, b)
            ]
            expected += float(gradient_distance(*grads)) / 3
        assert float(scores[c]) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(UsageError, match="needs both an augmentation and draws"):
        unequalness(x, y, net, "dc", augmentation=augmentation)


def test_students_of_images_and_of_copies() -> None:
    """Against plain steps in float64; nothing for a set that is its own mirror image, and one number of all classes."""
    (x, y), net = labelled(), network()

    def student(images: torch.Tensor) -> torch.Tensor:
        twin = copy.deepcopy(net)
        optimiser = torch.optim.SGD(twin.parameters(), lr=fyi.STUDENT_LR)
        for _ in range(fyi.STUDENT_STEPS):
            optimiser.zero_grad()
            F.cross_entropy(twin(images), y).backward()
            optimiser.step()
        return torch.cat([p.detach().flatten() for p in twin.parameters()])

    start = torch.cat([p.detach().flatten() for p in net.parameters()])
    own, mirrored = student(x), student(x.flip(-1))
    expected = (mirrored - own).square().sum() / (start - own).square().sum()
    scores = class_unequalness(x, y, net, "mtt")
    assert len(scores) == len(y.unique())
    torch.testing.assert_close(scores, expected.expand(len(scores)))
    assert float(unequalness((x + x.flip(-1)) / 2, y, net, "mtt")) < 1e-20


def test_a_sets_score_by_each_methods_distance() -> None:
    scores = {name: set_unequalness(small_set(), 3, 2, 8, distance=name)["mean"] for name in fyi.UNEQUALNESS}
    assert len(set(scores.values())) == 4
    images, labels, expected = small_set().pixels(), small_set().hard_labels, []
    for number, net in enumerate(fyi._fresh_networks(small_set(), 3, 2, 8)):
        for k in range(fyi.DRAWS):
            draw = Augmentation().draw(rng.stream(3, "unequalness augment", number, k), 1, 8, siamese=True)
            of_draw = class_unequalness(images, labels, net, "dc", "fyi", Augmentation(), [draw])
            expected.append(float(of_draw.double().mean()))
    assert scores["dsa"] == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    with pytest.raises(UsageError, match="needs both an augmentation and draws"):
        unequalness(*labelled(), network(), "dsa")


@pytest.mark.parametrize("flip", ["none", "random"])
def test_no_score_without_a_fixed_transformation(flip: str) -> None:
    with pytest.raises(UsageError, match="no fixed transformation"):
        unequalness(*labelled(), network(), "dm", flip)


@torch.no_grad()
def test_mirror_distance_is_the_mean_over_images() -> None:
    (x, _), net = labelled(), network()
    expected = sum(float((net.embed(z[None]) - net.embed(z[None].flip(-1))).norm()) for z in x) / len(x)
    assert float(mirror_distance(x, net)) == pytest.approx(expected, rel=1e-10)


def small_set(factor: int = 1) -> ImageSet:
    pixels = (torch.rand(12, 3, 8, 8, generator=rng.stream(6)) * 255).to(torch.uint8)
    labels = torch.tensor([1, 4, 6]).repeat(4)
    return ImageSet(pixels, labels, PixelSpace(), 8, factor=factor)


def test_score_of_a_set() -> None:
    result = set_unequalness(small_set(), seed=3, networks=3, width=8)
    assert set_unequalness(small_set(), seed=3, networks=3, width=8) == result
    assert set(result["per_class"]) == {1, 4, 6}
    assert sum(result["per_class"].values()) / 3 == pytest.approx(result["mean"])
    assert result["std"] > 0
    assert set_unequalness(small_set(), seed=4, networks=3, width=8)["mean"] != result["mean"]
    assert set_unequalness(small_set(), seed=3, networks=1, width=8)["std"] == 0
    space = NormalizedSpace((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert set_unequalness(small_set(), seed=3, networks=3, width=8, space=space)["mean"] != result["mean"]
    symmetric = small_set().pixels()
    symmetric = ImageSet((symmetric + symmetric.flip(-1)) / 2, small_set().labels, PixelSpace(), 8)
    assert set_unequalness(symmetric, seed=3, networks=3, width=8)["mean"] < 1e-6 * result["mean"]


def test_set_of_tiles_is_refused() -> None:
    with pytest.raises(UsageError, match="holds 2² tiles"):
        set_unequalness(small_set(factor=2), seed=0)

"""Draws and dispatch of the augmentation: all classes in one call is the plain loop over classes."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from scipy.stats import chisquare

from distill import augment
from distill.augment import STRATEGY, Augmentation, Draw
from distill.augment_ops import OPERATIONS
from distill.fyi import FLIPS
from fyi_bench import rng
from fyi_bench.errors import UnknownNameError, UsageError

DISPATCHERS = ["dsa", "dsa-flip-first", "idc", "dc"]
SIZE = (8, 8)
CLASSES, PER_CLASS = 30, 3


def images(n: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(n, 3, *SIZE, generator=rng.stream(0, "images", n), dtype=torch.float64).to(dtype)


def augmentation_of(dispatcher: str) -> Augmentation:
    """With every operation the dispatcher has."""
    return Augmentation("crop_scale_rotate" if dispatcher == "dc" else STRATEGY, dispatcher=dispatcher)


def class_by_class(augmentation: Augmentation, x: torch.Tensor, draw: Draw) -> torch.Tensor:
    """The plain twin: one class after another, one stage after another, one image after another."""
    n, out = len(x) // draw.groups, []
    for group in range(draw.groups):
        for k in range(n):
            image = x[group * n + k][None]
            for stage, names in enumerate(draw.names):
                row = draw.values[stage, group, 0 if draw.siamese else k][None]
                image = OPERATIONS.get(names[group]).apply(image, row, augmentation.strength)
            out.append(image)
    return torch.cat(out)


@pytest.mark.parametrize("per_class", [PER_CLASS, 10])  # images brought together by operation; long runs
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("siamese", [True, False])
@pytest.mark.parametrize("dispatcher", DISPATCHERS)
def test_all_classes_at_once_is_the_loop(dispatcher: str, siamese: bool, dtype: torch.dtype, per_class: int) -> None:
    augmentation = augmentation_of(dispatcher)
    draw = augmentation.draw(rng.stream(1), per_class, SIZE, siamese, CLASSES)
    assert {n for names in draw.names for n in names} == {n for stage in augmentation.stages for n in stage}
    x = images(CLASSES * per_class, dtype)
    before = x.clone()
    out = augmentation.apply(x, draw)
    assert out.dtype == dtype
    assert torch.equal(out, class_by_class(augmentation, x, draw))
    assert torch.equal(x, before)


@pytest.mark.parametrize("dispatcher", DISPATCHERS)
def test_gradient_is_that_of_the_loop(dispatcher: str) -> None:
    augmentation = augmentation_of(dispatcher)
    draw = augmentation.draw_classes(rng.stream(2), CLASSES, SIZE)
    x = images(CLASSES * PER_CLASS, torch.float64).requires_grad_()
    weight = images(CLASSES * PER_CLASS, torch.float64).cos()
    fast, plain = (
        torch.autograd.grad((out.square() * weight).sum(), x)[0]
        for out in (augmentation.apply(x, draw), class_by_class(augmentation, x, draw))
    )
    assert float(fast.abs().max()) > 0
    torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)


def test_differentiable_twice() -> None:
    augmentation = Augmentation(dispatcher="idc")
    draw = augmentation.draw(rng.stream(3), 2, SIZE, siamese=False, groups=2)
    x = images(4, torch.float64).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: augmentation.apply(x, draw).sin(), x, fast_mode=True)


@pytest.mark.parametrize("siamese", [True, False])
@pytest.mark.parametrize("dispatcher", DISPATCHERS)
def test_form_without_the_host_is_the_same(dispatcher: str, siamese: bool) -> None:
    """The form that runs where the codes lie on a device, values and gradients (run here on the CPU)."""
    augmentation = augmentation_of(dispatcher)
    draw = augmentation.draw(rng.stream(4), PER_CLASS, SIZE, siamese, CLASSES)
    x = images(CLASSES * PER_CLASS, torch.float64).requires_grad_()
    out = x
    for names, codes, values in zip(draw.stages, draw.codes, draw.values, strict=True):
        out = augment._chosen_on_device(out, names, *augment._per_image(x, codes, values, None), augmentation.strength)
    expected = augmentation.apply(x, draw)
    assert torch.equal(out, expected)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (out, expected)]
    assert bool(torch.isfinite(gradients[0]).all())
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dispatcher", DISPATCHERS)
def test_classes_of_different_sizes(dispatcher: str) -> None:
    augmentation = augmentation_of(dispatcher)
    counts = [3, 0, 5, 1]
    draw = augmentation.draw_classes(rng.stream(5), len(counts), SIZE)
    x = images(sum(counts))
    parts = [augmentation.apply(part, draw.select([c])) for c, part in enumerate(x.split(counts)) if len(part)]
    assert torch.equal(augmentation.apply(x, draw, counts), torch.cat(parts))


def test_real_and_synthetic_images_share_a_draw() -> None:
    """The same draw serves any number of images per class, and slices of classes."""
    augmentation = Augmentation()
    draw = augmentation.draw_classes(rng.stream(6), CLASSES, SIZE)
    one = images(CLASSES)
    three = one.repeat_interleave(3, dim=0)
    expected = augmentation.apply(one, draw).repeat_interleave(3, dim=0)
    assert torch.equal(augmentation.apply(three, draw), expected)
    assert torch.equal(augmentation.apply(three, draw.repeat(3)), expected)
    assert torch.equal(augmentation.apply(three[12:24], draw.select(slice(4, 8))), expected[12:24])


def test_siamese_draw_does_not_depend_on_the_batch() -> None:
    augmentation = Augmentation(dispatcher="idc")
    small, large = (augmentation.draw(rng.stream(7), n, SIZE, siamese=True) for n in (1, 256))
    assert torch.equal(small.codes, large.codes)
    assert torch.equal(small.values, large.values)


def test_groups_are_consecutive_draws_and_generators_can_be_given_one_by_one() -> None:
    augmentation = Augmentation()
    generator = rng.stream(8)
    singles = [augmentation.draw(generator, 4, SIZE) for _ in range(3)]
    together = augmentation.draw(rng.stream(8), 4, SIZE, groups=3)
    assert torch.equal(together.values, torch.cat([d.values for d in singles], dim=1))
    keyed = augmentation.draw_classes([rng.stream(9, c) for c in range(5)], 5, SIZE)
    third = augmentation.draw(rng.stream(9, 3), 1, SIZE, siamese=True)
    assert torch.equal(keyed.select([3]).values, third.values)
    assert torch.equal(keyed.select([3]).codes, third.codes)
    with pytest.raises(ValueError, match="2 generators for 3 groups"):
        augmentation.draw([rng.stream(0), rng.stream(1)], 1, SIZE, groups=3)


def test_no_global_generator_is_touched() -> None:
    before = torch.get_rng_state()
    augmentation = Augmentation(dispatcher="idc")
    augmentation.apply(images(8), augmentation.draw(rng.stream(0), 8, SIZE))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("dispatcher", "strategy", "stages"),
    [
        ("dsa", STRATEGY, (("color", "crop", "cutout", "flip", "scale", "rotate"),)),
        ("dsa", "color_crop", (("color", "crop"),)),
        ("dsa-flip-first", STRATEGY, (("flip",), ("color", "crop", "cutout", "scale", "rotate"))),
        ("dsa-flip-first", "color_crop_cutout_scale_rotate", (("color", "crop", "cutout", "scale", "rotate"),)),
        ("dsa-flip-first", "flip", (("flip",),)),
        ("idc", STRATEGY, (("flip",), ("color",), ("crop", "scale", "rotate"), ("cutout",))),
        ("idc", "color_crop_cutout", (("color",), ("crop",), ("cutout",))),
        ("idc", "color_crop_flip_scale_rotate", (("flip",), ("color",), ("crop", "scale", "rotate"))),
        ("dc", "crop_scale_rotate", (("dc-crop", "dc-scale", "dc-rotate"),)),
    ],
)
def test_dispatchers(dispatcher: str, strategy: str, stages: augment.Stages) -> None:
    assert Augmentation(strategy, dispatcher).stages == stages


@pytest.mark.parametrize("dispatcher", DISPATCHERS)
@pytest.mark.parametrize("strategy", ["", "none", "None", None])
def test_identity(strategy: str | None, dispatcher: str) -> None:
    augmentation = Augmentation(strategy, dispatcher)
    x = images(6)
    draw = augmentation.draw(rng.stream(0), 2, SIZE, groups=3)
    assert augmentation.identity
    assert augmentation.apply(x, draw) is x
    assert not augmentation_of(dispatcher).identity


def test_dc_draws_an_operation_for_every_image() -> None:
    augmentation, x = Augmentation("crop_scale_rotate", "dc"), images(60)
    draw = augmentation.draw(rng.stream(13), 60, SIZE)
    assert set(Counter(draw.names[0])) == set(augmentation.stages[0])
    apart = [augmentation.apply(x[k : k + 1], draw.select([k])) for k in range(60)]
    assert torch.equal(augmentation.apply(x, draw), torch.cat(apart))
    ahead = augmentation.draw_ahead([rng.stream(12), rng.stream(13)], [60, 60], 8, torch.device("cpu"))
    assert torch.equal(ahead[1].values, draw.values)
    assert torch.equal(ahead[1].codes, draw.codes)
    with pytest.raises(UnknownNameError, match="dc-flip"):
        Augmentation("flip", "dc")


def test_operations_are_equally_likely() -> None:
    draw = Augmentation().draw_classes(rng.stream(10), 6000, SIZE)
    assert chisquare(list(Counter(draw.names[0]).values())).pvalue > 1e-3
    flips = Augmentation(dispatcher="dsa-flip-first").draw_classes(rng.stream(11), 6000, SIZE).values[0, :, 0, 0]
    assert chisquare([int((flips < 0.5).sum()), int((flips >= 0.5).sum())]).pvalue > 1e-3


def test_drawn_mirror_leaves_an_expanded_class_as_it_is() -> None:
    """A siamese mirror permutes S ∪ Flip(S): with FYI it changes real images only."""
    x = FLIPS.get("fyi").expand(images(3))
    out = Augmentation("flip").apply(x, Draw.from_values(("flip", [0.1])))
    assert torch.equal(out, torch.cat([x[3:], x[:3]]))


def test_names_are_checked() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown augmentation operation 'colour'\. Did you mean 'color'\?"):
        Augmentation("colour_crop")
    with pytest.raises(UnknownNameError, match=r"Unknown augmentation dispatcher 'dsa-flip'\. Did you mean"):
        Augmentation(dispatcher="dsa-flip")
    with pytest.raises(UsageError, match="lists 'crop' twice"):
        Augmentation("crop_color_crop")


def test_wrong_numbers_are_named() -> None:
    augmentation = Augmentation()
    with pytest.raises(UsageError, match="'crop' takes 2 numbers per draw"):
        Draw.from_values(("crop", [1, 2, 3]))
    with pytest.raises(UnknownNameError, match="Did you mean 'rotate'"):
        Draw.from_values(("rotat", [0.5]))
    with pytest.raises(UsageError, match="7 images for a draw of 3 groups"):
        augmentation.apply(images(7), augmentation.draw_classes(rng.stream(0), 3, SIZE))
    with pytest.raises(UsageError, match="8 images for a draw of 1 groups with 4 rows"):
        augmentation.apply(images(8), augmentation.draw(rng.stream(0), 4, SIZE))
    with pytest.raises(UsageError, match="do not fit 7 images"):
        augmentation.apply(images(7), augmentation.draw_classes(rng.stream(0), 2, SIZE), counts=[3, 3])


def test_description_tells_augmentations_apart() -> None:
    descriptions = [
        Augmentation(s, d, k).describe()
        for s, d, k in [
            (STRATEGY, "dsa", None),
            (STRATEGY, "idc", None),
            ("crop", "dsa", None),
            ("none", "dsa", None),
            (STRATEGY, "dsa", augment.AugmentStrength(rotate=10)),
        ]
    ]
    assert all(a != b for k, a in enumerate(descriptions) for b in descriptions[:k])
    assert Augmentation("None").describe() == Augmentation("").describe()


def test_fingerprint() -> None:
    """Numbers of version 1: when they change on purpose, raise `NUMERICS` in distill/augment.py."""
    assert augment.NUMERICS == 1
    x = torch.linspace(-2, 2, 40 * 3 * 64, dtype=torch.float64).view(40, 3, *SIZE).sin()
    found = []
    for dispatcher in DISPATCHERS:
        augmentation = augmentation_of(dispatcher)
        out = augmentation.apply(x, augmentation.draw(rng.stream(12), 2, SIZE, groups=20))
        found += [float(out.sum()), float(out.square().sum())]
    expected = [46.8489133174, 4052.05095184, -18.7725682416, 3946.33251241, 2.94651528543, 3383.50587019]
    expected += [7.72343086761, 3411.94384226]
    assert found == pytest.approx(expected, rel=1e-9)

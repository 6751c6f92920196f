"""RTP against the published program's numbers (golden case 28), in float64, and by its plain twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import search_space
import tiny
from distill.augment import Augmentation, Draw
from distill.contracts import Context
from distill.decoders.addressed_bases import AddressedBases
from distill.fyi import FLIPS
from distill.methods import METHODS
from distill.recipes import recipe
from distill.trajectory import Descent, FlatNetwork, StudentBatch, walk_back
from fyi_bench import rng
from fyi_bench.errors import UsageError
from golden import golden, hash_fill, normalised, relative_error

CASE = "case28_rtp"


def test_images_are_the_published_ones():
    data = golden(CASE)
    made = AddressedBases((3, 32, 32), {"bases": torch.from_numpy(data["basis"]).double()})
    addresses = torch.from_numpy(data["coefficients"]).double()
    assert relative_error(made.decode(addresses)[:, 0], data["decode__images"]) < 1e-6
    small = AddressedBases((3, 16, 16), made.tensors)
    assert relative_error(small.decode(addresses)[:, 0], data["decode__small"]) < 1e-10


@pytest.mark.parametrize("tag", ["bases", "bases_minibatch", "fyi_bases", "direct"])
def test_gradients_are_the_published_ones(tag):
    data = golden(CASE)
    flip = FLIPS.get("fyi" if "fyi" in tag else "none")
    module = hash_fill(
        search_space.build("convnet-w32", 3, 32, 3, rng.stream(0, "shell")).double(), int(data["hash_fill_salt"])
    )
    network = FlatNetwork(module)
    leaves = {key: torch.from_numpy(data[key]).double().requires_grad_(True) for key in ("basis", "coefficients")}
    images = torch.from_numpy(data["direct_images"]).double().requires_grad_(True)
    if tag == "direct":
        shown, labels = images, torch.arange(3).repeat_interleave(2)
    else:
        shown = AddressedBases((3, 32, 32), {"bases": leaves["basis"]}).decode(leaves["coefficients"])[:, 0]
        labels = torch.from_numpy(data["decode__labels"])
    steps = int(data["inner_steps"])
    rows = torch.from_numpy(data["minibatch_rows"]) if "minibatch" in tag else torch.arange(len(shown)).repeat(steps, 1)

    def batch(index: torch.Tensor) -> StudentBatch:
        return StudentBatch(index, lambda x: flip.expand(x, labels[index]), multiplier=flip.multiplier)

    x, y = normalised(data["real_images_u8"]), torch.from_numpy(data["real_labels"])
    descent = Descent(torch.tensor(float(data["lr"]), dtype=torch.float64), float(data["momentum"]))
    found = walk_back(
        network, [batch(index) for index in rows], shown, descent, network.values(), lambda w: network.gradient(w, x, y)
    )
    assert relative_error(found.loss, data[f"{tag}__loss"]) < 1e-10
    if tag == "direct":
        assert relative_error(found.by_images, data["direct__grad_images"]) < 1e-10
        return
    shown.backward(found.by_images)
    assert relative_error(leaves["basis"].grad, data[f"{tag}__grad_basis"]) < 1e-10
    assert relative_error(leaves["coefficients"].grad, data[f"{tag}__grad_coefficients"]) < 1e-10
    norm = torch.nn.utils.get_total_norm([leaf.grad for leaf in leaves.values()])
    assert relative_error(norm, data[f"{tag}__norm_before_clip"]) < 1e-10


def test_augmentation_is_the_published_one():
    data = golden(CASE)
    images = normalised(data["real_images_u8"], torch.float32)[:4]
    made = Augmentation("flip_rotate")
    for seed, is_flip in zip(data["augment__seeds"], data["augment__is_flip"], strict=True):
        u = np.random.RandomState(seed).rand()
        draw = Draw.from_values(("flip" if is_flip else "rotate", [u]))
        out = made.apply(images, draw)[:, :, ::7, ::5]
        assert float((out - torch.from_numpy(data["augment__out_pixels"][seed])).abs().max()) < 1e-5


def test_addresses_fill_the_published_storage():
    data = golden(CASE)
    from dataclasses import replace

    for ipc, size, channels, classes, bases, factor, exact, *_ in data["budget_rows"].tolist():
        shape = (int(channels), int(size), int(size))
        problem = tiny.problem(ipc=1)
        stand_in = type("P", (), {"ipc": int(ipc), "num_classes": int(classes), "shape": shape})
        method = METHODS.get("rtp")(replace(tiny.config("rtp"), bases=int(bases), downsample=int(factor)), problem)
        method.problem = stand_in
        assert method.addresses == int(exact)
    with pytest.raises(UsageError, match="take all the storage"):
        METHODS.get("rtp")(tiny.config("rtp", bases=400), tiny.problem()).initial_images()


def context(method: str, flip: str) -> Context:
    problem = tiny.problem(dtype=torch.float64)
    made = METHODS.get(method)(tiny.config(method), problem)
    images = made.initial_images().requires_grad_(True)
    extras = {name: value.clone().requires_grad_(True) for name, (value, *_) in made.extra_parameters().items()}
    labels = torch.arange(problem.num_classes).repeat_interleave(len(images) // problem.num_classes)
    ctx = Context(problem, made, FLIPS.get(flip), images, labels, extras)
    made.begin(ctx)
    return ctx


@pytest.mark.parametrize("flip", ["none", "fyi", "random"])
@pytest.mark.parametrize("method", ["rtp", "speed", "haba"])
def test_backward_is_the_gradient_of_the_loss(method, flip):
    ctx = context(method, flip)
    loss, leaves = ctx.method.loss(ctx), [ctx.images, *ctx.extras.values()]
    expected = torch.autograd.grad(loss, leaves)
    assert float(ctx.method.backward(ctx) / loss.detach()) == pytest.approx(1, abs=1e-12)
    for leaf, wanted in zip(leaves, expected, strict=True):
        assert float((leaf.grad - wanted).norm()) < 1e-11 * float(wanted.norm()) + 1e-15


def test_stored_bytes_stay_within_the_images_they_stand_for():
    from distill.engine import distill

    made = distill(tiny.problem(), "rtp", tiny.config("rtp", 1))
    images = tiny.CLASSES * 2 * 3 * tiny.SIZE**2 * 4
    rows = len(made) * (4 * 3 + 8)
    assert made.nbytes == rows + 4 * 3 * 3 * (tiny.SIZE // 2) ** 2
    assert made.nbytes - len(made) * 8 <= images


@pytest.mark.parametrize("flip", ["none", "fyi"])
@pytest.mark.parametrize("init", ["xavier", "real"])
def test_plain_images_instead_of_bases(init, flip):
    """Without bases the images themselves are learned and stored, by the same gradient."""
    from distill.engine import distill

    config = tiny.config("rtp", 2, bases=0, init=init)
    made = distill(tiny.problem(), "rtp", config, flip)
    assert made.decoder is None
    assert (tuple(made.images.shape), made.ipc) == ((6, 3, tiny.SIZE, tiny.SIZE), 2)
    first = distill(tiny.problem(), "rtp", tiny.config("rtp", 0, bases=0, init=init), flip)
    assert float((made.images - first.images).abs().max()) > 1e-4
    problem = tiny.problem(dtype=torch.float64)
    method = METHODS.get("rtp")(config, problem)
    images = method.initial_images().double().requires_grad_(True)
    ctx = Context(problem, method, FLIPS.get(flip), images, torch.arange(3).repeat_interleave(2))
    method.begin(ctx)
    expected = torch.autograd.grad(method.loss(ctx), images)[0]
    method.backward(ctx)
    torch.testing.assert_close(images.grad, expected)


@pytest.mark.parametrize("protocol", ["paper", "quick"])
def test_recipes_fit_steps_of_few_classes(protocol):
    """Bases take no more of the storage of one class than of that of ten."""
    for ipc in (1, 10):
        values = recipe("rtp", "cifar10", ipc, protocol).values
        for classes in (1, 2, 5, 10):
            problem = tiny.problem(ipc=ipc, real=tiny.real_set(classes, size=32))
            method = METHODS.get("rtp")(METHODS.get("rtp").Config.from_values(values), problem)
            assert method.addresses >= 1
            assert method.bases * 16**2 <= 0.5 * ipc * classes * 32**2

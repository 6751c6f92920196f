"""DD against its published program's numbers (golden case 25): unrolled steps, step sizes, networks, Adam."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import search_space
import tiny
from distill.contracts import Context
from distill.engine import distill
from distill.fyi import FLIPS
from distill.image_set import ImageSet
from distill.methods import METHODS, config_of
from distill.methods.dd import padded_crop_and_mirror
from distill.problem import Problem
from distill.recipes import recipe
from distill.spaces import NormalizedSpace, PixelSpace
from distill.trajectory import FlatNetwork
from fyi_bench import rng
from fyi_bench.errors import UsageError
from golden import golden, hash_fill, relative_error
from search_space.convnet import ConvNet, ConvNetConfig
from search_space.init import xavier_normal

CASE = "case25_dd"
EXACT, ROUNDED = 1e-10, 1e-6


def network(name: str, salt: int) -> torch.nn.Module:
    if name == "convnet":
        return hash_fill(ConvNet(ConvNetConfig(width=32, classes=3)).double(), salt)
    arch = {"lenet": "lenet", "alexcifar": "alexcifarnet"}[name]
    return hash_fill(search_space.build(arch, 3, 32, 3, rng.stream(0)).double(), salt)


def recorded(name: str, flip: str = "none", **changes):
    """The method on the recorded images and step sizes; its networks are the recorded ones."""
    data = golden(CASE)
    space = NormalizedSpace(tuple(data["mean"].tolist()), tuple(data["std"].tolist()))
    real = torch.from_numpy(data["real_images_u8"]), torch.from_numpy(data["real_labels"])
    problem = Problem(ImageSet(*real, PixelSpace(), 3), space, ipc=2, dtype=torch.float64)
    values = dict(recipe("dd", "cifar10", 10).values)
    values |= {"real_augment": "none", "batch_target": 24, "distill_epochs": int(data["distill_epochs"]), **changes}
    method = METHODS.get("dd")(config_of("dd", values), problem)
    salt = int(data["hash_fill_salt"])
    method._network = FlatNetwork(network(name, salt))
    method._start = lambda ctx, number: FlatNetwork(network(name, salt + number)).values()
    images = torch.from_numpy(data["distilled"]).double()  # [step, class, …]: one image of each class a step
    leaf = images.transpose(0, 1).flatten(0, 1).contiguous().requires_grad_(True)
    raw = torch.from_numpy(np.log(np.expm1(data["step_sizes"]))).requires_grad_(True)
    ctx = Context(problem, method, FLIPS.get(flip), leaf, torch.arange(3).repeat_interleave(2), {"raw_lr": raw})
    method.real, method.real_labels = problem.images_at(torch.arange(24)), real[1]
    return method, ctx


@pytest.mark.long
@pytest.mark.parametrize(
    ("tag", "name", "flip", "nets"),
    [
        ("lenet", "lenet", "none", 1),
        ("convnet", "convnet", "none", 1),
        ("alexcifar", "alexcifar", "none", 1),
        ("fyi_convnet", "convnet", "fyi", 1),
        ("two_nets", "convnet", "none", 2),
    ],
)
def test_loss_and_gradients_of_the_published_program(tag, name, flip, nets):
    data, (method, ctx) = golden(CASE), recorded(name, flip, nets_per_iteration=nets)
    loss = method.backward(ctx)
    assert float(loss) == pytest.approx(float(data[f"{tag}__loss"]), rel=EXACT)
    found = ctx.images.grad.unflatten(0, (3, 2)).transpose(0, 1)
    if (expected := data.get(f"{tag}__grad_distilled")) is not None:
        assert relative_error(found, expected) < (EXACT if expected.dtype == np.float64 else ROUNDED)
    assert relative_error(found.flatten(1).norm(dim=1), data[f"{tag}__grad_norm_per_step"]) < EXACT
    assert relative_error(ctx.extras["raw_lr"].grad, data[f"{tag}__grad_raw_step_sizes"]) < EXACT


def test_the_plain_unroll_has_the_same_gradients():
    method, ctx = recorded("lenet", "fyi")
    by_images, by_raw = torch.autograd.grad(method.loss(ctx), [ctx.images, ctx.extras["raw_lr"]])
    method.backward(ctx)
    torch.testing.assert_close(ctx.images.grad, by_images, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(ctx.extras["raw_lr"].grad, by_raw, rtol=1e-9, atol=1e-14)


def test_alexcifarnet_is_the_published_one():
    data, (method, _) = golden(CASE), recorded("alexcifar")
    found = method._network.network
    assert sum(p.numel() for p in found.parameters()) == int(data["alexcifar__parameters"])
    assert relative_error(found(method.real[:4]), data["alexcifar__logits_real_first4"]) < EXACT
    assert sum(p.numel() for p in network("lenet", 0).parameters()) == int(data["lenet__parameters"])


def test_two_steps_of_adam():
    data, (method, ctx) = golden(CASE), recorded("convnet")
    start = ctx.images.detach().clone()
    groups = [{"params": [ctx.images], "lr": 0.01}, {"params": [ctx.extras["raw_lr"]], "lr": 0.01}]
    optimiser = method.outer_optimiser(groups)
    for step in range(2):
        method.backward(ctx)
        method.step(ctx, optimiser)
        assert relative_error(ctx.extras["raw_lr"], data["adam__raw_step_sizes_after"][step]) < EXACT
        change = (ctx.images.detach() - start).unflatten(0, (3, 2)).transpose(0, 1)[..., ::7, ::5]
        assert relative_error(change, data["adam__change_pixels_after"][step]) < 1e-8


def test_step_sizes_start_and_halve_as_published():
    data, (method, _) = golden(CASE), recorded("lenet")
    for size, raw in data["raw_start_for_step_size"].tolist():
        method.config = type(method.config)(**{**vars(method.config), "distill_lr": size})
        assert method.extra_parameters()["raw_lr"][0].tolist() == pytest.approx([raw] * 4, rel=1e-12)
    assert method._batches_an_epoch == 1
    assert [method.learning_rate(e) for e in range(130)] == pytest.approx(data["adam_lr_by_epoch"].tolist())


def test_the_set_holds_every_step_size_and_real_batches_pass_over_all_images():
    c = tiny.config("dd", 5, real_augment="none")
    found = distill(tiny.problem(), "dd", c, "fyi")
    assert len(found.lr) == 2 * c.distill_epochs
    assert min(found.lr) > 0
    problem = tiny.problem()
    method = METHODS.get("dd")(c, problem)
    ctx = Context(problem, method, FLIPS.get("none"), method.initial_images(), torch.arange(3).repeat_interleave(2))
    seen = []
    for ctx.iteration in range(3):
        method.begin(ctx)
        seen.append(method.real)
    every = problem.images_at(torch.cat(problem.rows)).flatten(1)
    assert torch.equal(torch.cat(seen).flatten(1).sort(0).values, every.sort(0).values)


def test_xavier_weights_have_their_variance_and_biases_are_zero():
    found = xavier_normal(search_space.build("lenet", 3, 32, 10, rng.stream(0)), rng.stream(1))
    linear = found.layers[8]
    assert float(linear.weight.detach().std()) == pytest.approx(
        (2 / (linear.in_features + linear.out_features)) ** 0.5, rel=0.03
    )
    conv = found.layers[3]
    assert float(conv.weight.detach().std()) == pytest.approx((2 / (25 * (6 + 16))) ** 0.5, rel=0.05)
    assert all(float(p.detach().abs().sum()) == 0 for n, p in found.named_parameters() if n.endswith("bias"))


def test_crops_of_reflected_images_and_mirrors():
    images = torch.arange(2 * 6 * 6, dtype=torch.float32).view(2, 1, 6, 6)
    padded = F.pad(images, (4, 4, 4, 4), mode="reflect")
    found = padded_crop_and_mirror(images, rng.stream(0, "crop"))
    for image, whole in zip(found, padded, strict=True):
        cuts = [whole[:, i : i + 6, j : j + 6] for i in range(9) for j in range(9)]
        assert any(torch.equal(image, cut) or torch.equal(image, cut.flip(-1)) for cut in cuts)


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"step_images": 3}, "divides the images"), ({"net_init": "kaiming"}, "Unknown network initialisation")],
)
def test_wrong_options_are_refused(changes, says):
    with pytest.raises(UsageError, match=says):
        distill(tiny.problem(), "dd", tiny.config("dd", 1, **changes), "none")


def test_networks_start_by_xavier_from_the_first_one_on():
    method = METHODS.get("dd")(tiny.config("dd"), tiny.problem())
    ctx = Context(method.problem, method, FLIPS.get("none"), torch.zeros(0), torch.zeros(0))
    first, again, other = (method._start(ctx, number) for number in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    layer = method._network.network.classifier
    assert not first[-layer.bias.numel() :].any()
    expected = xavier_normal(method.fresh_network(0, 0), method.problem.stream("initial weights", 0, 0))
    assert torch.equal(first, torch.cat([p.detach().flatten() for p in expected.parameters()]))

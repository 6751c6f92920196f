"""KIP against its published program's numbers (golden case 26): kernels, regression, Adam."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import tiny
from distill.contracts import Context
from distill.engine import distill
from distill.fyi import FLIPS
from distill.image_set import ImageSet
from distill.kernels import centred, kernel, ridge_answers, solved_labels
from distill.methods import METHODS, config_of
from distill.methods.kip import KIP
from distill.problem import Problem
from distill.recipes import recipe
from distill.spaces import NormalizedSpace, PixelSpace
from fyi_bench.errors import UnknownNameError, UsageError
from golden import golden, relative_error

CASE = "case26_kip"
EXACT, ROUNDED = 1e-10, 1e-6  # the library's kernels are rounded where an image meets itself
CONV = {"conv8": "convnet2", "conv8_noprepend": "convnet2-plain"}


def space() -> NormalizedSpace:
    data = golden(CASE)
    return NormalizedSpace(tuple(data["mean"].tolist()), tuple(data["std"].tolist()))


def images(conv: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Support and targets; for the convolutional kernels as means of 4 x 4 pixels."""
    data = golden(CASE)
    support = torch.from_numpy(data["support_images"]).double()
    real = space().encode(torch.from_numpy(data["real_images_u8"]).double() / 255)
    targets = real[torch.from_numpy(data["target_rows"])]
    return (F.avg_pool2d(support, 4), F.avg_pool2d(targets, 4)) if conv else (support, targets)


@pytest.mark.parametrize("tag", ["fc1", "fc3", "conv8", "conv8_noprepend"])
@pytest.mark.parametrize("kind", ["nngp", "ntk"])
def test_kernels_of_the_published_program(tag, kind):
    data, (support, targets) = golden(CASE), images("conv" in tag)
    name, tangent = CONV.get(tag, tag), kind == "ntk"
    if (expected := data.get(f"{tag}__{kind}_ss")) is not None:
        assert relative_error(kernel(name, support, tangent=tangent), expected) < ROUNDED
    if (expected := data.get(f"{tag}__{kind}_ts")) is not None:
        assert relative_error(kernel(name, targets, support, tangent), expected) < EXACT
    if (expected := data.get(f"exact_{tag}__{kind}_ss")) is not None:
        assert relative_error(kernel(name, support, tangent=tangent), expected) < EXACT


def recorded(name: str = "fc1", flip: str = "none", conv: bool = False, **changes) -> tuple[KIP, Context]:
    """The method on the recorded support and targets."""
    data, (support, targets) = golden(CASE), images(conv)
    size = support.shape[-1]
    real = ImageSet(torch.zeros(6, 3, size, size), torch.arange(3).repeat_interleave(2), PixelSpace(), 3)
    problem = Problem(real, space(), ipc=2, dtype=torch.float64)
    values = {**recipe("kip", "cifar10", 10).values, "ntk": name, "ridge": float(data["ridge"]), **changes}
    method = METHODS.get("kip")(config_of("kip", values), problem)
    method.real = targets.unsqueeze(0)
    method.real_labels = centred(torch.from_numpy(data["real_labels"])[torch.from_numpy(data["target_rows"])], 3)
    # the file's support may not stand class by class; the loss does not care, but labels must go with their images
    order = torch.from_numpy(data["support_labels"]).argsort(stable=True)
    leaf = support[order].clone().requires_grad_(True)
    method.order = order
    return method, Context(problem, method, FLIPS.get(flip), leaf, torch.arange(3).repeat_interleave(2))


@pytest.mark.parametrize(
    ("tag", "name", "flip", "ridge"),
    [
        ("fc1", "fc1", "none", 1e-6),
        ("fc3", "fc3", "none", 1e-6),
        ("fyi_fc1", "fc1", "fyi", 1e-6),
        ("fc1_ridge", "fc1", "none", 0.1),
        ("fc1_soft", "fc1", "none", 1e-6),
        ("conv8", "convnet2", "none", 1e-6),
    ],
)
def test_loss_and_gradients_of_the_published_program(tag, name, flip, ridge):
    data = golden(CASE)
    method, ctx = recorded(name, flip, tag == "conv8", ridge=ridge)
    labels = method._fixed_labels()
    if tag == "fc1_soft":
        labels = torch.from_numpy(data["support_soft_labels"]).double()[method.order]
    ctx.extras["labels"] = labels.requires_grad_(True)
    loss = method.loss(ctx)
    by_images, by_labels = torch.autograd.grad(loss, [ctx.images, ctx.extras["labels"]])
    for prefix, allowed in (("", ROUNDED), ("exact_", EXACT)):
        if f"{prefix}{tag}__loss" not in data:
            continue
        assert float(loss.detach()) == pytest.approx(float(data[f"{prefix}{tag}__loss"]), rel=allowed)
        assert relative_error(by_labels, data[f"{prefix}{tag}__grad_labels"][method.order]) < allowed
        if (expected := data.get(f"{prefix}{tag}__grad_support")) is not None:
            rounded = max(allowed, ROUNDED) if expected.dtype == "float32" else allowed
            assert relative_error(by_images, expected[method.order]) < rounded
        if f"{prefix}{tag}__grad_support_norm" in data:
            assert float(by_images.norm()) == pytest.approx(float(data[f"{tag}__grad_support_norm"]), rel=ROUNDED)


def test_two_steps_of_adam_counted_from_one():
    data, (method, ctx) = golden(CASE), recorded(learn_labels=True, lr_img=0.04)
    ctx.extras["labels"] = method.extra_parameters()["labels"][0].requires_grad_(True)
    start = ctx.images.detach().clone(), ctx.extras["labels"].detach().clone()
    optimiser = method.outer_optimiser([{"params": [t], "lr": 0.04} for t in (ctx.images, ctx.extras["labels"])])
    for step in range(2):
        optimiser.zero_grad()
        method.backward(ctx)
        optimiser.step()
        change = (ctx.images.detach() - start[0])[..., ::7, ::5]
        assert relative_error(change, data["adam__change_pixels_after"][step][method.order]) < 3e-6
        moved = ctx.extras["labels"].detach() - start[1]
        assert relative_error(moved, data["adam__change_labels_after"][step][method.order]) < 3e-6
        if step == 0:
            assert float(moved.abs().max()) == pytest.approx(0.744 * 0.04, rel=1e-3)


@pytest.mark.parametrize(("tag", "ridge"), [("exact_solve", 1e-6), ("solve_ridge", 1.0)])
def test_label_solve_of_the_published_program(tag, ridge):
    data, (support, targets) = golden(CASE), images()
    labels = centred(torch.from_numpy(data["real_labels"])[torch.from_numpy(data["target_rows"])], 3)
    parts = zip(targets.split(5), labels.split(5), strict=True)
    found = solved_labels("fc1", support, parts, ridge)
    assert relative_error(found, data[f"{tag}__labels"]) < (1e-7 if "exact" in tag else ROUNDED)


# --- without the published program ----------------------------------------------------------------------------------


@pytest.mark.parametrize("tangent", [False, True])
def test_a_wide_network_has_this_kernel(tangent):
    """Products of features, and of gradients, of one hidden layer with many units."""
    generator = torch.Generator().manual_seed(0)
    x, width = torch.randn(4, 1, 2, 3, generator=generator, dtype=torch.float64), 400_000
    first, out = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((width, 6), (width,)))
    bias = torch.randn(width, generator=generator, dtype=torch.float64)
    before = math.sqrt(2 / 6) * x.flatten(1) @ first.T + 0.1 * bias
    hidden, slope = before.relu(), (before > 0).double()
    found = 2 / width * hidden @ hidden.T + 0.01
    if tangent:  # gradients of the last layer, of the first one's weights and biases
        inner = x.flatten(1) @ x.flatten(1).T / 6 * 2 + 0.01
        found = found + inner * (2 / width * (slope * out) @ (slope * out).T)
    torch.testing.assert_close(kernel("fc1", x, tangent=tangent), found, rtol=0.02, atol=0.02)


@pytest.mark.long
@pytest.mark.parametrize("name", ["fc2", "convnet1", "convnet1-plain"])
def test_a_kernel_with_itself_is_the_same_by_either_way(name):
    """The exact diagonal is the limit of what two equal sides give, and derivatives are those of differences."""
    x = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_(True)
    own = kernel(name, x)
    torch.testing.assert_close(own, kernel(name, x, x.detach().clone()), rtol=1e-6, atol=1e-6)
    assert torch.autograd.gradcheck(lambda z: kernel(name, z), (x,), atol=1e-5)


def test_regression_passes_through_its_own_points():
    x, y = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(2)), torch.eye(5)
    support = kernel("fc1", x)
    torch.testing.assert_close(ridge_answers(support, support, y, 1e-12), y.double(), rtol=0, atol=1e-6)


def test_learned_labels_end_in_the_set_as_targets():
    plain, learned = (distill(tiny.problem(), "kip", tiny.config("kip", learn_labels=on), "fyi") for on in (0, 1))
    assert plain.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (learned.labels.shape, learned.label_kind) == ((6, 3), "targets")
    assert learned.hard_labels.tolist() == plain.labels.tolist()


def test_solved_labels_answer_best():
    """No labels on the same images have a smaller error on all real images; they stand in the finished set alone."""
    problem = tiny.problem()
    made = distill(problem, "kip", tiny.config("kip", 0, label_solve=True))
    assert (made.labels.shape, made.label_kind) == ((6, 3), "targets")
    real = problem.real.to_space(problem.space)
    wanted = centred(real.labels, 3)
    cross, own = kernel("fc1", real.images, made.images), kernel("fc1", made.images)

    def error(labels: torch.Tensor) -> float:
        return float((ridge_answers(cross, own, labels, 1e-9) - wanted).square().mean())

    best = error(made.labels)
    assert best < 0.9 * error(centred(made.hard_labels, 3))
    for k in range(5):
        noise = torch.randn(6, 3, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
        assert best <= error(made.labels.double() + 0.05 * noise)


def test_no_image_of_a_small_class_is_drawn_twice():
    whole = tiny.real_set()
    few = whole.select(torch.cat([torch.arange(3), torch.arange(tiny.PER_CLASS, len(whole))]))
    problem = tiny.problem(real=few)
    method = METHODS.get("kip")(tiny.config("kip", batch_target=5 * tiny.CLASSES), problem)
    method.begin(Context(problem, method, FLIPS.get("none"), torch.empty(0), torch.empty(0)))
    assert method.real_labels.argmax(1).bincount().tolist() == [3] + [5] * (tiny.CLASSES - 1)
    assert len(method.real[0].flatten(1).unique(dim=0)) == 3 + 5 * (tiny.CLASSES - 1)


def test_kernels_that_cannot_be_had_say_why():
    with pytest.raises(UsageError, match="7 x 7 positions cannot be halved"):
        kernel("convnet3", torch.zeros(2, 1, 28, 28), torch.zeros(2, 1, 28, 28))
    with pytest.raises(UsageError, match="compares all 1024² pairs of positions"):
        kernel("convnet3", torch.zeros(10, 3, 32, 32), torch.zeros(100, 3, 32, 32))
    with pytest.raises(UnknownNameError, match="Did you mean 'fc1'"):
        kernel("fcc1", torch.zeros(1, 3, 4, 4))

"""FRePo against its published program's numbers (golden case 27): regression, labels, LAMB, networks, whitening."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

import search_space
import tiny
from distill.contracts import Context
from distill.engine import distill
from distill.fyi import FLIPS
from distill.image_set import ImageSet
from distill.kernels import centred
from distill.methods import METHODS, config_of
from distill.methods.frepo import FRePo, margin_loss
from distill.problem import Problem
from distill.recipes import recipe
from distill.spaces import NormalizedSpace, PixelSpace, space_from
from distill.zca import ImageZCASpace, PixelImageZCASpace, RelativeZCASpace, fit
from fyi_bench.data import load_dataset
from fyi_bench.run.types.distill import working_space
from golden import golden, hash_fill, relative_error

CASE = "case27_frepo"
EXACT, ROUNDED = 1e-10, 1e-6
TAGS = {"plain": ("freponet-w16-d3", "none"), "flip": ("freponet-w16-d3", "fyi"),
        "batchnorm_flip": ("freponet-w16-d3-batch", "fyi")}  # fmt: skip


def recorded(tag: str, **changes) -> tuple[FRePo, Context]:
    """The method with the recorded network, images and labels."""
    data, (model, flip) = golden(CASE), TAGS[tag]
    space = NormalizedSpace(tuple(data["mean"].tolist()), tuple(data["std"].tolist()))
    labels = torch.from_numpy(data["real_labels"])
    real = ImageSet(torch.from_numpy(data["real_images_u8"]), labels, PixelSpace(), 3)
    problem = Problem(real, space, ipc=2, dtype=torch.float64)
    values = {**recipe("frepo", "cifar10", 1).values, "model": model, "net_num": 1, **changes}
    method = METHODS.get("frepo")(config_of("frepo", values), problem)
    method.pool.fill(0, partial(hash_fill, method.pool.network, int(data["hash_fill_salt"])))
    support, soft = (torch.from_numpy(data[name]).double() for name in ("support_images", "soft_labels"))
    extras = {"labels": soft.clone().requires_grad_(True)}
    hard = torch.from_numpy(data["support_labels"])
    ctx = Context(problem, method, FLIPS.get(flip), support.clone().requires_grad_(True), hard, extras)
    method.begin(ctx)
    method.rows = torch.from_numpy(data["target_rows"])
    method.real_classes = labels[method.rows]
    return method, ctx


@pytest.mark.parametrize("tag", TAGS)
def test_loss_and_gradients_of_the_published_program(tag):
    data, (method, ctx) = golden(CASE), recorded(tag)
    rows, classes, chosen = method.inputs(ctx)
    real = ctx.problem.images_at(rows)
    regression = method.regression_loss(ctx, real, centred(classes, 3), chosen)
    assert float(regression.detach()) == pytest.approx(float(data[f"{tag}__kernel_loss"]), rel=EXACT)
    margin = margin_loss(ctx.extras["labels"].detach())
    assert float(margin) == pytest.approx(float(data[f"{tag}__label_loss"]), rel=EXACT)
    total, by_images, by_labels = method.gradient(ctx, rows, classes, chosen)
    assert float(total) == pytest.approx(float(data[f"{tag}__total_loss"]), rel=EXACT)
    assert relative_error(by_labels, data[f"{tag}__grad_labels"]) < EXACT
    expected = data[f"{tag}__grad_support"]
    assert relative_error(by_images, expected) < (EXACT if expected.dtype == "float64" else ROUNDED)
    with torch.no_grad():
        targets, support = method.network.embed(real), method.network.embed(ctx.images)
        assert relative_error(targets @ support.T, data[f"{tag}__gram_ts"]) < EXACT
        assert relative_error(method.network(real[:4]), data[f"{tag}__logits_target_first4"]) < EXACT


def test_two_steps_of_lamb():
    data, (method, ctx) = golden(CASE), recorded("flip", iterations=1000)
    learned = ctx.images, ctx.extras["labels"]
    start = [tensor.detach().clone() for tensor in learned]
    optimiser = method.outer_optimiser([{"params": [tensor]} for tensor in learned])
    for ctx.iteration in range(2):
        optimiser.zero_grad()
        method.backward(ctx)
        method.step(ctx, optimiser)
        moved = [tensor.detach() - first for tensor, first in zip(learned, start, strict=True)]
        assert relative_error(moved[0][..., ::7, ::5], data["lamb__change_pixels_after"][ctx.iteration]) < 1e-9
        assert relative_error(moved[1], data["lamb__change_labels_after"][ctx.iteration]) < 1e-9
    found = [method.learning_rate(step) for step in range(0, 1001, 100)]
    assert found == pytest.approx(data["lamb__lr_by_step"].tolist(), rel=1e-6)


@pytest.mark.parametrize("tag", ["plain", "batchnorm_flip"])
def test_a_network_learns_as_published(tag):
    """Two steps of Adam on the six images, without mirrors, and what the first norm keeps of them."""
    data, (method, ctx) = golden(CASE), recorded(tag, max_online_updates=100)
    network = method.pool.network
    before = torch.cat([p.detach().flatten() for p in network.parameters()])
    for step in range(2):
        loss = (network.train()(ctx.images.detach()) - ctx.extras["labels"].detach()).square().sum(1).mean() / 2
        assert float(loss.detach()) == pytest.approx(float(data[f"{tag}__online_loss"][step]), rel=EXACT)
        method.slot = 0
        method.pool.show(0)  # what the line above changed in the norms is forgotten
        method.advance(ctx)
        moved = torch.cat([p.detach().flatten() for p in network.parameters()]) - before
        assert float(moved.norm()) == pytest.approx(float(data[f"{tag}__online_update_norms"][step]), rel=1e-9)
        assert relative_error(moved[::97], data[f"{tag}__online_update_every97th"][step]) < 1e-8
        if tag != "plain" and step == 0:
            norm = network.blocks[1].norm
            assert relative_error(norm.running_mean, data[f"{tag}__online_running_mean1_after"]) < EXACT
            assert relative_error(norm.running_var, data[f"{tag}__online_running_var1_after"]) < EXACT
    assert int(method.updates[0]) == 2


def test_first_labels_and_ages():
    data, (method, _) = golden(CASE), recorded("plain")
    assert relative_error(method._first_labels(), data["initial_soft_labels"]) < EXACT
    ten = METHODS.get("frepo")(config_of("frepo", recipe("frepo", "cifar10", 1).values), tiny.problem())
    assert ten.updates.tolist() == list(range(0, 100, 10))


def small(case: str) -> tuple[ImageSet, dict]:
    """The recorded real images as means of 8 x 8 pixels."""
    data = golden(case)
    images = torch.from_numpy(data["real_images_u8"]).double() / 255
    pixels = F.avg_pool2d(images, 8)
    return ImageSet(pixels, torch.from_numpy(data["real_labels"]), PixelSpace(), 3), data


@pytest.fixture
def own_matrices(monkeypatch, tmp_path):
    monkeypatch.setenv("FYI_BENCH_CACHE", str(tmp_path))


# rows and columns of the recorded matrices are (row, column, channel)
ORDER = torch.arange(48).view(3, 4, 4).permute(1, 2, 0).flatten()


@pytest.mark.usefixtures("own_matrices")
def test_whitening_of_frepo():
    real, data = small(CASE)
    std = tuple(data["std"].tolist())
    space = fit(RelativeZCASpace("cifar10", "frepo test", (3, 4, 4), mean=tuple(data["mean"].tolist()), std=std), real)
    each = torch.tensor(std, dtype=torch.float64).repeat_interleave(16)
    matrix = space.whitening().matrix * each.unsqueeze(1)
    assert relative_error(matrix[ORDER][:, ORDER], data["zca__transform"]) < EXACT
    inverse = space.whitening().inverse / each
    assert relative_error(inverse[ORDER][:, ORDER], data["zca__inverse"]) < EXACT
    white = space.encode(real.images[:4])
    assert relative_error(white, data["zca__white_first4"]) < EXACT
    torch.testing.assert_close(space.decode(white), real.images[:4])
    assert RelativeZCASpace.rebuild(space.describe()) == space


@pytest.mark.usefixtures("own_matrices")
def test_whitening_of_kip_and_rtp():
    real, data = small("case26_kip")
    facts = {"mean": tuple(data["mean"].tolist()), "std": tuple(data["std"].tolist())}
    space = fit(ImageZCASpace("cifar10", "kip test", (3, 4, 4), **facts), real)
    assert relative_error(space.whitening().matrix[ORDER][:, ORDER], data["zca__transform"]) < EXACT
    white = space.encode(real.images[:4])
    assert relative_error(white, data["zca__white_first4"]) < EXACT
    few = real.select(torch.arange(0, 60, 2))
    matrix = space.measure(few.images)[1]
    assert relative_error(matrix[ORDER][:, ORDER], data["zca__rank_controlled_transform"]) < EXACT
    shown = space.picture(white)
    assert (float(shown.min()), float(shown.max())) == (0, 1)
    real, data = small("case28_rtp")
    space = fit(PixelImageZCASpace("cifar10", "rtp test", (3, 4, 4)), real)
    assert relative_error(space.encode(real.images), data["zca__white"]) < EXACT
    assert space_from(space.describe()).digest == space.digest
    shapes = load_dataset("shapes10", None)
    rtp, kip = (
        working_space(METHODS.get(name), config_of(name, recipe(name, "cifar10", 1).values | {"zca": True}), shapes)
        for name in ("rtp", "kip")
    )
    assert (rtp.kind, rtp.mean) == ("zca-image-pixels", ())
    assert (kip.kind, len(kip.mean)) == ("zca-image", 3)


# --- a plain loop ---------------------------------------------------------------------------------------------------


def plain_frepo(problem: Problem, c, flip: str) -> tuple[torch.Tensor, torch.Tensor, list[float]]:
    """Networks in a list with an Adam each; labels and images in one LAMB written out."""
    made = METHODS.get("frepo")(c, problem)
    images, hard = made.initial_images().clone(), torch.arange(3).repeat_interleave(problem.ipc)
    labels = (F.one_hot(hard, 3).double() - 1 / 3) / math.sqrt(0.3)
    moments = [[torch.zeros_like(t), torch.zeros_like(t)] for t in (images, labels)]
    networks, losses = [], []

    def fresh(*keys):
        net = search_space.build(c.model, 3, tiny.SIZE, 3, problem.stream("network", "pool", *keys)).double()
        return [net, torch.optim.Adam(net.parameters(), lr=c.lr_net)]

    networks = [[*fresh(k), k * (c.max_online_updates // c.net_num)] for k in range(c.net_num)]
    batches = list(problem.shuffled(c.batch_target, "real", 0))
    for step in range(c.iterations):
        slot = int(torch.randint(c.net_num, (), generator=problem.stream("pool", step, 0)))
        net, adam, age = networks[slot]
        rows, classes = batches[step]
        x, y = images.clone().requires_grad_(True), labels.clone().requires_grad_(True)
        shown = torch.cat([x, x.flip(3)]) if flip == "fyi" else x
        wanted = torch.cat([y, y]) if flip == "fyi" else y
        net.eval()
        target, features = net.embed(problem.images_at(rows)).detach(), net.embed(shown)
        gram = features @ features.T
        solved = torch.linalg.solve(gram + c.ridge * gram.trace() / len(gram) * torch.eye(len(gram)).double(), wanted)
        error = target @ features.T @ solved - (F.one_hot(classes, 3).double() - 1 / 3)
        two = y.sort(dim=1, descending=True).values
        loss = error.square().sum() / 2 / len(rows) - torch.minimum(two[:, 0] - two[:, 1], torch.tensor(1 / 3)).mean()
        losses.append(float(loss.detach()))
        rate = c.lr_img * (0.1 + 0.9 * (1 + math.cos(math.pi * step / c.iterations)) / 2)
        for tensor, grad, (first, second) in zip(
            (images, labels), torch.autograd.grad(loss, [x, y]), moments, strict=True
        ):
            first.mul_(0.9).add_(0.1 * grad)
            second.mul_(0.999).add_(0.001 * grad**2)
            way = (first / (1 - 0.9 ** (step + 1))) / ((second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-6)
            tensor.sub_(rate * tensor.norm() / way.norm() * way)
        if age > c.max_online_updates:
            networks[slot] = [*fresh(slot, step), 0]
            continue
        net.train()
        adam.zero_grad()
        ((net(images) - labels).square().sum(1).mean() / 2).backward()
        adam.step()
        networks[slot][2] += 1
    return images, labels, losses


@pytest.mark.parametrize("flip", ["none", "fyi"])
def test_the_engine_does_what_the_plain_loop_does(flip):
    problem = tiny.problem(dtype=torch.float64)
    config = tiny.config("frepo", 8, batch_target=4, net_num=2, max_online_updates=2)
    images, labels, losses = plain_frepo(problem, config, flip)
    found = distill(problem, "frepo", config, flip)
    assert found.provenance["loss_curve"] == pytest.approx(losses, rel=1e-6)
    torch.testing.assert_close(found.images, images.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.labels, labels.float(), rtol=1e-4, atol=1e-5)
    assert found.label_kind == "targets"

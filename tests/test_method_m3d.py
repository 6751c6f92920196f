"""M3D against numbers of its published loss (golden case 21) and against a plain loop over classes."""

from __future__ import annotations

import pytest
import torch

import search_space
import tiny
from distill.augment import Augmentation
from distill.contracts import Context
from distill.decode import decode
from distill.engine import distill
from distill.fyi import FLIPS
from distill.image_set import ImageSet
from distill.matching import distribution_distance, mean_discrepancy
from distill.methods import METHODS, config_of
from distill.problem import Problem
from distill.recipes import recipe
from distill.spaces import NormalizedSpace, PixelSpace
from fyi_bench.errors import UnknownNameError
from golden import golden, hash_fill, relative_error
from search_space.convnet import ConvNet, ConvNetConfig

CASE = "case21_m3d"
CIFAR10 = NormalizedSpace((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
STATISTICS = NormalizedSpace((0.4, 0.45, 0.5), (0.2, 0.25, 0.3))
EXACT, ROUNDED = 1e-10, 1e-6
PUBLISHED_NAME = {"polynomial": "polinominal"}


def recorded(kernel: str = "gaussian", factor: int = 2, flip: str = "none", **changes):
    """The method on the recorded images and network, and its inputs of a matching step."""
    data = golden(CASE)
    pictures = ImageSet(
        torch.from_numpy(data["real_images_u8"]), torch.from_numpy(data["real_labels"]), PixelSpace(), 2
    )
    problem = Problem(pictures, PixelSpace(), ipc=2, dtype=torch.float64, statistics=CIFAR10)
    values = dict(recipe("m3d", "cifar10", 10).values)
    values |= {"aug_match": "none", "batch_real": 14, "kernel": kernel, "factor": factor, **changes}
    method = METHODS.get("m3d")(config_of("m3d", values), problem)
    network = ConvNet(ConvNetConfig(width=32, classes=int(data.get("classes", 2)))).double()
    method.network = hash_fill(network, int(data["hash_fill_salt"])).train().requires_grad_(False)
    leaf = torch.from_numpy(data["stored_data"]).double().requires_grad_(True)
    return method, Context(problem, method, FLIPS.get(flip), leaf, torch.from_numpy(data["stored_labels"]))


@pytest.mark.parametrize("kernel", ["gaussian", "linear", "polynomial", "laplace"])
def test_discrepancy_of_features(kernel):
    data, tag = golden(CASE), PUBLISHED_NAME.get(kernel, kernel)
    synthetic, real = (torch.from_numpy(data[k]).unsqueeze(0) for k in ("feat_syn", "feat_real"))
    loss = mean_discrepancy(synthetic.requires_grad_(True), real, kernel)
    assert float(loss.detach()) == pytest.approx(float(data[f"features_{tag}__loss"]), rel=EXACT)
    (gradient,) = torch.autograd.grad(loss.sum(), synthetic)
    assert relative_error(gradient[0], data[f"features_{tag}__grad_syn"]) < EXACT


@pytest.mark.parametrize(
    ("kernel", "factor", "flip"),
    [
        ("gaussian", 2, "none"),
        ("gaussian", 1, "none"),
        ("linear", 2, "none"),
        ("polynomial", 2, "none"),
        ("laplace", 2, "none"),
        ("gaussian", 2, "fyi"),
    ],
)
def test_loss_and_gradient_from_stored_images_on(kernel, factor, flip):
    data = golden(CASE)
    tag = f"{'fyi_' if flip == 'fyi' else ''}{PUBLISHED_NAME.get(kernel, kernel)}_f{factor}"
    method, ctx = recorded(kernel, factor, flip)
    inputs = method.inputs(ctx)
    real, draw = ctx.problem.images_at(inputs[0]), method.drawn(*inputs[1:3])
    found = torch.cat([d for _, d in method.distances(real, draw, method.synthetic(ctx, inputs[4], inputs[3]))])
    assert relative_error(found, data[f"{tag}__loss_per_class"]) < EXACT
    _, gradient = method.gradient(ctx, *inputs)
    assert float(gradient.norm()) == pytest.approx(float(data[f"{tag}__grad_norm"]), rel=1e-8)
    expected = data.get(f"{tag}__grad_stored")
    if expected is not None:
        assert relative_error(gradient, expected) < (EXACT if expected.dtype == "float64" else ROUNDED)


def test_steps_of_the_published_loop():
    """Two rounds over the classes, one optimiser step each with one momentum for all images."""
    data = golden(CASE)
    method, ctx = recorded(lr_img=float(data["steps__lr_img"]), momentum_img=0.5)
    method.fresh_network = lambda *keys, trainable: method.network
    losses = []
    for ctx.iteration in range(2):
        method.begin(ctx)
        losses.append(float(method.backward(ctx)))
        method.step(ctx, None)
    expected = data["steps__loss_per_turn"].reshape(2, 2).sum(1)
    assert losses == pytest.approx(expected.tolist(), rel=EXACT)
    change = ctx.images.detach() - torch.from_numpy(data["stored_data"]).double()
    assert relative_error(change, data["steps__change_after_2"]) < EXACT


# --- a plain loop over classes --------------------------------------------------------------------------------------


def plain_discrepancy(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Pair by pair."""
    joint = torch.cat([x, y])
    count = len(joint)
    squares = torch.stack([(joint - row).square().sum(1) for row in joint])
    width = float(squares.detach().sum()) / (count**2 - count)
    kernel = sum(torch.exp(-squares / (width * m)) for m in (0.25, 0.5, 1, 2, 4))
    n = len(x)
    return kernel[:n, :n].mean() - 2 * kernel[:n, n:].mean() + kernel[n:, n:].mean()


@pytest.mark.parametrize("flip", ["none", "fyi"])
def test_the_method_is_the_plain_loop(flip):
    problem = tiny.problem(space=PixelSpace(), statistics=STATISTICS, dtype=torch.float64)
    c = tiny.config("m3d", 5, lr_img=0.5, network_interval=2)
    stored = METHODS.get("m3d")(c, problem).initial_images().clone().requires_grad_(True)
    optimiser = torch.optim.SGD([stored], lr=c.lr_img, momentum=c.momentum_img)
    augmentation, losses = Augmentation(c.aug_match, dispatcher=c.dispatcher), []
    for iteration in range(c.iterations):
        stream = problem.stream("network", iteration // 2)
        net = search_space.build(c.model, 3, problem.shape[1], 3, stream).double().train()
        stored.data.clamp_(0, 1)
        real = problem.real_batch(c.batch_real, "real", iteration, 0)
        draw = augmentation.draw_classes(problem.stream("augment", iteration, 0), 3, problem.shape[-1])
        total = 0.0
        for k in range(3):
            mine = FLIPS.get(flip).expand(decode(stored[2 * k : 2 * k + 2].unsqueeze(0), c.factor)[0])
            joint = augmentation.apply(STATISTICS.encode(torch.cat([real[k], mine])), draw.select([k]))
            features = net.embed(joint)
            loss = plain_discrepancy(features[len(real[k]) :], features[: len(real[k])])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += float(loss.detach())
        losses.append(total / 3)
    found = distill(problem, "m3d", c, flip)
    torch.testing.assert_close(found.images, stored.detach().float(), rtol=0, atol=1e-6)
    assert found.provenance["loss_curve"] == pytest.approx(losses, rel=1e-9)


def test_the_linear_kernel_is_the_distance_of_means():
    x, y = (torch.randn(3, n, 7, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (4, 9))
    torch.testing.assert_close(mean_discrepancy(x, y, "linear"), distribution_distance(x.mean(1), y.mean(1)))


def test_an_unknown_kernel_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'gaussian'"):
        distill(tiny.problem(space=PixelSpace()), "m3d", tiny.config("m3d", 1, kernel="gausian"), "none")


def test_batch_norm_networks_take_each_class_through_alone():
    found = []
    for other in (0, 90):
        real = tiny.real_set()
        real.images[real.labels == 2] += other
        problem = tiny.problem(space=PixelSpace(), real=real, statistics=STATISTICS)
        c = tiny.config("m3d", 1, model="convnet-w8-d2-batch")
        found.append(distill(problem, "m3d", c, "none").images)
    assert torch.equal(found[0][:4], found[1][:4])
    assert not torch.equal(found[0][4:], found[1][4:])

"""DCC against its published program's numbers (golden case 23) and against a plain loop; groups and phases."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import tiny
from distill.augment import Augmentation
from distill.contracts import Context
from distill.fyi import FLIPS
from distill.image_set import ImageSet
from distill.matching import gradient_distance
from distill.methods import METHODS, config_of
from distill.methods.dcc import DCC
from distill.problem import Problem
from distill.recipes import recipe
from distill.spaces import NormalizedSpace, PixelSpace
from golden import golden, hash_fill, relative_error
from search_space.convnet import ConvNet, ConvNetConfig

CASE = "case23_dcc"
SPACE = NormalizedSpace((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
EXACT, ROUNDED = 1e-10, 1e-6


def recorded(phase: str, metric: str, flip: str, augment: str = "none") -> tuple[DCC, Context, tuple]:
    """The method on the recorded images and network, in a phase, with the inputs of a matching step."""
    data = golden(CASE)
    pictures = ImageSet(
        torch.from_numpy(data["real_images_u8"]), torch.from_numpy(data["real_labels"]), PixelSpace(), 3
    )
    problem = Problem(pictures, SPACE, ipc=2, dtype=torch.float64)
    values = dict(recipe("dcc", "cifar10", 10).values)
    values |= {"augment": augment, "metric": metric, "batch_real": 8, "outer_warmup": 0 if phase == "contrast" else 9}
    method = METHODS.get("dcc")(config_of("dcc", values), problem)
    network = ConvNet(ConvNetConfig(width=32, classes=3)).double()
    method.network = hash_fill(network, int(data["hash_fill_salt"])).train()
    leaf = torch.from_numpy(data["syn_images"]).double().requires_grad_(True)
    ctx = Context(problem, method, FLIPS.get(flip), leaf, torch.from_numpy(data["syn_labels"]))
    return method, ctx, method.inputs(ctx)


@pytest.mark.parametrize(
    "name",
    ["contrast_ours", "classwise_ours", "contrast_mse", "contrast_cos", "fyi_contrast_ours", "fyi_classwise_ours"],
)
@pytest.mark.parametrize("step", [1, 3])
def test_loss_and_gradient_of_the_published_program(name, step):
    flip, phase, metric = ("fyi" if "fyi" in name else "none"), *name.removeprefix("fyi_").split("_")
    method, ctx, inputs = recorded(phase, metric, flip)
    method.chunks = lambda count, second_order=False: [slice(c, c + step) for c in range(0, 3, step)]
    loss, gradient = method.gradient(ctx, *inputs)
    assert float(loss) == pytest.approx(float(golden(CASE)[f"{name}__loss"]), rel=EXACT)
    expected = golden(CASE)[f"{name}__grad_syn"]
    assert relative_error(gradient, expected) < (EXACT if expected.dtype == "float64" else ROUNDED)


def test_every_class_has_an_augmentation_of_its_own():
    """Siamese crops: the recorded translations in place of drawn ones."""
    data = golden(CASE)
    method, ctx, (rows, codes, _, chosen) = recorded("contrast", "ours", "none", "crop")
    moves = torch.from_numpy(data["dsac_crop__translation"]).double()
    values = F.pad(moves, (0, 1)).view(1, 3, 1, 3)
    loss, gradient = method.gradient(ctx, rows, codes, values, chosen)
    assert float(loss) == pytest.approx(float(data["dsac_crop__loss"]), rel=EXACT)
    assert relative_error(gradient, data["dsac_crop__grad_syn"]) < ROUNDED


def test_the_published_schedule_of_phases():
    for ipc, inner, epochs, outer, contrastive in golden(CASE)["schedule"].tolist():
        values = recipe("dcc", "cifar10", ipc).values
        assert (values["outer_loop"], values["inner_loop"]) == (inner, epochs)
        method = METHODS.get("dcc")(config_of("dcc", values), tiny.problem())
        ctx = Context(method.problem, method, FLIPS.get("none"), torch.zeros(0), torch.zeros(0), iteration=outer)
        assert sum(bool(method.phase(replace(ctx, match=match))) for match in range(inner)) == contrastive


@pytest.mark.parametrize("flip", ["none", "fyi"])
def test_the_contrastive_step_is_the_plain_one(flip):
    """One batch of all synthetic images, autograd through it; real classes one after the other."""
    problem, c = tiny.problem(dtype=torch.float64), tiny.config("dsac", outer_warmup=0, metric="mse")
    method = METHODS.get("dsac")(c, problem)
    images = method.initial_images().requires_grad_(True)
    ctx = Context(problem, method, FLIPS.get(flip), images, torch.arange(3).repeat_interleave(2))
    method.begin(ctx)
    rows, codes, values, chosen = method.inputs(ctx)
    net, parameters = method.network, list(method.network.parameters())
    augmentation, draw = Augmentation(c.augment, dispatcher=c.dispatcher), method.drawn(codes, values)
    real = []
    for k, batch in enumerate(problem.images_at(rows)):
        seen = augmentation.apply(batch, draw.select([k]))
        real.append(torch.autograd.grad(F.cross_entropy(net(seen), torch.full((len(seen),), k)), parameters))
    mean = [sum(values) / 3 for values in zip(*real, strict=True)]
    seen = [augmentation.apply(FLIPS.get(flip).expand(images[2 * k : 2 * k + 2]), draw.select([k])) for k in range(3)]
    labels = torch.arange(3).repeat_interleave(len(seen[0]))
    found = torch.autograd.grad(F.cross_entropy(net(torch.cat(seen)), labels), parameters, create_graph=True)
    expected = gradient_distance(found, mean, "mse")
    loss, gradient = method.gradient(ctx, rows, codes, values, chosen)
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-10)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, images)[0], rtol=1e-8, atol=1e-14)

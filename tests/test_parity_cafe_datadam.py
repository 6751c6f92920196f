"""CAFE and DataDAM against numbers of the reference implementations (golden case 9), with and without FYI."""

from __future__ import annotations

import pytest
import torch

from distill.contracts import Context
from distill.fyi import FLIPS
from distill.image_set import ImageSet
from distill.matching import class_mean_distance, discrimination_loss, spatial_attention
from distill.method import Method
from distill.methods import METHODS, config_of
from distill.problem import Problem
from distill.recipes import recipe
from distill.spaces import NormalizedSpace, PixelSpace
from golden import golden, load_parameters, normalised, relative_error
from search_space.convnet import ConvNet, ConvNetConfig

CASE = "case09_cafe_datadam"
CIFAR10 = NormalizedSpace((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
LOSS, ROUNDED = 1e-8, 1e-6
FLIP_OF = {"": "none", "_fyi": "fyi"}


def network() -> ConvNet:
    return load_parameters(ConvNet(ConvNetConfig(width=32)).double(), golden(CASE))


def on_golden(name: str, suffix: str, **changes: object) -> tuple[Method, Context]:
    """The method on the recorded real images, with the recorded network and synthetic images."""
    data = golden(CASE)
    labels = torch.from_numpy(data["real_labels"])
    real = ImageSet(torch.from_numpy(data["real_images_u8"]), labels, PixelSpace(), 10)
    problem = Problem(real, CIFAR10, ipc=1, dtype=torch.float64)
    values = dict(recipe(name, "cifar10", 1).values) | {"augment": "none", "batch_real": 6} | changes
    method = METHODS.get(name)(config_of(name, values), problem)
    images = torch.from_numpy(data["syn_images"]).double().requires_grad_(True)
    ctx = Context(problem, method, FLIPS.get(FLIP_OF[suffix]), images, torch.from_numpy(data["syn_labels"]))
    method.begin(ctx)
    method.network = network()
    return method, ctx


def assert_parity(name: str, loss: torch.Tensor, images: torch.Tensor) -> None:
    (grad,) = torch.autograd.grad(loss, images)
    assert float(loss.detach()) == pytest.approx(float(golden(CASE)[f"{name}__loss"]), rel=LOSS)
    assert relative_error(grad, golden(CASE)[f"{name}__grad_syn"]) < ROUNDED


@pytest.mark.parametrize("suffix", FLIP_OF)
def test_cafe_loss_and_gradient(suffix: str) -> None:
    method, ctx = on_golden("cafe", suffix)
    assert_parity(f"cafe{suffix}", method.loss(ctx), ctx.images)


@pytest.mark.parametrize("suffix", FLIP_OF)
def test_cafe_terms(suffix: str) -> None:
    data, net = golden(CASE), network()
    synthetic = torch.from_numpy(data["syn_images"]).double().unsqueeze(1)
    synthetic = FLIPS.get(FLIP_OF[suffix]).expand_classes(synthetic).flatten(0, 1)
    both = [net.features_per_block(x) for x in (normalised(data["real_images_u8"]), synthetic)]
    real_maps, syn_maps = ([*(block.activated for block in blocks), blocks[-1].pooled] for blocks in both)
    real, syn = ([m.unflatten(0, (10, -1)).mean(1) for m in maps] for maps in (real_maps, syn_maps))
    layers = class_mean_distance(syn, real)
    recorded = data[f"cafe{suffix}__per_feature_mse"]  # flat embedding first, then from the last layer to the first
    assert relative_error(torch.stack([layers[-1], *layers.flip(0)]), recorded) < LOSS
    labels = torch.from_numpy(data["real_labels"])
    found = discrimination_loss(real_maps[-1].flatten(1), labels, syn[-1].flatten(1))
    assert float(found.detach()) == pytest.approx(float(data[f"cafe{suffix}__disc"]), rel=LOSS)
    middle = (layers * torch.tensor([0.1, 0.1, 1.0, 1.0], dtype=torch.float64)).sum()
    assert float(middle.detach()) == pytest.approx(float(data[f"cafe{suffix}__loss_middle"]), rel=LOSS)


@pytest.mark.parametrize("suffix", FLIP_OF)
def test_datadam_loss_and_gradient_at_the_codes_exponent(suffix: str) -> None:
    method, ctx = on_golden("datadam", suffix, power=1.0)
    assert_parity(f"datadam{suffix}", method.loss(ctx), ctx.images)


@pytest.mark.parametrize("suffix", FLIP_OF)
def test_attention_at_the_papers_exponent(suffix: str) -> None:
    method, ctx = on_golden("datadam", suffix, power=4.0, task_balance=0.0)
    expected = 100 * golden(CASE)[f"datadam{suffix}__att_error_exp4"].sum()
    assert float(method.loss(ctx).detach()) == pytest.approx(float(expected), rel=LOSS)


def test_parts_of_datadam() -> None:
    data = golden(CASE)
    blocks = network().features_per_block(torch.from_numpy(data["syn_images"]).double())
    for layer in (0, 2):
        attention = spatial_attention(blocks[layer].activated, 1.0)[:2]
        assert relative_error(attention, data[f"datadam__attention_layer{layer}_first2"]) < LOSS
    for part, changes in (("mid_loss", {"task_balance": 0.0}), ("out_loss", {})):
        method, ctx = on_golden("datadam", "", power=1.0, **changes)
        value = float(method.loss(ctx).detach())
        rest = 0.0 if part == "mid_loss" else float(data["datadam__mid_loss"])
        assert value - rest == pytest.approx(float(data[f"datadam__{part}"]), rel=1e-7)

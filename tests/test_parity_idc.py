"""IDC against numbers of the reference implementation (golden case 7): decoding, the matching losses, FYI."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.contracts import Context
from distill.decode import decode
from distill.fyi import FLIPS
from distill.image_set import ImageSet
from distill.matching import tensors_distance
from distill.methods import METHODS, config_of
from distill.methods.idc import VECTORS_AND_CLASSIFIER, gradients, mean_features
from distill.problem import Problem
from distill.recipes import recipe
from distill.spaces import NormalizedSpace, PixelSpace
from golden import golden, load_parameters, normalised, relative_error
from search_space.convnet import ConvNet, ConvNetConfig

CASE = "case07_idc"
CIFAR10 = NormalizedSpace((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
LOSS, GRADIENT, ROUNDED = 1e-8, 1e-8, 1e-6
# name of the golden case -> metric, factor, flip
PUBLISHED = {
    "default_grad_l1_f2": ("l1", 2, "none"),
    "default_grad_l1_f3": ("l1", 3, "none"),
    "grad_mse_f2": ("mse", 2, "none"),
    "grad_cos_f2": ("cos", 2, "none"),
    "grad_l1mean_f2": ("l1_mean", 2, "none"),
    "fyi_grad_l1_f2": ("l1", 2, "fyi"),
}
FEATURES = {
    "feat_mse_layer2_f2": ("mse", slice(2, 3), "none"),
    "feat_l1_layer0to2_f2": ("l1", slice(0, 3), "none"),
    "fyi_feat_mse_layer2_f2": ("mse", slice(2, 3), "fyi"),
}


def stored() -> torch.Tensor:
    return torch.from_numpy(golden(CASE)["stored_data"]).double()


def network() -> ConvNet:
    return load_parameters(ConvNet(ConvNetConfig(width=32)).double(), golden(CASE))


def class_distance(factor: int, metric: str, flip: str, match: str = "grad") -> tuple[torch.Tensor, torch.Tensor]:
    """The recorded class's distance and its gradient [2, …], by the method's own code from stored images on.

    The classes before it share its real images; their distances are not looked at.
    """
    data = golden(CASE)
    label, real = int(data["class_label"]), torch.from_numpy(data["real_images_u8"])
    classes = label + 1
    labels = torch.arange(classes).repeat_interleave(len(real))
    pictures = ImageSet(real.repeat(classes, 1, 1, 1), labels, PixelSpace(), classes)
    problem = Problem(pictures, PixelSpace(), ipc=2, dtype=torch.float64, statistics=CIFAR10)
    values = dict(recipe("idc", "cifar10", 2).values)
    values |= {"factor": factor, "metric": metric, "match": match, "aug_match": "none", "batch_real": len(real)}
    method = METHODS.get("idc")(config_of("idc", values), problem)
    method.network = network()
    leaf = stored()[2:4].repeat(classes, 1, 1, 1).requires_grad_(True)
    ctx = Context(problem, method, FLIPS.get(flip), leaf, torch.arange(classes).repeat_interleave(2))
    rows, codes, values, chosen, used = method.inputs(ctx)
    real = ctx.problem.images_at(rows)
    synthetic = method.synthetic(ctx, used, chosen)
    distance = torch.cat([d for _, d in method.distances(real, method.drawn(codes, values), synthetic)])[label]
    (grad,) = torch.autograd.grad(distance, leaf)
    assert float(grad[:-2].abs().sum()) == 0
    return distance, grad[-2:]


def assert_parity(name: str, loss: torch.Tensor, grad: torch.Tensor) -> None:
    expected = golden(CASE)[f"{name}__grad_stored"]
    assert float(loss.detach()) == pytest.approx(float(golden(CASE)[f"{name}__loss"]), rel=LOSS)
    assert relative_error(grad, expected) < (GRADIENT if expected.dtype == np.float64 else ROUNDED)


@pytest.mark.parametrize("factor", [2, 3])
def test_single_formation(factor: int) -> None:
    data = golden(CASE)
    images = decode(stored()[None, 2:4], factor)[0]
    assert len(images) == int(data[f"decode_single_factor{factor}__count"])
    assert relative_error(images, data[f"decode_single_factor{factor}"]) < 1e-6


@pytest.mark.parametrize(("name", "factor", "bound"), [("multi_factor2", 2, 128), ("bound_factor3", 3, 12)])
def test_multi_and_bounded_formation(name: str, factor: int, bound: int) -> None:
    data = golden(CASE)
    images = decode(stored()[None, 2:4], factor, name.partition("_")[0], bound)[0]
    assert len(images) == int(data[f"decode_{name}__count"])
    assert relative_error(images.mean((1, 2, 3)), data[f"decode_{name}__mean_per_image"]) < 1e-8
    assert relative_error(images[:, :, ::7, ::5], data[f"decode_{name}__pixel_sample"]) < 1e-8


def test_classes_decode_one_after_the_other() -> None:
    data = golden(CASE)
    images = decode(stored().unflatten(0, (2, 2)), 2)
    targets = torch.arange(2).repeat_interleave(images.shape[1])
    assert targets.tolist() == data["trainset_factor2__targets"].tolist()
    assert relative_error(images.flatten(0, 1).mean((1, 2, 3)), data["trainset_factor2__mean_per_image"]) < 1e-8


@pytest.mark.parametrize("name", PUBLISHED)
def test_loss_and_gradient_of_the_method(name: str) -> None:
    metric, factor, flip = PUBLISHED[name]
    assert_parity(name, *class_distance(factor, metric, flip))


@pytest.mark.parametrize("name", FEATURES)
def test_features_of_some_blocks(name: str) -> None:
    """Feature matching on the recorded blocks; the method's match=feat takes all of them."""
    metric, blocks, flip = FEATURES[name]
    data, leaf, net = golden(CASE), stored()[2:4].requires_grad_(True), network()
    label = torch.from_numpy(data["class_label"]).reshape(1)
    images = FLIPS.get(flip).expand_classes(decode(leaf.unsqueeze(0), 2))
    found = mean_features(net, CIFAR10.encode(images), label, True)
    real = mean_features(net, normalised(data["real_images_u8"]).unsqueeze(0), label, False)
    distance = tensors_distance(found[blocks], real[blocks], metric)[0]
    assert_parity(name, distance, torch.autograd.grad(distance, leaf)[0])


def test_features_of_all_blocks_are_what_the_method_matches() -> None:
    assert_parity("feat_l1_layer0to2_f2", *class_distance(2, "l1", "none", match="feat"))


@pytest.mark.parametrize(
    ("name", "skip"), [("grad_l1_bias_fc_f2", frozenset()), ("default_grad_l1_f2", VECTORS_AND_CLASSIFIER)]
)
def test_which_gradients_count(name: str, skip: frozenset[int]) -> None:
    data, leaf, net = golden(CASE), stored()[2:4].requires_grad_(True), network()
    label = torch.from_numpy(data["class_label"]).reshape(1)
    found = gradients(net, CIFAR10.encode(decode(leaf.unsqueeze(0), 2)), label, True)
    real = gradients(net, normalised(data["real_images_u8"]).unsqueeze(0), label, False)
    distance = tensors_distance(found, real, "l1", skip)[0]
    assert_parity(name, distance, torch.autograd.grad(distance, leaf)[0])

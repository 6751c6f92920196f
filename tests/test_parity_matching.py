"""Gradient and distribution matching against the published programs' numbers (golden cases 2a, 2b, 3), in float64."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from distill.augment import Augmentation
from distill.class_gradients import class_gradients
from distill.fyi import FLIPS
from distill.matching import GRADIENT_METRICS, gradient_distance
from distill.methods.dm import DM
from golden import golden, hash_fill, load_parameters, normalised, relative_error, salt
from search_space.convnet import ConvNet, ConvNetConfig

GRADIENT, STORED_AS_FLOAT32, LOSS = 1e-7, 1e-6, 1e-8
FLIP_OF = {"base": "none", "fyi": "fyi"}


def network(width: int, norm: str = "instance") -> ConvNet:
    return ConvNet(ConvNetConfig(width=width, norm=norm)).double()


def stored_network(data) -> ConvNet:
    return load_parameters(network(32), data)


def hashed_network(case: str, width: int, norm: str = "instance") -> ConvNet:
    return hash_fill(network(width, norm), salt(case))


def tolerance(array) -> float:
    return GRADIENT if array.dtype == "float64" else STORED_AS_FLOAT32


def close(value, expected, allowed) -> None:
    assert relative_error(value, expected) < allowed


def matched(net, data, flip: str, metric: str):
    """Loss and image gradient of one class, through the one-pass class gradients."""
    label = torch.tensor([int(data["class_label"])])
    synthetic = torch.from_numpy(data["syn_images"]).double().requires_grad_(True)
    real = class_gradients(net, normalised(data["real_images_u8"]).unsqueeze(0), labels=label)
    expanded = FLIPS.get(flip).expand_classes(synthetic.unsqueeze(0))
    gradients = class_gradients(net, expanded, create_graph=True, labels=label)
    loss = GRADIENT_METRICS.get(metric)(gradients, real).sum()
    return loss, torch.autograd.grad(loss, synthetic)[0], real, gradients


@pytest.mark.parametrize("arm", FLIP_OF)
@pytest.mark.parametrize("metric", ["ours", "mse", "cos"])
def test_case_2a_loss_and_gradient(metric, arm):
    data = golden("case02a_dc_matching_w32")
    loss, gradient, _, _ = matched(stored_network(data), data, FLIP_OF[arm], metric)
    close(loss, data[f"{arm}_{metric}__loss"], LOSS)
    expected = data[f"{arm}_{metric}__grad_syn"]
    close(gradient, expected, tolerance(expected))


@pytest.mark.parametrize("arm", FLIP_OF)
def test_case_2a_per_parameter(arm):
    data = golden("case02a_dc_matching_w32")
    _, _, real, synthetic = matched(stored_network(data), data, FLIP_OF[arm], "ours")
    ours = torch.stack([gradient_distance([s[0]], [r[0]]) for s, r in zip(synthetic, real, strict=True)])
    close(ours, data[f"{arm}_ours_per_param"], LOSS)
    flat = torch.cat([r.flatten() for r in real])
    close(flat, data["gw_real_flat"], STORED_AS_FLOAT32)
    close(torch.cat([s.flatten() for s in synthetic]), data[f"{arm}_gw_syn_flat"], STORED_AS_FLOAT32)


@pytest.mark.parametrize("metric", ["ours", "mse", "cos"])
def test_case_2a_distance_of_given_lists(metric):
    data = golden("case02a_dc_matching_w32")
    sizes = [p.numel() for p in network(32).parameters()]
    lists = [
        [
            part.view_as(p)
            for part, p in zip(torch.from_numpy(data[key]).double().split(sizes), network(32).parameters())
        ]
        for key in ("base_gw_syn_flat", "gw_real_flat")
    ]
    close(gradient_distance(*lists, metric=metric), data[f"list_value_{metric}"], LOSS)


@pytest.mark.parametrize("arm", FLIP_OF)
def test_case_2b_width_128(arm):
    case = "case02b_dc_matching_w128"
    data = golden(case)
    loss, gradient, _, _ = matched(hashed_network(case, 128), data, FLIP_OF[arm], "ours")
    close(loss, data[f"{arm}_ours__loss"], LOSS)
    close(gradient, data[f"{arm}_ours__grad_syn"], GRADIENT)


def unaugmented(classes: int) -> tuple[torch.Tensor, ...]:
    """A draw's codes and values, and a flip's draw, that change nothing."""
    draw = Augmentation("none").draw_classes(torch.Generator(), classes, 32)
    return draw.codes, draw.values, torch.zeros(0, dtype=torch.bool)


def dm_loss(net, data, flip: str):
    """DM's own loss with the recorded network and images in place of drawn ones."""
    classes = len(set(data["real_class"].tolist()))
    images = torch.from_numpy(data["syn_images"]).double().requires_grad_(True)
    real = normalised(data["real_images_u8"]).unflatten(0, (classes, -1))
    method = DM.__new__(DM)
    method.config = SimpleNamespace(batch_real=real.shape[1])
    method.problem = SimpleNamespace(
        num_classes=classes, shape=(3, 32, 32), dtype=torch.float64, precision="fp32", device=torch.device("cpu"),
        images_at=lambda rows: real, batch_sizes=lambda count: [count] * classes,
    )  # fmt: skip
    method.augmentation, method.network = Augmentation("none"), net.train().requires_grad_(False)
    ctx = SimpleNamespace(
        synthetic=lambda chosen: FLIPS.get(flip).expand_classes(images.unflatten(0, (classes, -1))),
    )
    loss = method.objective(ctx, None, *unaugmented(classes))
    return loss, torch.autograd.grad(loss, images)[0]


@pytest.mark.parametrize("tag", ["base", "fyi", "bn", "w128_base", "w128_fyi"])
def test_case_3_distribution_matching(tag):
    case = "case03_dm"
    data = golden(case)
    net = {
        "bn": lambda: hashed_network(case, 32, "batch"),
        "w128": lambda: hashed_network(case, 128),
    }.get(tag.split("_")[0], lambda: stored_network(data))()
    loss, gradient = dm_loss(net, data, FLIP_OF.get(tag.split("_")[-1], "none"))
    close(loss, data[f"{tag}__loss"], LOSS)
    expected = data[f"{tag}__grad_syn"]
    close(gradient, expected, LOSS if expected.dtype == "float64" else STORED_AS_FLOAT32)

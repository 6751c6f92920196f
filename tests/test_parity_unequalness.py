"""The unequalness score, Eq. (5), against golden case 10 (kernels of the reference code)."""

from __future__ import annotations

import functools

import pytest
import torch

from distill.augment import Augmentation, Draw
from distill.augment_ops import OPERATIONS
from distill.fyi import class_unequalness
from golden import golden, hash_fill, load_parameters, normalised, salt
from search_space.convnet import ConvNet, ConvNetConfig

CASE = "case10_unequalness"
SIZES = (1, 10, 50)
NETS = {"w32": 32, "w128hash": 128}


def unequalness(*given, **how) -> torch.Tensor:
    return class_unequalness(*given, **how).mean()


@functools.cache
def network(name: str) -> ConvNet:
    net = ConvNet(ConvNetConfig(channels=3, size=32, classes=10, width=NETS[name], depth=3)).double()
    return hash_fill(net, salt(CASE)) if name.endswith("hash") else load_parameters(net, golden(CASE))


def subset(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    data = golden(CASE)
    return normalised(data["images_u8"][:count]), torch.full((count,), int(data["class_label"]))


@pytest.mark.long
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("distance", ["dc", "dm"])
def test_score(net: str, distance: str) -> None:
    expected = golden(CASE)[f"{net}_{distance}__score"]
    for count, score in zip(SIZES, expected, strict=True):
        images, labels = subset(count)
        assert float(unequalness(images, labels, network(net), distance)) == pytest.approx(float(score), rel=1e-7)


@pytest.mark.long
@pytest.mark.parametrize("name", ["color", "crop", "cutout", "flip", "scale", "rotate"])
def test_score_under_augmentation(name: str) -> None:
    """Both sets through one siamese draw; the recorded scores are float32, where close gradients cancel."""
    data = golden(CASE)
    assert OPERATIONS.get(name).columns == len(data[f"w32_dsa_{name}__draws"])
    draw = Draw.from_values((name, data[f"w32_dsa_{name}__draws"]))
    for count, score in zip(SIZES, data[f"w32_dsa_{name}__score_f32"], strict=True):
        images, labels = subset(count)
        value = unequalness(images, labels, network("w32"), "dc", augmentation=Augmentation(name), draws=[draw])
        assert float(value) == pytest.approx(float(score), rel=1e-3)

"""Golden case 1: every network's forward pass, BatchNorm's statistics, and every parameter count."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from golden import golden, golden_folder, hash_fill, hash_uniform, load_parameters, normalised, relative_error, salt
from search_space import ARCHITECTURES, build, cost, space720
from search_space.convnet import ConvNet, ConvNetConfig, count_parameters

CASE = "case01_networks"
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}

WORDS = {
    **dict.fromkeys(("none",), "none"),
    **{f"{norm}norm": norm for norm in ("batch", "layer", "instance", "group")},
    **{f"{pool}pooling": pool for pool in ("max", "avg")},
    **{act: act for act in ("sigmoid", "relu", "leakyrelu", "swish")},
}
ZOO = {
    "MLP": "mlp",
    "LeNet": "lenet",
    "AlexNet": "alexnet",
    "AlexNetBN": "alexnetbn",
    "VGG11": "vgg11",
    "VGG11BN": "vgg11bn",
    "ResNet18": "resnet18",
    "ResNet18BN": "resnet18bn",
    "ResNet18_AP": "resnet18ap",
    "ResNet18BN_AP": "resnet18bnap",
    "ConvNet3_128": "convnet3",
}


def tags() -> list[str]:
    if not (golden_folder() / f"{CASE}.npz").is_file():
        return ["absent"]
    return sorted(key.removesuffix("__logits") for key in golden(CASE) if key.endswith("__logits"))


def network(tag: str, classes: int) -> torch.nn.Module:
    """The uninitialised float32 network a golden tag names."""
    generator = torch.Generator()
    variant = re.fullmatch(r"hash_w(\d+)_([a-z]+)_([a-z]+)_([a-z]+)_(?:eval|train)", tag)
    if variant:
        norm, act, pool = (WORDS[word] for word in variant.groups()[1:])
        return ConvNet(ConvNetConfig(classes=classes, width=int(variant[1]), norm=norm, act=act, pool=pool))
    depth = re.match(r"hash_w(\d+)_depth(\d)_in_relu_avg", tag)
    if depth:
        size = 64 if tag.endswith("_64px") else 32
        return ConvNet(ConvNetConfig(size=size, classes=classes, width=int(depth[1]), depth=int(depth[2])))
    mnist = re.fullmatch(r"hash_w(\d+)_mnist28_1channel", tag)
    if mnist:
        return ConvNet(ConvNetConfig(channels=1, size=28, classes=classes, width=int(mnist[1])))
    plain = re.fullmatch(r"convnet_w(\d+)_in_relu_avg", tag)
    if plain:
        return ConvNet(ConvNetConfig(classes=classes, width=int(plain[1])))
    return build(ZOO[re.fullmatch(r"hash_(\w+)_eval", tag)[1]], 3, 32, classes, generator)


def images(tag: str, count: int, net: torch.nn.Module) -> torch.Tensor:
    """The float64 input of a tag: hashed numbers for sizes CIFAR-10 does not have, else its images."""
    number = 500 if tag.endswith("_64px") else 501 if "mnist28" in tag else None
    if number is None:
        return normalised(golden(CASE)["images_u8"])[:count]
    shape = (count, net.channels, net.size, net.size)
    return torch.from_numpy(2 * hash_uniform(int(np.prod(shape)), number, salt(CASE)) - 1).reshape(shape)


def prepared(tag: str, classes: int, dtype: torch.dtype) -> torch.nn.Module:
    net = network(tag, classes).to(dtype)
    if tag.startswith("hash_"):
        hash_fill(net, salt(CASE))
    else:
        load_parameters(net, golden(CASE), "w32_param")
    return net.train(tag.endswith("_train"))


@pytest.mark.long
@pytest.mark.parametrize("tag", tags())
@torch.no_grad()
def test_forward_pass(tag):
    data = golden(CASE)
    logits = data[f"{tag}__logits"]
    net = prepared(tag, logits.shape[1], torch.float64)
    inputs = images(tag, len(logits), net)
    embedding = net.embed(inputs)
    assert relative_error(net.classifier(embedding), logits) < TOLERANCE[torch.float64]
    if f"{tag}__embed" in data:
        assert relative_error(embedding, data[f"{tag}__embed"]) < TOLERANCE[torch.float64]
    if f"{tag}__embed_first64" in data:
        found = {
            "first64": embedding[:, :64],
            "mean": embedding.mean(1),
            "std": embedding.std(1, correction=0),
        }
        for name, value in found.items():
            assert relative_error(value, data[f"{tag}__embed_{name}"]) < TOLERANCE[torch.float64]
    for buffer in ("running_mean", "running_var"):
        after = data.get(f"{tag}__{buffer}_after")
        if after is not None:
            value = torch.stack([b for name, b in net.named_buffers() if name.endswith(buffer)])
            assert relative_error(value, after) < TOLERANCE[torch.float64]


@pytest.mark.long
@pytest.mark.parametrize("tag", tags())
@torch.no_grad()
def test_forward_pass_in_float32(tag):
    data = golden(CASE)
    logits = data[f"{tag}__logits_f32"]
    net = prepared(tag, logits.shape[1], torch.float32)
    inputs = images(tag, len(logits), net).float()
    assert relative_error(net(inputs), logits) < TOLERANCE[torch.float32]


def test_parameter_counts_of_the_720():
    data = golden(CASE)
    expected = {}
    for spec, value in zip(data["count720_spec"], data["count720"], strict=True):
        width, depth, act, norm, pool = str(spec).split("/")
        expected[space720.Point(int(width), int(depth), WORDS[norm], WORDS[act], WORDS[pool])] = int(value)
    assert {point: space720.parameters(point) for point in space720.SPACE} == expected


def test_parameter_counts_of_the_zoo():
    data = golden(CASE)
    for key, value in zip(data["count_names"], data["count_values"], strict=True):
        name, _, classes = str(key).rpartition("_")
        assert cost(ZOO[name], 3, 32, int(classes)).parameters == int(value), key
    assert set(ZOO.values()) <= set(ARCHITECTURES)


def test_closed_count_is_that_of_the_golden_weights():
    stored = sum(value.size for key, value in golden(CASE).items() if key.startswith("w32_param"))
    assert count_parameters(ConvNetConfig(width=32)) == stored

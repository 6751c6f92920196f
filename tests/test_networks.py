"""Contract of every registered architecture, and the ConvNet, initialisation and names in detail."""

from __future__ import annotations

import itertools
import math
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import search_space
from benchmarks.twins.network import one_by_one
from fyi_bench.errors import DataError, UnknownNameError, UsageError
from fyi_bench.rng import stream
from search_space import ARCHITECTURES, build, cost, describe, names
from search_space.architectures import convnet_config, default_depth, forward_flops
from search_space.convnet import ACTS, NORMS, POOLS, ConvNet, ConvNetConfig, count_flops
from search_space.init import construct, initialise

CLASSES = 7
# the deepest ConvNet exists from 64 px on; sizes beyond the published ones only where they take a path of their own
SIZES = [
    *((name, 1, 28) for name in ARCHITECTURES if name != "convnet6" and not name.endswith("bn")),
    *((name, 3, 32) for name in ARCHITECTURES if name != "convnet6"),
    *((name, 3, 64) for name in ("convnet", "convnet6", "mlp", "lenet", "alexnet", "vgg11", "resnet18")),
    *((name, 3, 128) for name in ("convnet", "convnet6", "mlp", "lenet")),
    *((name, 3, size) for name in ("convnet", "lenet", "alexnet", "resnet18ap") for size in (16, 45)),
]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=stream(seed, "test images"), dtype=torch.float64).to(dtype)


def global_state() -> tuple:
    return torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state())


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(name == other and torch.equal(x, y) for (name, x), (other, y) in pairs)


@pytest.mark.long
@pytest.mark.parametrize(("name", "channels", "size"), SIZES, ids=lambda value: str(value))
def test_contract(name, channels, size):
    before = global_state()
    net = build(name, channels, size, CLASSES, stream(3, "net"))
    images = draw(2, channels, size, size)
    logits = net(images)
    assert logits.shape == (2, CLASSES)
    assert net.training
    nn.functional.cross_entropy(logits, torch.tensor([0, CLASSES - 1])).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())
    assert global_state() == before, "building or running the network moved a global generator"
    net.eval()
    with torch.no_grad():
        embedding = net.embed(images)
        assert embedding.shape == (2, net.embed_dim)
        torch.testing.assert_close(net.classifier(embedding), net(images))
        one = net(images[:1])
        torch.testing.assert_close(one, net(images)[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if n != "convnet6"])
@torch.no_grad()
def test_contract_of_generators_types_and_formats(name):
    net = build(name, 3, 32, CLASSES, stream(3, "net")).eval()
    assert same(net, build(name, 3, 32, CLASSES, stream(3, "net")))
    assert not same(net, build(name, 3, 32, CLASSES, stream(4, "net")))
    assert sum(p.numel() for p in net.parameters()) == cost(name, 3, 32, CLASSES).parameters
    assert list(net.state_dict())[-2:] == ["classifier.weight", "classifier.bias"]
    assert describe(name)
    images = draw(2, 3, 32, 32)
    logits = net(images)
    channels_last = net.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(channels_last, logits, rtol=1e-4, atol=1e-5)
    wide = net.double()(images.double())
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide.float(), logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["convnet", "mlp", "vgg11"])
def test_images_of_another_shape_are_named(name):
    net = build(name, 3, 32, 10, stream(0, "net"))
    with pytest.raises(DataError, match=r"built for images \[N, 3, 32, 32\], got \[2, 1, 28, 28\]"):
        net(draw(2, 1, 28, 28))


# ---- ConvNet ---------------------------------------------------------------------------------------


def small(norm: str, act: str, pool: str, depth: int = 2) -> ConvNet:
    config = ConvNetConfig(channels=2, size=4, classes=3, width=4, depth=depth, norm=norm, act=act, pool=pool)
    return construct(lambda: ConvNet(config), stream(1, "small")).double()


@pytest.mark.parametrize(("norm", "act", "pool"), list(itertools.product(NORMS, ACTS, POOLS)))
def test_second_derivatives(norm, act, pool):
    net = small(norm, act, pool)
    images = draw(3, 2, 4, 4, dtype=torch.float64).requires_grad_()

    def matching(images):
        loss = nn.functional.cross_entropy(net(images), torch.tensor([0, 1, 2]))
        return sum(g.square().sum() for g in torch.autograd.grad(loss, list(net.parameters()), create_graph=True))

    (exact,) = torch.autograd.grad(matching(images), images)
    direction = draw(*images.shape, seed=5, dtype=torch.float64)
    with torch.enable_grad():
        ahead, behind = matching(images + 1e-6 * direction), matching(images - 1e-6 * direction)
    numeric = float((ahead - behind).detach()) / 2e-6
    assert numeric == pytest.approx(float((exact * direction).sum()), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize(("norm", "pool"), list(itertools.product(NORMS, POOLS)))
@torch.no_grad()
def test_features_per_block_are_what_hooks_see(norm, pool):
    net = small(norm, "relu", pool).eval()
    images = draw(3, 2, 4, 4, dtype=torch.float64)
    seen = []
    for block in net.blocks:
        block.act.register_forward_hook(lambda module, inputs, output: seen.append(output))
        block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    embedding = net.embed(images)
    hooked, seen[:] = list(seen), []
    features = [tensor for block in net.features_per_block(images) for tensor in block]
    assert len(features) == len(hooked) == 4
    for found, expected in zip(features, hooked, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(features[-1].flatten(1), embedding, rtol=1e-12, atol=1e-12)
    free = small(norm, "relu", pool).eval()  # without hooks both go the fused way
    assert torch.equal(free.features_per_block(images)[-1].pooled.flatten(1), free.embed(images))
    assert bool((features[0] >= 0).all())


@pytest.mark.long
@pytest.mark.parametrize("name", ["alexnetbn", "vgg11", "vgg11bn", "resnet18ap", "resnet18bn"])
def test_networks_of_the_zoo_equal_their_modules_one_by_one(name):
    results = []
    for plain in (False, True):
        net = build(name, 3, 32, 10, stream(0, "net")).double()
        net = one_by_one(net) if plain else net
        images = draw(2, 3, 32, 32, dtype=torch.float64).requires_grad_(True)
        out = net(images)
        gradients = torch.autograd.grad(out.square().sum(), [images, *net.parameters()])
        results.append([out, *gradients, *net.buffers(), net.eval()(images)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if n != "convnet6"])
def test_nothing_is_done_in_place(name):
    net = build(name, 3, 32, 10, stream(0, "net"))
    outputs = []
    for module in net.modules():
        module.register_forward_hook(lambda module, inputs, output: outputs.append((output, output._version)))
    net(draw(2, 3, 32, 32))
    assert len(outputs) > 3
    assert all(output._version == version for output, version in outputs)


def test_parameters_come_block_by_block():
    keys = [key for key, _ in build("convnet2", 3, 32, 10, stream(0, "net")).named_parameters()]
    block = ["conv.weight", "conv.bias", "norm.weight", "norm.bias"]
    assert keys == [f"blocks.{b}.{key}" for b in range(2) for key in block] + ["classifier.weight", "classifier.bias"]


def test_bfloat16_and_channels_last():
    net = build("convnet", 3, 32, 10, stream(0, "net"))
    images = draw(2, 3, 32, 32)
    exact = net(images)
    last = net.to(torch.bfloat16, memory_format=torch.channels_last)
    found = last(images.bfloat16().to(memory_format=torch.channels_last))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"depth": 6}, UsageError, "Use depth 5 or less, or no pooling"),
        ({"depth": 7, "size": 64}, UsageError, "Use depth 6 or less"),
        ({"width": 30, "norm": "group"}, UsageError, "width 30 is not a multiple of 4"),
        ({"width": 0}, UsageError, "width >= 1"),
        ({"norm": "instanse"}, UnknownNameError, "Did you mean 'instance'"),
        ({"act": "gelu"}, UnknownNameError, "Unknown activation 'gelu'"),
        ({"pool": "average"}, UnknownNameError, "Did you mean 'avg'"),
    ],
)
def test_impossible_convnets(settings, error, text):
    with pytest.raises(error, match=text):
        ConvNetConfig(**settings)
    assert ConvNetConfig(depth=6, pool="none").map_size == 32


# ---- initialisation --------------------------------------------------------------------------------


def constructed(config: ConvNetConfig, seed: int) -> ConvNet:
    """The plain twin: PyTorch's own constructors, from a seeded default generator that is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return ConvNet(config)


@pytest.mark.parametrize("norm", list(NORMS))
def test_initialise_draws_what_pytorch_constructors_draw(norm):
    config = ConvNetConfig(width=16, norm=norm)
    fast = construct(lambda: ConvNet(config), torch.Generator().manual_seed(11)).state_dict()
    for key, plain in constructed(config, 11).state_dict().items():
        torch.testing.assert_close(fast[key], plain, rtol=0, atol=1e-7, msg=key)


def test_uniform_bounds_and_spread():
    net = build("resnet18", 3, 32, 10, stream(0, "net"))
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in layers:
        weight = layer.weight.detach()
        fan_in = weight[0].numel()
        assert float(weight.abs().max()) <= 1 / math.sqrt(fan_in)
        assert float(weight.std()) == pytest.approx(1 / math.sqrt(3 * fan_in), rel=0.05)
        assert abs(float(weight.mean())) < 4 / math.sqrt(3 * fan_in * weight.numel())
    assert len(layers) == 21


def test_initialising_again_equals_building_and_resets_statistics():
    net = build("convnetbn", 3, 32, 10, stream(0, "net"))
    net(draw(4, 3, 32, 32))
    assert not same(net, build("convnetbn", 3, 32, 10, stream(0, "net")))
    before = global_state()
    initialise(net, stream(0, "net"))
    assert global_state() == before
    assert same(net, build("convnetbn", 3, 32, 10, stream(0, "net")))
    wide = initialise(build("convnetbn", 3, 32, 10, stream(1, "net")).double(), stream(0, "net"))
    assert same(wide, net.double())


def test_layers_of_others_reset_themselves_from_the_generator():
    def make(seed: int) -> nn.Module:
        return construct(lambda: nn.Sequential(nn.Linear(3, 3), nn.Embedding(5, 3)), stream(seed, "x"))

    before = global_state()
    assert same(make(0), make(0))
    assert not torch.equal(make(0)[1].weight, make(1)[1].weight)
    assert float(make(0)[1].weight.detach().std()) > 0.1
    assert global_state() == before

    class Token(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.ones(2))

    with pytest.raises(UsageError, match=r"Token has parameters but no reset_parameters\(\)"):
        initialise(Token(), stream(0, "x"))

    class Halved(nn.Linear):
        def reset_parameters(self):
            nn.init.constant_(self.weight, 0.5)

    layer = construct(lambda: Halved(4, 2, bias=False), stream(0, "x"))
    assert bool((layer.weight == 0.5).all())


# ---- names -----------------------------------------------------------------------------------------


def test_variants_are_spelled_in_any_order():
    config = convnet_config("convnet-w64-batch", 3, 32, 10)
    assert config == ConvNetConfig(width=64, norm="batch")
    assert config == convnet_config("convnetbn-w64", 3, 32, 10) == convnet_config("convnet3-batch-w64", 3, 32, 10)
    full = convnet_config("convnet-d2-nopool-w32-nonorm-swish", 1, 28, 10)
    assert full == ConvNetConfig(1, 28, 10, width=32, depth=2, norm="none", act="swish", pool="none")
    assert names.spell(width=32, depth=2, norm="none", act="swish", pool="none") == "w32-d2-nonorm-swish-nopool"
    assert build("convnet-w64-batch", 3, 32, 10, stream(0, "x")).config == config
    assert "w64-batch" in describe("convnet-w64-batch")


def test_plain_convnet_has_the_published_depth_for_a_size():
    assert {size: default_depth(size) for size in (16, 28, 32, 48, 64, 96, 128, 224, 256)} == {
        **dict.fromkeys((16, 28, 32, 48), 3),
        **dict.fromkeys((64, 96), 4),
        **dict.fromkeys((128, 224), 5),
        256: 6,
    }
    assert convnet_config("convnet", 3, 64, 200).depth == 4
    assert convnet_config("convnet3", 3, 64, 200).depth == 3


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("convnett", UnknownNameError, "Did you mean 'convnet'"),
        ("convnett3", UnknownNameError, "Did you mean 'convnet3'"),
        ("resnet17", UnknownNameError, "Did you mean 'resnet18'"),
        ("convnet-leakyrely", UnknownNameError, "Unknown part of a ConvNet name 'leakyrely'. Did you mean 'leakyrelu'"),
        ("convnet3-d4", UsageError, "sets the depth to 4, but it is already 3"),
        ("convnet-w0", UnknownNameError, "'w0'"),
        ("torchvision:resnet51", UnknownNameError, "Did you mean 'resnet50'"),
        ("torchvision:squeezenet1_0", UsageError, "does not end in a linear layer"),
        ("torchvision:vit_h_14", UsageError, "cannot take images of 3x32x32: Input shape indivisible by patch size"),
    ],
)
def test_unknown_names(name, error, text):
    with pytest.raises(error, match=text):
        build(name, 3, 32, 10, stream(0, "x"))


def test_names_come_without_torch():
    code = "import sys, search_space, search_space.names; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
    with pytest.raises(UsageError, match="'vgg11' is not a ConvNet: VGG-11"):
        convnet_config("vgg11", 3, 32, 10)


def test_a_network_of_someone_else(monkeypatch):
    def tiny(channels, size, classes):
        """Two lines of theirs."""
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * size**2, classes))

    monkeypatch.setitem(ARCHITECTURES._entries, "tiny", tiny)
    before = global_state()
    net = build("tiny", 1, 4, 2, stream(0, "x"))
    assert same(net, build("tiny", 1, 4, 2, stream(0, "x")))
    assert not same(net, build("tiny", 1, 4, 2, stream(1, "x")))
    assert cost("tiny", 1, 4, 2) == (34, 64)
    assert describe("tiny") == "Two lines of theirs."
    assert global_state() == before


@pytest.mark.parametrize(
    ("model", "channels", "size"),
    [("resnet18", 1, 32), ("mobilenet_v3_small", 3, 32), ("swin_t", 3, 32)],
)
def test_torchvision_models(model, channels, size):
    before = global_state()
    net = build(f"torchvision:{model}", channels, size, CLASSES, stream(0, "x"))
    images = draw(2, channels, size, size)
    logits = net(images)
    assert logits.shape == (2, CLASSES)
    assert torch.equal(net.train()(images), net(images)), "training mode is not deterministic"
    logits.sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert global_state() == before
    assert net.embed(images).shape == (2, net.embed_dim)


def test_torchvision_weights_come_from_the_generator():
    first, again, other = (build("torchvision:shufflenet_v2_x0_5", 3, 32, 2, stream(seed, "x")) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


# ---- numbers ---------------------------------------------------------------------------------------

FINGERPRINTS = {  # version -> sum of the absolute logits in float64
    2: {  # the numbers of version 1 in float64: only rounding changed
        "convnet-w8": 4.753281094886312,
        "convnet-w8-layer-sigmoid-max": 4.721042812562986,
        "mlp": 1.7759834948833484,
        "lenet": 1.2242257361675004,
        "alexnetbn": 8.878683948423209,
        "vgg11": 16.35389688330352,
        "resnet18ap": 12.269726893592486,
    }
}


def test_fingerprint_of_the_numbers():
    """Fails when a network's numbers change: then bump search_space.NUMERICS_VERSION and record the new ones."""
    images = torch.arange(2 * 3 * 32 * 32, dtype=torch.float64).reshape(2, 3, 32, 32) % 101 / 50 - 1
    expected, found = FINGERPRINTS[search_space.NUMERICS_VERSION], {}
    for name in expected:
        net = build(name, 3, 32, 10, stream(0, "fingerprint")).double()
        found[name] = float(net(images).detach().abs().sum())
    assert found == pytest.approx(expected, rel=1e-9)


def test_operations_by_hand():
    config = ConvNetConfig(channels=1, size=28, classes=10, width=8, depth=2)
    first, second, head = 8 * 9 * 32**2, 8 * 8 * 9 * 16**2, 8 * 8**2 * 10
    assert count_flops(config) == 2 * (first + second + head)
    assert cost("convnet-w8-d2", 1, 28, 10).flops == count_flops(config)


@pytest.mark.parametrize("name", ["convnet", "convnet4", "convnetbn-w64", "convnet-w16-d2-max", "vgg11", "mlp"])
def test_forward_operations_are_those_that_are_counted(name):
    assert forward_flops(name, 3, 32, 10) == cost(name, 3, 32, 10).flops

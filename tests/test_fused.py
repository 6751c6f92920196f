"""Fused norm-activation-pooling against PyTorch's modules: values, first and second derivatives."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch
from torch import nn

from fyi_bench.rng import stream
from search_space import build, fused, native
from search_space.convnet import ACTS, NORMS, POOLS, ConvNet, ConvNetConfig
from search_space.init import construct

COMPILED = native.library(fused.SOURCE) is not None
needs_compiler = pytest.mark.skipif(not COMPILED, reason="no C++ compiler here: PyTorch's own operations are used")
KNOWN = [*itertools.product(NORMS, ACTS, POOLS)]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=stream(seed, "fused"), dtype=torch.float64)


def weighted(tensors) -> torch.Tensor:
    """A scalar that depends on every entry, not linearly."""
    return sum((t * draw(*t.shape, seed=k)).sum() + t.square().sum() for k, t in enumerate(tensors))


def derivatives(function, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Output, gradients, and gradients of a function of the gradients."""
    out = function(inputs[0])
    first = torch.autograd.grad(weighted([out]), inputs, create_graph=True)
    return [out, *first, *torch.autograd.grad(weighted(first), inputs)]


def plain(norm: str, act: str, pool: str, width: int, size: int) -> nn.Sequential:
    module = nn.Sequential(NORMS[norm](width, size), ACTS[act](), POOLS[pool]()).double()
    for k, parameter in enumerate(module.parameters()):
        parameter.data = draw(*parameter.shape, seed=10 + k)
    return module


def fused_of(module: nn.Sequential):
    return lambda maps: fused.norm_act_pool(maps, *fused.affine_of(module[0]), fused.plan(maps, *module))


@needs_compiler
@pytest.mark.parametrize("width", [4, 44])  # 44: whole vectors and what is left of them
@pytest.mark.parametrize(("norm", "act", "pool"), KNOWN)
def test_equals_the_modules(norm, act, pool, width):
    module = plain(norm, act, pool, width, 6)
    inputs = [draw(3, width, 6, 6).requires_grad_(True), *module.parameters()]
    for ours, theirs in zip(derivatives(fused_of(module), inputs), derivatives(module, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    # without create_graph
    first = [torch.autograd.grad(weighted([function(inputs[0])]), inputs) for function in (fused_of(module), module)]
    for ours, theirs in zip(*first, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@needs_compiler
@pytest.mark.parametrize(("norm", "act"), [("instance", "leakyrelu"), ("batch", "swish"), ("layer", "sigmoid")])
def test_derivatives_numerically(norm, act):
    module = plain(norm, act, "avg", 2, 4)
    inputs = (draw(2, 2, 4, 4).requires_grad_(True), *module.parameters())
    how = fused.plan(inputs[0], *module)
    assert torch.autograd.gradcheck(lambda *given: fused.norm_act_pool(*given, how), inputs)
    assert torch.autograd.gradgradcheck(lambda *given: fused.norm_act_pool(*given, how), inputs)


@needs_compiler
@pytest.mark.parametrize("act", ["relu", "sigmoid"])
@pytest.mark.parametrize("norm", ["instance", "layer", "batch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_types_follow_float64(dtype, norm, act):
    module = plain(norm, act, "avg", 40, 8)
    maps = draw(2, 40, 8, 8) + 5  # far from zero: the variance must not cancel
    exact = module(maps)
    maps = maps.to(dtype).requires_grad_(True)
    found = fused_of(module.float())(maps)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]
    torch.testing.assert_close(found.double(), exact, rtol=tolerance, atol=tolerance)
    exactly = maps.detach().double().requires_grad_(True), plain(norm, act, "avg", 40, 8)
    results = []
    for given, function in ((maps, fused_of(module)), exactly):
        (gradient,) = torch.autograd.grad(function(given).double().square().sum(), given, create_graph=True)
        results.append([gradient, *torch.autograd.grad(gradient.double().square().sum(), given)])
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == dtype
        error = (ours.double() - theirs).norm() / theirs.norm()
        assert error < {torch.float32: 1e-4, torch.bfloat16: 0.1}[dtype]


@needs_compiler
@pytest.mark.parametrize("act", ["sigmoid", "swish"])
def test_smooth_activations_at_their_ends(act):
    module = plain("none", act, "none", 4, 4).float()
    maps = torch.tensor([-1e30, -800.0, -100.0, -88.0, -1e-8, 0.0, 1e-8, 17.0, 88.0, 1e30, float("inf"), float("nan")])
    maps = maps.repeat_interleave(4).view(12, 4, 1, 1)
    found, expected = (function(maps) for function in (fused_of(module), module))
    torch.testing.assert_close(found, expected, rtol=3e-7, atol=1e-35, equal_nan=True)
    wide = torch.linspace(-700, 700, 1001, dtype=torch.float64).view(1, 1, 1, -1)
    module = plain("none", act, "none", 1, 1)
    torch.testing.assert_close(fused_of(module)(wide), module(wide), rtol=1e-15, atol=0)


@needs_compiler
@pytest.mark.parametrize("act", ["relu", "sigmoid"])
def test_running_statistics_follow_and_are_used(act):
    ours, theirs = (plain("batch", act, "avg", 20, 6) for _ in range(2))
    for step in range(3):
        maps = 3 * draw(4, 20, 6, 6, seed=step) + 2
        fused_of(ours)(maps)
        theirs(maps)
    for name, value in theirs[0].state_dict().items():
        torch.testing.assert_close(ours[0].state_dict()[name], value, rtol=1e-12, atol=1e-12)
    assert int(ours[0].num_batches_tracked) == 3
    for module in (ours, theirs):
        module.eval()
    inputs = [draw(3, 20, 6, 6).requires_grad_(True), *ours.parameters()]
    twins = [inputs[0], *theirs.parameters()]
    for found, expected in zip(derivatives(fused_of(ours), inputs), derivatives(theirs, twins), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    # without create_graph
    first = [
        torch.autograd.grad(weighted([f(given[0])]), given) for f, given in ((fused_of(ours), inputs), (theirs, twins))
    ]
    for found, expected in zip(*first, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert int(ours[0].num_batches_tracked) == 3  # reading them does not move them


@needs_compiler
def test_norms_that_are_not_known_go_by_their_modules():
    maps, rest = draw(2, 8, 4, 4), (nn.ReLU(), nn.Identity())
    unknown = (
        nn.BatchNorm2d(8, affine=False),
        nn.BatchNorm2d(8, track_running_stats=False),
        nn.BatchNorm2d(8, momentum=None),
        nn.LayerNorm([4]),
        nn.LayerNorm([8, 4, 4], elementwise_affine=False),
        nn.InstanceNorm2d(8),
    )
    assert [fused.plan(maps, norm, *rest) for norm in unknown] == [None] * len(unknown)
    assert not fused.plan(maps, nn.LayerNorm([8, 4, 4]), *rest).fits(draw(2, 8, 2, 2))
    batch = fused.plan(maps, nn.BatchNorm2d(8), *rest)
    assert batch.fits(maps)
    assert not batch.fits(draw(1, 8, 1, 1))  # one value has no variance: PyTorch says so


@needs_compiler
@pytest.mark.parametrize(("norm", "act"), [("group", "relu"), ("batch", "relu"), ("layer", "sigmoid")])
def test_threads_change_nothing(norm, act):
    module, maps = plain(norm, act, "max", 8, 8), draw(5, 8, 8, 8).requires_grad_(True)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            inputs = [maps, *module.parameters()]
            gradients = torch.autograd.grad(weighted([fused_of(module)(maps)]), inputs)
            results.append([*gradients, *derivatives(fused_of(module), [maps])])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def network(norm: str = "instance", act: str = "relu", size: int = 8) -> ConvNet:
    config = ConvNetConfig(size=size, classes=3, width=8, depth=2, norm=norm, act=act)
    return construct(lambda: ConvNet(config), stream(0, "net")).double()


@pytest.mark.parametrize("norm", list(NORMS))
@pytest.mark.parametrize("act", ["relu", "sigmoid"])
@pytest.mark.parametrize("size", [8, 10, 28])  # 10: an odd map in the second block; 28: padded to 32
def test_networks_equal_their_plain_twins(norm, act, size):
    net, twin = network(norm, act, size), network(norm, act, size)
    for block in twin.blocks:  # a hook asks for the modules one by one
        block.act.register_forward_hook(lambda module, inputs, output: None)
        block.conv.__class__ = nn.Conv2d
    results = []
    for model in (net, twin):
        images = draw(3, 3, size, size).requires_grad_(True)
        parameters = list(model.parameters())
        found = derivatives(model, [images, *parameters])
        model.eval()
        plain = images.detach()
        by_parameters = derivatives(lambda given, model=model, plain=plain: model(plain), parameters)
        results.append([*found, model(images), *by_parameters, *model.buffers()])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    assert list(net.state_dict()) == list(twin.state_dict())


@needs_compiler
@pytest.mark.parametrize("changed", ["instance", "batch", "layer", "sigmoid"])
def test_the_network_takes_the_fused_way(changed, monkeypatch):
    calls = []
    original = fused._call
    monkeypatch.setattr(fused, "_call", lambda name, *given: (calls.append(name), original(name, *given)))
    net = build(f"convnet-w8-d2-{changed}", 3, 8, 2, stream(0, "net"))
    images = draw(2, 3, 8, 8).float().requires_grad_(True)
    (gradient,) = torch.autograd.grad(net(images).square().sum(), images, create_graph=True)
    gradient.square().sum().backward()
    found = sorted(name for name in calls if name != "elements")
    assert found == ["backward"] * 4 + ["forward"] * 2 + ["second"] * 2  # twice a layer: it is differentiated too


def test_function_transforms_fall_back_to_the_modules():
    net = network().requires_grad_(False)
    images = draw(3, 3, 8, 8)
    together = torch.func.vmap(lambda image: net(image.unsqueeze(0)).squeeze(0))(images)
    torch.testing.assert_close(together, net(images), rtol=1e-10, atol=1e-10)
    by_transform = torch.func.grad(lambda x: net(x).square().sum())(images)
    images.requires_grad_(True)
    torch.testing.assert_close(by_transform, torch.autograd.grad(net(images).square().sum(), images)[0])


@pytest.mark.long
def test_without_a_compiler_it_says_so_once_and_goes_on(tmp_path):
    code = (
        "import search_space, torch; from fyi_bench.rng import stream;"
        "net = search_space.build('convnet-w8-d2', 3, 8, 2, stream(0, 'x'));"
        "print(net(torch.ones(2, 3, 8, 8)).shape, net(torch.ones(2, 3, 8, 8)).shape)"
    )
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert found.stdout.count("torch.Size([2, 2])") == 2
    assert found.stderr.count("no C++ compiler") == 1
    assert len(found.stderr.strip().splitlines()) == 1


@needs_compiler
def test_a_broken_source_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "broken.cpp"
    source.write_text("int answer( {")
    assert native.library(source) is None
    said = capsys.readouterr().err
    assert "broken.cpp" in said
    assert "PyTorch's own operations are used" in said
    assert not list(tmp_path.rglob("*.so"))


@needs_compiler
def test_libraries_are_kept_by_their_content(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "answer.cpp"
    answers = []
    for answer in (1, 2):
        source.write_text(f'extern "C" int answer() {{ return {answer}; }}')
        native.library.cache_clear()
        answers.append(native.library(source).answer())
    native.library.cache_clear()
    assert answers == [1, 2]
    assert len(list(tmp_path.rglob("answer-*.so"))) == 2


@needs_compiler
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("narrow", [False, True])
def test_maps_are_channels_last_from_the_first_convolution_on(channels, narrow):
    network = build("convnet-w32-d2", channels, 28, 10, torch.Generator().manual_seed(0))
    seen = []
    for layer in (layer for layer in network.modules() if isinstance(layer, nn.Conv2d)):
        layer.register_forward_hook(lambda layer, inputs, output: seen.append(output))  # so that each runs by itself
    images = draw(6, channels, 28, 28).float()
    with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        found = network(images.requires_grad_(True))
    assert len(seen) == 2
    assert all(maps.is_contiguous(memory_format=torch.channels_last) for maps in seen)
    (gradient,) = torch.autograd.grad(found.float().square().sum(), images)
    exact = images.detach().double().requires_grad_(True)
    logits = network.double()(exact)
    torch.testing.assert_close(found.double(), logits, rtol=0.1 if narrow else 1e-4, atol=0.1 if narrow else 1e-4)
    (exactly,) = torch.autograd.grad(logits.square().sum(), exact)
    alike = torch.nn.functional.cosine_similarity(gradient.double().flatten(), exactly.flatten(), 0)
    assert alike > (0.99 if narrow else 0.99999)

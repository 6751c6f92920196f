"""Convolutions by minimal filtering, by patches and in a block at once: PyTorch's own, values and both derivatives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fyi_bench.rng import stream
from search_space import build, convolution, fused, image_block, native, patches, winograd
from search_space.convnet import ACTS, NORMS, POOLS, ConvNet
from search_space.convolution import Convolution

COMPILED = all(native.library(module.SOURCE) is not None for module in (fused, patches, winograd))
needs_compiler = pytest.mark.skipif(not COMPILED, reason="no C++ compiler here: PyTorch's own operations are used")
PLAIN = ((1, 1), (1, 1), (1, 1))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=stream(seed, "convolution"), dtype=torch.float64)


def plain_backward(grad, x, weight, padding: int = 1) -> list[torch.Tensor]:
    """Gradients by input, weight and bias from PyTorch's own derivative."""
    x, weight = x.detach().requires_grad_(True), weight.detach().requires_grad_(True)
    bias = torch.zeros(len(weight), dtype=x.dtype, requires_grad=True)
    return list(torch.autograd.grad(F.conv2d(x, weight, bias, padding=padding), [x, weight, bias], grad))


def assert_equal(found, expected, tolerance: float = 1e-11, least: float = 1.0) -> None:
    """The same up to rounding of numbers of a tensor's size, or of `least`: what cancels is nothing but rounding."""
    for ours, theirs in zip(found, expected, strict=True):
        atol = tolerance * max(least, float(theirs.abs().max()))
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=atol)


def weighted(tensors) -> torch.Tensor:
    """A scalar that depends on every entry, not linearly."""
    return sum((t * draw(*t.shape, seed=k)).sum() + t.square().sum() for k, t in enumerate(tensors))


def derivatives(function, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Output, gradients, and gradients of a function of the gradients."""
    out = function()
    first = torch.autograd.grad(weighted([out]), inputs, create_graph=True)
    return [out.detach(), *(g.detach() for g in first), *torch.autograd.grad(weighted(first), inputs)]


# sizes: one tile, whole tiles, tiles that reach beyond the map on one or both sides, several panels of columns
SIZES = [(1, 16, 16, 2, 2), (3, 16, 48, 8, 8), (2, 32, 16, 5, 7), (2, 48, 80, 6, 12), (1, 16, 144, 3, 4)]


@needs_compiler
@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("size", SIZES)
def test_minimal_filtering_is_the_convolution(size, tile):
    n, inputs, outputs, height, width = size
    x, weight, bias = draw(n, inputs, height, width), draw(outputs, inputs, 3, 3, seed=1), draw(outputs, seed=2)
    grad = draw(n, outputs, height, width, seed=3)
    found = [
        winograd.convolve(x, weight, bias, tile),
        winograd.convolve(grad, weight, None, tile, turned=True),
        winograd.weight_gradient(x, grad, tile),
    ]
    assert_equal(found, [F.conv2d(x, weight, bias, padding=1), *plain_backward(grad, x, weight)[:2]])


@needs_compiler
@pytest.mark.parametrize("tile", [2, 4])
def test_weight_gradients_of_more_tiles_than_are_transformed_at_once(tile):
    x, grad = draw(40, 16, 32, 32), draw(40, 16, 32, 32, seed=1)  # 10,240 or 2,560 tiles
    expected = plain_backward(grad, x, torch.zeros(16, 16, 3, 3, dtype=torch.float64))[1]
    assert_equal([winograd.weight_gradient(x, grad, tile)], [expected])


@needs_compiler
@pytest.mark.parametrize("tile", [2, 4])
def test_maps_in_any_layout(tile):
    x, weight = draw(2, 16, 8, 8), draw(16, 16, 3, 3, seed=1)
    expected = winograd.convolve(x, weight, None, tile)
    layouts = (x.contiguous(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3))
    for other in (*layouts, torch.cat([x, x], dim=3)[..., :8]):
        assert torch.equal(winograd.convolve(other, weight, None, tile), expected)
    turned = weight.contiguous(memory_format=torch.channels_last)
    assert torch.equal(winograd.convolve(x, turned, None, tile), expected)


@needs_compiler
@pytest.mark.parametrize(("tile", "limit"), [(2, 1e-6), (4, 4e-6)])
def test_fp32_rounds_little(tile, limit):
    x, weight, grad = draw(4, 128, 16, 16).relu(), draw(128, 128, 3, 3, seed=1), draw(4, 128, 16, 16, seed=2)
    exact = [F.conv2d(x, weight, padding=1), *plain_backward(grad, x, weight)[:2]]
    x, weight, grad = x.float(), weight.float(), grad.float()
    found = (
        winograd.convolve(x, weight, None, tile),
        winograd.convolve(grad, weight, None, tile, turned=True),
        winograd.weight_gradient(x, grad, tile),
    )
    for ours, theirs in zip(found, exact, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < limit


@needs_compiler
@pytest.mark.parametrize("tile", [2, 4])
def test_bf16_maps_are_computed_with_in_fp32(tile):
    x, weight, grad = (draw(*shape, seed=k) for k, shape in enumerate([(2, 32, 8, 8), (32, 32, 3, 3), (2, 32, 8, 8)]))
    x, weight, grad = x.bfloat16(), weight.float(), grad.bfloat16()
    wide = winograd.convolve(x.float(), weight, None, tile)
    found = winograd.convolve(x, weight, None, tile)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, wide.bfloat16())
    by_weight = winograd.weight_gradient(x, grad, tile)
    assert by_weight.dtype == torch.float32
    assert torch.equal(by_weight, winograd.weight_gradient(x.float(), grad.float(), tile))


@needs_compiler
@pytest.mark.parametrize("inputs", [1, 2, 3, 4])
@pytest.mark.parametrize(("height", "width", "padding"), [(8, 8, 1), (5, 9, 1), (6, 4, 3), (6, 5, 0)])
def test_patches_are_the_convolution(inputs, height, width, padding):
    x, weight, bias = draw(19, inputs, height, width), draw(48, inputs, 3, 3, seed=1), draw(48, seed=2)
    expected = F.conv2d(x, weight, bias, padding=padding)
    grad = draw(*expected.shape, seed=3)
    for given in (x, x.contiguous(memory_format=torch.channels_last), torch.cat([x, x], dim=2)[:, :, :height]):
        found = [
            patches.convolve(given, weight, bias, padding),
            patches.input_gradient(given, grad, weight, padding),
            *patches.weight_gradient(given, grad, weight, padding),
        ]
        assert_equal(found, [expected, *plain_backward(grad, x, weight, padding)])


@needs_compiler
def test_patches_without_bias():
    x, weight = draw(2, 3, 6, 6), draw(16, 3, 3, 3, seed=1)
    assert_equal([patches.convolve(x, weight, None, 1)], [F.conv2d(x, weight, padding=1)])


@needs_compiler
@pytest.mark.parametrize("inputs", [3, 16, 24])  # patches; minimal filtering; neither with AVX-512
@pytest.mark.parametrize("frozen", ["nothing", "weights", "images"])
def test_both_derivatives_of_a_layer(inputs, frozen):
    ours, theirs = Convolution(inputs, 32, 3, padding=1).double(), nn.Conv2d(inputs, 32, 3, padding=1).double()
    results = []
    for layer in (ours, theirs):
        layer.weight.data, layer.bias.data = draw(32, inputs, 3, 3, seed=1), draw(32, seed=2)
        x = draw(3, inputs, 8, 8).requires_grad_(frozen != "images")
        layer.requires_grad_(frozen != "weights")
        wanted = [t for t in (x, layer.weight, layer.bias) if t.requires_grad]
        results.append(derivatives(lambda layer=layer, x=x: layer(x).sigmoid(), wanted))
    assert_equal(*results)


@pytest.mark.parametrize("frozen", ["neither", "weights", "images"])
def test_convolution_numerically(frozen):
    ours = Convolution(2, 3, 3, padding=1).double()
    x, weight, bias = draw(2, 2, 4, 4), draw(3, 2, 3, 3, seed=1), draw(3, seed=2)
    inputs = (
        x.requires_grad_(frozen != "images"),
        weight.requires_grad_(frozen != "weights"),
        bias.requires_grad_(frozen != "weights"),
    )
    assert torch.autograd.gradcheck(ours._conv_forward, inputs)
    assert torch.autograd.gradgradcheck(ours._conv_forward, inputs)


@needs_compiler
def test_sizes_decide_which_way_a_convolution_goes():
    def tile(images, side, inputs=32, outputs=32, dtype=torch.float32, geometry=PLAIN, kernel=3):
        maps, weight = (
            torch.empty(images, inputs, side, side, dtype=dtype),
            torch.empty(outputs, inputs, kernel, kernel),
        )
        return winograd.tile_for(maps, weight, geometry)

    assert (tile(1, 2), tile(1, 8), tile(1, 16), tile(100, 8)) == (2, 2, 4, 4)
    assert tile(1, 8, inputs=33) == tile(1, 8, outputs=33) == tile(0, 8) == tile(1, 8, kernel=5) == 0
    assert tile(1, 8, geometry=((2, 2), (1, 1), (1, 1))) == tile(1, 8, geometry=((1, 1), (0, 0), (1, 1))) == 0
    assert tile(1, 8, dtype=torch.float16) == 0
    bf16 = tile(1, 16, dtype=torch.bfloat16)
    assert bf16 == (0 if native.library(winograd.SOURCE).has_bf16_matrices() else 4)
    assert tile(1, 2, dtype=torch.bfloat16) == 2  # a matrix unit does not pay

    images, weight = torch.empty(2, 3, 8, 8), torch.empty(32, 3, 3, 3)
    assert patches.fits(images, weight, PLAIN)
    assert not patches.fits(images.half(), weight, PLAIN)
    assert not patches.fits(images, weight, ((1, 1), (1, 2), (1, 1)))
    assert not patches.fits(torch.empty(2, 5, 8, 8), torch.empty(32, 5, 3, 3), PLAIN)


@needs_compiler
def test_a_network_goes_the_fast_ways(monkeypatch):
    calls = []
    for module in (convolution.winograd, convolution.patches, image_block):
        original = module.call
        monkeypatch.setattr(
            module, "call", lambda source, name, *given, call=original: (calls.append(name), call(source, name, *given))
        )
    net = build("convnet-w16-d2", 3, 8, 2, stream(0, "net"))
    images = draw(2, 3, 8, 8).float()

    def taken(function) -> list[str]:
        calls.clear()
        function()
        return sorted(calls)

    with torch.no_grad():
        assert taken(lambda: net(images)) == ["convolve", "image_block_forward"]
    trained = taken(lambda: net(images).sum().backward())
    assert trained == ["convolve", "convolve", "image_block_backward", "image_block_forward", "weight_gradient"]
    images.requires_grad_(True)
    net.requires_grad_(False)
    matched = taken(lambda: net(images).sum().backward())
    assert matched == ["convolve", "convolve", "convolve", "input_gradient"]


KNOWN = [(norm, act, pool) for norm in ("instance", "group", "none") for act in ACTS for pool in POOLS]


def first_block(
    norm: str, act: str, pool: str, kind: type[nn.Conv2d], padding: int = 1, channels: int = 3
) -> nn.Sequential:
    side = 8 + 2 * padding - 2
    conv = kind(channels, 32, 3, padding=padding)
    block = nn.Sequential(conv, NORMS[norm](32, side), ACTS[act](), POOLS[pool]()).double()
    for k, parameter in enumerate(block.parameters()):
        parameter.data = draw(*parameter.shape, seed=10 + k)
    return block


def at_once(block: nn.Sequential, images: torch.Tensor) -> torch.Tensor:
    conv, norm, act, pool = block
    how = fused.plan(images, norm, act, pool)
    assert image_block.fits(images, conv, how)
    return image_block.image_block(images, conv, getattr(norm, "weight", None), getattr(norm, "bias", None), how)


@pytest.mark.long
@needs_compiler
@pytest.mark.parametrize("padding", [1, 3])
@pytest.mark.parametrize(("norm", "act", "pool"), KNOWN)
def test_a_first_block_at_once_is_its_modules(norm, act, pool, padding):
    ours, theirs = (first_block(norm, act, pool, kind, padding) for kind in (Convolution, nn.Conv2d))
    images = draw(19, 3, 8, 8)  # more than the groups that weight gradients are summed in
    found = derivatives(lambda: at_once(ours, images), list(ours.parameters()))
    assert_equal(found, derivatives(lambda: theirs(images), list(theirs.parameters())), least=1e4)
    # without create_graph: the compiled derivative
    for block, function in ((ours, lambda: at_once(ours, images)), (theirs, lambda: theirs(images))):
        block.zero_grad()
        weighted([function()]).backward()
    pairs = [(a.grad, b.grad) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)]
    assert_equal(*zip(*pairs, strict=True), least=1e4)


@needs_compiler
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("height", "width", "padding"), [(8, 8, 1), (6, 10, 0), (4, 20, 1), (28, 28, 3), (32, 32, 1)])
def test_a_first_block_under_autocast_gives_bf16(channels, height, width, padding):
    """Of numbers that bf16 holds the products are exact, whatever multiplies them."""
    block = first_block("instance", "relu", "avg", Convolution, padding, channels).float()
    block[0].weight.data = block[0].weight.data.bfloat16().float()
    images = draw(3, channels, height, width).bfloat16().float()
    wide = at_once(block, images)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = at_once(block, images)
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.float(), wide, rtol=2**-7, atol=1e-5)
    gradients = torch.autograd.grad(narrow.float().square().sum(), list(block.parameters()))
    assert {g.dtype for g in gradients} == {torch.float32}
    expected = torch.autograd.grad(wide.square().sum(), list(block.parameters()))
    assert float((gradients[0] - expected[0]).norm() / expected[0].norm()) < 0.02


@needs_compiler
def test_a_first_block_in_bf16_is_near_that_in_fp32():
    block, images = first_block("instance", "relu", "avg", Convolution).float(), draw(3, 3, 8, 8).float()
    with torch.autocast("cpu", torch.bfloat16):
        narrow = at_once(block, images)
    torch.testing.assert_close(narrow.float(), at_once(block, images), rtol=2e-2, atol=2e-2)


@needs_compiler
def test_a_first_block_goes_one_by_one_where_it_must():
    block = first_block("instance", "relu", "avg", Convolution)
    images = draw(2, 3, 8, 8)
    how = fused.plan(images, *block[1:])
    assert image_block.fits(images, block[0], how)
    assert not image_block.fits(images, block[0], None)
    assert not image_block.fits(images.float(), block[0], how)  # another type than the weights
    assert not image_block.fits(images.requires_grad_(True), block[0], how)
    assert not image_block.fits(draw(2, 3, 7, 7), block[0], how)  # pooling leaves out an odd row
    for norm in ("batch", "layer"):  # statistics of the batch; parameters per element
        assert not image_block.fits(
            images, block[0], fused.plan(images, *first_block(norm, "relu", "avg", Convolution)[1:])
        )
    net = build("convnet-w32-d1", 3, 8, 2, stream(0, "net")).double()
    seen = []
    net.blocks[0].conv.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    net(images.detach())
    assert seen == [(2, 32, 8, 8)]


@needs_compiler
@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("images", [1, 9])
def test_threads_change_nothing(images, dtype, tile):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    x, grad, weight = (
        draw(images, 128, 12, 12).to(dtype),
        draw(images, 128, 12, 12, seed=1),
        draw(128, 128, 3, 3).to(wide),
    )
    pictures, kernels = draw(images, 3, 12, 12).to(wide), draw(128, 3, 3, 3).to(wide)
    block = first_block("instance", "relu", "avg", Convolution).to(wide)

    def everything() -> list[torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = at_once(block, pictures)
        return [
            winograd.convolve(x, weight, None, tile),
            winograd.convolve(x, weight, None, tile, turned=True),
            winograd.weight_gradient(x, grad.to(dtype), tile),
            patches.convolve(pictures, kernels, None, 1),
            patches.input_gradient(pictures, grad.to(wide), kernels, 1),
            *patches.weight_gradient(pictures, grad.to(wide), kernels, 1),
            out,
            *torch.autograd.grad(out.square().sum(), [block[0].weight, block[0].bias]),
        ]

    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(everything())
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@needs_compiler
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_follows_its_float64_twin(precision):
    net, twin = (build("convnet-w64-d3", 3, 32, 10, stream(0, "net")) for _ in range(2))
    assert isinstance(net, ConvNet)
    twin = twin.double()
    for block in twin.blocks:  # PyTorch's convolution, and a hook asks for the modules one by one
        block.conv.__class__ = nn.Conv2d
        block.act.register_forward_hook(lambda module, inputs, output: None)
    images, labels = draw(8, 3, 32, 32), torch.arange(8)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = F.cross_entropy(net(images.float()).float(), labels)
    exact = F.cross_entropy(twin(images), labels)
    matrices = [[p for p in model.parameters() if p.ndim > 1] for model in (net, twin)]
    found, expected = torch.autograd.grad(loss, matrices[0]), torch.autograd.grad(exact, matrices[1])
    limit = {"fp32": (1e-6, 1e-4), "bf16": (1e-2, 0.1)}[precision]
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=limit[0])
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < limit[1]

"""Single operations against PyTorch's, memory of the ways through a trajectory, and the estimate of a search.

Each of `KERNELS` prints its lines as they come; all of them run on a CPU and keep nothing.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import search_space
from benchmarks.run import Request, Say, check_names
from distill.trajectory import GRADIENTS, FlatNetwork, StudentBatch
from downstream.nas import FLOPS_PER_ACTIVATION, architecture_name, effort, representative
from fyi_bench import rng
from fyi_bench.config import PRECISIONS
from fyi_bench.run.deadline import Deadline
from fyi_bench.run.estimate import measure
from fyi_bench.store.record import peak_memory_mib
from search_space.architectures import candidate
from search_space.fused import norm_act_pool, plan
from search_space.native import channels_last
from search_space.pooling import AveragePool2x2
from search_space.space720 import flops, subset
from search_space.winograd import convolve, tile_for, weight_gradient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from search_space.space720 import Point

_PLAIN_CONVOLUTION = ([1, 1], [1, 1], [1, 1])  # stride, padding, dilation
_CONVOLUTIONS = ((1, 128, 8), (1, 128, 16), (10, 128, 16), (32, 128, 16), (256, 128, 16), (50, 256, 32))
_MAPS = ((32, 32), (128, 32), (128, 16), (128, 8))  # width, pixels
_NORMS: dict[str, Callable[[int, int], nn.Module]] = {
    "instance": lambda width, size: nn.GroupNorm(width, width),
    "batch": lambda width, size: nn.BatchNorm2d(width),
    "layer": lambda width, size: nn.LayerNorm([width, size, size]),
}
_IMAGES = 32
_STACK = 4  # networks of one pass
_ORDERS = ("forward", "first", "second")  # derivatives


def _ratio(
    plain: Callable[[], object],
    ours: Callable[[], object],
    rounds: int = 9,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Median of the plain way's time over ours in interleaved pairs; the first one is not counted."""

    def seconds(function: Callable[[], object]) -> float:
        began = clock()
        function()
        return clock() - began

    return median([seconds(plain) / seconds(ours) for _ in range(rounds + 1)][1:])


def _normal(*shape: int, key: int = 0) -> Tensor:
    return torch.randn(shape, generator=rng.stream(0, "bench kernel", key))


def winograd() -> Iterator[str]:
    """3x3 convolutions by minimal filtering: forward, gradients, and the rounding of both ways."""
    yield f"PyTorch's fp32 convolution / this, {torch.get_num_threads()} threads, median of 9 interleaved pairs;"
    yield "root mean square errors of both forward passes against float64, of the result's root mean square"
    for images, channels, size in _CONVOLUTIONS:
        yield _convolution(images, channels, size)


@torch.no_grad()
def _convolution(images: int, channels: int, size: int) -> str:
    x, grad = (channels_last(_normal(images, channels, size, size, key=key)) for key in range(2))
    x, weight = x.relu(), _normal(channels, channels, 3, 3)  # as in a network
    tile = tile_for(x, weight, _PLAIN_CONVOLUTION)

    def backward(*mask: bool) -> Any:
        return torch.ops.aten.convolution_backward(grad, x, weight, None, *_PLAIN_CONVOLUTION, False, [0, 0], 1, mask)

    forward = _ratio(lambda: F.conv2d(x, weight, padding=1), lambda: convolve(x, weight, None, tile))
    by_input = _ratio(lambda: backward(True, False, False), lambda: convolve(grad, weight, None, tile, turned=True))
    by_weight = _ratio(lambda: backward(False, True, False), lambda: weight_gradient(x, grad, tile))
    exact = F.conv2d(x[:4].double(), weight.double(), padding=1)
    ways = F.conv2d(x[:4], weight, padding=1), convolve(x[:4], weight, None, tile)
    plain, ours = (float((way - exact).norm() / exact.norm()) for way in ways)
    return (
        f"  {images:3d} images, {channels} maps of {size} px, tiles of {tile}: forward {forward:.1f}, gradient by the"
        f" input {by_input:.1f}, by the weight {by_weight:.1f}; errors {plain:.0e} and {ours:.0e}"
    )


def pooling() -> Iterator[str]:
    """2x2 average pooling, forward and backward."""
    torch.set_num_threads(1)
    yield "forward + backward on one thread, 32 images, median of 9 interleaved; ratio = F.avg_pool2d / this"

    def both(pool: Callable[[Tensor], Tensor], maps: Tensor) -> None:
        torch.autograd.grad(pool(maps).sum(), maps)

    for width, size in _MAPS:
        maps = torch.ones(_IMAGES, width, size, size, requires_grad=True)
        ratio = _ratio(partial(both, partial(F.avg_pool2d, kernel_size=2), maps), partial(both, AveragePool2x2(), maps))
        yield f"  {width:4d} maps of {size:2d} px: {ratio:.1f}"


def fused(compiled: bool = False) -> Iterator[str]:
    """Norm, activation and pooling as one operation, or by torch.compile, order of derivative by order."""
    torch.set_num_threads(1)
    way = "torch.compile (contiguous)" if compiled else "this (channels-last)"
    yield f"PyTorch's modules (contiguous) / {way}: 32 images, one thread, processor time, median of 5"
    cases: list[tuple[str, type[nn.Module], int, int]] = [("instance", nn.ReLU, *maps) for maps in _MAPS]
    cases += [("batch", nn.ReLU, 128, 16), ("layer", nn.ReLU, 128, 16), ("instance", nn.Sigmoid, 128, 16)]
    for norm, act, width, size in cases:
        module = nn.Sequential(_NORMS[norm](width, size), act(), AveragePool2x2())
        maps = _normal(_IMAGES, width, size, size)
        if compiled:
            torch._dynamo.reset()
            torch._functorch.config.donated_buffer = False  # its reuse of memory forbids asking for second derivatives
            function, given = torch.compile(module, dynamic=False), maps
        else:
            how, (weight, bias) = plan(maps, *module), module.parameters()
            assert how is not None
            function = partial(norm_act_pool, weight=weight, bias=bias, how=how)
            given = maps.contiguous(memory_format=torch.channels_last)
        rivals = (module, maps.requires_grad_(True)), (function, given.requires_grad_(True))
        found = [f"{word} {_of_order(order, module, *rivals)}" for order, word in enumerate(_ORDERS)]
        yield f"  {norm}, {act.__name__}, {width} maps of {size} px: " + ", ".join(found)


_Way = tuple[Callable[[Tensor], Tensor], Tensor]  # a function, and the maps it is given


def _of_order(order: int, module: nn.Module, plain: _Way, ours: _Way) -> str:
    """How many times as fast our way is in derivatives up to this order, or why it has none."""

    def go(function: Callable[[Tensor], Tensor], maps: Tensor) -> None:
        with torch.set_grad_enabled(order > 0):
            out = function(maps)
        if order:
            found = torch.autograd.grad(out.square().sum(), [maps, *module.parameters()], create_graph=order > 1)
        if order > 1:
            torch.autograd.grad(found[0].square().sum(), maps)

    try:
        return f"{_ratio(partial(go, *plain), partial(go, *ours), 5, time.process_time):.1f}"
    except RuntimeError as error:
        return f"none ({str(error).splitlines()[0]})"


def stacked() -> Iterator[str]:
    """Networks of one shape in one grouped pass, each on its own images, against one after the other."""
    torch.set_num_threads(1)
    yield f"{_STACK} ConvNets one after the other / stacked in one pass: a step of 25 images each, one thread,"
    yield "forward + backward, median of 9 interleaved"
    for width in (32, 64, 128):
        name = f"convnet-w{width}"
        networks = [search_space.build(name, 3, 32, 10, rng.stream(key, "network")) for key in range(_STACK)]
        images = [channels_last(_normal(25, 3, 32, 32, key=key)) for key in range(_STACK)]
        labels = torch.arange(25) % 10
        together, weights = in_one_pass(networks)
        ways = partial(_steps_in_turn, networks, images, labels), partial(_step, together, weights, images, labels)
        yield f"  width {width:3d}: {_ratio(*ways):.2f}"


def in_one_pass(networks: Sequence[nn.Module]) -> tuple[Callable[[Sequence[Tensor]], Tensor], list[Tensor]]:
    """Equal ConvNets with instance norm as one: images of each, [n, channels, height, width] -> logits [networks, n,
    classes]; and the weights of all that it uses."""
    count, blocks = len(networks), list(zip(*(list(network.blocks) for network in networks), strict=True))  # type: ignore[arg-type]

    def joined(of: Sequence[Any], *names: str) -> list[Tensor]:
        return [torch.cat([getattr(one, name).detach() for one in of]).requires_grad_(True) for name in names]

    layers = [
        (
            joined([one.conv for one in block], "weight", "bias"),
            joined([one.norm for one in block], "weight", "bias"),
            (nn.GroupNorm(*(2 * [count * block[0].norm.num_channels])), block[0].act, block[0].pool),
        )
        for block in blocks
    ]
    ends: list[Any] = [network.classifier for network in networks]
    head, offset = (
        torch.stack([getattr(end, name).detach() for end in ends]).requires_grad_(True) for name in ("weight", "bias")
    )

    def forward(images: Sequence[Tensor]) -> Tensor:
        maps = channels_last(torch.cat(list(images), dim=1))
        for conv, norm, modules in layers:
            maps = F.conv2d(maps, conv[0], conv[1], padding=1, groups=count)
            how = plan(maps, *modules)
            assert how is not None
            maps = norm_act_pool(maps, weight=norm[0], bias=norm[1], how=how)
        features = maps.unflatten(1, (count, -1)).flatten(2).transpose(0, 1)
        return torch.baddbmm(offset.unsqueeze(1), features, head.mT)

    return forward, [*(weight for conv, norm, _ in layers for weight in (*conv, *norm)), head, offset]


def _steps_in_turn(networks: Sequence[nn.Module], images: Sequence[Tensor], labels: Tensor) -> None:
    for network, shown in zip(networks, images, strict=True):
        torch.autograd.grad(F.cross_entropy(network(shown), labels), list(network.parameters()))


def _step(
    together: Callable[[Sequence[Tensor]], Tensor], weights: Sequence[Tensor], images: Sequence[Tensor], labels: Tensor
) -> None:
    logits = together(images)
    torch.autograd.grad(F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(images))), list(weights))


def trajectory(steps: Sequence[int] = (2, 5, 10, 20, 40)) -> Iterator[str]:
    """Peak memory and time of one match by each gradient, for a growing number of steps."""
    width, images = 32, 100
    yield f"peak resident MiB of one match, ConvNet width {width}, {images} images a step, above the import of torch"
    yield "gradient" + "".join(f"{n:>9} steps" for n in steps)
    for name in GRADIENTS:
        found = ""
        for count in steps:  # memory is never given back, so each is a process of its own
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                mib, seconds = pool.apply(_match, (name, count, width, images))
            found += f"{f'{mib:.0f} ({seconds:.1f} s)':>15}"
        yield f"{name:8}{found}"


def _match(gradient: str, steps: int, width: int, images: int) -> tuple[float, float]:
    """MiB and seconds of one match on images like CIFAR-10's, all of them at each step, on one thread."""
    torch.set_num_threads(1)
    network = FlatNetwork(search_space.build(f"convnet-w{width}", 3, 32, 10, rng.stream(0, "network")))
    shown = torch.randn(images, 3, 32, 32, generator=rng.stream(0, "images"))
    labels = torch.arange(10).repeat_interleave(images // 10)
    start = network.values()
    target = start + 0.01 * torch.randn(len(start), generator=rng.stream(0, "target"))
    batches = [StudentBatch(torch.arange(images), lambda picked: (picked, labels))] * steps
    before, began = peak_memory_mib(), time.perf_counter()
    GRADIENTS[gradient](network, batches, shown, torch.tensor(0.01), start, target)
    return peak_memory_mib() - before, time.perf_counter() - began


def estimate(networks: int = 48) -> Iterator[str]:
    """Networks of the space timed by themselves, against what the times of their representatives make them."""
    points = subset(networks)
    stand_ins = [candidate(representative(point)) for point in points]
    efforts, theirs = (_all(lambda point: effort(point, 3, 32, 10), group) for group in (points, stand_ins))
    arithmetic = _all(lambda point: flops(point, 3, 32, 10), points)
    work = torch.stack([arithmetic, (efforts - arithmetic) / FLOPS_PER_ACTIVATION], dim=1)
    for precision in PRECISIONS:
        one = partial(_train_seconds, precision=precision)
        took, told = _all(one, points), efforts / theirs * _all(one, stand_ins)
        # relative errors count alike, whatever the size of a network
        a, b = torch.linalg.lstsq(work / took[:, None], torch.ones(networks, 1, dtype=torch.float64)).solution[:, 0]
        low, high = (told / took).quantile(torch.tensor([0.1, 0.9], dtype=torch.float64))
        yield (
            f"{precision}, one thread, training {networks} networks: {1e12 * a:.1f} ms a GFLOP, {1e9 * b:.1f} ns an"
            f" activation; estimated / measured: {told.sum() / took.sum():.2f} in all, {low:.2f} to {high:.2f} for"
            " eight networks in ten"
        )


def _train_seconds(point: Point, precision: str) -> float:
    return measure("first", architecture_name(point), (3, 32, 32), 10, "cpu", 1, precision)


def _all(function: Callable, points: Sequence) -> Tensor:
    return torch.tensor([function(point) for point in points], dtype=torch.float64)


KERNELS: dict[str, Callable[[], Iterator[str]]] = {
    "winograd": winograd,
    "pooling": pooling,
    "fused": fused,
    "torch.compile": partial(fused, compiled=True),
    "stacked": stacked,
    "trajectory": trajectory,
    "estimate": estimate,
}


def main(request: Request, stop: Deadline, say: Say) -> dict[str, Any]:
    """Run the kernels named by --only, or all but torch.compile; the record holds their lines."""
    check_names("kernel", request.only, KERNELS)
    lines: dict[str, list[str]] = {}
    for name in request.only or [name for name in KERNELS if name != "torch.compile"]:
        torch.set_num_threads(request.machine.threads)
        say(f"\n{name}")
        lines[name] = []
        for line in KERNELS[name]():
            say(line)
            lines[name].append(line)
            stop.check()
    return {"task": "bench kernels", "threads": request.machine.threads, "lines": lines}

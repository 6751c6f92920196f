"""Trajectory matching: a student takes steps on synthetic images, and the distance of where it ends is differentiated.

The student starts at an expert's weights w_0 and takes N steps w_{k+1} = w_k - a g_k, g_k the gradient of the mean
cross-entropy on the k-th batch of synthetic images. With the expert's later weights w* the loss is
|w_N - w*|² / |w_0 - w*|² (MTT, Cazenavette et al., CVPR 2022, eq. 2). Its gradient with respect to the images and to
the step size a can be had in three ways (`GRADIENTS`):

adjoint  keep the weights w_k, walk back with p_N = dL/dw_N and p_k = p_{k+1} - a H_k p_{k+1}, where H_k p is the
         derivative of <g_k, p>; the images of step k get -a d<g_k, p_{k+1}>/dx, the step size -<g_k, p_{k+1}>. Exact,
         and the activations of one step are held, or those of a part of its batch: a step is computed a second time
         on the way back. On a CPU the last steps, whose images together are no more than such a part, are not: their
         graphs are kept.
unroll   the plain way: one graph through all steps. The same numbers; its memory grows with N.
tesla    p_k = p_N for all k: what the memory-saving code of TESLA (Cui et al., ICML 2023) and of FYI compute. It drops
         the influence of a step on the later ones, so for N > 1 it is not the gradient. FYI's factor 2 is kept;
         TESLA's own repository loses it.

Other students and ends go the same ways (`walk_back`, and `unrolled`, the plain one): a `Descent` may have momentum,
v_k = m v_{k-1} + c g_k and w_{k+1} = w_k - a v_k, c being 1, or 1 - m where the average of the gradients is followed;
or a step size for each step. With r_k = p_{k+1} + m r_{k+1} the images of step k get -a c d<g_k, r_k>/dx, the step
size -c <g_k, r_k>, and p_k = p_{k+1} - a c H_k r_k. What images are decoded from gets its gradient from theirs.

`python -m benchmarks kernels --only trajectory` prints the peak memory of each for growing N.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.captured import Captured
from fyi_bench.errors import DataError

# raised whenever the same batches would give another loss or gradient
NUMERICS = 1

# images of a batch that go through together on a CPU, so that memory does not grow with the batch beyond them. Against
# parts of 32, whole batches of up to 256 took 0.5 to 0.8 of the time for first derivatives (bf16 least), and 0.85 for
# second ones, whose graph needs three times the memory an image
CPU_PART_FIRST, CPU_PART_SECOND = 256, 128

RECORDED_STEPS = 16  # kinds of steps a network keeps

# (chosen images, further inputs of a step) -> (images, labels) as the network sees them
View = Callable[..., tuple[Tensor, Tensor]]


class FlatNetwork:
    """A network as a function of one vector of its parameters, in `named_parameters` order.

    The module is a shell in train mode; its own values are only read by `values`.
    """

    def __init__(self, network: nn.Module):
        self.network = network.train().requires_grad_(False)
        named = dict(network.named_parameters())
        self._names, self._shapes = list(named), [p.shape for p in named.values()]
        self._sizes = [p.numel() for p in named.values()]
        self._recorded: dict[tuple, Captured] = {}
        # batch statistics tie the images of a batch together, so it must go through whole
        self._divisible = not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())

    @property
    def size(self) -> int:
        """Number of parameters P."""
        return sum(self._sizes)

    def values(self) -> Tensor:
        """The module's parameters as a new vector [P]."""
        return torch.cat([p.detach().flatten() for p in self.network.parameters()])

    def logits(self, weights: Tensor, images: Tensor) -> Tensor:
        """Logits [n, C] of images [n, ch, H, W] under weights [P]; differentiable in both."""
        if weights.shape != (self.size,):
            raise DataError(
                f"Weights of {weights.numel()} parameters for a network that has {self.size}.\n"
                "The expert trajectories belong to another model or number of classes."
            )
        pieces = zip(self._names, weights.split(self._sizes), self._shapes, strict=True)
        return torch.func.functional_call(self.network, {n: w.view(s) for n, w, s in pieces}, (images,))

    def loss(self, weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy (scalar)."""
        return F.cross_entropy(self.logits(weights, images), labels)

    def gradient(self, weights: Tensor, images: Tensor, labels: Tensor, bf16: bool = False) -> tuple[Tensor, Tensor]:
        """(mean cross-entropy, its gradient [P]) without a graph; `bf16`: convolutions in that precision."""
        weights = weights.detach().requires_grad_(True)
        loss, total = torch.zeros_like(weights[0].detach()), torch.zeros_like(weights)
        for x, y, share in self._parts(images.detach(), labels, CPU_PART_FIRST):
            with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
                part = self.loss(weights, x, y) * share
            total += torch.autograd.grad(part, weights)[0]
            loss += part.detach()
        return loss, total

    def linearised(self, weights: Tensor, images: Tensor, labels: Tensor, share: float = 1.0) -> Linearised:
        """The gradient of the batch's mean cross-entropy times `share`, and its graph."""
        weights, images = weights.detach().requires_grad_(True), images.detach().requires_grad_(True)
        with torch.enable_grad():
            loss = self.loss(weights, images, labels) * share
            return Linearised(weights, images, torch.autograd.grad(loss, weights, create_graph=True)[0])

    def gradient_along(
        self, weights: Tensor, images: Tensor, labels: Tensor, direction: Tensor, curvature: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """(s, ds/dimages, ds/dweights if `curvature`), s = <gradient of the mean cross-entropy, direction>."""
        along, by_images = torch.zeros_like(direction[0]), []
        by_weights = torch.zeros_like(direction) if curvature else None
        for x, y, share in self._parts(images, labels, CPU_PART_SECOND):
            part, by_x, by_w = self.linearised(weights, x, y, share).along(direction, curvature)
            along += part
            by_images.append(by_x)
            if by_weights is not None and by_w is not None:
                by_weights += by_w
        return along, torch.cat(by_images), by_weights

    def keeps(self, images: Tensor, count: int) -> bool:
        """Whether graphs of so many images like these take no more memory than those of a part of a batch may."""
        return self._in_parts(images) and count <= CPU_PART_SECOND

    def recorded(self, step: Callable[..., Any], view: View) -> Captured:
        """`step(self, view, *tensors)` as a function of the tensors, the same one each time it is asked for."""
        if len(self._recorded) > RECORDED_STEPS:  # views that are made anew each time are not worth keeping
            self._recorded.clear()
        if (step, view) not in self._recorded:
            self._recorded[step, view] = Captured(partial(step, self, view), keep=True)
        return self._recorded[step, view]

    def _parts(self, images: Tensor, labels: Tensor, most: int) -> Iterable[tuple[Tensor, Tensor, float]]:
        """The batch in parts of at most so many images on a CPU, each with its share of the batch's mean."""
        size = most if self._in_parts(images) else len(images)
        for x, y in zip(images.split(size), labels.split(size), strict=True):
            yield x, y, len(x) / len(images)

    def _in_parts(self, images: Tensor) -> bool:
        return self._divisible and images.device.type == "cpu"


@dataclass(frozen=True)
class Linearised:
    """A gradient [P] at `weights` [P] on `images` [n, …], with the graph that leads to both."""

    weights: Tensor
    images: Tensor
    gradient: Tensor

    def along(self, direction: Tensor, curvature: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """(s, ds/dimages, ds/dweights if `curvature`), s = <gradient, direction>; uses the graph up."""
        s = self.gradient @ direction
        by_images, *by_weights = torch.autograd.grad(s, [self.images, self.weights] if curvature else [self.images])
        return s.detach(), by_images, by_weights[0] if curvature else None


@dataclass(frozen=True)
class StudentBatch:
    """What the student sees in one step.

    index: int64 [b], which synthetic images, none twice. view: these images [b, …] and `inputs` -> (images, labels) as
    the network gets them (flipped, augmented); differentiable, and a function of its arguments alone. Steps that share
    a view share a recording on a GPU. multiplier: images that the view makes of each.
    """

    index: Tensor
    view: View
    inputs: tuple[Tensor, ...] = ()
    multiplier: int = 1

    @property
    def size(self) -> int:
        """Images the network gets."""
        return len(self.index) * self.multiplier

    def shown(self, picked: Tensor) -> tuple[Tensor, Tensor]:
        """(images, labels) as the network gets them."""
        return self.view(picked, *self.inputs)


@dataclass(frozen=True)
class Descent:
    """How the student steps: v <- momentum · v + g (averaged: + (1 - momentum) g), w <- w - lr · v.

    lr: scalar, or one for each step [T] (then without momentum).
    """

    lr: Tensor
    momentum: float = 0.0
    averaged: bool = False

    def __post_init__(self) -> None:
        if self.momentum and self.lr.ndim:
            raise ValueError("Step sizes of single steps are not for students with momentum.")

    @property
    def share(self) -> float:
        """c: of a gradient, what enters the velocity at its step."""
        return 1 - self.momentum if self.averaged else 1.0

    def lr_at(self, step: int) -> Tensor:
        return self.lr[step] if self.lr.ndim else self.lr


@dataclass(frozen=True)
class Match:
    """loss: scalar; by_images: dL/dimages [N, …]; by_lr: dL/da, shaped as a; weights: the student's last ones [P]."""

    loss: Tensor
    by_images: Tensor
    by_lr: Tensor
    weights: Tensor


Batches = Sequence[StudentBatch]
# the student's last weights -> (loss there, its gradient)
End = Callable[[Tensor], tuple[Tensor, Tensor]]
# function(network, batches, images, step size, start weights, target weights) giving a Match
GradientOf = Callable[[FlatNetwork, Batches, Tensor, Tensor, Tensor, Tensor], Match]


def adjoint(network: FlatNetwork, batches: Batches, images: Tensor, lr: Tensor, start: Tensor, target: Tensor) -> Match:
    """Exact gradient with the activations of one step in memory."""
    return walk_back(network, batches, images, Descent(lr.detach()), start, near(start, target))


def tesla(network: FlatNetwork, batches: Batches, images: Tensor, lr: Tensor, start: Tensor, target: Tensor) -> Match:
    """The truncated gradient of FYI's published code."""
    return walk_back(network, batches, images, Descent(lr.detach()), start, near(start, target), exact=False)


def unroll(network: FlatNetwork, batches: Batches, images: Tensor, lr: Tensor, start: Tensor, target: Tensor) -> Match:
    """Exact gradient by one graph through all steps."""
    images, lr = images.detach().requires_grad_(True), lr.detach().requires_grad_(True)
    loss, weights = unrolled_loss(network, batches, images, lr, start, target)
    by_images, by_lr = torch.autograd.grad(loss, [images, lr])
    return Match(loss.detach(), by_images, by_lr, weights.detach())


GRADIENTS: dict[str, GradientOf] = {"adjoint": adjoint, "tesla": tesla, "unroll": unroll}


def unrolled_loss(
    network: FlatNetwork, batches: Batches, images: Tensor, lr: Tensor, start: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """(loss, last weights) with their graph through all steps."""
    weights = unrolled(network, batches, images, Descent(lr), start)
    return trajectory_distance(weights, start, target), weights


def unrolled(network: FlatNetwork, batches: Batches, images: Tensor, descent: Descent, start: Tensor) -> Tensor:
    """The student's last weights with their graph through all steps."""
    weights = start.detach().clone().requires_grad_(True)
    velocity = torch.zeros_like(weights)
    for k, batch in enumerate(batches):
        x, y = batch.shown(images[batch.index])
        step = torch.autograd.grad(network.loss(weights, x, y), weights, create_graph=True)[0]
        velocity = descent.momentum * velocity + descent.share * step if descent.momentum else step
        weights = weights - descent.lr_at(k) * velocity
    return weights


def near(start: Tensor, target: Tensor) -> End:
    """The trajectory's distance to `target` as the end of a walk."""

    def end(weights: Tensor) -> tuple[Tensor, Tensor]:
        pull = 2 * (weights - target) / (start - target).square().sum()
        return trajectory_distance(weights, start, target), pull

    return end


def trajectory_distance(weights: Tensor, start: Tensor, target: Tensor) -> Tensor:
    """|weights - target|² / |start - target|² (MTT, eq. 2)."""
    return (weights - target).square().sum() / (start - target).square().sum()


def walk_back(
    network: FlatNetwork,
    batches: Batches,
    images: Tensor,
    descent: Descent,
    start: Tensor,
    end: End,
    exact: bool = True,
) -> Match:
    """Loss at the student's end, and its gradient with the activations of one step in memory; see the file's top.

    exact: without it p_k = p_N for all k (tesla; for students without momentum).
    """
    images, lr, momentum = images.detach(), descent.lr.detach(), descent.momentum
    path, kept, to_come = [start.detach()], {}, sum(batch.size for batch in batches)
    velocity: Tensor | None = None
    for k, batch in enumerate(batches):
        picked = images[batch.index]
        if network.keeps(picked, to_come):
            kept[k] = _KeptStep.take(network, batch, path[k], picked)
            step = kept[k].graph.gradient.detach()
        else:
            step = network.recorded(_forth, batch.view)(path[k], picked, *batch.inputs)
        if momentum:
            step = descent.share * step if velocity is None else momentum * velocity + descent.share * step
            velocity = step
        path.append(path[k] - descent.lr_at(k).detach() * step)
        to_come -= batch.size
    loss, pull = end(path[-1])
    by_images, by_lr = torch.zeros_like(images), torch.zeros_like(lr)
    direction = torch.zeros_like(pull)
    for k in reversed(range(len(batches))):
        batch, curvature = batches[k], exact and k > 0
        scale = descent.lr_at(k).detach() * descent.share if momentum else descent.lr_at(k).detach()
        direction = pull + momentum * direction if momentum else pull
        if k in kept:
            along, by_picked, *by_weights = kept.pop(k).back(scale, direction, curvature)
        else:
            back = network.recorded(_back_exactly if curvature else _back, batch.view)
            along, by_picked, *by_weights = back(path[k], images[batch.index], scale, direction, *batch.inputs)
        if by_weights:
            pull = pull - scale * by_weights[0]
        along = along * descent.share if momentum else along
        if lr.ndim:
            by_lr[k] -= along
        else:
            by_lr -= along
        by_images.index_add_(0, batch.index, by_picked)
    return Match(loss, by_images, by_lr, path[-1])


@dataclass(frozen=True)
class _KeptStep:
    """A step with its graphs: from the images [b, …] to what the network saw, and from there to the gradient."""

    picked: Tensor
    shown: Tensor
    graph: Linearised

    @staticmethod
    def take(network: FlatNetwork, batch: StudentBatch, weights: Tensor, picked: Tensor) -> _KeptStep:
        picked = picked.detach().requires_grad_(True)
        with torch.enable_grad():
            x, y = batch.shown(picked)
        return _KeptStep(picked, x, network.linearised(weights, x, y))

    def back(self, scale: Tensor, direction: Tensor, curvature: bool) -> tuple[Tensor, ...]:
        return _gathered(self.picked, self.shown, self.graph.along(direction, curvature), scale)


def _forth(network: FlatNetwork, view: View, weights: Tensor, picked: Tensor, *inputs: Tensor) -> Tensor:
    """The gradient of a step."""
    return network.gradient(weights, *view(picked, *inputs))[1]


def _back(
    network: FlatNetwork,
    view: View,
    weights: Tensor,
    picked: Tensor,
    scale: Tensor,
    direction: Tensor,
    *inputs: Tensor,
    curvature: bool = False,
) -> tuple[Tensor, ...]:
    """(<g, r>, the gradient of the step's images, H r if `curvature`), r being the direction: see the file's top."""
    picked = picked.detach().requires_grad_(True)
    with torch.enable_grad():
        x, y = view(picked, *inputs)
    return _gathered(picked, x, network.gradient_along(weights, x, y, direction, curvature), scale)


def _gathered(
    picked: Tensor, shown: Tensor, found: tuple[Tensor, Tensor, Tensor | None], scale: Tensor
) -> tuple[Tensor, ...]:
    """What `_back` gives, from <g, r> and its derivatives by what the network saw and by the weights."""
    along, by_shown, by_weights = found
    by_picked = torch.autograd.grad(shown, picked, -scale * by_shown)[0]
    return (along, by_picked) if by_weights is None else (along, by_picked, by_weights)


_back_exactly = partial(_back, curvature=True)

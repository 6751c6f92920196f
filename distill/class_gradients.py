"""Every class's parameter gradients from one forward and one backward pass, differentiable twice.

The loss of class c is the mean cross-entropy of its own images, so the gradient of the sum of all class losses
with respect to a layer's output is, image by image, that of the image's class. Weight gradients of each class are
then one grouped product of layer inputs and output gradients: C classes cost two passes, not 2C.
Holds for networks whose layers treat images independently (batch norm must be in eval mode, as in DC).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fyi_bench.errors import UsageError
from search_space.convolution import Convolution, convolution_backward, convolve, geometry_of

Captured = tuple[nn.Module, torch.Tensor, torch.Tensor]
_BY_INPUT, _BY_WEIGHT = (True, False, False), (False, True, False)  # which of a convolution's gradients


def class_gradients(
    network: nn.Module,
    images: torch.Tensor,
    create_graph: bool = False,
    matrices_only: bool = False,
    labels: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    """Gradients of each class's mean cross-entropy with respect to the network's parameters.

    images: [C, n, ch, H, W], class c's images in row c; labels: int64 [C], default 0 .. C - 1, or [C, n], where the
    images of a row are of several classes.
    Returns one tensor [C, *parameter.shape] a parameter, in `network.parameters()` order, or only those of
    parameters with two or more dimensions when `matrices_only`. With `create_graph` they can be differentiated
    with respect to `images`. Raises UsageError for layers whose gradient is not known here.
    """
    classes, n = images.shape[:2]
    if labels is None:
        labels = torch.arange(classes, device=images.device)
    # frozen until the gradients stand: else their graph would also lead to the weights, one convolution more a layer
    targets = labels.repeat_interleave(n) if labels.ndim == 1 else labels.flatten()
    with _frozen(network):
        layers, logits = _forward(network, images.flatten(0, 1), matrices_only)
        loss = F.cross_entropy(logits, targets, reduction="sum") / n
        output_grads = torch.autograd.grad(loss, [out for _, _, out in layers], create_graph=create_graph)
    by_parameter: dict[int, torch.Tensor] = {}
    with torch.set_grad_enabled(create_graph):
        for (layer, inputs, _), grad in zip(layers, output_grads, strict=True):
            # under autocast the input of a layer may be of a wider type than its output
            for parameter, value in _layer_gradients(layer, inputs.to(grad.dtype), grad, classes, matrices_only):
                key = id(parameter)
                by_parameter[key] = by_parameter[key] + value if key in by_parameter else value
    wanted = [p for p in network.parameters() if not (matrices_only and p.ndim < 2)]
    return [by_parameter[id(p)] for p in wanted]


def _forward(network: nn.Module, x: torch.Tensor, matrices_only: bool) -> tuple[list[Captured], torch.Tensor]:
    """Logits, and (layer, input, output) of every layer with wanted parameters in the order they ran.

    Only these layers are watched: a norm whose parameters nobody wants may run as a part of a fused operation.
    """
    captured: list[Captured] = []

    def keep(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        # weights carry no gradient here, so for real images the graph starts at the first layer's output
        if not output.requires_grad:
            output.requires_grad_(True)
        captured.append((layer, inputs[0], output))
        return output

    leaves = [m for m in network.modules() if next(m.parameters(recurse=False), None) is not None]
    unknown = [type(m).__name__ for m in leaves if type(m) not in _RULES]
    if unknown:
        raise UsageError(f"Class gradients are not known for the layer {unknown[0]}.\nUse another architecture.")
    wanted = [m for m in leaves if not matrices_only or any(p.ndim > 1 for p in m.parameters(recurse=False))]
    hooks = [m.register_forward_hook(keep) for m in wanted]
    try:
        with torch.enable_grad():
            logits = network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return captured, logits


@contextlib.contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    needs = [p for p in network.parameters() if p.requires_grad]
    try:
        for p in needs:
            p.requires_grad_(False)
        yield
    finally:
        for p in needs:
            p.requires_grad_(True)


def _layer_gradients(
    layer: Any, inputs: torch.Tensor, grad: torch.Tensor, classes: int, matrices_only: bool
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    weight_rule = _RULES[type(layer)][0]
    found = []
    if layer.weight is not None and not (matrices_only and layer.weight.ndim < 2):
        found.append((layer.weight, weight_rule(layer, inputs, grad, classes)))
    if layer.bias is not None and not (matrices_only and layer.bias.ndim < 2):
        found.append((layer.bias, _bias_gradient(layer, grad, classes)))
    return found


def _bias_gradient(layer: Any, grad: torch.Tensor, classes: int) -> torch.Tensor:
    per_class = _split(grad, classes)
    if layer.bias.ndim > 1:  # LayerNorm over the whole map has one bias an entry
        return per_class.sum(1)
    return per_class.transpose(1, 2).flatten(2).sum(2)


def _split(x: torch.Tensor, classes: int) -> torch.Tensor:
    return x.unflatten(0, (classes, -1))


def _conv_weight(layer: nn.Conv2d, inputs: torch.Tensor, grad: torch.Tensor, classes: int) -> torch.Tensor:
    """[C·n, i, h, w] and [C·n, o, h', w'] -> [C, o, i, k, k]."""
    if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise UsageError("Class gradients need convolutions with one group and zero padding.")
    if inputs.device.type == "cpu":
        return _ConvWeights.apply(inputs, grad, classes, layer)
    return _grouped_conv_weight(layer, inputs, grad, classes)


def _grouped_conv_weight(layer: nn.Conv2d, inputs: torch.Tensor, grad: torch.Tensor, classes: int) -> torch.Tensor:
    """One convolution with a group a class: no launches per class on a GPU, but twice as slow on a CPU."""
    x = _split(inputs, classes).transpose(0, 1).flatten(1, 2)
    g = _split(grad, classes).transpose(0, 1).flatten(1, 2)
    shape = (classes * layer.out_channels, layer.in_channels, *layer.kernel_size)
    weight = torch.empty(0, dtype=x.dtype, device=x.device).new_zeros(1).expand(shape)  # only its shape is read
    geometry = geometry_of(layer)
    found = torch.ops.aten.convolution_backward(g, x, weight, None, *geometry, False, [0, 0], classes, _BY_WEIGHT)
    return found[1].unflatten(0, (classes, -1))


class _ConvWeights(torch.autograd.Function):
    """A class after another, as a CPU likes it: bilinear in inputs and output gradients, so both derivatives are plain.

    PyTorch's own derivative of the weight gradient swaps batch and channels, which copies everything several times.
    """

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, grad: torch.Tensor, classes: int, layer: nn.Conv2d) -> torch.Tensor:
        ctx.save_for_backward(inputs, grad)
        ctx.layer, ctx.classes = layer, classes
        pairs = zip(inputs.chunk(classes), grad.chunk(classes), strict=True)
        weight, geometry = layer.weight.detach().to(grad.dtype), geometry_of(layer)  # only the weight's shape is read
        return torch.stack([_only(convolution_backward(g, x, weight, geometry, _BY_WEIGHT)) for x, g in pairs])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, along: torch.Tensor) -> Any:
        inputs, grad = (t.chunk(ctx.classes) for t in ctx.saved_tensors)
        geometry, by_inputs, by_grad = geometry_of(ctx.layer), None, None
        if ctx.needs_input_grad[0]:
            triples = zip(inputs, grad, along, strict=True)
            by_inputs = torch.cat([_only(convolution_backward(g, x, v, geometry, _BY_INPUT)) for x, g, v in triples])
        if ctx.needs_input_grad[1]:
            by_grad = torch.cat([convolve(x, v, None, geometry) for x, v in zip(inputs, along, strict=True)])
        return by_inputs, by_grad, None, None


def _only(gradients: Iterable[torch.Tensor | None]) -> torch.Tensor:
    """The one gradient that was asked for."""
    return next(gradient for gradient in gradients if gradient is not None)


def _linear_weight(layer: nn.Linear, inputs: torch.Tensor, grad: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.bmm(_split(grad, classes).transpose(1, 2), _split(inputs, classes))


def _norm_weight(layer: Any, inputs: torch.Tensor, grad: torch.Tensor, classes: int) -> torch.Tensor:
    product = _split(grad * _RULES[type(layer)][1](layer, inputs), classes)
    if layer.weight.ndim > 1:
        return product.sum(1)
    return product.transpose(1, 2).flatten(2).sum(2)


def _no_norm(layer: Any, x: torch.Tensor) -> torch.Tensor:
    raise TypeError(f"{type(layer).__name__} is no norm")


def _batch_normalised(layer: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    if layer.training:
        raise UsageError("Class gradients need batch norm in eval mode: in train mode images of classes mix.")
    return F.batch_norm(x, layer.running_mean, layer.running_var, eps=layer.eps)


# (gradient of the weight, what a norm's weight multiplies)
Rule = tuple[Callable[..., torch.Tensor], Callable[[Any, torch.Tensor], torch.Tensor]]
_RULES: dict[type[nn.Module], Rule] = {
    nn.Conv2d: (_conv_weight, _no_norm),
    Convolution: (_conv_weight, _no_norm),
    nn.Linear: (_linear_weight, _no_norm),
    nn.GroupNorm: (_norm_weight, lambda layer, x: F.group_norm(x, layer.num_groups, eps=layer.eps)),
    nn.LayerNorm: (_norm_weight, lambda layer, x: F.layer_norm(x, layer.normalized_shape, eps=layer.eps)),
    nn.BatchNorm2d: (_norm_weight, _batch_normalised),
}

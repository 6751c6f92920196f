"""torchvision's classification models as architectures, by name: `torchvision:resnet50`.

They keep torchvision's structure and its own random initialisation (pretrained weights are never used),
with three changes, so that they can be used like every other network here: the first convolution takes the
stated number of channels; dropout and stochastic depth are off, because they would draw from the global
generator (a resumed run could not repeat its numbers); nothing is done in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from fyi_bench.errors import UnknownNameError, UsageError
from search_space.network import Network

# What a model must be told beyond its number of classes, by the beginning of its name.
_EXTRA: dict[str, Callable[[int], dict[str, Any]]] = {
    "googlenet": lambda size: {"aux_logits": False, "init_weights": True},
    "inception": lambda size: {"aux_logits": False, "init_weights": True},
    "maxvit": lambda size: {"input_size": (size, size)},
    "vit": lambda size: {"image_size": size},
}


def torchvision_names() -> list[str]:
    """The classification models of the installed torchvision."""
    models = _models()
    return models.list_models(module=models)


class TorchvisionNet(Network):
    """A torchvision classification model; `embed` is the input of its last linear layer.

    Its constructor draws from torch's default generator: build it through `search_space.build`.
    small_stem: of a ResNet, a 3x3 convolution of stride 1 and no pooling first (RDED, SRe2L at up to 64 px).
    Raises UnknownNameError, or UsageError for a model that cannot take images of this size.
    """

    def __init__(self, model: str, channels: int, size: int, classes: int, *, small_stem: bool = False):
        super().__init__(channels, size, classes)
        known = torchvision_names()
        if model not in known:
            raise UnknownNameError("torchvision model", model, known)
        self.model = model
        self.body = self._construct()
        if small_stem:
            if not hasattr(self.body, "maxpool") or not hasattr(self.body, "layer1"):
                raise UsageError(f"'{model}' is no ResNet, so it has no stem for small images.\nTry small:resnet50.")
            self.body.conv1, self.body.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
        self._adapt_channels()
        _make_deterministic(self.body)
        self.classifier = self._take_classifier()
        self.embed_dim = self.classifier.in_features
        self._try_out()

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images).flatten(1)

    def _construct(self) -> nn.Module:
        family = self.model.partition("_")[0]
        extra = _EXTRA[family](self.size) if family in _EXTRA else {}
        try:
            return _models().get_model(self.model, weights=None, num_classes=self.classes, **extra)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise self._unfit(error) from error

    def _adapt_channels(self) -> None:
        path, first = next((n, m) for n, m in self.body.named_modules() if isinstance(m, nn.Conv2d))
        if first.in_channels == self.channels:
            return
        options = ("out_channels", "kernel_size", "stride", "padding", "dilation")
        kept = {option: getattr(first, option) for option in options}
        _replace(self.body, path, nn.Conv2d(self.channels, **kept, bias=first.bias is not None))

    def _take_classifier(self) -> nn.Linear:
        linear = [(n, m) for n, m in self.body.named_modules() if isinstance(m, nn.Linear)]
        if not linear or linear[-1][1].out_features != self.classes:
            raise UsageError(
                f"torchvision model '{self.model}' does not end in a linear layer, so it has no embedding.\n"
                "Choose another, for example 'torchvision:resnet18'."
            )
        path, classifier = linear[-1]
        _replace(self.body, path, nn.Identity())
        return classifier

    @torch.no_grad()
    def _try_out(self) -> None:
        self.eval()
        try:
            self(torch.zeros(2, self.channels, self.size, self.size))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise self._unfit(error) from error
        self.train()

    def _unfit(self, error: Exception) -> UsageError:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return UsageError(
            f"torchvision model '{self.model}' cannot take images of {self.channels}x{self.size}x{self.size}: {reason}"
        )


def _models() -> Any:
    from search_space.torchvision_compat import torchvision

    return torchvision.models


def _make_deterministic(body: nn.Module) -> None:
    from search_space.torchvision_compat import torchvision

    for layer in body.modules():
        if isinstance(layer, _DropoutNd | torchvision.ops.StochasticDepth):
            layer.p = 0.0
        if getattr(layer, "inplace", False):
            setattr(layer, "inplace", False)  # noqa: B010  not every module has it


def _replace(body: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(body.get_submodule(parent), name, layer)

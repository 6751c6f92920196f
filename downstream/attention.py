"""Where in its images a network sees a class: class activation maps (Zhou et al., 2016) and their strongest tenth.

Where a network averages its last map before the classifier, the logit of class k is a mean over places: of the sum of
w[k, c] f[c, place] over channels. The map of an image holds the terms of that mean for the image's own class. A ConvNet
reads its last map place by place; a weight of each place would show where the network looks, not what images hold. So
ours is one that averages (`AveragingConvNet`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from distill.image_set import ImageSet
from downstream import training
from downstream.protocol import CONVNETS
from downstream.training import EVAL_BATCH, HERE, Conditions
from fyi_bench import rng
from fyi_bench.errors import UsageError
from search_space.architectures import convnet_config
from search_space.convnet import ConvNet, ConvNetConfig
from search_space.init import construct

NUMERICS = 1
TOLERANCE = 1e-3  # of a mean against the logit itself, as a share of the largest logit
SHARE = 0.1  # of an image's pixels: those with the highest values of its map


@dataclass(frozen=True)
class Attention:
    """What a network saw in the images of a class.

    counts: int64 [size, size], how many images have this pixel among their strongest. images: how many there were;
    right: how many of them the network knows.
    """

    counts: torch.Tensor
    images: int
    right: int


class AveragingConvNet(ConvNet):
    """A ConvNet whose classifier reads the average of the last map, which stays without pooling."""

    def __init__(self, config: ConvNetConfig):
        super().__init__(config)
        self.embed_dim = config.width
        self.last_map, self.classifier = nn.Identity(), nn.Linear(config.width, config.classes)

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        return self.last_map(self.features_per_block(images)[-1].activated).mean((2, 3))


def new_network(model: str, train_set: ImageSet, seed: int) -> nn.Module:
    """A freshly initialised network for a set's images that averages its last map, where `model` is a ConvNet."""
    channels, size, _ = train_set.shape
    if not model.startswith(CONVNETS):
        return training.new_network(model, train_set, seed)
    config = convnet_config(model, channels, size, train_set.num_classes)
    return construct(lambda: AveragingConvNet(config), rng.stream(seed, "evaluation"))


@torch.no_grad()
def attention(
    network: nn.Module,
    images: ImageSet,
    target: int,
    conditions: Conditions = HERE,
) -> Attention:
    """Count, pixel by pixel, the images (of one class, output `target`) whose map is in its strongest tenth there."""
    network, size = network.to(conditions.device).eval(), images.shape[1]
    counts, right = torch.zeros(size, size, dtype=torch.int64), 0
    for index in torch.arange(len(images)).split(EVAL_BATCH):
        if conditions.stop is not None:
            conditions.stop.check()
        x = images.batch(index, conditions.space).to(conditions.device)
        maps, logits = activation_maps(network, x, torch.full((len(x),), target, device=x.device))
        counts += strongest(maps, size).sum(0).cpu()
        right += int((logits.argmax(1) == target).sum())
    return Attention(counts, len(images), right)


@torch.no_grad()
def activation_maps(
    network: nn.Module, images: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps [N, h, w] of each image's own class at the size of the network's last map, and logits [N, classes].

    Raises UsageError for a network whose logits are no such mean.
    """
    seen: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4 and output[0, 0].numel() > 1:
            seen[:] = [output]

    hooks = [module.register_forward_hook(keep) for module in network.modules()]
    try:
        logits = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    classifier = getattr(network, "classifier", None)
    if seen and isinstance(classifier, nn.Linear) and classifier.in_features == seen[0].shape[1]:
        maps = (classifier.weight[targets][:, :, None, None] * seen[0]).sum(1)
        off = maps.mean((1, 2)) + classifier.bias[targets] - logits.gather(1, targets[:, None])[:, 0]
        if off.abs().max() <= TOLERANCE * logits.abs().max():
            return maps, logits
    raise UsageError(
        f"{type(network).__name__} does not classify by the average of its last map: it has no class activation maps.\n"
        "Choose a ConvNet, or a network that does, such as resnet18."
    )


def strongest(maps: torch.Tensor, size: int, share: float = SHARE) -> torch.Tensor:
    """bool [N, size, size]: the pixels with the highest values of each map, enlarged bilinearly.

    Pixels that equal the last of them, but for rounding, belong to them: to choose among equals would be to prefer a
    side.
    """
    large = F.interpolate(maps[:, None].double(), (size, size), mode="bilinear", align_corners=False)[:, 0]
    last = large.flatten(1).topk(max(1, round(share * size**2))).values[:, -1:, None]
    return large >= last - 1e-9 * large.abs().amax((1, 2), keepdim=True)


def mirror_correlation(places: torch.Tensor) -> float:
    """Correlation of a map [h, w] with its mirror image: 1 for a symmetric one; NaN where it is the same everywhere."""
    centred = places.double() - places.double().mean()
    return float((centred * centred.flip(-1)).sum() / centred.square().sum())

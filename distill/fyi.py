"""FYI: synthetic images enter the objective together with their mirrored copies; its ablations and its score.

Paper: Son et al., "FYI: Flip Your Images for Dataset Distillation", ECCV 2024: A(S) = S ∪ Flip(S) (eq. 6) wherever
the method would see S, before any augmentation; nothing more is stored. The gradient of an image is that of
its place in the first half plus the mirrored gradient of its copy.

The unequalness score (eq. 5) is Score(R) = D(R, Flip(R)) under the distance of a distillation method, for the
images R of one class, averaged over classes: 0 exactly for a set that contains every image's mirror image.
For random real images it falls as 1/N by averaging alone; the plateau is the true asymmetry. The paper leaves
open how many networks; here 20 fresh ones, the same for both arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import search_space
from distill import augment_ops
from distill.augment import Augmentation, Draw
from distill.image_set import ImageSet
from distill.matching import distribution_distance, gradient_distance
from distill.spaces import Space
from fyi_bench import rng
from fyi_bench.errors import UsageError
from fyi_bench.registry import Registry, pick
from search_space.network import embed

# raised whenever a flip would give other images, or the same images and networks another score
NUMERICS = 1

Transform = Callable[[Tensor], Tensor]

ROTATE_DEGREES = 15.0
ZOOM = 1.2

NETWORKS = 20
WIDTH = 128
DRAWS = 3  # siamese augmentations of a network that the distance of DSA is the mean of
STUDENT_STEPS, STUDENT_LR = 10, 0.01  # of the distance of MTT, which hardly depends on the step size
_CHUNK = 256  # images in one pass: bounds the memory for sets as large as the real data

_NO_CODE = "there is no code of it."
DSA = "dsa"  # the distance that is DC's under augmentation

# name -> flip, the values of --flip
FLIPS: Registry[Flip] = Registry("flip", group="fyi_bench.flips", base="distill.fyi:Flip", numerics=NUMERICS)


@dataclass(frozen=True)
class Flip:
    """How synthetic images are expanded before the objective sees them; the plain one changes nothing.

    transform: the fixed change of images [..., ch, H, W] whose copies are added, or None. note: what whoever sees a
    number made with it should know.
    """

    name: str
    transform: Transform | None = None
    note: str = ""
    multiplier: ClassVar[int] = 1

    def draw(self, shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
        """What the flip leaves to chance for images [*shape, ch, H, W], on the CPU: nothing, bool [0].

        generator: a CPU one, needed by the flip 'random' only (UsageError without).
        """
        return torch.zeros(0, dtype=torch.bool)

    def expand(
        self,
        x: Tensor,
        y: Tensor | None = None,
        generator: torch.Generator | None = None,
        chosen: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """x [N, ch, H, W] -> [multiplier·N, ch, H, W], originals first; with labels y [N, …], both.

        Chance comes from a generator, or from `chosen`, a `draw` for [N] on the images' device.
        """
        expanded = self._images(x, 0, self.draw(x.shape[:1], generator) if chosen is None else chosen)
        return expanded if y is None else (expanded, torch.cat([y] * self.multiplier))

    def expand_classes(
        self, x: Tensor, generator: torch.Generator | None = None, chosen: Tensor | None = None
    ) -> Tensor:
        """x [C, n, ch, H, W] -> [C, multiplier·n, ch, H, W], originals first inside each class; see `expand`."""
        return self._images(x, 1, self.draw(x.shape[:2], generator) if chosen is None else chosen)

    def changed(self, x: Tensor) -> Tensor:
        """Images [..., ch, H, W] transformed; UsageError for a flip that does not."""
        if self.transform is None:
            raise UsageError(f"The flip '{self.name}' changes no image.")
        return self.transform(x)

    def _images(self, x: Tensor, dim: int, chosen: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class ConcatenatedFlip(Flip):
    """The images followed by their transformed copies, labels repeated."""

    multiplier: ClassVar[int] = 2

    def _images(self, x: Tensor, dim: int, chosen: Tensor) -> Tensor:
        return torch.cat([x, self.changed(x)], dim=dim)


@dataclass(frozen=True)
class RandomFlip(Flip):
    """Every image transformed with probability 1/2, independently at every call; nothing is added."""

    def draw(self, shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
        """Which images are transformed, bool [*shape]."""
        if generator is None:
            raise UsageError(f"The flip '{self.name}' draws at random.\nGive it a generator.")
        return torch.rand(tuple(shape), generator=generator, dtype=torch.float64) < 0.5

    def _images(self, x: Tensor, dim: int, chosen: Tensor) -> Tensor:
        return torch.where(chosen.to(x.device)[..., None, None, None], self.changed(x), x)


def mirror(x: Tensor) -> Tensor:
    """Left and right exchanged, for x [..., H, W]; exact."""
    return x.flip(-1)


def turn_over(x: Tensor) -> Tensor:
    """Top and bottom exchanged, for x [..., H, W]; exact."""
    return x.flip(-2)


def turn(x: Tensor) -> Tensor:
    """x [..., ch, H, W] turned by 15 degrees, what is uncovered is 0.

    The paper states the angle only; counter-clockwise is inferred (the positive angle of the augmentation code).
    """
    return _with_draw(x, augment_ops.rotate, augment_ops.AugmentStrength(rotate=ROTATE_DEGREES), 1)


def zoom_out(x: Tensor) -> Tensor:
    """x [..., ch, H, W] shrunk by 1.2 in both directions, with a border of 0.

    The paper states the factor only; that it shrinks is inferred (factors over 1 do in the augmentation code).
    """
    return _with_draw(x, augment_ops.scale, augment_ops.AugmentStrength(scale=ZOOM), 2)


def _with_draw(x: Tensor, operation: Callable, strength: augment_ops.AugmentStrength, columns: int) -> Tensor:
    """The operation at the upper end of its range, u = 1."""
    flat = x.flatten(0, -4) if x.ndim > 4 else x
    return operation(flat, torch.ones(1, columns, dtype=torch.float64, device=x.device), strength).view(x.shape)


FLIPS.register("none", Flip("none"))
FLIPS.register("fyi", ConcatenatedFlip("fyi", mirror))
FLIPS.register("random", RandomFlip("random", mirror, f"By the FYI paper's text (S3): {_NO_CODE}"))
FLIPS.register("vertical", ConcatenatedFlip("vertical", turn_over, f"By the FYI paper's text: {_NO_CODE}"))
FLIPS.register("rotate", ConcatenatedFlip("rotate", turn, f"That it turns counter-clockwise is inferred: {_NO_CODE}"))
FLIPS.register("scale", ConcatenatedFlip("scale", zoom_out, f"That the copy is smaller is inferred: {_NO_CODE}"))


def class_unequalness(
    images: Tensor,
    labels: Tensor,
    network: nn.Module,
    distance: str = "dm",
    flip: str = "fyi",
    augmentation: Augmentation | None = None,
    draws: Sequence[Draw] = (),
) -> Tensor:
    """Scores [classes present, ascending] of images [N, ch, H, W] with labels int64 [N] under one network.

    distance: 'dm', squared distance of mean features of `network.embed`; 'dc', layer-wise cosine distance of
    the gradients of the class's loss; 'mtt', how far apart students of the images and of the copies end, all classes
    in one. flip: a flip with a fixed transformation (the variants of fig. 10).
    With an augmentation and siamese draws ('dsa', else as 'dc'), images and copies go through each draw
    and the scores are averaged; a draw has one group, or one for each class present, ascending.
    """
    measure = pick("unequalness distance", distance, UNEQUALNESS)
    transform = FLIPS.get(flip).transform
    if transform is None or FLIPS.get(flip).multiplier == 1:
        raise UsageError(f"The flip '{flip}' is no fixed transformation, so it has no unequalness score.")
    if (augmentation is None) != (len(draws) == 0) or (distance == DSA and augmentation is None):
        raise UsageError("The score under augmentation needs both an augmentation and draws for it.")
    order = labels.argsort(stable=True)
    images, labels = images.detach()[order.to(images.device)], labels[order].cpu()
    copies = transform(images)
    if augmentation is None:
        return measure(network, images, copies, labels)
    counts = labels.unique_consecutive(return_counts=True)[1].tolist()
    total = torch.zeros(len(counts), dtype=images.dtype, device=images.device)
    for draw in draws:
        per_class = counts if draw.groups > 1 else None
        seen, seen_copies = (augmentation.apply(x, draw, per_class) for x in (images, copies))
        total = total + measure(network, seen, seen_copies, labels)
    return total / len(draws)


@torch.no_grad()
def mean_feature_distance(network: nn.Module, images: Tensor, copies: Tensor, labels: Tensor) -> Tensor:
    """‖mean ψ(R) - mean ψ(F(R))‖² of each class, ψ the features before the classifier (eq. 3)."""
    return distribution_distance(_class_means(network, images, labels), _class_means(network, copies, labels))


def class_gradient_distance(network: nn.Module, images: Tensor, copies: Tensor, labels: Tensor) -> Tensor:
    """Layer-wise cosine distance of the gradients of each class's mean loss (supplement, eq. i)."""
    weights = {name: p.detach().requires_grad_(p.ndim > 1) for name, p in network.named_parameters()}
    scores, begin = [], 0
    for label, count in zip(*(t.tolist() for t in labels.unique_consecutive(return_counts=True)), strict=True):
        rows = slice(begin, begin + count)
        of_copies, own = (_mean_gradient(network, weights, x[rows], label) for x in (copies, images))
        scores.append(gradient_distance(of_copies, own))
        begin += count
    return torch.stack(scores)


def student_distance(network: nn.Module, images: Tensor, copies: Tensor, labels: Tensor) -> Tensor:
    """‖θ(F(R)) - θ(R)‖² / ‖θ - θ(R)‖² (supplement, eq. iii), θ(·) after a few steps on all images at once.

    It is one number of all classes, and each class's score. Students start at the network's own weights.
    """
    ends = [_student(network, x, labels.to(x.device)) for x in (copies, images)]
    start = [w.detach() for w in network.parameters()]
    apart, gone = (sum((a - b).square().sum() for a, b in zip(ends[1], other)) for other in (ends[0], start))
    return torch.as_tensor(apart / gone).expand(len(labels.unique()))


def _student(network: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    """Weights after `STUDENT_STEPS` steps of gradient descent on the mean cross-entropy of all images."""
    weights = {name: w.detach().requires_grad_() for name, w in network.named_parameters()}
    for _ in range(STUDENT_STEPS):
        total = [torch.zeros_like(w) for w in weights.values()]
        for x, y in zip(images.split(_CHUNK), labels.split(_CHUNK), strict=True):
            loss = F.cross_entropy(torch.func.functional_call(network, weights, (x,)), y, reduction="sum") / len(labels)
            total = [t + g for t, g in zip(total, torch.autograd.grad(loss, list(weights.values())), strict=True)]
        moved = zip(weights.items(), total, strict=True)
        weights = {name: (w - STUDENT_LR * g).detach().requires_grad_() for (name, w), g in moved}
    return [w.detach() for w in weights.values()]


# name -> function(network, images sorted by class, their flipped copies, sorted labels) giving scores [classes]
UNEQUALNESS: dict[str, Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]] = {
    "dm": mean_feature_distance, "dc": class_gradient_distance, DSA: class_gradient_distance, "mtt": student_distance,
}  # fmt: skip


def mirror_distance(images: Tensor, network: nn.Module, flip: str = "fyi") -> Tensor:
    """Mean over images of ‖ψ(x) - ψ(F(x))‖ (scalar): how asymmetric single images are (fig. 12)."""
    with torch.no_grad():
        distances = [
            (embed(network, x) - embed(network, FLIPS.get(flip).changed(x))).flatten(1).norm(dim=1)
            for x in images.detach().split(_CHUNK)
        ]
    return torch.cat(distances).mean()


def set_unequalness(
    image_set: ImageSet,
    seed: int,
    networks: int = NETWORKS,
    width: int = WIDTH,
    distance: str = "dm",
    flip: str = "fyi",
    space: Space | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Score of a set over fresh ConvNets, for the command line and tables.

    image_set: any set, its images taken in `space` (default: its own; scores of different spaces do not
    compare). distance: see `class_unequalness`; 'dsa' is the mean of a few draws of all operations. Returns `mean` (of
    classes and networks), `std` (of the class means over networks, 0 for one network), `per_class` (class -> mean over
    networks) and `networks`.
    Raises UsageError for a set whose images are tiles: enlarge them first.
    """
    if image_set.factor != 1:
        raise UsageError(
            f"Each image of the set holds {image_set.factor}² tiles, and a mirror would exchange them.\n"
            "Enlarge the tiles before measuring."
        )
    images = image_set.batch(slice(None), space).to(device)
    augmentation = Augmentation() if distance == DSA else None

    def draws(network: int) -> list[Draw]:
        if augmentation is None:
            return []
        streams = [rng.stream(seed, "unequalness augment", network, k) for k in range(DRAWS)]
        return [augmentation.draw(stream, 1, images.shape[-1], siamese=True) for stream in streams]

    scores = torch.stack(
        [
            class_unequalness(
                images, image_set.hard_labels, network.to(device), distance, flip, augmentation, draws(number)
            )
            .double()
            .cpu()
            for number, network in enumerate(_fresh_networks(image_set, seed, networks, width))
        ]
    )
    per_network = scores.mean(dim=1)
    return {
        "mean": float(per_network.mean()),
        "std": float(per_network.std()) if networks > 1 else 0.0,
        "per_class": dict(zip(image_set.classes, scores.mean(dim=0).tolist(), strict=True)),
        "networks": networks,
    }


def _fresh_networks(image_set: ImageSet, seed: int, networks: int, width: int) -> Iterator[nn.Module]:
    channels, height, side = image_set.shape
    if height != side or networks < 1:
        raise UsageError(f"The score needs square images and at least one network, not {height}x{side}, {networks}.")
    for number in range(networks):
        generator = rng.stream(seed, "unequalness", number)
        yield search_space.build(f"convnet-w{width}", channels, side, image_set.num_classes, generator)


def _class_means(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Mean features [classes, features] of images sorted by class."""
    _, counts = labels.unique_consecutive(return_counts=True)
    sums: dict[int, Tensor] = {}
    place = torch.repeat_interleave(counts)
    for x, owner in zip(images.split(_CHUNK), place.split(_CHUNK), strict=True):
        present, sizes = owner.unique_consecutive(return_counts=True)
        features = embed(network, x).flatten(1)
        for k, part in zip(present.tolist(), features.split(sizes.tolist()), strict=True):
            total = part.sum(0)
            sums[k] = sums[k] + total if k in sums else total
    return torch.stack([sums[k] / n for k, n in enumerate(counts.tolist())])


def _mean_gradient(network: nn.Module, weights: dict[str, Tensor], images: Tensor, label: int) -> list[Tensor]:
    """Gradient of the mean cross-entropy with respect to the matrices of the network, vectors left out."""
    matrices = [w for w in weights.values() if w.requires_grad]
    total = [torch.zeros_like(w) for w in matrices]
    for x in images.split(_CHUNK):
        logits = torch.func.functional_call(network, weights, (x,))
        target = torch.full((len(x),), label, device=x.device)
        loss = F.cross_entropy(logits, target, reduction="sum") / len(images)
        total = [t + g for t, g in zip(total, torch.autograd.grad(loss, matrices), strict=True)]
    return total

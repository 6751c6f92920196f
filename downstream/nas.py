"""Architecture search: train networks of the space on a set, and how much work each of them is.

FYI Table B and FTD Table 5 rank 720 ConvNets by the accuracy they reach after training on a condensed set, and compare
with the ranking after training on the real data; here both sides are trained by the same trainer. Real images and test
images may be a stated share of the data set, drawn once, class-balanced, never chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from distill.image_set import ImageSet
from downstream.protocol import Protocol, protocol_data
from downstream.schedules import BY_STEP
from fyi_bench import rng
from fyi_bench.errors import UsageError
from search_space.architectures import work
from search_space.space720 import Point
from search_space.spaces import Candidate

Architecture = Point | Candidate  # one architecture of a search

NUMERICS = 1
# arithmetic that costs as much time as writing and reading one activation: on one core of an AMD EPYC
# `python -m benchmarks kernels --only estimate` found 9.5 ms a GFLOP in fp32 and 9.2 in bf16, and 4.0 and 3.4 ns an
# activation
FLOPS_PER_ACTIVATION = 400
_MIDDLE = Point(64, 2, "batch", "relu", "max")


@dataclass(frozen=True)
class Limits:
    """What a protocol's real ranking is made of. None: all images.

    ceiling: share of the architectures that is trained on real data a second time. validation: share of the train
    images that is set aside: no network is trained on them by itself, and every one is tested on them too.
    """

    reference_images: int | None
    test_images: int | None
    ceiling: float
    validation: float = 0.0


def limits_of(protocol: str) -> Limits:
    """The limits of a protocol; a changed one (`quick+epochs=3`) has that of its base. UsageError where it has none."""
    base = protocol.partition("+")[0]
    table = protocol_data(base).get("nas")
    if table is None:
        raise UsageError(f"The protocol '{base}' has no budget for architecture search.\nUse paper or quick.")
    return Limits(
        table["reference_images"] or None, table["test_images"] or None, table["ceiling"], table["validation"]
    )


def architecture_name(point: Point) -> str:
    """The name by which `search_space.build` knows a point of the space."""
    return point.architecture


def effort(point: Architecture, channels: int, size: int, classes: int) -> float:
    """How long an image takes in this network, relative to others: its arithmetic and its memory traffic."""
    found = work(point.architecture, channels, size, classes)
    return found.flops + FLOPS_PER_ACTIVATION * found.activations


def representative(point: Architecture) -> str:
    """The name of a network whose time stands for this one's, in proportion to their efforts.

    Of the 720 ConvNets one of the same width and pooling, which change the time an effort takes most; batch norm after
    two convolutions lies in the middle of the rest. Of others a ConvNet in the middle.
    """
    chosen = replace(point, depth=2, norm="batch", act="relu") if isinstance(point, Point) else _MIDDLE
    return chosen.architecture


def cheap_first(points: Iterable[Architecture], channels: int, size: int, classes: int) -> list[Any]:
    """The points by rising effort, so that an unfinished search has ranked many of them."""
    sizes = channels, size, classes
    return sorted(points, key=lambda p: (effort(p, *sizes), p.index if isinstance(p, Point) else -1, p.name))


def at_the_cost_of(images: int, protocol: Protocol, real: int) -> tuple[int, Protocol]:
    """How many of so many real images, and for how long, to train on for as many steps as a proxy of `images` takes.

    One pass over images that are each seen once where there are enough: training on real data that is stopped early.
    Of fewer images than a batch holds, the steps are as small as the proxy's. The step size falls as the proxy's does.
    """
    steps, batch = protocol.epochs_for(images) * math.ceil(images / protocol.batch), min(images, protocol.batch)
    count = min(real, steps * batch)
    passes = max(1, round(steps / math.ceil(count / batch)))
    if protocol.schedule in BY_STEP:
        return count, replace(protocol, batch=batch, epochs=passes, min_steps=0, extra_epoch=False, passes=0)
    epochs = replace(protocol, passes=0).epochs_for(images) - protocol.extra_epoch
    return count, replace(protocol, batch=batch, epochs=epochs, min_steps=0, passes=passes)


def balanced(images: ImageSet, count: int | None, seed: int, purpose: str) -> ImageSet:
    """`count` images, equally many of each class up to one, drawn by (seed, purpose); None or too many: all.

    Draws of one seed are nested. Raises UsageError for fewer images than classes.
    """
    if count is None or count >= len(images):
        return images
    if count < images.num_classes:
        raise UsageError(f"{count} images cannot cover {images.num_classes} classes.\nAsk for more images.")
    labels, ranks = images.hard_labels, torch.empty(len(images), dtype=torch.int64)
    for label in range(images.num_classes):
        members = images.indices_of(label)
        order = torch.randperm(len(members), generator=rng.stream(seed, purpose, label))
        ranks[members[order]] = torch.arange(len(members))
    # whole rounds of one image a class, the classes in order inside a round
    chosen = torch.argsort(ranks * images.num_classes + labels)[:count]
    return images.select(chosen.sort().values)

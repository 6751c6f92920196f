"""A store with finished distil and accuracy cells, made by the commands' own builders, values given by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from distill.image_set import ImageSet
from distill.recipes import recipe
from distill.spaces import PixelSpace
from downstream.protocol import protocol as protocol_of
from fyi_bench.data.real import RealDataset
from fyi_bench.kinds.accuracy import accuracy_cell
from fyi_bench.kinds.distill import distill_cell
from fyi_bench.store import Store

SEEDS_A_SET = 1000  # as `fyi-bench distill` draws the networks of a set


def tiny_dataset(
    name: str = "cifar10", classes: int = 10, size: int = 32, each: int = 60, note: str = ""
) -> RealDataset:
    """A data set with the name and shape of a published one and next to no content."""
    images = torch.zeros(classes * each, 3, size, size, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(len(images)) % 256
    labels = torch.arange(classes).repeat_interleave(each)
    split = ImageSet(images, labels, PixelSpace(), classes)
    return RealDataset(name, split, split, (0.5,) * 3, (0.25,) * 3, note)


def fill(
    store: Store,
    method: str,
    flip: str,
    values: Mapping[int, Sequence[float]],
    ipc: int = 10,
    protocol: str = "paper",
    arch: str | None = None,
    data: RealDataset | None = None,
    precision: str = "fp32",
    **changes: str,
) -> None:
    """Finish the cells of an arm. values: seed of the set -> accuracies of its networks; changes: of the recipe."""
    data = data or tiny_dataset()
    base, *overrides = protocol.split("+")
    chosen = recipe(method, data.name, ipc, base).with_overrides(changes)
    rules = protocol_of(base, "accuracy", method).with_overrides(dict(o.split("=") for o in overrides))
    for seed, accuracies in values.items():
        made = distill_cell(data, method, flip, ipc, seed, chosen, precision=precision)
        with store.run(made) as run:
            if not run.done:
                run.finish({"set": "set.safetensors"})
        for number, value in enumerate(accuracies):
            reference = {"cell": made.digest}
            tested = accuracy_cell(
                data, reference, 100, rules, SEEDS_A_SET * seed + number, model=arch, precision=precision
            )
            with store.run(tested) as run:
                run.finish({"value": value})

"""A store with finished distil and accuracy cells, made by the commands' own builders, values given by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from distill.image_set import ImageSet
from distill.recipes import recipe
from distill.spaces import PixelSpace
from downstream.protocol import protocol as protocol_of
from fyi_bench import rng
from fyi_bench.data.real import RealDataset
from fyi_bench.run.types.accuracy import accuracy_run
from fyi_bench.run.types.architecture import real_source, set_source, train_run
from fyi_bench.run.types.distill import distill_run
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store
from search_space import space720

SEEDS_A_SET = 1000  # as `fyi-bench distill` draws the networks of a set


def tiny_dataset(
    name: str = "cifar10", classes: int = 10, size: int = 32, each: int = 60, note: str = "", names: Sequence[str] = ()
) -> RealDataset:
    """A data set with the name and shape of a published one and next to no content."""
    images = torch.zeros(classes * each, 3, size, size, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(len(images)) % 256
    labels = torch.arange(classes).repeat_interleave(each)
    split = ImageSet(images, labels, PixelSpace(), classes, tuple(names))
    return RealDataset(name, split, split, (0.5,) * 3, (0.25,) * 3, note)


def add_set(
    store: Store,
    method: str,
    flip: str,
    ipc: int = 1,
    data: RealDataset | None = None,
    seed: int = 0,
    protocol: str = "paper",
    **changes: str,
) -> None:
    """Finish one distil cell with a set in it: coloured noise, with a loss curve where the method has a loss."""
    data = data or tiny_dataset()
    made = distill_run(data, method, flip, ipc, seed, recipe(method, data.name, ipc, protocol).with_overrides(changes))
    n = data.num_classes * ipc
    noise = torch.rand(n, *data.train.shape, generator=rng.stream(seed, method, flip, str(changes)))
    facts = {"method": method, "flip": flip, "ipc": ipc, "seed": seed}
    if method != "random":
        facts |= {"loss_every": 1, "loss_curve": [9.0 / (k + 1) for k in range(20)]}
    labels = torch.arange(data.num_classes).repeat_interleave(ipc)
    found = ImageSet(data.space.encode(noise), labels, data.space, data.num_classes, data.class_names, provenance=facts)
    with store.run(made) as run:
        found.save(run.path("set.safetensors"), preview=False)
        run.finish({"set": "set.safetensors"})


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
    measured_as: str | None = None,
    **changes: str,
) -> None:
    """Finish the cells of an arm. values: seed of the set -> accuracies of its networks; changes: of the recipe.

    measured_as: another method whose way of testing is taken.
    """
    data = data or tiny_dataset()
    base, *overrides = protocol.split("+")
    chosen = recipe(method, data.name, ipc, base).with_overrides(changes)
    rules = protocol_of(base, "accuracy", measured_as or method).with_overrides(dict(o.split("=") for o in overrides))
    for seed, accuracies in values.items():
        made = distill_run(data, method, flip, ipc, seed, chosen, precision=precision)
        with store.run(made) as run:
            if not run.done:
                run.finish({"set": "set.safetensors"})
        for number, value in enumerate(accuracies):
            reference = {"cell": made.digest}
            tested = accuracy_run(
                data, reference, 100, rules, SEEDS_A_SET * seed + number, model=arch, precision=precision
            )
            with store.run(tested) as run:
                run.finish({"value": value})


def search(
    store: Store,
    arms: Mapping[tuple[str, str], Sequence[float | None]],
    real: Sequence[float | None] = (),
    data: RealDataset | None = None,
    again: int = 0,
    images: int | None = None,
    tested: int = 100,
    precision: str = "fp32",
) -> None:
    """Finish the runs of a search over the first architectures of the space by `quick`; None where one diverged.

    arms: (method, flip) -> accuracy of each architecture. again: so many are trained on real images a second time.
    images: of the real side; tested: test images.
    """
    data, ipc = data or tiny_dataset(), 50
    sides = [(real_source(data, images, 0), seed, found) for seed, found in enumerate((real, real[:again]))]
    for (method, flip), accuracies in arms.items():
        chosen = recipe(method, data.name, ipc, "quick")
        made = distill_run(data, method, flip, ipc, 0, chosen, precision=precision)
        with store.run(made) as run:
            if not run.done:
                run.finish({"set": "set.safetensors"})
        sides.append((set_source(made, data.num_classes * ipc), SEEDS_A_SET, accuracies))
    for source, seed, accuracies in sides:
        rules = protocol_of("quick", "nas" if source.needs else "nas-reference")
        for point, value in zip(space720.subset(max(1, len(accuracies))), accuracies, strict=False):
            _finish(store, train_run(data, source, point, rules, seed, tested, precision), value)


def _finish(store: Store, spec: RunSpec, value: float | None) -> None:
    with store.run(spec) as run:
        if run.done:
            return
        if value is None:
            run.mark_diverged({"message": "no longer finite", "step": 3})
        else:
            run.finish({"value": value})

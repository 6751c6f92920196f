"""Which classes come when: orders of the classes, by seed, by name or from a file, and the steps they are cut into."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.image_set import ImageSet
from fyi_bench.errors import DataError, UnknownNameError, UsageError
from fyi_bench.files import read_text

PAPER = "paper"  # the order of a seed, as in the published code
SUPERCLASS = "superclass"
KINDS = ("class", "task", "domain")
_FILE = Path(__file__).with_name("orders.toml")


def class_order(seed: int, classes: int) -> list[int]:
    """Class order of a seed: the permutation that numpy's legacy generator gives, as in the published code."""
    return np.random.RandomState(seed).permutation(classes).tolist()


def named_orders(name: str, dataset: str, seeds: Sequence[int], names: Sequence[str]) -> list[list[int]]:
    """Class orders of a name, as many as it has or as there are seeds.

    name: `paper` (of each seed), `superclass` (groups of alike classes, in an order of each seed), another name of
    orders.toml, or a file that lists numbers or names of the classes, one a line or parted by commas; several orders
    are parted by an empty line. names: of the classes. Raises UnknownNameError, or DataError for a file that lists
    something else than every class once.
    """
    if name == PAPER:
        return [class_order(seed, len(names)) for seed in seeds]
    fixed = _published().get(dataset, {})
    if name == SUPERCLASS and SUPERCLASS in fixed:
        return [[c for group in class_order(seed, len(fixed[name])) for c in fixed[name][group]] for seed in seeds]
    if name in fixed:
        return fixed[name]
    if Path(name).is_file():
        return [_order_of(block, Path(name), names) for block in _blocks(Path(name))]
    raise UnknownNameError(f"class order of {dataset} (nor a file)", name, [PAPER, *fixed])


@functools.cache
def _published() -> Mapping[str, Mapping[str, list[list[int]]]]:
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))


def _blocks(path: Path) -> list[list[str]]:
    """Entries of each block of a file; a line that begins with # is a comment."""
    try:
        lines = [line.strip() for line in read_text(path).splitlines()]
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read ({cause}).\nGive a text file with a class on each line.") from error
    text = "\n".join(line for line in lines if not line.startswith("#"))
    blocks = [block.replace("\n", ",").replace("[", "").replace("]", "").split(",") for block in text.split("\n\n")]
    found = [[entry.strip().strip("\"'") for entry in block if entry.strip()] for block in blocks]
    return [block for block in found if block]


def _order_of(entries: Sequence[str], path: Path, names: Sequence[str]) -> list[int]:
    numbers = {name: number for number, name in enumerate(names)}
    known = {str(number): number for number in range(len(names))} | numbers
    strange = [entry for entry in entries if entry not in known]
    if strange:
        raise DataError(f"{path} names the class '{strange[0]}', which the data set does not have.\nCorrect the file.")
    order = [known[entry] for entry in entries]
    if sorted(order) != list(range(len(names))):
        twice = next((c for c in order if order.count(c) > 1), None)
        wrong = f"class {twice} twice" if twice is not None else f"{len(order)} of {len(names)} classes"
        raise DataError(f"{path} lists {wrong}; an order has every class once.\nCorrect the file.")
    return order


def step_sizes(classes: int, steps: int, base: int | None = None, sizes: Sequence[int] = ()) -> tuple[int, ...]:
    """Classes that each step brings: `sizes` as they are, else equal ones, after a first of `base` where it is given.

    Raises UsageError where they do not make up the classes.
    """
    if sizes:
        if min(sizes) < 1 or sum(sizes) != classes:
            raise UsageError(f"--step-sizes make {sum(sizes)} classes, the data set has {classes}.\nCorrect them.")
        return tuple(sizes)
    rest = classes - (base or 0)
    if base is not None and not 1 <= base < classes:
        raise UsageError(f"--base {base} leaves no classes of {classes} for later steps.\nGive 1 to {classes - 1}.")
    if steps < 1 or rest % steps:
        possible = [d for d in range(1, rest + 1) if rest % d == 0]
        after = f" that are left after --base {base}" if base else ""
        raise UsageError(
            f"{steps} steps do not divide {rest} classes{after}.\nChoose --steps from "
            f"{', '.join(map(str, possible))}, or say --step-sizes."
        )
    return (*([base] if base else ()), *[rest // steps] * steps)


@dataclass(frozen=True)
class Steps:
    """Classes in steps, and what a network is asked of them.

    order: every class once. sizes: classes of each step. kind: 'class' (which of all classes seen), 'task' (which of
    the classes of its step, the step being told) or 'domain' (which place in its step; steps of one size).
    """

    order: tuple[int, ...]
    sizes: tuple[int, ...]
    kind: str = "class"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownNameError("scenario", self.kind, KINDS)
        if self.kind == "domain" and len(set(self.sizes)) > 1:
            raise UsageError("Domain-incremental steps bring the same number of classes each.\nLeave out --base.")

    def __len__(self) -> int:
        return len(self.sizes)

    @functools.cached_property
    def classes(self) -> list[list[int]]:
        """Classes of each step, original labels."""
        ends = np.cumsum(self.sizes).tolist()
        return [list(self.order[end - size : end]) for end, size in zip(ends, self.sizes)]

    def seen(self, step: int) -> list[int]:
        """Classes of this step (0-based) and those before."""
        return [c for classes in self.classes[: step + 1] for c in classes]

    @functools.cached_property
    def answers(self) -> torch.Tensor:
        """int64 [classes]: what a network is to answer for each class: itself, or its place in its step."""
        answers = torch.arange(len(self.order))
        if self.kind == "domain":
            for classes in self.classes:
                answers[torch.tensor(classes)] = torch.arange(len(classes))
        return answers

    @property
    def outputs(self) -> int:
        """Answers a network has."""
        return self.sizes[0] if self.kind == "domain" else len(self.order)

    def asked(self, image_set: ImageSet) -> ImageSet:
        """A set with the answers as its labels; itself but in a domain-incremental scenario.

        Raises UsageError for soft labels there: they are over the classes.
        """
        if self.kind != "domain":
            return image_set
        if image_set.labels.ndim == 2:
            raise UsageError("Soft labels are over classes, not over places in a step.\nUse --scenario class or task.")
        changed: dict[str, Any] = {"labels": self.answers[image_set.labels], "num_classes": self.outputs}
        return ImageSet(**{**image_set.__dict__, **changed, "class_names": ()})

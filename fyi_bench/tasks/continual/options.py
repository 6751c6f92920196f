"""Options of `continual`, and what they say of the class orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fyi_bench.config import option
from fyi_bench.errors import UnknownNameError, UsageError
from fyi_bench.reading import SetFacts
from fyi_bench.session import Session
from fyi_bench.tasks.common import METHOD, Arm, Comparison

DEFAULT = "dsa"
SETS = "sets"  # class order: as the steps of the sets that were given
SAME_NUMBER, SAME_BYTES = ("random", "herding"), ("random-bytes", "herding-bytes")
STORAGES, JOINT = ("uint8", "jpeg"), "joint"
STRATEGIES = ("fine-tuning", "er", "icarl", "der++")
AGAINST = (*SAME_NUMBER, *SAME_BYTES, *STORAGES, JOINT, *STRATEGIES)
USUAL = ("random", "random-bytes", JOINT)


@dataclass(frozen=True)
class ContinualOptions(SetFacts, Comparison):  # in this order `method` is the first of them
    """How the classes come, with what memory they are rehearsed, and what that is held against."""

    method: str | None = METHOD(None, help=f"Distillation method; default: {DEFAULT}, with --set-file none.")
    sets: tuple[Path, ...] = option(
        (), "Sets of your own: one for all classes, or one a step.", flag="--set-file"
    )  # fmt: skip
    names: tuple[str, ...] = option((), "What to call each memory of --set-file.", flag="--name")
    steps: int = option(10, "Steps the classes come in, those of --base not counted.")
    base: int | None = option(None, "Classes of a first step before them.")
    step_sizes: tuple[int, ...] = option((), "Classes of each step, where they differ.", advanced=True)
    order: str | None = option(None, "Class order: paper, icarl, lucir, podnet, der, superclass, sets, or a FILE.")
    scenario: str = option("class", "Kind of incremental learning: class, task or domain.")
    against: tuple[str, ...] | None = option(None, f"{', '.join(AGAINST)}; or none. Default: {', '.join(USUAL)}.")
    replay: bool = option(False, "Train one network on each step's real data and the memory (experience replay).")
    memory: int | None = option(None, "Images in all, shared by the classes so far; default: --ipc each.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.against or ():
            if name not in (*AGAINST, "none"):
                raise UnknownNameError("comparison", name, [*AGAINST, "none"])
        if self.memory is not None and self.memory < 1:
            raise UsageError(f"--memory must be 1 or more, not {self.memory}.")
        if self.step_sizes and self.base is not None:
            raise UsageError("--step-sizes and --base contradict each other.\nGive one of them.")

    @property
    def compared(self) -> tuple[str, ...]:
        """What is held against the memory in question."""
        if self.against is None:
            return () if self.only else USUAL
        return tuple(name for name in self.against if name != "none")

    @property
    def methods(self) -> list[Arm]:
        """The method without the flip and with it; none where sets were given and no method."""
        if self.method is None and self.sets:
            return []
        flip = "fyi" if self.fyi else self.flip or "none"
        method = self.method or DEFAULT
        return list(dict.fromkeys([*([] if self.only else [Arm(method, "none")]), Arm(method, flip)]))


def orders_of(
    session: Session, options: ContinualOptions, seeds: Sequence[int], stated: Sequence[Sequence[int]]
) -> dict[int, Any]:
    """The class order and its steps of each seed: seed -> run.types.continual.Order.

    stated: classes of each step of the sets that were given, where they say so. Raises UsageError or DataError.
    """
    from downstream.continual.steps import PAPER, Steps, named_orders, step_sizes
    from fyi_bench.run.types.continual import Order

    data = session.data
    name = options.order or (SETS if stated else PAPER)
    sizes: Sequence[int] = options.step_sizes
    if name == SETS:
        if not stated:
            raise UsageError("--order sets: the sets that were given have no steps.\nName another order.")
        found = [[c for classes in stated for c in classes]]
        told = {"steps", "base", "step_sizes"} & session.settings.given
        sizes = sizes if told else [len(classes) for classes in stated]
    else:
        names = data.class_names or tuple(map(str, range(data.num_classes)))
        found = named_orders(name, data.name, seeds, names)
    counts = step_sizes(data.num_classes, options.steps, options.base, sizes)
    return {
        seed: Order(seed, Steps(tuple(found[k % len(found)]), counts, options.scenario), named=name != PAPER)
        for k, seed in enumerate(seeds)
    }

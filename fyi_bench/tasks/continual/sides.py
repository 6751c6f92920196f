"""Sides of a continual comparison: what is remembered, how a network learns from it, and the runs that tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from downstream.protocol import Protocol
from fyi_bench.errors import UsageError
from fyi_bench.present.words import arm_title
from fyi_bench.run.plan import Records
from fyi_bench.run.types.continual import REAL, Memory, Order, continual_run
from fyi_bench.run.types.floor import LABEL_BYTES
from fyi_bench.run.types.stream import stream_run
from fyi_bench.session import Session
from fyi_bench.store.spec import RunSpec
from fyi_bench.tasks.common import NETWORKS_OF_A_SET, Arm, facts_of, recipes_of, shown_images
from fyi_bench.tasks.continual.options import (
    JOINT,
    SAME_BYTES,
    SAME_NUMBER,
    STORAGES,
    STRATEGIES,
    ContinualOptions,
)
from fyi_bench.tasks.given import GivenSet, given_set

REPLAY = "replay"  # the strategy of Avalanche that memories of ours are replayed by
FLOAT_BYTES = 4  # of a value of a condensed image; of a real one 1
Owner = tuple[int, int]  # seed of the class order, seed of its sets


@dataclass(frozen=True, eq=False)
class Side:
    """One memory, and how it is used. name: what it is called, with the flip of `arm`.

    arm: method and flip of its sets. ipc: images a class. files: sets that are files instead. storage: how images are
    kept. joint: all real images. strategy: of Avalanche, where a network sees the current step's data.
    """

    name: str
    arm: Arm
    ipc: int | None
    files: Sequence[GivenSet] = ()
    storage: str = ""
    joint: bool = False
    strategy: str = ""

    @property
    def words(self) -> str:
        """What people are told it is."""
        return arm_title({"method": self.name, "flip": self.arm.flip})

    @property
    def costly(self) -> bool:
        """Whether it is a bound, or holds several times as many images as the memory in question."""
        return self.joint or self.strategy not in ("", REPLAY) or ("bytes" in self.name and not self.files)

    @property
    def title(self) -> Arm:
        """What a record calls it."""
        return Arm(self.name, self.arm.flip)


@dataclass
class Runs:
    """Runs of a side.

    sets: those that make its sets, by owner and step. tests: by owner and network, one run a step, or one for all.
    """

    sets: dict[tuple[Owner, int], RunSpec] = field(default_factory=dict)
    tests: dict[tuple[Owner, int], list[RunSpec]] = field(default_factory=dict)

    @property
    def all(self) -> list[RunSpec]:
        """Sets first."""
        return [*self.sets.values(), *(run for runs in self.tests.values() for run in runs)]

    def rows(self, key: tuple[Owner, int], found: Records) -> list[Mapping[str, Any]]:
        """What a network knew after each step."""
        records = [found[run.digest] for run in self.tests[key]]
        if "rows" not in records[0]:
            return records
        parts = records[0].get("set_parts", [None] * len(records[0]["rows"]))
        return [{**row, "set_parts": own} for row, own in zip(records[0]["rows"], parts, strict=True)]


def files_of(session: Session, options: ContinualOptions) -> list[list[GivenSet]]:
    """The sets that are files, those that make up one memory together.

    A set of all classes is a memory by itself; others are joined in their order. Raises UsageError where these lack a
    class or have one twice.
    """
    if not options.methods:
        session.check_overrides([])
    plain = session.about(overrides={})  # keys of a recipe are for the methods beside the sets
    given = [given_set(plain, path, facts_of(session, options)) for path in options.sets]
    classes = session.data.num_classes
    whole = [one for one in given if len(one.image_set.classes) == classes]
    parts = [one for one in given if len(one.image_set.classes) < classes]
    held = [c for one in parts for c in one.image_set.classes]
    if parts and sorted(held) != list(range(classes)):
        twice = sorted({c for c in held if held.count(c) > 1})
        what = f"two have class {twice[0]}" if twice else f"none has class {min(set(range(classes)) - set(held))}"
        raise UsageError(
            f"Of {', '.join(one.path.name for one in parts)}, with some of the classes each, {what}.\n"
            "Give one set of all classes, or one a step that together have each class once."
        )
    return [*([parts] if parts else []), *([one] for one in whole)]


def stated_steps(files: Sequence[Sequence[GivenSet]]) -> list[list[int]]:
    """Classes of each step, where sets say so: one set a step, or a file that holds steps; [] where none does."""
    for memory in files:
        if len(memory) > 1:
            return [_in_turn(one) for one in memory]
        steps = memory[0].image_set.provenance.get("imported", {}).get("steps", 0)
        order = _in_turn(memory[0])
        if steps > 1 and len(order) % steps == 0:
            size = len(order) // steps
            return [order[k * size : (k + 1) * size] for k in range(steps)]
    return []


def _in_turn(given: GivenSet) -> list[int]:
    """Classes in the order of their first images."""
    return list(dict.fromkeys(given.image_set.hard_labels.tolist()))


def sides_of(planner: Planner, files: Sequence[Sequence[GivenSet]], found: Records) -> tuple[list[Side], bool]:
    """Every side, and whether some are still to follow: those of equal bytes, where sets must be made to know them."""
    session, options = planner.session, planner.options
    used = REPLAY if options.replay else ""
    sides = [Side(arm.method, arm, options.ipc, strategy=used) for arm in options.methods]
    if options.names and len(options.names) != len(files):
        raise UsageError(
            f"{len(options.names)} --name for {len(files)} memories of --set-file.\nGive each one, in order."
        )
    for memory, called in zip(files, options.names or [""] * len(files), strict=True):
        name, first = called or memory[0].name or memory[0].method, memory[0]
        if any(side.title == Arm(name, first.flip) for side in sides):
            name = f"{name} ({first.image_set.digest[:6]})"
        sides.append(Side(name, Arm(first.method, first.flip), first.image_set.ipc, memory, strategy=used))
    main, waiting = sides[len(options.methods) - 1 if options.methods else 0], False
    items = sum(one.image_set.items for one in main.files)
    ipc = main.ipc or max(1, items // session.data.num_classes)
    for name in options.compared:
        if name in SAME_NUMBER:
            sides.append(Side(name, Arm(name, "none"), ipc, strategy=used))
        elif name in SAME_BYTES:
            method, several = name.removesuffix("-bytes"), _same_bytes(planner, main, ipc, found)
            waiting |= several is None
            if several is not None:
                sides.append(Side(f"{method} (bytes)", Arm(method, "none"), several, strategy=used))
        elif name in STORAGES:
            sides.append(replace(main, name=f"{main.name} ({name})", storage=name))
        elif name == JOINT:
            sides.append(Side(name, Arm(name, "none"), None, joint=True))
        else:
            sides.append(Side(name, Arm(name, "none"), None if name == STRATEGIES[0] else ipc, strategy=name))
    return list({side.title: side for side in reversed(sides)}.values())[::-1], waiting


def _same_bytes(planner: Planner, main: Side, ipc: int, found: Records) -> int | None:
    """Real images a class, a byte a value, that take as much as the memory in question; None while that is unknown."""
    from distill.methods import METHODS
    from distill.methods.random import Coreset
    from downstream.continual.memory import image_bytes

    data = planner.session.data
    pixels = math.prod(data.train.shape)
    size = ipc * pixels * FLOAT_BYTES
    if main.files:
        size = sum(image_bytes(one.image_set) for one in main.files) // data.num_classes
    elif issubclass(chosen := METHODS.get(main.arm.method), Coreset):
        size = ipc * pixels
    elif hasattr(chosen, "decoder"):  # what it stores is no image
        made = planner.runs(main).sets
        if not all(run.digest in found for run in made.values()):
            return None
        classes = sum(len(run.inputs["classes"]) for run in made.values())
        size = sum(_held_bytes(run, found[run.digest], data.train.shape) for run in made.values()) // classes
    return min(int(data.train.counts.min()), max(1, size // pixels))


def _held_bytes(run: RunSpec, made: Mapping[str, Any], shape: tuple[int, int, int]) -> int:
    """Bytes of a set in a memory: hard labels follow from its order and cost nothing."""
    parts = made.get("set_parts") or {"stored": made["set_bytes"], "labels": 0, "decoder": 0}
    hard = parts["labels"] == LABEL_BYTES * shown_images(run, shape)
    return parts["stored"] + parts["decoder"] + (0 if hard else parts["labels"])


@dataclass
class Planner:
    """Turns sides into runs. orders: of each seed. few: whether bounds and costly sides have the first one alone."""

    session: Session
    options: ContinualOptions
    orders: Mapping[int, Order]
    few: bool = False

    def runs(self, side: Side) -> Runs:
        """All runs of a side."""
        task = "continual-stream" if side.strategy else "continual-joint" if side.joint else "continual"
        protocol, tests = self.session.protocol(task), self._stream if side.strategy else self._steps
        found = Runs()
        for owner, networks in self._owners(side, protocol):
            order, sets = self.orders[owner[0]], self._sets(side, owner)
            found.sets |= {(owner, step): run for step, run in enumerate(sets)}
            for net in range(networks):
                found.tests[owner, net] = tests(side, order, sets, NETWORKS_OF_A_SET * owner[1] + net, protocol)
        return found

    def _steps(self, side: Side, order: Order, sets: list[RunSpec], seed: int, protocol: Protocol) -> list[RunSpec]:
        """A fresh network at every step, on all the memory then holds."""
        data, precision = self.session.data, self.session.settings.precision
        return [
            continual_run(data, self._memory(side, order, sets, step), order, step, seed, protocol, precision)
            for step in range(len(order.steps))
        ]

    def _stream(self, side: Side, order: Order, sets: list[RunSpec], seed: int, protocol: Protocol) -> list[RunSpec]:
        """One network that learns all steps by a strategy of Avalanche."""
        from downstream.continual.streams import check_strategy

        check_strategy(side.strategy, self.options.scenario)
        data, precision = self.session.data, self.session.settings.precision
        memory, kept = Memory(0), side.ipc or 0
        if side.strategy == REPLAY:
            memory, kept = self._memory(side, order, sets, len(order.steps) - 1), 0
        return [stream_run(data, side.strategy, memory, order, seed, protocol, precision, kept)]

    def _owners(self, side: Side, protocol: Protocol) -> list[tuple[Owner, int]]:
        """Class orders and the seeds of the sets made for each, with the networks trained on each."""
        seeds = list(self.orders)[: 1 if self.few and side.costly else None]
        count, networks = protocol.repetitions("" if side.files else side.name, len(seeds))
        # at least so many, equally many an order, first its own seed
        return [((seed, seed + k * len(seeds)), networks) for k in range(-(-count // len(seeds))) for seed in seeds]

    def _sets(self, side: Side, owner: Owner) -> list[RunSpec]:
        from fyi_bench.run.types.distill import distill_run

        if side.joint or side.files or side.strategy not in ("", REPLAY):
            return []
        order, session = self.orders[owner[0]], self.session
        made = []
        for step, classes in enumerate(order.steps.classes):
            ipc = self._share(side, order, step) or side.ipc or 1
            recipe = self._recipe(side.arm, ipc)
            made.append(
                distill_run(
                    session.data, side.arm.method, side.arm.flip, ipc, owner[1], recipe, classes,
                    session.settings.precision,
                )
            )  # fmt: skip
        return made

    def _share(self, side: Side, order: Order, step: int) -> int | None:
        """Images a class after a step, where the memory has a size in all; None where it grows."""
        if self.options.memory is None or side.joint:
            return None
        share = self.options.memory * (side.ipc or 1) // self.options.ipc // len(order.steps.seen(step))
        if not share:
            seen = len(order.steps.seen(step))
            raise UsageError(f"--memory {self.options.memory} is no image for each of {seen} classes.\nRaise it.")
        return share

    def _recipe(self, arm: Arm, ipc: int) -> Any:
        asked = self.options.methods[-1:]
        if not asked:
            return self.session.recipe(arm.method, ipc, overridden=False)
        return recipes_of(self.session, [*asked, arm], ipc)[arm]

    def _memory(self, side: Side, order: Order, sets: Sequence[RunSpec], step: int) -> Memory:
        from distill.methods import METHODS

        share = self._share(side, order, step)
        seen = order.steps.seen(step)
        if side.joint:
            return Memory(int(self.session.data.train.counts[seen].sum()), source=REAL)
        if side.files:
            counts = sum(one.image_set.counts for one in side.files)[seen]  # type: ignore[index]
            images = int(counts.clamp(max=share).sum() if share else counts.sum())
            decoded = any(one.image_set.decoder is not None for one in side.files)
            return Memory(
                images, files=[one.reference for one in side.files], storage=side.storage, cut=share, decoded=decoded
            )
        held = list(sets[: step + 1])
        cut = share if any(run.inputs["ipc"] > (share or run.inputs["ipc"]) for run in held) else None
        shape = self.session.data.train.shape
        images = sum(shown_images(run, shape) * min(run.inputs["ipc"], cut or run.inputs["ipc"]) // run.inputs["ipc"]
                     for run in held)  # fmt: skip
        decoded = any("decoder" in METHODS.get(run.inputs["method"]).components for run in held)
        return Memory(images, sets=held, storage=side.storage, cut=cut, decoded=decoded)

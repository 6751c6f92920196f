"""Protocols: how a number is measured, named and versioned, as data in protocols/*.toml.

A protocol has a table per task ([task.accuracy], [task.continual], …) over [common], and inside a task overrides per
method ([task.accuracy.method.dc]). Each of these may have overrides per data set (dataset.mnist): `mirror = false`
takes the mirror out of `eval_augment`, and `like` in [common] names another data set whose overrides hold. Last come a
task's tables `when`, in order, for images of some sizes, sets of so many classes, images or images a class. A task
may be `like` that of another protocol.
`extends` names a protocol whose [common] comes first; its tasks are not inherited.
A protocol changed by the user is recorded under a name that says so: `paper+epochs=300`.

`legacy-…` protocols are published procedures with their quirks, choices by test accuracy among them. No other protocol
chooses anything on test images.
"""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

from fyi_bench.errors import UnknownNameError, UsageError, unknown_name_message
from fyi_bench.registry import spelled_as

FOLDER = Path(__file__).parent / "protocols"
FLOOR = "random"  # the coreset of random real images that every comparison is held against
EARLY_STOPPING = "early-stopping"  # real images for as many steps as a condensed set takes, as if it were a method


@dataclass(frozen=True)
class Protocol:
    """Settings of retraining and of the number of repetitions.

    version: rises where numbers change, on some data sets alone where only theirs do.
    epochs: as published (the loop of the published code runs one more, see `extra_epoch`).
    min_steps: small sets get more epochs, so that at least this many optimiser steps are made (0: never).
    lr: initial step size; when `lr_from_set` is true a set that carries a learned one is trained with it.
    lr_others: initial step size of networks that are not ConvNets (0: theirs is `lr` too).
    lr_stable: the initial step size is this times the largest stable one, which each network tells (0: it is `lr`).
    schedule: 'drop-restart' (x `drop` once, after epoch index epochs // 2 + 1, momentum lost), 'milestones'
    (x `drop` at the given fractions of the epochs), 'cosine' (to 0, per step), 'cosine-epochs' (likewise, per epoch),
    'half-cosine' (per epoch, to half), 'warm-cosine' (500 steps up from 0, then to a hundredth) or 'constant'.
    passes: over the images, into which the schedule of the epochs is squeezed (0: each epoch is one).
    eval_augment, eval_dispatcher: augmentation of the retraining (strategy string or 'none').
    cutmix: probability of CutMix a batch (beta 1).
    standardise: each batch gets mean 0 and deviation 1 before it is augmented; test images too, 128 at a time.
    nets: networks per set; sets: independently distilled sets (seeds); orders: class orders (continual).
    draws: sets of random real images that the floor is the mean of, at least (see `repetitions`).
    tests: how often test accuracy is measured during a training, at even distances; the best of them is the network's
    (1: once, at the end).
    checkpoints_every, checkpoints_from: the set is evaluated on its way, after these iterations, and the best mean by
    test accuracy is reported (0: the finished set alone).
    warm: 'raw' trains each network on the images themselves before it is trained on their running average (FTD).
    labels: 'own' (those of the set), 'hard' (its classes alone) or 'teacher' (of a network, or stored, for what each
    step shows). loss: of soft labels: 'cross-entropy', 'kl' or 'mse' (of logits), the first two at a `temperature`;
    of all labels: 'squared' (half its mean, of one-hot less 1 / C where they are no targets already);
    hard_weight: of the cross-entropy of the classes added to a teacher's loss.
    optimiser: 'sgd', 'adam' or 'adamw' (these without `momentum`). decay: 'all' weights, or 'matrices' (not biases
    and norms).
    resized_crop: least and most area of a random crop that is enlarged to the image; none where empty.
    patches: strips a side that are shuffled, across and down (1: none). mixup: of each batch, the parameter of the
    Beta distribution (0: none). ema: decay, a step, of a running average of the weights, which is tested (0: none).
    teacher_model: architectures of the teacher, by comma; the network's own where empty.
    order: of the steps: 'shuffled' batches, or 'steps': a set's own ordered ones with its step sizes, plain gradient
    descent; mirror_steps: they show mirror images too. initial: weights, 'default' (the architecture's) or 'xavier'.
    eval_model may be 'kernel' (or 'kernel:fc1' …): no network, but regression with the kernel of the set's recipe.
    """

    name: str
    version: int
    task: str
    eval_model: str
    epochs: int
    min_steps: int
    extra_epoch: bool
    lr: float
    lr_from_set: bool
    momentum: float
    weight_decay: float
    batch: int
    schedule: str
    drop: float
    milestones: tuple[float, ...]
    eval_augment: str
    eval_dispatcher: str
    cutmix: float
    nets: int
    sets: int
    orders: int
    tests: int = 1
    checkpoints_from: int = 0
    checkpoints_every: int = 0
    warm: str = "none"
    lr_others: float = 0.0
    draws: int = 5
    labels: str = "own"
    loss: str = "cross-entropy"
    temperature: float = 1.0
    hard_weight: float = 0.0
    optimiser: str = "sgd"
    decay: str = "all"
    resized_crop: tuple[float, ...] = ()
    patches: int = 1
    mixup: float = 0.0
    ema: float = 0.0
    teacher_model: str = ""
    order: str = "shuffled"
    mirror_steps: bool = False
    initial: str = "default"
    lr_stable: float = 0.0
    standardise: bool = False
    passes: int = 0

    def repetitions(self, method: str, sets: int, fewest: int = 2) -> tuple[int, int]:
        """How many sets of a method are made beside an arm of so many, and how many networks are trained on each.

        One draw of random images is no floor: draws differ by more than networks do. So there are `draws` of them at
        least, with about as many networks in all as an arm has, which is where most is learnt of the mean for the
        money. Two on each (`fewest`), where an arm has so many, tell what draws and what networks differ by.
        """
        if method != FLOOR:
            return sets, self.nets
        draws = max(self.draws, sets)
        return draws, min(self.nets, max(fewest, math.ceil(self.nets * sets / draws)))

    def for_network(self, model: str) -> Protocol:
        """The rules for one network, by name: `eval_model` is this one, `lr` its step size."""
        lr = self.lr if model.startswith(CONVNETS) or not self.lr_others else self.lr_others
        return replace(self, eval_model=model, lr=lr, lr_others=0.0)

    def epochs_for(self, images: int) -> int:
        """Passes over a set of this many images that are really made."""
        if self.passes:
            return self.passes
        batches = math.ceil(images / self.batch)
        return max(self.epochs, math.ceil(self.min_steps / batches)) + int(self.extra_epoch)

    def with_overrides(self, overrides: dict[str, str]) -> Protocol:
        """Values given as text by the user; the name then lists them, so that cells of tables never mix."""
        if not overrides:
            return self
        known = protocol_keys()
        for key in overrides:
            if key not in known:
                raise UsageError(unknown_name_message("protocol key", key, known))
        values = {key: _parse(key, text, getattr(self, key)) for key, text in overrides.items()}
        for key in values:
            if isinstance(values[key], int) and abs(values[key]) > MOST_COUNT:
                raise UsageError(f"{key} is {values[key]}; up to {MOST_COUNT:,} is possible.")
        for key in CHOICES.keys() & values.keys():
            if values[key] not in CHOICES[key]:
                raise UnknownNameError(key, values[key], CHOICES[key])
        for key in _COUNTS & values.keys():
            if values[key] < 1:
                raise UsageError(f"{key} must be 1 or more, not {values[key]}.")
        if values.get("passes", 0) < 0:
            raise UsageError("passes must be 0 or more: at 0 each epoch is one.")
        if values.get("standardise") and self.task.startswith("continual"):
            raise UsageError("standardise is for networks that are not trained class by class.\nLeave it out.")
        changed = {k: v for k, v in values.items() if v != getattr(self, k)}
        if "lr" in changed:
            values.setdefault("lr_others", 0.0)  # a step size that was asked for is every network's
        suffix = "".join(f"+{k}={_show(v)}" for k, v in sorted(changed.items()))
        return replace(self, **values, name=self.name + suffix)

    def keyed(self) -> dict[str, Any]:
        """Every field that can change a number; the name and the repetitions are left out of a run's digest."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _REPETITIONS}
        return {key: value for key, value in values.items() if key not in _RARE or value != _RARE[key]}

    @staticmethod
    def rebuilt(name: str, version: int, task: str, keyed: Mapping[str, Any]) -> Protocol:
        """The rules that `keyed` describes, for one network."""
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in keyed.items()}
        return Protocol(name=name, version=version, task=task, nets=1, sets=1, orders=1, **values)

    def checkpoints(self, iterations: int) -> list[int]:
        """Iterations after which a set of so many is evaluated. Raises UsageError where there is none."""
        if not self.checkpoints_every:
            return [iterations]
        found = list(range(self.checkpoints_from, iterations + 1, self.checkpoints_every))
        if not found:
            raise UsageError(
                f"{self.name} looks at sets after {self.checkpoints_from} iterations and later, and the recipe has"
                f" {iterations}.\nGive --set checkpoints_from=… or more --set iterations=…"
            )
        return found


MOST_COUNT = 10_000_000  # of every whole number of a protocol
_NETWORKS = {"eval_model", "teacher_model"}  # names of architectures, by comma
_COUNTS = {"nets", "sets", "orders", "draws", "tests", "batch", "epochs", "patches"}
_REPEATED = ("nets", "sets", "orders", "draws")
# the teacher has a digest of its own
_REPETITIONS = {"name", *_REPEATED, "task", "version", "checkpoints_from", "checkpoints_every", "teacher_model"}
# what few protocols do; at its default it is not in a digest
_RARE = {
    f.name: f.default for f in fields(Protocol)
    if f.default is not MISSING and f.name not in _REPETITIONS
}  # fmt: skip
# what a user or a file may say of these
CHOICES = {
    "labels": ("own", "hard", "teacher"), "loss": ("cross-entropy", "kl", "mse", "squared"),
    "optimiser": ("sgd", "adam", "adamw"), "decay": ("all", "matrices"), "order": ("shuffled", "steps"),
    "initial": ("default", "xavier"),
}  # fmt: skip

_TABLES = {"dataset", "method", "when"}  # of a task, beside its values
_FACTS = {"size", "classes", "ipc", "images"}  # the least and most of these that a table of `when` is for

CONVNETS = "convnet"  # how the names of all ConvNets begin


def procedure(name: str) -> str:
    """A protocol's name without how often it is repeated: `quick+epochs=20+nets=1` -> `quick+epochs=20`."""
    base, *changes = name.split("+")
    return "+".join([base, *(c for c in changes if c.partition("=")[0] not in _REPEATED)])


def protocol_keys() -> set[str]:
    """Keys a user may set."""
    return {f.name for f in fields(Protocol)} - {"name", "version", "task"}


def protocol_names() -> list[str]:
    """Names of the protocols that exist, sorted."""
    return sorted(p.stem for p in FOLDER.glob("*.toml"))


def spelled(name: str) -> str:
    """The name of a protocol as it is known, given in any case; one that is unknown, or 'auto', stays what it is."""
    return spelled_as(name, protocol_names())


def protocol(
    name: str, task: str, method: str | None = None, dataset: str | None = None, facts: Mapping[str, Any] | None = None
) -> Protocol:
    """The named protocol for a task and (where the published procedures differ) a method and a data set.

    facts: `size` in pixels, `classes` and `ipc` of a set, which a protocol's `when` tables ask for. Raises UsageError
    with a suggestion for an unknown protocol, or when it does not define the task.
    """
    name = spelled(name)
    data = protocol_data(name)
    if task not in data["task"]:
        raise UsageError(f"The protocol '{name}' has no settings for '{task}'.\nIt has: {', '.join(data['task'])}.")
    table = data["task"][task]
    if "like" in table:
        return replace(protocol(table["like"], task, method, dataset, facts), name=name)
    dataset = data["common"].get("dataset", {}).get(dataset, {}).get("like", dataset)
    values: dict[str, Any] = {"version": data["version"]}
    for layer in (data["common"], table, table.get("method", {}).get(method, {})):
        values |= layer | layer.get("dataset", {}).get(dataset, {})
    known = dict(facts or {})
    if known.get("classes") and known.get("ipc"):
        known["images"] = known["classes"] * known["ipc"]
    for case in table.get("when", ()):
        if all(_within(known.get(fact), case[fact]) for fact in _FACTS & case.keys()):
            values |= {key: value for key, value in case.items() if key not in _FACTS}
    if not values.pop("mirror", True):
        values["eval_augment"] = "_".join(word for word in values["eval_augment"].split("_") if word != "flip")
    kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k not in _TABLES}
    return Protocol(name=name, task=task, **kept)


@functools.cache
def protocol_data(name: str) -> Mapping[str, Any]:
    """The file of a protocol as tables, [common] complete: `about`, `version`, `common`, `task`, and tables of tasks.

    Raises UnknownNameError with a suggestion.
    """
    name = spelled(name)
    if name not in protocol_names():
        raise UnknownNameError("protocol", name, protocol_names())
    data = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    if "extends" in data:
        data["common"] = {**protocol_data(data["extends"])["common"], **data.get("common", {})}
    return data


def _within(fact: int | None, bounds: Sequence[int]) -> bool:
    """Whether a fact is known, and neither below nor above the bounds."""
    return fact is not None and bounds[0] <= fact <= bounds[1]


_KINDS: Mapping[type, str] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a text", tuple: "numbers, commas between",
}  # fmt: skip


def _parse(key: str, text: str, old: Any) -> Any:
    try:
        if isinstance(old, bool):
            return {"true": True, "false": False, "1": True, "0": False}[str(text).lower()]
        if isinstance(old, tuple):
            return tuple(float(t) for t in str(text).split(",") if t)
        if key in _NETWORKS:
            from search_space import architectures

            return ",".join(architectures.spelled(name.strip()) for name in str(text).split(","))
        return type(old)(text)
    except (KeyError, ValueError):
        raise UsageError(f"'{text}' is not a value for {key}.\nIt is {_KINDS[type(old)]}, now {_show(old)}.") from None


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{v:g}" for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)

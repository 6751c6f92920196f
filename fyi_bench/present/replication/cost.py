"""How long a number that is missing would take, in proportion to what runs of the store took.

Work is image passes times floating-point operations; a pass with first derivatives counts three times, one with second
derivatives nine times. Sets are held against sets of the same method, or of all methods where it has none; networks
against all networks. Training experts is not counted.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from distill.fyi import FLIPS
from distill.image_set import ImageSet
from distill.methods import METHODS, config_of
from distill.problem import Problem
from distill.recipes import recipe
from distill.spaces import PixelSpace
from downstream.protocol import protocol
from fyi_bench.data.entry import find_entry
from fyi_bench.errors import FyiBenchError
from fyi_bench.present.published import Published
from search_space.architectures import forward_flops

FORWARD, FIRST, SECOND = 1, 3, 9
Record = Mapping[str, Any]


@dataclass
class Pace:
    """Seconds a unit of work on the machine that most runs of a store were made on.

    machine: its name. sets: by method; networks: of one in training.
    """

    machine: str = ""
    sets: dict[str, float] = field(default_factory=dict)
    networks: float | None = None

    def seconds(self, wanted: Published, sets: int) -> float | None:
        """Of so many sets by the paper's recipe and of the networks tested on them; None where that cannot be told."""
        if not self.sets or self.networks is None or wanted.ipc is None:
            return None
        try:
            values = recipe(wanted.method, wanted.dataset, wanted.ipc, "paper").values
            rules = protocol("paper", "accuracy", wanted.method, wanted.dataset)
        except FyiBenchError:
            return None
        made = {name: getattr(wanted, name) for name in ("method", "flip", "dataset", "ipc")} | {"config": values}
        images = made["ipc"] * _problem(made).num_classes
        work = work_of_set(made)
        if not work:
            return None
        pace = self.sets.get(wanted.method, statistics.median(self.sets.values()))
        one = self.networks * _work_of_network(wanted.dataset, images, rules.epochs_for(images), wanted.arch)
        return sets * (pace * work + rules.nets * one)


def pace_of(records: Iterable[Record]) -> Pace:
    """What finished runs took, a median of each kind; `records` of sets and of networks, each with its set's."""
    by_machine: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_machine[record["environment"]["device_name"]].append(record)
    if not by_machine:
        return Pace()
    machine = Counter({name: len(found) for name, found in by_machine.items()}).most_common(1)[0][0]
    sets: dict[str, list[float]] = defaultdict(list)
    networks: list[float] = []
    for record in by_machine[machine]:
        made = record["config"]
        if record["kind"] == "distill":
            work = work_of_set(made)
            if work:
                sets[made["method"]].append(record["wall_s"] / work)
        else:
            rules, images = made["protocol"], record["notes"][0]["images"]
            epochs = rules["epochs"] + int(rules["extra_epoch"])
            work = _work_of_network(made["dataset"], images, epochs, rules["eval_model"])
            networks.append(record["wall_s"] / work)
    medians = {method: statistics.median(found) for method, found in sorted(sets.items())}
    return Pace(machine, medians, statistics.median(networks) if networks else None)


def work_of_set(made: Mapping[str, Any]) -> float:
    """Units of work of a set with these inputs of a `distill` run; 0 where nothing is optimised."""
    problem = _problem(made)
    config = config_of(made["method"], {key: made["config"][key] for key in _names(made["method"])})
    method = METHODS.get(made["method"])(config, problem)
    forward, first, second = method.passes(FLIPS.get(made["flip"]).multiplier)
    passes = FORWARD * forward + FIRST * first + SECOND * second
    return config.iterations * passes * forward_flops(config.model, *problem.shape[:2], problem.num_classes)


def _names(method: str) -> Iterable[str]:
    return METHODS.get(method).Config.__dataclass_fields__


def _problem(made: Mapping[str, Any]) -> Problem:
    """A problem of the right size whose images take no memory."""
    entry = find_entry(made["dataset"])
    classes, side = entry.num_classes or 10, entry.size or 32
    images = torch.zeros(1, dtype=torch.uint8).expand(classes * made["ipc"], entry.channels, side, side)
    labels = torch.arange(classes).repeat_interleave(made["ipc"])
    return Problem(ImageSet(images, labels, PixelSpace(), classes), PixelSpace(), made["ipc"])


def _work_of_network(dataset: str, images: int, epochs: int, arch: str) -> float:
    entry = find_entry(dataset)
    flops = forward_flops(arch, entry.channels, entry.size or 32, entry.num_classes or 10)
    return (FIRST * images * epochs + FORWARD * (entry.test or 0)) * flops

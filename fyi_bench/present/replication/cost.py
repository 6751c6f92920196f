"""How long a number that is missing would take, in proportion to what runs of the store took.

Work is image passes times floating-point operations; a pass with first derivatives counts three times, one with second
derivatives nine times. Sets are held against sets of the same method, or of all methods where it has none; networks
against all networks. Training experts is not counted, nor is testing on train images set aside.
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
from downstream.nas import limits_of
from downstream.protocol import protocol
from fyi_bench.data.entry import find_entry
from fyi_bench.errors import FyiBenchError
from fyi_bench.present.missing import Missing
from fyi_bench.present.published import Published
from fyi_bench.present.tables.groups import PAPER
from search_space import space720
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
        """Of so many sets by the paper's recipe and of all networks for this number; None where that cannot be told."""
        if self.networks is None or wanted.ipc is None:
            return None
        made = self.of_set(wanted.method, wanted.flip, wanted.dataset, wanted.ipc)
        if made is None:
            return None
        work = _work_of_networks if wanted.metric == "accuracy" else _work_of_ranking
        return sets * made + self.networks * work(wanted, sets)

    def of_set(self, method: str, flip: str, dataset: str, ipc: int, changes: Mapping[str, Any] = {}) -> float | None:
        """Of condensing one set by the paper's recipe with these changes; None where that cannot be told."""
        try:
            values = {**recipe(method, dataset, ipc, PAPER).values, **changes}
        except FyiBenchError:
            return None
        work = work_of_set({"method": method, "flip": flip, "dataset": dataset, "ipc": ipc, "config": values})
        if not self.sets or not work:
            return None
        return self.sets.get(method, statistics.median(self.sets.values())) * work

    def of_command(self, asked: Missing) -> float | None:
        """Of condensing the sets of one seed that a command makes; None where that cannot be told."""
        changes = {key: int(value) for key, value in asked.changes.items()}
        flips = dict.fromkeys(("none", asked.flip))
        each = [self.of_set(asked.method, flip, asked.dataset, asked.ipc, changes) for flip in flips]
        known = [one for one in each if one is not None]
        return sum(known) if len(known) == len(each) else None


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


def _work_of_networks(wanted: Published, sets: int) -> float:
    """Of the networks that are tested on so many sets for an accuracy."""
    rules = protocol(PAPER, "accuracy", wanted.method, wanted.dataset)
    images = _images(wanted)
    return sets * rules.nets * _work_of_network(wanted.dataset, images, rules.epochs_for(images), wanted.arch)


def _work_of_ranking(wanted: Published, sets: int) -> float:
    """Of the 720 networks on each of so many sets, and on real data with the second run of some."""
    rules, real, limits = protocol(PAPER, "nas", wanted.method), protocol(PAPER, "nas-reference"), limits_of(PAPER)
    kept = round((find_entry(wanted.dataset).train or 0) * (1 - limits.validation))
    images, times = _images(wanted), 1 + limits.ceiling
    return sum(
        sets * _work_of_network(wanted.dataset, images, rules.epochs_for(images), point.architecture)
        + times * _work_of_network(wanted.dataset, kept, real.epochs_for(kept), point.architecture)
        for point in space720.SPACE
    )


def _images(wanted: Published) -> int:
    assert wanted.ipc is not None  # asked for those that have one
    return wanted.ipc * (find_entry(wanted.dataset).num_classes or 10)


def _work_of_network(dataset: str, images: int, epochs: int, arch: str) -> float:
    entry = find_entry(dataset)
    flops = forward_flops(arch, entry.channels, entry.size or 32, entry.num_classes or 10)
    return (FIRST * images * epochs + FORWARD * (entry.test or 0)) * flops

"""The answer of `fyi-bench nas`: what the trained networks say about each proxy, as a record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from fyi_bench.stats import HEADLINE, misjudged, paired_rank_difference, rank_report
from fyi_bench.store.record import build_record
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store
from fyi_bench.tasks.common import Arm

if TYPE_CHECKING:
    from fyi_bench.session import Session
    from search_space.space720 import Point


@dataclass
class Side:
    """One thing networks are trained on: real images, or a proxy.

    cells: those of each architecture; or stored: accuracies by name, measured elsewhere. needs: runs they read.
    """

    name: str
    store: Store
    cells: Mapping[Point, Sequence[RunSpec]] = field(default_factory=dict)
    stored: Mapping[str, float | None] | None = None
    needs: tuple[tuple[str, str], ...] = ()
    images: int = 0
    _records: dict[str, dict[str, Any] | None] = field(default_factory=dict)

    def record(self, cell: RunSpec) -> dict[str, Any] | None:
        """The record of a cell, or None where it has none."""
        if cell.digest not in self._records:
            self._records[cell.digest] = self._read(cell)
        return self._records[cell.digest]

    def _read(self, cell: RunSpec) -> dict[str, Any] | None:
        if not self.store.has(cell):
            return None
        with self.store.run(cell) as run:
            return run.record

    def has(self, point: Point) -> bool:
        """Whether there is a result for this architecture, be it that it diverged."""
        from fyi_bench.run.queue import finished

        if self.stored is not None:
            return point.name in self.stored
        return point in self.cells and all(finished(self.store, cell) for cell in self.cells[point])

    def score(self, point: Point) -> float | None:
        """Accuracy of this architecture: the mean of its networks that did not fail, None where all did."""
        if self.stored is not None:
            return self.stored.get(point.name)
        records = [self.record(cell) for cell in self.cells.get(point, ())]
        values = [record["value"] for record in records if record is not None]
        return sum(values) / len(values) if values else None

    def scores(self, points: Sequence[Point]) -> list[float | None]:
        """Accuracy of each architecture."""
        return [self.score(point) for point in points]

    def epochs(self) -> int | None:
        """Passes over the images that the networks made; None where none was trained."""
        records = (self.record(cell) for cells in self.cells.values() for cell in cells)
        return next((record["epochs"] for record in records if record is not None), None)

    def seconds(self, points: Sequence[Point]) -> float:
        """Time of training and testing them, one after another."""
        records = [self.record(cell) for point in points for cell in self.cells.get(point, ())]
        return sum(record["wall_s"] for record in records if record is not None)


def build_answer(session: Session, plan: Any, partial: bool) -> dict[str, Any]:
    """The record of a plan whose networks are trained. partial: some of the architectures only, not to be kept."""
    points = plan.points
    real = plan.real.scores(points)
    factors = {factor: [getattr(point, factor) for point in points] for factor in asdict(points[0])}
    seed = session.settings.seed
    proxies = {arm: side.scores(points) for arm, side in zip(plan.arms, plan.proxies, strict=True)}
    return build_record(
        "nas",
        **session.facts(plan.protocol),
        seeds=plan.set_seeds,
        digest=plan.digest,
        arms=[
            _arm_entry(session, plan, arm, side, real, proxies[arm], factors)
            for arm, side in zip(plan.arms, plan.proxies, strict=True)
        ],
        space=len(points),
        architectures=_architectures(plan, real),
        reference=_reference(plan, real),
        ceiling=_ceiling(plan, seed),
        workers=session.settings.workers,
        partial=partial,
        **_difference(plan.arms, real, proxies, seed),
        data={"note": session.data.note, "train": session.data.train_digest},
        store=str(session.store.root),
    )


def _arm_entry(session, plan, arm: Arm, side: Side, real, proxy, factors) -> dict[str, Any]:
    report = rank_report(real, proxy, session.settings.seed)
    makers = [cell for cell in plan.set_cells if (cell.kind, cell.digest) in side.needs]
    made = [record for cell in makers if (record := side.record(cell)) is not None]
    return {
        "method": arm.method,
        "flip": arm.flip,
        "ipc": plan.ipc_of(arm),
        "space": len(plan.points),
        **report,
        "accuracy": proxy,
        "tied": _tied(proxy),
        "against_ceiling": _against_ceiling(plan, side, session.settings.seed),
        "misjudged": misjudged(factors, real, proxy),
        "images": side.images,
        "epochs": side.epochs(),
        "set_bytes": made[0].get("set_bytes") if made else None,
        "train_s": round(side.seconds(plan.points), 1),
        "distill_s": round(sum(record["wall_s"] for record in made), 1),
        "cells": [cell.digest for cell in makers],
    }


def _architectures(plan: Any, real: Sequence[float | None]) -> list[dict[str, Any]]:
    data = plan.session.data
    from search_space.space720 import flops, parameters

    sizes = data.train.shape[0], data.train.shape[1], data.num_classes
    return [
        {
            "name": point.name,
            "parameters": parameters(point, *sizes),
            "flops": flops(point, *sizes),
            "real": score,
            "real_again": plan.again.score(point),
        }
        for point, score in zip(plan.points, real, strict=True)
    ]


def _reference(plan: Any, real: Sequence[float | None]) -> dict[str, Any]:
    """How the real ranking was made."""
    failed = sum(score is None for score in real)
    if plan.stored is not None:
        label = asdict(plan.stored.label)
        return {"kind": "stored", "name": plan.question.reference, **label, "failed": failed, "tied": _tied(real),
                "seeds": plan.stored.seeds, "train_s": round(plan.stored.seconds, 1)}  # fmt: skip
    protocol = plan.reference_protocol
    return {
        "kind": "train",
        "dataset": plan.session.data.name,
        "protocol": protocol.name,
        "epochs": protocol.epochs_for(plan.real.images),
        "images": plan.real.images,
        "test_images": next(iter(plan.real.cells.values()))[0].inputs["test_images"],
        "failed": failed,
        "tied": _tied(real),
        "train_s": round(plan.real.seconds(plan.points), 1),
    }


def _ceiling(plan: Any, seed: int) -> dict[str, Any]:
    """The real ranking against itself with another seed, on the architectures that have both."""
    both = _trained_twice(plan)
    return rank_report(plan.real.scores(both), plan.again.scores(both), seed) if both else {"evaluated": 0}


def _against_ceiling(plan: Any, side: Side, seed: int) -> dict[str, Any]:
    """Paired differences, the proxy minus the ceiling, on the architectures that the ceiling is about."""
    both = _trained_twice(plan)
    sides = (one.scores(both) for one in (plan.real, side, plan.again))
    return paired_rank_difference(*sides, seed) if both else {}


def _trained_twice(plan: Any) -> list[Point]:
    return [point for point in plan.points if plan.real.has(point) and plan.again.has(point)]


def _tied(values: Sequence[float | None]) -> int:
    """How many architectures have the accuracy of another; failed ones are counted elsewhere."""
    counts = Counter(value for value in values if value is not None)
    return sum(count for count in counts.values() if count > 1)


def _difference(arms: Sequence[Arm], real, proxies: Mapping[Arm, Sequence[float | None]], seed: int) -> dict[str, Any]:
    """Paired differences with the flip minus without, where two arms differ only in it."""
    for arm in arms:
        base = Arm(arm.method, "none")
        if arm.flip not in ("none", "unknown") and base in proxies:
            found = paired_rank_difference(real, proxies[arm], proxies[base], seed)
            return {"difference": found[HEADLINE], "differences": found}
    return {}

"""The real side of a search: which stored ranking can stand for it, how it is trained here, and what of it is kept."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import DataError, UsageError
from fyi_bench.run.plan import Records
from fyi_bench.run.types.architecture import Material, real_source, train_run
from fyi_bench.session import Session
from fyi_bench.store.spec import RunSpec
from fyi_bench.tasks.nas.points import AUTO, FEWEST, FEWEST_REPEATED, FEWEST_TOLD, SPACE_SEED, Passes

if TYPE_CHECKING:
    from downstream.nas import Architecture, Limits
    from downstream.protocol import Protocol
    from search_space.ranking import Label, Ranking, Row

TRAIN = "train"  # the reference that is trained here; every other name but auto is a stored ranking
# --set of these is about the proxies alone
_PROXIES_ALONE = frozenset(("epochs", "min_steps", "extra_epoch", "passes", "draws", "nets", "sets", "orders"))
REAL_DRAW = 0  # of the real images: a ranking's seeds are of its networks, whose images are the same


@dataclass(frozen=True)
class RealSide:
    """How networks are trained and tested on real data for a search."""

    session: Session
    limits: Limits
    protocol: Protocol

    @classmethod
    def asked(
        cls, session: Session, images: int | None, test_images: int | None, epochs: int | None = None
    ) -> RealSide:
        """As the protocol says, but for what the user gave: images and test images (0: all), epochs."""
        from downstream.nas import limits_of
        from downstream.protocol import protocol, protocol_keys

        given = {"reference_images": images, "test_images": test_images}
        for name, count in given.items():
            if count and count < session.data.num_classes:
                flag = "--" + name.replace("_", "-")
                raise UsageError(
                    f"{flag} is {count}.\nGive 0 for all, or {session.data.num_classes} or more: one of each class."
                )
        changed: dict[str, Any] = {name: count or None for name, count in given.items() if count is not None}
        limits = replace(limits_of(session.settings.protocol), **changed)
        known = protocol_keys() - _PROXIES_ALONE
        mine = {key: value for key, value in session.settings.overrides.items() if key in known}
        if epochs is not None:
            mine["epochs"] = str(epochs)
        rules = protocol(session.settings.protocol, "nas-reference", dataset=session.settings.dataset)
        return cls(session, limits, rules.with_overrides(mine))

    def images(self, count: int | None) -> Material:
        """So many of the real train images that are not set aside."""
        return real_source(self.session.data, count, REAL_DRAW, self.limits.validation)

    @property
    def source(self) -> Material:
        """What every network of the real side is trained on: one draw for all seeds."""
        return self.images(self.limits.reference_images)

    def run(self, point: Architecture, seed: int) -> RunSpec:
        """The network of an architecture with this seed."""
        return self.train(point, self.source, self.protocol, seed)

    def train(self, point: Architecture, source: Material, used: Protocol, seed: int) -> RunSpec:
        """A network on other images, by other rules, tested as those of the real side are."""
        precision = self.session.settings.precision
        limits = self.limits
        return train_run(
            self.session.data, source, point, used, seed, limits.test_images, precision, limits.validation
        )  # fmt: skip

    @property
    def tested(self) -> float:
        """Images each network is tested on, those set aside among them."""
        data, count = self.session.data, self.limits.test_images
        tested = len(data.test) if count is None else min(count, len(data.test))
        return tested + (min(tested, self.limits.validation * len(data.train)) if self.limits.validation else 0)

    @property
    def passes(self) -> Passes:
        """Images through a network of the real side, those with another seed as the share they are."""
        images = self.source.images
        each = Passes(images * self.protocol.epochs_for(images), self.tested)
        return Passes().plus(each, 1 + self.limits.ceiling)

    @property
    def label(self) -> Label:
        """How a ranking that is measured so is labelled."""
        from downstream.training import NUMERICS
        from search_space.ranking import Label

        data, images, count = self.session.data, self.source.images, self.limits.test_images
        return Label(
            dataset=data.name,
            protocol=f"{self.protocol.name} v{self.protocol.version}",
            epochs=self.protocol.epochs_for(images),
            images=images,
            test_images=len(data.test) if count is None else min(count, len(data.test)),
            precision=self.session.settings.precision,
            trainer=NUMERICS,
            data=data.train_digest,
            aside=self.limits.validation,
        )


def stored_ranking(real: RealSide, reference: str) -> tuple[str, Ranking] | None:
    """The ranking that stands for the real side, and its name; None where it is to be trained here."""
    from search_space.ranking import load

    if reference == TRAIN:
        return None
    if reference == AUTO:
        return fitting_ranking(real.label, complete=not real.session.data.note)
    ranking = load(reference)
    if not ranking.is_table and ranking.label.dataset != real.session.data.name:
        raise DataError(
            f"The ranking '{reference}' is about {ranking.label.dataset}, not {real.session.data.name}.\n"
            "Name the right --dataset."
        )
    return reference, ranking


def fitting_ranking(label: Label, complete: bool = False) -> tuple[str, Ranking] | None:
    """The ranking of the package with the most networks among those that were measured as this label says.

    Where there is none, one in another precision will do: that moves an accuracy as another seed does (docs/nas.md),
    and not every processor is fast in both. So will one of other train images where the data set is complete: then
    they are the same ones in another order, of which others were drawn. Last comes one from before labels said which
    train images there were: nobody knows whether it is about these.
    """
    from search_space.ranking import load, names

    def alike(other: Label) -> bool:
        told = other if other.data else replace(other, aside=label.aside)
        told = replace(told, data=label.data) if complete or not other.data else told
        return replace(told, precision=label.precision) == label

    def rank(pair: tuple[str, Ranking]) -> tuple[Any, ...]:
        name, ranking = pair
        own = ranking.label
        return bool(own.data), own.data == label.data, own.precision == label.precision, len(ranking.rows), name

    found = [(name, load(name)) for name in names() if name.startswith(label.dataset)]
    return max((pair for pair in found if alike(pair[1].label)), key=rank, default=None)


def repeated(points: Sequence[Architecture], share: float) -> list[Architecture]:
    """The architectures that the real side trains twice: a stratified share, of another space every so manyth."""
    from search_space import space720

    least = FEWEST_REPEATED if len(points) >= FEWEST_TOLD else FEWEST
    wanted = min(max(least, math.ceil(share * len(points))), len(points))

    def among_first(count: int) -> list[Architecture]:
        first = {point.name for point in space720.subset(count, SPACE_SEED)}
        return [point for point in points if point.name in first]

    if all(isinstance(point, space720.Point) for point in points):  # some of the first are none of these
        counts = range(1, len(space720.SPACE) + 1)
        return among_first(counts[bisect_left(counts, wanted, key=lambda count: len(among_first(count)))])
    places = {round(k * (len(points) - 1) / max(1, wanted - 1)) for k in range(wanted)}
    return [points[place] for place in sorted(places)]


def measured_ranking(
    label: Label,
    runs: Mapping[Architecture, Sequence[RunSpec]],
    found: Records,
    over: Callable[[RunSpec], bool],
) -> Ranking:
    """What was trained here on real data, as a ranking to keep.

    runs: networks of each architecture. over(run): whether one that has no record failed; others are not done yet.
    """
    from search_space.ranking import Ranking, Row

    rows = []
    for point, networks in runs.items():
        for run in networks:
            record = found.get(run.digest, {})
            if not record and not over(run):
                continue
            made = record.get("environment", {})
            facts = record.get("wall_s", 0.0), made.get("device_name", ""), made.get("threads", 0)
            value, validation = record.get("value"), record.get("validation")
            rows.append(Row(point.name, run.inputs["seed"], value, *facts, run.digest, validation))
    return Ranking(label, tuple(rows))


def over_of(
    session: Session, runs: Mapping[Architecture, Sequence[RunSpec]], found: Records
) -> Callable[[RunSpec], bool]:
    """Whether a run without a record failed: all have where the work is done, else those known to diverge."""
    from fyi_bench.run.queue import finished

    every = [run for networks in runs.values() for run in networks]
    stopped = session.stop.requested() and any(run.digest not in found for run in every)
    return lambda run: finished(session.store, run) if stopped else True


def kept_rows(place: Path, label: Label) -> dict[str, Row]:
    """Rows of the file that is to be added to, by the digest of their run.

    Raises UsageError, before hours of work, where it was measured in another way, DataError where it is no ranking.
    """
    from search_space.ranking import Ranking, load, merged

    if not place.exists():
        return {}
    try:
        return {row.cell: row for row in merged([load(place), Ranking(label, ())]).rows}
    except UsageError as error:
        raise UsageError(f"{place} cannot be added to. {error}") from None

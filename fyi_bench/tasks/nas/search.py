"""What an architecture search consists of: the architectures, the sides they are trained on, and all its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from downstream.protocol import EARLY_STOPPING, Protocol
from fyi_bench.files import digest_of
from fyi_bench.present.words import count_words
from fyi_bench.run.plan import Records
from fyi_bench.run.types.architecture import Material, early_source
from fyi_bench.run.types.expert import prerequisites
from fyi_bench.run.types.score import score_run
from fyi_bench.session import Session
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store
from fyi_bench.tasks.common import NETWORKS_OF_A_SET, Arm, digest_of_runs, titles
from fyi_bench.tasks.nas.options import NasOptions
from fyi_bench.tasks.nas.points import AUTO, FEWEST_TOLD, TEST_PASS, Part, Passes, in_ranking, part_of, ranked_name
from fyi_bench.tasks.nas.reference import TRAIN, RealSide, repeated, stored_ranking
from fyi_bench.tasks.nas.sets import Sets, condensed, from_files, rankings_of

if TYPE_CHECKING:
    from downstream.nas import Architecture
    from search_space.ranking import Ranking

EARLY_ARM = Arm(EARLY_STOPPING, "none")
Machine = tuple[str, int]  # device and threads


@dataclass(frozen=True)
class Side:
    """One thing networks are trained on: real images, or a proxy.

    runs: those of each architecture; or stored: accuracies by name, measured on these machines. makers: digests
    of the runs that make what it is trained on. parts: rankings that its networks give, each with as many as another;
    the floor has several draws.
    """

    name: str
    runs: Mapping[Architecture, Sequence[RunSpec]] = field(default_factory=dict)
    images: int = 0
    makers: frozenset[str] = frozenset()
    stored: Mapping[str, float | None] | None = None
    stored_validation: Mapping[str, float | None] = field(default_factory=dict)
    stored_times: Mapping[str, float] = field(default_factory=dict)
    stored_on: frozenset[Machine] = frozenset()
    parts: int = 1

    @property
    def rankings(self) -> list[Side]:
        """One side a ranking."""

        def part(number: int, runs: Sequence[RunSpec]) -> Sequence[RunSpec]:
            each = len(runs) // self.parts
            return runs[number * each : (number + 1) * each]

        return [
            replace(self, runs={point: part(k, runs) for point, runs in self.runs.items()}, parts=1)
            for k in range(self.parts)
        ]

    def settled(self, point: Architecture, found: Records, store: Store) -> bool:
        """Whether there is a result for this architecture, be it that it diverged."""
        from fyi_bench.run.queue import finished

        if self.stored is not None:
            return in_ranking(point, self.stored)
        return point in self.runs and all(run.digest in found or finished(store, run) for run in self.runs[point])

    def scores(self, points: Sequence[Architecture], found: Records, key: str = "value") -> list[float | None]:
        """Accuracy of each: the mean of its networks that did not fail, None where all did.

        key: "value" on test images, "validation" on train images set aside.
        """
        if self.stored is not None:
            kept = self.stored if key == "value" else self.stored_validation
            return [kept.get(ranked_name(point, kept) or "") for point in points]
        values = [[one[key] for one in self.records([point], found) if key in one] for point in points]
        return [sum(some) / len(some) if some else None for some in values]

    def times(self, points: Sequence[Architecture], found: Records) -> list[float]:
        """Seconds of each for one ranking; 0 where it is not known."""
        if self.stored is not None:
            return [self.stored_times.get(ranked_name(point, self.stored_times) or "", 0.0) for point in points]
        return [sum(one["wall_s"] for one in self.records([point], found)) / self.parts for point in points]

    def records(self, points: Sequence[Architecture], found: Records) -> list[Mapping[str, Any]]:
        """Records of the networks that did not fail."""
        runs = [run for point in points for run in self.runs.get(point, ())]
        return [found[run.digest] for run in runs if run.digest in found]

    @property
    def test_images(self) -> int:
        """How many images its networks are tested on."""
        return next(iter(self.runs.values()))[0].inputs["test_images"]


OTHER_IMAGES = "of other images of the data set"


@dataclass(frozen=True)
class Search:
    """Everything that follows from the options before anything is computed.

    part: of the space, whose `points` are in the order of their training. proxies: side of each arm, and its images a
    class (None where its classes differ in number). stored: name and real ranking, where it is not trained here.
    again: the real side with another seed, on some of the points. scored: the runs that score untrained networks.
    """

    session: Session
    options: NasOptions
    part: Part
    points: Sequence[Architecture]
    makers: Sequence[RunSpec]
    proxies: Mapping[Arm, Side]
    ipcs: Mapping[Arm, int | None]
    real: Side
    again: Side
    stored: tuple[str, Ranking] | None
    protocol: Protocol
    reference: RealSide
    scored: Mapping[Architecture, RunSpec]
    seeds: Sequence[int]
    warnings: Sequence[str]

    @property
    def compared(self) -> list[Side]:
        """The sides an architecture must have been trained on to be compared."""
        return [self.real, *self.proxies.values()]

    @property
    def networks(self) -> list[RunSpec]:
        """All networks, cheap architectures first, and of each architecture the real side first."""
        sides = (self.real, self.again, *self.proxies.values())
        return [run for point in self.points for side in sides for run in side.runs.get(point, ())]

    @property
    def runs(self) -> list[RunSpec]:
        """Experts, sets and networks."""
        return [*prerequisites(self.makers), *self.makers, *self.scored.values(), *self.networks]

    @property
    def title(self) -> str:
        """What is done, and what each architecture is trained on, for how long."""
        real = "" if self.stored is None else self._stored_words
        if self.stored is None:
            epochs = count_words(self.reference.protocol.epochs_for(self.real.images), "epoch")
            again = f"{count_words(len(self.again.runs), 'network')} with a second seed"
            real = f"{epochs} on {self.real.images:,} images, {again}"
        proxy = next(iter(self.proxies.values()))
        nets = len(self.seeds) * self.protocol.nets
        times = f"{nets} times " if nets > 1 else ""
        each = f"{count_words(self.protocol.epochs_for(proxy.images), 'epoch')} on {proxy.images:,} images"
        return "\n".join([
            *self.warnings,
            f"nas {titles(self.proxies)} · {self.session.data.name} · {len(self.points)} architectures",
            *self.part.words,
            f"real side: {real} · each proxy: {times}{each} · tested on {proxy.test_images:,}",
        ])  # fmt: skip

    @property
    def _stored_words(self) -> str:
        assert self.stored is not None  # asked where there is one
        name, label = self.stored[0], self.stored[1].label
        other = f", {OTHER_IMAGES}" if label.data not in ("", self.reference.label.data) else ""
        return f"the stored ranking '{name}'{_in(label.precision)}{other}"

    @property
    def digest(self) -> str:
        """Digest of the answer: of its runs, and the stored ranking where there is one."""
        runs = digest_of_runs("nas", [*self.makers, *self.networks, *self.scored.values()])
        if self.stored is None:
            return runs
        from search_space.ranking import to_csv

        return digest_of([runs, to_csv(self.stored[1])])

    def real_times(self, found: Records) -> tuple[list[float], bool]:
        """Seconds of each architecture on real data, 0 where they are not known; whether they are reckoned.

        Those of another machine, number of threads or precision are no times to compare with. The real side then takes
        what the networks of the other sides took, in proportion to the images that pass.
        """
        sides, times = self.proxies.values(), self.real.times(self.points, found)
        label = self.reference.label if self.stored is None else self.stored[1].label
        there = self.real.stored_on or machines_of(self.real.records(self.points, found))
        here = machines_of([one for side in sides for one in side.records(self.points, found)])
        comparable = there == here and len(here) == 1 and label.precision == self.session.settings.precision
        if comparable or not here or (self.stored is not None and self.stored[1].is_table):
            return times, False
        tested = TEST_PASS * self.reference.tested
        for place, point in enumerate(self.points):
            took = [(one["wall_s"], side.images * one["epochs"] + tested)
                    for side in sides for one in side.records([point], found)]  # fmt: skip
            seconds, images = (sum(column) for column in zip(*took, strict=True)) if took else (0.0, 1.0)
            times[place] = seconds / images * (label.images * label.epochs + tested)
        return times, True

    def limited_to(self, points: Sequence[Architecture]) -> Search:
        """This search, about fewer architectures."""
        return replace(self, points=points)


def search_of(session: Session, options: NasOptions) -> Search:
    """The search that is asked for. Raises UsageError, UnknownNameError or DataError where there can be none."""
    from downstream.nas import cheap_first

    made = from_files(session, options) if options.set_files else condensed(session, options)
    data, protocol = session.data, session.protocol("nas", next(iter(made.sources)).method)
    reference = RealSide.asked(session, options.reference_images, options.test_images, options.reference_epochs)
    trained = options.reference == AUTO and options.save_ranking is not None
    stored = stored_ranking(reference, TRAIN if trained else options.reference)
    if stored is not None and options.test_images is None and not stored[1].is_table:
        # the same draw of test images on both sides
        reference = replace(reference, limits=replace(reference.limits, test_images=stored[1].label.test_images))
    arms = _arms(made, protocol, reference, options)
    part, stored = _part(options, reference, arms, stored)
    points = cheap_first(part.points, *data.train.shape[:2], data.num_classes)
    proxies = {arm: _side(arm.title, points, reference, *how) for arm, how in arms.items()}
    proxies = {arm: replace(one, parts=rankings_of(arm, made)) for arm, one in proxies.items()}
    if stored is not None:
        real, again = (_stored_side(stored[1], number) for number in (0, 1))
    else:
        seed, source, rules = session.settings.seed, reference.source, reference.protocol
        twice = repeated(points, reference.limits.ceiling)
        real = _side("real", points, reference, rules, [(source, seed)])
        again = _side("real again", twice, reference, rules, [(source, seed + 1)])
    scored = {} if options.only else {
        point: score_run(data, point, session.settings.seed, reference.limits.validation) for point in points
    }  # fmt: skip
    return Search(
        session, options, part, points, made.runs, proxies, made.ipcs, real, again, stored, protocol, reference, scored,
        made.seeds, made.warnings,
    )  # fmt: skip


def machines_of(records: Sequence[Mapping[str, Any]]) -> frozenset[Machine]:
    """Where the networks of these records were trained."""
    facts = [record.get("environment", {}) for record in records]
    return frozenset((one.get("device_name", ""), one.get("threads", 0)) for one in facts)


Trained = tuple["Protocol", Sequence[tuple[Material, int]]]  # rules, and what each network is trained on, with its seed


def _arms(made: Sets, protocol: Protocol, reference: RealSide, options: NasOptions) -> dict[Arm, Trained]:
    """What the networks of each proxy are trained on, and how; early stopping last."""
    from downstream.nas import at_the_cost_of

    nets = range(protocol.nets)
    found: dict[Arm, Trained] = {}
    for arm, sources in made.sources.items():
        found[arm] = (
            protocol,
            [(source, NETWORKS_OF_A_SET * (seed + 1) + net) for seed, source in sources for net in nets],
        )
    if not options.only:  # what the same steps give on real images
        [(material, _), *_] = next(iter(found.values()))[1]
        count, stopped = at_the_cost_of(material.images, protocol, reference.images(None).images)
        seeds = [NETWORKS_OF_A_SET * (seed + 1) + net for seed in made.seeds for net in nets]
        classes = reference.session.data.num_classes
        early = early_source(reference.images(count), next(iter(made.ipcs.values())), classes)
        found[EARLY_ARM] = stopped, [(early, seed) for seed in seeds]
        made.ipcs[EARLY_ARM] = None
    return found


def _part(options: NasOptions, reference: RealSide, arms: Mapping[Arm, Trained], stored: Stored) -> tuple[Part, Stored]:
    """The architectures, and the stored ranking where it has all of them or was asked for by its name."""
    session, text, passes = reference.session, str(options.space), Passes()
    all_of_it = session.settings.device != "cpu" or session.settings.protocol != "quick"
    for rules, networks in arms.values():
        for source, _ in networks:
            passes = passes.plus(Passes(source.images * rules.epochs_for(source.images), reference.tested))
    here = partial(part_of, text, session.data, all_of_it, precision=session.settings.precision)
    known = None if stored is None else stored[1].scores(stored[1].seeds[0])
    if stored is None:
        return here(passes.plus(reference.passes)), None
    if options.reference == AUTO:
        whole = here(passes.plus(reference.passes))
        ranked = [point for point in whole.points if in_ranking(point, known or {})]
        # one with some of what was asked for is passed over, but where the part is ours to choose
        if len(ranked) < len(whole.points) and (whole.seconds is None or len(ranked) < FEWEST_TOLD):
            return whole, None
    return here(passes, known), stored


Stored = tuple[str, "Ranking"] | None


def _in(precision: str) -> str:
    return f" in {precision}" if precision else ""


def _side(
    name: str, points: Sequence[Architecture], reference: RealSide, rules: Protocol,
    networks: Sequence[tuple[Material, int]],
) -> Side:  # fmt: skip
    runs = {point: [reference.train(point, source, rules, seed) for source, seed in networks] for point in points}
    makers = frozenset(source.needs[1] for source, _ in networks if source.needs)
    return Side(name, runs, networks[0][0].images, makers)


def _stored_side(ranking: Ranking, number: int) -> Side:
    """The networks of a ranking with its best filled seed, or the next one; an empty side where there is none."""
    if number >= len(ranking.seeds):
        return Side("real again", stored={})
    seed = ranking.seeds[number]
    scores, validation, times = ranking.scores(seed), ranking.by_validation(seed), ranking.times(seed)
    rows = (row for row in ranking.rows if row.seed == seed and row.accuracy is not None)
    machines = frozenset((row.device, row.threads) for row in rows)
    return Side("real", stored=scores, stored_validation=validation, stored_times=times, stored_on=machines)

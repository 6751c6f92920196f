"""What an architecture search consists of: the architectures, the sides they are trained on, and all its runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from downstream.protocol import EARLY_STOPPING, Protocol
from fyi_bench.config import option
from fyi_bench.errors import DataError, UsageError
from fyi_bench.files import digest_of
from fyi_bench.present.words import count_words
from fyi_bench.reading import SetFacts
from fyi_bench.run.plan import Records
from fyi_bench.run.types.architecture import Material, early_source, real_source, set_run, set_source, train_run
from fyi_bench.run.types.expert import prerequisites
from fyi_bench.session import Session
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store
from fyi_bench.tasks.common import (
    DEFAULT_METHOD,
    FLOOR,
    IPC,
    NETWORKS_OF_A_SET,
    Arm,
    Comparison,
    digest_of_runs,
    images_of,
    seeds_of,
    set_runs,
    titles,
)
from fyi_bench.tasks.given import given_set

if TYPE_CHECKING:
    from downstream.nas import Limits
    from search_space.ranking import Ranking
    from search_space.space720 import Point

TRAIN = "train"  # the reference that is trained here; every other name is a stored ranking
EARLY_ARM = Arm(EARLY_STOPPING, "none")
SPACE_SEED = 0  # one sequence of sub-spaces, so that results of all seeds and machines are about the same networks
FEWEST = 3  # architectures below which nothing can be ranked
_REFERENCE_KEYS = frozenset(
    ("epochs", "min_steps", "extra_epoch", "draws")
)  # --set of these is about the proxies alone


@dataclass(frozen=True)
class NasOptions(Comparison, SetFacts):
    """Which proxies are asked, about how many architectures, and what they are held against."""

    method: str | None = option(None, f"Distillation method of the proxy set; default: {DEFAULT_METHOD}.")
    ipc: int = IPC(50)
    space: int = option(720, "How many of the 720, a stratified choice.")
    set_files: tuple[Path, ...] = option((), "A set as the proxy.", flag="--set-file")
    names: tuple[str, ...] = option((), "What to call each --set-file.", flag="--name")
    reference: str = option(TRAIN, "train, or a stored ranking: name or CSV.")
    reference_images: int | None = option(None, "Real images of the reference; 0: all.")
    test_images: int | None = option(None, "Test images; 0: all.")
    reference_epochs: int | None = option(None, "Epochs of the reference.")
    save_ranking: Path | None = option(None, "CSV of the real ranking.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.set_files and self.method is not None:
            raise UsageError("--set-file and --method contradict each other.\nGive one of them.")
        if self.names and len(self.names) != len(self.set_files):
            raise UsageError(
                f"{len(self.names)} --name for {len(self.set_files)} --set-file.\nGive each set one, in order."
            )


def facts_of(session: Session, options: NasOptions) -> dict[str, Any]:
    """What was stated about the sets that are files; `--ipc` only where it was given."""
    return options.facts | ({"ipc": options.ipc} if "ipc" in session.settings.given else {})


@dataclass(frozen=True)
class Side:
    """One thing networks are trained on: real images, or a proxy.

    runs: those of each architecture; or stored: accuracies by name, measured elsewhere. makers: digests of the runs
    that make what it is trained on. parts: rankings that its networks give, each with as many as another; the floor
    has several draws.
    """

    name: str
    runs: Mapping[Point, Sequence[RunSpec]] = field(default_factory=dict)
    images: int = 0
    makers: frozenset[str] = frozenset()
    stored: Mapping[str, float | None] | None = None
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

    def settled(self, point: Point, found: Records, store: Store) -> bool:
        """Whether there is a result for this architecture, be it that it diverged."""
        from fyi_bench.run.queue import finished

        if self.stored is not None:
            return point.name in self.stored
        return point in self.runs and all(run.digest in found or finished(store, run) for run in self.runs[point])

    def scores(self, points: Sequence[Point], found: Records, key: str = "value") -> list[float | None]:
        """Accuracy of each: the mean of its networks that did not fail, None where all did.

        key: "value" on test images, "validation" on train images set aside.
        """
        if self.stored is not None:
            return [self.stored.get(point.name) if key == "value" else None for point in points]
        values = [[one[key] for one in self.records([point], found) if key in one] for point in points]
        return [sum(some) / len(some) if some else None for some in values]

    def records(self, points: Sequence[Point], found: Records) -> list[Mapping[str, Any]]:
        """Records of the networks that did not fail."""
        runs = [run for point in points for run in self.runs.get(point, ())]
        return [found[run.digest] for run in runs if run.digest in found]

    @property
    def test_images(self) -> int:
        """How many images its networks are tested on."""
        return next(iter(self.runs.values()))[0].inputs["test_images"]


@dataclass(frozen=True)
class Search:
    """Everything that follows from the options before anything is computed.

    proxies: side of each arm, and its images a class (None where its classes differ in number). stored: the real
    ranking, where it is not trained here. again: the real side with another seed, on some of the points.
    """

    session: Session
    options: NasOptions
    points: Sequence[Point]
    makers: Sequence[RunSpec]
    proxies: Mapping[Arm, Side]
    ipcs: Mapping[Arm, int | None]
    real: Side
    again: Side
    stored: Ranking | None
    protocol: Protocol
    reference_protocol: Protocol
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
        return [*prerequisites(self.makers), *self.makers, *self.networks]

    @property
    def title(self) -> str:
        """What is done, and what each architecture is trained on, for how long."""
        real = f"the stored ranking '{self.options.reference}'"
        if self.stored is None:
            epochs = count_words(self.reference_protocol.epochs_for(self.real.images), "epoch")
            real = f"{epochs} on {self.real.images:,} images, {len(self.again.runs)} networks twice"
        proxy = next(iter(self.proxies.values()))
        nets = len(self.seeds) * self.protocol.nets
        times = f"{nets} times " if nets > 1 else ""
        each = f"{count_words(self.protocol.epochs_for(proxy.images), 'epoch')} on {proxy.images:,} images"
        return "\n".join([
            *self.warnings,
            f"nas {titles(self.proxies)} · {self.session.data.name} · {len(self.points)} architectures",
            f"real side: {real} · each proxy: {times}{each} · tested on {proxy.test_images:,}",
        ])  # fmt: skip

    @property
    def digest(self) -> str:
        """Digest of the answer: of its runs, and the stored ranking where there is one."""
        runs = digest_of_runs("nas", [*self.makers, *self.networks])
        if self.stored is None:
            return runs
        from search_space.ranking import to_csv

        return digest_of([runs, to_csv(self.stored)])

    def limited_to(self, points: Sequence[Point]) -> Search:
        """This search, about fewer architectures."""
        return replace(self, points=points)


def search_of(session: Session, options: NasOptions) -> Search:
    """The search that is asked for. Raises UsageError, UnknownNameError or DataError where there can be none."""
    from downstream.nas import at_the_cost_of, cheap_first, limits_of
    from search_space import space720

    stored = None
    points: Sequence[Point] = space720.subset(options.space, SPACE_SEED)
    if options.reference != TRAIN:
        stored = _stored(options.reference, session.data.name)
        points = _ranked_in(points, stored)
    made = _files(session, options) if options.set_files else _condensed(session, options)
    data, protocol = session.data, session.protocol("nas", next(iter(made.sources)).method)
    asked = {"reference_images": options.reference_images, "test_images": options.test_images}
    if stored is not None and options.test_images is None:  # the same draw of test images on both sides
        asked["test_images"] = stored.label.test_images
    changed: dict[str, Any] = {name: count or None for name, count in asked.items() if count is not None}
    limits = replace(limits_of(session.settings.protocol), **changed)
    points = cheap_first(points, *data.train.shape[:2], data.num_classes)
    reference_protocol = _reference_protocol(session, options)

    def side(name: str, points: Sequence[Point], used: Protocol, runs: Sequence[tuple[Material, int]]) -> Side:
        cells = {
            point: [
                train_run(
                    data, source, point, used, seed, limits.test_images, session.settings.precision, limits.validation
                )
                for source, seed in runs
            ]
            for point in points
        }
        makers = frozenset(source.needs[1] for source, _ in runs if source.needs)
        return Side(name, cells, runs[0][0].images, makers)

    def real_images(count: int | None) -> Material:
        return real_source(data, count, session.settings.seed, limits.validation)

    if stored is not None:
        first, second = ([*map(stored.scores, stored.seeds), {}])[:2]
        real, again = Side("real", stored=first), Side("real again", stored=second)
    else:
        seed, source = session.settings.seed, real_images(limits.reference_images)
        twice = _repeated(points, limits)
        real = side("real", points, reference_protocol, [(source, seed)])
        again = side("real again", twice, reference_protocol, [(source, seed + 1)])
    proxies = {
        arm: side(arm.title, points, protocol, [
            (source, NETWORKS_OF_A_SET * (seed + 1) + net) for seed, source in sources for net in range(protocol.nets)
        ])
        for arm, sources in made.sources.items()
    }  # fmt: skip
    proxies = {arm: replace(one, parts=_rankings(arm, made)) for arm, one in proxies.items()}
    if not options.only:  # what the same steps give on real images
        images = next(iter(proxies.values())).images
        count, stopped = at_the_cost_of(images, protocol, real_images(None).images)
        seeds = [NETWORKS_OF_A_SET * (seed + 1) + net for seed in made.seeds for net in range(protocol.nets)]
        early = early_source(real_images(count), next(iter(made.ipcs.values())), data.num_classes)
        proxies[EARLY_ARM] = side(EARLY_ARM.title, points, stopped, [(early, seed) for seed in seeds])
        made.ipcs[EARLY_ARM] = None
    return Search(
        session, options, points, made.runs, proxies, made.ipcs, real, again, stored, protocol, reference_protocol,
        made.seeds, made.warnings,
    )  # fmt: skip


@dataclass
class _Sets:
    """The sets of every arm. runs: that make them. sources: (set seed, source) of each."""

    seeds: Sequence[int]
    runs: list[RunSpec] = field(default_factory=list)
    sources: dict[Arm, list[tuple[int, Material]]] = field(default_factory=dict)
    ipcs: dict[Arm, int | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add(self, arm: Arm, seed: int, run: RunSpec, images: int, ipc: int | None) -> None:
        self.runs.append(run)
        self.sources.setdefault(arm, []).append((seed, set_source(run, images)))
        self.ipcs[arm] = ipc


def _condensed(session: Session, options: NasOptions) -> _Sets:
    made = _Sets(seeds_of(session, 1))
    seeds = {arm: _draws(session, arm, made.seeds) for arm in options.arms}
    for (arm, seed), run in set_runs(session, seeds, options.ipc).items():
        made.add(arm, seed, run, images_of(run), options.ipc)
    return made


def _draws(session: Session, arm: Arm, seeds: Sequence[int]) -> list[int]:
    """Seeds of an arm's sets: those of all arms, or for the floor so many times as many that there are enough draws.

    A ranking by several sets is better than one by one of them, so each of the floor's is made of as many draws as
    another arm has sets.
    """
    draws, _ = session.protocol("nas").repetitions(arm.method, len(seeds))
    return [seeds[0] + k for k in range(math.ceil(draws / len(seeds)) * len(seeds))]


def _rankings(arm: Arm, made: _Sets) -> int:
    return len(made.sources[arm]) // len(made.seeds) if arm.method == FLOOR else 1


def _files(session: Session, options: NasOptions) -> _Sets:
    """The sets of files, and random real images, in the number of the first, beside them."""
    from fyi_bench.run.types.distill import distill_run

    seed, floor = session.settings.seed, Arm(FLOOR, "none")
    made = _Sets([seed])
    for path, name in zip(options.set_files, options.names or [""] * len(options.set_files), strict=True):
        given = given_set(session, path, facts_of(session, options))
        arm = Arm(given.method, given.flip, name or given.name)
        if arm in made.sources:
            arm = replace(arm, name=f"{arm.title} ({path.stem})")
        made.add(arm, seed, set_run(given.image_set, given.path), len(given.image_set), given.image_set.ipc)
        made.warnings += given.said
    first = next(iter(made.ipcs.values()))
    if not options.only and first and floor not in made.sources:
        recipe, precision = session.recipe(FLOOR, first, overridden=False), session.settings.precision
        for draw in _draws(session, floor, made.seeds):
            run = distill_run(session.data, FLOOR, "none", first, draw, recipe, precision=precision)
            made.add(floor, draw, run, images_of(run), first)
    return made


def _repeated(points: Sequence[Point], limits: Limits) -> list[Point]:
    """The architectures that the real side trains twice."""
    from search_space import space720

    wanted = max(FEWEST, math.ceil(limits.ceiling * len(points)))
    chosen = set(space720.subset(min(wanted, len(points)), SPACE_SEED))
    return [point for point in points if point in chosen]


def _reference_protocol(session: Session, options: NasOptions) -> Protocol:
    """The trainer's settings for the real side: the user's changes hold for it too, but not those of the length."""
    from downstream.protocol import protocol, protocol_keys

    known = protocol_keys() - _REFERENCE_KEYS
    mine = {key: value for key, value in session.settings.overrides.items() if key in known}
    if options.reference_epochs is not None:
        mine["epochs"] = str(options.reference_epochs)
    return protocol(session.settings.protocol, "nas-reference", dataset=session.settings.dataset).with_overrides(mine)


def _stored(reference: str, dataset: str) -> Ranking:
    from search_space.ranking import load

    ranking = load(reference)
    if ranking.label.dataset != dataset:
        raise DataError(
            f"The ranking '{reference}' is about {ranking.label.dataset}, not {dataset}.\nName the right --dataset."
        )
    return ranking


def _ranked_in(points: Sequence[Point], ranking: Ranking) -> list[Point]:
    """The points that the ranking's best filled seed has."""
    ranked: Mapping[str, Any] = ranking.scores(ranking.seeds[0])
    found = [point for point in points if point.name in ranked]
    if len(found) < FEWEST:
        raise DataError(
            f"The ranking has {len(found)} of the {len(points)} architectures asked for, too few to compare.\n"
            "Use --reference train, or a --space that the ranking covers."
        )
    return found


def measured_ranking(search: Search, found: Records) -> Ranking:
    """What was trained here on real data, as a ranking to keep."""
    from downstream.training import NUMERICS
    from search_space.ranking import Label, Ranking, Row

    protocol, real = search.reference_protocol, search.real
    label = Label(
        dataset=search.session.data.name,
        protocol=f"{protocol.name} v{protocol.version}",
        epochs=protocol.epochs_for(real.images),
        images=real.images,
        test_images=real.test_images,
        precision=search.session.settings.precision,
        trainer=NUMERICS,
    )
    rows = []
    for side in (real, search.again):
        for point, (run, *_) in side.runs.items():
            record = found.get(run.digest, {})
            made = record.get("environment", {})
            facts = record.get("wall_s", 0.0), made.get("device_name", ""), made.get("threads", 0)
            rows.append(Row(point.name, run.inputs["seed"], record.get("value"), *facts, run.digest))
    return Ranking(label, tuple(sorted(rows, key=lambda row: row.architecture)))

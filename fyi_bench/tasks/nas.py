"""`fyi-bench nas`: how wrong a ranking of architectures on a condensed set is, held against one on real data.

Every network is a run of its own (run/queue.py), so any number of workers may help, and a stopped command goes on.
Rules: networks that diverged or failed rank last, tied, and are counted (stats/rankings.py); an architecture trained
several times on a side counts with the mean of those that did not fail.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import BudgetExhausted, DataError, Interrupted, UsageError
from fyi_bench.present.words import count_words
from fyi_bench.run.executor import compute
from fyi_bench.run.plan import Plan
from fyi_bench.run.queue import connect
from fyi_bench.run.types.architecture import Source, real_source, set_cell, set_source, train_cell
from fyi_bench.run.types.distill import distill_cell
from fyi_bench.session import Session
from fyi_bench.store.spec import RunSpec
from fyi_bench.tasks.common import FLOOR, Arm, arms_of, digest_of_cells, recipes_of
from fyi_bench.tasks.distill import EVALUATION_SEEDS_PER_SET, images_of
from fyi_bench.tasks.nas_answer import Side, build_answer

if TYPE_CHECKING:
    from downstream.protocol import Protocol
    from search_space.ranking import Ranking
    from search_space.space720 import Point

DEFAULT_METHOD = "dm"
TRAIN = "train"  # the reference that is trained here; every other name is a stored ranking
SPACE_SEED = 0  # one sequence of sub-spaces, so that results of all seeds and machines are about the same networks
_REFERENCE_KEYS = frozenset(("epochs", "min_steps", "extra_epoch"))  # --set of these is about the proxies alone
_FEWEST = 3  # architectures below which nothing can be ranked


@dataclass(frozen=True)
class Question:
    """What is asked. space: how many of the 720 architectures.

    method None: the default one, or the sets of the files `set_paths` (any public format). reference: 'train', the
    name of a ranking that comes with the package, or the path of one. reference_images, test_images (0: all) and
    reference_epochs replace those of the protocol. storage, artefacts: where the sweep and its results meet other
    machines; enqueue_only: leave the work to them. save_ranking: a CSV to write the real ranking to, or to add it to.
    """

    method: str | None = None
    flip: str = "none"
    ipc: int = 50
    set_paths: tuple[Path, ...] = ()
    space: int = 720
    reference: str = TRAIN
    only: bool = False
    reference_images: int | None = None
    test_images: int | None = None
    reference_epochs: int | None = None
    storage: str | None = None
    artefacts: str | None = None
    enqueue_only: bool = False
    save_ranking: Path | None = None


def nas_job(session: Session, question: Question, show: Callable[[dict], str] | None = None) -> dict[str, Any]:
    """Condense what is missing, train every architecture on every side, and return the record.

    show: how to print the answer so far, when the work is stopped in the middle.
    """
    plan = _Plan(session, question)
    session.announce(f"{plan.title}\n{plan.sides_in_words}", plan.cells, plan.protocol.name)
    if question.storage is not None:  # before hours are spent on sets
        connect(question.storage, session.stop.check, session.say)
    session.settings = replace(
        session.settings, storage=question.storage, artefacts=question.artefacts, enqueue=question.enqueue_only
    )
    try:
        compute(session, "nas", Plan(plan.title, plan.protocol.name, tuple(plan.cells), tolerant=("train",)))
    except (BudgetExhausted, Interrupted):
        _show_partial(session, plan, show)
        raise
    if question.save_ranking is not None and plan.trains_reference:
        from search_space.ranking import save

        session.say(f"ranking  {save(plan.measured_ranking(), question.save_ranking)}")
    return build_answer(session, plan, partial=False)


def _show_partial(session: Session, plan: _Plan, show: Callable[[dict], str] | None) -> None:
    done = [point for point in plan.points if all(side.has(point) for side in plan.compared)]
    if show is not None and len(done) >= _FEWEST:
        session.say(f"\nSo far, on the {len(done)} architectures of {len(plan.points)} that every side has trained:")
        session.say(show(build_answer(session, plan.limited_to(done), partial=True)))


class _Plan:
    """Everything that follows from a question before anything is computed: architectures, sides, cells, jobs."""

    def __init__(self, session: Session, question: Question):
        from downstream.nas import budget, cheap_first
        from search_space import space720

        self.session, self.question = session, question
        self.ipcs: dict[Arm, int | None] = {}  # of sets that came as files
        points = space720.subset(question.space, SPACE_SEED)
        self.stored = _stored(question.reference, session.data.name)
        if self.stored is not None:
            points = _ranked_in(points, self.stored)
        self.arms, self.set_cells, sources = self._sets()
        self.protocol: Protocol = session.protocol("nas", self.arms[0].method)
        self.reference_protocol = _reference_protocol(session, question)
        asked = {"reference_images": question.reference_images, "test_images": question.test_images}
        if self.stored is not None and question.test_images is None:  # the same draw of test images on both sides
            asked["test_images"] = self.stored.label.test_images
        changed = {name: count or None for name, count in asked.items() if count is not None}
        self.budget = replace(budget(session.settings.protocol), **changed)
        data = session.data
        self.points: list[Point] = cheap_first(points, data.train.shape[0], data.train.shape[1], data.num_classes)
        self.proxies = [self._proxy(arm, sources[arm]) for arm in self.arms]
        self.real, self.again = self._reference()
        self.jobs = self._jobs()
        self.cells = [*self.set_cells, *self.jobs]

    # what is compared ------------------------------------------------------------------------------------------

    @property
    def trains_reference(self) -> bool:
        """Whether the real ranking is trained here."""
        return self.stored is None

    @property
    def compared(self) -> list[Side]:
        """The sides an architecture must have been trained on to be compared."""
        return [self.real, *self.proxies]

    @property
    def title(self) -> str:
        """One line on what is done."""
        arms = ", ".join(arm.title for arm in self.arms)
        return f"nas {arms} · {self.session.data.name} · {len(self.points)} architectures"

    @property
    def sides_in_words(self) -> str:
        """What each architecture is trained on, for how long."""
        real = f"the stored ranking '{self.question.reference}'"
        if self.trains_reference:
            epochs = self.reference_protocol.epochs_for(self.real.images)
            twice = f"{len(self.again.cells)} networks twice"
            real = f"{count_words(epochs, 'epoch')} on {self.real.images:,} images, {twice}"
        nets, tested = len(self.set_seeds) * self.protocol.nets, self.jobs[0].inputs["test_images"]
        images = self.proxies[0].images
        each = f"{count_words(self.protocol.epochs_for(images), 'epoch')} on {images:,} images"
        times = f"{nets} times " if nets > 1 else ""
        return f"real side: {real} · each proxy: {times}{each} · tested on {tested:,}"

    @property
    def digest(self) -> str:
        """Digest of the command: its cells, and the stored ranking where there is one."""
        from fyi_bench.files import digest_of
        from search_space.ranking import to_csv

        cells = digest_of_cells("nas", self.cells)
        return cells if self.stored is None else digest_of([cells, to_csv(self.stored)])

    @property
    def name(self) -> str:
        """Name of the study."""
        return f"nas-{self.session.data.name}-{self.digest}"

    def limited_to(self, points: Sequence[Point]) -> _Plan:
        """The same about fewer architectures."""
        fewer = copy.copy(self)
        fewer.points = list(points)
        return fewer

    # making it -------------------------------------------------------------------------------------------------

    def _sets(self) -> tuple[list[Arm], list[RunSpec], dict[Arm, list[tuple[int, Source]]]]:
        """Arms, the cells that make their sets, and for each arm (set seed, source) of every set."""
        session, question = self.session, self.question
        if question.set_paths:
            return self._file_sets(question.set_paths)
        arms = arms_of(question.method or DEFAULT_METHOD, question.flip, question.only, floor=True)
        recipes = recipes_of(session, arms, question.ipc)
        cells = {
            (arm, seed): distill_cell(
                session.data,
                arm.method,
                arm.flip,
                question.ipc,
                seed,
                recipes[arm],
                precision=session.settings.precision,
            )
            for arm in arms
            for seed in self.set_seeds
        }
        sources = {
            arm: [(seed, set_source(cells[arm, seed], images_of(cells[arm, seed]))) for seed in self.set_seeds]
            for arm in arms
        }
        return arms, list(cells.values()), sources

    def _file_sets(self, paths: Sequence[Path]) -> tuple[list[Arm], list[RunSpec], dict[Arm, list[tuple[int, Source]]]]:
        """The sets of files, and random real images, in the number of the first, beside them."""
        from fyi_bench.tasks.evaluate import check_fits, own_file

        session, cells, sources = self.session, [], {}
        if self.question.method is not None:
            raise UsageError("--set-file and --method contradict each other.\nGive one of them.")
        session.check_overrides([])
        seed = session.settings.seed
        for path in paths:
            own, image_set = own_file(session, path)
            check_fits(image_set, session.data)
            facts = image_set.provenance
            arm = Arm(str(facts.get("method", path.stem)), str(facts.get("flip", "unknown")))
            if arm in sources:
                arm = Arm(f"{arm.method} ({path.stem})", arm.flip)
            cells.append(set_cell(image_set, own))
            sources[arm] = [(seed, set_source(cells[-1], len(image_set)))]
            self.ipcs[arm] = image_set.ipc
        first = next(iter(self.ipcs.values()))
        floor = Arm(FLOOR, "none")
        if not self.question.only and first and floor not in sources:
            recipe = session.recipe(FLOOR, first, overridden=False)
            cells.append(
                distill_cell(
                    session.data, FLOOR, "none", first, seed, recipe, precision=session.settings.precision
                )
            )  # fmt: skip
            sources[floor] = [(seed, set_source(cells[-1], images_of(cells[-1])))]
            self.ipcs[floor] = first
        return list(sources), cells, sources

    @property
    def set_seeds(self) -> list[int]:
        """Seeds of the independently made sets of an arm."""
        first, count = self.session.settings.seed, self.session.settings.seeds or 1
        return [first] if self.question.set_paths else [first + k for k in range(count)]

    def ipc_of(self, arm: Arm) -> int | None:
        """Images per class of an arm's set; None where its classes differ in number."""
        return self.ipcs.get(arm, self.question.ipc)

    def _proxy(self, arm: Arm, sources: Sequence[tuple[int, Source]]) -> Side:
        runs = [
            (source, EVALUATION_SEEDS_PER_SET * (seed + 1) + net)
            for seed, source in sources
            for net in range(self.protocol.nets)
        ]
        return self._side(arm.title, self.points, runs, self.protocol)

    def _reference(self) -> tuple[Side, Side]:
        """The real side, and the same again with another seed on some of the architectures."""
        session = self.session
        if self.stored is not None:
            seeds = [*self.stored.seeds, None]
            first, again = (self.stored.scores(seed) if seed is not None else {} for seed in seeds[:2])
            return Side("real", session.store, stored=first), Side("real again", session.store, stored=again)
        source = real_source(session.data, self.budget.reference_images, session.settings.seed)
        seed = session.settings.seed
        repeated = self._repeated()
        return (
            self._side("real", self.points, [(source, seed)], self.reference_protocol),
            self._side("real again", repeated, [(source, seed + 1)], self.reference_protocol),
        )

    def _repeated(self) -> list[Point]:
        from search_space import space720

        wanted = max(_FEWEST, math.ceil(self.budget.ceiling * len(self.points)))
        chosen = set(space720.subset(min(wanted, len(self.points)), SPACE_SEED))
        return [point for point in self.points if point in chosen]

    def _side(self, name: str, points: Sequence[Point], runs: Sequence[tuple[Source, int]], protocol: Protocol) -> Side:
        session = self.session
        cells = {
            point: [
                train_cell(
                    session.data,
                    source,
                    point,
                    protocol,
                    seed,
                    self.budget.test_images,
                    session.settings.precision,
                )
                for source, seed in runs
            ]
            for point in points
        }
        needs = tuple(dict.fromkeys(source.needs for source, _ in runs if source.needs))
        return Side(name, session.store, cells, needs=needs, images=runs[0][0].images)

    def _jobs(self) -> list[RunSpec]:
        """All networks, cheap architectures first, and of each architecture the real side first."""
        sides = [side for side in (self.real, self.again, *self.proxies) if side.cells]
        return [cell for point in self.points for side in sides for cell in side.cells.get(point, ())]

    def measured_ranking(self) -> Ranking:
        """What was trained here on real data, as a ranking to keep."""
        from downstream.training import NUMERICS
        from search_space.ranking import Label, Ranking, Row

        protocol = self.reference_protocol
        label = Label(
            dataset=self.session.data.name,
            protocol=f"{protocol.name} v{protocol.version}",
            epochs=protocol.epochs_for(self.real.images),
            images=self.real.images,
            test_images=next(iter(self.real.cells.values()))[0].inputs["test_images"],
            precision=self.session.settings.precision,
            trainer=NUMERICS,
        )
        rows = []
        for side in (self.real, self.again):
            for point, cells in side.cells.items():
                record = side.record(cells[0]) or {}
                environment = record.get("environment", {})
                rows.append(
                    Row(
                        point.name,
                        cells[0].inputs["seed"],
                        record.get("value"),
                        record.get("wall_s", 0.0),
                        environment.get("device_name", ""),
                        environment.get("threads", 0),
                        cells[0].digest,
                    )
                )
        return Ranking(label, tuple(sorted(rows, key=lambda row: row.architecture)))


def _reference_protocol(session: Session, question: Question) -> Protocol:
    """The trainer's settings for the real side: the user's changes hold for it too, but not those of the length."""
    from downstream.protocol import protocol, protocol_keys

    settings = session.settings
    known = protocol_keys() - _REFERENCE_KEYS
    mine = {key: value for key, value in settings.overrides.items() if key in known}
    if question.reference_epochs is not None:
        mine["epochs"] = str(question.reference_epochs)
    return protocol(settings.protocol, "nas-reference").with_overrides(mine)


def _stored(reference: str, dataset: str) -> Ranking | None:
    if reference == TRAIN:
        return None
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
    if len(found) < _FEWEST:
        raise DataError(
            f"The ranking has {len(found)} of the {len(points)} architectures asked for, too few to compare.\n"
            "Use --reference train, or a --space that the ranking covers."
        )
    return found

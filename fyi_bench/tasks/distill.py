"""`fyi-bench distill`: sets of one method, with the flip and without, and how they train networks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fyi_bench.config import option
from fyi_bench.present.words import HOLE, arm_title, bits_words, count_words
from fyi_bench.run.plan import Plan, Records
from fyi_bench.run.types.floor import FORMS, LABEL_BYTES
from fyi_bench.session import Session
from fyi_bench.store.record import build_record
from fyi_bench.tasks import words
from fyi_bench.tasks.base import TASKS, Record, Task
from fyi_bench.tasks.byte_floors import ByteFloors
from fyi_bench.tasks.common import (
    ARCHITECTURES,
    Comparison,
    digest_of_runs,
    flip_difference,
    images_of,
    repeated,
    set_runs,
    titles,
)
from fyi_bench.tasks.measured import Measured


@dataclass(frozen=True)
class DistillOptions(Comparison):
    """Which sets, and the architectures that they are evaluated on; none: the protocol's own."""

    architectures: tuple[str, ...] = ARCHITECTURES((), help="Architecture(s) to evaluate; 'none' for none.")
    floor: bool = option(False, "Random real images in as many bytes, too (uint8, JPEG).")


@TASKS.register("distill")
class Distill(Task[DistillOptions]):
    """Distil what is missing and evaluate every set on every architecture."""

    summary = "Condense a data set, with and without the flip, and evaluate the sets."
    Options: ClassVar[type] = DistillOptions
    heading = "Condensed sets"
    examples: ClassVar[Sequence[str]] = (
        "fyi-bench distill --method dm --ipc 10 --fyi  # 2 min",
        "fyi-bench distill --method dsa --dataset cifar100 --set iterations=500 --dry-run",
        "fyi-bench distill --method mtt --fyi --only --arch none --budget 2h",
    )

    def ignored(self, options: DistillOptions, given: Collection[str]) -> Mapping[str, str]:
        return {"floor": "--arch none trains no network"} if options.architectures == ("none",) else {}

    def plan(self, session: Session, options: DistillOptions, found: Records) -> Plan:
        for arm in options.arms:  # a wrong name is said before data are read
            session.recipe(arm.method, options.ipc)
        # one procedure for all arms of a comparison: the method's own where it has one
        facts = {"size": session.data.size, "classes": session.data.num_classes, "ipc": options.ipc}
        protocol = session.protocol("accuracy", options.method, **facts)
        often = repeated(session, protocol, options.arms, protocol.sets)
        made = set_runs(session, {arm: one.seeds for arm, one in often.items()}, options.ipc)
        names = [] if options.architectures == ("none",) else list(options.architectures) or [protocol.eval_model]
        sets = Measured(session, protocol, often, made, names)
        images = count_words(options.ipc, "image")
        title = f"{self.name} {titles(options.arms)} · {session.data.name} · {images} per class"
        # which sets count is known at once, but where they are picked by the tests
        known = not sets.on_the_way or all(run.digest in found for run in sets.tests.values())
        picks = sets.picks(found) if known and sets.on_the_way else {}
        scores = sets.scores(picks).values() if known else ()
        floors, sized = _floors(sets, options, found)
        more = floors.runs if floors and sized else ()
        later = tuple(floors.runs) if floors and not sized else ()
        runs = (*sets.runs, *scores, *more)
        return Plan(title, protocol.name, runs, open=not (known and sized), later=later, details=sets)

    def answer(self, session: Session, options: DistillOptions, plan: Plan, found: Records) -> Record:
        sets, arms = plan.details, options.arms
        picks = sets.picks(found)
        more: dict[str, Any] = {"chosen_on_test": True} if sets.on_the_way else {}
        if sets.names:  # the difference is that on the first architecture, pairs being networks of equal seed
            values = {arm: sets.values(arm, picks, sets.names[0]) for arm in arms}
            difference = flip_difference(arms, values, sets.owners(arms[0], sets.names[0]))
            more |= {"difference": difference} if difference else {}
        floors, _ = _floors(sets, options, found)
        more |= {"floors": floors.entries(found)} if floors else {}
        return build_record(
            self.name,
            **session.facts(sets.protocol),
            seeds=sets.repeated[arms[0]].seeds,
            digest=digest_of_runs(self.name, [*sets.makers.values(), *sets.tests.values()]),
            arms=[
                {"method": arm.method, "flip": arm.flip, "ipc": options.ipc, **sets.entry(arm, picks, found)}
                for arm in arms
            ],
            **more,
        )

    def words(self, record: Mapping[str, Any]) -> str:
        names = words.architectures_of(record)
        rows = [[arm_title(arm), *words.accuracies(arm, names), *words.set_columns(arm)] for arm in record["arms"]]
        rows += [[title, *words.accuracies(one, names), "", "", ""] for title, one in _floor_rows(record)]
        header = ["", *names, "unequalness", "loss", "time a set"]
        what = words.images_words(record["arms"][0])
        told = words.lines_of(record, what, header, rows)
        sizes = [*record["arms"], *({"name": title, **one} for title, one in _floor_rows(record))]
        return "\n".join([*told, *words.size_lines(sizes), *words.set_lines(record)])

    def section(self, record: Mapping[str, Any], section: Any, store: Any) -> None:
        accuracy_section(record, section, store)


def _floors(sets: Measured, options: Any, found: Records) -> tuple[ByteFloors | None, bool]:
    """Random images in the bytes of the first set of the method in question, and whether these are known.

    Until the set is made, as many as its images would take as float32 stand for them; None where none are asked for.
    """
    if not (options.floor and sets.names):
        return None, True
    arm = next(arm for arm in reversed(options.arms) if arm.method == options.arms[0].method)
    key = (arm, sets.repeated[arm].seeds[0])
    made, data = found.get(sets.makers[key].digest), sets.session.data
    likely = images_of(sets.made[key]) * (4 * data.train.images[0].numel() + LABEL_BYTES)
    size = likely if made is None else made["set_bytes"]
    return ByteFloors.of(sets.session, sets.protocol, sets.names, size), made is not None


def _floor_rows(record: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(FORMS[one["form"]], one) for one in record.get("floors", ())]


def accuracy_section(record: Mapping[str, Any], section: Any, store: Any) -> None:
    """Accuracy of every arm on every architecture, cost and symmetry of the sets, for the report."""
    from fyi_bench.present.figures.dots import accuracy_drawing

    arms, names = record["arms"], words.architectures_of(record)
    header = ["", *(f"{name}, %" for name in names)]
    rows = [[arm_title(arm), *words.accuracies(arm, names)] for arm in arms]
    if any("iterations" in arm for arm in arms):
        header += ["unequalness", "loss first → last", "iterations", "time a set"]
        for row, arm in zip(rows, arms, strict=True):
            *quality, seconds = words.set_columns(arm)
            row += [*quality, str(arm["iterations"]), seconds]
    floors = _floor_rows(record)
    rows += [[title, *words.accuracies(one, names), *[""] * (len(header) - len(names) - 1)] for title, one in floors]
    sized = [*arms, *(one for _, one in floors)]
    if any("bits_per_class" in one for one in sized):
        header.append("bits a class")
        for row, one in zip(rows, sized, strict=True):
            row.append(bits_words(one["bits_per_class"]["total"]) if "bits_per_class" in one else HOLE)
    section.table("Mean ± standard deviation over networks and sets.", header, rows)
    section.notes += words.spread_lines(record)
    if any("seconds" in entry for arm in arms for entry in arm.get("architectures", [])):
        costs = [[name, *words.network_cost(record, name)] for name in names]
        section.table("Cost of a network.", ["", "training and testing", "memory"], costs)
    if names:
        section.figure(
            "Accuracy", "A dot is one network; the bar is the mean.", "accuracy",
            lambda name, width: accuracy_drawing(record, name, width),
        )  # fmt: skip
    section.sets(record, store)

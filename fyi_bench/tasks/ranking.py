"""`fyi-bench ranking`: train the networks of a search space on real data, and keep their ranking for everyone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fyi_bench.config import option
from fyi_bench.present.words import count_words, seconds_words, text_table
from fyi_bench.run.plan import Plan, Records
from fyi_bench.session import Session
from fyi_bench.store.record import build_record
from fyi_bench.tasks.base import TASKS, Record, Task
from fyi_bench.tasks.common import digest_of_runs, seeds_of
from fyi_bench.tasks.nas.points import CONVNETS, SPACE_SEED, Part, part_of
from fyi_bench.tasks.nas.reference import RealSide, kept_rows, measured_ranking, over_of

if TYPE_CHECKING:
    from downstream.nas import Architecture
    from fyi_bench.store.spec import RunSpec

SEEDS = 2  # the second one tells how well real data agrees with itself
ROUND = 60  # after so many networks a part of the 720 is balanced in every factor


@dataclass(frozen=True)
class RankingOptions:
    """Which architectures, trained for how long, and where the ranking is kept."""

    space: str = option("720", "720, a number, NAME:N of another space, or a file of names.")
    reference_images: int | None = option(None, "Real images; 0: all.")
    reference_epochs: int | None = option(None, "Epochs.")
    test_images: int | None = option(None, "Test images; 0: all.")
    out: Path | None = option(None, "CSV to write or to add to; default: in the store.")


@TASKS.register("ranking")
class RankingTask(Task[RankingOptions]):
    """Train every architecture with each seed; what is finished is written whenever work stops."""

    summary = "Rank a search space on real data once, and keep the ranking as a CSV."
    Options = RankingOptions
    defaults: ClassVar[Mapping[str, Any]] = {"precision": "auto"}
    heading = "Ranking by real data"
    examples: ClassVar[Sequence[str]] = (
        "fyi-bench ranking --protocol quick --budget 9m --out cifar10-quick-bf16.csv",
        "fyi-bench ranking --space 120 --reference-images 10000 --reference-epochs 5  # 8 h in bf16, 15 h in fp32",
    )

    def plan(self, session: Session, options: RankingOptions, found: Records) -> Plan:
        session.check_overrides([])
        real = RealSide.asked(session, options.reference_images, options.test_images, options.reference_epochs)
        part = part_of(options.space, session.data, True, real.passes, precision=session.settings.precision)
        seeds = seeds_of(session, SEEDS)
        runs = {point: [real.run(point, seed) for seed in seeds] for point in part.points}
        rounds = _rounds(part, session)
        order = [runs[point][k] for points in rounds for k in range(len(seeds)) for point in points]
        place = options.out or session.store.root / _file_name(session)
        rows = kept_rows(place, real.label)
        known = {run.digest for run in order if run.digest in rows}
        source, label = real.source, real.label
        title = (
            f"ranking {session.data.name} · {len(part.points)} architectures, {count_words(len(seeds), 'seed')}\n"
            f"{count_words(label.epochs, 'epoch')} on {source.images:,} images, tested on {label.test_images:,};"
            f" after every {ROUND} networks a seed the part that is done is balanced"
            + (f"\n{len(known):,} of {len(order):,} networks are in {place}" if known else "")
        )
        left = tuple(run for run in order if run.digest not in known)
        return Plan(
            title, real.protocol.name, left, tolerant=("train",), details=(real, part, runs, seeds, place, rows)
        )

    def answer(self, session: Session, options: RankingOptions, plan: Plan, found: Records) -> Record:
        from fyi_bench.stats import rank_report

        real, part, runs, seeds, _, rows = plan.details
        value = {digest: row.accuracy for digest, row in rows.items() if row.accuracy is not None}
        seconds = {digest: row.seconds for digest, row in rows.items()}
        value |= {digest: record["value"] for digest, record in found.items()}
        seconds |= {digest: record["wall_s"] for digest, record in found.items()}
        over = over_of(session, runs, found)

        def failed(run: RunSpec) -> bool:
            return run.digest not in value and (run.digest in rows or over(run))

        scores = {seed: [value.get(networks[k].digest) for networks in runs.values()] for k, seed in enumerate(seeds)}
        every = [run for networks in runs.values() for run in networks]
        done = [run.digest for run in every if run.digest in value]
        arm = {
            "method": "real",
            "flip": "none",
            "ipc": None,
            "images": real.source.images,
            "epochs": real.label.epochs,
            "done": len(done),
            "failed": sum(map(failed, every)),
            "train_s": round(sum(seconds[digest] for digest in done), 1),
        }
        both = [
            k for k, networks in enumerate(runs.values())
            if all(run.digest in value or failed(run) for run in networks[:2])
        ]  # fmt: skip
        again: dict[str, Any] = {"evaluated": 0}
        if len(seeds) > 1 and both:
            first, second = ([scores[seed][k] for k in both] for seed in seeds[:2])
            again = rank_report(first, second, session.settings.seed)
        return build_record(
            "ranking",
            **session.facts(real.protocol),
            seeds=seeds,
            digest=digest_of_runs("ranking", every),
            arms=[arm],
            space=len(part.points),
            ceiling=again,
            architectures=[
                {"name": point.name, "real": [scores[seed][k] for seed in seeds]} for k, point in enumerate(runs)
            ],
        )

    def partial(self, session: Session, options: RankingOptions, plan: Plan, found: Records) -> Record | None:
        known = found or plan.details[-1]
        return self.answer(session, options, plan, found) if known else None

    def files(self, session: Session, plan: Plan, found: Records, record: Record) -> Mapping[str, Path]:
        from search_space.ranking import save

        real, _, runs, _, place, rows = plan.details
        new = {point: [run for run in networks if run.digest not in rows] for point, networks in runs.items()}
        ranking = measured_ranking(real.label, new, found, over_of(session, new, found))
        return {"ranking": save(ranking, place)} if ranking.rows or rows else {}

    def words(self, record: Mapping[str, Any]) -> str:
        arm, again = record["arms"][0], record["ceiling"]
        total = record["space"] * len(record["seeds"])
        lines = [
            f"{arm['done']} of {total} networks, {seconds_words(arm['train_s'])} of training and testing them",
            f"{count_words(arm['failed'] - (total - arm['done']), 'network')} failed"
            if arm["failed"] > total - arm["done"]
            else "",
        ]
        rows = _agreement_rows(again)
        if rows:
            lines += [f"real data with another seed, on {again['evaluated']} architectures:", *text_table(*rows)]
        return "\n".join(filter(None, lines))

    def section(self, record: Mapping[str, Any], section: Any, store: Any) -> None:
        arm, rows = record["arms"][0], _agreement_rows(record["ceiling"])
        section.headline = f"{arm['done']} of {record['space'] * len(record['seeds'])} networks."
        if rows:
            section.headline += f" Real data with another seed: Spearman {rows[1][0][1]}."
            section.table("Real data against real data with another seed, with 95 % intervals.", *rows)


def _agreement_rows(again: Mapping[str, Any]) -> tuple[list[str], list[list[str]]] | None:
    from fyi_bench.tasks.nas.faithful import with_interval

    shown = {"Spearman, all": "spearman_all", "better half": "spearman_top50", "Kendall, all": "kendall_all"}
    if not again["evaluated"]:
        return None
    return ["", *shown], [["real data again", *(with_interval(again[key]) for key in shown.values())]]


def _rounds(part: Part, session: Session) -> list[list[Architecture]]:
    """The architectures in groups that are trained one after another, cheap ones first in each.

    Of the 720 each group is balanced, so that a ranking that is not whole yet is a stratified sample.
    """
    from downstream.nas import cheap_first
    from search_space import space720

    sizes, left, rounds = (*session.data.train.shape[:2], session.data.num_classes), list(part.points), []
    for end in range(ROUND, len(part.points) + ROUND, ROUND):
        group = left[:ROUND]
        if part.space == CONVNETS:
            within = {point.name for point in space720.subset(min(end, len(part.points)), SPACE_SEED)}
            group = [point for point in left if point.name in within]
        rounds.append(cheap_first(group, *sizes))
        taken = {point.name for point in group}
        left = [point for point in left if point.name not in taken]
    return rounds


def _file_name(session: Session) -> str:
    s = session.settings
    return re.sub(r"[^\w.-]+", "-", f"{session.data.name}-{s.protocol}-{s.precision}") + ".csv"

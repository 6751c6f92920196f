"""`fyi-bench nas`: how wrong a ranking of architectures on a condensed set is, held against one on real data.

Every network is a run of its own, so any number of workers may help, and a stopped command goes on. Rules: networks
that diverged or failed rank last, tied, and are counted (stats/rankings.py); an architecture trained several times on
a side counts with the mean of those that did not fail.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

from fyi_bench.reading import NO_FILE, SetFacts
from fyi_bench.run.plan import Plan, Records
from fyi_bench.session import Session
from fyi_bench.tasks.base import TASKS, Record, Task
from fyi_bench.tasks.common import NOT_MADE, facts_of
from fyi_bench.tasks.given import session_of_sets
from fyi_bench.tasks.nas.answer import answer_of
from fyi_bench.tasks.nas.options import NasOptions
from fyi_bench.tasks.nas.points import AUTO, FEWEST
from fyi_bench.tasks.nas.reference import TRAIN, kept_rows, measured_ranking, over_of
from fyi_bench.tasks.nas.search import Search, search_of

__all__ = ["Nas", "NasOptions"]


@TASKS.register("nas")
class Nas(Task[NasOptions]):
    """Condense what is missing, train every architecture on every side, and compare the rankings."""

    summary = "Rank ConvNets on a condensed set, and say how far the ranking can be trusted (Table B)."
    Options = NasOptions
    defaults: ClassVar[Mapping[str, Any]] = {"precision": "auto"}
    heading = "Architecture search"
    examples: ClassVar[Sequence[str]] = (
        "fyi-bench nas --ipc 50 --method mtt --fyi --space 36 --reference train  # 1.5 h in bf16, 3 h in fp32",
        "fyi-bench nas --set-file mine.safetensors --space nasbench201:40 --reference table.csv",
        "fyi-bench nas --ipc 50 --storage postgresql+psycopg://host/db --artefacts s3://bucket/runs --enqueue",
    )

    def about(self, session: Session, options: NasOptions) -> Session:
        return session_of_sets(session, options.set_files, facts_of(session, options)) if options.set_files else session

    def ignored(self, options: NasOptions, given: Collection[str]) -> Mapping[str, str]:
        found = {} if options.set_files else dict.fromkeys((f.name for f in fields(SetFacts)), NO_FILE)
        if options.set_files:
            found |= dict.fromkeys(("fyi", "flip", "seeds"), NOT_MADE)
        if options.reference not in (AUTO, TRAIN):
            found["save_ranking"] = "--reference names a ranking that is there already"
        return found

    def plan(self, session: Session, options: NasOptions, found: Records) -> Plan:
        search = search_of(session, options)
        if options.save_ranking is not None and search.stored is None:
            kept_rows(options.save_ranking, search.reference.label)
        return self.plan_of(search)

    @staticmethod
    def plan_of(search: Search) -> Plan:
        """The plan of a search."""
        return Plan(search.title, search.protocol.name, tuple(search.runs), tolerant=("train", "score"), details=search)

    def answer(self, session: Session, options: NasOptions, plan: Plan, found: Records) -> Record:
        return answer_of(plan.details, found)

    def partial(self, session: Session, options: NasOptions, plan: Plan, found: Records) -> Record | None:
        search = plan.details
        done = [
            point for point in search.points
            if all(side.settled(point, found, session.store) for side in search.compared)
        ]  # fmt: skip
        return answer_of(search.limited_to(done), found, partial=True) if len(done) >= FEWEST else None

    def files(self, session: Session, plan: Plan, found: Records, record: Record) -> Mapping[str, Path]:
        options = plan.details.options
        if options.save_ranking is None or plan.details.stored is not None:
            return {}
        from search_space.ranking import save

        search = plan.details
        runs = {point: [*search.real.runs[point], *search.again.runs.get(point, ())] for point in search.points}
        ranking = measured_ranking(search.reference.label, runs, found, over_of(session, runs, found))
        return {"ranking": save(ranking, options.save_ranking)}

    def words(self, record: Mapping[str, Any]) -> str:
        from fyi_bench.tasks.nas.words import search_words

        return search_words(record)

    def plots(self, record: Mapping[str, Any], folder: Path) -> list[Path]:
        from fyi_bench.present.figures.nas import nas_figure

        return nas_figure(record, folder)

    def section(self, record: Mapping[str, Any], section: Any, store: Any) -> None:
        from fyi_bench.tasks.nas.words import fill_section

        fill_section(record, section)

"""`fyi-bench rank`: how well a condensed set ranks architectures, in minutes, against a stored ranking by real data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, ClassVar

from fyi_bench.config import option
from fyi_bench.errors import DataError, UsageError
from fyi_bench.reading import SetFacts, stated_facts
from fyi_bench.run.plan import Plan, Records
from fyi_bench.session import Session
from fyi_bench.tasks.base import TASKS, Record, Task
from fyi_bench.tasks.common import SET_HELP
from fyi_bench.tasks.given import session_of_sets
from fyi_bench.tasks.nas import Nas
from fyi_bench.tasks.nas.options import NasOptions
from fyi_bench.tasks.nas.reference import TRAIN
from fyi_bench.tasks.nas.search import search_of


@dataclass(frozen=True)
class RankOptions(SetFacts):
    """Which set, on which architectures, against which ranking."""

    path: Path = option(MISSING, SET_HELP, argument="SET")
    space: str = option("auto:5m", "As in `nas`; auto:5m is what fits five minutes of two cores.")
    reference: str = option("auto", "Real ranking. auto: a stored one that fits; or its name or CSV.")

    @property
    def search(self) -> NasOptions:
        """The search that is asked for by this."""
        facts = stated_facts(self, SetFacts)
        return NasOptions(set_files=(self.path,), only=True, space=self.space, reference=self.reference, **facts)


@TASKS.register("rank")
class Rank(Task[RankOptions]):
    """The search on one set alone, on fewer architectures; its record is one of `fyi-bench nas`."""

    summary = "How well a condensed set ranks architectures, in minutes, against a stored ranking."
    Options = RankOptions
    defaults: ClassVar[Mapping[str, Any]] = {"precision": "auto", "protocol": "quick"}
    unused: ClassVar[Mapping[str, str]] = {"seeds": "A set in a file is one; for more networks: --set nets=N"}
    heading = "Rank transfer"
    examples: ClassVar[Sequence[str]] = (
        "fyi-bench rank mine.safetensors  # 5 min",
        "fyi-bench rank res_DM_CIFAR10_ConvNet_10ipc.pt --space 120",
    )

    def about(self, session: Session, options: RankOptions) -> Session:
        return session_of_sets(session, [options.path], stated_facts(options, SetFacts))

    def plan(self, session: Session, options: RankOptions, found: Records) -> Plan:
        search = search_of(session, options.search)
        if search.stored is None:
            label, instead = search.reference.label, f"fyi-bench nas --set-file {options.path}"
            if options.reference == TRAIN:
                raise UsageError(f"rank trains nothing on real images.\nTo do that: {instead}")
            raise DataError(
                f"There is no stored ranking of {label.dataset} by {label.protocol} that fits.\n"
                f"Name one with --reference, make one with `fyi-bench ranking`, or: {instead}"
            )
        return Nas.plan_of(search)

    def answer(self, session: Session, options: RankOptions, plan: Plan, found: Records) -> Record:
        return Nas().answer(session, options.search, plan, found)

    def partial(self, session: Session, options: RankOptions, plan: Plan, found: Records) -> Record | None:
        return Nas().partial(session, options.search, plan, found)

    def words(self, record: Mapping[str, Any]) -> str:
        from fyi_bench.tasks.nas.words import rank_words

        return rank_words(record)

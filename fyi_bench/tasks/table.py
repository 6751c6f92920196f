"""`fyi-bench table`: a table of the paper with our numbers, its holes filled first where asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from fyi_bench.config import option
from fyi_bench.errors import UsageError, unknown_name_message
from fyi_bench.files import write_text
from fyi_bench.run.plan import Plan, Records
from fyi_bench.session import Session
from fyi_bench.tasks.base import TASKS, Record, Task
from fyi_bench.tasks.holes import OF_RUNS, estimator, plan_of_holes


@dataclass(frozen=True)
class TableOptions:
    """Which table, and in what form."""

    name: str = option(
        MISSING, "Which table of the paper.", argument="1|2|3|4|A|B", names="fyi_bench.present.tables:LAYOUTS.spelled"
    )  # fmt: skip
    form: str = option("text", "text, markdown, latex, csv or html.", flag="--format")
    out: Path | None = option(None, "Write to this file instead of printing.")
    run: bool = option(False, "Compute what is missing first, within --budget.")


@TASKS.register("table")
class TableTask(Task[TableOptions]):
    """The table as text, from what the store holds, with the commands for its holes.

    It shows the numbers of the protocol that the user named; where that was left open, what the store has, and with
    --run or in an empty store those of the session's protocol.
    """

    summary = "A table of the paper, ours beside the published numbers, with commands for what is missing."
    Options = TableOptions
    examples: ClassVar[Sequence[str]] = (
        "fyi-bench table 1",
        "fyi-bench table 3 --format markdown --out table3.md",
        "fyi-bench table 1 --run --protocol quick --budget 8h --workers 4",
    )
    unused: ClassVar[Mapping[str, str]] = {"dataset": "A table is of the paper's data sets"}
    keeps = False
    returns = "text"

    def ignored(self, options: TableOptions, given: Collection[str]) -> Mapping[str, str]:
        return {} if options.run else dict.fromkeys(OF_RUNS, "nothing is computed without --run")

    def plan(self, session: Session, options: TableOptions, found: Records) -> Plan:
        protocol = protocol_of(session)
        if not (options.run or session.dry_run):
            return Plan("", "")
        from fyi_bench.present.tables import missing

        holes = missing(options.name, protocol, session.store)
        return plan_of_holes(session, f"table {options.name} · {len(holes)} command(s)", holes, found)

    def answer(self, session: Session, options: TableOptions, plan: Plan, found: Records) -> Record:
        from fyi_bench.present.tables import table

        mine, named = protocol_of(session), session.settings.given & {"protocol", "overrides"}
        chosen = mine if options.run or named else None
        made = table(options.name, session.store, chosen, estimator(session), otherwise=mine)
        if session.settings.precision != "fp32":  # the commands for the holes ask for it too
            words = ("--precision", session.settings.precision)
            made = replace(made, missing=tuple(replace(one, options=(*one.options, *words)) for one in made.missing))
        text = made.to(options.form)
        out = None if options.out is None else write_text(options.out, text)
        return {"task": self.name, "text": text, "out": out}

    def words(self, record: Mapping[str, Any]) -> str:
        return record["text"] if record["out"] is None else f"table    {record['out']}"


def protocol_of(session: Session) -> str:
    """Name of the session's protocol with the user's changes to it, as `quick+epochs=20`.

    Raises UsageError for a --set that is no key of the protocol: a table shows what recipes give, not what changed
    ones do; and for a protocol that picks the best of checkpoints.
    """
    from distill.methods import METHODS
    from downstream.protocol import protocol_keys

    for key in session.settings.overrides:
        if key not in protocol_keys():
            raise UsageError(
                unknown_name_message("key of the protocol, the only ones a table takes,", key, protocol_keys())
            )
    protocol = session.protocol("accuracy")
    if any(session.protocol("accuracy", method).checkpoints_every for method in METHODS):
        raise UsageError(
            f"{protocol.name} picks the best of checkpoints by test accuracy; a table shows no such numbers.\n"
            f"See one by itself: fyi-bench distill --method mtt --protocol {protocol.name}"
        )
    return protocol.name

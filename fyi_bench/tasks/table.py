"""`fyi-bench table`: fill the holes of a table where asked, then write it in a form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from distill.methods import METHODS
from fyi_bench.errors import UsageError, unknown_name_message
from fyi_bench.present.tables import missing, table
from fyi_bench.session import Session
from fyi_bench.tasks.fill import fill
from fyi_bench.tasks.time import estimate_with


def table_job(
    session: Session, name: str, form: str, run: bool, protocol: str | None, say: Callable[[str], None]
) -> str:
    """The table as text. run: first compute what can be computed of its holes, in order, within the budget.

    protocol: whose numbers to show, as the user said it; None where it was left open: then what the store has, and
    with --run or in an empty store that of the session. Raises UsageError for a --set that is no key of the protocol:
    a table shows what recipes give, not what changed ones do.
    """
    mine = session_protocol(session)
    estimate = estimate_with(session.settings)
    if run:
        fill(session, missing(name, mine, session.store, estimate), say)
    made = table(name, session.store, mine if run else protocol, estimate, otherwise=mine)
    if session.settings.precision != "fp32":  # the commands for the holes ask for it too
        words = ("--precision", session.settings.precision)
        made = replace(made, missing=tuple(replace(one, options=(*one.options, *words)) for one in made.missing))
    return made.to(form)


def session_protocol(session: Session) -> str:
    """Name of the session's protocol with the user's changes to it, as `quick+epochs=20`."""
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

"""`fyi-bench demo`: the whole story on built-in data: continual learning, distillation, one HTML page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fyi_bench.present.figures import continual_figure
from fyi_bench.present.report import report_of_store
from fyi_bench.present.show import show_continual, show_distill
from fyi_bench.session import Session
from fyi_bench.store.commands import save_record
from fyi_bench.tasks.continual import continual_job
from fyi_bench.tasks.distill import distill_job

STEPS, IPC = 5, 10
CONTINUAL_METHOD, DISTILL_METHOD = "dsa", "dm"


def demo_job(session: Session, say: Callable[[str], None]) -> tuple[list[dict[str, Any]], Path]:
    """Run both jobs with FYI and without, print their tables, return the records and the report's place."""
    dataset = session.settings.dataset
    say(f"1/3  class-incremental learning on {dataset}, from memory distilled with {CONTINUAL_METHOD} (± FYI)")
    rehearsed = continual_job(session, CONTINUAL_METHOD, "fyi", IPC, STEPS)
    rehearsed["command"] = f"fyi-bench continual --dataset {dataset} --steps {STEPS} --method {CONTINUAL_METHOD} --fyi"
    place = save_record(session.store, rehearsed)
    plots = continual_figure(rehearsed, place.with_suffix(""))
    say("\n" + show_continual(rehearsed))
    say(f"\n2/3  a condensed set of {dataset} by {DISTILL_METHOD} (± FYI), and how well it trains a network")
    again = replace(session, settings=session.settings, stop=session.stop)
    distilled = distill_job(again, DISTILL_METHOD, "fyi", IPC)
    distilled["command"] = f"fyi-bench distill --dataset {dataset} --method {DISTILL_METHOD} --ipc {IPC} --fyi"
    save_record(session.store, distilled)
    say("\n" + show_distill(distilled))
    say("\n3/3  the report")
    page = report_of_store(session.store)
    for path in plots:
        say(f"plot     {path}")
    say(f"report   {page}")
    return [rehearsed, distilled], page

"""The parts of the benchmark by name, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fyi_bench.bench.growth import growth, show_growth
from fyi_bench.bench.run import Request, Say, bench, reason_to_skip
from fyi_bench.bench.show import markdown
from fyi_bench.bench.startup import show_start_up, start_up
from fyi_bench.errors import UnknownNameError
from fyi_bench.files import write_json
from fyi_bench.run.deadline import Deadline, Interruption

Part = tuple[Callable[[Request, Deadline, Say], dict[str, Any]], Callable[[dict[str, Any]], str]]
# name -> (what measures it, what makes text of its record)
PARTS: dict[str, Part] = {
    "jobs": (bench, markdown),
    "start-up": (start_up, show_start_up),
    "growth": (growth, show_growth),
}
DEFAULT = ("jobs", "start-up")


def run_parts(names: Sequence[str], request: Request, stop: Deadline, say: Say, json_file: Path | None) -> None:
    """Measure the parts, print each, and write their records together where `json_file` says.

    Raises UnknownNameError for another part, BudgetExhausted when the time is used up: what was measured is kept.
    """
    chosen = list(names) or list(DEFAULT)
    for name in chosen:
        if name not in PARTS:
            raise UnknownNameError("part of the benchmark", name, PARTS)
    records: dict[str, Any] = {}
    reason = reason_to_skip(request.machine)
    if reason is not None:
        say(f"skipped: {reason}")
        records, chosen = {"skipped": reason}, []
    with Interruption(stop):
        for name in chosen:
            measure, text = PARTS[name]
            records[name] = measure(request, stop, say)
            say("\n" + text(records[name]))
    if json_file is not None:
        write_json(json_file, {"task": "bench", **records})

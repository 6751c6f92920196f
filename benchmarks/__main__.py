"""The entry: `python -m benchmarks [PART …]`, or `make bench ARGS="…"` (docs/speed.md)."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.case import PRECISIONS
from benchmarks.run import Request, Say, check_names, machine_of, reason_to_skip
from fyi_bench.duration import parse_duration
from fyi_bench.errors import EXIT_INTERRUPTED, FyiBenchError
from fyi_bench.files import write_json
from fyi_bench.run.deadline import Deadline

# part -> module whose function `main(request, stop, say)` measures it, says what it found and returns the record
PARTS = {"jobs": "run", "start-up": "startup", "growth": "growth", "host": "host", "kernels": "kernels"}
DEFAULT = ("jobs", "start-up")


def run_parts(names: Sequence[str], request: Request, stop: Deadline, say: Say, json_file: Path | None = None) -> None:
    """Measure the parts one after the other, and write their records together where `json_file` says.

    Raises UnknownNameError for another part, BudgetExhausted when the time is used up: what was measured is kept.
    """
    check_names("part", names, PARTS)
    records: dict[str, Any] = {}
    reason = reason_to_skip(request.machine)
    if reason is not None:
        say(f"skipped: {reason}")
        records["skipped"] = reason
    else:
        with stop.signals():
            for name in names or DEFAULT:
                records[name] = importlib.import_module(f"benchmarks.{PARTS[name]}").main(request, stop, say)
    if json_file is not None:
        write_json(json_file, {"task": "bench", **records})


def parser() -> argparse.ArgumentParser:
    """The options of the benchmark."""
    asked = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time every job against a plain twin, interleaved; start-up; growth with size; single operations.",
    )
    several: dict[str, Any] = {"action": _Several}
    asked.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; the first two by default")
    asked.add_argument("--only", **several, metavar="JOB", help="these: dc dsa dm idc mtt expert …")
    asked.add_argument("--ipc", **several, kind=int, help="these images a class")
    asked.add_argument("--dataset", **several, help="cifar10, cifar100")
    asked.add_argument("--precision", **several, help="fp32, bf16; both by default")
    asked.add_argument("--repeats", type=_one_or_more, help="rounds of each case; 5, or 3 with --quick")
    asked.add_argument("--quick", action="store_true", help="a few cases, in minutes")
    asked.add_argument("--fresh", action="store_true", help="measure anew what was measured before")
    asked.add_argument("--device", default="cpu", help="cpu or cuda")
    asked.add_argument("--threads", type=_one_or_more, help="of each side; default: all cores, 1 beside a GPU")
    asked.add_argument("--budget", type=parse_duration, help="stop cleanly in time, such as 9m; the next call goes on")
    asked.add_argument("--data-root", type=Path, help="folder of real data sets (or FYI_BENCH_DATA)")
    asked.add_argument(
        "--store", type=Path, default=os.environ.get("FYI_BENCH_STORE", "runs"), help="folder of results"
    )
    asked.add_argument("--json", type=Path, metavar="FILE", help="write the record to this file")
    return asked


class _Several(argparse.Action):
    """Several values by the rule of all commands: `--ipc 1 10`, `--ipc 1 --ipc 10` and `--ipc 1,10` are the same."""

    def __init__(self, option_strings: Sequence[str], dest: str, kind: Callable[[str], Any] = str, **more: Any):
        super().__init__(option_strings, dest, nargs="+", default=[], **more)
        self.kind = kind

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Add what stands after one occurrence of the option."""
        try:
            found = [self.kind(part) for word in values for part in word.split(",")]
        except ValueError as error:
            raise argparse.ArgumentError(self, str(error)) from None
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), *found])


def _one_or_more(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return int(text)


def main(words: Sequence[str] | None = None) -> None:
    """Run what the words ask for; an error is one or two lines and an exit code."""
    try:
        given = parser().parse_args(words)
        request = Request(
            machine=machine_of(given.device, given.threads, given.data_root),
            store=given.store,
            only=tuple(given.only),
            datasets=tuple(given.dataset),
            ipcs=tuple(given.ipc),
            precisions=tuple(given.precision) or PRECISIONS,
            repeats=given.repeats,
            quick=given.quick,
            fresh=given.fresh,
        )
        run_parts(given.parts, request, Deadline(given.budget), print, given.json)
    except FyiBenchError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("benchmarks: interrupted; every round is kept, run the same command to go on.", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()

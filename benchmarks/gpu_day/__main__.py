"""Parts of `benchmarks/gpu_day.sh`: `python -m benchmarks.gpu_day pack|unpack|check|runs` (docs/speed.md)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fyi_bench.duration import parse_duration
from fyi_bench.errors import FyiBenchError
from fyi_bench.files import write_json
from fyi_bench.run.deadline import Deadline
from fyi_bench.store.record import environment

# what a try-out changes: seconds on a CPU, and numbers that mean nothing
TINY = {"model": "convnet-w8", "iterations": "2", "batch_real": "4", "eval_model": "convnet-w8", "epochs": "1",
        "nets": "2"}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The options of the parts."""
    asked = argparse.ArgumentParser(prog="python -m benchmarks.gpu_day", description=__doc__)
    asked.add_argument("part", choices=("pack", "unpack", "check", "runs"))
    asked.add_argument("--out", type=Path, required=True, help="folder to write to")
    asked.add_argument("--packed", type=Path, nargs="*", default=[], help="folders of packed data; else --data-root")
    asked.add_argument("--data-root", type=Path, default=os.environ.get("FYI_BENCH_DATA"), help="real data sets")
    asked.add_argument("--parts", type=int, default=2, help="of packed data")
    asked.add_argument("--store", type=Path, help="where the runs are kept; default: store, in --out")
    asked.add_argument("--device", default="cuda", help="cuda, or cpu to try it out")
    asked.add_argument("--budget", type=parse_duration, help="stop in time, such as 5m")
    asked.add_argument("--tiny", action="store_true", help="try it out: built-in data, a few steps, one seed")
    return asked


def main(words: Sequence[str] | None = None) -> int:
    """Run a part; an error is one or two lines and an exit code. 1: something is wrong on the device."""
    given = parser().parse_args(words)
    try:
        return {"pack": _pack, "unpack": _unpack, "check": _check, "runs": _runs}[given.part](given)
    except FyiBenchError as error:
        print(f"gpu_day: {error}", file=sys.stderr)
        return error.exit_code


def _pack(given: argparse.Namespace) -> int:
    from benchmarks.gpu_day.packed import pack
    from fyi_bench.data import load_dataset

    for path in pack(load_dataset("cifar10", given.data_root), given.out, given.parts):
        print(f"{path}   {path.stat().st_size / 2**20:.1f} MiB")
    return 0


def _unpack(given: argparse.Namespace) -> int:
    from benchmarks.gpu_day.packed import unpack, write_parquet

    for path in write_parquet(unpack("cifar10", given.packed), given.out):
        print(f"{path}   {path.stat().st_size / 2**20:.1f} MiB")
    return 0


def _check(given: argparse.Namespace) -> int:
    from benchmarks.gpu_day.check import check

    found = check(given.device, Deadline(given.budget), _say, ("dm", "mtt") if given.tiny else ())
    _write(given, "check.json", found)
    print(
        f"{len(found['rows'])} checked, wrong: {', '.join(found['wrong']) or 'none'}; not reached: {len(found['left'])}"
    )
    return 1 if found["wrong"] else 0


def _runs(given: argparse.Namespace) -> int:
    from benchmarks.gpu_day.packed import unpack
    from benchmarks.gpu_day.runs import Wanted, compute
    from fyi_bench.data import load_dataset
    from fyi_bench.store.store import Store

    stop = Deadline(given.budget)
    if given.tiny:
        wanted, data = Wanted(given.device, TINY, seeds=1), load_dataset("shapes10", given.data_root)
    else:
        wanted = Wanted(given.device)
        data = unpack("cifar10", given.packed) if given.packed else load_dataset("cifar10", given.data_root)
    print(f"{data!r}, {stop.spent():.1f} s", flush=True)
    found = compute(wanted, data, Store(given.store or given.out / "store"), stop, _say)
    _write(given, "runs.json", found)
    print(found["stopped"] or "all done")
    return 1 if any("error" in row for row in found["rows"]) else 0


def _say(line: str) -> None:
    print(line, flush=True)


def _write(given: argparse.Namespace, name: str, found: dict[str, Any]) -> None:
    write_json(given.out / name, {**found, "environment": environment(given.device)})


if __name__ == "__main__":
    sys.exit(main())

"""Running the command line in tests: small settings, one worker, a store of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SMALL = {
    "model": "convnet-w8",
    "iterations": "6",
    "batch_real": "8",
    "eval_model": "convnet-w8",
    "epochs": "1",
    "min_steps": "0",
    "nets": "1",
}


def arguments(*words: str, store: Path, dataset: str = "shapes10", workers: int = 1, **changes: str) -> list[str]:
    """The words of a small command on built-in data."""
    given = {**SMALL, **changes}
    sets = [part for key, value in given.items() if value is not None for part in ("--set", f"{key}={value}")]
    common = ["--dataset", dataset, "--store", str(store), "--workers", str(workers), "--quiet"]
    return [*words, *common, *sets]


def run(*words: str, check: int | None = 0, **environment: str) -> subprocess.CompletedProcess:
    """Run `fyi-bench` in a process of its own; `check` is the exit code it must end with (None: any)."""
    done = subprocess.run(
        [sys.executable, "-m", "fyi_bench.cli", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        timeout=240,
        check=False,
    )
    if check is not None:
        assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def start(*words: str) -> subprocess.Popen:
    """Start `fyi-bench` without waiting for it."""
    return subprocess.Popen(
        [sys.executable, "-m", "fyi_bench.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

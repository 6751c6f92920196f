"""Inputs that went wrong, each with a `run.sh` that exits 0 where the product behaves rightly (folder: FYI_CASES)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(os.environ.get("FYI_CASES", ROOT.parent / "shared" / "cases"))
CASES = sorted(path.parent for path in FOLDER.glob("*/*/run.sh"))
SECONDS = 300


@pytest.fixture(scope="session")
def command(tmp_path_factory) -> Path:
    """A folder with the command `fyi-bench` of this checkout."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "fyi-bench"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m fyi_bench "$@"\n')
    script.chmod(0o755)
    return folder


@pytest.mark.skipif(not CASES, reason=f"no cases in {FOLDER}: name their folder with FYI_CASES")
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_case(case, command, tmp_path):
    path = f"{command}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    places = {"PYTHONPATH": str(ROOT), "PROJECT": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        ["bash", str(case / "run.sh")], cwd=tmp_path, env={**os.environ, **places, "PATH": path}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout

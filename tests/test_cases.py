"""The cases of ../shared/cases: inputs that went wrong once; each has a script that ends with 0 where all is right."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(os.environ.get("FYI_CASES", ROOT.parent / "shared" / "cases"))
CASES = sorted(FOLDER.glob("*/*/run.sh"))

pytestmark = pytest.mark.skipif(not CASES, reason=f"{FOLDER} is not here")


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    """A PATH on which `fyi-bench` and `python` are those of this environment."""
    folder = tmp_path_factory.mktemp("bin")
    for name, words in (("python", ""), ("fyi-bench", " -m fyi_bench")):
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{words} "$@"\n')
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize("script", CASES, ids=lambda p: f"{p.parent.parent.name}/{p.parent.name}")
def test_case(script, path, monkeypatch, tmp_path):
    last = script.read_text().strip().splitlines()[-1]
    if re.fullmatch(r"python check\.py[\w =]*", last):  # in this process, which has torch already
        monkeypatch.chdir(script.parent)
        monkeypatch.setattr(sys, "argv", last.split()[1:])
        with pytest.raises(SystemExit) as end:
            runpy.run_path("check.py", run_name="__main__")
        assert not end.value.code
        return
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "PROJECT": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

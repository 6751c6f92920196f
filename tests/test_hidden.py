"""A folder whose files have the names of our packages: said in two lines, with what to do."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from commands import ROOT


def start(folder, *words: str) -> subprocess.CompletedProcess:
    given = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=folder, env=given, check=False)


@pytest.mark.parametrize("name", ["distill.py", "downstream/__init__.py"])
def test_what_hides_our_packages_is_named(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise SystemExit('it was run')")
    done = start(tmp_path, "-m", "fyi_bench", "ls", "methods")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert f"{tmp_path / name} hides the package" in done.stderr
    assert "Start in another folder" in done.stderr
    inside = start(tmp_path, "-c", "import fyi_bench")
    assert inside.stderr.splitlines()[-2].startswith(f"ImportError: {tmp_path / name} hides")
    assert "it was run" not in done.stderr + inside.stderr


def test_other_files_hide_nothing(tmp_path):
    (tmp_path / "distillation.py").write_text("")
    assert start(tmp_path, "-c", "import fyi_bench; print(fyi_bench.__version__)").returncode == 0

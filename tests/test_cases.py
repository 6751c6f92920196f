"""The cases of ../shared/cases: inputs that went wrong once; each has a script that ends with 0 where all is right."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import Copies

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(os.environ.get("FYI_CASES", ROOT.parent / "shared" / "cases"))
CASES = sorted(FOLDER.glob("*/*/run.sh"))
HERE = re.compile(r"python check\.py[\w =]*")  # a script whose last line is this one runs in this process


def case(script: Path) -> Any:
    """A script and how to run it: the words of its last line, or none where it takes processes."""
    last, name = script.read_text().strip().splitlines()[-1], f"{script.parent.parent.name}/{script.parent.name}"
    here = HERE.fullmatch(last) is not None
    return pytest.param(script, last.split()[1:] if here else None, id=name, marks=() if here else pytest.mark.long)


pytestmark = pytest.mark.skipif(not CASES, reason=f"{FOLDER} is not here")


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Iterator[str]:
    """A PATH on which `fyi-bench` and `python` are those of this environment."""
    with Copies(tmp_path_factory.mktemp("bin")) as copies:
        yield f"{copies.path}:{os.environ['PATH']}"


@pytest.mark.parametrize(("script", "words"), [case(script) for script in CASES])
def test_case(script, words, request, monkeypatch, tmp_path):
    if words:
        monkeypatch.chdir(script.parent)
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            runpy.run_path("check.py", run_name="__main__")
        assert not end.value.code
        return
    path = request.getfixturevalue("path")
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "PROJECT": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

"""The plug-ins of docs/extending.md, as printed there: installed by pip, and from each command to the report."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("--set", "epochs=1", "min_steps=0", "nets=1", "eval_model=convnet-w8", "--workers", "1", "--protocol", "quick")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder into which pip has installed the page's package."""
    text, project = (ROOT / "docs" / "extending.md").read_text(), tmp_path_factory.mktemp("project")
    (project / "pyproject.toml").write_text(re.search(r"```toml\n(.*?)```", text, re.S)[1])
    files = re.findall(r"^`(my_\w+\.py)`\n\n```python\n(.*?)```", text, re.S | re.M)
    assert len(files) == 5
    for name, code in files:
        (project / name).write_text(code)
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    done = subprocess.run([*command, str(target), str(project)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


RUNNER = """
import contextlib, io, json, re, sys
import fyi_bench
from fyi_bench.cli import main

told = []
for words in json.loads(sys.argv[1]):
    made = re.search(r"^set +mean +(\\S+)", "\\n".join(told), re.M)
    words = [made[1] if word == "SET" else word for word in words] if isinstance(words, list) else words
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = print(eval(words)) if isinstance(words, str) else main(words)
    if code:
        sys.exit(f"{words}: exit {code}\\n{out.getvalue()}")
    told.append(out.getvalue())
print(json.dumps(told))
"""


def told(installed: Path, folder: Path, *commands: Sequence[str] | str) -> list[str]:
    """What each command (words) and Python call (a text) prints, in one process, with the plug-ins installed.

    The process stands in another folder. SET among the words is the set that a command before has made by `mean`.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)]), "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, json.dumps(commands)], cwd=folder, env=environment, capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


@pytest.mark.long
def test_the_five_plugins_of_the_page_from_pip_to_the_report(installed, tmp_path):
    (tmp_path / "data" / "stripes").mkdir(parents=True)
    (tmp_path / "data" / "stripes" / "stripes.txt").write_text("20")
    on = ("--dataset", "stripes", "--data-root", "data")
    model = ("--set", "model=convnet-w8", "iterations=3")
    nets = ("--arch", "pocket", "convnet-w8")
    more = "protocol='quick', workers=1, overrides='epochs=1,min_steps=0,nets=1,eval_model=convnet-w8'"
    methods, data, shown, _, inspected, grown, helped, word, _ = told(
        installed,
        tmp_path,
        ("ls", "methods"),
        ("data", "list", "--data-root", "data"),
        ("cross-arch", "--method", "mean", "--fyi", "--ipc", "1", *on, *nets, *model, *SMALL),
        ("export", "SET", "--format", "numpy-rows", "--out", "mine.rows"),
        ("inspect", "mine.rows", "--dataset", "stripes"),
        ("growth", "--method", "random", "--ipc", "1", "2", *on, *SMALL),
        ("growth", "--help"),
        f"fyi_bench.growth('random', ipcs=(1, 2), dataset='stripes', data_root='data', {more})['arms']",
        ("report",),
    )
    assert "mean" in methods
    assert "stripes" in data
    assert "mean+fyi" in shown
    assert "pocket" in shown
    assert "numpy-rows" in inspected
    assert "2 images a class" in grown
    assert "fyi-bench growth --method dm" in helped
    assert "'ipc': 2" in word
    page = (tmp_path / "runs" / "reports" / "report.html").read_text()
    assert "Growth" in page
    assert "pocket" in page

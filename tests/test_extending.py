"""The plug-ins of docs/extending.md, as printed there: installed by pip, and from each command to the report."""

from __future__ import annotations

import os
import re
import subprocess
import sys
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


def typed(installed: Path, folder: Path, *words: str) -> str:
    """What `python` prints with these words, typed in another folder, with the plug-ins installed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)]), "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_five_plugins_of_the_page_from_pip_to_the_report(installed, tmp_path):
    def run(*words: str) -> str:
        return typed(installed, tmp_path, "-m", "fyi_bench", *words)

    assert "mean" in run("ls", "methods")
    (tmp_path / "data" / "stripes").mkdir(parents=True)
    (tmp_path / "data" / "stripes" / "stripes.txt").write_text("20")
    assert "stripes" in run("data", "list", "--data-root", "data")

    on = ("--dataset", "stripes", "--data-root", "data")
    model = ("--set", "model=convnet-w8", "iterations=3")
    shown = run("cross-arch", "--method", "mean", "--fyi", "--ipc", "1", *on, "--arch", "pocket", "convnet-w8",
                *model, *SMALL)  # fmt: skip
    assert "mean+fyi" in shown
    assert "pocket" in shown
    place = re.search(r"^set +mean +(\S+)", shown, re.M)[1]
    run("export", place, "--format", "numpy-rows", "--out", "mine.rows")
    assert "numpy-rows" in run("inspect", "mine.rows", "--dataset", "stripes")

    shown = run("growth", "--method", "random", "--ipc", "1", "2", *on, *SMALL)
    assert "2 images a class" in shown
    assert "fyi-bench growth --method dm" in run("growth", "--help")
    word = "import fyi_bench; print(fyi_bench.growth('random', ipcs=(1, 2), dataset='stripes', data_root='data', "
    more = "protocol='quick', workers=1, overrides='epochs=1,min_steps=0,nets=1,eval_model=convnet-w8')['arms'])"
    assert "'ipc': 2" in typed(installed, tmp_path, "-c", word + more)
    run("report")
    page = (tmp_path / "runs" / "reports" / "report.html").read_text()
    assert "Growth" in page
    assert "pocket" in page

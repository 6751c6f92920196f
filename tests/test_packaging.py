"""What is shipped: dependencies are those that are imported, and the files a newcomer looks for say the same."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import fyi_bench

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("search_space", "distill", "downstream", "fyi_bench")
IMPORTED_AS = {"avalanche-lib": "avalanche", "pillow": "PIL"}  # where distribution and module differ
# the user's own choice (object stores of --artefacts, the extras hub and logs), of a notebook, or a part of what is
# declared (optuna's database, jinja2's text)
OTHERS = {"boto3", "google", "huggingface_hub", "sqlalchemy", "wandb", "markupsafe", "IPython"}


def imported() -> set[str]:
    """First part of the name of every absolute import in the packages, wherever it stands."""
    found: set[str] = set()
    for path in (p for package in PACKAGES for p in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(str(node.module).partition(".")[0])
    return found


def test_what_is_declared_is_imported_and_the_other_way_round():
    names = [re.match(r"[\w-]+", text)[0] for text in PROJECT["dependencies"]]
    declared = {IMPORTED_AS.get(name, name) for name in names}
    others = imported() - set(sys.stdlib_module_names) - set(PACKAGES) - OTHERS
    assert declared == others


def test_every_package_says_that_it_is_typed():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").exists()
        assert "py.typed" in data[package]


def test_the_version_is_the_same_everywhere():
    assert f"version: {fyi_bench.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {fyi_bench.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_every_page_is_in_the_site():
    listed = (ROOT / "mkdocs.yml").read_text()
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if f" {page}\n" not in listed] == []

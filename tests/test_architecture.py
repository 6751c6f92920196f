"""docs/architecture.md is true: the way from a command to the line of a method, and the names it calls things by."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

import pytest

import plain_method as plain
from commands import arguments
from fyi_bench.cli import main
from plain_method import plain_method  # noqa: F401  a fixture

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGES = ("search_space", "distill", "downstream", "fyi_bench")
MOST_FRAMES = 12


class Here(Exception):
    """Raised in a method's loss."""


def frames(tmp_path: Path) -> list[tuple[str, str]]:
    """(file, function) of our own code on the stack from `main` down to what calls a method's loss, in one process."""
    words = arguments("distill", "--method", plain.NAME, "--only", "--arch", "none", store=tmp_path)
    with pytest.raises(Here) as caught:
        main(["--debug", *words])
    found = [(Path(frame.filename), frame.name) for frame in traceback.extract_tb(caught.value.__traceback__)]
    ours = [(path.relative_to(ROOT), name) for path, name in found if path.is_relative_to(ROOT)]
    return [(path.as_posix(), name) for path, name in ours if path.parts[0] in PACKAGES]


def test_the_page_tells_the_frames_from_a_command_to_a_method(tmp_path, monkeypatch):
    def loss(self, ctx):
        raise Here

    monkeypatch.setattr(plain.Plain, "loss", loss)
    found = frames(tmp_path)
    told = re.findall(r"^\| `([\w/.]+\.py)` \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert found == told
    assert len(found) < MOST_FRAMES  # the method's own line is one, too


def test_every_file_and_function_that_the_page_names_exists():
    for path in re.findall(r"\]\(\.\./([\w/.]+)\)", PAGE):
        assert (ROOT / path).exists(), path
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    sources = "\n".join(path.read_text(encoding="utf-8") for path in files)
    for name in (
        "announce",
        "compute",
        "build_options",
        "bind",
        "distill_run",
        "problem_of",
        "initial_images",
        "groups_of",
    ):
        assert f"`{name}`" in PAGE
        assert f"def {name}(" in sources, name

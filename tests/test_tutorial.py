"""The tutorial runs as it stands, from the first block to the last, and its sentences are true."""

from __future__ import annotations

import os
import re
import runpy
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "tutorial.md"


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def after(tmp_path_factory):
    """Every name that the page's code leaves behind, run in a folder of its own."""
    folder, before = tmp_path_factory.mktemp("tutorial"), Path.cwd()
    os.chdir(folder)  # no FYI_BENCH_STORE: the store is ./runs of that folder
    (folder / "tutorial.py").write_text("\n".join(blocks()), encoding="utf-8")
    try:
        yield runpy.run_path("tutorial.py")
    finally:
        os.chdir(before)


def test_there_is_code_for_every_part():
    text = "\n".join(blocks())
    for call in ("distill(", "load(", "export(", "inspect(", "evaluate(", "cross_arch(", "table(", "report("):
        assert f"fyi_bench.{call}" in text


@pytest.mark.long
def test_the_record_has_three_arms_and_a_pair(after):
    assert [arm["flip"] for arm in after["record"]["arms"]] == ["none", "fyi", "none"]
    assert after["record"]["difference"]["pairs"] == 2
    assert after["record"]["protocol"]["name"].startswith("quick+")


@pytest.mark.long
def test_the_set_comes_back_as_it_was(after):
    assert after["theirs"].space == after["ours"].space
    assert (after["theirs"].images == after["ours"].images).all()
    assert after["facts"]["format"] == "dc"


@pytest.mark.long
def test_a_set_has_one_accuracy_whichever_file_it_comes_from(after):
    entry, original = after["entry"], after["across"]["arms"][1]
    assert entry["values"] == after["scores"]["arms"][0]["architectures"][0]["values"]
    made = after["record"]["arms"][1]["architectures"][0]
    assert entry["values"] == made["values"]
    assert original["set_digest"] == after["record"]["arms"][1]["set_digest"]


@pytest.mark.long
def test_the_page_and_the_table_are_there(after):
    assert Path(after["page"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert after["text"].startswith("## Table 3")
    assert "fyi-bench distill --method dm --fyi" in after["text"]

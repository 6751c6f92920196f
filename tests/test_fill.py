"""Filling holes: the command of a hole runs through the same cells, within the budget, and what cannot run is said."""

from __future__ import annotations

import pytest

from fyi_bench.config import Settings
from fyi_bench.errors import BudgetExhausted
from fyi_bench.present.missing import Missing
from fyi_bench.session import Session
from fyi_bench.store.commands import command_records
from fyi_bench.tasks.fill import fill

SMALL = ("--set", "model=convnet-w8", "--set", "iterations=2", "--set", "batch_real=4")
HOLE = Missing(
    "distill", "dm", "fyi", "shapes10", 1, ("convnet-w8",), "quick+epochs=1+min_steps=0+nets=1", options=SMALL
)


def session(folder, **more) -> Session:
    return Session(Settings(store=folder, device="cpu", workers=1, threads=1, **more))


def test_a_hole_is_filled_once_with_the_settings_of_its_command(tmp_path):
    said: list[str] = []
    fill(
        session(tmp_path),
        [HOLE, Missing("distill", "x", "none", "a", 1, (), "quick", reason="not built in")],
        said.append,
    )
    record = command_records(session(tmp_path).store, "distill")[0]
    assert record["command"] == HOLE.command
    assert record["protocol"]["name"].startswith("quick+epochs=1")
    assert record["arms"][1]["iterations"] == 2
    assert record["arms"][1]["architectures"][0]["name"] == "convnet-w8"
    assert "left out: not built in" in said[-1]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/done")}
    fill(session(tmp_path), [HOLE], said.append)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/done")} == before


def test_a_spent_budget_ends_the_filling(tmp_path):
    with pytest.raises(BudgetExhausted):
        fill(session(tmp_path, budget=0.001), [HOLE], lambda line: None)
    assert command_records(session(tmp_path).store) == []

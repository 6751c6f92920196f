"""Filling holes: the command of a hole runs through the same cells, within the budget, and what cannot run is said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fyi_bench.config import Settings
from fyi_bench.errors import BudgetExhausted
from fyi_bench.present.missing import Missing
from fyi_bench.run.types.distill import Distill
from fyi_bench.session import Session
from fyi_bench.store.commands import command_records
from fyi_bench.tasks.base import Task, perform
from fyi_bench.tasks.holes import plan_of_holes

SMALL = ("--set", "model=convnet-w8", "--set", "iterations=2", "--set", "batch_real=4")
HOLE = Missing(
    "distill", "dm", "fyi", "shapes10", 1, ("convnet-w8",), "quick+epochs=1+min_steps=0+nets=1", options=SMALL
)


def session(folder, **more) -> Session:
    return Session(Settings(store=folder, device="cpu", workers=1, threads=1, **more))


class Filling(Task):
    """Fill holes; there is no more to it."""

    name, keeps = "filling", False

    def plan(self, session, options, found):
        return plan_of_holes(session, "filling", options, found)

    def answer(self, session, options, plan, found):
        return {}

    def words(self, record):
        return ""


def test_a_hole_is_filled_once_with_the_settings_of_its_command(tmp_path):
    said: list[str] = []
    impossible = Missing("distill", "x", "none", "a", 1, (), "quick", reason="not built in")
    made = session(tmp_path)
    made.say = said.append
    perform(Filling(), made, [HOLE, impossible])
    record = command_records(made.store, "distill")[0]
    assert record["command"] == HOLE.command
    assert record["protocol"]["name"].startswith("quick+epochs=1")
    assert record["arms"][1]["iterations"] == 2
    assert record["arms"][1]["architectures"][0]["name"] == "convnet-w8"
    assert "left out: not built in" in "\n".join(said)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/done")}
    perform(Filling(), session(tmp_path), [HOLE])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/done")} == before


def test_a_spent_budget_ends_the_filling(tmp_path):
    with pytest.raises(BudgetExhausted):
        perform(Filling(), session(tmp_path, budget=0.001), [HOLE])
    assert command_records(session(tmp_path).store) == []


def test_of_a_filling_that_is_stopped_the_finished_parts_are_answered(tmp_path, monkeypatch):
    def enough(self, run, worker):
        raise BudgetExhausted("enough")

    perform(Filling(), session(tmp_path), [HOLE])
    (record,) = (tmp_path / "reports").glob("*.json")
    record.unlink()
    monkeypatch.setattr(Distill, "compute", enough)
    with pytest.raises(BudgetExhausted):
        perform(Filling(), session(tmp_path), [HOLE, replace(HOLE, ipc=2)])
    assert [one["arms"][0]["ipc"] for one in command_records(session(tmp_path).store)] == [1]

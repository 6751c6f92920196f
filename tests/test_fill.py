"""Filling holes: the command of a hole runs through the same cells, within the budget, and what cannot run is said."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from fyi_bench.config import Settings, option
from fyi_bench.errors import BudgetExhausted, DataError
from fyi_bench.present.missing import Missing
from fyi_bench.run.plan import Plan
from fyi_bench.run.types.distill import Distill
from fyi_bench.session import Session
from fyi_bench.store.commands import command_records
from fyi_bench.store.record import build_record
from fyi_bench.tasks.base import TASKS, Task, perform
from fyi_bench.tasks.common import Comparison
from fyi_bench.tasks.holes import estimator, plan_of_holes
from fyi_bench.tasks.report import write_report

SMALL = ("--set", "model=convnet-w8", "--set", "iterations=2", "--set", "batch_real=4")
HOLE = Missing(
    "distill", "dm", "fyi", "shapes10", 1, ("convnet-w8",), "quick+epochs=1+min_steps=0+nets=1", options=SMALL
)


def session(folder, **more) -> Session:
    return Session(Settings(store=folder, device="cpu", workers=1, threads=1, **more))


@dataclass(frozen=True)
class CountingOptions(Comparison):
    """What the task from elsewhere is asked."""

    twice: int = option(1, "A number.")


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


def test_holes_without_their_data_are_left_out_and_said(tmp_path):
    said: list[str] = []
    absent = replace(HOLE, dataset="tinyimagenet")
    made = session(tmp_path, data_root=tmp_path)
    made.say = said.append
    perform(Filling(), made, [absent, HOLE])
    (record,) = command_records(made.store, "distill")
    assert record["dataset"] == "shapes10"
    assert "left out: No tinyimagenet data" in "\n".join(said)
    with pytest.raises(DataError, match="No tinyimagenet data"):
        perform(Filling(), session(tmp_path, data_root=tmp_path), [absent])


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


class Counting(Task):
    """Count the classes of a data set; it needs no runs."""

    summary, heading = "Count classes.", "Numbers of classes"
    Options = CountingOptions

    def plan(self, session, options, found):
        return Plan("counting", "by hand")

    def answer(self, session, options, plan, found):
        arm = {"method": options.method, "flip": options.flip, "ipc": options.ipc, "twice": options.twice}
        facts = session.facts("by hand")
        return build_record(self.name, **facts, seeds=[0], digest="00000000c0c0a0a0", arms=[arm])

    def words(self, record):
        return f"{record['arms'][0]['twice']} classes"

    def section(self, record, section, store):
        section.table("Counted.", ["what", "classes"], [["all", self.words(record)]])


def test_a_task_from_elsewhere_fills_holes_and_has_its_section(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS._entries, "counting", Counting)
    monkeypatch.setattr(Counting, "name", "counting", raising=False)
    made, told = session(tmp_path), []
    made.say = told.append
    hole = Missing("counting", "dm", "fyi", "shapes10", 1, (), "quick", options=("--twice", "20"))
    assert estimator(made)(hole) is not None
    perform(Filling(), made, [hole])
    (record,) = command_records(made.store, "counting")
    assert (record["arms"][0]["twice"], record["command"]) == (20, hole.command)
    page = write_report(made.store).read_text()
    assert "Numbers of classes" in page
    assert "20 classes" in page

"""From a plan to results: the graph of needs, failures, plans that go on, several commands and several GPUs at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from toy_runs import as_type, computed, known, toy, toy_path

from fyi_bench.config import Settings
from fyi_bench.errors import Declined, DivergenceError, PlanShown, StoreError, UsageError
from fyi_bench.run.executor import announce, compute, default_url
from fyi_bench.run.plan import Plan
from fyi_bench.run.queue import MAX_FAILURES, Counts, Queue, connect
from fyi_bench.session import Session
from fyi_bench.store.run_dir import ABSENT
from fyi_bench.store.spec import RunSpec
from fyi_bench.tasks.base import Task, perform
from fyi_bench.tasks.worker import WorkerTask


@pytest.fixture(autouse=True)
def _toys(tmp_path, monkeypatch):
    """The type `toy` in this process and in those it starts."""
    for place in toy_path(tmp_path / "toys").split(os.pathsep):
        monkeypatch.syspath_prepend(place)
    known(monkeypatch)


def session(tmp_path: Path, **changes: object) -> Session:
    given = {"dataset": "shapes10", "protocol": "quick", "device": "cpu", "workers": 1, "threads": 1, **changes}
    return Session(Settings(store=tmp_path / "store", **given))


def plan_of(*runs: RunSpec, **more: object) -> Plan:
    return Plan("toys", "quick", runs, **more)


class Asking(Task):
    """A task whose plans a function makes of the records so far."""

    name, keeps = "toys", False

    def __init__(self, planned):
        self.planned = planned

    def plan(self, session, options, found):
        return self.planned(found)

    def answer(self, session, options, plan, found):
        return {"found": found}


def test_a_run_waits_for_those_it_needs_whatever_the_order_of_the_plan(tmp_path):
    first = toy(1, 0.3)
    second = toy(2, needs=[first.digest])
    last = toy(3, needs=[first.digest, second.digest])
    found = compute(session(tmp_path, workers=3), "toys", plan_of(last, second, first, toy(4)))
    order = computed(session(tmp_path).store)
    assert sorted(order) == [1, 2, 3, 4]
    assert order.index(1) < order.index(2) < order.index(3)
    assert found[last.digest]["value"] == 9.0


def test_a_plan_that_is_to_read_a_file_known_by_digest_alone_is_refused_before_the_work(tmp_path):
    made, first = session(tmp_path), toy(1)
    compute(made, "toys", plan_of(first))
    made.dry_run = True
    folder = made.store.folder(first)
    (folder / ABSENT).write_text('["preview.png"]')  # no run reads a picture
    with pytest.raises(PlanShown):
        announce(made, plan_of(first, toy(2, needs=[first.digest])))
    (folder / ABSENT).write_text('["preview.png", "set.safetensors"]')
    with pytest.raises(StoreError, match=r"set.safetensors is known here by its digest alone.\n.* another store"):
        announce(made, plan_of(first, toy(2, needs=[first.digest])))
    with pytest.raises(PlanShown):
        announce(made, plan_of(first))


def test_one_process_takes_the_runs_in_the_order_of_the_plan(tmp_path):
    compute(session(tmp_path), "toys", plan_of(*(toy(n) for n in (5, 2, 9))))
    assert computed(session(tmp_path).store) == [5, 2, 9]


@pytest.mark.parametrize("workers", [None, 1, 2])
def test_no_process_and_no_database_is_opened_for_runs_that_are_over_before(tmp_path, workers):
    made, first = session(tmp_path, workers=workers), toy(1)
    assert made.data.name == "shapes10"  # known by now: that is how the time is
    sets = [toy(number, valueless=True) for number in (3, 4)]
    found = compute(made, "toys", plan_of(toy(2, needs=[first.digest]), *sets, first))
    assert [record.get("value") for record in found.values()] == [4.0, None, None, 1.0]
    lines = [json.loads(line) for line in (tmp_path / "store" / "computed.jsonl").read_text().splitlines()]
    assert all((line["pid"] == os.getpid()) == (workers != 2) for line in lines)
    assert any((tmp_path / "store").glob("queue-*")) == (workers == 2)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_may_not_fail_ends_the_command_and_the_next_one_tries_it_again(tmp_path, workers, monkeypatch):
    bad = toy(1, trouble="diverged")
    plan = plan_of(bad, toy(2, needs=[bad.digest]))
    for _ in range(2):
        with pytest.raises(DivergenceError, match="no longer finite"):
            compute(session(tmp_path, workers=workers), "toys", plan)
    assert computed(session(tmp_path).store) == [1, 1]


def test_a_tolerated_failure_takes_along_those_that_need_it_and_nobody_else(tmp_path):
    bad = toy(1, trouble="diverged")
    child, grandchild = toy(2, needs=[bad.digest]), None
    grandchild = toy(3, needs=[child.digest])
    made, said = session(tmp_path), []
    made.say = said.append
    found = compute(made, "toys", plan_of(bad, child, grandchild, toy(4), tolerant=("toy",)))
    assert list(found) == [toy(4).digest]
    assert said[0] == "3 runs failed, ranked last:"
    assert said[1] == "  the loss is no longer finite."
    assert f"it needs toy {bad.digest}, which failed" in said[2]
    assert computed(made.store) == [1, 4]


def test_a_failure_on_another_worker_ends_the_command_that_waits(tmp_path):
    """Another worker takes the run and it diverges there; the command, with nothing else to do, says so."""
    made, bad = session(tmp_path), toy(1, trouble="diverged")
    made.store.make()
    url = default_url(made.store)
    queue = Queue.open(connect(url, lambda: None, print), f"toys-{plan_of(bad).digest}", [bad])
    queue.enqueue([bad], made.store)
    claim = queue.claim()
    threading.Timer(1.0, lambda: queue.fail(claim, "the loss is no longer finite.")).start()
    with pytest.raises(DivergenceError, match="failed on another worker: the loss is no longer finite"):
        compute(made, "toys", plan_of(bad))


def test_a_defect_is_shown_where_it_is_not_tolerated_and_tried_again_where_it_is(tmp_path):
    with pytest.raises(ZeroDivisionError):
        compute(session(tmp_path), "toys", plan_of(toy(1, trouble="defect")))
    assert computed(session(tmp_path).store) == [1]
    compute(session(tmp_path), "others", plan_of(toy(2, trouble="defect"), toy(3), tolerant=("toy",)))
    assert computed(session(tmp_path).store)[1:] == [2, 3] + [2] * (MAX_FAILURES - 1)


def test_a_plan_that_is_open_is_asked_again_with_what_was_found(tmp_path):
    first = [toy(n) for n in range(3)]

    def more(found):
        if not found:
            return plan_of(*first, open=True, later=(toy(7),))
        best = max(first, key=lambda run: found[run.digest]["value"])
        return plan_of(*first, toy(10 + best.inputs["number"]), open=True)

    found = perform(Asking(more), session(tmp_path), None)["found"]
    assert found[toy(12).digest]["value"] == 144.0
    assert len(found) == 4
    assert computed(session(tmp_path).store) == [0, 1, 2, 12]


def test_a_dry_run_and_a_refusal_leave_nothing_behind(tmp_path, monkeypatch):
    made, said = session(tmp_path), []
    made.say, made.dry_run = said.append, True
    with pytest.raises(PlanShown):
        perform(Asking(lambda found: plan_of(toy(1), toy(2))), made, None)
    assert said[1:] == ["toys", f"2 runs, about 4 s to go on a usual core (not measured) · store {tmp_path / 'store'}"]
    monkeypatch.setattr("fyi_bench.run.executor.estimate_seconds", lambda *given: 3600.0)
    made.dry_run, made.confirm = False, lambda question: False
    with pytest.raises(Declined, match="Not started"):
        announce(made, plan_of(toy(1)))
    assert not (tmp_path / "store").exists()


def test_every_command_can_leave_its_runs_to_workers(tmp_path):
    made, said = session(tmp_path, enqueue=True), []
    made.say = said.append
    with pytest.raises(PlanShown):
        compute(made, "toys", plan_of(toy(1), toy(2)))
    (queue,) = Queue.all(connect(default_url(made.store), lambda: None, print))
    assert queue.counts() == Counts(waiting=2)
    assert f"fyi-bench worker --storage {default_url(made.store)}" in said[0]
    assert computed(made.store) == []
    asked = replace(made.settings, enqueue=False, storage=default_url(made.store))
    with pytest.raises(PlanShown):
        perform(WorkerTask(), Session(asked, said.append, dry_run=True), WorkerTask.Options())
    assert said[-1].endswith("1 queue(s), 2 run(s) open")
    made.settings = replace(made.settings, enqueue=False)
    assert len(compute(made, "toys", plan_of(toy(1), toy(2)))) == 2
    assert queue.counts() == Counts(complete=2)


def test_two_commands_with_one_plan_share_its_runs(tmp_path):
    plan = plan_of(*(toy(n, 0.1) for n in range(12)))
    other = threading.Thread(target=lambda: compute(session(tmp_path), "toys", plan))
    other.start()
    assert len(compute(session(tmp_path), "toys", plan)) == 12
    other.join()
    assert sorted(computed(session(tmp_path).store)) == list(range(12))


def test_a_store_without_a_queue_file_goes_on(tmp_path):
    """The queue is no result: removing it loses nothing."""
    compute(session(tmp_path), "toys", plan_of(toy(1)))
    for path in (tmp_path / "store").glob("queue-*.sqlite3*"):
        path.unlink()
    assert len(compute(session(tmp_path), "toys", plan_of(toy(1), toy(2)))) == 2
    assert computed(session(tmp_path).store) == [1, 2]


def test_a_store_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match=r"Could not make .*store.*\nIt is a file: choose another --store"):
        compute(session(tmp_path), "toys", plan_of(toy(1)))


# several GPUs ------------------------------------------------------------------------------------------------------

TWO_GPUS = """
import sys
import torch

torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 2
torch.cuda.get_device_name = lambda *given: "pretended"
torch.cuda.set_device = lambda number: setattr(torch.cuda, "chosen", number)
"""


@pytest.mark.long
def test_each_worker_has_a_gpu_of_its_own(tmp_path):
    """On a machine that pretends to have two: the processes of one command, as many as GPUs, sit on different ones."""
    toys = tmp_path / "gpu-toys"
    path = os.pathsep.join([str(tmp_path / "two"), toy_path(toys)])
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "sitecustomize.py").write_text(TWO_GPUS)
    code = (
        "import sys; from pathlib import Path; from fyi_bench.config import Settings; from toy_runs import toy;"
        "from fyi_bench.session import Session; from fyi_bench.run.executor import compute;"
        "from fyi_bench.run.plan import Plan;"
        "s = Session(Settings('shapes10', store=Path(sys.argv[1]), protocol='quick', device='cuda'));"
        "print(s.settings.devices, s.settings.processes);"
        "compute(s, 'toys', Plan('', 'quick', tuple(toy(n, 0.5, gpu=True) for n in range(8))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"if __name__ == '__main__':\n    {code}", str(tmp_path / "store")],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "('cuda:0', 'cuda:1') 2\n"
    on = {(row["pid"], row["gpu"]) for row in computed(session(tmp_path).store, whole=True)}
    assert sorted(gpu for _, gpu in on) == [0, 1]
    assert len({pid for pid, _ in on}) == 2


def test_the_gpus_of_the_work_can_be_chosen(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert Settings(device="cuda").resolved().devices == ("cuda:0", "cuda:1", "cuda:2", "cuda:3")
    chosen = Settings(device="auto", devices=("cuda:1", "cuda:3")).resolved()
    assert (chosen.device, chosen.devices, chosen.processes) == ("cuda", ("cuda:1", "cuda:3"), 2)
    assert Settings(device="cuda", workers=8, devices=("cuda:1",)).resolved().processes == 8
    with pytest.raises(UsageError, match=r"'gpu1' is no GPU\.\nWrite for instance --devices cuda:0 cuda:1"):
        Settings(devices=("gpu1",))
    with pytest.raises(UsageError, match=r"--devices cuda:4 is not here.*\nThere are cuda:0, cuda:1, cuda:2, cuda:3"):
        Settings(device="cuda", devices=("cuda:4",)).resolved()
    with pytest.raises(UsageError, match="--devices names GPUs, and the work is on the CPU"):
        Settings(device="cpu", devices=("cuda:0",)).resolved()


def test_alike_runs_are_taken_together_where_the_device_gains(tmp_path, monkeypatch):
    sizes: list[int] = []

    class Together(as_type(lambda run, worker: None)):
        together = True

        def compute_together(self, runs, worker):
            sizes.append(len(runs))
            for run in runs:
                run.finish({"value": 1.0})

        def compute(self, run, worker):
            self.compute_together([run], worker)

    known(monkeypatch, many=Together)
    monkeypatch.setitem(__import__("fyi_bench.run.run_type", fromlist=["AT_ONCE"]).AT_ONCE, "cpu", 3)
    runs = [RunSpec("many", {"number": 1, "seed": seed}) for seed in range(4)] + [
        RunSpec("many", {"number": 2, "seed": 0})
    ]
    assert len(compute(session(tmp_path), "many", plan_of(*runs))) == 5
    assert sizes == [3, 1, 1]

"""Processes that share cells: each cell once, a dead one replaced, the first error ends all, others are waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from test_queue_processes import until
from toy_runs import as_type, computed, known, toy, toy_path

from fyi_bench.config import Settings
from fyi_bench.errors import BudgetExhausted, DataError, DivergenceError, Interrupted, StoreError, UsageError
from fyi_bench.run.deadline import Deadline
from fyi_bench.run.executor import Crew, compute, default_url
from fyi_bench.run.plan import Plan
from fyi_bench.run.processes import RESTARTS, Events, Rows, _Crew, work_together
from fyi_bench.run.progress import Progress
from fyi_bench.run.queue import Queue, connect
from fyi_bench.run.run_type import Worker, ensure
from fyi_bench.session import Session
from fyi_bench.store.run_dir import RunDir
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Busy, Store

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def _toys(tmp_path, monkeypatch):
    """The kind `toy` in this process and in those it starts."""
    for place in toy_path(tmp_path / "toys").split(os.pathsep):
        monkeypatch.syspath_prepend(place)
    known(monkeypatch)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def share(store: Store, runs, count: int = 2, stop: Deadline | None = None) -> list[str]:
    """Compute toy runs in processes; what they said."""
    said: list[str] = []
    url = default_url(store)
    Queue.open(connect(url, lambda: None, print), "toys", runs).enqueue(runs, store)
    crew = Crew(url, "toys", store.root, None, "cpu", tolerant=())
    work_together(crew.work, count, Events(say=said.append), stop or Deadline())
    return said


def test_each_cell_is_computed_once_and_a_process_that_dies_is_replaced(store):
    jobs = [toy(n, 0.02) for n in range(8)] + [toy(8, dies_at_first=True)]
    said = share(store, jobs, 3)
    assert Counter(computed(store)) == {n: 1 + (n == 8) for n in range(9)}
    assert all(store.has(job) for job in jobs)
    died, back = sorted(said)
    assert died == "A worker died (exit code -9); another goes on with its work."
    assert back.startswith("Run 8: its worker process ")
    assert back.endswith("; it waits again.")


def test_a_cell_that_kills_every_process_ends_the_command(store):
    jobs = [toy(n, dies_at_first=True) for n in range(RESTARTS + 2)]
    with pytest.raises(StoreError, match=r"keep dying \(exit code -9\)\.\nIs there enough memory"):
        share(store, jobs)


@pytest.mark.parametrize(
    ("trouble", "kind", "said"),
    [
        ("data", DataError, "no images here"),
        ("diverged", DivergenceError, "no longer finite"),
        ("defect", RuntimeError, r"^\w+Error.*, in a worker process:\nTraceback"),
    ],
)
def test_the_first_error_ends_the_whole_and_is_raised_here(store, trouble, kind, said):
    with pytest.raises(kind, match=said):
        share(store, [toy(1, 60.0), toy(2, trouble=trouble), toy(3, 60.0)])
    assert not store.has(toy(1))


def test_a_plain_script_may_ask_for_several_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from fyi_bench.config import Settings\n"
        "from fyi_bench.run.executor import compute\n"
        "from fyi_bench.run.plan import Plan\n"
        "from fyi_bench.session import Session\n"
        "from toy_runs import toy\n"
        "print('asked')\n"
        "session = Session(Settings(store=Path('store'), protocol='quick', device='cpu', workers=2, threads=1))\n"
        "print(len(compute(session, 'toys', Plan('', 'quick', (toy(1), toy(2))))))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("asked\n2\n", 0), done.stderr


def test_a_budget_holds_for_the_processes(store):
    with pytest.raises(BudgetExhausted):
        share(store, [toy(1, 120.0), toy(2, 120.0)], stop=Deadline(2.0))


def test_who_stopped_the_command_is_named_and_not_what_its_processes_were_told():
    stop = Deadline()
    for by in ("Ctrl-C", "SIGTERM"):  # a terminal tells every process, and then we tell ours
        stop.interrupt(by)
    crew = _Crew(lambda number, *told: 0, 0, Events(*3 * [lambda *told: None]), stop, lambda: None)
    crew.error = Interrupted("Stopped by SIGTERM.")
    with pytest.raises(Interrupted, match=r"Stopped by Ctrl-C"):
        crew.run()


def test_processes_that_are_gone_before_they_were_asked_have_not_finished():
    stop = Deadline()
    stop.interrupt("SIGTERM")  # to the whole group: nobody was told by us, and nobody says anything
    crew = _Crew(lambda number, *told: 0, 0, Events(*3 * [lambda *told: None]), stop, lambda: None)
    with pytest.raises(Interrupted, match=r"Stopped by SIGTERM"):
        crew.run()


def test_the_first_process_that_stops_says_why(monkeypatch):
    monkeypatch.setattr(_Crew, "_dismiss", lambda self, number: None)
    crew = _Crew(lambda number, *told: 0, 3, Events(*3 * [lambda *told: None]), Deadline(), lambda: None)
    told = (
        ("BudgetExhausted", "no time"),
        ("Interrupted", "asked to stop"),
        ("DataError", "no data"),
        ("UsageError", "x"),
    )
    said = []
    for number, error in enumerate((*told, None)):
        crew._over(number, error)
        said.append(type(crew.error).__name__)
    assert said == ["BudgetExhausted", "BudgetExhausted", "DataError", "DataError", "DataError"]


def test_an_interrupt_reaches_the_processes(store):
    stop = Deadline()
    threading.Timer(2.0, stop.interrupt).start()
    with pytest.raises(Interrupted):
        share(store, [toy(1, 120.0), toy(2, 120.0)], stop=stop)


def stops_early(number: int, stop: Deadline, events: Events) -> int:
    raise BudgetExhausted("Stopped.")


def test_who_shares_the_time_has_stopped_when_a_process_has(store):
    stop = Deadline(1000)  # by its own clock it need not
    with pytest.raises(BudgetExhausted):
        work_together(stops_early, 2, Events(), stop)
    assert stop.requested()


def tells_environment(number: int, stop: Deadline, events: Events) -> int:
    events.say(os.environ["FYI_BENCH_TOY"])
    return 0


def test_processes_have_the_environment_of_now(monkeypatch):
    said: list[str] = []
    for value in ("one", "two"):
        monkeypatch.setenv("FYI_BENCH_TOY", value)
        work_together(tells_environment, 1, Events(say=said.append), Deadline())
    assert said == ["one", "two"]


def test_a_command_that_is_killed_leaves_no_process_behind(store):
    code = (
        "import sys; from pathlib import Path; from fyi_bench.config import Settings; from toy_runs import toy;"
        "from fyi_bench.session import Session; from fyi_bench.run.executor import compute;"
        "from fyi_bench.run.plan import Plan;"
        "s = Session(Settings(store=Path(sys.argv[1]), protocol='quick', device='cpu', workers=2, threads=1));"
        "compute(s, 'toys', Plan('', 'quick', (toy(1, 120.0), toy(2, 120.0))))"
    )
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = subprocess.Popen([sys.executable, "-c", code, str(store.root)], env={**os.environ, **path})
    until(lambda: len(computed(store)) == 2)
    workers = [row["pid"] for row in computed(store, whole=True)]
    assert command.pid not in workers
    command.kill()
    command.wait()
    until(lambda: not any(map(works, workers)))


def works(pid: int) -> bool:
    """Whether the process is there, and no zombie that nobody waits for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_cell_that_another_command_is_at_is_left_to_it_and_waited_for(store, tmp_path):
    """The workers do the rest; then the command itself waits, and takes over when the other one is killed."""
    code = (
        "import sys; from pathlib import Path; from toy_runs import toy;"
        "from fyi_bench.run.run_type import Worker, ensure;"
        "from fyi_bench.store.store import Store; ensure(toy(0, at_first=60.0), Worker(Store(Path(sys.argv[1]))))"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(store.root)], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    end = time.monotonic() + 60
    while computed(store) != [0]:
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    with pytest.raises(Busy), store.run(toy(0), wait=False):
        pass

    def kill_when_alone() -> None:
        while len(computed(store)) < 4:
            time.sleep(0.02)
        other.send_signal(signal.SIGKILL)
        other.wait()

    killer = threading.Thread(target=kill_when_alone)
    killer.start()
    settings = Settings(store=store.root, protocol="quick", device="cpu", workers=2, threads=1)
    cells = [toy(n) for n in range(4)]
    records = compute(Session(settings), "toys", Plan("", "quick", tuple(cells)))
    killer.join()
    assert [records[cell.digest]["value"] for cell in cells] == [0.0, 1.0, 4.0, 9.0]
    assert Counter(computed(store)) == {0: 2, 1: 1, 2: 1, 3: 1}


@pytest.mark.parametrize(
    ("protocol", "cells", "given", "expected"),
    [("paper", 1, None, 4), ("paper", 2, None, 2), ("paper", 3, None, 1), ("paper", 9, None, 1), ("paper", 1, 3, 3),
     ("quick", 1, None, 1), ("quick", 1, 2, 2)],
)  # fmt: skip
def test_the_cores_are_shared_out_among_the_planned_cells(store, monkeypatch, protocol, cells, given, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(4)))
    before = torch.get_num_threads()
    assert Settings(protocol=protocol, device="cpu").resolved().processes == 4
    seen: list[int] = []

    def count(run: RunDir, worker: Worker) -> None:
        seen.append(torch.get_num_threads())
        run.finish({})

    known(monkeypatch, counted=as_type(count))
    planned = [RunSpec("counted", {"number": number}) for number in range(cells)]
    session = Session(Settings(store=store.root, protocol=protocol, device="cpu", workers=1, threads=given))
    for done in planned[1:2]:  # those done already change nothing for the others
        ensure(done, Worker(store, stop=session.stop))
    seen.clear()
    compute(session, "counting", Plan("", protocol, tuple(planned)))
    torch.set_num_threads(before)
    assert seen == [expected] * max(1, cells - 1)


def test_rows_count_a_piece_once_whoever_says_so():
    shown = Progress()
    rows = Rows(shown, "condensing", 2, "cell", {"a": "first"})
    rows.events.progress("a", 1, 10, 0.5)
    assert [task.name for task in shown.tasks] == ["condensing", "first"]
    rows.events.done("a")
    rows.events.done("a")
    rows.events.progress("a", 2, 10, 0.5)  # late
    assert [(task.name, task.step) for task in shown.tasks] == [("condensing", 1)]
    rows.__exit__()
    assert rows.stage.finished


def test_short_pieces_tell_little_of_long_ones(monkeypatch):
    """Twenty pieces of a second, each of which took ten, do not make ten thousand seconds of one of a thousand."""
    now = 0.0
    monkeypatch.setattr("fyi_bench.run.processes.time.monotonic", lambda: now)
    weights = {str(k): 1.0 for k in range(20)} | {"long": 1000.0}
    rows = Rows(Progress(), "condensing", len(weights), "cell", {}, weights)
    now = 200.0
    for k in range(20):
        rows.events.done(str(k))
    left = rows.stage.left_s()
    assert left == pytest.approx(1000 * (200 + 51) / (20 + 51))
    for step in (1, 500):
        rows.events.progress("long", step, 1000, 0.5)
    now = 5200.0  # it is ten times as slow too: with half of it done that has been seen
    assert rows.stage.left_s() == pytest.approx(500 * (5200 + 51) / (520 + 51))


def test_a_gpu_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UsageError, match=r"There is no CUDA device here\.\nUse --device auto"):
        Settings(device="cuda").resolved()
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert Settings(device="cuda").resolved().device == "cuda"

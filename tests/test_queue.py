"""The sweep as a ledger: exactly once, nothing lost with a worker, no clock believed, errors that say what to do."""

from __future__ import annotations

import datetime
import itertools
import threading
import time

import pytest
import toy_runs
from optuna.storages._rdb import storage as optuna_storage
from sqlalchemy import event
from toy_runs import computed, toy

from fyi_bench.errors import BudgetExhausted, DataError, StoreError, UsageError
from fyi_bench.run import drain, holder
from fyi_bench.run import queue as queue_module
from fyi_bench.run.deadline import Deadline
from fyi_bench.run.drain import Drain, Habits
from fyi_bench.run.queue import MAX_FAILURES, Counts, Queue, connect
from fyi_bench.run.run_type import Worker
from fyi_bench.run.storage import sqlite_url
from fyi_bench.store.store import Store

ELSEWHERE = "0123456789ab:17:99:elsewhere"  # a process of another machine


@pytest.fixture(autouse=True)
def _toys(monkeypatch):
    toy_runs.known(monkeypatch)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def url(tmp_path) -> str:
    return sqlite_url(tmp_path / "sweep.sqlite3")


def opened(url: str, name: str = "toys") -> Queue:
    return Queue.open(connect(url, lambda: None, lambda line: None), name, [toy(n) for n in range(3)])


def work(sweep: Queue, store: Store, said: list[str] | None = None, **habits) -> int:
    heard = said if said is not None else []
    worker = Worker(store, stop=habits.pop("stop", None), say=heard.append)
    return Drain([sweep], worker, Habits(**habits)).run()


def test_jobs_come_in_the_order_they_were_enqueued_and_no_job_is_invented(url, store):
    sweep = opened(url)
    assert sweep.enqueue([toy(n) for n in (3, 1, 2)], store) == 3
    assert sweep.enqueue([toy(n) for n in (1, 4)], store) == 1
    assert work(sweep, store) == 4
    assert computed(store) == [3, 1, 2, 4]
    assert work(sweep, store) == 0
    assert sweep.claim() is None
    assert sweep.counts() == Counts(complete=4)
    trials = sweep._trials()
    assert [trial.value for trial in trials] == [9.0, 1.0, 4.0, 16.0]
    assert [trial.params for trial in trials] == [{"number": n} for n in (0, 1, 2, 1)]
    assert list(sweep.titles().values()) == ["toy 3", "toy 1", "toy 2", "toy 4"]


def test_what_the_store_has_is_not_enqueued_and_what_it_lost_is(url, store):
    sweep = opened(url)
    sweep.enqueue([toy(1), toy(2)], store)
    work(sweep, store)
    assert sweep.enqueue([toy(1), toy(2)], store) == 0
    emptied = Store(store.root.with_name("other"))
    assert sweep.enqueue([toy(1), toy(2)], emptied) == 2
    work(sweep, emptied)
    assert sorted(computed(emptied)) == [1, 2]
    assert sweep.counts() == Counts(complete=2)


def test_workers_that_claim_at_the_same_time_never_get_the_same_job(url, store):
    opened(url).enqueue([toy(n) for n in range(40)], store)
    got: list[list[int]] = [[] for _ in range(4)]
    sweeps = [opened(url) for _ in got]
    start = threading.Barrier(len(got))

    def take(mine: list[int], sweep: Queue) -> None:
        start.wait()
        while (claim := sweep.claim()) is not None:
            mine.append(claim.spec.inputs["number"])

    threads = [threading.Thread(target=take, args=pair) for pair in zip(got, sweeps, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for mine in got for number in mine) == list(range(40))


def test_two_sweeps_of_one_storage_are_drained_in_turn(url, store):
    opened(url, "first").enqueue([toy(1)], store)
    opened(url, "second").enqueue([toy(2)], store)
    ask = connect(url, lambda: None, print)
    assert [sweep.name for sweep in Queue.all(ask)] == ["first", "second"]
    assert Drain(Queue.all(ask, "second"), Worker(store)).run() == 1
    assert Drain(Queue.all(ask), Worker(store)).run() == 1
    with pytest.raises(StoreError, match=r"no queue 'third'\.\nIt has: first, second\."):
        Queue.all(ask, "third")


# workers that die ------------------------------------------------------------------------------------------------


def as_if_from(monkeypatch, holder: str, sweep: Queue):
    """A claim held by another process."""
    with monkeypatch.context() as patch:
        patch.setattr(queue_module, "this_process", lambda: holder)
        return sweep.claim()


@pytest.fixture
def clock(monkeypatch):
    """The monotonic clock, set by hand."""
    now = {"s": 1000.0}
    monkeypatch.setattr(time, "monotonic", lambda: now["s"])
    return now


def test_a_silent_worker_loses_its_job_after_the_grace_and_a_living_one_keeps_it(url, store, clock, monkeypatch):
    watcher, other = opened(url), opened(url)
    watcher.enqueue([toy(1), toy(2)], store)
    silent = as_if_from(monkeypatch, ELSEWHERE, other)
    living = as_if_from(monkeypatch, ELSEWHERE.replace("17", "18"), other)
    lines = []
    for second in range(0, 90, 10):
        clock["s"] = 1000.0 + second
        assert other.beat(living, second)
        lines += [(second, line) for line in watcher.bring_back(60.0)]
    assert lines == [(60, "Run 0: its worker process 17 on elsewhere died; it waits again.")]
    assert watcher.counts() == Counts(waiting=1, running=1)
    assert watcher.claim().spec == silent.spec


def test_a_job_that_kills_its_workers_is_given_up(url, store, clock, monkeypatch):
    sweep, lines = opened(url), []
    sweep.enqueue([toy(1)], store)
    starts = itertools.count(5)
    while as_if_from(monkeypatch, f"{holder._machine()}:4194303:{next(starts)}:here", opened(url)) is not None:
        clock["s"] += 10
        lines += sweep.bring_back()
    assert [line.rpartition("; ")[2] for line in lines] == ["it waits again."] * (MAX_FAILURES - 1) + ["given up."]
    assert sweep.failures() == {toy(1).digest: "; ".join(["its worker process 4194303 on here died"] * 3)}


def test_who_asks_again_after_many_kills_is_not_told_that_it_failed(url, store, clock, monkeypatch):
    """A command that is killed and repeated has no dead workers to answer for."""
    for start in range(MAX_FAILURES + 2):
        sweep = opened(url)
        sweep.enqueue([toy(1)], store)
        clock["s"] += 10
        assert all("waits again" in line for line in sweep.bring_back())
        assert as_if_from(monkeypatch, f"{holder._machine()}:4194303:{start + 5}:here", sweep) is not None


def test_two_who_look_at_the_same_time_count_a_death_once(url, store, clock, monkeypatch):
    first, second = opened(url), opened(url)
    first.enqueue([toy(1)], store)
    as_if_from(monkeypatch, f"{holder._machine()}:4194303:5:here", opened(url))
    ask = first._ask

    def interrupted(method, *given, **named):
        left_out = method == "set_trial_state_values" or given[1:3] == ("holder", None)
        return None if left_out else ask(method, *given, **named)

    first._ask = interrupted  # has counted, and not yet brought back
    first.bring_back()
    assert second.counts() == Counts(running=1)
    assert len(second.bring_back()) == 1
    assert second.counts() == Counts(waiting=1)
    assert [trial.user_attrs["failures"] for trial in second._trials()] == [["its worker process 4194303 on here died"]]


def test_a_worker_killed_before_its_first_sign_of_life_loses_its_job_too(url, store, clock, monkeypatch):
    sweep = opened(url)
    sweep.enqueue([toy(1)], store)
    monkeypatch.setattr(Queue, "_taken", lambda self, trial: trial)  # dies between the state and the name
    opened(url).claim()
    assert sweep.counts() == Counts(running=1)
    assert sweep.bring_back(60.0) == []
    clock["s"] += 61
    assert sweep.bring_back(60.0) == ["Run 0: its worker (not known) died; it waits again."]


def test_the_clock_of_the_day_may_jump(url, store, monkeypatch):
    class Jumping(datetime.datetime):
        times = iter([2030, 1990, 2026, 2000, 2050] * 40)

        @classmethod
        def now(cls, tz=None):
            return datetime.datetime(next(cls.times), 1, 1, tzinfo=tz)

    monkeypatch.setattr(optuna_storage, "datetime", Jumping)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    sweep = opened(url)
    sweep.enqueue([toy(n) for n in range(5)], store)
    held = as_if_from(monkeypatch, ELSEWHERE, opened(url))
    assert sweep.bring_back() == []
    assert work(sweep, store, linger=False) == 4
    assert sweep.bring_back() == []
    sweep.complete(held, 0.0)
    assert sweep.counts() == Counts(complete=5)


def test_who_looks_at_a_dead_worker_s_run_late_finds_it_done(url, store, monkeypatch):
    """Two workers see the same run of a dead one; the first brings it back and finishes it before the second acts."""
    first, second = opened(url), opened(url)
    first.enqueue([toy(1)], store)
    as_if_from(monkeypatch, f"{holder._machine()}:4194303:5:here", opened(url))
    seen = second._trials()
    assert work(first, store) == 1
    monkeypatch.setattr(second, "_trials", lambda *states: seen)
    assert second.bring_back() == []
    assert first.counts() == Counts(complete=1)


def test_only_processes_of_this_machine_can_be_known_to_be_gone():
    here = holder.this_process()
    machine, pid, start, host = here.split(":")
    assert not holder.is_gone(here)
    assert holder.is_gone(f"{machine}:{pid}:{int(start) - 1}:{host}")  # the number was given to another since
    assert holder.is_gone(f"{machine}:4194303:5:{host}")
    assert not holder.is_gone(ELSEWHERE)
    assert not holder.is_gone(None)


def test_a_worker_that_was_only_slow_does_no_harm(url, store, clock, monkeypatch):
    sweep = opened(url)
    sweep.enqueue([toy(3)], store)
    slow = as_if_from(monkeypatch, ELSEWHERE, opened(url))
    sweep.bring_back(60.0)
    clock["s"] += 61
    sweep.bring_back(60.0)
    successor = sweep.claim()
    opened(url).complete(slow, 9.0, {"seconds": 1})
    sweep.complete(successor, 9.0)
    assert not sweep.beat(successor, 5)
    assert not sweep.put_back(successor, "too late") or sweep.counts() == Counts(complete=1)
    assert sweep.counts() == Counts(complete=1)


# jobs that fail --------------------------------------------------------------------------------------------------


def test_a_diverged_job_is_counted_and_not_tried_again(url, store):
    sweep = opened(url)
    jobs = [toy(1, trouble="diverged"), toy(2)]
    sweep.enqueue(jobs, store)
    assert work(sweep, store) == 2
    assert sweep.counts() == Counts(complete=1, failed=1)
    assert sweep.failures() == {jobs[0].digest: "the loss is no longer finite."}
    assert sweep.enqueue(jobs, store) == 0
    assert sweep.enqueue(jobs, Store(store.root.with_name("elsewhere"))) == 1  # the ledger itself knows of it


def test_an_unforeseen_error_is_tried_elsewhere_a_few_times(url, store):
    sweep, said = opened(url), []
    sweep.enqueue([toy(1, trouble="defect"), toy(2)], store)
    assert work(sweep, store, said) == 1
    assert computed(store) == [1, 2, 1, 1]
    assert sweep.counts() == Counts(complete=1, failed=1)
    assert list(sweep.failures().values()) == ["; ".join(["ZeroDivisionError: toy"] * MAX_FAILURES)]
    assert [line.rpartition("; ")[2] for line in said] == ["it waits for another try."] * 2 + ["it counts as failed."]
    assert sweep.enqueue([toy(1, trouble="defect")], store) == 1  # a new command tries anew


def test_a_worker_to_which_nothing_but_trouble_happens_ends(url, store):
    sweep = opened(url)
    sweep.enqueue([toy(n, trouble="defect") for n in range(9)], store)
    with pytest.raises(ZeroDivisionError):
        work(sweep, store)
    assert len(computed(store)) == 3
    assert sweep.counts() == Counts(waiting=9)


def test_trouble_of_this_machine_gives_the_run_back_and_ends_the_worker(url, store, monkeypatch):
    sweep = opened(url)
    sweep.enqueue([toy(1, trouble="data"), toy(2)], store)
    with pytest.raises(DataError, match="no images here"):
        work(sweep, store)
    assert sweep.counts() == Counts(waiting=2)
    toy_runs.known(monkeypatch, toy=toy_runs.as_type(lambda run, worker: run.finish({"value": 1.0})))  # images came
    assert work(sweep, store) == 2


def test_a_stopped_worker_gives_its_job_back_uncounted(url, store):
    sweep = opened(url)
    sweep.enqueue([toy(1, seconds=30.0)], store)
    for _ in range(MAX_FAILURES + 1):
        with pytest.raises(BudgetExhausted):
            work(sweep, store, stop=Deadline(0.2))
    assert sweep.counts() == Counts(waiting=1)


def test_a_worker_stays_while_another_works_and_leaves_when_told(url, store, monkeypatch):
    sweep, other = opened(url), opened(url)
    sweep.enqueue([toy(1)], store)
    held = as_if_from(monkeypatch, ELSEWHERE, other)
    assert work(sweep, store, linger=False) == 0
    monkeypatch.setattr(time, "sleep", lambda seconds: other.complete(held, 1.0))
    assert work(sweep, store) == 0
    assert sweep.counts() == Counts(complete=1)


def test_another_version_of_the_numbers_is_refused():
    from fyi_bench.run.numerics import check_numerics, numerics

    check_numerics({})
    check_numerics({**numerics(), "of a plug-in": 3})
    with pytest.raises(DataError, match=r"version 999 of the component 'trainer'.*\nInstall the same"):
        check_numerics({**numerics(), "trainer": 999})


def test_a_worker_of_another_version_computes_nothing(url, store):
    sweep = opened(url)
    sweep.enqueue([toy(1, numerics={"trainer": 999})], store)
    with pytest.raises(DataError, match="version 999 of the component 'trainer'"):
        work(sweep, store)
    assert computed(store) == []


def test_threads_are_those_of_the_plan_whoever_works(url, store, monkeypatch):
    sweep, used = opened(url), []
    monkeypatch.setattr(drain, "set_threads", used.append)
    sweep.enqueue([toy(1), toy(2)], store, threads=lambda spec: 3)
    work(sweep, store)
    assert used == [3, 3]


# storages that cannot be used ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "error", "said"),
    [
        ("runs/sweep.sqlite3", UsageError, r"'runs/sweep\.sqlite3' is no storage URL\.\nWrite for instance sqlite:"),
        ("sqlite://", UsageError, "names no file"),
        ("sqlite:///:memory:", UsageError, "names no file"),
        ("oracl://h/d", UsageError, "'oracl' is no database known here"),
        ("mysql+pymysql://u:secret@h/d", UsageError, "needs the driver 'pymysql'"),
        ("postgresql://me:secret@127.0.0.1:1/d", StoreError, r"postgresql\+psycopg://me:\*\*\*@.*cannot be used"),
        ("sqlite:////proc/no/sweep.sqlite3", StoreError, "cannot be made: No such file"),
    ],
)
def test_bad_urls_are_explained_without_the_password(url, error, said):
    with pytest.raises(error, match=said) as caught:
        connect(url, lambda: None, print)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_a_file_that_is_no_database_is_named(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no database" * 100)
    with pytest.raises(StoreError, match=r"notes\.txt cannot be used: file is not a database"):
        connect(sqlite_url(path), lambda: None, print)


def test_a_full_disk_is_said_at_once_and_loses_nothing(url, store, monkeypatch):
    monkeypatch.setattr(optuna_storage.time, "sleep", lambda seconds: None)  # its own retries
    sweep = opened(url)
    sweep.enqueue([toy(n) for n in range(3)], store)

    @event.listens_for(sweep._ask.storage.engine, "begin")
    def _no_room(connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")  # as many as there are: not one more

    with pytest.raises(StoreError, match=r"disk is full\.\nNothing that is done was lost"):
        sweep.enqueue([toy(n, text="x" * 5000) for n in range(3, 20)], store)
    assert work(opened(url), store) >= 3
    assert {0, 1, 2} <= set(computed(store))


def test_several_processes_may_create_the_tables_at_once(url):
    errors: list[Exception] = []
    start = threading.Barrier(4)

    def create() -> None:
        start.wait()
        try:
            opened(url)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [sweep.name for sweep in Queue.all(connect(url, lambda: None, print))] == ["toys"]

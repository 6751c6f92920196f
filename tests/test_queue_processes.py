"""Worker processes at one sweep, on sqlite and on PostgreSQL: each job once, and nothing lost with a kill."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import toy_runs
from postgres import ABSENT, Server, binaries
from toy_runs import computed, toy, toy_path

from commands import Started
from fyi_bench.config import Settings
from fyi_bench.run.executor import compute
from fyi_bench.run.plan import Plan
from fyi_bench.run.queue import Counts, Queue, connect
from fyi_bench.run.storage import sqlite_url
from fyi_bench.session import Session
from fyi_bench.store.store import Store

pytestmark = pytest.mark.long

BEAT_S, GRACE_S = 0.2, 2.0


@pytest.fixture(autouse=True)
def _toys(monkeypatch):
    toy_runs.known(monkeypatch)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL database of a server of our own."""
    if binaries() is None:
        pytest.skip(ABSENT)
    with Server() as server:
        yield server.url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path) -> str:
    return sqlite_url(tmp_path / "q.sqlite3") if request.param == "sqlite" else request.getfixturevalue("postgres")


class Crowd:
    """Worker processes of the test, ended with it."""

    def __init__(self, url: str, store: Path, path: str):
        self.url, self.store, self.path = url, store, path
        self.processes: list[Started] = []

    def start(self, count: int, beat_s: float = BEAT_S, clock: float | None = None) -> None:
        work = partial(toy_runs.worker_process, self.url, self.store, beat_s, GRACE_S, clock)
        self.processes += [Started(work, self.path.split(os.pathsep)) for _ in range(count)]

    def wait(self, seconds: float = 90) -> list[int]:
        """How many jobs each worker finished."""
        outputs = [process.communicate(timeout=seconds) for process in self.processes]
        assert [process.returncode for process in self.processes] == [0] * len(outputs), outputs
        return [int(out) for out, _ in outputs]

    def end(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
            process.communicate()


@pytest.fixture
def crowd(url, tmp_path) -> Iterator[Crowd]:
    made = Crowd(url, tmp_path / "store", toy_path(tmp_path / "toys"))
    yield made
    made.end()


def sweep_of(crowd: Crowd, jobs, name: str) -> tuple[Queue, Store]:
    sweep = Queue.open(connect(crowd.url, lambda: None, print), f"{name}-{crowd.store}", jobs)
    store = Store(crowd.store)
    sweep.enqueue(jobs, store)
    return sweep, store


def until(condition, seconds: float = 60.0) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize(("url", "count"), [("sqlite", 4), ("postgresql", 2), ("postgresql", 4)], indirect=["url"])
def test_every_job_is_computed_once(crowd, count):
    sweep, store = sweep_of(crowd, [toy(n, 0.01) for n in range(24)], f"once{count}")
    crowd.start(count)
    assert sum(crowd.wait()) == 24
    assert sorted(computed(store)) == list(range(24))
    assert sweep.counts() == Counts(complete=24)
    assert len(sweep._trials()) == 24


def test_a_killed_worker_loses_nothing(crowd):
    """SIGKILL in the middle of a job: it alone is computed a second time, by the other worker."""
    jobs = [toy(0, at_first=60.0), *(toy(n, 0.02) for n in range(1, 8))]
    sweep, store = sweep_of(crowd, jobs, "killed")
    crowd.start(1)
    until(lambda: computed(store) == [0])
    crowd.start(1)
    until(lambda: len(computed(store)) > 1)
    crowd.processes.pop(0).send_signal(signal.SIGKILL)
    assert crowd.wait() == [8]
    assert Counter(computed(store)) == {n: 2 if n == 0 else 1 for n in range(8)}
    assert sweep.counts() == Counts(complete=8)
    assert [store.has(job) for job in jobs] == [True] * 8


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_frozen_worker_is_replaced_and_may_come_back(crowd):
    """SIGSTOP is what a worker on a machine that sleeps looks like: its process exists, its sign of life stands."""
    sweep, store = sweep_of(crowd, [toy(0, at_first=4.0), toy(1)], "frozen")
    crowd.start(1, beat_s=60.0)  # or it might freeze with sqlite's lock in hand, and everybody would wait for it
    until(lambda: computed(store) == [0])
    time.sleep(0.2)  # until it sleeps too, with no lock of a file in hand
    frozen = crowd.processes[0]
    frozen.send_signal(signal.SIGSTOP)
    crowd.start(1)
    until(lambda: failures_of(sweep))
    assert "died" in failures_of(sweep)[0]
    frozen.send_signal(signal.SIGCONT)
    crowd.wait()
    assert sweep.counts() == Counts(complete=2)
    assert sorted(computed(store)) == [0, 1]  # the second one waited for the store's lock, and read


def failures_of(sweep: Queue) -> list[str]:
    return [line for trial in sweep._trials() for line in trial.user_attrs.get("failures", [])]


def test_the_workers_of_a_command_share_a_sweep_and_one_that_dies_is_replaced(tmp_path, monkeypatch):
    for place in toy_path(tmp_path / "toys").split(os.pathsep):
        monkeypatch.syspath_prepend(place)
    settings = Settings(store=tmp_path / "store", protocol="quick", device="cpu", workers=2, threads=1)
    session = Session(settings)
    jobs = [toy(n) for n in range(6)] + [toy(6, dies_at_first=True), toy(7, trouble="diverged")]
    said: list[str] = []
    session.say = said.append
    records = compute(session, "crew", Plan("", "quick", tuple(jobs), tolerant=("toy",)))
    assert sorted(set(computed(session.store))) == list(range(8))
    assert Counter(computed(session.store))[6] == 2
    assert said == ["1 run failed, ranked last:", "  the loss is no longer finite."]
    assert list(records) == [job.digest for job in jobs[:7]]
    assert all(session.store.has(job) for job in jobs[:7])
    # a command that finds everything done opens no storage at all
    session.settings = replace(session.settings, storage="postgresql://127.0.0.1:1/none")
    assert len(compute(session, "crew", Plan("", "quick", tuple(jobs[:6])))) == 6

"""A PostgreSQL server that restarts, and one that stays away, under a sweep."""

from __future__ import annotations

import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import toy_runs
from postgres import ABSENT, Server, binaries
from test_queue_processes import Crowd, failures_of, sweep_of, until
from toy_runs import computed, toy

from fyi_bench.errors import StoreError
from fyi_bench.run.drain import Drain
from fyi_bench.run.queue import Counts, Queue, connect
from fyi_bench.run.run_type import Worker
from fyi_bench.run.storage import Patient, open_storage, shown
from fyi_bench.store.store import Store

pytestmark = [pytest.mark.long, pytest.mark.skipif(binaries() is None, reason=ABSENT)]


@pytest.fixture(autouse=True)
def _toys(monkeypatch):
    toy_runs.known(monkeypatch)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_in_the_middle_costs_nothing_but_time(server, tmp_path, mode):
    crowd = Crowd(server.url, tmp_path / "store", toy_runs.toy_path(tmp_path / "toys"))
    try:
        sweep, store = sweep_of(crowd, [toy(n, 0.1) for n in range(20)], f"restart {mode}")
        crowd.start(2)
        until(lambda: len(computed(store)) >= 4)
        server.stop(mode)
        time.sleep(0.5)
        server.start()
        assert sum(crowd.wait()) == 20
        assert sorted(computed(store)) == list(range(20))
        assert sweep.counts() == Counts(complete=20)
    finally:
        crowd.end()


def test_four_workers_with_wrong_clocks_one_killed_and_the_database_restarted(server, tmp_path):
    """All at once what may happen to a sweep on several machines: only the job of the killed one is done twice."""
    crowd = Crowd(server.url, tmp_path / "store", toy_runs.toy_path(tmp_path / "toys"))
    try:
        sweep, store = sweep_of(crowd, [toy(0, at_first=90.0), *(toy(n, 0.1) for n in range(1, 25))], "all at once")
        crowd.start(1, clock=3600.0)
        until(lambda: computed(store) == [0])
        for clock in (-86400.0, 30.0, 1e6):
            crowd.start(1, clock=clock)
        until(lambda: len(computed(store)) >= 4)
        killed = crowd.processes.pop(0)
        killed.send_signal(signal.SIGKILL)
        server.stop("immediate")
        time.sleep(0.5)
        server.start()
        assert sum(crowd.wait()) == 25
        assert Counter(computed(store)) == {n: 2 if n == 0 else 1 for n in range(25)}
        assert sweep.counts() == Counts(complete=25)
        assert failures_of(sweep) == [f"its worker process {killed.pid} on {socket.gethostname()} died"]
    finally:
        crowd.end()


def test_a_worker_that_starts_while_the_server_restarts_waits(server, tmp_path):
    crowd = Crowd(server.url, tmp_path / "store", toy_runs.toy_path(tmp_path / "toys"))
    try:
        queue, store = sweep_of(crowd, [toy(1), toy(2)], "starting")
        server.stop()
        crowd.start(1)
        time.sleep(4)
        server.start()
        assert crowd.wait() == [2]
        assert sorted(computed(store)) == [1, 2]
        assert queue.counts() == Counts(complete=2)
    finally:
        crowd.end()


@pytest.mark.parametrize("user", ["nobody_such", "postgres:wrong"])
def test_a_refused_user_is_not_waited_for(server, tmp_path, user):
    with server.passwords():
        url, said = server.url.replace("postgres@", f"{user}@"), []
        with pytest.raises(StoreError, match=r"does not exist|password"):
            connect(url, lambda: None, said.append, patience_s=60)
        assert said == []


def test_a_role_without_rights_is_told_so(server):
    import sqlalchemy

    with sqlalchemy.create_engine(server.url).begin() as admin:
        admin.execute(sqlalchemy.text("CREATE ROLE reader LOGIN"))
    url, said = server.url.replace("postgres@", "reader@"), []
    with pytest.raises(StoreError, match=r"permission denied.*\nGive the role the right"):
        connect(url, lambda: None, said.append, patience_s=60)
    assert said == []


def test_who_waits_for_a_server_says_why(server):
    said = []
    server.stop()
    try:
        with pytest.raises(StoreError, match="refused"):
            connect(server.url, lambda: None, said.append, patience_s=0.1)
    finally:
        server.start()
    assert "Connection refused" in said[0]


def test_a_server_that_stays_away_ends_the_worker_with_its_result_kept(server, tmp_path, monkeypatch):
    stops = toy_runs.as_type(lambda run, worker: (server.stop(), run.finish({"value": 1.0})))
    toy_runs.known(monkeypatch, toy=stops)
    store, said = Store(tmp_path / "store"), []
    ask = Patient(open_storage(server.url), shown(server.url), say=said.append, patience_s=0.5)
    sweep = Queue.open(ask, "away", [toy(1), toy(2)])
    sweep.enqueue([toy(1), toy(2)], store)
    try:
        with pytest.raises(StoreError, match=r"does not answer.*\nIs the server up") as caught:
            Drain([sweep], Worker(store)).run()
        assert len(str(caught.value).splitlines()) == 2
        assert said[0].startswith(f"Waiting for the storage {server.url}")
        assert store.has(toy(1))
    finally:
        server.start()
    toy_runs.known(monkeypatch)
    assert Drain([sweep], Worker(store), toy_runs.Habits(grace_s=0.5)).run() == 2
    assert computed(store) == [2]
    assert sweep.counts() == Counts(complete=2)

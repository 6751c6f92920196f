"""A PostgreSQL server that restarts, and one that stays away, under a sweep."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import sweep_toys
from postgres import Server, binaries
from sweep_toys import computed, toy
from test_sweep_processes import Crowd, sweep_of, until

from fyi_bench.cells import CELLS, Worker
from fyi_bench.errors import StoreError
from fyi_bench.store import Store
from fyi_bench.sweep import Counts, Sweep
from fyi_bench.sweep_storage import Patient, open_storage, shown
from fyi_bench.sweep_worker import drain

pytestmark = [
    pytest.mark.skipif(binaries() is None, reason="no PostgreSQL server is installed here"),
    pytest.mark.xdist_group("sweep processes"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_in_the_middle_costs_nothing_but_time(server, tmp_path, mode):
    crowd = Crowd(server.url, tmp_path / "store", sweep_toys.toy_path(tmp_path / "toys"))
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


def test_a_server_that_stays_away_ends_the_worker_with_its_result_kept(server, tmp_path, monkeypatch):
    CELLS.names()
    monkeypatch.setitem(CELLS._entries, "toy", lambda cell, run, worker: (server.stop(), run.finish({"value": 1.0})))
    store, said = Store(tmp_path / "store"), []
    ask = Patient(open_storage(server.url), shown(server.url), say=said.append, patience_s=0.5)
    sweep = Sweep.open(ask, "away", {"number": [0, 1, 2]})
    sweep.enqueue([toy(1), toy(2)], store)
    try:
        with pytest.raises(StoreError, match=r"does not answer.*\nIs the server up") as caught:
            drain([sweep], Worker(store))
        assert len(str(caught.value).splitlines()) == 2
        assert said[0].startswith(f"Waiting for the storage {server.url}")
        assert store.has(toy(1).cell)
    finally:
        server.start()
    monkeypatch.setitem(CELLS._entries, "toy", sweep_toys.compute)
    assert drain([sweep], Worker(store), sweep_toys.Habits(grace_s=0.5)) == 2
    assert computed(store) == [2]
    assert sweep.counts() == Counts(complete=2)

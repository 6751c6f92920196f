"""A table of results spread over worker processes on PostgreSQL, one of them killed: the numbers of one process."""

from __future__ import annotations

import json
import re
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from plugins import distribution
from postgres import ABSENT, Server, binaries

from commands import Started, start
from fyi_bench.store.record import CIRCUMSTANCES, same_result
from fyi_bench.store.store import Store

TABLE = """
from distill.method import Method
from fyi_bench.present.tables import Column, Layout, Row


class Mean(Method):
    "Pulls synthetic images to the mean of the real ones."

    numerics = 1
    recipe = {
        "source": "this test",
        "common": {
            "model": "convnet-w8", "iterations": 40, "lr_img": 0.5, "momentum_img": 0.0, "init": "noise",
            "augment": "none", "dispatcher": "dsa",
        },
    }

    def loss(self, ctx):
        return (ctx.synthetic().mean(1) - ctx.real(16).mean(1)).square().sum()


def layout():
    columns = [Column("shapes10", ipc, "convnet-w8", "accuracy", "", f"{ipc} IPC") for ipc in (1, 2)]
    rows = Row("mean", "none", "Mean"), Row("mean", "fyi", "Mean + FYI"), Row("random", "none", "Random")
    return Layout("Small", rows, tuple(columns))
"""
RUN = ("table", "small", "--run", "--protocol", "quick", "--set", "epochs=2", "min_steps=0", "nets=3", "--quiet")


@pytest.fixture
def site(tmp_path) -> Path:
    """The folder of a plug-in that brings the table and its method."""
    points = {"fyi_bench.tables": {"small": "small_table:layout"}, "fyi_bench.methods": {"mean": "small_table:Mean"}}
    return distribution(tmp_path / "site", "small-table", points, small_table=TABLE)


def finished(process: Started) -> str:
    out, err = process.communicate()
    assert process.returncode == 0, f"{out}\n{err}"
    return out


def numbers(text: str) -> str:
    """The table alone, without the plan before it."""
    return text[re.search(r"^Table", text, re.M).start() :]


def values(store: Store) -> dict[str, str]:
    """Result of every run, without time and circumstances, as bytes of JSON."""
    records = {run.digest: store.get(run.digest) for run in store.ls()}
    return {
        digest: json.dumps({key: value for key, value in record.items() if key not in CIRCUMSTANCES}, sort_keys=True)
        for digest, record in records.items()
    }


@pytest.mark.long
@pytest.mark.skipif(binaries() is None, reason=ABSENT)
def test_a_table_over_four_workers_one_killed_is_that_of_one_process(site, tmp_path):
    begin = partial(start, plugged=[site])
    alone, shared = Store(tmp_path / "alone"), Store(tmp_path / "shared")
    with Server() as server:
        here = ("--storage", server.url, "--store", str(shared.root))
        assert "waits for workers: fyi-bench worker --storage" in finished(begin(*RUN, *here, "--enqueue"))
        expected = finished(begin(*RUN, "--store", str(alone.root), "--workers", "1"))
        workers = [begin("worker", *here, "--workers", "1", "--quiet") for _ in range(4)]
        end = time.monotonic() + 120
        while not any(run.state == "running" for run in shared.ls()):
            assert time.monotonic() < end, "no worker began"
            time.sleep(0.02)
        workers[0].send_signal(signal.SIGKILL)
        told = [finished(worker) for worker in workers[1:]]
        assert all("run(s) finished here" in text or "0 run(s) open" in text for text in told)
        text = finished(begin(*RUN, *here, "--workers", "1"))
    assert numbers(text) == numbers(expected)
    assert values(shared) == values(alone)
    assert len(values(alone)) > 20
    ours, theirs = ({run.digest: store.get(run.digest) for run in store.ls()} for store in (alone, shared))
    assert all(same_result(ours[digest], theirs[digest]) for digest in ours)

"""Runs that travel between stores that share no folder, through an Optuna artifact store."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace

import pytest
import toy_runs

from fyi_bench.config import Settings
from fyi_bench.errors import PlanShown, StoreError, UnknownNameError, UsageError
from fyi_bench.run.artefacts import Artefacts, pack, unpack
from fyi_bench.run.drain import Drain, Habits
from fyi_bench.run.executor import compute, default_url
from fyi_bench.run.plan import Plan
from fyi_bench.run.queue import Queue, connect
from fyi_bench.run.run_type import Worker
from fyi_bench.session import Session
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store
from fyi_bench.store.verify import verify

NEEDED = RunSpec("toy", {"number": 7}, {"seconds": 0.0, "at_first": 0.0})


def needing(run, worker) -> None:
    """A run whose value is made of that of a run it reads."""
    (needed,) = run.spec.inputs["needs"]
    run.finish({"value": worker.store.get(needed)["value"] + run.spec.inputs["number"]})


@pytest.fixture(autouse=True)
def _types(monkeypatch):
    toy_runs.known(monkeypatch, needing=toy_runs.as_type(needing))


@pytest.fixture
def finished(tmp_path) -> Store:
    """A store with one finished run."""
    store = Store(tmp_path / "first")
    with store.run(NEEDED) as run:
        toy_runs.Toy().compute(run, Worker(store))
    return store


def test_two_machines_without_a_common_folder_finish_a_sweep_together(tmp_path, finished):
    """The first enqueues and collects; the second, with a store of its own, computes what needs a run of the first."""
    place = str(tmp_path / "bucket")
    runs = [RunSpec("needing", {"number": n, "needs": [NEEDED.digest]}) for n in range(3)]
    plan = Plan("", "quick", tuple(runs))
    settings = Settings(store=finished.root, protocol="quick", device="cpu", workers=1, threads=1, artefacts=place)
    with pytest.raises(PlanShown):
        compute(Session(replace(settings, enqueue=True)), "sums", plan)
    assert not any(finished.has(run) for run in runs)

    second = Store(tmp_path / "second")
    url = default_url(finished)
    habits = Habits(artefacts=Artefacts.open(place))
    assert Drain(Queue.all(connect(url, lambda: None, print)), Worker(second), habits).run() == 3

    assert len(compute(Session(settings), "sums", plan)) == 3
    for run in runs:
        assert finished.record(run)["value"] == 49.0 + run.inputs["number"]
    assert verify(finished) == []
    assert (finished.root / "needing").is_dir()


def test_a_run_that_was_not_brought_is_asked_for_by_name(tmp_path, finished):
    cargo = Artefacts.open(str(tmp_path / "bucket"))
    other = Store(tmp_path / "second")
    assert not cargo.bring(other, "toy", NEEDED.digest, optional=True)
    with pytest.raises(StoreError, match=rf"bucket has no toy run {NEEDED.digest}\.\nIt is put there by"):
        cargo.bring(other, "toy", NEEDED.digest)
    for _ in range(2):
        cargo.put(finished, "toy", NEEDED.digest)
    assert cargo.bring(other, "toy", NEEDED.digest)
    assert other.get(NEEDED.digest) == finished.get(NEEDED.digest)


def test_a_packed_run_is_the_same_bytes_whoever_packs_it(tmp_path, finished):
    folder = finished.folder(NEEDED)
    packed = pack(folder)
    (tmp_path / "packed.zip").write_bytes(packed)
    unpack(tmp_path / "packed.zip", tmp_path / "copy")
    assert pack(tmp_path / "copy") == packed
    assert not (tmp_path / "copy" / "lock").exists()


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b.replace(b"done", b"../x"),
     *(lambda b, at=at: b[:at] + bytes([b[at] ^ 255]) + b[at + 1 :] for at in (45, 50, 60, 80))],
)  # fmt: skip
def test_damaged_cargo_is_refused(tmp_path, finished, damage):
    place = tmp_path / "bucket"
    cargo = Artefacts.open(str(place))
    cargo.put(finished, "toy", NEEDED.digest)
    packed = next(place.iterdir())
    packed.write_bytes(damage(packed.read_bytes()))
    other = Store(tmp_path / "second")
    with pytest.raises(StoreError, match="A run that was brought is damaged"):
        Artefacts.open(str(place)).bring(other, "toy", NEEDED.digest)
    assert not other.has(NEEDED)


def test_cargo_whose_content_was_changed_does_not_count(tmp_path, finished):
    place = tmp_path / "bucket"
    shutil.copytree(finished.folder(NEEDED), tmp_path / "forged")
    record = tmp_path / "forged" / "record.json"
    record.write_text(record.read_text().replace("49.0", "50.0"))
    Artefacts.open(str(place))
    (place / f"toy-{NEEDED.digest}.zip").write_bytes(pack(tmp_path / "forged"))
    with pytest.raises(StoreError, match="is not whole"):
        Artefacts.open(str(place)).bring(Store(tmp_path / "second"), "toy", NEEDED.digest)


def test_places_that_do_not_exist(tmp_path, monkeypatch):
    with pytest.raises(UnknownNameError, match="Unknown kind of place for artefacts 'ftp'"):
        Artefacts.open("ftp://host/x")
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(UsageError, match=r"s3://bucket/x needs the library boto3"):
        Artefacts.open("s3://bucket/x")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        Artefacts.open(str(tmp_path / "file" / "folder"))

"""Curves of runs under way: read back from the event files, W&B's folder and Optuna's studies."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy_runs
from postgres import ABSENT, Server, binaries
from test_queue_processes import until
from toy_runs import toy

import fyi_bench
from distill.image_set import ImageSet
from fyi_bench.config import Settings
from fyi_bench.errors import UnknownNameError, UsageError
from fyi_bench.run import drain, logs
from fyi_bench.run.drain import Drain, Habits
from fyi_bench.run.queue import Queue, connect
from fyi_bench.run.run_type import Follower, Worker
from fyi_bench.run.storage import sqlite_url
from fyi_bench.run.studies import MARK, side_of
from fyi_bench.session import Session
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store

STEPS, VALUE = 40, 0.25


def steps(run, worker):
    """A run of forty steps whose loss is 1, 1/2, 1/3 …; one of them is not finite."""
    for done in range(1, STEPS + 1):
        worker.progress(run.spec.digest, done, STEPS, math.nan if done == 7 else 1 / done)
    run.finish({"value": VALUE})


@pytest.fixture(autouse=True)
def _toys(monkeypatch):
    toy_runs.known(monkeypatch, toy=toy_runs.as_type(steps))


def drained(url: str, store: Store, runs: list[RunSpec], **habits: object) -> tuple[Queue, list[str]]:
    """The queue of these runs when they are done, and what the worker said."""
    said: list[str] = []
    queue = Queue.open(connect(url, lambda: None, said.append), "toys", runs)
    queue.enqueue(runs, store)
    assert Drain([queue], Worker(store, say=said.append), Habits(**habits)).run() == len(runs)
    return queue, said


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def url(tmp_path) -> str:
    return sqlite_url(tmp_path / "queue.sqlite3")


def events(folder: Path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def curve(found, name: str) -> dict[int, float]:
    return {event.step: pytest.approx(event.value, rel=1e-6) for event in found.Scalars(name)}


# tensorboard -------------------------------------------------------------------------------------------------------


def test_event_files_hold_loss_speed_and_accuracy(url, store):
    run = toy(1)
    _, said = drained(url, store, [run], log="tensorboard")
    (folder,) = (store.root / "tensorboard" / "toys-toy").iterdir()
    assert folder.name == f"toy-1-{run.digest[:8]}"
    found = events(folder)
    assert curve(found, "loss") == {done: 1 / done for done in range(1, STEPS + 1) if done != 7}
    assert curve(found, "accuracy") == {STEPS: VALUE}
    (speed,) = found.Scalars("speed")
    assert speed.step == STEPS
    assert speed.value > 0
    assert said == []


def test_a_long_run_is_thinned_and_one_that_goes_on_continues_its_curve(store, tmp_path):
    log, total = logs.RunLog(f"tensorboard:{tmp_path / 'tb'}", store.root, "toys", toy(1), print), 5 * logs.POINTS
    with log:
        for done in range(total // 2 + 1, total + 1):
            log.progress(done, total, 0.5)
    (folder,) = (tmp_path / "tb" / "toys").iterdir()
    told = list(curve(events(folder), "loss"))
    assert told[0] > total // 2
    assert told[-1] == total
    assert len(told) == logs.POINTS // 2 + 1


def test_a_protocol_that_tests_several_times_has_all_its_accuracies(store, tmp_path):
    with logs.RunLog(f"tensorboard:{tmp_path / 'tb'}", store.root, "toys", toy(1), print) as log:
        log.progress(30, 30, 0.5)
        log.ended({"value": 0.9, "tests": [0.7, 0.9, 0.8]})
    (folder,) = (tmp_path / "tb" / "toys").iterdir()
    assert curve(events(folder), "accuracy") == {10: 0.7, 20: 0.9, 30: 0.8}


def test_a_log_that_cannot_be_written_says_so_once_and_the_run_goes_on(url, store, tmp_path):
    (tmp_path / "file").write_text("")
    _, said = drained(url, store, [toy(1)], log=f"tensorboard:{tmp_path / 'file'}")
    (line,) = said
    assert line.startswith("The log 'tensorboard' stops: ")
    assert line.endswith("The run goes on.")
    assert store.has(toy(1))


@pytest.mark.long
def test_worker_processes_log_real_runs_and_no_digest_knows_of_it(tmp_path):
    """Losses and accuracies are those of the sets and the record; pictures come on the way."""
    tiny = {"model": "convnet-w8", "iterations": "12", "batch_real": "8", "epochs": "1", "min_steps": "0", "nets": "1",
            "eval_model": "convnet-w8"}  # fmt: skip
    asked = {"ipc": 1, "only": True, "seeds": 2, "dataset": "shapes10", "overrides": tiny, "threads": 1}
    logged = fyi_bench.distill("dm", **asked, store=tmp_path / "a", workers=2, log=f"tensorboard:{tmp_path / 'tb'}")
    plain = fyi_bench.distill("dm", **asked, store=tmp_path / "b", workers=1)
    assert (logged["digest"], logged["runs"]) == (plain["digest"], plain["runs"])
    assert logged["arms"][0]["set_digest"] == plain["arms"][0]["set_digest"]
    (sets,) = (tmp_path / "tb").glob("distill-*-distill-dm")
    for folder in sets.iterdir():
        (path,) = (tmp_path / "a" / "distill").glob(f"{folder.name[-8:]}*/set.safetensors")
        told = events(folder)
        losses = ImageSet.load(path).provenance["loss_curve"]
        assert curve(told, "loss") == dict(enumerate(losses, 1))
        assert [event.step for event in told.Images("set")] == [2, 4, 6, 8, 10, 12]
        assert told.Images("set")[0].encoded_image_string.startswith(b"\x89PNG")
    assert len(list(sets.iterdir())) == 2
    (networks,) = (tmp_path / "tb").glob("distill-*-accuracy-dm")
    values = [value for folder in networks.iterdir() for value in curve(events(folder), "accuracy").values()]
    assert sorted(v.expected for v in values) == pytest.approx(sorted(logged["arms"][0]["architectures"][0]["values"]))


def test_without_a_log_no_set_is_looked_at_on_its_way(store):
    worker = Worker(store)
    assert worker.watch("0123", 10) is None
    worker.followers["0123"] = [Follower()]
    assert worker.watch("0123", 10) is None


# wandb -------------------------------------------------------------------------------------------------------------


def history(path: Path) -> list[dict[str, float]]:
    """The rows in a W&B run's own file: blocks of 32 KiB with parts of records, as LevelDB's logs have them."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole, rows = path.read_bytes(), 7, b"", []
    assert data.startswith(b":W&B")
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record, whole = Record.FromString(whole), b""
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
    return rows


@pytest.mark.long
@pytest.mark.parametrize("mode", ["offline", ""], ids=["asked for", "nobody logged in"])
def test_wandb_writes_offline_and_asks_for_no_login(mode, url, store, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / ".netrc"))
    if mode:
        monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question"))
    run = toy(1)
    _, said = drained(url, store, [run], log="wandb:tried")
    assert said == []
    (folder,) = (store.root / "wandb").glob(f"offline-run-*-{run.digest}")
    file = folder / f"run-{run.digest}.wandb"
    until(lambda: any("accuracy" in row for row in history(file)))  # a process of W&B's own writes it
    rows = history(file)
    losses = {row["_step"]: row["loss"] for row in rows if "loss" in row}
    assert losses == {done: 1 / done for done in range(1, STEPS + 1) if done != 7}
    assert [row["accuracy"] for row in rows if "accuracy" in row] == [VALUE]


# what is refused ---------------------------------------------------------------------------------------------------


def test_a_missing_package_is_two_lines_before_anything_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as error:
        Session(Settings(store=tmp_path, log="wandb"))
    assert str(error.value).splitlines() == [
        "--log wandb needs the package 'wandb'.", "Install it (pip install 'fyi-bench[logs]').",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_log_gets_a_suggestion_and_enqueue_takes_none():
    with pytest.raises(UnknownNameError, match="Did you mean 'tensorboard'"):
        Session(Settings(log="tensorbord:here"))
    with pytest.raises(UsageError, match="fyi-bench worker"):
        Settings(log="wandb", enqueue=True)


# Optuna's studies --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if binaries() is None:
        pytest.skip(ABSENT)
    with Server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, url) -> str:
    return url if request.param == "sqlite" else request.getfixturevalue("server").url


@pytest.mark.long
def test_trials_have_the_curves_of_their_runs(database, store, monkeypatch):
    import optuna

    monkeypatch.setattr(drain, "_POINT_S", 0.0)
    queue, _ = drained(database, store, [toy(1), toy(2)], beat_s=0.01)
    for study in optuna.get_all_study_summaries(queue._ask.storage):
        assert study.study_name == "toys toy"
    trials = optuna.load_study(study_name="toys toy", storage=queue._ask.storage).trials
    assert [trial.value for trial in trials] == [VALUE, VALUE]
    for trial in trials:
        assert trial.intermediate_values == {done: 1 / done for done in range(1, STEPS + 1) if done != 7}


def test_a_curve_is_thinned_in_time_and_in_steps(store, monkeypatch):
    now = {"s": 0.0}
    monkeypatch.setattr(drain.time, "monotonic", lambda: now["s"])
    for pause, wanted in ((0.25, [1, 5, 9, 10]), (2.0, list(range(1, 11)))):
        heart = drain.Heart(None, 10.0)
        for done in range(1, 11):
            heart.progress(done, 10, 1.0)
            now["s"] += pause
        assert [step for step, _ in heart._curve] == wanted
    heart = drain.Heart(None, 10.0)
    for done in range(1, 1001):
        heart.progress(done, 1000, 1.0)
        now["s"] += 2
    assert [step for step, _ in heart._curve] == list(range(10, 1001, 10))


DISTILLED = RunSpec("distill", {"method": "dm", "flip": "fyi", "config": {"iterations": 9}})
TRAINED = {"protocol": {"eval_model": "convnet-w64-d3-instance-relu-avg"}, "seed": 0}
SIDES = {
    "distill dm+fyi": DISTILLED,
    "distill random": RunSpec("distill", {"method": "random", "flip": "none", "config": {"iterations": 0}}),
    "train real": RunSpec("train", {**TRAINED, "set": {"kind": "real"}}),
    "train dm+fyi": RunSpec("train", {**TRAINED, "set": {"kind": "distill", "cell": DISTILLED.digest}}),
    "accuracy dm+fyi": RunSpec("accuracy", {"set": {"cell": DISTILLED.digest}}),
    "accuracy theirs": RunSpec("accuracy", {"set": {"digest": "0123"}}, {"file": "/somewhere/theirs.pt"}),
    "accuracy real": RunSpec("accuracy", {"set": {"kind": "full", "data": "0123"}}),
    "unequalness dm+fyi": RunSpec("unequalness", {"set": {"cell": DISTILLED.digest}}),
    "expert": RunSpec("expert", {"seed": 1}),
}


def test_every_side_has_a_study_that_names_what_it_measures(url, store):
    """Runs are taken in the order of the plan all the same."""
    import optuna

    known = {spec.digest: spec for spec in SIDES.values()}
    for title, spec in SIDES.items():
        assert f"{spec.kind} {side_of(spec, known)}".rstrip() == title
    queue = Queue.open(connect(url, lambda: None, print), "nas-0123", list(SIDES.values()))
    queue.enqueue([*SIDES.values()], store)
    found = {one.study_name: one for one in optuna.study.get_all_study_summaries(queue._ask.storage)}
    assert set(found) == {f"nas-0123 {title}" for title in SIDES}
    for name in found:
        study = optuna.load_study(study_name=name, storage=queue._ask.storage)
        _, kind, *side = name.split()
        metric = {"expert": "loss", "distill": "loss", "unequalness": "unequalness"}.get(kind, "accuracy")
        assert study.metric_names == ["seconds" if side == ["random"] else metric]
        assert (study.direction.name == "MINIMIZE") == (metric != "accuracy")
    (again,) = Queue.all(connect(url, lambda: None, print), "nas-0123 train real")
    first = [trial.user_attrs["digest"] for trial in again._trials()]
    assert first == [spec.digest for spec in SIDES.values()]
    assert again.claim().spec == DISTILLED
    assert again.claim().spec == SIDES["distill random"]
    assert again.claim().spec == SIDES["train real"]
    assert again.claim().spec == SIDES["accuracy theirs"]  # those before it wait for the set


def test_a_worker_sees_studies_that_are_made_while_it_works(url, store):
    ask = connect(url, lambda: None, print)
    runs = [RunSpec("toy", {"number": n, **method}, {"seconds": 0, "at_first": 0})
            for n, method in ((1, {}), (2, {"method": "dm"}))]  # fmt: skip
    early = Queue.open(ask, "toys", runs[:1])
    Queue.open(ask, "toys", runs).enqueue(runs, store)
    assert Drain([early], Worker(store)).run() == 2


def test_a_queue_of_the_version_before_is_gone_on_with(url, store):
    from optuna.study import StudyDirection

    ask = connect(url, lambda: None, print)
    made = ask("create_new_study", [StudyDirection.MAXIMIZE], "toys")
    ask("set_study_user_attr", made, MARK, {"format": 2, "choices": {"number": [0, 1, 2]}})
    queue = Queue.open(ask, "toys", [toy(1)])
    queue.enqueue([toy(1)], store)
    assert [one.name for one in Queue.all(ask)] == ["toys"]
    assert Drain(Queue.all(ask), Worker(store)).run() == 1

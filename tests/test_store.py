"""The store in one process: keys, states, records, waiting, refusals. Kills are in test_crash.py."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fyi_bench.errors import BudgetExhausted, DivergenceError, Interrupted, StoreError, UsageError
from fyi_bench.files import write_bytes
from fyi_bench.run.deadline import Deadline
from fyi_bench.store import lock as lock_module
from fyi_bench.store.lock import FolderLock
from fyi_bench.store.run_dir import CONFIG, DONE, RECORD
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store
from fyi_bench.store.verify import verify

INPUTS = {"method": "dm", "config": {"lr_img": 1.0, "iterations": 20}, "seed": 0, "numerics": {"engine": 1}}
CELL = RunSpec("distill", INPUTS, {"device": "cpu"})


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path, said) -> Store:
    return Store(tmp_path / "store", said.append)


def finish(store: Store, cell: RunSpec = CELL, **record) -> dict:
    with store.run(cell) as run:
        return run.finish(record or {"value": 0.5})


# keys --------------------------------------------------------------------------------------------------------------


def test_every_input_changes_the_digest_and_notes_and_order_do_not():
    changes = [
        {"method": "dc"},
        {"config": {"lr_img": 1.5, "iterations": 20}},
        {"config": {"lr_img": 1.0, "iterations": 21}},
        {"config": {"lr_img": 1.0, "iterations": 20, "extra": None}},
        {"seed": 1},
        {"numerics": {"engine": 2}},
    ]
    digests = {RunSpec("distill", INPUTS | change).digest for change in changes} | {RunSpec("evaluate", INPUTS).digest}
    assert len(digests | {CELL.digest}) == len(changes) + 2
    shuffled = RunSpec("distill", dict(reversed(INPUTS.items())), {"device": "cuda", "path": "/elsewhere"})
    assert shuffled.digest == CELL.digest
    assert shuffled == CELL
    assert len({shuffled, CELL}) == 1


def test_a_cell_is_cut_off_from_the_dictionaries_it_was_made_of():
    inputs = {"config": {"lr": 1.0}, "classes": (0, 1)}
    cell = RunSpec("distill", inputs)
    before = cell.digest
    inputs["config"]["lr"] = 2.0
    assert cell.digest == before
    assert cell.inputs == {"config": {"lr": 1.0}, "classes": [0, 1]}


@pytest.mark.parametrize(
    ("inputs", "error", "text"),
    [
        ({"lr": float("nan")}, UsageError, "lr is nan"),
        ({"a": [1, {"b": float("inf")}]}, UsageError, r"a\[1\]\.b is inf"),
        ({"a": {"t": torch.ones(1)}}, TypeError, r"inputs\.a\.t is a Tensor"),
        ({"a": {1: 2}}, TypeError, "inputs.a has the key 1"),
    ],
)
def test_inputs_that_make_no_key_are_named(inputs, error, text):
    with pytest.raises(error, match=text):
        RunSpec("distill", inputs)


@pytest.mark.parametrize("kind", ["", "Distill", "a/b", "..", "a b"])
def test_kinds_are_plain_names(kind):
    with pytest.raises(ValueError, match="type of a run"):
        RunSpec(kind, {})


def test_root_is_the_argument_else_the_environment_else_runs(monkeypatch, tmp_path):
    monkeypatch.delenv("FYI_BENCH_STORE", raising=False)
    assert Store().root == Path("runs")
    monkeypatch.setenv("FYI_BENCH_STORE", str(tmp_path))
    assert Store().root == tmp_path
    assert Store("other").root == Path("other")


def test_importing_the_store_imports_no_torch():
    imports = "from fyi_bench import files; from fyi_bench.run import deadline, progress, executor"
    imports += "; from fyi_bench.store import store, merge, record, checkpoint"
    code = f"import sys; {imports}; record.environment(); sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60).returncode == 0


# states and records ------------------------------------------------------------------------------------------------


def test_states_of_a_run_as_listed(store):
    assert store.ls() == []
    assert store.get(CELL.digest) is None
    with store.run(CELL) as run:
        assert not run.done
        assert not store.has(CELL)
        assert run.record is None
        [info] = store.ls()
        assert (info.state, info.kind, info.digest, info.step) == ("running", "distill", CELL.digest, None)
        assert f"process {os.getpid()} on" in info.detail
        run.save(7, {"x": torch.zeros(2)}, {})
    [info] = store.ls()
    assert (info.state, info.step, info.inputs) == ("partial", 7, INPUTS)
    with pytest.raises(DivergenceError), store.run(CELL):
        raise DivergenceError("dm diverged at iteration 9.\nLower lr_img.", step=9)
    [info] = store.ls()
    assert (info.state, info.detail) == ("diverged", "dm diverged at iteration 9.")
    with store.run(CELL) as run:
        assert run.diverged["step"] == 9
        run.finish({"value": 1.0})
        assert run.done
        assert store.has(CELL)
        assert run.diverged is None
    [info] = store.ls()
    assert (info.state, info.step) == ("done", None)
    (info.folder / CONFIG).write_text("{")
    assert store.ls()[0].state == "damaged"


def test_a_record_holds_everything_and_reads_back_equal(store):
    with store.run(CELL) as run:
        write_bytes(run.path("sub folder/a.bin"), b"abc")
        returned = run.finish({"value": [0.25, float("nan"), float("-inf")], "set": "a.bin"})
        assert run.record == returned or returned["value"][1] != returned["value"][1]
    record = store.get(CELL.digest)
    assert record["value"][0] == 0.25
    assert record["value"][1] != record["value"][1]
    assert record["value"][2] == float("-inf")
    assert record["config"] == INPUTS
    assert record["notes"] == [{"device": "cpu"}]
    assert (record["kind"], record["digest"], record["schema"]) == ("distill", CELL.digest, 1)
    assert record["wall_s"] >= 0
    assert record["peak_memory_mib"] > 1
    assert {"versions", "threads", "source_digest", "device_name"} <= record["environment"].keys()
    [(name, facts)] = record["artefacts"].items()
    assert (name, facts["bytes"], len(facts["sha256"])) == ("sub folder/a.bin", 3, 64)
    text = (store.folder(CELL) / RECORD).read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_a_finished_run_never_changes(store):
    first = finish(store, value=1)
    with store.run(CELL) as run:
        assert run.record == first
        for change in (
            lambda: run.finish({"value": 2}),
            lambda: run.save(1, {}, {}),
            lambda: run.mark_diverged({}),
        ):
            with pytest.raises(StoreError, match="a finished run never changes"):
                change()
    with store.run(RunSpec("toy", {})) as run:
        run.finish({"value": 1})
        with pytest.raises(StoreError, match="a finished run never changes"):
            run.finish({"value": 1})
    assert store.get(CELL.digest) == first


def test_a_closed_run_cannot_be_written(store):
    with store.run(CELL) as run:
        assert run.folder.is_dir()
    with pytest.raises(StoreError, match="is not open"):
        run.finish({"value": 1})


def test_a_value_no_record_can_hold_is_named_and_nothing_is_written(store):
    with store.run(CELL) as run:
        with pytest.raises(TypeError, match=r"record\.arms\[0\]\.odd is a object"):
            run.finish({"arms": [{"odd": object()}]})
        with pytest.raises(ValueError, match="belongs to 0123"):
            run.finish({"digest": "0123"})
        assert not (run.folder / RECORD).exists()
        run.finish({"t": torch.tensor([1.5, 2.0]), "i": torch.tensor(3)})
        assert (run.record["t"], run.record["i"]) == ([1.5, 2.0], 3)


def test_a_finished_run_is_read_without_lock_and_permission(store, monkeypatch):
    finish(store, value=3)
    monkeypatch.setattr(FolderLock, "acquire", lambda *a, **k: pytest.fail("a finished run needs no lock"))
    before = {path: path.stat().st_mtime_ns for path in store.folder(CELL).iterdir()}
    with store.run(CELL) as run:
        assert run.record["value"] == 3
    assert {path: path.stat().st_mtime_ns for path in store.folder(CELL).iterdir()} == before


@pytest.mark.parametrize("change", [lambda text: text.replace("0.5", "0.6"), lambda text: text[:-20], lambda text: ""])
def test_a_changed_record_is_refused_and_the_file_named(store, change):
    finish(store)
    path = store.folder(CELL) / RECORD
    path.write_text(change(path.read_text()))
    with pytest.raises(StoreError, match=str(path)) as caught:
        store.get(CELL.digest)
    assert "emove" in str(caught.value).splitlines()[1]


def test_an_artefact_is_given_of_finished_runs_only(store):
    with store.run(CELL) as run:
        write_bytes(run.path("set.safetensors"), b"x")
        with pytest.raises(StoreError, match="not finished"):
            store.artefact("distill", CELL.digest, "set.safetensors")
        run.finish({})
    assert store.artefact("distill", CELL.digest, "set.safetensors").read_bytes() == b"x"
    with pytest.raises(StoreError, match=r"other\.png is missing"):
        store.artefact("distill", CELL.digest, "other.png")


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "", "record.json", "done", "ckpt-3.safetensors", "a.tmp"])
def test_artefacts_stay_inside_and_leave_the_stores_names_alone(store, name):
    with store.run(CELL) as run, pytest.raises(ValueError, match="artefact"):
        run.path(name)


# waiting -----------------------------------------------------------------------------------------------------------


def test_a_second_thread_waits_and_reads_what_the_first_wrote(store):
    waits, values, opened, go_on = [], [], threading.Event(), threading.Event()

    def first() -> None:
        with store.run(CELL) as run:
            opened.set()
            go_on.wait(10)
            run.finish({"value": 1})

    def tell(line: str) -> None:
        waits.append(line)
        go_on.set()

    worker = threading.Thread(target=first)
    worker.start()
    opened.wait(10)
    with store.run(CELL, on_wait=tell) as run:
        values.append(run.record["value"])
    worker.join()
    assert values == [1]
    assert len(waits) == 1


def test_waiting_ends_with_the_budget_or_an_interrupt(store, monkeypatch):
    stop = Deadline()
    used_up = Deadline(1e-9)
    with store.run(CELL):
        ended = []

        def wait(budget, kind) -> None:
            with pytest.raises(kind), store.run(CELL, budget, on_wait=lambda line: stop.interrupt("Ctrl-C")):
                pytest.fail("opened")
            ended.append(kind)

        for case in ((stop, Interrupted), (used_up, BudgetExhausted)):
            thread = threading.Thread(target=wait, args=case)
            thread.start()
            thread.join(20)
    assert ended == [Interrupted, BudgetExhausted]


def test_opening_the_same_cell_inside_itself_is_an_error_not_a_deadlock(store):
    with store.run(CELL), pytest.raises(StoreError, match="already open"), store.run(CELL):
        pytest.fail("opened")
    with store.run(CELL) as run:
        assert not run.done


def test_a_folder_removed_while_waiting_is_made_again(store):
    lock = FolderLock(store.folder(CELL))
    lock.path.parent.mkdir(parents=True)
    holder = threading.Thread(target=lambda: (lock.acquire(), ready.set(), leave.wait(10), lock.release()))
    ready, leave = threading.Event(), threading.Event()
    holder.start()
    ready.wait(10)

    def remove(_: str) -> None:
        lock.path.unlink()
        lock.path.parent.rmdir()
        leave.set()

    with store.run(CELL, on_wait=remove) as run:
        assert FolderLock(run.folder).held_by_someone()
        assert run.finish({"value": 1})["value"] == 1
    holder.join()


def test_a_lock_file_replaced_while_it_was_being_locked_is_locked_anew(store, monkeypatch):
    folder, whole = store.folder(CELL), lock_module._flock

    def and_remove(path, descriptor, kind):
        monkeypatch.setattr(lock_module, "_flock", whole)
        path.unlink()
        return whole(path, descriptor, kind)

    monkeypatch.setattr(lock_module, "_flock", and_remove)
    with store.run(CELL):
        assert FolderLock(folder).held_by_someone()


# places that cannot be written -------------------------------------------------------------------------------------


def test_places_that_cannot_be_written_are_named_with_the_way_out(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        with pytest.raises(StoreError, match=f"Could not .*{root}") as caught, Store(root).run(CELL):
            pytest.fail("opened")
        assert "--store" in str(caught.value).splitlines()[1]


def test_paths_with_spaces_other_letters_and_great_length(tmp_path):
    for name in ("with space", "données-合成", "n" * 255):
        store = Store(tmp_path / name)
        finish(store, value=1)
        assert store.get(CELL.digest)["value"] == 1
        assert verify(store) == []


def test_nothing_depends_on_the_wall_clock(store, monkeypatch):
    def refused(*_):
        raise AssertionError("the wall clock was read")

    for name in ("time", "time_ns", "localtime", "gmtime", "strftime", "ctime"):
        monkeypatch.setattr(time, name, refused)
    with store.run(CELL, Deadline(60)) as run:
        run.save(1, {"x": torch.zeros(1)}, {})
        run.finish({"value": 1})
    assert store.get(CELL.digest)["value"] == 1
    assert store.ls()[0].state == "done"


def test_foreign_folders_in_the_root_are_left_alone(store):
    finish(store)
    (store.root / "sweep.db").write_text("")
    (store.root / "distill" / "notes.txt").write_text("")
    (store.root / "My Figures").mkdir()
    assert [info.digest for info in store.ls()] == [CELL.digest]
    assert (store.folder(CELL) / DONE).exists()


@pytest.mark.parametrize(("locked", "state"), [(".", "damaged"), ("record.json", "done")])
def test_a_run_that_may_not_be_read_is_listed_beside_the_others(locked, state):
    with tempfile.TemporaryDirectory() as place:  # a folder of pytest's is closed to other users
        os.chmod(place, 0o755)
        listed_beside_the_others(Store(place), locked, state)


def listed_beside_the_others(store: Store, locked: str, state: str) -> None:
    for seed in (1, 2):
        finish(store, RunSpec("distill", {"seed": seed}))
    hidden = store.folder(RunSpec("distill", {"seed": 1})) / locked
    mode = hidden.stat().st_mode
    try:
        hidden.chmod(0)
        with as_a_user():
            (fault,) = verify(store)
            states = [info.state for info in store.ls()]
    finally:
        hidden.chmod(mode)
    assert "Permission denied" in fault.what
    assert sorted(states) == sorted([state, "done"])
    assert verify(store) == []


@contextlib.contextmanager
def as_a_user() -> Iterator[None]:
    """Without the rights of root, which may read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)

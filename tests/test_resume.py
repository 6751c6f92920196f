"""Going on with an unfinished run: checkpoints, damage, changed circumstances, edited configs."""

from __future__ import annotations

import json
import time

import pytest
import torch

from benchmarks.jsonl import append_line
from distill.tensor_file import save_tensors
from fyi_bench.errors import StoreError
from fyi_bench.files import write_bytes
from fyi_bench.store.run_dir import CONFIG, differing_keys
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store

INPUTS = {"method": "dm", "config": {"lr_img": 1.0, "iterations": 20}, "seed": 0, "numerics": {"engine": 1}}
CELL = RunSpec("distill", INPUTS, {"device": "cpu"})


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path, said) -> Store:
    return Store(tmp_path / "store", said.append)


def test_two_checkpoints_are_kept_and_the_newest_is_loaded(store):
    with store.run(CELL) as run:
        assert run.load() is None
        for step in (2, 9, 10):
            run.save_checkpoint(step, {"x": torch.full((3,), float(step))}, {"loss": float("nan"), "step": step})
        assert sorted(path.name for path in run.folder.glob("ckpt-*")) == ["ckpt-10.safetensors", "ckpt-9.safetensors"]
    with store.run(CELL) as run:
        step, tensors, meta = run.load_checkpoint()
        assert (step, tensors["x"].tolist(), meta) == (10, [10.0] * 3, {"loss": "nan", "step": 10})
        run.finish({})
        assert not list(run.folder.glob("ckpt-*"))


@pytest.mark.parametrize(
    "meta",
    [{}, [], {"user": {}}, {"user": [], "wall_s": 1.0},
     *({"user": {}, "wall_s": value} for value in ("soon", "nan", None, -1, 10**400))],
)  # fmt: skip
def test_a_checkpoint_whose_facts_make_no_sense_is_passed_over_though_its_seals_are_right(store, said, meta):
    with store.run(CELL) as run:
        run.save(1, {"x": torch.arange(4.0)}, {"a": 1})
        save_tensors(run.folder / "ckpt-2.safetensors", {}, {"cell": CELL.digest, "step": 2, "meta": meta})
        assert run.load()[0] == 1
    assert "ckpt-2.safetensors is damaged" in said[0]


def test_a_damaged_checkpoint_is_passed_over_whatever_byte_is_wrong(store, said):
    with store.run(CELL) as run:
        run.save(1, {"x": torch.arange(4.0)}, {"a": 1})
        run.save(2, {"x": torch.arange(4.0) + 1}, {"a": 2})
        path = run.folder / "ckpt-2.safetensors"
        whole = path.read_bytes()
        older, newer = (1, [0, 1, 2, 3], {"a": 1}), (2, [1, 2, 3, 4], {"a": 2})
        loaded = []
        for position in range(len(whole)):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            step, tensors, meta = run.load()
            loaded.append((step, tensors["x"].tolist(), meta))
        assert all(one in (older, newer) for one in loaded)  # some bytes of a header carry nothing
        assert loaded[-16:] == [older] * 16  # those of the data all do
        assert loaded.count(newer) < 0.15 * len(whole)
        said.clear()
        path.write_bytes(whole[:-1])
        step, tensors, meta = run.load()
        assert (step, tensors["x"].tolist(), meta) == (1, [0, 1, 2, 3], {"a": 1})
        assert len(said) == 1
        assert "ckpt-2.safetensors" in said[0]
        assert "going on from the one at step 1" in said[0]
        run.save(3, {"x": torch.zeros(1)}, {})
        assert sorted(path.name for path in run.folder.glob("ckpt-*")) == ["ckpt-1.safetensors", "ckpt-3.safetensors"]
        assert run.load()[0] == 3


def test_with_every_checkpoint_damaged_the_run_starts_again(store, said):
    with store.run(CELL) as run:
        run.save(1, {"x": torch.zeros(1)}, {})
        (run.folder / "ckpt-1.safetensors").write_bytes(b"")
        assert run.load() is None
        assert "starting from the beginning" in said[0]
        run.save(0, {"x": torch.zeros(1)}, {})
        assert run.load()[0] == 0


def test_a_checkpoint_of_another_cell_is_not_gone_on_from(store, said):
    other = RunSpec("distill", INPUTS | {"seed": 1})
    with store.run(other) as theirs, store.run(CELL) as run:
        theirs.save(5, {"x": torch.zeros(1)}, {})
        run.save(1, {"x": torch.zeros(1)}, {})
        (theirs.folder / "ckpt-5.safetensors").rename(run.folder / "ckpt-5.safetensors")
        assert run.load()[0] == 1
    assert "another run" in said[0]


def test_leftovers_of_a_kill_are_swept(store):
    with store.run(CELL) as run:
        write_bytes(run.path("sub/a.bin"), b"a")
    leftovers = [run.folder / ".ckpt-1.safetensors.x1.tmp", run.folder / "sub" / ".a.bin.x2.tmp"]
    for path in leftovers:
        path.write_bytes(b"half")
    with store.run(CELL) as run:
        assert not any(path.exists() for path in leftovers)
        assert (run.folder / "sub" / "a.bin").exists()


def test_work_of_earlier_calls_counts_as_wall_time(store, monkeypatch):
    clock = {"now": 100.0}
    monkeypatch.setattr(time, "monotonic", lambda: clock["now"])
    with store.run(CELL) as run:
        clock["now"] += 40
        run.save(1, {"x": torch.zeros(1)}, {})
        clock["now"] += 5  # lost with the kill
    clock["now"] += 1000
    with store.run(CELL) as run:
        run.load()
        clock["now"] += 2
        assert run.finish({})["wall_s"] == 42


def test_other_circumstances_are_told_and_recorded(store, said):
    with store.run(CELL) as run:
        append_line(run.path("rows.jsonl"), {"a": 1})
    elsewhere = RunSpec("distill", INPUTS, {"device": "cuda"})
    with store.run(elsewhere) as run:
        assert run.finish({})["notes"] == [{"device": "cpu"}, {"device": "cuda"}]
    assert len(said) == 1
    assert 'device: "cpu" -> "cuda"' in said[0]


def test_a_finished_run_of_another_config_is_no_answer(store):
    with store.run(CELL) as run:
        run.finish({"value": 1})
    path = store.folder(CELL) / CONFIG
    path.write_text(path.read_text().replace('"lr_img": 1.0', '"lr_img": 3.0'))
    with pytest.raises(StoreError, match=r"config\.lr_img: 3\.0 -> 1\.0"):
        store.record(CELL)


def test_a_folder_of_another_config_is_refused_with_the_keys(store):
    with store.run(CELL):
        pass
    path = store.folder(CELL) / CONFIG
    config = json.loads(path.read_text())
    config["inputs"]["config"]["lr_img"] = 3.0
    path.write_text(json.dumps(config))
    with pytest.raises(StoreError, match=r"config\.lr_img: 3\.0 -> 1\.0") as caught, store.run(CELL):
        pytest.fail("opened")
    assert "seed" not in str(caught.value)
    path.write_text("{half")
    with pytest.raises(StoreError, match=r"config\.json cannot be read"), store.run(CELL):
        pytest.fail("opened")


def test_differing_keys_are_found_in_depth():
    assert differing_keys({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 1, "c": 3}, "d": [1]}) == ["a.c: 3 -> 2"]
    assert differing_keys({"a": 1}, {"a": 1, "b": "x"}) == ['b: "x" -> null']
    assert differing_keys(INPUTS, INPUTS) == []

"""Records: complete, legal JSON, comparable, and old ones readable."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fyi_bench
from fyi_bench.errors import StoreError
from fyi_bench.files import SOURCES, write_json
from fyi_bench.registry import PACKAGES
from fyi_bench.store import record as module
from fyi_bench.store.merge import merge
from fyi_bench.store.record import (
    COMMON_KEYS,
    SCHEMA,
    build_record,
    environment,
    peak_cuda_memory_mib,
    peak_memory_mib,
    plain,
    read_record,
    restore_numbers,
    same_result,
    source_digest,
)
from fyi_bench.store.store import Store
from fyi_bench.store.verify import verify

ASSETS = Path(__file__).parent / "assets"
ROOT = Path(__file__).resolve().parents[1]
FACTS = {
    "dataset": "cifar10",
    "protocol": {"name": "quick", "version": 1},
    "device": "cpu",
    "precision": "fp32",
    "seeds": range(2),
    "wall_s": 1.23456,
    "digest": "0" * 16,
}
ARM = {"method": "dm", "flip": "fyi", "ipc": 10}
SUMMARY = {"values": [0.5, 0.75], "mean": 0.625, "std": 0.125}
INTERVAL = {"value": 0.5, "low": 0.25, "high": 0.75}
NAS = ("spearman_all", "spearman_top50", "kendall_all", "kendall_top50", "top10_recall", "regret")
TASKS = {
    "distill": (
        {"set": "a", "set_digest": "b", "iterations": 1, "loss_first": 1.0, "loss_last": math.nan, "unequalness": 0.1},
        {},
    ),
    "continual": ({"accuracy": [{"classes_seen": 2, **SUMMARY}]}, {"steps": 5, "class_orders": [[0, 1]]}),
    "accuracy": ({"architectures": [{"name": "convnet3", **SUMMARY}]}, {}),
    "cross-arch": ({"architectures": [{"name": "vgg11", **SUMMARY}]}, {}),
    "nas": (
        {"space": 720, "evaluated": 720, "failed": 0, **dict.fromkeys(NAS, INTERVAL)},
        {"ceiling": INTERVAL, "reference": {}},
    ),
    "unequalness": ({"value": 0.1}, {}),
}


def build(task: str, **changes) -> dict:
    arm, top = TASKS[task]
    return build_record(task, **{**FACTS, "arms": [{**ARM, **arm}], **top, **changes})


@pytest.mark.parametrize("task", TASKS)
def test_a_record_has_the_common_keys_and_survives_the_file(task, tmp_path):
    record = build(task, difference={"mean": math.inf, "low": -math.inf, "high": math.nan, "pairs": 2})
    assert set(COMMON_KEYS) <= record.keys()
    assert (record["task"], record["seeds"], record["wall_s"], record["schema"]) == (task, [0, 1], 1.235, SCHEMA)
    path = write_json(tmp_path / "record.json", record)
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    back = read_record(path)
    assert same_result(back, record)
    assert back.keys() == record.keys()
    assert back["difference"]["mean"] == math.inf
    assert math.isnan(back["difference"]["high"])


@pytest.mark.parametrize("task", TASKS)
def test_every_missing_part_of_an_arm_is_named(task):
    arm, _ = TASKS[task]
    for key in (*ARM, *(arm if task != "unequalness" else ())):
        lacking = {name: value for name, value in {**ARM, **arm}.items() if name != key}
        with pytest.raises(ValueError, match=rf"record of '{task}' lacks arms\[0\]\.{key}$"):
            build(task, arms=[lacking])


def test_missing_parts_in_depth_and_at_the_top_are_named():
    with pytest.raises(ValueError, match=r"lacks arms\[0\]\.accuracy\.std, arms\[0\]\.accuracy\.classes_seen$"):
        build("continual", arms=[{**ARM, "accuracy": [{"classes_seen": 2, "values": [], "mean": 0}, SUMMARY]}])
    with pytest.raises(ValueError, match=r"lacks arms\[0\]\.regret\.low"):
        build("nas", arms=[{**ARM, **TASKS["nas"][0], "regret": {"value": 1, "high": 2}}])
    with pytest.raises(ValueError, match="lacks an entry of arms"):
        build("distill", arms=[])
    with pytest.raises(ValueError, match="lacks ceiling"):
        build_record("nas", **FACTS, arms=[{**ARM, **TASKS["nas"][0]}], reference={})


def test_numbers_of_libraries_become_plain():
    value = {"a": np.float64(0.5), "b": np.int64(3), "c": np.array([1, 2]), "d": torch.tensor(2.0), "e": (Path("x"),)}
    assert plain(value) == {"a": 0.5, "b": 3, "c": [1, 2], "d": 2.0, "e": ["x"]}
    assert [type(entry) for entry in plain(list(value.values())[:2])] == [float, int]
    with pytest.raises(TypeError, match=r"record\.a\[1\] is a set"):
        plain({"a": [1, {2}]})


def test_environment_tells_versions_threads_device_and_source():
    facts = environment("cpu")
    assert facts["versions"]["fyi-bench"] == fyi_bench.__version__
    # the name of a build (+cpu, +cu130) may stand in the one and not in the other
    assert facts["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert {"python", "numpy"} <= facts["versions"].keys()
    assert facts["threads"] == torch.get_num_threads()
    assert facts["device_name"]
    assert (len(facts["source_digest"]), facts["cores"] >= 1) == (16, True)


@pytest.mark.long
def test_records_tell_whether_compiled_operations_were_in_use():
    code = (
        "import sys; from fyi_bench.store.record import environment; before = environment()['native'];"
        "assert 'torch' not in sys.modules; import torch, search_space; from fyi_bench.rng import stream;"
        "from search_space import fused, patches, winograd; from search_space.native import library;"
        "net = search_space.build('convnet-w8-d2', 3, 8, 2, stream(0, 'x')); unused = environment()['native'];"
        "net(torch.ones(2, 3, 8, 8)); library(winograd.SOURCE), library(patches.SOURCE);"
        "after = environment()['native'].replace(' ', '');"
        "print(before, unused, after, library(fused.SOURCE) is not None)"
    )

    def told(**changes: str) -> list[str]:
        found = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **changes}, capture_output=True, text=True,
            check=True, timeout=60,
        )  # fmt: skip
        return found.stdout.split()

    assert told(FYI_BENCH_NATIVE="0") == ["none", "none", "none", "False"]
    *before, after, compiled = told(FYI_BENCH_NATIVE="1")
    assert before == ["none", "none"]
    files = {name: ROOT / "search_space" / name for name in ("norm_act_pool.cpp", "patches.cpp", "winograd.cpp")}
    headers = "\0".join(path.read_text() for path in sorted((ROOT / "search_space").glob("*.h")))
    digests = {
        path.stem: hashlib.sha256(f"{path.read_text()}\0{headers}".encode()).hexdigest()[:16] for path in files.values()
    }
    expected = ",".join(f"{name}-{digest}" for name, digest in sorted(digests.items()))
    assert after == (expected if compiled == "True" else "none")
    assert build("distill")["environment"]["native"] == environment()["native"]


def test_the_source_digest_follows_names_and_bytes_of_the_code(tmp_path, monkeypatch):
    for package in PACKAGES:
        (tmp_path / package / "sub").mkdir(parents=True)
        (tmp_path / package / "__init__.py").write_text("")

    def digest() -> str:
        code = "import importlib.util, pathlib; from importlib.machinery import PathFinder\n"
        code += "from fyi_bench.store import record; import sys\n"
        code += "importlib.util.find_spec = lambda name: PathFinder.find_spec(name, [sys.argv[1]])\n"
        code += "print(record.source_digest())"
        command = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout

    first = digest()
    assert digest() == first
    (tmp_path / "distill" / "notes.txt").write_text("no code")
    assert digest() == first
    seen = {first}
    for name in ("sub/dm.py", "kernel.cpp", "kernel.h", "dm.toml", "published.csv", "page.j2"):
        (tmp_path / "distill" / name).write_text("x = 1\n")
        seen.add(digest())
    (tmp_path / "distill" / "kernel.h").write_text("x = 2\n")
    seen.add(digest())
    (tmp_path / "distill" / "sub" / "dm.py").rename(tmp_path / "distill" / "dm.py")
    assert len({*seen, digest()}) == 9
    assert source_digest() == source_digest() != first.strip()


def test_every_file_of_the_packages_is_in_the_source_digest():
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()]
    left_out = {path.name for path in files if path.suffix not in SOURCES and path.suffix != ".pyc"}
    assert left_out == set()


def test_peak_memory_sees_what_was_used_after_it_is_freed():
    block = np.ones(2**24)  # 128 MiB
    during = peak_memory_mib()
    del block
    assert during > 128
    assert peak_memory_mib() > during - 16  # the system counts in small batches
    assert peak_cuda_memory_mib() is None or peak_cuda_memory_mib() >= 0


def test_results_are_compared_without_cost_and_circumstances():
    ours = {"value": [0.5, math.nan], "wall_s": 1.0, "arms": [{"mean": 0.5, "versions": {"torch": "1"}}], "device": "a"}
    theirs = {"value": [0.5, math.nan], "wall_s": 2.0, "arms": [{"mean": 0.5}], "device": "b", "threads": 4}
    assert same_result(ours, theirs)
    for change in ({"value": [0.5, 0.5]}, {"value": [0.5]}, {"arms": [{"mean": 0.6}]}, {"more": 1}, {"value": None}):
        assert not same_result(ours, theirs | change)
        assert not same_result(theirs | change, ours)


def test_numbers_come_back_and_other_text_stays():
    assert restore_numbers({"a": ["inf", "-inf", "information", "nano"]}) == {
        "a": [math.inf, -math.inf, "information", "nano"]
    }
    assert math.isnan(restore_numbers("nan"))


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"schema": "x"}', '{"schema": 0}', '{"schema": null}', "<html>"])
def test_a_damaged_record_is_named_with_what_to_do(text, tmp_path):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(StoreError, match=r"record\.json is not a readable record") as caught:
        read_record(path)
    assert "run the command again" in str(caught.value)
    with pytest.raises(StoreError, match="There is no record"):
        read_record(tmp_path / "none.json")


def test_a_record_of_a_newer_version_is_not_guessed_at(tmp_path):
    path = write_json(tmp_path / "record.json", {"schema": SCHEMA + 1})
    with pytest.raises(StoreError, match=rf"newer fyi-bench \(schema {SCHEMA + 1}, known up to {SCHEMA}\)"):
        read_record(path)


def test_an_old_record_is_brought_up_step_by_step(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SCHEMA", SCHEMA + 2)
    monkeypatch.setitem(module.UPGRADES, SCHEMA, lambda record: {**record, "b": record["a"] + 1})
    monkeypatch.setitem(module.UPGRADES, SCHEMA + 1, lambda record: {**record, "c": record["b"] * 10})
    path = write_json(tmp_path / "record.json", {"schema": SCHEMA, "a": 1})
    assert read_record(path) == {"schema": SCHEMA + 2, "a": 1, "b": 2, "c": 20}


def test_every_schema_has_its_upgrade_and_its_fixture():
    assert sorted(module.UPGRADES) == list(range(1, SCHEMA))
    assert {folder.name for folder in ASSETS.glob("v*")} == {f"v{schema}" for schema in range(1, SCHEMA + 1)}


@pytest.mark.parametrize("folder", sorted(ASSETS.glob("v*")), ids=lambda folder: folder.name)
def test_stores_of_every_earlier_version_open(folder, tmp_path):
    expected = json.loads((folder / "expected.json").read_text())
    shutil.copytree(folder / "store", tmp_path / "store")
    store = Store(tmp_path / "store")
    assert {info.digest: info.state for info in store.ls()} == expected["states"]
    assert verify(store) == []
    for digest, values in expected["records"].items():
        record = store.get(digest)
        assert record["schema"] == SCHEMA
        assert {key: record[key] for key in values} == restore_numbers(values)
    report = merge(Store(tmp_path / "new"), store.root)
    assert len(report.copied) == list(expected["states"].values()).count("done")

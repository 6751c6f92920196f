"""The script for a lent GPU: what it checks, computes and packs, on the pretended GPU and at the tiniest sizes."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pretend_gpu import pretended_gpu

import fyi_bench
from benchmarks.gpu_day import check as checking
from benchmarks.gpu_day.__main__ import TINY, main
from benchmarks.gpu_day.packed import pack, unpack
from benchmarks.gpu_day.runs import Wanted, compute
from distill.methods import METHODS
from distill.methods.random import Coreset
from fyi_bench.data import load_dataset
from fyi_bench.errors import DataError
from fyi_bench.run.deadline import Deadline
from fyi_bench.store.merge import merge
from fyi_bench.store.store import Store
from fyi_bench.store.verify import verify
from sample_store import tiny_dataset

ROOT = Path(__file__).resolve().parent.parent


def quiet(line: str) -> None:
    """Say nothing."""


# the check ----------------------------------------------------------------------------------------------------------


def test_everything_that_learns_is_checked():
    names = {name.split()[0] for name, _, _ in checking.subjects()}
    coresets = {name for name in METHODS.names() if issubclass(METHODS.get(name), Coreset)}
    assert names == set(METHODS.names()) - coresets | {"expert", "trainer"}


@pytest.mark.long
def test_the_check_passes_on_the_pretended_gpu(monkeypatch):
    *_, subject = checking.subjects(["dm"])  # of the others `test_on_gpu` tells
    monkeypatch.setattr(checking, "subjects", lambda methods: [subject])
    with pretended_gpu() as gpu:
        found = checking.check("cuda", Deadline(), quiet)
        assert gpu.replayed > 0
    assert (found["wrong"], found["left"]) == ([], [])
    assert [row["distance"].keys() for row in found["rows"]] == [{"eager", "recorded", "float32"}]


def test_the_check_tells_what_is_wrong_what_failed_and_what_was_not_reached(monkeypatch):
    def wrong(device, dtype):
        return [torch.ones(2) * (1 + 1e-5 * (device != "cpu"))]

    def breaks(device, dtype):
        if device != "cpu":
            raise RuntimeError("misaligned address\nand more")
        return [torch.ones(2)]

    told = [("right", 1e-6, lambda device, dtype: [torch.ones(2)]), ("wrong", 1e-6, wrong), ("breaks", 1e-6, breaks)]
    monkeypatch.setattr(checking, "subjects", lambda methods: told)
    found = checking.check("cuda", Deadline(), quiet)
    assert found["wrong"] == ["wrong", "breaks"]
    assert found["rows"][1]["distance"]["eager"] == pytest.approx(1e-5, rel=0.01)
    assert found["rows"][2]["error"] == "RuntimeError: misaligned address"
    assert checking.check("cuda", Deadline(1e-9), quiet)["left"] == ["right", "wrong", "breaks"]


# the runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_runs_are_those_of_the_command_and_can_be_merged(tmp_path):
    data, store = load_dataset("shapes10"), Store(tmp_path / "gpu")
    wanted = Wanted("cuda", TINY, seeds=1, methods=("dsa",))
    with pretended_gpu():
        cut = compute(wanted, data, store, Deadline(1e-9), quiet)
        found = compute(wanted, data, store, Deadline(), quiet)
    assert cut["stopped"]
    assert [row["done"] for row in cut["rows"]] == [0, 0]
    assert [(row["title"], row["done"] == row["runs"], len(row["values"])) for row in found["rows"]] == [
        ("dsa none seed 0", True, 2), ("dsa fyi seed 0", True, 2),
    ]  # fmt: skip
    assert not found["stopped"]
    ours = Store(tmp_path / "ours")
    assert len(merge(ours, store.root).copied) == len(store.ls())
    assert verify(ours) == []
    before = {info.digest for info in ours.ls()}
    record = fyi_bench.distill(
        "dsa", flip="fyi", ipc=1, only=True, dataset="shapes10", protocol="paper", seeds=1, overrides=TINY,
        store=ours.root, device="cpu", workers=1,
    )  # fmt: skip
    assert {info.digest for info in ours.ls()} == before
    assert record["arms"][0]["architectures"][0]["values"] == found["rows"][1]["values"]


# packed data --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    data = tiny_dataset("cifar10", each=13)
    noise = torch.randint(0, 256, data.train.images.shape, generator=torch.Generator().manual_seed(1))
    data.train.images.copy_(noise.to(torch.uint8))
    return data, pack(data, tmp_path_factory.mktemp("packed"), 3)


def test_packed_images_come_back_as_they_were_in_any_folders(packed, tmp_path):
    data, paths = packed
    (tmp_path / paths[2].name).write_bytes(paths[2].read_bytes())
    found = unpack("cifar10", [tmp_path, paths[0].parent])
    assert torch.equal(found.train.images, data.train.images)
    assert torch.equal(found.test.labels, data.test.labels)
    assert (found.train_digest, found.test_digest) == (data.train_digest, data.test_digest)


def test_unpacked_images_are_found_by_every_command(packed, tmp_path):
    data, paths = packed
    words = ["unpack", "--packed", str(paths[0].parent), "--out", str(tmp_path / "data")]
    assert main(words) == 0
    found = load_dataset("cifar10", tmp_path / "data")
    assert (found.train_digest, found.test_digest) == (data.train_digest, data.test_digest)
    assert found.train.class_names == unpack("cifar10", [paths[0].parent]).train.class_names


def test_missing_parts_are_told_and_give_another_digest(packed, tmp_path):
    data, paths = packed
    for path in paths[1:]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    found = unpack("cifar10", [tmp_path])
    assert "of 50,000 train images" in found.note
    assert found.train_digest != data.train_digest
    assert found.test_digest == data.test_digest
    with pytest.raises(DataError, match="Pack it first"):
        unpack("cifar10", [tmp_path / "empty"])
    (tmp_path / paths[2].name).unlink()
    with pytest.raises(DataError, match="lack test images"):
        unpack("cifar10", [tmp_path])


# the stand-in for safetensors ---------------------------------------------------------------------------------------


@pytest.fixture
def stand_in(monkeypatch):
    from safetensors.torch import save

    for name in [name for name in sys.modules if name.partition(".")[0] == "safetensors"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "stand_ins")
    import safetensors
    import safetensors.torch as writing

    assert "stand_ins" in safetensors.__file__
    return save, writing.save, safetensors


def test_the_stand_in_writes_what_the_library_writes_and_reads_it(stand_in, tmp_path):
    library, ours, package = stand_in
    names = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
    tensors = {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in names}
    tensors |= {"none": torch.zeros(0, 3), "one": torch.tensor(1.5), "also int64": torch.arange(2)}
    metadata = {"fyi_bench": '{"a": "ü", "b": [1, 2]}'}
    assert ours(tensors, metadata) == library(tensors, metadata)
    path = tmp_path / "a.safetensors"
    path.write_bytes(library(tensors, metadata))
    with package.safe_open(path, "pt") as file:
        assert file.metadata() == metadata
        assert set(file.keys()) == set(tensors)
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in tensors.items())
    for broken in (b"", b"\0" * 7, path.read_bytes()[:-1], b"\xff" * 40):
        path.write_bytes(broken)
        with pytest.raises(package.SafetensorError):
            package.safe_open(path)


HIDING = """
import sys
from importlib.machinery import PathFinder

class Hidden:
    def find_spec(name, path=None, target=None):
        if path is None and name in {names!r}:
            elsewhere = PathFinder.find_spec(name, [one for one in sys.path if "-packages" not in one])
            if elsewhere is None:
                raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
            return elsewhere

sys.meta_path.insert(0, Hidden)
"""


def hide_all_but(packages: Sequence[str], folder: Path) -> None:
    """Write a module that a Python with this folder on its path loads first: without other packages than these."""
    needed, waiting = set(), list(packages)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in needed:
            needed.add(name)
            asked = map(Requirement, metadata.requires(name) or ())
            waiting += [one.name for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
    there = metadata.packages_distributions()
    hidden = {name for name, owners in there.items() if not needed & set(map(canonicalize_name, owners))}
    assert {"pandas", "typer", "safetensors", "optuna"} <= hidden
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HIDING.format(names=hidden - {"fyi_bench"}))


@pytest.mark.slow
def test_the_script_runs_from_end_to_end_with_five_packages(tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    given = {"DEVICE": "cpu", "TINY": "1", "WORK": str(work), "PYTHON": sys.executable, "SECONDS_BENCH": "200"}
    hide_all_but(("torch", "torchvision", "numpy", "scipy", "pillow"), tmp_path / "few")
    given["PYTHONPATH"] = str(tmp_path / "few")
    script = [ROOT / "benchmarks" / "gpu_day.sh", out]
    done = subprocess.run(script, env={**os.environ, **given}, capture_output=True, text=True, timeout=570)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in out.iterdir()} == {
        "bench.json", "bench.md", "check.json", "log.txt", "runs.json", "store.tar.gz.0",
    }  # fmt: skip
    with tarfile.open(out / "store.tar.gz.0") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # from Python 3.11.4 on
        archive.extractall(tmp_path)
    assert len(merge(Store(tmp_path / "ours"), tmp_path / "store").copied) == 16


def test_what_is_too_much_to_travel_stays(tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    folder = work / "store" / "a run"
    folder.mkdir(parents=True)
    for size in (10, 700, 2000):
        (folder / f"{size} bytes").write_bytes(os.urandom(size))
    given = {"WORK": str(work), "PARTS": " ", "PYTHON": sys.executable, "MOST_BYTES": "1000"}
    script = [ROOT / "benchmarks" / "gpu_day.sh", out]
    done = subprocess.run(script, env={**os.environ, **given}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 files of the store left out, too much to travel" in done.stdout
    with tarfile.open(out / "store.tar.gz.0") as archive:
        assert archive.getnames() == ["store/a run/10 bytes", "store/a run/700 bytes"]

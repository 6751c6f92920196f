"""The data that was named is the data that is used, from any folder, and a stored set is the one that was made."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import tiny
from commands import arguments, run
from distill.image_set import ImageSet
from distill.recipes import recipe
from downstream.continual.steps import Steps
from downstream.protocol import protocol
from downstream.robust_scores import Rules, Treatment
from fyi_bench.data.real import RealDataset
from fyi_bench.errors import DataError, StoreError
from fyi_bench.run.numerics import check_numerics
from fyi_bench.run.run_type import RUN_TYPES, SET_FILE, Worker, ensure, run_type
from fyi_bench.run.types.accuracy import accuracy_run
from fyi_bench.run.types.architecture import real_source, set_source, train_run
from fyi_bench.run.types.attention import attention_run
from fyi_bench.run.types.continual import Memory, Order, continual_run
from fyi_bench.run.types.distill import distill_run
from fyi_bench.run.types.expert import expert_runs
from fyi_bench.run.types.features import Backbone, features_run
from fyi_bench.run.types.floor import floor_run
from fyi_bench.run.types.robust import TEST, VALIDATION, Subject, robust_run
from fyi_bench.run.types.score import score_run
from fyi_bench.run.types.stream import stream_run
from fyi_bench.run.types.teacher import teacher_run
from fyi_bench.run.types.trail import trail_run
from fyi_bench.store.run_dir import RunDir
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store
from search_space import native, space720

WITHOUT_REAL_DATA = {"set", "unequalness", "probe"}

BACKBONE = Backbone({"seed": 0, "model": tiny.MODEL}, tiny.MODEL, tiny.SPACE.describe(), 32)


def dataset(measured: bool = False) -> RealDataset:
    real = tiny.real_set(size=32)
    mirrored = replace(real, images=real.images.flip(3))
    return RealDataset("tiny", real, mirrored, (0.5,) * 3, (0.25,) * 3, measured=measured)


def made(method: str = "dm") -> RunSpec:
    changes = {"model": tiny.MODEL, "iterations": 1, **({"experts": 1} if method == "mtt" else {"batch_real": 4})}
    return distill_run(dataset(), method, "none", 2, 0, recipe(method, "cifar10", 1, "quick").with_overrides(changes))


def runs() -> dict[str, tuple[RunSpec, str]]:
    """A run of every type that uses real data, some in two ways, and the split whose images it is keyed by."""
    data, point, short = dataset(), space720.SPACE[0], {"epochs": 1, "min_steps": 1}
    reference, rules = {"cell": made().digest}, Rules((0.01,), 0.1, 6, 0.5, 0.5)
    accuracy = protocol("quick", "accuracy").with_overrides(short)
    nas = protocol("quick", "nas").with_overrides(short)
    subject = Subject(reference, "", (2, 2, 2), soft=False, own_space=False)

    def robust(tested: str) -> RunSpec:
        return robust_run(data, subject, Treatment("set", "hard", True), accuracy, rules, 0, tested, "fp32")

    memory, order = Memory(6, [made()]), Order(0, Steps((0, 1, 2), (1, 1, 1)))
    return {
        "distill": (made(), "train"),
        "trail": (trail_run(made(), [1]), "train"),
        "expert": (expert_runs(made("mtt").inputs, {})[0], "train"),
        "accuracy": (accuracy_run(data, reference, 6, accuracy, 0), "test"),
        "accuracy, measured": (accuracy_run(dataset(measured=True), reference, 6, accuracy, 0), "statistics"),
        "train": (train_run(data, set_source(made(), 6), point, nas, 0, 12), "test"),
        "train, measured": (train_run(dataset(measured=True), set_source(made(), 6), point, nas, 0, 12), "statistics"),
        "train on real": (train_run(data, real_source(data, 9, 0), point, nas, 0, 12), "train"),
        "teacher": (teacher_run(data, accuracy, tiny.MODEL, 0, "fp32"), "train"),
        "teacher, tested": (teacher_run(data, accuracy, tiny.MODEL, 0, "fp32"), "test"),
        "floor": (floor_run(data, "images", [2, 2, 2], 0), "train"),
        "features": (features_run(data, "train", 9, BACKBONE), "train"),
        "features, of test images": (features_run(data, "test", 9, BACKBONE), "test"),
        "score": (score_run(data, point, 0), "train"),
        "continual": (continual_run(data, memory, order, 0, 0, accuracy), "train"),
        "continual, tested": (continual_run(data, memory, order, 0, 0, accuracy), "test"),
        "stream": (stream_run(data, "er", Memory(0), order, 0, accuracy), "train"),
        "stream, tested": (stream_run(data, "er", Memory(0), order, 0, accuracy), "test"),
        "attention": (attention_run(data, [0], (accuracy, 0), "fp32"), "train"),
        "robust": (robust(VALIDATION), "train"),
        "robust, tested": (robust(TEST), "test"),
    }


def changed(data: RealDataset, split: str) -> RealDataset:
    """The data set with one pixel changed, or with other statistics."""
    if split == "statistics":
        return replace(data, mean=(0.6,) * 3)
    images = getattr(data, split).images.clone()
    images[0, 0, 0, 0] ^= 1
    return replace(
        data, **{{"train": "train", "test": "held_out"}[split]: replace(getattr(data, split), images=images)}
    )


def worker(folder: Path, data: RealDataset) -> Worker:
    found = Worker(Store(folder / "store"))
    found.keep(("data", "tiny", False), lambda: data)
    found.data = lambda name, test=True: data  # type: ignore[method-assign]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A store with the set that others are measured on."""
    place = tmp_path_factory.mktemp("same-data")
    ensure(made(), worker(place, dataset()))
    return place


def test_every_run_type_is_tried():
    assert {spec.kind for spec, _ in runs().values()} | WITHOUT_REAL_DATA == set(RUN_TYPES)


@pytest.mark.parametrize("name", runs())
def test_data_swapped_after_planning_is_refused(folder, tmp_path, name):
    spec, split = runs()[name]
    store = folder if spec.kind not in ("distill", "trail", "expert") else tmp_path
    other = worker(store, changed(dataset(measured=split == "statistics"), split))
    with pytest.raises(DataError, match="are not those this run was planned with"):
        run_type(spec).compute(RunDir(other.store.folder(spec), spec, other.say), other)


# a folder of pictures ----------------------------------------------------------------------------------------------


def pictures(root: Path, colour: int) -> Path:
    """Reddish (0) or bluish (2) pictures of two classes."""
    noise = np.random.default_rng(0).integers(0, 60, (12, 16, 16, 3))
    noise[..., colour] += 190
    for number, image in enumerate(noise.astype("uint8")):
        place = root / ("train" if number < 8 else "test") / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
    return root


@pytest.mark.long
@pytest.mark.parametrize(("workers", "suffix", "arch"), [(1, "", "convnet-w8"), (2, "@8", "none")])
def test_a_named_folder_is_used_from_any_folder(tmp_path, monkeypatch, workers, suffix, arch):
    monkeypatch.setenv("FYI_BENCH_CACHE", str(tmp_path / "cache"))
    mine, _ = pictures(tmp_path / "data/pets", 0), pictures(tmp_path / "elsewhere/pets", 2)
    store, there = tmp_path / "store", tmp_path / "elsewhere"
    words = arguments(
        "distill", "--method", "random", "--only", "--ipc", "1", "--yes", store=store, workers=workers,
        model=None, iterations=None, batch_real=None,
    )  # fmt: skip
    words[words.index("shapes10")] = f"imagefolder:{mine}{suffix}"
    with contextlib.chdir(there):
        monkeypatch.setattr("commands.ROOT", there)
        run(*words, "--arch", arch)
    sets = list((store / "distill").glob(f"*/{SET_FILE}"))
    assert sets
    for path in sets:
        red, _, blue = ImageSet.load(path).pixels().mean((0, 2, 3))
        assert red > blue + 0.5
    run("store", "verify", "--store", str(store))


# stored sets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where", [b'\\"std\\": [0.', b'\\"mean\\": [0.', b'\\"dataset\\": \\"', b'"dtype":"F', b'"shape":[']
)
def test_a_set_of_which_one_byte_changed_is_not_measured(folder, tmp_path, where):
    shutil.copytree(folder / "store", tmp_path / "store")
    path = tmp_path / "store" / "distill" / made().digest / SET_FILE
    content = bytearray(path.read_bytes())
    at = content.index(where) + len(where)
    content[at] = ord("9") if content[at] != ord("9") else ord("8")
    path.write_bytes(bytes(content))
    spec, _ = runs()["accuracy"]
    with pytest.raises(StoreError, match=r"set\.safetensors does not match its checksum"):
        ensure(spec, worker(tmp_path, dataset()))
    with pytest.raises(DataError):  # a copy without its record is refused by itself
        ImageSet.load(shutil.copy(path, tmp_path / "mine.safetensors"))


def test_sets_of_earlier_versions_are_read(tmp_path):
    """They have checksums of their tensors and none of their metadata."""
    path = tiny.real_set().save(tmp_path / "new.safetensors", preview=False)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = json.loads(file.metadata()["fyi_bench"])
    del metadata["header_digest"], metadata["layout"]
    old = tmp_path / "old.safetensors"
    save_file(tensors, old, {"fyi_bench": json.dumps(metadata)})
    assert ImageSet.load(old).digest == ImageSet.load(path).digest


# compiled operations -----------------------------------------------------------------------------------------------


def test_without_compiled_operations_it_is_another_run(monkeypatch):
    """PyTorch's own give other bits, so they stand under another digest; the usual case keeps the digest it had."""
    usual = made()
    assert set(usual.inputs["numerics"]) == {"method", "engine", "augment", "flip", "network"}
    monkeypatch.setattr(native, "missing", lambda: ["winograd"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    without = made()
    assert without.inputs["numerics"] == {**usual.inputs["numerics"], "without native": "winograd"}
    check_numerics(without.inputs["numerics"])
    check_numerics(usual.inputs["numerics"], "cuda")
    with pytest.raises(DataError, match="planned with compiled operations"):
        check_numerics(usual.inputs["numerics"])
    monkeypatch.setattr(native, "missing", list)
    check_numerics(usual.inputs["numerics"])
    with pytest.raises(DataError, match="planned without compiled operations"):
        check_numerics(without.inputs["numerics"])


def test_what_cannot_be_compiled_is_missing(monkeypatch):
    monkeypatch.setattr(native, "library", native.library.__wrapped__)
    monkeypatch.setenv("FYI_BENCH_NATIVE", "0")
    assert native.missing() == list(native.SOURCES)

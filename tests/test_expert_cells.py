"""Expert cells: who shares them, what keys them, and distillation that trains and finds them through the store."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tiny
from commands import ask
from distill import zca
from distill.expert_file import Trajectory
from distill.image_set import ImageSet
from distill.recipes import recipe
from fyi_bench.config import Settings
from fyi_bench.data.real import RealDataset
from fyi_bench.errors import BudgetExhausted, DivergenceError, StoreError, UsageError
from fyi_bench.run.run_type import SET_FILE, Worker, ensure
from fyi_bench.run.types.distill import distill_run
from fyi_bench.run.types.expert import TRAJECTORY_FILE, Expert, expert_runs, prerequisites
from fyi_bench.session import Session
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store

SMALL = {
    "model": tiny.MODEL, "iterations": 3, "syn_steps": 3, "batch_syn": 4, "expert_epochs": 1, "max_start_epoch": 2,
    "expert_train_epochs": 3, "expert_batch": 10, "experts": 2, "lr_img": 10.0,
}  # fmt: skip


JOB = {"model": tiny.MODEL, "expert_train_epochs": "1", "expert_epochs": "1", "max_start_epoch": "1"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FYI_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(zca, "_known", {})


def dataset() -> RealDataset:
    return RealDataset("tiny", tiny.real_set(), None, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def worker(tmp_path, **changes) -> Worker:
    made = Worker(Store(tmp_path / "store"), **changes)
    made.keep(("data", "tiny", False), dataset)
    return made


def cell(
    method: str = "mtt", flip: str = "none", ipc: int = 2, seed: int = 0, classes=None, precision="fp32", **changes
):
    found = recipe(method, "cifar10", ipc, "quick").with_overrides({**SMALL, **changes})
    return distill_run(dataset(), method, flip, ipc, seed, found, classes, precision)


def digests(*args, **kwargs) -> list[str]:
    return [c.digest for c in expert_runs(cell(*args, **kwargs).inputs, {})]


def test_what_the_distillation_does_shares_experts():
    ours = digests()
    assert len(set(ours)) == 2
    assert digests(flip="fyi") == digests(seed=5) == digests(ipc=1) == digests(lr_img=1.0, syn_steps=7) == ours
    assert digests(experts=1) == ours[:1]


@pytest.mark.parametrize(
    "change",
    [
        {"method": "ftd"}, {"classes": (0, 1)}, {"precision": "bf16"}, {"zca": True}, {"expert_lr": 0.02},
        {"expert_train_epochs": 4}, {"expert_augment": "flip"}, {"model": "convnet-w16-d2"}, {"expert_storage": "fp16"},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_what_changes_the_weights_keys_them(change):
    assert not set(digests(**change)) & set(digests())


def test_experts_key_the_set_and_methods_without_them_have_none():
    assert cell().inputs["experts"] == digests()
    assert cell().digest != cell(expert_lr=0.02).digest
    plain = recipe("dm", "cifar10", 1, "quick").with_overrides({"model": tiny.MODEL})
    other = distill_run(dataset(), "dm", "none", 1, 0, plain)
    assert "experts" not in other.inputs
    assert expert_runs(other.inputs, {}) == []
    needed = prerequisites([cell(), cell(flip="fyi"), other, cell("ftd")])
    assert [c.digest for c in needed] == digests() + digests("ftd")


def test_cost_counts_every_pass_and_gsam_twice():
    plain, flat = (Expert().passes(expert_runs(cell(m).inputs, {})[0], dataset())[0] for m in ("mtt", "ftd"))
    assert plain.first == 3 * 36
    assert flat.first == 2 * plain.first


@pytest.mark.parametrize("method", ["mtt", "ftd"])
def test_set_is_the_same_whether_experts_were_there_or_not(tmp_path, method):
    ahead = worker(tmp_path / "ahead")
    for needed in prerequisites([cell(method)]):
        record = ensure(needed, ahead)
        assert len(record["losses"]) == 3
        path = ahead.store.artefact("expert", needed.digest, TRAJECTORY_FILE)
        assert Trajectory.open(path).epochs == 3
    trained = [(p, p.stat().st_mtime_ns) for p in (tmp_path / "ahead").rglob(TRAJECTORY_FILE)]
    first = ensure(cell(method), ahead)
    assert trained == [(p, p.stat().st_mtime_ns) for p in (tmp_path / "ahead").rglob(TRAJECTORY_FILE)]
    later = ensure(cell(method), worker(tmp_path / "later"))
    assert first["set_digest"] == later["set_digest"]


def test_two_arms_use_the_same_trajectories(tmp_path):
    here = worker(tmp_path)
    sets = [ensure(cell(flip=flip), here)["set_digest"] for flip in ("none", "fyi")]
    assert sets[0] != sets[1]
    assert len(list((tmp_path / "store" / "expert").iterdir())) == 2


def test_whitened_distillation(tmp_path):
    here = worker(tmp_path)
    made = cell(zca=True, lr_img=0.0)  # the images stay where they began
    assert made.inputs["space"]["kind"] == "zca"
    ensure(made, here)
    found = ImageSet.load(here.store.artefact("distill", made.digest, SET_FILE))
    assert found.space.kind == "zca"
    levels = found.pixels() * 255
    assert (levels - levels.round()).abs().max() < 1e-2
    assert 0 <= levels.round().min() < levels.round().max() <= 255
    assert found.lr is not None


class StopAfter:
    def __init__(self, steps: int):
        self.left = steps

    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0

    def check(self) -> None:
        if self.left < 0:
            raise BudgetExhausted("enough")

    def note_save(self, seconds: float) -> None:
        """Of no interest here."""


def test_expert_stopped_in_the_middle_goes_on_to_the_same_bytes(tmp_path):
    needed = prerequisites([cell()])[0]
    whole = worker(tmp_path / "whole")
    ensure(needed, whole)
    stopped = worker(tmp_path / "cut", stop=StopAfter(6))
    with pytest.raises(BudgetExhausted):
        ensure(needed, stopped)
    stopped.stop = None
    ensure(needed, stopped)
    files = [w.store.artefact("expert", needed.digest, TRAJECTORY_FILE) for w in (whole, stopped)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_expert_that_diverges_stops_the_set_with_its_own_words(tmp_path):
    here = worker(tmp_path)
    with pytest.raises(DivergenceError, match="Expert 0 diverged"):
        ensure(cell(expert_lr=1e30), here)


def test_other_experts_than_planned_are_refused(tmp_path):
    made = cell()
    spoiled = RunSpec("distill", {**made.inputs, "experts": made.inputs["experts"][::-1]})
    with pytest.raises(StoreError, match="not those this version trains"):
        ensure(spoiled, worker(tmp_path))


def test_trajectory_of_another_network_is_refused():
    from distill.engine import distill
    from fyi_bench.errors import DataError

    problem = tiny.problem()
    wrong = Trajectory(torch.zeros(5, 7))
    with pytest.raises(DataError, match="another model"):
        distill(replace(problem, experts=lambda: [wrong]), "mtt", tiny.config("mtt", 1))


def session(tmp_path, overrides) -> Session:
    """A command on the tiny data set."""
    return Session(Settings("tiny", store=tmp_path / "store", protocol="quick", workers=1, overrides=overrides))


def test_the_task_trains_the_first_experts_and_finds_them_again(tmp_path, monkeypatch):
    monkeypatch.setattr("fyi_bench.data.load_dataset", lambda name, root, test=True: dataset())
    record = ask("experts", session(tmp_path, JOB), method="mtt", ipc=10, count=2)["arms"][0]
    assert len(record["cells"]) == 2
    assert all(len(losses) == 1 for losses in record["losses"])
    more = ask("experts", session(tmp_path, JOB), method="mtt", ipc=1, count=3)["arms"][0]
    assert more["cells"][:2] == record["cells"]
    assert more["expert_s"][:2] == record["expert_s"]
    with pytest.raises(UsageError, match="Name one of ftd, haba, mtt, speed"):
        ask("experts", session(tmp_path, {}), method="dm", ipc=1)

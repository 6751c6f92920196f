"""Every method's sets in the two downstream questions: a memory of `continual`, a proxy of `nas`."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from test_nas import CHEAP

import tiny
from commands import ask, tell
from distill.methods import METHODS
from downstream import nas as search
from fyi_bench.config import Settings
from fyi_bench.data.real import RealDataset
from fyi_bench.session import Session
from search_space import space720

pytestmark = pytest.mark.slow  # a second or two for each method

TRAINER = {"epochs": "1", "min_steps": "2", "draws": "1", "eval_model": "convnet-w8-d2"}


@pytest.fixture
def small(monkeypatch):
    real = tiny.real_set(classes=4, per_class=12, size=32)
    data = RealDataset("tiny", real, replace(real, images=real.images.flip(3)), (0.5,) * 3, (0.25,) * 3)
    monkeypatch.setattr("fyi_bench.data.load_dataset", lambda name, root, test=True: data)
    monkeypatch.setattr(search, "limits_of", lambda name: search.Limits(18, 30, 0.5))
    monkeypatch.setattr(space720, "subset", lambda n, seed=0: tuple(CHEAP[:n]))


def session(method: str, tmp_path) -> Session:
    """A session in which the method's recipe takes no time."""
    keys = {key.name for key in fields(METHODS.get(method).Config)}
    small = {"model": tiny.MODEL, "iterations": 2, "batch_real": 6, **tiny.SMALL.get(method, {})}
    small |= {"experts": 1, "expert_train_epochs": 3, "zca": False}
    values = {key: str(value) for key, value in small.items() if key in keys}
    return Session(Settings(dataset="tiny", store=tmp_path, workers=1, threads=1, overrides=TRAINER | values))


@pytest.mark.parametrize("method", METHODS.names())
def test_a_memory_of_every_method(method, small, tmp_path):
    record = ask("continual", session(method, tmp_path), method=method, flip="fyi", ipc=1, steps=2, against=("random",))
    arms = {(arm["method"], arm["flip"]): arm for arm in record["arms"]}
    assert [point["classes_seen"] for point in arms[method, "fyi"]["accuracy"]] == [2, 4]
    assert all(torch.isfinite(torch.tensor(point["mean"])) for point in arms[method, "none"]["accuracy"])
    assert tell(record)


@pytest.mark.parametrize("method", METHODS.names())
def test_a_proxy_of_every_method(method, small, tmp_path):
    asked = {"method": method, "flip": "fyi", "ipc": 1, "space": "4", "reference_epochs": 1, "only": True}
    record = ask("nas", session(method, tmp_path), **asked)
    arm = next(arm for arm in record["arms"] if arm["method"] == method)
    assert arm["evaluated"] == 4
    value = arm["spearman_all"]["value"]
    assert value is None or -1 <= value <= 1  # None: all networks tie

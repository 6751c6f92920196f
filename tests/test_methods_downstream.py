"""Every method's sets in the two downstream questions: a memory of `continual`, a proxy of `nas`."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from test_nas import search_little, tiny_dataset

import tiny
from commands import ask, tell
from distill.methods import METHODS
from fyi_bench.config import Settings
from fyi_bench.session import Session

pytestmark = pytest.mark.slow  # a second or two for each method

TRAINER = {"epochs": "1", "min_steps": "2", "draws": "1", "eval_model": "convnet-w8-d2"}


@pytest.fixture
def small(monkeypatch):
    search_little(monkeypatch, tiny_dataset(classes=4))


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

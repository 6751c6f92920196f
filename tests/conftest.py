"""Shared by all tests: one thread each, no waiting for the disk, and the place of real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("FYI_BENCH_DATA", ROOT.parent / "shared" / "data"))

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("FYI_BENCH_DATA", None)  # a test that wants real data asks for `data_root`; no other may find any


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _few_networks():
    from commands import few_networks

    few_networks()


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk():
    """What a kill leaves is tested in processes of their own, which this does not reach."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def data_root() -> Path:
    """Folder of real data; the test is skipped where it is absent."""
    if not (DATA / "cifar10").is_dir():
        pytest.skip(f"no real data in {DATA}: set FYI_BENCH_DATA")
    return DATA

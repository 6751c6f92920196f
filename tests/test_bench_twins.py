"""The plain twins of the benchmark do the same work as the fast paths: equal results, computed in float64."""

from __future__ import annotations

import pytest
import torch

from benchmarks.case import Case
from benchmarks.twins.training import Never
from benchmarks.workloads import WORKLOADS, Setup
from tiny import SPACE, real_set

SMALL = {"model": "convnet-w8-d2", "size": 8, "classes": 3}
# engines give their images as float32: what is computed in float64 agrees to its last digits
TOLERANCE = {"rtol": 3e-7, "atol": 3e-7}
# the trainer works in float32 whatever the images; the deep networks are compared in float64 in test_networks.py
DEEP = {"rtol": 1e-3, "atol": 5e-5}
CASES = {
    "dc": Case("dc", ipc=2, **SMALL, changes={"outer_loop": 3, "inner_loop": 2, "batch_real": 6, "batch_train": 4}),
    "dc one image": Case("dc", ipc=1, **SMALL, changes={"outer_loop": 1, "batch_real": 5, "lr_img": 10.0}),
    "dsa": Case("dsa", ipc=2, **SMALL, changes={"outer_loop": 2, "inner_loop": 1, "batch_real": 6, "batch_train": 4}),
    "dsa many classes": Case(
        "dsa", ipc=1, **{**SMALL, "classes": 7}, changes={"outer_loop": 1, "batch_real": 6, "lr_img": 1.0}
    ),
    "dm": Case("dm", ipc=3, **SMALL, changes={"batch_real": 8}),
    "idc": Case("idc", ipc=2, **SMALL, changes={"inner_loop": 3, "n_data": 12, "batch_train": 6, "batch_real": 6}),
    "idc more than are used": Case(
        "idc", ipc=3, **SMALL, changes={"inner_loop": 2, "n_data": 6, "batch_syn_max": 5, "lr_img": 0.5}
    ),
    "mtt": Case("mtt", ipc=4, **SMALL, changes={"syn_steps": 4, "batch_syn": 5}),
    "mtt-unroll": Case("mtt-unroll", ipc=2, **SMALL, changes={"syn_steps": 3}),
    "expert": Case("expert", **SMALL, changes={"expert_batch": 10, "expert_lr": 0.05, "expert_momentum": 0.9}),
    "retrain": Case("retrain", ipc=4, **SMALL),
    "retrain-vgg11": Case("retrain-vgg11", ipc=1, model="vgg11", classes=2),
    "retrain-resnet18": Case("retrain-resnet18", ipc=1, model="resnet18", classes=2),
    "nas": Case("nas", ipc=4, **{**SMALL, "size": 16}, changes={"networks": 3}),
}
UNITS = {"dc": 2, "expert": 9, "retrain": 5, "retrain-vgg11": 2, "retrain-resnet18": 2, "nas": 1}


def sides(name: str, dtype=torch.float64):
    case = CASES[name]
    images = real_set(classes=case.classes, size=case.size)
    return WORKLOADS.get(case.job).prepare(Setup(case, images, SPACE, dtype=dtype, units=UNITS.get(name, 3), seed=1))


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_twin_gives_the_same_result(name):
    both = sides(name)
    ours, theirs = both.ours(Never()), both.twin(Never())
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(
            a.to(torch.float64), b.to(torch.float64), **(DEEP if CASES[name].model[:7] != "convnet" else TOLERANCE)
        )


def test_every_job_with_a_twin_is_compared():
    compared = {case.job for case in CASES.values()}
    assert compared == set(WORKLOADS.names()) - {"peak"}

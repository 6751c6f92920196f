"""What only a GPU does, on one that is none: everything lies where it should, and the host is waited for rarely."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pretend_gpu import OnGpu, pretended_gpu
from test_bench_twins import CASES, UNITS

import fyi_bench
import tiny
from benchmarks.twins.training import Never
from benchmarks.workloads import WORKLOADS, Setup
from commands import SMALL
from distill import engine
from distill.captured import WARM_UP, Captured, upload
from distill.engine import distill
from distill.experts import ExpertConfig, train_expert
from distill.gsam import GSAM
from distill.methods import METHODS
from downstream.protocol import protocol
from downstream.training import Conditions, correct, new_network, train_together
from plain_method import NAME, plain_method  # noqa: F401  a method of a plug-in, one of all here

CUDA = torch.device("cuda")
ALL = [*METHODS.names(), NAME]
SELECTED = ("random", "herding", "kcenter", "kmeans")


@pytest.fixture
def gpu():
    with pretended_gpu() as found:
        yield found


# the pretended GPU itself -------------------------------------------------------------------------------------------


def test_tensors_of_both_devices_do_not_mix(gpu):
    there, here = torch.ones(3, device="cuda"), torch.ones(3)
    assert isinstance(there, OnGpu)
    assert there.device == torch.device("cuda", 0)
    with pytest.raises(RuntimeError, match="tensors on cuda and cpu"):
        there + here
    with pytest.raises(RuntimeError, match="tensors on cuda and cpu"):
        here.index_select(0, torch.tensor([0, 2], device=CUDA))
    assert (there + torch.tensor(1.0)).tolist() == [2, 2, 2]  # a number is no tensor of the host's
    assert (there + here.to(CUDA)).cpu().tolist() == [2, 2, 2]


def test_derivatives_and_views_stay_there(gpu):
    x = torch.arange(4.0, device=CUDA).requires_grad_(True)
    x.square().sum().backward()
    assert isinstance(x.grad, OnGpu)
    x.grad[1:].zero_()
    with torch.no_grad():
        x.view(2, 2)[1].fill_(7)
    assert (x.grad.tolist(), x.tolist()) == ([0, 0, 0, 0], [0, 1, 7, 7])


def test_waiting_is_counted(gpu):
    x = upload(torch.arange(3.0), CUDA)
    assert not gpu.waits
    float(x.sum()), x.cpu(), torch.zeros(2).to(CUDA), x[x > 1], x[torch.tensor([0, 2])]
    assert gpu.waits == {
        "read of a value": 2, "copy to the host": 1, "copy from pageable memory": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    "step",
    [lambda x: x * float(x.sum()), lambda x: x + x.cpu().to(CUDA), lambda x: x + torch.ones(3).to(CUDA),
     lambda x: x + torch.tensor([1.0, 2.0, 3.0], device=CUDA)],
    ids=["read", "copy to the host", "copy from the host", "made from the host's values"],
)  # fmt: skip
def test_a_recorded_step_may_not_touch_the_host(gpu, step):
    recorded, x = Captured(step), torch.ones(3, device=CUDA)
    for _ in range(WARM_UP):
        recorded(x)
    with pytest.raises(RuntimeError, match="while recording"):
        recorded(x)


# what runs on it ----------------------------------------------------------------------------------------------------


def problems(method: str, **changes):
    """The same problem on the CPU and on the GPU."""
    space = METHODS.get(method).space_kind
    given = {"space": tiny.SPACES[space]} if space in tiny.SPACES else {}
    here = tiny.problem(dtype=torch.float64, **given, **changes)
    return here, replace(here, device=CUDA)


@pytest.mark.long
@pytest.mark.parametrize("flip", ["none", "fyi"])
@pytest.mark.parametrize("method", ALL)
def test_a_method_makes_the_same_images_there(gpu, method, flip):
    here, there = problems(method)
    config = tiny.config(method, WARM_UP + 2, **tiny.UNTIED.get(method, {}))
    plain, found = (distill(p, method, config, flip) for p in (here, there))
    torch.testing.assert_close(found.images, plain.images, rtol=1e-6, atol=1e-6)
    assert bool(gpu.recorded) == (method not in (*SELECTED, NAME))


@pytest.mark.long
@pytest.mark.parametrize("method", [name for name in ALL if name not in SELECTED])
def test_only_the_guard_waits_for_the_device(gpu, method, monkeypatch):
    monkeypatch.setattr(engine, "GUARD_EVERY", WARM_UP + 1)  # the second time all that is recorded has been
    waits = []

    def report(done: int, loss: float) -> None:
        waits.append(gpu.waits.copy())

    config = tiny.config(method, 2 * engine.GUARD_EVERY, **tiny.UNTIED.get(method, {}))
    distill(problems(method)[1], method, config, "fyi", report=report)
    between = waits[1] - waits[0]  # is all finite and small, and what is the last loss
    assert (len(waits), between) == (2, {"copy to the host": 1, "read of a value": 1})


@pytest.mark.parametrize("gsam", [None, GSAM(0.05, 0.4, False)], ids=["sgd", "gsam"])
def test_an_expert_walks_the_same_way_there(gpu, gsam):
    config = ExpertConfig(
        model=tiny.MODEL, epochs=3, lr=0.05, momentum=0.5, wd=1e-3, batch=8, augment="color_crop_flip_rotate",
        dispatcher="dsa", storage="fp32", gsam=gsam,
    )  # fmt: skip
    plain, found = (train_expert(p, config).trajectory.at(3) for p in problems("mtt", experts=lambda: ()))
    torch.testing.assert_close(found, plain, rtol=1e-10, atol=1e-10)
    assert gpu.replayed > 0


@pytest.mark.long
@pytest.mark.parametrize("cutmix", [0.0, 0.7])
@pytest.mark.parametrize("schedule", ["drop-restart", "cosine"])
def test_networks_learn_the_same_there(gpu, schedule, cutmix):
    rules = replace(protocol("quick", "accuracy"), epochs=6, min_steps=0, batch=16, schedule=schedule, cutmix=cutmix)
    real, right, losses = tiny.real_set(), [], []
    for device in ("cpu", "cuda"):
        networks = [new_network(model, real, seed) for seed, model in enumerate((tiny.MODEL, "convnet-w8-d1-batch"))]
        trained = train_together(networks, real, rules, [0, 1], Conditions(device))
        right.append([correct(network, real, Conditions(device)).tolist() for network in networks])
        losses.append([one.losses for one in trained])
    assert right[0] == right[1]
    assert losses[1] == [pytest.approx(one, rel=1e-4) for one in losses[0]]
    assert gpu.replayed > 0


def test_the_trainer_waits_once_for_many_epochs(gpu):
    rules = replace(protocol("quick", "accuracy"), min_steps=0, batch=4, schedule="constant")
    real, waits = tiny.real_set(), []
    for epochs in (2, 5):
        gpu.waits.clear()
        train_together([new_network(tiny.MODEL, real, 0)], real, replace(rules, epochs=epochs), [0], Conditions(CUDA))
        waits.append(gpu.waits.copy())
    assert waits[1] == waits[0]


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in CASES if name not in ("retrain-resnet18", "nas")])
def test_the_benchmark_runs_there(gpu, name):
    case, found = CASES[name], []
    for device in ("cuda", "cpu"):
        images = tiny.real_set(case.classes, size=case.size)
        setup = Setup(case, images, tiny.SPACE, device, dtype=torch.float64, units=UNITS.get(name, 3), seed=1)
        sides = WORKLOADS.get(case.job).prepare(setup)
        found.append([t.cpu() for t in (sides.ours if device == "cuda" else sides.twin)(Never())])
        if device == "cuda":
            sides.twin(Never())
    for ours, twin in zip(*found, strict=True):
        torch.testing.assert_close(ours.double(), twin.double(), rtol=1e-3, atol=2e-5)


SEARCH = {"ipc": 1, "space": 3, "only": True, "reference_images": 20, "test_images": 20}
COMMANDS = {
    "distill": lambda **how: fyi_bench.distill("dm", ipc=1, fyi=True, **how),
    "continual": lambda **how: fyi_bench.continual("dsa", steps=2, ipc=1, seeds=1, fyi=True, only=True, **how),
    "nas": lambda **how: fyi_bench.nas("dm", **SEARCH, **how),
}


@pytest.mark.long
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs_there(gpu, tmp_path, command):
    wanted = {**SMALL, "iterations": str(WARM_UP + 1), "batch_real": "2"}
    if command == "distill":
        wanted["nets"] = "2"
    if command == "nas":
        del wanted["eval_model"]
    precision = "fp32" if command == "continual" else "bf16"  # of which most processors are slow
    record = COMMANDS[command](
        dataset="shapes10", store=tmp_path, workers=1, device="cuda", protocol="quick", precision=precision,
        overrides=wanted,
    )  # fmt: skip
    assert record["device"] == "cuda"
    assert record["environment"]["device_name"] == "a pretended GPU"
    assert gpu.replayed > 0

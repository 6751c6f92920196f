"""Recorded steps: a recording replayed with other inputs gives what a call gives.

A CPU has no CUDA graphs, so a tape stands in for them, with their rules: it is recorded without effect, replays the
same kernels on the same memory, and neither reads a value on the host nor copies one from it. Draws lie with the
images there, as on a GPU.
"""

from __future__ import annotations

import contextlib
import gc
import weakref
from dataclasses import replace

import pytest
import torch
from pretend_gpu import Mode, mapped, tensors_in

import tiny
from distill import augment, captured, trajectory
from distill.captured import WARM_UP, Captured, CudaGraphs
from distill.engine import distill
from distill.experts import ExpertConfig, train_expert
from distill.gsam import GSAM
from distill.methods import METHODS
from downstream import training
from downstream.protocol import protocol
from downstream.training import new_network, train_together
from search_space import fused, patches, winograd

FROM_OR_TO_HOST = ("_local_scalar_dense", "lift_fresh", "nonzero", "masked_select", "equal", "unique")


def place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Tape(Mode):
    """Every operation with the memory it read and wrote; nothing is freed, so memory is told apart by its address."""

    def __init__(self, inputs):
        super().__init__()
        self.operations, self.own, self.before = [], {place(t) for t in inputs}, {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = operation._schema.name.split("::")[1]
        if name.startswith(FROM_OR_TO_HOST):
            raise RuntimeError(f"{name} while recording")
        given = tensors_in(args, kwargs)
        # aliases: an operation in place may change a tensor's shape later
        kept_args, kept_kwargs = mapped(torch.Tensor, torch.Tensor.detach, (args, kwargs))
        for tensor in given if operation._schema.is_mutable else ():
            if place(tensor) not in self.own and place(tensor) not in self.before:
                self.before[place(tensor)] = (tensor, tensor.detach().clone())
        output = operation(*args, **kwargs)
        there = {place(g) for g in given}
        made = [None if place(t) in there else t.detach() for t in tensors_in(output)]
        self.own |= {place(t) for t in made if t is not None}
        self.operations.append((operation, kept_args, kept_kwargs, made))
        return output

    def undo(self):
        with torch.no_grad():
            for tensor, value in self.before.values():
                tensor.copy_(value)

    def play(self):
        with torch.no_grad():
            for operation, args, kwargs, made in self.operations:
                again = tensors_in(operation(*args, **kwargs))
                for old, new in zip(made, again, strict=True):
                    if old is not None:
                        old.copy_(new)


class Tapes:
    """Stands in for CUDA graphs on a CPU; counts recordings and replays."""

    def __init__(self):
        self.recorded = self.replayed = 0

    @staticmethod
    def warm_up(function, inputs):
        return function(*inputs)

    def record(self, function, inputs):
        self.recorded += 1
        kept = [t.detach().clone() for t in inputs]
        with Tape(kept) as tape:
            outputs = function(*kept)
        tape.undo()

        def replay(*given):
            self.replayed += 1
            for old, new in zip(kept, given, strict=True):
                old.copy_(new)
            tape.play()
            return outputs

        return replay


@pytest.fixture
def as_on_gpu(monkeypatch):
    """The operations that a GPU would run, and no compiled one."""
    for module in (fused, patches, winograd):
        monkeypatch.setattr(module, "library", lambda source: None)
    monkeypatch.setattr(augment, "_chosen_on_host", augment._chosen_on_device)


@pytest.fixture
def tapes(as_on_gpu, monkeypatch):
    standing_in = Tapes()

    def switch(on: bool) -> Tapes:
        if on:
            monkeypatch.setitem(captured.DEVICES, "cpu", standing_in)
        else:
            monkeypatch.delitem(captured.DEVICES, "cpu", raising=False)
        return standing_in

    return switch


def both(tapes, work):
    """What `work()` gives called plainly, and recorded."""
    tapes(on=False)
    plain = work()
    standing_in = tapes(on=True)
    recorded = work()
    assert standing_in.recorded > 0
    assert standing_in.replayed > 0
    return plain, recorded


RECORDED = ["dc", "dsa", "dcc", "dm", "datadam", "cafe", "cafe-dsa", "idc", "dream", "m3d", "idm", "mtt", "ftd"]
RECORDED += ["speed", "rtp", "haba", "dd"]  # their students' steps


@pytest.mark.long
@pytest.mark.parametrize("flip", ["none", "fyi", "random", "rotate"])
@pytest.mark.parametrize("method", RECORDED)
def test_a_recorded_run_makes_the_same_images(tapes, method, flip, monkeypatch):
    monkeypatch.setattr(trajectory, "CPU_PART_SECOND", 4)  # a student's steps are recorded, not kept
    iterations = WARM_UP + 2

    def work():
        space = METHODS.get(method).space_kind
        changes = {"space": tiny.SPACES[space]} if space in tiny.SPACES else {}
        return distill(tiny.problem(dtype=torch.float64, **changes), method, tiny.config(method, iterations), flip)

    plain, recorded = both(tapes, work)
    torch.testing.assert_close(recorded.images, plain.images, rtol=1e-6, atol=1e-6)
    assert recorded.provenance["loss_curve"] == pytest.approx(plain.provenance["loss_curve"], rel=1e-9)


@pytest.mark.parametrize("gsam", [None, GSAM(0.05, 0.4, False)], ids=["sgd", "gsam"])
def test_a_recorded_expert_walks_the_same_way(tapes, gsam):
    config = ExpertConfig(
        model=tiny.MODEL, epochs=3, lr=0.05, momentum=0.5, wd=1e-3, batch=8, augment="color_crop_flip_rotate",
        dispatcher="dsa", storage="fp32", gsam=gsam,
    )  # fmt: skip
    problem = tiny.problem(dtype=torch.float64, experts=lambda: ())
    plain, recorded = both(tapes, lambda: train_expert(problem, config))
    for epoch in range(4):
        torch.testing.assert_close(recorded.trajectory.at(epoch), plain.trajectory.at(epoch), rtol=1e-10, atol=1e-10)


@pytest.mark.long
@pytest.mark.parametrize("cutmix", [0.0, 0.7])
@pytest.mark.parametrize("schedule", ["drop-restart", "constant"])
def test_recorded_networks_learn_the_same(tapes, schedule, cutmix):
    """A short last batch and a second optimiser half-way are recorded by themselves."""
    rules = replace(protocol("quick", "accuracy"), epochs=12, min_steps=0, batch=16, schedule=schedule, cutmix=cutmix)
    real = tiny.real_set()

    def learn() -> list:
        networks = [new_network(tiny.MODEL, real, seed) for seed in (0, 1)]
        return train_together(networks, real, rules, [0, 1])

    plain, recorded = both(tapes, learn)
    for a, b in zip(plain, recorded, strict=True):
        assert b.losses == pytest.approx(a.losses, rel=1e-4)


def test_every_call_counts_once(tapes):
    tapes(on=True)
    total = torch.zeros(())
    add = Captured(lambda x: total.add_(x.sum()))
    for n in range(1, WARM_UP + 5):
        add(torch.ones(3))
        assert float(total) == 3 * n


def test_each_shape_has_its_recording(tapes):
    standing_in = tapes(on=True)
    double = Captured(lambda x: x * 2)
    for n in [2, 3] * (WARM_UP + 2):
        assert torch.equal(double(torch.full((n,), float(n))), torch.full((n,), 2.0 * n))
    assert standing_in.recorded == 2


def test_a_result_is_overwritten_unless_it_is_kept(tapes):
    tapes(on=True)
    for keep in (False, True):
        double = Captured(lambda x: x * 2, keep=keep)
        for _ in range(WARM_UP):
            double(torch.ones(1))
        first, second = double(torch.ones(1)), double(torch.full((1,), 5.0))
        assert float(second) == 10
        assert float(first) == (2 if keep else 10)


def test_a_step_that_asks_the_host_runs_unrecorded_and_says_so(tapes):
    tapes(on=True)
    calls = []

    def step(x):
        calls.append(float(x))
        return x + 1

    plus = Captured(step)
    for n in range(WARM_UP):
        plus(torch.tensor(float(n)))
    with pytest.warns(UserWarning, match="runs unrecorded"):
        assert float(plus(torch.tensor(7.0))) == 8
    assert float(plus(torch.tensor(8.0))) == 9


def test_recording_can_be_switched_off(tapes, monkeypatch):
    standing_in = tapes(on=True)
    monkeypatch.setenv("FYI_BENCH_GRAPHS", "0")
    double = Captured(lambda x: x * 2)
    for _ in range(WARM_UP + 2):
        double(torch.ones(2))
    assert standing_in.recorded == 0


@pytest.fixture(scope="module")
def all_is_loaded():
    """Libraries that PyTorch loads when it first needs them keep the frames of that moment."""
    distill(tiny.problem(), "dm", tiny.config("dm", 1), "fyi")


@pytest.fixture
def no_collector(all_is_loaded):
    """Python's own search for circles of references, switched off."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.long
@pytest.mark.parametrize("on", [False, True], ids=["plain", "recorded"])
@pytest.mark.parametrize("method", RECORDED)
def test_nothing_of_a_run_outlives_it(tapes, no_collector, method, on):
    """The images of a run, its networks and its recordings can be gigabytes of a GPU's memory."""
    tapes(on)
    space = METHODS.get(method).space_kind
    problem = tiny.problem(**({"space": tiny.SPACES[space]} if space in tiny.SPACES else {}))
    left = weakref.ref(problem)
    distill(problem, method, tiny.config(method, WARM_UP + 2), "fyi")
    del problem
    assert left() is None


@pytest.mark.parametrize("on", [False, True], ids=["plain", "recorded"])
def test_nothing_of_a_training_outlives_it(tapes, no_collector, monkeypatch, on):
    tapes(on)
    left, make = [], training._Images.__init__

    def watched(self, *given) -> None:
        left.append(weakref.ref(self))
        make(self, *given)

    monkeypatch.setattr(training._Images, "__init__", watched)
    rules = replace(protocol("quick", "accuracy"), epochs=WARM_UP + 2, min_steps=0)
    network = new_network(tiny.MODEL, tiny.real_set(), 0)
    left.append(weakref.ref(network))
    train_together([network], tiny.real_set(), rules, [0])
    del network
    config = ExpertConfig(
        model=tiny.MODEL, epochs=3, lr=0.05, momentum=0.5, wd=0.0, batch=8, augment="flip", dispatcher="dsa",
        storage="fp32",
    )  # fmt: skip
    problem = tiny.problem(experts=lambda: ())
    left.append(weakref.ref(problem))
    train_expert(problem, config)
    del problem
    assert [ref() for ref in left] == [None] * 3


def test_a_step_ends_with_the_run_it_was_made_in():
    with captured.recordings():
        double = Captured(lambda x: x * 2)
        assert float(double(torch.ones(()))) == 2
    with pytest.raises(RuntimeError, match="was released"):
        double(torch.ones(()))
    assert float(Captured(lambda x: x * 2)(torch.ones(()))) == 2  # what is made outside keeps itself


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("method", RECORDED)
def test_on_a_gpu_graphs_make_the_images_of_plain_calls(method, monkeypatch):
    found = []
    for graphs in ("0", "1"):
        monkeypatch.setenv("FYI_BENCH_GRAPHS", graphs)
        problem = tiny.problem(dtype=torch.float64, device=torch.device("cuda"))
        found.append(distill(problem, method, tiny.config(method, WARM_UP + 4), "fyi"))
    torch.testing.assert_close(found[1].images, found[0].images, rtol=1e-5, atol=1e-5)


def test_a_step_is_recorded_on_the_stream_that_replays_it(monkeypatch):
    ordinary, own, recorded_on = object(), object(), []

    @contextlib.contextmanager
    def graph(graph, stream, capture_error_mode):
        recorded_on.append(stream)
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "default_stream", lambda: ordinary)
    for stream in (ordinary, own):
        monkeypatch.setattr(torch.cuda, "current_stream", lambda stream=stream: stream)
        CudaGraphs.record(torch.neg, [torch.ones(1)])
    assert recorded_on == [None, own]  # None: the stream that PyTorch keeps for it

"""Class-incremental learning: published orders, the protocol's rules, and the memory inside Avalanche's own plugins."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import downstream.continual
import fyi_bench
import tiny
from distill.engine import distill
from distill.image_set import concatenate
from downstream.continual import (
    Rehearsal,
    as_dataset,
    avalanche,
    class_order,
    condensed_buffer_class,
    scenario,
    step_classes,
)
from downstream.protocol import protocol
from downstream.training import new_network
from fyi_bench.errors import DataError, UsageError
from fyi_bench.rng import key_seed
from golden import golden_json

CLASSES, STEPS = 6, 3
ORDER = [4, 0, 5, 2, 1, 3]


@pytest.fixture(scope="module")
def real():
    return tiny.real_set(CLASSES, 8)


@pytest.fixture(scope="module")
def benchmark(real):
    return scenario(real, tiny.real_set(CLASSES, 6), tiny.SPACE, ORDER, STEPS)


@pytest.fixture(scope="module")
def sets(real):
    config = tiny.config("random")
    return [distill(tiny.problem(real=real, classes=tuple(c)), "random", config) for c in step_classes(ORDER, STEPS)]


def small_protocol(**changes):
    return dataclasses.replace(protocol("quick", "continual"), epochs=2, min_steps=0, eval_model=tiny.MODEL, **changes)


def test_case_12_class_orders():
    for seed, order in golden_json("case12_class_orders").items():
        assert class_order(int(seed), len(order)) == order


def test_class_orders_leave_numpy_alone():
    before = np.random.get_state()[1].copy()
    class_order(3, 100)
    assert (np.random.get_state()[1] == before).all()


def test_steps_that_do_not_divide():
    with pytest.raises(UsageError, match=r"4 steps do not divide 6 classes.\nChoose --steps from 1, 2, 3, 6"):
        step_classes(ORDER, 4)


def test_scenario_follows_the_order(benchmark):
    seen = [sorted(int(c) for c in e.classes_in_this_experience) for e in benchmark.train_stream]
    assert seen == [sorted(c) for c in step_classes(ORDER, STEPS)]


def test_labels_are_python_ints(benchmark):
    image, label, *_ = benchmark.train_stream[0].dataset[0]
    assert type(label) is int
    assert image.dtype == torch.float32


def test_accuracy_is_on_all_classes_seen_and_repeats(benchmark, sets):
    rehearsal = Rehearsal(benchmark, sets, small_protocol())
    results = [rehearsal.after_step(step, seed=0) for step in range(STEPS)]
    assert [r.classes_seen for r in results] == [2, 4, 6]
    assert [r.images for r in results] == [4, 8, 12]
    assert all(0 <= r.accuracy <= 1 for r in results)
    assert rehearsal.after_step(1, seed=0) == results[1]


def test_avalanche_counts_as_the_trainer_does(benchmark, sets, real):
    """The stream accuracy of Avalanche equals a plain count over the test images of the classes seen."""
    from downstream.training import Conditions, accuracy, train

    result = Rehearsal(benchmark, sets, small_protocol()).after_step(1, seed=5)
    memory = concatenate(sets[:2])
    seed = key_seed(5, "continual step", 1)
    network = new_network(tiny.MODEL, memory, seed)
    train(network, memory, small_protocol(), seed)
    seen = tiny.real_set(CLASSES, 6).of_classes(ORDER[:4])
    assert result.accuracy == pytest.approx(accuracy(network, seen, Conditions(space=tiny.SPACE)), abs=1e-12)


def test_each_step_starts_from_a_new_network(benchmark, sets):
    """Step 2 alone gives what step 2 after step 1 gives: nothing is carried over but the memory."""
    alone = Rehearsal(benchmark, sets, small_protocol()).after_step(2, seed=0)
    rehearsal = Rehearsal(benchmark, sets, small_protocol())
    rehearsal.after_step(0, seed=0)
    rehearsal.after_step(1, seed=0)
    assert rehearsal.after_step(2, seed=0) == alone


def test_first_weights_of_steps_differ(benchmark, sets, monkeypatch):
    """As in the published code every step draws a network of its own; untrained ones show the draw."""
    drawn = []

    def draw(*given):
        drawn.append(new_network(*given))
        return drawn[-1]

    monkeypatch.setattr(downstream.continual, "new_network", draw)
    monkeypatch.setattr(downstream.continual, "train", lambda *given: None)
    for step in (0, 1, 1):
        Rehearsal(benchmark, sets, small_protocol()).after_step(step, seed=0)
    first, second, again = ([p.detach() for p in network.parameters()] for network in drawn)
    assert all(map(torch.equal, second, again))
    assert not any(map(torch.equal, first[:1], second[:1]))


def test_global_generator_is_left_alone(benchmark, sets):
    before = torch.get_rng_state()
    Rehearsal(benchmark, sets, small_protocol()).after_step(0, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_memory_refuses_more_than_its_size(sets):
    memory = condensed_buffer_class()(lambda exp: sets[0], max_size=6)
    memory.append(sets[0])
    with pytest.raises(DataError, match="would hold 8 images, more than its 6"):
        memory.append(sets[1])
    with pytest.raises(DataError, match="cannot be shrunk"):
        memory.resize(None, 3)


@pytest.mark.parametrize(("method", "worth", "shown"), [("haba", 10, 4), ("rtp", 4, 208)])
def test_memory_of_sets_that_store_something_else_than_images(benchmark, real, method, worth, shown):
    made = [
        distill(tiny.problem(real=real, classes=tuple(c)), method, tiny.config(method, 1))
        for c in step_classes(ORDER, STEPS)[:2]
    ]
    memory = condensed_buffer_class()(lambda exp: made[0], max_size=2 * worth)
    for one in made:
        memory.append(one)
    with pytest.raises(DataError, match=f"would hold {3 * worth} images, more than its {2 * worth}"):
        memory.append(made[1])
    result = Rehearsal(benchmark, made, small_protocol()).after_step(1, seed=0)
    assert result == Rehearsal(benchmark, made, small_protocol()).after_step(1, seed=0)
    assert result.images == 2 * shown
    assert 0 <= result.accuracy <= 1


def strategy_with(plugin):
    import search_space
    from fyi_bench import rng

    network = search_space.build(tiny.MODEL, 3, tiny.SIZE, CLASSES, rng.stream(0, "net"))
    return avalanche().SupervisedTemplate(
        model=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.05),
        train_mb_size=8,
        train_epochs=1,
        eval_mb_size=32,
        plugins=[plugin],
        evaluator=avalanche().EvaluationPlugin(
            avalanche().accuracy_metrics(stream=True), loggers=[avalanche().BaseLogger()]
        ),
    )


def buffer_options():
    small = {k: str(v) for k, v in {"model": tiny.MODEL, "iterations": 1, "batch_real": 4}.items()}
    return {"max_size": 12, "dataset": "cifar10", "overrides": small}


@pytest.mark.parametrize("plugin", ["ReplayPlugin", "GDumbPlugin"])
def test_buffer_inside_avalanches_own_plugins(benchmark, plugin):
    from avalanche.training import plugins

    memory = fyi_bench.CondensedBuffer("dsa", fyi=True, **buffer_options())
    if plugin == "ReplayPlugin":
        made = plugins.ReplayPlugin(mem_size=12, storage_policy=memory)
    else:
        made = plugins.GDumbPlugin(mem_size=12)
        made.storage_policy = memory
    with torch.random.fork_rng(devices=[]):
        strategy = strategy_with(made)
        for step, experience in enumerate(benchmark.train_stream):
            strategy.train(experience)
            metrics = strategy.eval(benchmark.test_stream[: step + 1])
    assert len(memory.image_set) == 12
    assert memory.image_set.ipc == 2
    assert sorted(memory.image_set.classes) == list(range(CLASSES))
    assert len(memory.buffer) == 12
    assert any(key.startswith("Top1_Acc_Stream/eval_phase/test_stream") for key in metrics)


def test_dataset_of_a_set_keeps_order_and_labels(sets):
    dataset = as_dataset(sets[0])
    assert [dataset[i][1] for i in range(len(dataset))] == sets[0].labels.tolist()
    assert torch.equal(dataset[0][0], sets[0].images[0])

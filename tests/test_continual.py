"""Class-incremental learning: published orders, the protocol's rules, and the memory inside Avalanche's own plugins."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import tiny
from distill.engine import distill
from distill.image_set import ImageSet, concatenate
from distill.spaces import PixelSpace
from downstream.continual import rehearsal as rehearsal_module
from downstream.continual.buffer import SetBuffer, as_dataset
from downstream.continual.judge import Judge, backward_transfer, forgetting, score
from downstream.continual.library import EvaluationPlugin, accuracy_metrics
from downstream.continual.memory import MemoryDataset, image_bytes, kept_as
from downstream.continual.rehearsal import Rehearsal, scenario
from downstream.continual.steps import Steps, class_order, named_orders, step_sizes
from downstream.continual.streams import STRATEGIES, Stream
from downstream.protocol import protocol
from downstream.training import new_network
from fyi_bench.errors import DataError, UnknownNameError, UsageError
from fyi_bench.rng import key_seed
from golden import golden_json

CLASSES = 6
ORDER = (4, 0, 5, 2, 1, 3)
STEPS = Steps(ORDER, (2, 2, 2))
TEST = tiny.real_set(CLASSES, 6)


@pytest.fixture(scope="module")
def real():
    return tiny.real_set(CLASSES, 8)


@pytest.fixture(scope="module")
def benchmark(real):
    return scenario(real, TEST, tiny.SPACE, STEPS)


@pytest.fixture(scope="module")
def sets(real):
    config = tiny.config("random")
    return [distill(tiny.problem(real=real, classes=tuple(c)), "random", config) for c in STEPS.classes]


def small_protocol(**changes):
    small = {"epochs": 2, "min_steps": 0, "eval_model": tiny.MODEL}
    return dataclasses.replace(protocol("quick", "continual"), **{**small, **changes})


def rehearsed(benchmark, sets, steps=STEPS):
    return Rehearsal(benchmark, steps, sets, TEST.hard_labels, small_protocol())


def test_case_12_class_orders():
    for seed, order in golden_json("case12_class_orders").items():
        assert class_order(int(seed), len(order)) == order


def test_class_orders_leave_numpy_alone():
    before = np.random.get_state()[1].copy()
    class_order(3, 100)
    assert (np.random.get_state()[1] == before).all()


def test_steps_that_do_not_divide():
    with pytest.raises(UsageError, match=r"4 steps do not divide 6 classes.\nChoose --steps from 1, 2, 3, 6, or"):
        step_sizes(6, 4)


def test_scenario_follows_the_order(benchmark):
    seen = [sorted(int(c) for c in e.classes_in_this_experience) for e in benchmark.train_stream]
    assert seen == [sorted(c) for c in STEPS.classes]


def test_labels_are_python_ints(benchmark):
    image, label, *_ = benchmark.train_stream[0].dataset[0]
    assert type(label) is int
    assert image.dtype == torch.float32


def test_accuracy_is_on_all_classes_seen_and_repeats(benchmark, sets):
    rehearsal = rehearsed(benchmark, sets)
    results = [rehearsal.after_step(step, seed=0) for step in range(len(STEPS))]
    assert [r.classes_seen for r in results] == [2, 4, 6]
    assert all(0 <= r.accuracy <= 1 for r in results)
    assert rehearsal.after_step(1, seed=0) == results[1]


def test_avalanche_counts_as_the_trainer_does(benchmark, sets, real):
    """The stream accuracy of Avalanche equals a plain count over the test images of the classes seen."""
    from downstream.training import Conditions, accuracy, train

    result = rehearsed(benchmark, sets).after_step(1, seed=5)
    memory = concatenate(sets[:2])
    seed = key_seed(5, "continual step", 1)
    network = new_network(tiny.MODEL, memory, seed)
    train(network, memory, small_protocol(), seed)
    seen = TEST.of_classes(ORDER[:4])
    assert result.accuracy == pytest.approx(accuracy(network, seen, Conditions(space=tiny.SPACE)), abs=1e-12)


def test_each_step_starts_from_a_new_network(benchmark, sets):
    """Step 2 alone gives what step 2 after step 1 gives: nothing is carried over but the memory."""
    alone = rehearsed(benchmark, sets).after_step(2, seed=0)
    rehearsal = rehearsed(benchmark, sets)
    rehearsal.after_step(0, seed=0)
    rehearsal.after_step(1, seed=0)
    assert rehearsal.after_step(2, seed=0) == alone


def test_first_weights_of_steps_differ(benchmark, sets, monkeypatch):
    """As in the published code every step draws a network of its own; untrained ones show the draw."""
    drawn = []

    def draw(*given):
        drawn.append(new_network(*given))
        return drawn[-1]

    monkeypatch.setattr(rehearsal_module, "new_network", draw)
    monkeypatch.setattr(rehearsal_module, "train", lambda *given: None)
    for step in (0, 1, 1):
        rehearsed(benchmark, sets).after_step(step, seed=0)
    first, second, again = ([p.detach() for p in network.parameters()] for network in drawn)
    assert all(map(torch.equal, second, again))
    assert not any(map(torch.equal, first[:1], second[:1]))


def test_global_generator_is_left_alone(benchmark, sets):
    before = torch.get_rng_state()
    rehearsed(benchmark, sets).after_step(0, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_memory_refuses_more_than_its_size(sets):
    memory = SetBuffer(6)
    memory.append(sets[0])
    with pytest.raises(DataError, match="would hold 8 images, more than its 6"):
        memory.append(sets[1])
    with pytest.raises(DataError, match="cannot be shrunk"):
        memory.resize(None, 3)


@pytest.mark.parametrize(("method", "worth", "shown"), [("haba", 10, 4), ("rtp", 4, 336)])
def test_memory_of_sets_that_store_something_else_than_images(benchmark, real, method, worth, shown):
    made = [
        distill(tiny.problem(real=real, classes=tuple(c)), method, tiny.config(method, 1)) for c in STEPS.classes[:2]
    ]
    memory = SetBuffer(2 * worth)
    for one in made:
        memory.append(one)
    with pytest.raises(DataError, match=f"would hold {3 * worth} images, more than its {2 * worth}"):
        memory.append(made[1])
    result = rehearsed(benchmark, made).after_step(1, seed=0)
    assert result == rehearsed(benchmark, made).after_step(1, seed=0)
    assert concatenate(made).items == 2 * shown
    assert 0 <= result.accuracy <= 1


def test_dataset_of_a_set_keeps_order_and_labels(sets):
    dataset = as_dataset(sets[0])
    assert [dataset[i][1] for i in range(len(dataset))] == sets[0].labels.tolist()
    assert torch.equal(dataset[0][0], sets[0].images[0])


# other scenarios -----------------------------------------------------------------------------------------------------


def test_first_step_unequal_steps_and_what_is_refused():
    assert step_sizes(100, 10, base=50) == (50, *[5] * 10)
    assert step_sizes(6, 10, sizes=(3, 1, 2)) == (3, 1, 2)
    with pytest.raises(UsageError, match="3 steps do not divide 5 classes that are left after --base 1"):
        step_sizes(6, 3, base=1)
    with pytest.raises(UsageError, match="leaves no classes"):
        step_sizes(6, 1, base=6)
    with pytest.raises(UsageError, match="make 5 classes, the data set has 6"):
        step_sizes(6, 1, sizes=(3, 2))
    with pytest.raises(UsageError, match="Domain-incremental steps bring the same number"):
        Steps(ORDER, (3, 1, 2), "domain")


def test_orders_by_name():
    names = [f"c{k}" for k in range(100)]
    assert named_orders("paper", "cifar100", [3], names) == [class_order(3, 100)]
    assert named_orders("lucir", "cifar100", [0], names) == [class_order(1993, 100)]
    assert len(named_orders("podnet", "cifar100", [0], names)) == 3
    assert named_orders("icarl", "cifar100", [0], names)[0] == named_orders("der", "cifar100", [0], names)[2]
    for name in ("icarl", "lucir", "podnet", "der", "superclass"):
        assert all(sorted(order) == list(range(100)) for order in named_orders(name, "cifar100", [0, 1], names))
    first, second = named_orders("superclass", "cifar100", [0, 1], names)
    assert first != second
    assert sorted(first[:5]) in [sorted(second[k : k + 5]) for k in range(0, 100, 5)]
    with pytest.raises(UnknownNameError, match="icarl"):
        named_orders("icral", "cifar100", [0], names)
    with pytest.raises(UnknownNameError, match="class order of mnist"):
        named_orders("icarl", "mnist", [0], names[:10])


def test_an_order_from_a_file(tmp_path):
    names, path = ["cat", "dog", "7"], tmp_path / "order.txt"
    path.write_text("# mine\ndog\ncat\n2\n\n0, 1, 2\n")
    assert named_orders(str(path), "shapes10", [0], names) == [[1, 0, 2], [0, 1, 2]]
    for text, problem in (("cat\ncat\ndog", "class 0 twice"), ("cat", "1 of 3 classes"), ("cow", "'cow'")):
        path.write_text(text)
        with pytest.raises(DataError, match=problem):
            named_orders(str(path), "shapes10", [0], names)


@pytest.mark.parametrize("kind", ["task", "domain"])
def test_what_a_network_is_told_and_asked(real, sets, kind):
    steps = Steps(ORDER, (2, 2, 2), kind)
    result = rehearsed(scenario(real, TEST, tiny.SPACE, steps), sets, steps).after_step(1, seed=0)
    network = new_network(tiny.MODEL, sets[0], key_seed(0, "continual step", 1), steps.outputs)
    learned = steps.asked(concatenate(sets[:2]))
    from downstream.training import train

    train(network, learned, small_protocol(), key_seed(0, "continual step", 1))
    right = []
    for classes in steps.classes[:2]:
        seen = TEST.of_classes(classes).to_space(tiny.SPACE)
        answers = network.eval()(seen.images)
        if kind == "task":
            answers = answers + scenario_mask(classes)
        right += (answers.argmax(1) == steps.answers[seen.labels]).tolist()
    assert result.accuracy == pytest.approx(sum(right) / len(right), abs=1e-12)


def scenario_mask(classes):
    mask = torch.full((CLASSES,), float("-inf"))
    mask[torch.tensor(classes)] = 0
    return mask


# strategies that see the current step's data --------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_repeat_and_leave_generators_alone(real, sets, name):
    import random

    small = small_protocol(epochs=1, batch=8, eval_augment="crop_flip")
    stream = Stream(name, STEPS, real, TEST, tiny.SPACE, small, memory=2, sets=sets)
    before, python = torch.get_rng_state(), random.getstate()
    scores = stream.run(0)
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == python
    assert [one.classes_seen for one in scores] == [2, 4, 6]
    assert scores == stream.run(0)


def test_strategies_that_a_scenario_does_not_suit(real):
    with pytest.raises(UsageError, match="icarl compares answers for all classes"):
        Stream("icarl", Steps(ORDER, (2, 2, 2), "task"), real, TEST, tiny.SPACE, small_protocol()).run(0)


# the judge -----------------------------------------------------------------------------------------------------------


def answers_of(judge, step, known):
    """A learner's answers: right for the classes it knows, the first of these for all others."""
    labels = judge.labels[judge.test_of(step)]
    return torch.where(torch.isin(labels, torch.tensor(known)), labels, torch.tensor(known[0]))


def test_a_learner_that_forgets_everything_gets_what_it_earned():
    judge = Judge(STEPS, TEST.labels)
    for step, classes in enumerate(STEPS.classes):
        judge.after(step, answers_of(judge, step, classes))
    assert [one.accuracy for one in judge.scores] == pytest.approx([1, 1 / 2, 1 / 3])
    assert judge.metrics["StreamForgetting"] == 1
    assert judge.metrics["StreamBWT"] == -1
    assert judge.scores[2].confusion == {
        "old": {"right": 0, "old": 0, "new": 24},
        "new": {"right": 12, "old": 0, "new": 0},
    }


def test_averaging_earlier_steps_does_not_help():
    """Told by itself such a learner would have (1 + 1/2 + 1/3) / 3 after the last step; the judge counts answers."""
    judge = Judge(STEPS, TEST.labels)
    for step, classes in enumerate(STEPS.classes):
        judge.after(step, answers_of(judge, step, classes))
    assert judge.metrics["Top1_Acc_Stream"] == pytest.approx(1 / 3)
    assert judge.metrics["average"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    with pytest.raises(DataError, match="Step 4 comes next, not 1"):
        judge.after(0, answers_of(judge, 0, STEPS.classes[0]))


def test_training_on_test_images_is_refused(real):
    judge = Judge(STEPS, MemoryDataset(TEST, tiny.SPACE))
    train_set = MemoryDataset(real.of_classes(STEPS.classes[0]), tiny.SPACE)
    judge.saw(0, *zip(*train_set, strict=True))
    cheated = [*train_set, next(item for item in judge.test if item[1] in STEPS.classes[0])]
    with pytest.raises(DataError, match="is a test image"):
        judge.saw(0, *zip(*cheated, strict=True))


def test_classes_that_are_redrawn_are_refused():
    judge = Judge(STEPS, TEST.labels)
    with pytest.raises(DataError, match="class 5, which comes later or never"):
        judge.saw(0, [torch.zeros(3, 8, 8)], [5])
    with pytest.raises(DataError, match="tested on the 2 classes seen"):
        score(STEPS, 0, TEST.labels, TEST.labels)


def test_metrics_are_avalanches_own(benchmark):
    """Forgetting and transfer of Naive fine-tuning, counted by Avalanche's metrics and by the judge's definitions."""
    from avalanche.evaluation.metrics import bwt_metrics, forgetting_metrics
    from avalanche.training import Naive

    from downstream.continual.rehearsal import Answers, scored
    from downstream.continual.streams import _lent
    from fyi_bench import rng

    network = new_network(tiny.MODEL, TEST, 0, CLASSES)
    told = EvaluationPlugin(
        accuracy_metrics(stream=True), forgetting_metrics(stream=True), bwt_metrics(stream=True), loggers=[]
    )
    with _lent(rng.stream(0, "metrics")):
        naive = Naive(
            model=network, optimizer=torch.optim.SGD(network.parameters(), lr=0.1), train_mb_size=8, eval_mb_size=32,
            plugins=[Answers()], evaluator=told,
        )  # fmt: skip
        scores = []
        for step, experience in enumerate(benchmark.train_stream):
            naive.train(experience, num_workers=0)
            scores.append(scored(naive, benchmark, STEPS, step, TEST.hard_labels))
    last = told.get_last_metrics()
    rows = [one.per_experience for one in scores]
    assert forgetting(rows) == pytest.approx(last["StreamForgetting/eval_phase/test_stream"], abs=1e-9)
    assert backward_transfer(rows) == pytest.approx(last["StreamBWT/eval_phase/test_stream"], abs=1e-9)
    plain = score(
        STEPS, 2,
        torch.cat([torch.full((6,), c) for c in sorted(STEPS.seen(2))]),
        torch.cat([network.eval()(TEST.of_classes([c]).to_space(tiny.SPACE).images).argmax(1) for c in range(6)]),
    )  # fmt: skip
    assert plain.accuracy == pytest.approx(scores[-1].accuracy, abs=1e-9)
    assert plain.per_class == pytest.approx(scores[-1].per_class)


# what a memory costs --------------------------------------------------------------------------------------------------


def test_bytes_of_a_memory(real, sets):
    made = distill(tiny.problem(real=real, classes=(0, 1)), "dm", tiny.config("dm"))
    values = made.images.numel()
    assert image_bytes(made) == 4 * values
    assert image_bytes(sets[0]) == sets[0].images.numel()  # real images: a byte a value
    back, parts = kept_as(made, "uint8")
    assert parts == {"stored": values, "labels": 0, "decoder": 0}
    assert torch.equal(back.labels, made.labels)
    assert (back.pixels() - made.pixels().clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-5
    ramp = torch.linspace(0.1, 0.9, 16).expand(2, 3, 16, 16).contiguous()
    smooth = ImageSet(ramp, torch.tensor([0, 1]), PixelSpace(), 2)
    pressed, parts = kept_as(dataclasses.replace(smooth, labels=torch.eye(2)), "jpeg")
    assert 0 < parts["stored"] < 4 * ramp.numel()
    assert parts["labels"] == 2 * 2 * 4
    assert (pressed.pixels() - ramp).abs().max() < 0.05
    with pytest.raises(UnknownNameError, match="storage of a memory"):
        kept_as(made, "jpg2")

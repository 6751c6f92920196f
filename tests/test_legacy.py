"""Legacy protocols: each does what its source does, sets on their way are those of shorter runs, the best is picked."""

from __future__ import annotations

import dataclasses
import json

import pytest

import tiny
from commands import arguments, run
from distill.image_set import ImageSet
from distill.recipes import recipe
from downstream.accuracy import train_and_test
from downstream.protocol import protocol, protocol_data, protocol_names
from downstream.training import train
from fyi_bench.data import load_dataset
from fyi_bench.errors import UsageError
from fyi_bench.run.run_type import Worker, ensure
from fyi_bench.run.types.distill import distill_run
from fyi_bench.run.types.trail import raw_name, set_name, trail_run
from fyi_bench.store.store import Store
from fyi_bench.tasks.measured import pick

LEGACY = [name for name in protocol_names() if name.startswith("legacy-")]


def small(name: str = "legacy-mtt", **changes):
    base = dataclasses.replace(protocol(name, "accuracy", "mtt"), eval_model=tiny.MODEL, epochs=4, extra_epoch=False)
    return dataclasses.replace(base, **changes)


def test_every_legacy_protocol_says_what_it_is_and_has_accuracy_alone():
    assert len(LEGACY) >= 7
    for name in LEGACY:
        assert protocol_data(name)["about"]
        assert set(protocol_data(name)["task"]) == {"accuracy"}
        with pytest.raises(UsageError, match="no settings for 'continual'"):
            protocol(name, "continual")


def test_the_published_procedures_are_as_published():
    mtt, ftd, idc = (protocol(f"legacy-{name}", "accuracy", name) for name in ("mtt", "ftd", "idc"))
    assert (mtt.epochs, mtt.extra_epoch, mtt.lr_from_set, mtt.nets, mtt.checkpoints_every) == (1000, True, True, 5, 100)
    assert mtt.checkpoints(5000)[:2] == [0, 100]
    assert len(mtt.checkpoints(5000)) == 51
    assert (ftd.warm, ftd.checkpoints_every) == ("raw", 100)
    assert (idc.tests, idc.batch, idc.cutmix, idc.eval_dispatcher) == (4, 64, 0.5, "idc")
    datadam = protocol("legacy-datadam", "accuracy", "datadam")
    assert (datadam.epochs, datadam.batch, datadam.nets, datadam.checkpoints_every) == (1800, 64, 10, 2000)
    code, text = (protocol(f"legacy-fyi-{kind}", "accuracy", "dc") for kind in ("code", "text"))
    assert (code.eval_dispatcher, code.epochs, code.eval_augment) == ("dsa-flip-first", 300, "none")
    assert (text.epochs, text.eval_augment, text.lr_from_set) == (1000, small().eval_augment, False)
    assert text.nets * text.sets == 100
    assert protocol("legacy-fyi-code", "accuracy", "mtt").checkpoints(10_000)[0] == 5000


@pytest.mark.parametrize("method", ["mtt", "ftd"])
def test_the_code_of_fyi_looks_at_51_sets_on_their_way(method):
    found = recipe(method, "cifar10", 10, "legacy-fyi-code").values
    assert len(protocol("legacy-fyi-code", "accuracy", method).checkpoints(found["iterations"])) == 51


def test_only_legacy_protocols_choose_on_test_images():
    for name in protocol_names():
        for method in (None, "dc", "dsa", "dm", "idc", "mtt", "ftd", "datadam", "cafe"):
            p = protocol(name, "accuracy", method)
            chooses = p.tests > 1 or p.checkpoints_every > 0 or p.warm != "none"
            assert name.startswith("legacy-") or not chooses


def test_digests_of_other_protocols_do_not_know_of_the_quirks():
    assert not {"tests", "warm", "checkpoints_every"} & set(protocol("paper", "accuracy").keyed())
    assert protocol("legacy-idc", "accuracy").keyed()["tests"] == 4


def test_no_checkpoint_is_an_error_that_tells_what_to_give():
    with pytest.raises(UsageError, match=r"after 5000 iterations.*\n.*checkpoints_from"):
        protocol("legacy-fyi-code", "accuracy", "mtt").checkpoints(200)


def test_the_best_mean_is_picked_and_of_equal_ones_the_first():
    found = pick({0: [0.1, 0.3], 200: [0.4, 0.4], 100: [0.3, 0.5]})
    assert (found.iteration, found.values) == (100, [0.3, 0.5])
    assert found.means == {0: pytest.approx(0.2), 100: pytest.approx(0.4), 200: pytest.approx(0.4)}


def test_the_best_of_several_tests_is_the_result_and_testing_changes_no_training():
    real = tiny.real_set()
    train_set = real.to_space(tiny.SPACE)
    [once] = train_and_test(train_set, real, small("legacy-mtt"), [3])
    [often] = train_and_test(train_set, real, small("legacy-mtt", tests=4), [3])
    assert once.tests == (once.accuracy,)
    assert len(often.tests) == 4
    assert often.tests[-1] == once.accuracy
    assert often.accuracy == max(often.tests)


def test_a_warm_network_is_one_trained_twice():
    from downstream.training import Conditions, accuracy, new_network

    real = tiny.real_set()
    first = real.to_space(tiny.SPACE)
    second = dataclasses.replace(first, images=first.images * 0.5)
    [found] = train_and_test(second, real, small(), [0], warm_set=first)
    network = new_network(tiny.MODEL, second, 0)
    for image_set in (first, second):
        train(network, image_set, small(), 0)
    assert found.accuracy == accuracy(network, real, Conditions(space=second.space))


@pytest.mark.parametrize("method", ["dm", "ftd"])
def test_sets_on_the_way_are_those_of_shorter_runs(tmp_path, method, monkeypatch):
    import fyi_bench.data

    # the tiny set under the name of a built-in one
    shapes = load_dataset("shapes10")
    rows = [i for c in range(10) for i in shapes.train.indices_of(c)[:6].tolist()]
    few = dataclasses.replace(shapes, train=shapes.train.select(rows), sums={})
    monkeypatch.setattr(fyi_bench.data, "load_dataset", lambda name, root=None, test=True, **k: few)
    small_values = {"model": "convnet-w8", "batch_real": "4", "syn_steps": "1"}
    small_values |= {
        "lr_img": "30",
        "experts": "1",
        "expert_train_epochs": "2",
        "max_start_epoch": "1",
        "expert_epochs": "1",
    }
    recipes = recipe(method, "shapes10", 1, "quick")
    given = {key: value for key, value in small_values.items() if key in recipes.values}
    worker = Worker(Store(tmp_path))

    def made(iterations: int):
        return distill_run(few, method, "fyi", 1, 0, recipes.with_overrides({**given, "iterations": str(iterations)}))

    raw = method == "ftd"
    trail = trail_run(made(3), [0, 2, 3], raw)
    record = ensure(trail, worker)
    for iteration in (2, 3):
        alone = ensure(made(iteration), worker)
        assert record["set_digests"][str(iteration)] == alone["set_digest"]
    assert record["iterations"] == 3
    if raw:
        files = [ImageSet.load(worker.store.artefact("trail", trail.digest, make(3))) for make in (set_name, raw_name)]
        assert files[0].digest != files[1].digest


def test_distill_under_a_legacy_protocol_picks_per_arm_and_says_so(tmp_path):
    small_run = {"iterations": "2", "checkpoints_every": "1", "batch_real": "4"}
    words = ("distill", "--method", "dm", "--ipc", "1", "--fyi", "--protocol", "legacy-datadam", "--threads", "1")
    words = arguments(*words, store=tmp_path, **small_run)
    run(*words, "--json", str(tmp_path / "r.json"))
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["chosen_on_test"] is True
    assert record["protocol"]["name"].startswith("legacy-datadam+checkpoints_every=1")
    for arm in record["arms"][:2]:
        entry = arm["architectures"][0]
        means = entry["checkpoints"][0]
        assert set(means) == {"0", "1", "2"}
        assert entry["mean"] == pytest.approx(max(means.values()))
        assert arm["iterations"] == entry["picked"][0]
        assert ImageSet.load(arm["set"]).digest == arm["set_digest"]
    assert set(record["arms"][2]["architectures"][0]["checkpoints"][0]) == {"0"}  # real images have no way


def test_a_file_is_evaluated_as_one_checkpoint_but_not_where_more_is_needed(tmp_path):
    own = tmp_path / "s.safetensors"
    shapes = load_dataset("shapes10")
    shapes.train.select([int(shapes.train.indices_of(c)[0]) for c in range(10)]).to_space(shapes.space).save(own)
    common = ("--dataset", "shapes10", "--store", str(tmp_path / "runs"), "--quiet", "--threads", "1")
    sets = [w for k in ("eval_model=convnet-w8", "epochs=1", "nets=1") for w in ("--set", k)]
    done = run("evaluate", str(own), "--protocol", "legacy-mtt", *common, *sets)
    assert "this file is taken as the only one" in done.stdout
    done = run("evaluate", str(own), "--protocol", "legacy-ftd", *common, *sets, check=2)
    assert "images behind the average" in done.stderr
    done = run("table", "1", "--protocol", "legacy-mtt", *common[2:], check=2)
    assert "best of checkpoints" in done.stderr

"""`continual`: sets of one's own, class orders and scenarios, what a memory is held against, and the record."""

from __future__ import annotations

import pytest
import torch

import fyi_bench
from distill.image_set import ImageSet
from downstream.continual.steps import class_order
from fyi_bench.config import Settings
from fyi_bench.data import load_dataset
from fyi_bench.errors import UnknownNameError, UsageError
from fyi_bench.run.estimate import work_of
from fyi_bench.run.types.continual import steps_of
from fyi_bench.session import Session
from fyi_bench.store.record import read_record
from fyi_bench.tasks.base import TASKS

TINY = {
    "model": "convnet-w8-d1", "eval_model": "convnet-w8-d1", "epochs": "1", "min_steps": "2", "batch": "64",
}  # fmt: skip


@pytest.fixture(scope="module")
def shapes():
    return load_dataset("shapes10")


@pytest.fixture(scope="module")
def files(shapes, tmp_path_factory):
    """The same images in three layouts: ours of all classes, ours one a step, and DM's file of steps."""
    folder = tmp_path_factory.mktemp("sets")
    order = class_order(0, 10)
    picked = torch.cat([shapes.train.indices_of(c)[:2] for c in order])
    whole = shapes.train.select(picked).to_space(shapes.space)
    told = {"dataset": "shapes10", "method": "mine", "flip": "none"}
    whole = ImageSet(whole.images, whole.labels, whole.space, 10, shapes.class_names, provenance=told)
    steps = [whole.of_classes(order[:4]), whole.of_classes(order[4:])]
    pairs = [[whole.of_classes(order[k : k + 5]).images, whole.of_classes(order[k : k + 5]).labels] for k in (0, 5)]
    torch.save({"data": pairs}, folder / "cl_DM_shapes10_ConvNet_2ipc_2steps_seed0.pt")
    return {
        "whole": [whole.save(folder / "whole" / "set.safetensors")],
        "steps": [one.save(folder / f"step{k}" / "set.safetensors") for k, one in enumerate(steps)],
        "dm": [folder / "cl_DM_shapes10_ConvNet_2ipc_2steps_seed0.pt"],
    }


def planned(tmp_path, seeds=1, settings=None, **options):
    task = TASKS.get("continual")()
    session = Session(Settings(dataset="shapes10", store=tmp_path, seeds=seeds, **(settings or {})))
    return task.plan(session, task.Options(**options), {})


def last_of(plan, kind="continual"):
    runs = [run for run in plan.runs if run.kind == kind]
    return [run for run in runs if run.inputs.get("step", run.inputs["steps"] - 1) == run.inputs["steps"] - 1]


def test_sets_of_three_layouts_beside_a_method(files, tmp_path):
    """One command, one table: the same images as one set of all classes, one a step, and DM's file."""
    record = fyi_bench.continual(
        "random", sets=[*files["whole"], *files["dm"]], steps=2, order="paper", ipc=2, seeds=1,
        dataset="shapes10", store=tmp_path, workers=1, against="none", overrides=TINY | {"draws": "1"},
    )  # fmt: skip
    ours, whole, dm = record["arms"]
    assert [ours["method"], whole["method"], dm["method"]] == ["random", "mine", "dm"]
    assert whole["accuracy"] == dm["accuracy"]  # the same images in the same steps
    assert [row["images"] for row in whole["accuracy"]] == [10, 20]
    assert [row["bytes"] for row in whole["accuracy"]] == [10 * 3072, 20 * 3072]
    assert record["order"] == "paper"
    assert record["class_orders"] == [class_order(0, 10)]
    assert set(whole["per_class"]) == set(map(str, range(10)))
    assert len(whole["per_experience"][1]) == 2
    assert sum(whole["confusion"][1]["old"].values()) == sum(whole["confusion"][1]["new"].values()) == 500
    assert {"Top1_Acc_Stream", "StreamForgetting", "StreamBWT", "average"} == set(whole["metrics"])
    assert whole["metrics"]["Top1_Acc_Stream"]["mean"] == whole["accuracy"][-1]["mean"]
    assert next((tmp_path / "reports").glob("continual-*/memory.png")).stat().st_size > 0
    assert read_record(next((tmp_path / "reports").glob("continual-*.json")))["steps"] == 2


def test_sets_one_a_step_say_the_order_and_the_steps(files, tmp_path):
    plan = planned(tmp_path, sets=tuple(files["steps"]), against=("none",), seeds=2)
    assert plan.title.endswith("continual mine · shapes10 · 2 steps · 1 class order, 2 seeds · 2 images per class")
    plan = planned(tmp_path, sets=tuple(files["steps"]), against=("none",))
    [run] = last_of(plan)
    assert run.inputs["order"] == class_order(0, 10)
    assert run.inputs["sizes"] == [4, 6]
    assert len(run.inputs["files"]) == 2
    assert steps_of(run.inputs, 10).classes[0] == class_order(0, 10)[:4]
    [run] = last_of(planned(tmp_path, sets=tuple(files["dm"]), against=("none",)))
    assert run.inputs["order"] == class_order(0, 10)
    assert (run.inputs["steps"], "sizes" in run.inputs) == (2, False)


def test_memories_are_called_as_the_user_says(files, tmp_path):
    plan = planned(tmp_path, sets=tuple(files["steps"]), names=("random",), against=("none",))
    assert plan.title.startswith("continual random · ")
    assert plan.digest == planned(tmp_path, sets=tuple(files["steps"]), against=("none",)).digest
    with pytest.raises(UsageError, match="2 --name for 1 memories"):
        planned(tmp_path, sets=tuple(files["steps"]), names=("a", "b"))


def test_sets_that_are_no_memory_together_are_refused(files, tmp_path):
    with pytest.raises(UsageError, match=r"Of set.safetensors, with some of the classes each, none has class"):
        planned(tmp_path, sets=tuple(files["steps"][:1]))
    with pytest.raises(UsageError, match=r"two have class"):
        planned(tmp_path, sets=(*files["steps"], files["steps"][1]))
    with pytest.raises(UsageError, match="the sets that were given have no steps"):
        planned(tmp_path, sets=tuple(files["whole"]), order="sets")


def test_published_protocol_is_keyed_as_before(tmp_path):
    """What is as published leaves no trace in a run's inputs, so that results made before are found."""
    plan = planned(tmp_path, method="dm", ipc=1, steps=5, against=("random",))
    known = {
        "dataset", "train_data", "test_data", "sets", "order_seed", "steps", "step", "protocol", "seed", "precision",
        "numerics",
    }  # fmt: skip
    assert {frozenset(run.inputs) for run in plan.runs if run.kind == "continual"} == {frozenset(known)}


def test_first_step_order_scenario_and_total(tmp_path):
    path = tmp_path / "order.txt"
    path.write_text(", ".join(map(str, range(10))))
    plan = planned(
        tmp_path, method="dm", ipc=1, base=5, steps=5, order=str(path), scenario="task", memory=20, against=("none",)
    )
    [run] = last_of(plan)
    assert run.inputs["sizes"] == [5, 1, 1, 1, 1, 1]
    assert (run.inputs["order"], run.inputs["scenario"], run.inputs["cut"]) == (list(range(10)), "task", 2)
    made = [each.inputs["ipc"] for each in plan.runs if each.kind == "distill"]
    assert made == [4, 3, 2, 2, 2, 2]  # 20 images over 5, 6, … classes
    with pytest.raises(UsageError, match="is no image for each of 10 classes"):
        planned(tmp_path, method="dm", memory=9, steps=5)
    with pytest.raises(UnknownNameError, match="comparison"):
        planned(tmp_path, against=("jont",))
    with pytest.raises(UnknownNameError, match="scenario"):
        planned(tmp_path, method="dm", steps=5, scenario="tasks")
    with pytest.raises(UsageError, match="icarl compares answers for all classes"):
        planned(tmp_path, method="dm", steps=5, scenario="task", against=("icarl",))


def test_what_a_memory_is_held_against(tmp_path):
    plan = planned(
        tmp_path, method="dm", fyi=True, ipc=1, steps=2,
        against=("random-bytes", "herding", "uint8", "jpeg", "joint", "fine-tuning", "er", "icarl", "der++"),
    )  # fmt: skip
    last = last_of(plan)
    assert sorted(run.inputs.get("storage", "") for run in last if run.inputs.get("storage")) == ["jpeg", "uint8"]
    [joint] = [run for run in last if run.inputs.get("source") == "real"]
    assert joint.notes["images"] == 5000
    streams = {run.inputs["strategy"]: run for run in plan.runs if run.kind == "stream"}
    assert set(streams) == {"fine-tuning", "er", "icarl", "der++"}
    assert [run.inputs["memory"] for run in streams.values()] == [0, 1, 1, 1]
    several = {run.inputs["ipc"] for run in plan.runs if run.kind == "distill" and run.inputs["method"] == "random"}
    assert several == {4}  # four real images a byte each in the place of a float32 one


def test_a_memory_with_a_decoder_tells_its_bytes_first(tmp_path):
    plan = planned(tmp_path, method="haba", ipc=2, steps=2, against=("random-bytes",))
    assert plan.open
    assert "real images in as many bytes follow once the sets are made" in plan.title
    assert not [run for run in plan.runs if run.inputs.get("method") == "random"]


def test_a_stored_form_costs_what_it_stores_and_not_the_images_it_makes(tmp_path):
    asked = {"steps": 2, "ipc": 2, "seeds": 1, "dataset": "shapes10", "store": tmp_path, "workers": 1}
    tiny = {**TINY, "iterations": "1", "inner_steps": "1"}
    record = fyi_bench.continual("rtp", only=True, against="random-bytes", overrides=tiny, **asked)
    made = [ImageSet.load(path) for path in sorted(tmp_path.glob("distill/*/set.safetensors"))]
    made = sorted((one for one in made if one.decoder), key=lambda one: one.classes != sorted(class_order(0, 10)[:5]))
    bytes_of = [one.parts["stored"] + one.parts["decoder"] for one in made]
    ours, real = record["arms"]
    assert [row["bytes"] for row in ours["accuracy"]] == [bytes_of[0], sum(bytes_of)]
    assert 0 <= sum(bytes_of) - real["accuracy"][-1]["bytes"] < 10 * 3072  # whole images of a byte a value
    paths = [one.save(tmp_path / f"{k}" / "set.safetensors") for k, one in enumerate(made)]
    del tiny["model"], tiny["iterations"], tiny["inner_steps"], asked["ipc"]
    told = fyi_bench.continual(None, sets=paths, against="none", overrides=tiny, **asked)
    assert [row["bytes"] for row in told["arms"][0]["accuracy"]] == [bytes_of[0], sum(bytes_of)]
    assert told["arms"][0]["accuracy"][-1]["values"] == ours["accuracy"][-1]["values"]


def test_several_orders_where_the_work_allows(tmp_path, monkeypatch):
    """All sides on three orders, else bounds on the first alone, else one order; by work, not by the clock."""
    found, within = [], 1e30
    for _ in range(3):
        monkeypatch.setattr("fyi_bench.tasks.continual.ORDERS_WITHIN", within)
        plan = planned(tmp_path, seeds=None, method="dm", ipc=10, steps=5, settings={"protocol": "quick"})
        within = 0.99 * work_of(plan.runs, load_dataset("shapes10"))
        joint = sum(run.inputs.get("source") == "real" for run in last_of(plan))
        found.append((len(plan.details.orders), joint))
    assert found == [(3, 3), (3, 1), (1, 1)]


@pytest.mark.slow
def test_a_memory_is_replayed_with_current_data(tmp_path):
    record = fyi_bench.continual(
        "herding", steps=5, ipc=1, replay=True, against=["random"], dataset="shapes10", seeds=2, store=tmp_path,
        workers=1, overrides=TINY | {"feature_steps": "1", "draws": "1"},
    )  # fmt: skip
    ours, theirs = record["arms"]
    assert (ours["memory"]["strategy"], theirs["method"]) == ("replay", "random")
    assert [row["images"] for row in ours["accuracy"]] == [2, 4, 6, 8, 10]
    [difference] = record["paired"]
    assert (difference["of"]["method"], difference["against"]["method"]) == ("herding", "random")
    assert difference["pairs"] == 2
    told = TASKS.get("continual")().words(record)
    assert "herding − random" in told
    assert "forgetting" in told

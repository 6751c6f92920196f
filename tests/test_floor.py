"""The floor: random real images are several draws in every comparison, and draws and networks are told apart."""

from __future__ import annotations

import pytest

from commands import SMALL, ask, tell
from downstream.protocol import protocol
from fyi_bench.config import Settings
from fyi_bench.errors import PlanShown
from fyi_bench.run.executor import announce
from fyi_bench.session import Session
from fyi_bench.tasks.base import TASKS
from fyi_bench.tasks.common import NETWORKS_OF_A_SET


def session(tmp_path, **more) -> Session:
    changes = {key: SMALL[key] for key in ("eval_model", "epochs", "min_steps")} | more.pop("overrides", {})
    settings = {"protocol": "quick", "device": "cpu", "workers": 1, "threads": 1, "overrides": changes, **more}
    return Session(Settings(dataset="shapes10", store=tmp_path / "store", **settings))


def planned(task, session, **options):
    made = TASKS.get(task)()
    return made.plan(session, made.Options(**options), {})


@pytest.mark.parametrize(
    ("name", "task", "sets", "expected"),
    [
        ("quick", "accuracy", 1, (5, 2)),  # 3 networks on one set: 5 draws, two networks tell both spreads
        ("quick", "accuracy", 3, (5, 2)),
        ("quick", "accuracy", 7, (7, 3)),
        ("quick", "continual", 1, (5, 1)),
        ("paper", "accuracy", 5, (5, 5)),  # as DM's own
        ("paper", "accuracy", 1, (5, 2)),
    ],
)
def test_five_draws_with_about_the_networks_of_an_arm(name, task, sets, expected):
    rules = protocol(name, task)
    assert rules.repetitions("random", sets) == expected
    assert rules.repetitions("dm", sets) == (sets, rules.nets)
    assert rules.with_overrides({"draws": "1"}).repetitions("random", 1) == (1, rules.nets)


def test_draws_are_runs_with_seeds_of_their_own(tmp_path):
    """The first is the one there always was; number of draws is no input of a run."""
    plan = planned("distill", session(tmp_path), method="dm", fyi=True, ipc=1)
    sets = [(run.inputs["method"], run.inputs["seed"]) for run in plan.runs if run.kind == "distill"]
    assert sets == [("dm", 0), ("dm", 0), *(("random", seed) for seed in range(5))]
    one = planned("distill", session(tmp_path, overrides={"draws": "1"}), method="dm", fyi=True, ipc=1)
    assert {run.digest for run in one.runs if run.kind == "distill"} < {run.digest for run in plan.runs}
    draws = {run.digest: run.inputs["seed"] for run in plan.runs if run.inputs.get("method") == "random"}
    tested = [run for run in plan.runs if run.kind == "accuracy" and run.inputs["set"]["cell"] in draws]
    assert {run.inputs["seed"] for run in tested} == {
        NETWORKS_OF_A_SET * seed + net for seed in range(5) for net in (0, 1)
    }


def test_further_architectures_have_a_network_a_draw(tmp_path):
    """A large one costs more than all the rest; the two spreads are told apart on the first."""
    plan = planned("cross-arch", session(tmp_path), method="dm", ipc=1, architectures=("convnet-w8", "vgg11"))
    draws = {run.digest for run in plan.runs if run.inputs.get("method") == "random"}
    tested = [run for run in plan.runs if run.kind == "accuracy"]
    of = {
        (name, floor): sum(
            run.inputs["protocol"]["eval_model"] == name and (run.inputs["set"]["cell"] in draws) == floor
            for run in tested
        )
        for name in ("convnet-w8", "vgg11")
        for floor in (True, False)
    }
    assert of == {("convnet-w8", True): 10, ("convnet-w8", False): 3, ("vgg11", True): 5, ("vgg11", False): 3}


@pytest.mark.parametrize(("seeds", "owners"), [(1, range(5)), (3, range(6))])
def test_continual_draws_several_memories_an_order(tmp_path, seeds, owners):
    made = session(tmp_path, seeds=seeds)
    plan = planned("continual", made, method="dm", ipc=1, steps=2, against=("random",))
    draws = {run.digest: run for run in plan.runs if run.kind == "distill" and run.inputs["method"] == "random"}
    last = [run for run in plan.runs if run.kind == "continual" and run.inputs["step"] == 1]
    memories = [run for run in last if run.inputs["sets"][0] in draws]
    assert sorted(draws[run.inputs["sets"][0]].inputs["seed"] for run in memories) == list(owners)
    assert {run.inputs["order_seed"] for run in memories} == set(range(seeds or 1))
    assert len(last) - len(memories) == (seeds or 1)


def test_the_plan_says_what_the_floor_adds(tmp_path):
    said: list[str] = []
    made = session(tmp_path, overrides={"nets": "1"})
    made.say, made.dry_run = said.append, True
    with pytest.raises(PlanShown):
        announce(made, planned("distill", made, method="dm", ipc=1))
    # per draw: the set, a network, the symmetry
    assert said[-1].startswith("of these 15 runs for the floor, random real images: about ")


def test_record_and_words_tell_draws_from_networks(tmp_path):
    record = ask("distill", session(tmp_path, overrides={"nets": "2"}), method="random", ipc=1)
    [arm] = record["arms"]
    assert len(arm["sets"]) == len(arm["distill_s"]) == len(record["seeds"]) == 5
    [entry] = arm["architectures"]
    assert len(entry["values"]) == 10
    assert entry["spread"]["sets"] == 5
    assert entry["spread"]["between_networks"] > 0
    assert "random, convnet-w8: 5 sets differ by ± " in tell(record)


@pytest.mark.parametrize("name", ["quick", "paper"])
def test_robust_scores_have_a_draw_a_repetition(name):
    repetitions = protocol(name, "robust").nets
    assert repetitions == protocol(name, "robust-real").nets >= protocol(name, "accuracy").draws

"""The floor: random real images are several draws in every comparison, and draws and networks are told apart."""

from __future__ import annotations

import pytest

from commands import SMALL, ask, tell
from downstream.protocol import protocol
from fyi_bench.config import Settings
from fyi_bench.errors import PlanShown
from fyi_bench.run.executor import announce
from fyi_bench.session import Session
from fyi_bench.store.excerpt import note_absent
from fyi_bench.tasks.base import TASKS
from fyi_bench.tasks.common import NETWORKS_OF_A_SET, size_of


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


def test_a_floor_in_bytes_stands_beside_sets_that_are_made_here(tmp_path):
    """As many bytes as the set in question, known only when it is made; the arms are those of a question without it."""
    made = session(tmp_path, overrides={"nets": "1", "draws": "2"})
    record = ask("distill", made, method="random", ipc=2, floor=True, architectures=("convnet-w8", "mlp"))
    uint8, jpeg = record["floors"]
    [arm] = record["arms"]
    size = 20 * (4 * 3 * 32 * 32 + 8)  # as float32
    assert (arm["set_bytes"], arm["bits_per_class"]["total"]) == (size, 8 * size / 10)
    assert arm["bits_per_class"]["labels"] == 8 * 16
    assert (uint8["form"], uint8["images"], uint8["set_bytes"]) == ("uint8", [70, 70], 70 * (3 * 32 * 32 + 8))
    assert uint8["set_bytes"] < jpeg["set_bytes"] <= size
    assert min(jpeg["images"]) > 200
    for one in (uint8, jpeg):
        assert [entry["name"] for entry in one["architectures"]] == ["convnet-w8", "mlp"]
        assert [len(entry["values"]) for entry in one["architectures"]] == [2, 2]
    text = tell(record)
    assert "random real JPEGs, as many bytes" in text
    assert f"size     random{' ' * 30}240.2 KiB with labels, 196.7 kbit a class" in text
    plain = ask("distill", made, method="random", ipc=2, architectures=("convnet-w8", "mlp"))
    assert "floors" not in plain
    assert plain["arms"] == record["arms"]


def test_sets_known_by_digest_alone_have_no_path_in_an_answer(tmp_path):
    made = session(tmp_path, overrides={"nets": "1", "draws": "2"})
    whole = ask("distill", made, method="random", ipc=1)
    digest = whole["arms"][0]["cells"][0]
    note_absent(made.store.root / "distill" / digest, ["set.safetensors", "preview.png"])
    record = ask("distill", made, method="random", ipc=1)
    (before,), (arm,) = whole["arms"], record["arms"]
    assert arm == before | {"set": None, "sets": [None, before["sets"][1]]}
    lines = [line for line in tell(record).splitlines() if line.startswith("set ")]
    assert [line.split(maxsplit=2)[2] for line in lines] == ["known here by its digest alone", before["sets"][1]]


def test_a_plan_counts_the_floor_in_bytes_before_sets_are_made(tmp_path):
    made = session(tmp_path, overrides={"nets": "1", "draws": "2"})
    plan = planned("distill", made, method="dm", ipc=1, floor=True)
    assert plan.open
    kinds = [run.kind for run in plan.later]
    assert {kind: kinds.count(kind) for kind in kinds} == {"floor": 4, "accuracy": 4}
    assert not planned("distill", made, method="dm", ipc=1, floor=True, architectures=("none",)).open


def test_records_of_runs_without_parts_have_the_whole_in_bits():
    whole = size_of({"set_bytes": 1000}, 10)
    assert whole == {"set_bytes": 1000, "bits_per_class": {"total": 800}}
    parts = size_of({"set_bytes": 1000, "set_parts": {"stored": 900, "labels": 80, "decoder": 20}}, 10)
    assert parts["bits_per_class"] == {"stored": 720, "labels": 64, "decoder": 16, "total": 800}


@pytest.mark.parametrize("name", ["quick", "paper"])
def test_robust_scores_have_a_draw_a_repetition(name):
    repetitions = protocol(name, "robust").nets
    assert repetitions == protocol(name, "robust-real").nets >= protocol(name, "accuracy").draws

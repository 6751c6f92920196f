"""The proxy card: made of other tasks' runs, judged by its written rule, the same on terminal, page and Markdown."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import torch
from scipy import stats as scipy_stats

import fyi_bench
from commands import ROOT, tell
from distill.image_set import ImageSet
from downstream.protocol import protocol_data
from fyi_bench.config import Settings
from fyi_bench.data import load_dataset
from fyi_bench.errors import UnknownNameError, UsageError
from fyi_bench.session import Session
from fyi_bench.stats import unpaired_difference
from fyi_bench.store.store import Store
from fyi_bench.tasks.card.asked import Asked, CardOptions
from fyi_bench.tasks.card.judge import judge
from fyi_bench.tasks.card.words import _gap
from search_space import space720

SCHEMA_FILE = ROOT / "fyi_bench/present/schemas/card.json"
SCHEMA = json.loads(SCHEMA_FILE.read_text())
TINY = {"eval_model": "convnet-w8", "epochs": "1", "min_steps": "4", "nets": "2", "draws": "2", "orders": "2"}
CHEAP = [p for p in space720.SPACE if (p.width, p.depth, p.pool) == (32, 1, "max")]


@pytest.fixture(scope="module")
def small() -> ImageSet:
    """Two real images a class of the built-in data."""
    shapes = load_dataset("shapes10")
    return shapes.train.select(torch.cat([shapes.train.indices_of(c)[:2] for c in range(10)])).to_space(shapes.space)


@pytest.fixture(scope="module")
def made(tmp_path_factory, small):
    """A whole card, where it lies, and what was written."""
    folder, patch = tmp_path_factory.mktemp("card"), pytest.MonkeyPatch()
    limits = {"reference_images": 20, "test_images": 40, "architectures": ["mlp"], "steps": 2}
    patch.setitem(protocol_data("quick"), "card", {**protocol_data("quick")["card"], **limits})
    patch.setattr(space720, "subset", lambda n, seed=0: tuple(CHEAP[:n]))
    path = small.save(folder / "mine.safetensors", preview=False)
    record = card(path, folder / "runs", ranked=3, html=folder / "card.html", json=folder / "card.json")
    patch.undo()
    return folder, record


def card(path, store, json=None, **options):
    found = fyi_bench.card(path, dataset="shapes10", store=store, workers=1, threads=1, overrides=TINY, **options)
    if json:
        json.write_text(Path(store, "reports", f"card-{found['digest']}.json").read_text())
    return found


@pytest.mark.long
def test_the_record_is_what_the_schema_says(made):
    folder, record = made
    written = json.loads((folder / "card.json").read_text())
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(written, SCHEMA)
    assert set(record["parts"]) == set(SCHEMA["properties"]["parts"]["properties"])
    for wrong in ({"verdict": "good"}, {"parts": {"accuracy": {}}}, {"parts": {"luck": {}}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**written, **wrong}, SCHEMA)


@pytest.mark.long
def test_floors_and_ceiling_stand_beside_the_set(made):
    part = made[1]["parts"]["accuracy"]
    assert (len(part["random"]["values"]), part["random"]["draws"]) == (4, 2)
    assert len(part["herding"]["values"]) == len(part["set"]["values"]) == 2
    assert (part["full"]["images"], part["full"]["epochs"]) == (5000, 1)
    means = [sum(part["random"]["values"][k : k + 2]) / 2 for k in (0, 2)]
    known = scipy_stats.ttest_ind(part["set"]["values"], means, equal_var=False).confidence_interval()
    assert [part["above_random"]["low"], part["above_random"]["high"]] == pytest.approx(list(known))
    assert "hard" not in part
    rows = made[1].to_pandas()
    numbers = rows[rows.measure == "accuracy"].groupby("method", sort=False).size().to_dict()
    assert numbers == {"unknown": 2, "random": 2, "herding": 1, "full": 1}  # convnet-w8 and mlp
    assert rows[rows.measure == "average accuracy"].method.tolist() == ["unknown", "random", "joint"]
    assert rows[rows.measure == "spearman_all"].value.tolist() == [made[1]["parts"]["nas"]["spearman_all"]["value"]]
    steps = made[1]["parts"]["continual"]
    assert [steps["orders"], *(steps["bounds"][name]["orders"] for name in ("random", "joint"))] == [2, 2, 1]
    assert len(steps["bounds"]["joint"]["values"]) == 2  # networks
    assert "all real images of the classes so far, 1 class order" in tell(made[1])


@pytest.mark.long
def test_the_time_of_a_run_is_counted_once(made):
    folder, record = made
    own = record["arms"][0]["set_digest"]  # whose score is the card's own run, and no other command's
    runs = [run for run in Store(folder / "runs").ls() if run.kind != "unequalness" or own not in str(run.inputs)]
    walls = [json.loads((run.folder / "record.json").read_text())["wall_s"] for run in runs]
    assert sum(record["parts"]["cost"]["measuring_s"].values()) == pytest.approx(sum(walls), abs=0.1)


@pytest.mark.long
def test_its_runs_are_those_of_other_commands(made):
    folder, record = made
    before = {run.digest for run in Store(folder / "runs").ls()}
    common = {"dataset": "shapes10", "store": folder / "runs", "workers": 1, "threads": 1, "overrides": TINY}
    alone = fyi_bench.evaluate(folder / "mine.safetensors", architectures=["convnet-w8", "mlp"], **common)
    floor = fyi_bench.distill("random", ipc=2, only=True, architectures=["convnet-w8", "mlp"], **common)
    assert {run.digest for run in Store(folder / "runs").ls()} == before
    assert alone["digest"] == record["sources"][0]["digest"]
    assert (
        alone["arms"][0]["architectures"][1]["values"]
        == record["parts"]["cross-arch"]["architectures"][0]["set"]["values"]
    )
    assert floor["arms"][0]["architectures"][0]["values"] == record["parts"]["accuracy"]["random"]["values"]


@pytest.mark.long
def test_terminal_page_and_markdown_say_the_same(made):
    folder, record = made
    text, page = tell(record), (folder / "card.html").read_text()
    markdown = (folder / "runs" / "reports" / f"card-{record['digest']}" / "card.md").read_text()
    assert max(map(len, text.splitlines())) <= 80
    for one in record["answers"]:
        assert all(one["question"] in shown for shown in (text, page, markdown))
    assert record["words"] in markdown
    assert record["words"] in page
    assert not re.findall(r'(?:src|href)="?https?:', page)
    tables = [line.count("|") for line in markdown.splitlines() if line.startswith("|")]
    assert len(tables) > 20


def test_parts_can_be_left_out_and_are_said_to_be(tmp_path, small):
    path = small.save(tmp_path / "mine.safetensors", preview=False)
    record = card(path, tmp_path / "runs", only=["labels", "cost"])
    assert set(record["parts"]) == {"labels", "cost"}
    assert record["verdict"] == "undecided"
    assert {one["answer"] for one in record["answers"]} == {"yes", "not measured"}
    parts = "duplicates, accuracy, cross-arch, continual, nas, symmetry"
    assert f"Not measured: {parts} (left out)." in tell(record).replace("\n", " ").replace("  ", " ")
    files = [tmp_path / f"{name}.json" for name in "ab"]
    for file, parts in zip(files, (["labels", "cost"], ["duplicates", "cost"])):
        card(path, tmp_path / "runs", json=file, only=parts)
    header, *rows = fyi_bench.cards(files)
    told = {label: cells for label, *cells in rows}
    assert len(set(header)) == 3  # both are of one set, and told apart
    assert told["images are distinct"] == ["not measured", "yes: 0 pairs among 20 images"]
    assert told["cost: images"] == ["20", "20"]
    assert told["verdict"] == ["undecided", "undecided"]
    with pytest.raises(UsageError, match=r"no readable record|not a readable record.*\nMake one: fyi-bench card SET"):
        fyi_bench.cards([files[0], path])
    with pytest.raises(UsageError, match=r"There is no file .*\nMake it: fyi-bench card SET"):
        fyi_bench.cards([files[0], tmp_path / "none.json"])
    with pytest.raises(UsageError, match="--ranked counts"):
        card(path, tmp_path / "runs", ranked=0)
    with pytest.raises(UsageError, match="is no record of a card"):
        fyi_bench.cards([next((tmp_path / "runs").glob("*/*/record.json"), SCHEMA_FILE)])
    with pytest.raises(UnknownNameError, match="accuracy"):
        card(path, tmp_path / "runs", without="acuracy")
    with pytest.raises(UsageError, match="contradict"):
        card(path, tmp_path / "runs", only="cost", without="nas")
    for ignored in ({"without": "nas", "ranked": 3}, {"without": "cross-arch", "architectures": "mlp"}):
        with pytest.raises(UsageError, match=r"changes nothing here: it is about (nas|cross-arch), which is left out"):
            card(path, tmp_path / "runs", **ignored)
    with pytest.raises(UsageError, match="--seeds changes nothing here"):
        card(path, tmp_path / "runs", only="cost", seeds=2)
    with pytest.raises(UsageError, match="no settings for a card"):
        card(path, tmp_path / "runs", protocol="legacy-mtt")


def test_soft_labels_are_judged_with_hard_ones_and_a_wrong_label_is_seen(tmp_path, small):
    logits = 9 * torch.nn.functional.one_hot(small.labels.roll(2), 10).float()
    facts = {"method": "mine", "dataset": "shapes10"}
    many = small.select(torch.arange(20).repeat(4))  # so many that chance can be told from right labels
    wrong = replace(many, labels=logits.repeat(4, 1), provenance=facts).save(tmp_path / "soft.safetensors")
    session = Session(Settings(dataset="shapes10", store=tmp_path / "runs", protocol="quick", device="cpu"))
    asked = Asked.of(session, CardOptions(path=wrong))
    assert list(asked.questions) == ["set", "hard", "random", "herding", "full", "continual", "joint", "nas"]
    assert ImageSet.load(asked.questions["hard"].options.path[0]).labels.tolist() == logits.argmax(1).tolist() * 4
    record = card(wrong, tmp_path / "runs", only=["labels", "duplicates"])
    part, answers = record["parts"], {one["question"]: one["answer"] for one in record["answers"]}
    assert part["labels"]["kind"] == "soft (logits)"
    assert part["labels"]["doubtful"]
    assert (answers["labels fit the images"], answers["images are distinct"]) == ("no", "no")
    assert record["verdict"] == "not a proxy"


# the rule ----------------------------------------------------------------------------------------------------------

UP, DOWN, OPEN = ({"mean": m, "low": m - 0.01, "high": m + 0.01} for m in (0.05, -0.05, 0.0))
SURE = {"value": 0.7, "low": 0.5, "high": 0.8}
GOOD = {
    "labels": {"nearest": 0.7, "chance": 0.1, "real": 0.4, "images": 100, "judged": True, "doubtful": False},
    "duplicates": {"images": 100, "exact": 0, "mirrored": 0, "near": 1},
    "accuracy": {"above_random": UP, "above_herding": UP},
    "cross-arch": {"architectures": [{"name": "mlp", "above_random": UP}, {"name": "vgg11", "above_random": UP}]},
    "continual": {"above_random": {**UP, "pairs": 3}},
    "nas": {"evaluated": 20, "spearman_all": SURE, "ceiling": SURE, "against_ceiling": {**OPEN, "pairs": 10}},
}
NAS = GOOD["nas"]
RULES = [
    ({}, "a faithful proxy", "yes"),
    ({"labels": {**GOOD["labels"], "doubtful": True}}, "not a proxy", "no"),
    ({"labels": {"kind": "hard"}}, "a faithful proxy", "not measured"),
    ({"labels": {**GOOD["labels"], "judged": False, "typical": 0.2}}, "a faithful proxy", "not measured"),
    ({"duplicates": {"images": 100, "exact": 9, "mirrored": 0, "near": 0}}, "a proxy in part", "no"),
    ({"accuracy": {"above_random": DOWN, "above_herding": UP}}, "not a proxy", "no"),
    ({"accuracy": {"above_random": OPEN, "above_herding": UP}}, "undecided", "undecided"),
    ({"accuracy": {"above_random": {**UP, "low": None}, "above_herding": UP}}, "undecided", "undecided"),
    ({"accuracy": {"above_random": UP}}, "undecided", "yes"),
    ({"cross-arch": {"architectures": [{"name": "mlp", "above_random": DOWN}]}}, "a proxy in part", "no"),
    ({"continual": {"above_random": {**OPEN, "pairs": 3}}}, "undecided", "undecided"),
    ({"continual": {"set": {}}}, "undecided", "not measured"),
    ({"cross-arch": {"architectures": []}}, "undecided", "not measured"),
    ({"nas": {**NAS, "against_ceiling": {**DOWN, "pairs": 10}}}, "a proxy in part", "in part"),
    ({"nas": {**NAS, "against_ceiling": {**DOWN, "pairs": 9}}}, "a faithful proxy", "yes"),
    ({"nas": {**NAS, "evaluated": 19}}, "undecided", "undecided"),
    ({"nas": {**NAS, "spearman_all": {"value": -0.5, "low": -0.7, "high": -0.2}}}, "a proxy in part", "no"),
    ({"nas": {**NAS, "spearman_all": {"value": None, "low": None, "high": None}}}, "undecided", "undecided"),
]


@pytest.mark.parametrize(("change", "verdict", "answer"), RULES)
def test_the_verdict_follows_from_the_answers(change, verdict, answer):
    judged = judge({**GOOD, **change})
    assert judged["verdict"] == verdict
    assert judged["words"].lower().startswith(verdict)
    changed = [one["answer"] for one in judged["answers"] if one["part"] in (*change, *(GOOD if not change else ()))]
    assert answer in changed


def test_what_was_not_measured_leaves_the_verdict_open():
    for part in GOOD.keys() - {"labels"}:
        assert judge({name: value for name, value in GOOD.items() if name != part})["verdict"] == "undecided"
    assert "not measured: ranks" in judge({k: v for k, v in GOOD.items() if k != "nas"})["words"]


def test_an_unpaired_difference_is_welchs():
    a, b = [0.5, 0.52, 0.55], [0.4, 0.45, 0.41, 0.43]
    known = scipy_stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.9)
    found = unpaired_difference(a, b, 0.9)
    assert [found["low"], found["high"]] == pytest.approx(list(known))
    doubled = unpaired_difference(
        a, [v for v in b for _ in range(2)], 0.9, (None, [k for k in range(4) for _ in range(2)])
    )
    assert doubled == pytest.approx(found)
    assert unpaired_difference([0.5], b)["low"] is None
    assert unpaired_difference([0.5, 0.5], [0.4, 0.4]) == {
        "mean": pytest.approx(0.1),
        "low": pytest.approx(0.1),
        "high": pytest.approx(0.1),
    }
    assert unpaired_difference([None], b)["mean"] is None


@pytest.mark.parametrize(("own", "said"), [(0.3, "It goes 25 % of the way"), (0.1, ""), (0.7, "")])
def test_how_far_a_set_goes_is_told_where_it_goes_at_all(own, said):
    values = {what: {"values": [mean], "mean": mean, "std": 0.0}
              for what, mean in (("random", 0.2), ("set", own), ("full", 0.6))}  # fmt: skip
    told = _gap(values)
    assert (said in told) if said else not told

"""What a store holds as data: `runs`, `store ls`, `show`, `rm`, `gc`."""

from __future__ import annotations

import csv
import io
import json
import shutil
from types import SimpleNamespace

import pytest
import toy_runs

import fyi_bench
from commands import arguments, run
from fyi_bench.errors import StoreError
from fyi_bench.present import arms
from fyi_bench.run.holdings import remove_run
from fyi_bench.run.queue import Queue, connect
from fyi_bench.store.commands import save_record
from fyi_bench.store.lock import FolderLock
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store
from fyi_bench.tasks.distill import Distill
from sample_records import continual_record, distill_record
from sample_store import add_set


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A store in which one command ran."""
    place = tmp_path_factory.mktemp("small")
    words = arguments("distill", "--method", "dm", "--ipc", "1", "--fyi", store=place / "s")
    run(*words, "--json", str(place / "r.json"))
    return SimpleNamespace(root=place / "s", words=words, record=json.loads((place / "r.json").read_text()))


@pytest.fixture
def told(tmp_path):
    """A store with records that were written by hand."""
    for record in (distill_record(digest="a" * 16), continual_record(digest="b" * 16)):
        save_record(Store(tmp_path), record)
    return str(tmp_path)


def test_every_number_of_every_arm_is_a_row(told):
    frame = fyi_bench.runs(store=told)
    record = distill_record()
    accuracies = frame[(frame.task == "distill") & (frame.measure == "accuracy")]
    wanted = {(a["method"], a["flip"], e["name"]): e["mean"] for a in record["arms"] for e in a["architectures"]}
    assert {(r.method, r.flip, r.architecture): r.value for r in accuracies.itertuples()} == wanted
    seen = frame[(frame.task == "continual") & (frame.method == "random") & frame.classes_seen.notna()]
    assert seen.classes_seen.tolist() == [20, 40, 60, 80, 100]
    (difference,) = frame[(frame.measure == "accuracy difference") & (frame.task == "distill")].itertuples()
    assert (difference.value, difference.low, difference.high, difference.pairs) == (0.011, -0.003, 0.027, 3)
    assert (difference.method, difference.flip, difference.architecture) == ("dm", "fyi − none", "convnet")
    average = frame[(frame.measure == "average accuracy difference") & (frame.task == "continual")]
    assert average.value.tolist() == [continual_record()["difference"]["mean"]]


def test_an_arm_has_as_many_sets_as_it_names():
    record = distill_record()
    for sets, number in ((["a", "b"], 2), (5, 5), (None, len(record["seeds"]))):
        rows = arms.rows_of_record({**record, "arms": [{**record["arms"][0], "sets": sets}], "difference": None})
        assert {row["seeds"] for row in rows} == {number}


@pytest.mark.parametrize(
    ("where", "holds"),
    [
        (["method=DM"], lambda row: row["method"] == "dm"),
        (["ipc>=10", "flip!=none"], lambda row: row["flip"] != "none"),
        (["value<0.2"], lambda row: row["value"] < 0.2),
        (["architecture="], lambda row: row["architecture"] is None),
        (["method=nobody"], lambda row: False),
    ],
)
def test_conditions_pick_rows(told, where, holds):
    rows = arms.arms_of(Store(told))
    assert arms.select(rows, where, arms.COLUMNS) == [row for row in rows if holds(row)]


@pytest.mark.parametrize(("where", "text"), [("metod=dm", "Did you mean 'method'?"), ("dm", "is no condition")])
def test_a_wrong_condition_is_said(told, where, text):
    assert text in run("runs", "--where", where, "--store", told, check=2).stderr


def test_the_forms_say_the_same_numbers(told):
    def shown(form):
        return run("runs", "--where", "task=distill", "measure=accuracy", "--format", form, "--store", told).stdout

    rows = list(csv.DictReader(io.StringIO(shown("csv"))))
    assert [float(row["value"]) for row in rows] == [row["value"] for row in json.loads(shown("json"))]
    assert "47.1 ± 0.8" in shown("table")
    assert r"47.1 $\pm$ 0.8" in shown("latex")
    assert all(word in shown("latex") for word in (r"\toprule", r"\midrule", r"\bottomrule", "resnet18"))
    assert "| dm+fyi" in shown("markdown")
    assert "Unknown format" in run("runs", "--format", "xls", "--store", told, check=2).stderr


def test_a_comparison_stands_side_by_side_for_a_paper(told):
    """A line an arm and one for the paired difference, a column an architecture."""
    words = ("runs", "--where", "task=distill", "architecture!=", "--format", "latex", "--store", told)
    lines = run(*words).stdout.splitlines()
    body = lines[lines.index(r"\toprule") + 1 : lines.index(r"\bottomrule")]
    assert body == [
        r" & convnet & resnet18 \\",
        r"\midrule",
        r"dm & 46.0 $\pm$ 0.8 & 38.0 $\pm$ 1.6 \\",
        r"dm+fyi & 47.1 $\pm$ 0.8 & 40.0 $\pm$ 0.8 \\",
        r"random & 29.0 $\pm$ 0.8 & -- \\",
        r"dm: fyi $-$ none & +1.1 [$-$0.3, +2.7] & -- \\",
    ]
    assert "accuracies in" in next(line for line in lines if line.startswith(r"\caption"))


def test_a_single_column_says_what_it_measures(told):
    text = run("runs", "--where", "measure=accuracy", "architecture=resnet18", "--format", "latex", "--store", told)
    assert r" & accuracy \\" in text.stdout.splitlines()


def test_a_difference_of_correlations_is_no_percentage(tmp_path):
    arm = {"method": "dm", "flip": "fyi", "ipc": 10, "spearman_all": {"value": 0.6, "low": 0.5, "high": 0.7},
           "regret": {"value": 0.012, "low": 0.0, "high": 0.0805}}  # fmt: skip
    found = {"mean": -0.0312, "low": -0.1, "high": 0.05, "pairs": 36}
    more = {"difference": found, "differences": {"spearman_all": found}}
    rows = arms.rows_of_record({**distill_record(), "task": "nas", "arms": [arm], **more})
    assert [(row["measure"], arms.value_words(row)) for row in rows] == [
        ("spearman_all", "0.6 [0.5, 0.7]"), ("regret", "1.2 [0.0, 8.1]"),
        ("spearman_all difference", "−0.031 [−0.1, +0.05]"),
    ]  # fmt: skip


def test_points_below_zero_have_a_minus_and_no_hyphen():
    row = {"measure": "against_ceiling regret", "value": 0.0, "low": -0.0104, "high": 0.02, "values": [], "std": None}
    assert arms.value_words(row) == "0.0 [−1.0, 2.0]"


def test_protocols_never_share_a_place(tmp_path):
    for name in ("quick", "paper"):
        save_record(Store(tmp_path), {**distill_record(protocol=name), "digest": name.ljust(16, "0")})
    text = run("runs", "--where", "measure=accuracy", "method=dm", "--format", "latex", "--store", str(tmp_path)).stdout
    header = next(line for line in text.splitlines() if "convnet" in line)
    assert "convnet, quick" in header
    assert "convnet, paper" in header


def test_runs_without_an_answer_are_told_too(tmp_path):
    assert "There is no such number" in run("runs", "--store", str(tmp_path)).stdout
    assert fyi_bench.runs(store=tmp_path).columns.tolist() == list(arms.COLUMNS)


def test_the_runs_of_a_command_are_not_told_twice(small):
    frame = fyi_bench.runs(["measure=accuracy"], store=small.root)
    assert sorted(frame.method + frame.flip) == ["dmfyi", "dmnone", "randomnone"]
    assert set(frame.digest) == {small.record["digest"]}


def test_listing_says_what_was_tested(small):
    rows = run("store", "ls", "--where", "type=accuracy", "flip=fyi", "--store", str(small.root)).stdout
    assert "dm+fyi" in rows
    assert "1 run," in rows
    value = small.record["arms"][1]["architectures"][0]["mean"]
    assert f"{100 * value:.1f}" in rows
    assert max(map(len, run("store", "ls", "--store", str(small.root), COLUMNS="80").stdout.splitlines())) <= 80


def test_show_takes_the_beginning_of_a_digest(small):
    digest = small.record["arms"][0]["cells"][0]
    text = run("store", "show", digest[:8].upper(), "--store", str(small.root)).stdout
    assert f"distill {digest}" in text
    assert f"used by  distill-{small.record['digest']}" in text
    assert "config.iterations" in text
    assert "begins with 'zz'" in run("store", "show", "zz", "--store", str(small.root), check=5).stderr


def test_rubbish_goes_and_nothing_else(small):
    store = Store(small.root)
    add_set(store, "dm", "vertical")
    (extra,) = [run_ for run_ in store.ls() if run_.inputs.get("flip") == "vertical"]
    before = {run_.digest for run_ in store.ls()} - {extra.digest}
    assert f"would remove  distill {extra.digest}" in run("store", "gc", "--store", str(small.root)).stdout
    assert extra.folder.exists()
    run("store", "gc", "--yes", "--store", str(small.root))
    assert {run_.digest for run_ in store.ls()} == before
    assert "nothing to remove" in run("store", "gc", "--yes", "--store", str(small.root)).stdout


def test_what_a_command_at_work_uses_is_kept(small, tmp_path, monkeypatch):
    store = Store(shutil.copytree(small.root, tmp_path / "s"))
    shutil.rmtree(store.root / "reports")
    save_record(store, {**distill_record(), "runs": []})
    before, said, answer = {one.digest for one in store.ls()}, [], Distill.answer

    def late(*given):
        said.append(run("store", "gc", "--yes", "--store", str(store.root)).stdout)
        return answer(*given)

    monkeypatch.setattr(Distill, "answer", late)
    run(*[str(store.root) if word == str(small.root) else word for word in small.words])
    assert "A command is at work here: finished runs are kept." in said[0]
    assert {one.digest for one in store.ls()} == before


def test_runs_of_a_queue_elsewhere_are_kept(tmp_path, monkeypatch):
    toy_runs.known(monkeypatch)
    store, url = Store(tmp_path / "s"), f"sqlite:///{tmp_path}/queue.sqlite3"
    runs = [toy_runs.toy(n) for n in range(2)]
    Queue.open(connect(url, lambda: None, lambda line: None), "toys", runs).enqueue(runs, store)
    with store.run(runs[0]) as one:
        one.finish({"value": 1.0})
    save_record(store, {**distill_record(), "runs": []})
    run("store", "gc", "--yes", "--store", str(store.root), FYI_BENCH_STORAGE=url)
    assert store.has(runs[0])
    run("store", "gc", "--yes", "--store", str(store.root))
    assert not store.has(runs[0])


@pytest.mark.parametrize("words", [("rm", "{}"), ("gc", "--unfinished")], ids=lambda words: words[0])
def test_nothing_is_called_removed_before_it_is(tmp_path, words):
    store, spec = Store(tmp_path), RunSpec("toy", {"seed": 0})
    with store.run(spec):
        pass
    lock = FolderLock(store.folder(spec))
    (seen,) = store.ls()
    with lock, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "ls", lambda self: [seen])
        done = run("store", *(word.format(spec.digest) for word in words), "--yes", "--store", str(tmp_path), check=5)
    assert "removed" not in done.stdout


def test_a_run_that_was_finished_meanwhile_is_kept(tmp_path):
    store, spec = Store(tmp_path), RunSpec("toy", {"seed": 0})
    with store.run(spec):
        pass
    (seen,) = store.ls()
    with store.run(spec) as one:
        one.finish({"value": 1.0})
    with pytest.raises(StoreError, match="finished meanwhile"):
        remove_run(seen)
    assert store.has(spec)


def test_without_an_answer_finished_runs_are_kept(tmp_path):
    add_set(Store(tmp_path), "dm", "none")
    text = run("store", "gc", "--yes", "--store", str(tmp_path)).stdout
    assert "finished runs are kept" in text
    assert len(Store(tmp_path).ls()) == 1


def test_a_run_is_removed_when_asked_twice(tmp_path):
    store = Store(tmp_path)
    add_set(store, "dm", "none")
    (one,) = store.ls()
    assert "add --yes" in run("store", "rm", one.digest[:6], "--store", str(tmp_path)).stdout
    assert one.folder.exists()
    run("store", "rm", one.digest[:6], "--yes", "--store", str(tmp_path))
    assert store.ls() == []

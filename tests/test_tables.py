"""Tables: our numbers land where they belong, unlike ones never meet, and holes come with the command for them."""

from __future__ import annotations

import csv
import io
import math
import re

import pytest

import fyi_bench
from fyi_bench.errors import UnknownNameError
from fyi_bench.files import write_json
from fyi_bench.present.published import published
from fyi_bench.present.tables import FORMS, LAYOUTS, Missing, layout, missing, same_architecture, table
from fyi_bench.store.store import Store
from sample_records import record
from sample_store import fill, tiny_dataset


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")


def cell(made, method, flip, dataset="cifar10", ipc=10, arch="convnet3"):
    """The cell of a table at this place."""
    row = next(r for r in made.rows if (r.method, r.flip) == (method, flip))
    column = next(c for c in made.columns if (c.dataset, c.ipc, c.arch) == (dataset, ipc, arch))
    return made.cell(row, column)


def test_every_published_number_has_its_place():
    for name in ("1", "2", "3", "A", "B"):
        plan = layout(name)
        assert len(plan.published) == len(published(name))
        assert {id(n) for n in plan.published.values()} == {id(n) for n in published(name)}
    assert [row.label for row in layout("1").rows][-1] == "Full data"
    assert layout("a").columns == layout("A").columns


def test_an_unknown_table_is_answered_with_those_there_are(store):
    with pytest.raises(UnknownNameError, match="Known: 1, 2, 3, 4, A, B"):
        table("7", store)


def test_values_of_all_sets_and_networks_are_pooled(store):
    fill(store, "dm", "none", {0: [0.48, 0.49], 1: [0.50, 0.45]})
    found = cell(table("1", store), "dm", "none")
    assert found.ours.mean == pytest.approx(0.48)
    assert found.ours.std == pytest.approx(math.sqrt((0 + 1 + 4 + 9) / 4) / 100)
    assert found.published.value == 0.489
    assert found.gap == pytest.approx(-0.009)
    assert found.ours.expected == 25
    assert "4 of 25 networks" in found.ours.differs


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.489, 0.489], "within"),
        ([0.4960, 0.4940], "within"),  # 0.6 points of the publication and 0.1 of ours
        ([0.4955, 0.4955], "above"),
        ([0.4820, 0.4820], "below"),
    ],
)
def test_verdict_follows_its_rule(store, values, verdict):
    fill(store, "dm", "none", {0: values})
    assert cell(table("1", store), "dm", "none").verdict == verdict


def test_quick_numbers_are_never_compared_and_always_marked(store):
    fill(store, "dm", "none", {0: [0.489, 0.489]}, protocol="quick", arch="convnet")
    made = table("1", store)
    found = cell(made, "dm", "none")
    assert made.protocol == "quick"
    assert found.verdict == "not compared: quick ≠ paper"
    assert "protocol quick ≠ paper" in found.ours.differs
    for form in FORMS:
        assert "quick" in made.to(form)


def test_protocols_never_meet_in_a_cell(store):
    fill(store, "dm", "none", {0: [0.40, 0.41]}, protocol="quick", arch="convnet")
    fill(store, "dm", "none", {0: [0.48]}, protocol="paper")
    fill(store, "dm", "none", {0: [0.10]}, protocol="quick+epochs=3", arch="convnet")
    assert list(cell(table("1", store), "dm", "none").ours.values.values()) == [0.48]
    assert list(cell(table("1", store, "quick"), "dm", "none").ours.values.values()) == [0.40, 0.41]
    changed = table("1", store, "quick+epochs=3")
    assert list(cell(changed, "dm", "none").ours.values.values()) == [0.10]
    assert "Not shown: 1 result of the protocol paper (--protocol paper)." in changed.notes
    assert any(m.command.endswith("--protocol quick --set epochs=3 --arch convnet") for m in changed.missing)


def test_a_changed_recipe_is_left_out_and_named(store):
    fill(store, "dm", "none", {0: [0.9]}, lr_img="0.5")
    made = table("1", store)
    assert cell(made, "dm", "none").ours is None
    assert any("DM, 10 IPC, made with lr_img 0.5, not 1" in note for note in made.notes)


def test_other_precisions_stay_apart(store):
    fill(store, "dm", "none", {0: [0.9] * 3}, precision="bf16")
    assert "precision bf16" in cell(table("1", store), "dm", "none").ours.differs
    fill(store, "dm", "none", {0: [0.5]})
    assert list(cell(table("1", store), "dm", "none").ours.values.values()) == [0.5]


def test_other_data_stay_apart_and_their_gaps_are_named(store):
    part = tiny_dataset(each=55, note="25,000 of 50,000 train images")
    fill(store, "dm", "none", {0: [0.4, 0.5]}, data=part)
    fill(store, "dm", "none", {0: [0.9]})
    arms = [{"method": "dm", "flip": "none", "ipc": 10}]
    found = record("note", arms, data={"note": part.note, "train": part.train_digest})
    write_json(store.root / "reports" / "note-1.json", found)
    ours = cell(table("1", store), "dm", "none").ours
    assert list(ours.values.values()) == [0.4, 0.5]
    assert "data: 25,000 of 50,000 train images" in ours.differs


def test_the_difference_is_paired_by_set(store):
    fill(store, "dm", "none", {0: [0.40, 0.42], 1: [0.44, 0.46], 2: [0.40, 0.40]})
    fill(store, "dm", "fyi", {0: [0.42, 0.44], 1: [0.48, 0.50], 3: [0.9, 0.9]})
    found = cell(table("1", store), "dm", "fyi")
    assert found.difference["pairs"] == 2
    assert found.difference["mean"] == pytest.approx(0.03)
    assert found.difference["low"] < 0.03 < found.difference["high"]
    assert found.published_difference == pytest.approx(0.042)
    assert cell(table("1", store), "dm", "none").difference is None


def test_with_one_set_a_pair_is_a_network(store):
    fill(store, "dm", "none", {0: [0.40, 0.42, 0.44]})
    fill(store, "dm", "fyi", {0: [0.42, 0.43, 0.47]})
    difference = cell(table("1", store), "dm", "fyi").difference
    assert difference["pairs"] == 3
    assert difference["mean"] == pytest.approx(0.02)


def test_arms_of_different_precision_are_not_paired(store):
    fill(store, "dm", "none", {0: [0.40, 0.42]})
    fill(store, "dm", "fyi", {0: [0.42, 0.43]}, precision="bf16")
    assert cell(table("1", store), "dm", "fyi").difference is None


def test_architectures_go_to_their_columns(store):
    fill(store, "dsa", "fyi", {0: [0.6]}, ipc=50)
    fill(store, "dsa", "fyi", {0: [0.5]}, ipc=50, arch="vgg11")
    made = table("3", store)
    assert cell(made, "dsa", "fyi", ipc=50).ours.mean == 0.6
    assert cell(made, "dsa", "fyi", ipc=50, arch="vgg11").ours.mean == 0.5
    hole = next(m for m in made.missing if "DSA + FYI, ResNet18" in m.cells)
    assert hole.architectures == ("convnet", "vgg11", "resnet18")  # DSA alone has none of them yet
    assert hole.command.endswith("--protocol paper --arch convnet --arch vgg11 --arch resnet18")


def test_same_architecture():
    assert same_architecture("convnet3", "convnet")
    assert same_architecture("convnet4", "convnet4")
    assert not same_architecture("vgg11", "convnet")
    assert not same_architecture("convnet3", "convnet-w32")
    assert not same_architecture("convnet3", "convnet4")


def test_other_flips_are_compared_with_the_plain_method(store):
    fill(store, "dm", "none", {0: [0.60, 0.61]}, ipc=50)
    fill(store, "dm", "vertical", {0: [0.58, 0.60]}, ipc=50)
    made = table("4", store)
    found = cell(made, "dm", "vertical", ipc=50)
    assert found.difference["mean"] == pytest.approx(-0.015)
    assert found.verdict == "nothing published"
    assert len(made.existing()) == 20
    assert "picture" in made.notes[0]


def nas_record(protocol="paper", **more):
    """An architecture search with and without FYI."""
    keys = ("spearman_all", "spearman_top50", "kendall_all", "kendall_top50", "top10_recall", "regret")
    arms = [
        {"method": "mtt", "flip": flip, "ipc": 50, "space": 720, "evaluated": 720, "failed": 0}
        | {key: {"value": value, "low": value - 0.05, "high": value + 0.05} for key in keys}
        for flip, value in (("none", 0.65), ("fyi", 0.7))
    ]
    return record("nas", arms, protocol=protocol, ceiling={}, reference={}, **more)


def test_rank_correlations_come_from_searches(store):
    difference = {"spearman_all": {"mean": 0.05, "low": 0.01, "high": 0.09, "pairs": 720}}
    write_json(store.root / "reports" / "nas-1.json", nas_record(differences=difference))
    made = table("B", store)
    row = next(r for r in made.rows if r.flip == "fyi")
    by_metric = {c.metric: made.cell(row, c) for c in made.columns}
    assert by_metric["spearman_all"].ours.mean == 0.7
    assert by_metric["spearman_all"].difference["low"] == 0.01
    assert by_metric["time_min"].ours is None
    assert made.missing == []
    assert "0.700 [0.650, 0.750] (0.699)" in made.to("text")
    assert "+0.050 [+0.010, +0.090] (+0.029)" in made.to("text")


def test_searches_on_other_data_or_protocols_stay_out(store):
    write_json(store.root / "reports" / "nas-1.json", nas_record(dataset="cifar100"))
    write_json(store.root / "reports" / "nas-2.json", nas_record(protocol="quick"))
    made = table("B", store, "paper")
    assert all(c.ours is None for c in made.existing())
    assert any("protocol quick" in note for note in made.notes)
    assert [m.command for m in made.missing] == [
        "fyi-bench nas --method mtt --fyi --dataset cifar10 --ipc 50 --protocol paper"
    ]


def test_one_command_fills_both_arms():
    found = missing("1", "quick")
    assert len(found) < len(published("1"))
    one = next(m for m in found if (m.method, m.dataset, m.ipc) == ("dm", "cifar10", 10))
    assert (
        one.command == "fyi-bench distill --method dm --fyi --dataset cifar10 --ipc 10 --protocol quick --arch convnet"
    )
    assert one.cells == ("DM, CIFAR-10 10 IPC", "DM + FYI, CIFAR-10 10 IPC")
    alone = next(m for m in found if m.method == "cafe")
    assert "--fyi" not in alone.command
    assert "--flip random" in next(m for m in missing("A", "paper") if m.flip == "random").command


def test_what_is_there_is_no_hole(store):
    everything = sum(len(m.cells) for m in missing("1", "paper"))
    fill(store, "dm", "none", {0: [0.5]})
    left = missing("1", "paper", store, estimate=lambda one: 60.0 * one.ipc)
    assert sum(len(m.cells) for m in left) == everything - 1
    one = next(m for m in left if (m.method, m.dataset, m.ipc) == ("dm", "cifar10", 10))
    assert one.cells == ("DM + FYI, CIFAR-10 10 IPC",)
    assert one.seconds == 600.0


def test_a_diverged_or_unfinished_set_is_a_hole(store):
    from distill.recipes import recipe
    from fyi_bench.run.types.distill import distill_cell

    made = distill_cell(tiny_dataset(), "dm", "none", 10, 0, recipe("dm", "cifar10", 10, "paper"))
    with store.run(made) as run:
        run.mark_diverged({"message": "no longer finite", "step": 3})
    assert cell(table("1", store), "dm", "none").verdict == "not run"


def test_estimates_come_from_the_plan_of_the_command(monkeypatch, tmp_path):
    import fyi_bench.data
    import fyi_bench.run.estimate
    from fyi_bench.config import Settings
    from fyi_bench.tasks.time import estimate_with

    monkeypatch.setattr(fyi_bench.data, "load_dataset", lambda name, root, download: tiny_dataset(name))
    monkeypatch.setattr(
        fyi_bench.run.estimate, "measure", lambda kind, *network: {"forward": 1e-4, "first": 2e-4, "second": 3e-4}[kind]
    )
    estimate = estimate_with(Settings(store=tmp_path, device="cpu", workers=1, threads=1))
    one = Missing("distill", "dm", "fyi", "cifar10", 1, (), "quick")
    ten = Missing("distill", "dm", "fyi", "cifar10", 50, (), "quick")
    assert 0 < estimate(one) < estimate(ten)
    assert estimate(Missing("nas", "mtt", "fyi", "cifar10", 50, (), "quick")) > 0
    changed = Missing("distill", "dm", "fyi", "cifar10", 50, (), "quick+epochs=1", options=("--arch", "vgg11"))
    assert estimate(changed) > 0
    assert estimate(Missing("distill", "no-such-method", "fyi", "cifar10", 1, (), "quick")) is None
    assert not (tmp_path / "distill").exists()


@pytest.fixture
def filled(store):
    fill(store, "dm", "none", {0: [0.48, 0.49], 1: [0.50, 0.45]})
    fill(store, "dm", "fyi", {0: [0.50, 0.51], 1: [0.52, 0.50]})
    return table("1", store, estimate=lambda one: 90.0)


def test_where_the_store_has_nothing_the_holes_are_those_of_the_protocol_at_hand(store):
    assert table("3", store).protocol == "paper"
    made = table("3", store, otherwise="quick")
    assert made.protocol == "quick"
    assert all("--protocol quick" in hole.command for hole in made.missing)
    fill(store, "dm", "none", {0: [0.5]}, ipc=50)
    assert table("3", store, otherwise="quick").protocol == "paper"


def test_only_passes_that_are_needed_are_measured(monkeypatch):
    import fyi_bench.run.estimate as estimate

    asked = []
    monkeypatch.setattr(estimate, "measure", lambda kind, model, *rest: asked.append((kind, model)) or 1e-3)
    one = estimate.Passes("vgg11", (3, 32, 32), 10, forward=10, first=20)
    assert one.seconds("cpu", 1) == pytest.approx(0.03)
    assert asked == [("forward", "vgg11"), ("first", "vgg11")]
    share = one.seconds("cpu", 1, rough=True) / 0.03  # by operations of the small network that is measured
    assert {model for _, model in asked[2:]} == {estimate.REFERENCE}
    assert share == pytest.approx(estimate._flops("vgg11", 3, 32, 10) / estimate._flops(estimate.REFERENCE, 3, 32, 10))


def test_csv_holds_every_fact_unrounded(filled):
    rows = list(csv.DictReader(io.StringIO(filled.to("csv"))))
    assert len(rows) == len(filled.existing())
    one = next(r for r in rows if (r["row"], r["dataset"], r["ipc"]) == ("DM + FYI", "cifar10", "10"))
    assert float(one["ours"]) == pytest.approx(0.5075)
    assert (one["values"], one["expected_values"]) == ("4", "25")
    assert float(one["difference"]) == pytest.approx(0.0275)
    assert float(one["published"]) == 0.531
    assert one["source"] == "FYI paper Table 1"
    hole = next(r for r in rows if (r["row"], r["dataset"], r["ipc"]) == ("MTT", "cifar10", "1"))
    assert (hole["verdict"], hole["ours"], hole["fills_seconds"]) == ("not run", "", "90.0")
    assert hole["fills"].startswith("fyi-bench distill --method mtt --fyi")


def test_markdown_tables_are_whole(filled):
    text = filled.to("markdown")
    assert "48.0 ± 1.9 (48.9 ± 0.6)" in text
    assert "fyi − none" in text
    assert "| about 90.0 s |" in text.replace("  ", "")
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") - line.count(r"\|") for line in block.splitlines()}) == 1
    assert text.count("\n- ") == len(filled.notes)


def test_latex_is_balanced_and_escaped(filled):
    text = filled.to("latex")
    body = text[text.index(r"\begin{table}") : text.index(r"\end{table}")]
    assert body.count("{") == body.count("}")
    rows = [line for line in body.splitlines() if line.endswith(r"\\")][2:]
    assert {line.count("&") for line in rows} == {len(filled.columns)}
    assert r"48.0 $\pm$ 1.9 (48.9 $\pm$ 0.6)" in body
    assert not re.search(r"(?<!\\)%", body)
    for letter in "±−–“≠":
        assert letter not in body


def test_html_is_a_page_of_its_own(filled):
    text = filled.to("html")
    assert text.startswith("<!doctype html>")
    assert "48.0 ± 1.9 (48.9 ± 0.6)" in text
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "fyi-bench distill --method mtt --fyi --dataset cifar10 --ipc 1 --protocol paper" in text


@pytest.mark.parametrize("name", LAYOUTS.names())
@pytest.mark.parametrize("form", FORMS.names())
def test_every_table_has_every_form_when_empty(store, name, form):
    text = table(name, store).to(form)
    assert layout(name).title.split(",")[0] in text or form == "csv"
    assert text.count("\n") > 4


def test_the_same_store_gives_the_same_text(filled, store):
    for form in FORMS:
        assert filled.to(form) == table("1", store, estimate=lambda one: 90.0).to(form)


def test_holes_of_another_precision_ask_for_it(tmp_path):
    text = fyi_bench.table("3", protocol="quick", precision="bf16", store=tmp_path)
    assert text.count("--precision bf16") == 4
    assert "--precision" not in fyi_bench.table("3", protocol="quick", store=tmp_path)


def test_fewer_networks_are_the_same_procedure():
    from downstream.protocol import procedure

    assert procedure("quick+epochs=20+nets=1+sets=2") == "quick+epochs=20"
    assert procedure("paper") == "paper"


def test_one_network_stands_in_the_table_with_a_word_and_the_holes_repeat_what_was_asked(store):
    fill(store, "dm", "none", {0: [0.48]}, protocol="quick+nets=1", arch="convnet")
    made = table("1", store, "quick+nets=1")
    shown = [cell.ours for cell in made.cells.values() if cell.ours is not None]
    assert [(ours.mean, ours.protocol) for ours in shown] == [(0.48, "quick")]
    assert any("1 of 3 networks" in words for words in shown[0].differs)
    assert all("--protocol quick --set nets=1" in hole.command for hole in made.missing)

"""Tables: our numbers land where they belong, unlike ones never meet, and holes come with the command for them."""

from __future__ import annotations

import csv
import html
import io
import math
import re
from types import SimpleNamespace

import pytest
from plugins import Plugged

import fyi_bench
from distill.recipes import recipe
from downstream import nas
from fyi_bench.errors import UnknownNameError
from fyi_bench.present.missing import Missing
from fyi_bench.present.published import published
from fyi_bench.present.replication import page
from fyi_bench.present.replication.places import ledger
from fyi_bench.present.report import paper_tables
from fyi_bench.present.tables import (
    FORMS,
    LAYOUTS,
    layout,
    missing,
    same_architecture,
    table,
)
from fyi_bench.present.tables.groups import VERDICT_RULE
from fyi_bench.present.tables.results import groups_of
from fyi_bench.stats import paired_rank_difference, rank_report
from fyi_bench.store.merge import merge
from fyi_bench.store.record import write_sealed
from fyi_bench.store.store import Store
from sample_records import record
from sample_store import fill, search, tiny_dataset
from search_space import ranking, space720


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")


def entry(made, method, flip, dataset="cifar10", ipc=10, arch="convnet3"):
    """The entry of a table at this row and column."""
    row = next(r for r in made.rows if (r.method, r.flip) == (method, flip))
    column = next(c for c in made.columns if (c.dataset, c.ipc, c.arch) == (dataset, ipc, arch))
    return made.entry(row, column)


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


@pytest.mark.long
@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_says_what_is_known_to_differ(store, form):
    """In the place itself or by a mark there that the form explains: the recipe's notes, and what of it is inferred."""
    for method, dataset in (("dm", "cifar10"), ("mtt", "cifar10"), ("idc", "cifar10"), ("ftd", "cifar10")):
        for flip in ("none", "fyi"):
            fill(store, method, flip, {0: [0.5], 1: [0.6]}, data=tiny_dataset(dataset))
    fill(store, "ftd", "fyi", {0: [0.5]}, ipc=1)
    made = table("1", store)
    words = html.unescape(" ".join(made.to(form).replace(r"\_", "_").split()))
    for method in ("dm", "mtt", "idc", "ftd"):
        said = recipe(method, "cifar10", 10).fyi_notes
        assert said
        for note in said:
            found, plain = entry(made, method, "fyi"), entry(made, method, "none")
            assert note in found.marks
            assert note not in plain.marks
            assert note in words
            assert form == "csv" or f"[{made.footnotes[note]}] {note}" in words
            mark = re.compile(rf"\[(\d+,)*{made.footnotes[note]}(,\d+)*\]")
            rows = (row for row in rows_of(made, form) if f"{method.upper()} + FYI" in row)
            assert form == "csv" or any(mark.search(row) for row in rows)
    assert "zca inferred: not stated for FTD: as MTT at this setting" in words
    assert form != "text" or max(map(len, made.to("text").partition("holes;")[0].splitlines())) <= 80


def rows_of(made, form):
    """The rows of a table's grid as text."""
    return made.to(form).split("</tr>") if form == "html" else made.to(form).splitlines()


def test_sets_and_networks_are_told_apart(store):
    fill(store, "dm", "none", {0: [0.48, 0.50], 1: [0.58, 0.60]})
    ours = entry(table("1", store), "dm", "none").ours
    assert ours.spread["between_networks"] == pytest.approx(0.02 / math.sqrt(2))
    assert ours.spread["between_sets"] == pytest.approx(math.sqrt(0.1**2 / 2 - 0.02**2 / 4))
    told = "2 sets differ by ± 7.0, networks on one set by ± 1.4"
    for form in ("text", "markdown", "html"):
        assert told in " ".join(table("1", store).to(form).split())
    [line] = [one for one in csv.DictReader(io.StringIO(table("1", store).to("csv"))) if one["ours"]]
    assert (line["sets"], float(line["between_sets"])) == ("2", ours.spread["between_sets"])


def test_the_floor_is_complete_with_its_draws(store):
    """Five draws of random images at the least, with about as many networks in all as an arm has."""
    fill(store, "random", "none", {k: [0.3] * 2 for k in range(4)}, protocol="quick", arch="convnet-w64")
    [floor] = [one for one in groups_of(store) if one.made["method"] == "random"]
    assert floor.number("accuracy").expected == 10
    assert "8 of 10 networks" in floor.number("accuracy").differs


def test_values_of_all_sets_and_networks_are_pooled(store):
    fill(store, "dm", "none", {0: [0.48, 0.49], 1: [0.50, 0.45]})
    found = entry(table("1", store), "dm", "none")
    assert found.ours.mean == pytest.approx(0.48)
    assert found.ours.std == pytest.approx(math.sqrt((0 + 1 + 4 + 9) / 4) / 100)
    assert found.published.value == 0.489
    assert found.gap == pytest.approx(-0.009)
    assert found.ours.expected == 25
    assert "4 of 25 networks" in found.ours.differs


@pytest.mark.parametrize(("mean", "verdict"), [(0.489, "within"), (0.496, "outside"), (0.482, "outside")])
def test_verdict_is_that_of_the_replication(store, mean, verdict):
    fill(store, "dm", "none", {seed: [mean, mean + seed / 10_000] for seed in range(3)})
    found = entry(table("1", store), "dm", "none")
    [place] = [one for one in ledger(store).places if one.ours and one.ours.values == found.ours.values]
    assert found.verdict == place.verdict == verdict
    assert VERDICT_RULE in table("1", store).notes[-1]
    assert VERDICT_RULE in page(store)


def test_one_set_is_no_verdict(store):
    fill(store, "dm", "none", {0: [0.489, 0.489]})
    assert entry(table("1", store), "dm", "none").verdict == "undecided"


def test_quick_numbers_are_never_compared_and_always_marked(store):
    fill(store, "dm", "none", {0: [0.489, 0.489]}, protocol="quick", arch="convnet")
    made = table("1", store)
    found = entry(made, "dm", "none")
    assert made.protocol == "quick"
    assert found.verdict == "not compared: quick ≠ paper"
    assert "protocol quick ≠ paper" in found.ours.differs
    for form in FORMS:
        assert "quick" in made.to(form)


def test_protocols_never_meet_in_a_cell(store):
    fill(store, "dm", "none", {0: [0.40, 0.41]}, protocol="quick", arch="convnet")
    fill(store, "dm", "none", {0: [0.48]}, protocol="paper")
    fill(store, "dm", "none", {0: [0.10]}, protocol="quick+epochs=3", arch="convnet")
    assert list(entry(table("1", store), "dm", "none").ours.values.values()) == [0.48]
    assert list(entry(table("1", store, "quick"), "dm", "none").ours.values.values()) == [0.40, 0.41]
    changed = table("1", store, "quick+epochs=3")
    assert list(entry(changed, "dm", "none").ours.values.values()) == [0.10]
    assert "Not shown: 1 result of the protocol paper (--protocol paper)." in changed.notes
    assert any(m.command.endswith("--protocol quick --set epochs=3 --arch convnet") for m in changed.missing)


def test_a_changed_recipe_is_left_out_and_named(store):
    fill(store, "dm", "none", {0: [0.9]}, lr_img="0.5")
    made = table("1", store)
    assert entry(made, "dm", "none").ours is None
    assert any("DM, 10 IPC, made with lr_img 0.5, not 1" in note for note in made.notes)


def test_other_precisions_stay_apart(store):
    fill(store, "dm", "none", {0: [0.9] * 3}, precision="bf16")
    assert "precision bf16" in entry(table("1", store), "dm", "none").ours.differs
    fill(store, "dm", "none", {0: [0.5]})
    assert list(entry(table("1", store), "dm", "none").ours.values.values()) == [0.5]


def test_sets_enough_for_a_verdict_win_over_full_precision(store):
    fill(store, "dm", "none", dict.fromkeys(range(3), (0.48, 0.49)), precision="bf16")
    fill(store, "dm", "none", {0: [0.1]})
    found = entry(table("1", store), "dm", "none")
    assert (len(found.ours.sets), found.verdict) == (3, "within")
    fill(store, "dm", "none", {1: [0.1], 2: [0.1]})
    assert entry(table("1", store), "dm", "none").ours.mean == pytest.approx(0.1)


def test_dc_with_fyi_says_that_its_start_is_inferred(store):
    for flip in ("none", "fyi"):
        fill(store, "dc", flip, {0: [0.4]})
    plain, flipped = (entry(table("1", store), "dc", flip) for flip in ("none", "fyi"))
    assert [("how DC with FYI starts" in " ".join(one.marks)) for one in (plain, flipped)] == [False, True]


@pytest.mark.parametrize("said", ["run", "record"])
def test_other_data_stay_apart_and_their_gaps_are_named(store, said):
    """By the runs themselves, or by the records of commands: older runs do not say it."""
    note = "25,000 of 50,000 train images"
    part = tiny_dataset(each=55, note=note if said == "run" else "")
    fill(store, "dm", "none", {0: [0.4, 0.5]}, data=part)
    fill(store, "dm", "none", {0: [0.9]})
    if said == "record":
        arms = [{"method": "dm", "flip": "none", "ipc": 10}]
        found = record("note", arms, data={"note": note, "train": part.train_digest})
        write_sealed(store.root / "reports" / "note-1.json", found)
    ours = entry(table("1", store), "dm", "none").ours
    assert list(ours.values.values()) == [0.4, 0.5]
    assert f"data: {note}" in ours.differs


def test_the_difference_is_paired_by_set(store):
    fill(store, "dm", "none", {0: [0.40, 0.42], 1: [0.44, 0.46], 2: [0.40, 0.40]})
    fill(store, "dm", "fyi", {0: [0.42, 0.44], 1: [0.48, 0.50], 3: [0.9, 0.9]})
    found = entry(table("1", store), "dm", "fyi")
    assert found.difference["pairs"] == 2
    assert found.difference["mean"] == pytest.approx(0.03)
    assert found.difference["low"] < 0.03 < found.difference["high"]
    assert found.published_difference == pytest.approx(0.042)
    assert entry(table("1", store), "dm", "none").difference is None


def test_with_one_set_a_pair_is_a_network(store):
    fill(store, "dm", "none", {0: [0.40, 0.42, 0.44]})
    fill(store, "dm", "fyi", {0: [0.42, 0.43, 0.47]})
    difference = entry(table("1", store), "dm", "fyi").difference
    assert difference["pairs"] == 3
    assert difference["mean"] == pytest.approx(0.02)


def test_arms_of_different_precision_are_not_paired(store):
    fill(store, "dm", "none", {0: [0.40, 0.42]})
    fill(store, "dm", "fyi", {0: [0.42, 0.43]}, precision="bf16")
    assert entry(table("1", store), "dm", "fyi").difference is None


def test_architectures_go_to_their_columns(store):
    fill(store, "dsa", "fyi", {0: [0.6]}, ipc=50)
    fill(store, "dsa", "fyi", {0: [0.5]}, ipc=50, arch="vgg11")
    made = table("3", store)
    assert entry(made, "dsa", "fyi", ipc=50).ours.mean == 0.6
    assert entry(made, "dsa", "fyi", ipc=50, arch="vgg11").ours.mean == 0.5
    hole = next(m for m in made.missing if "DSA + FYI, ResNet18" in m.fills)
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
    found = entry(made, "dm", "vertical", ipc=50)
    assert found.difference["mean"] == pytest.approx(-0.015)
    assert found.verdict == "nothing published"
    assert len(made.existing()) == 20
    assert "picture" in made.notes[0]


REAL = [0.30 + 0.01 * (7 * k % 12) for k in range(12)]
PLAIN, FLIPPED = [0.2 + 0.01 * (5 * k % 12) for k in range(12)], [None, *REAL[1:]]
ARMS = {("mtt", "none"): PLAIN, ("mtt", "fyi"): FLIPPED}


def of_search(made, flip, metric="spearman_all"):
    """The entry of a table of searches."""
    row = next(r for r in made.rows if (r.method, r.flip) == ("mtt", flip))
    return made.entry(row, next(c for c in made.columns if c.metric == metric))


def in_training_order(values):
    """Values of the first architectures of the space in the order in which a search trains them."""
    points = space720.subset(len(values))
    return [values[points.index(point)] for point in nas.cheap_first(points, 3, 32, 10)]


def test_rank_correlations_come_from_the_runs_of_searches(store):
    search(store, ARMS, REAL, again=6)
    made = table("B", store)
    real, plain, flipped = map(in_training_order, (REAL, PLAIN, FLIPPED))
    report, difference = rank_report(real, flipped), paired_rank_difference(real, flipped, plain)
    for metric in ("spearman_all", "spearman_top50"):
        found = of_search(made, "fyi", metric)
        ours = {"value": found.ours.mean, "low": found.ours.low, "high": found.ours.high}
        assert ours == report[metric]
        assert found.difference == difference[metric]
    assert of_search(made, "none").difference is None
    assert of_search(made, "fyi", "time_min").ours is None
    assert of_search(made, "fyi").ours.differs == ("protocol quick ≠ paper", "12 of 720 architectures")
    assert made.missing == []
    assert f"{report['spearman_all']['value']:.3f} [" in made.to("text")


def test_a_store_from_another_machine_has_the_same_tables(store, tmp_path):
    fill(store, "dm", "none", {0: [0.48, 0.49]}, ipc=50)
    search(store, ARMS, REAL)
    other = Store(tmp_path / "other")
    merge(other, store.root)
    for name in ("1", "B"):
        assert table(name, other).to("csv") == table(name, store).to("csv")


def test_a_search_under_way_is_a_hole_and_said(store, monkeypatch):
    """Cheap architectures come first, and are no sample of the space."""
    cheap = tuple(nas.cheap_first(space720.SPACE, 3, 32, 10))
    with monkeypatch.context() as patch:
        patch.setattr(space720, "subset", lambda count: cheap[:count])
        search(store, ARMS, REAL)
    made = table("B", store)
    assert of_search(made, "none").ours is None
    assert "Not shown: MTT, all, the search is not finished." in made.notes
    assert made.missing[0].fills[-1] == "MTT + FYI, Spearman all"
    search(store, ARMS, REAL)
    assert of_search(table("B", store), "none").ours.differs[-1] == "12 of 720 architectures"


def test_a_real_side_made_in_another_way_is_said(store):
    search(store, ARMS, REAL, images=200)
    assert of_search(table("B", store), "fyi").ours.differs[-1] == "real side: protocol quick, 200 images"
    search(store, ARMS, REAL)
    assert of_search(table("B", store), "fyi").ours.differs[-1] == "12 of 720 architectures"


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_ranking_of_the_package_stands_for_a_real_side_that_was_not_trained(store, precision):
    points = space720.subset(36)
    proxy = [0.3 + 0.01 * (7 * k % 36) for k in range(36)]
    search(store, {("mtt", "none"): proxy}, data=tiny_dataset(each=200), tested=1000, precision=precision)
    assert of_search(table("B", store), "none").ours is None  # measured on 2,000 test images
    search(store, {("mtt", "none"): proxy}, data=tiny_dataset(each=200), tested=2000, precision=precision)
    found = of_search(table("B", store), "none").ours
    real = ranking.load(f"cifar10-quick-{precision}").scores(0)
    in_order = nas.cheap_first(points, 3, 32, 10)
    expected = rank_report([real[p.name] for p in in_order], [proxy[points.index(p)] for p in in_order])
    assert (found.mean, found.low) == (expected["spearman_all"]["value"], expected["spearman_all"]["low"])


def test_searches_on_other_data_or_protocols_stay_out(store):
    search(store, ARMS, REAL, data=tiny_dataset("cifar100", 100, each=10))
    search(store, ARMS, REAL)
    made = table("B", store, "paper")
    assert all(one.ours is None for one in made.existing())
    assert "Not shown: 2 results of the protocol quick (--protocol quick)." in made.notes
    assert [m.command for m in made.missing] == [
        "fyi-bench nas --method mtt --fyi --dataset cifar10 --ipc 50 --protocol paper --space 720"
    ]


LAYOUT = """
from fyi_bench.present.tables import Column, Layout, Row


def mine():
    column = Column("cifar10", 10, "convnet3", "accuracy", "", "10 IPC")
    return Layout("Mine", (Row("dm", "none", "DM"), Row("dm", "fyi", "DM + FYI")), (column,))
"""


def test_a_table_from_outside_is_one_function(store, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        plugged = Plugged(tmp_path / "site", patch, LAYOUTS)
        points = {"fyi_bench.tables": {"mine": "my_table:mine", "broken": "my_table:absent"}}
        plugged.install("my-table", points, my_table=LAYOUT)
        fill(store, "dm", "fyi", {0: [0.5]})
        made = table("mine", store)
        assert (made.name, made.title) == ("mine", "Mine")
        assert entry(made, "dm", "fyi").ours.mean == 0.5
        assert made.missing[0].fills == ("DM, 10 IPC",)
        shown = [one.title for one in paper_tables(store)]  # the broken one harms none of the others
        assert "Table mine: Mine" in shown
        assert len(shown) > 1
    plugged.look()


def test_one_command_fills_both_arms():
    found = missing("1", "quick")
    assert len(found) < len(published("1"))
    one = next(m for m in found if (m.method, m.dataset, m.ipc) == ("dm", "cifar10", 10))
    assert (
        one.command == "fyi-bench distill --method dm --fyi --dataset cifar10 --ipc 10 --protocol quick --arch convnet"
    )
    assert one.fills == ("DM, CIFAR-10 10 IPC", "DM + FYI, CIFAR-10 10 IPC")
    alone = next(m for m in found if m.method == "cafe")
    assert "--fyi" not in alone.command
    assert "--flip random" in next(m for m in missing("A", "paper") if m.flip == "random").command


def test_what_is_there_is_no_hole(store):
    everything = sum(len(m.fills) for m in missing("1", "paper"))
    fill(store, "dm", "none", {0: [0.5]})
    left = missing("1", "paper", store, estimate=lambda one: 60.0 * one.ipc)
    assert sum(len(m.fills) for m in left) == everything - 1
    one = next(m for m in left if (m.method, m.dataset, m.ipc) == ("dm", "cifar10", 10))
    assert one.fills == ("DM + FYI, CIFAR-10 10 IPC",)
    assert one.seconds == 600.0


def test_a_diverged_or_unfinished_set_is_a_hole(store):
    from distill.recipes import recipe
    from fyi_bench.run.types.distill import distill_run

    made = distill_run(tiny_dataset(), "dm", "none", 10, 0, recipe("dm", "cifar10", 10, "paper"))
    with store.run(made) as run:
        run.mark_diverged({"message": "no longer finite", "step": 3})
    assert entry(table("1", store), "dm", "none").verdict == "not run"


def test_estimates_come_from_the_plan_of_the_command(monkeypatch, tmp_path):
    import fyi_bench.data
    import fyi_bench.run.estimate
    from fyi_bench.config import Settings
    from fyi_bench.session import Session
    from fyi_bench.tasks.holes import estimator

    monkeypatch.setattr(fyi_bench.data, "load_dataset", lambda name, root, download: tiny_dataset(name))
    monkeypatch.setattr(
        fyi_bench.run.estimate, "measure", lambda kind, *network: {"forward": 1e-4, "first": 2e-4, "second": 3e-4}[kind]
    )
    estimate = estimator(Session(Settings(store=tmp_path, device="cpu", workers=1, threads=1)))
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
    assert estimate.seconds_of(one, "cpu", 1) == pytest.approx(0.03)
    assert asked == [("forward", "vgg11"), ("first", "vgg11")]
    share = estimate.seconds_of(one, "cpu", 1, rough=True) / 0.03  # by operations of the small network that is measured
    assert {model for _, model in asked[2:]} == {estimate.REFERENCE}
    assert share == pytest.approx(estimate._flops("vgg11", 3, 32, 10) / estimate._flops(estimate.REFERENCE, 3, 32, 10))


@pytest.mark.parametrize("others", [1.0, 4.0], ids=["alone", "busy"])
def test_what_others_take_is_part_of_an_estimate(monkeypatch, others):
    """A pass is over before anybody interrupts it; between two the machine is taken away."""
    import fyi_bench.run.estimate as estimate

    clock = {"wall": 0.0, "cpu": 0.0}

    def forward(network, x, y):
        clock["cpu"] += 0.01
        clock["wall"] += 0.01 if forward.calls % 5 else 0.01 + 0.05 * (others - 1)
        forward.calls += 1

    forward.calls = 1
    read = {"perf_counter": lambda: clock["wall"], "process_time": lambda: clock["cpu"]}
    monkeypatch.setattr(estimate, "time", SimpleNamespace(**read))
    monkeypatch.setitem(estimate.PASSES, "forward", forward)
    one = estimate.Passes("convnet-w8", (3, 8, 8), 10, forward=32 * 10_000, steps=1000)
    kind = SimpleNamespace(passes=lambda run, data: [one], loading_s=2.0)
    monkeypatch.setattr(estimate, "run_type", lambda run: kind)
    estimate.measure.cache_clear()
    estimate.crowding.cache_clear()
    data = SimpleNamespace(train=SimpleNamespace(shape=(3, 8, 8)))
    found = estimate.estimate_seconds(["a run"], data, "cpu", 1, 1)
    estimate.measure.cache_clear()
    estimate.crowding.cache_clear()
    assert found == pytest.approx(others * (estimate.START_SECONDS + 2 + estimate.RUN_SECONDS + 12 + 100), rel=0.3)


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
    assert "48.0 ± 1.9 [1] (48.9 ± 0.6)" in text
    assert "fyi − none" in text
    assert "| about 1 min 30 s |" in text.replace("  ", "")
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") - line.count(r"\|") for line in block.splitlines()}) == 1
    assert text.count("\n- ") == len(filled.notes) + len(filled.footnotes)


def test_latex_is_balanced_and_escaped(filled):
    text = filled.to("latex")
    body = text[text.index(r"\begin{table}") : text.index(r"\end{table}")]
    assert body.count("{") == body.count("}")
    rows = [line for line in body.splitlines() if line.endswith(r"\\")][2:]
    assert {line.count("&") for line in rows} == {len(filled.columns)}
    assert r"48.0 $\pm$ 1.9 [1] (48.9 $\pm$ 0.6)" in body
    assert not re.search(r"(?<!\\)%", body)
    for letter in "±−–“≠":
        assert letter not in body


def test_html_is_a_page_of_its_own(filled):
    text = filled.to("html")
    assert text.startswith("<!doctype html>")
    assert "48.0 ± 1.9 [1] (48.9 ± 0.6)" in text
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
    shown = [one.ours for one in made.filled()]
    assert [(ours.mean, ours.protocol) for ours in shown] == [(0.48, "quick")]
    assert any("1 of 3 networks" in words for words in shown[0].differs)
    assert all("--protocol quick --set nets=1" in hole.command for hole in made.missing)

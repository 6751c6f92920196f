"""Search spaces: cells of NAS-Bench-201, lists, plug-ins, parts sized by themselves; scores without training."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_nas import CHEAP, RANDOM, SHORT, nas, search_little, session, tiny_dataset
from torch import nn

import search_space
from commands import ask, tell
from downstream.nas import effort
from downstream.zero_cost import gradient_norm, synflow
from fyi_bench import rng
from fyi_bench.data.real import RealDataset
from fyi_bench.errors import BudgetExhausted, DataError, UnknownNameError, UsageError
from fyi_bench.registry import Owner, PluginError
from fyi_bench.run.deadline import Deadline
from fyi_bench.run.types.architecture import real_source, train_run
from fyi_bench.session import Session
from fyi_bench.stats.halving import FACTOR, successive_halving
from fyi_bench.tasks.nas.options import NasOptions
from fyi_bench.tasks.nas.points import FEWEST_REPEATED, FEWEST_TOLD, TEST_PASS, Passes, listed_space, part_of
from fyi_bench.tasks.nas.reference import RealSide, fitting_ranking, repeated
from fyi_bench.tasks.nas.search import search_of
from search_space import ranking, space720
from search_space.architectures import candidate, cost, work
from search_space.spaces import SPACES, SearchSpace, space
from search_space.spaces.nasbench201 import EDGES, OPERATIONS, read, spell

RESNET_LIKE = "nasbench201:|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"


@pytest.fixture
def data() -> RealDataset:
    return tiny_dataset()


@pytest.fixture
def small(monkeypatch, data):
    search_little(monkeypatch, data)


# NAS-Bench-201 -------------------------------------------------------------------------------------------------------


def test_cells_have_the_published_sizes():
    """Millions of parameters and multiply-adds on CIFAR-10: the published range over all 15,625."""
    found = space("nasbench201")
    assert len(found.names) == len(set(found.names)) == 15_625
    least, most = (work(f"nasbench201:{spell([op] * 6)}", 3, 32, 10) for op in ("none", "nor_conv_3x3"))
    assert [round(one.parameters / 1e6, 6) for one in (least, most)] == [0.073306, 1.531546]
    assert [round(one.flops / 2e6, 2) for one in (least, most)] == [7.78, 220.12]
    hundred = work(f"nasbench201:{spell(['nor_conv_3x3'] * 6)}", 3, 32, 100)
    assert round(hundred.parameters / 1e6, 6) == 1.537396


def test_a_name_is_its_operations():
    for cell in itertools.islice(itertools.product(OPERATIONS, repeat=6), 0, None, 997):
        assert read(spell(cell)) == list(cell)
    assert candidate(RESNET_LIKE).factors == {
        "edge 0 to 1": "nor_conv_3x3", "edge 0 to 2": "nor_conv_3x3", "edge 1 to 2": "avg_pool_3x3",
        "edge 0 to 3": "skip_connect", "edge 1 to 3": "none", "edge 2 to 3": "nor_conv_1x1",
    }  # fmt: skip
    with pytest.raises(UnknownNameError, match="architecture of the search space nasbench201"):
        candidate("nasbench201:|nor_conv_5x5~0|")


def test_a_cell_is_the_sum_over_its_edges():
    """Against the plain sum, node by node, of a cell in evaluation mode."""
    operations = read(RESNET_LIKE)
    network = search_space.build(RESNET_LIKE, 3, 16, 10, rng.stream(0, "test")).eval()
    again = search_space.build(RESNET_LIKE, 3, 16, 10, rng.stream(0, "test"))
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    cell = network.layers[2]
    x = torch.randn(2, 16, 8, 8)
    nodes = [x]
    for node in (1, 2, 3):
        total = torch.zeros_like(x)
        for operation, (to, start) in zip(operations, EDGES, strict=True):
            if to == node and operation != "none":
                total = total + cell.edges[f"{to}-{start}"](nodes[start])
        nodes.append(total)
    torch.testing.assert_close(cell(x), nodes[3])


def test_work_is_the_cost_that_is_counted():
    for name in ("convnet-w32-d2-batch-relu-avg", "resnet18", RESNET_LIKE):
        found = work(name, 3, 32, 10)
        assert (found.parameters, found.flops) == cost(name, 3, 32, 10)
        assert found.activations > 0


def test_new_spaces_change_no_digest_of_the_old_one(data):
    from downstream.protocol import protocol

    rules, source = protocol("quick", "nas"), real_source(data, 9, 0)
    old, cell = (train_run(data, source, candidate(name), rules, 0, 12) for name in (CHEAP[0].name, RESNET_LIKE))
    assert not any(key.startswith("space") for key in old.inputs["numerics"])
    assert cell.inputs["numerics"]["space nasbench201"] == 1


# what --space takes --------------------------------------------------------------------------------------------------


def test_a_file_of_names(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(f"# mine\n{CHEAP[0].name}\nconvnet-{CHEAP[1].name}  # the second\n\nresnet18\n{RESNET_LIKE}\n")
    points = listed_space(path).subset(4)
    assert [point.name for point in points] == [CHEAP[0].name, CHEAP[1].name, "resnet18", RESNET_LIKE]
    for text, error, said in (
        ("w32-d9-nonorm-relu-max\n", UnknownNameError, r"mine\.txt, line 1: depth"),
        (f"{CHEAP[0].name}\n{CHEAP[0].name}\n", UsageError, "line 2: .* comes twice"),
        (f"{CHEAP[0].name}\n", UsageError, "names 1 architectures, too few"),
    ):
        path.write_text(text)
        with pytest.raises(error, match=said):
            listed_space(path)


def test_a_part_is_sized_by_what_is_asked_and_not_by_the_machine(data):
    few, many = (part_of("auto", data, False, Passes(images)) for images in (2_000, 40_000))
    assert len(few.points) > len(many.points) + many.costly >= 25
    assert len(many.points) == FEWEST_TOLD
    assert {point.name for point in many.points} < {point.name for point in few.points}
    assert few.seconds == many.seconds == 1800
    assert any("--space 720" in line for line in few.words)
    whole = part_of("auto", data, True, Passes(1e9))
    assert (len(whole.points), whole.words) == (720, [])
    assert len(part_of("36", data, False, Passes(1e9)).points) == 36
    known = {point.name for point in space720.subset(30)}
    ranked = part_of("auto", data, False, Passes(10), dict.fromkeys(known, 0.5))
    assert {point.name for point in ranked.points} == known
    with pytest.raises(UnknownNameError, match="Unknown search space 'nasbench202'"):
        part_of("nasbench202", data, True, Passes())
    assert len(part_of("nasbench201:25", data, True, Passes()).points) == 25


def test_a_part_is_never_too_small_to_be_told_from(data):
    """Against a ranking that has just what an earlier search took, too; what fits of a small space is all of it."""
    first = part_of("auto", data, False, Passes(1e9))
    known = {point.name: 0.5 for point in first.points}
    for images in (1e4, 1e5, 1e9):
        again = part_of("auto", data, False, Passes(images), known)
        assert [point.name for point in again.points] == list(known)
    twice = repeated(first.points, 0.1)
    assert len(twice) == FEWEST_REPEATED
    assert {point.name for point in twice} < set(known)
    assert set(twice) < set(repeated(first.points, 0.75))
    few = first.points[:6]
    assert len(repeated(few, 0.5)) == 3
    all_of_it = dict.fromkeys((point.name for point in space720.subset(30)), 0.5)
    assert len(part_of("auto", data, False, Passes(10), all_of_it).points) == 30


def test_a_time_is_a_part_on_every_machine(data):
    short, long = (part_of(text, data, True, Passes(4_000)) for text in ("auto:5m", "auto:1h"))
    assert (short.seconds, long.seconds) == (300, 3600)
    assert 20 <= len(short.points) < len(long.points) < 720
    least = part_of("auto:1m", data, True, Passes(4_000))
    assert (len(least.points), least.fits, long.fits) == (20, False, True)
    assert least.words[0].startswith("20 of 720 architectures, the least part there is")
    assert "architectures fit 1 h" in long.words[0]
    with pytest.raises(UsageError, match="no length of time"):
        part_of("auto:soon", data, False, Passes())


def test_of_equally_costly_networks_the_first_are_left_out_in_every_process(data):
    points = space720.subset(25)
    cost = [effort(point, 3, 32, 10) for point in points]
    order = sorted(range(25), key=lambda n: -cost[n])
    assert cost[order[4]] == cost[order[5]]  # the fifth is left out, its equal is not
    part = part_of("auto", data, False, Passes(1e9))
    assert {point.name for point in part.points} == {points[n].name for n in order[5:]}


def test_the_costliest_networks_are_left_out_of_a_part_and_counted(data):
    """Of the first 25 one takes half the time; never more than five of 25 are left out."""
    first = space720.subset(25)
    cost = {point.name: effort(point, 3, 32, 10) for point in first}
    assert max(cost.values()) > 0.4 * sum(cost.values())
    for images, costly in ((30_000, 4), (1e9, 5)):
        part = part_of("auto", data, False, Passes(images))
        names = [point.name for point in part.points]
        kept = [name for name in cost if name in names]
        left = sorted(set(cost) - set(kept), key=lambda name: -cost[name])
        assert part.costly >= len(left)
        assert len(left) == costly
        assert left == sorted(cost, key=lambda name: -cost[name])[: len(left)]
        assert f"{part.costly} costly one" in part.words[0]


class Rings(SearchSpace):
    """A space of somebody else's."""

    names = ("one", "two", "three", "four")

    def build(self, name):
        width = 4 * (1 + self.names.index(name))
        return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, width), nn.ReLU(), nn.Linear(width, 3))

    numerics = 3


@pytest.fixture
def rings(monkeypatch):
    for table, value in ((SPACES._entries, Rings), (SPACES._owners, None)):
        if value is not None:
            monkeypatch.setitem(table, "rings", value)
    monkeypatch.setattr(Rings, "name", "rings", raising=False)


def test_a_space_of_a_plug_in_is_searched_with_a_table_as_its_real_side(small, rings, tmp_path):
    """`build(name)` alone is enough; accuracies come from a table, in percent here, by names without the space."""
    table = tmp_path / "table.csv"
    table.write_text("architecture,accuracy\none,40\ntwo,50.5\nthree,60\nfour,70\n")
    made = session(tmp_path, SHORT)
    found = nas(made, replace(RANDOM, only=True, space="rings:4", reference=str(table), reference_epochs=None))
    assert [entry["name"] for entry in found["architectures"]] == [f"rings:{name}" for name in Rings.names]
    assert [entry["real"] for entry in found["architectures"]] == [0.4, 0.505, 0.6, 0.7]
    assert found["reference"]["kind"] == "table"
    assert "a table of accuracies" in " ".join(tell(found).split())
    runs = [run for run in made.store.ls() if run.kind == "train"]
    assert {run.inputs["numerics"]["space rings"] for run in runs} == {3}
    table.write_text("architecture,accuracy\nfive,40\n")
    with pytest.raises(DataError, match="has 0 of the 4 architectures"):
        nas(session(tmp_path, SHORT), replace(RANDOM, only=True, space="rings:4", reference=str(table)))


def raising(self, name):
    raise ValueError("no such width\nand more")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"names": ("one", "two", "one")}, "has two architectures 'one'.\nGive each its own name"),
        ({"names": "abc"}, "has names that are no texts"),
        ({"names": (1, 2, 3)}, "has names that are no texts"),
        ({"build": raising}, "rings:one cannot be built.\nValueError: no such width$"),
        (
            {"build": lambda self, name: name},
            "rings:one cannot be built.\nTypeError: build gave str, no torch.nn.Module",
        ),
        ({"build": lambda self, name: nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 7))}, r"gives \[1, 7\]"),
        ({"build": lambda self, name: nn.Linear(5, 3)}, "rings:one cannot be built.\nRuntimeError"),
    ],
)
def test_a_space_of_a_plug_in_that_is_not_as_it_must_be_is_named(rings, monkeypatch, changes, said):
    monkeypatch.setitem(SPACES._owners, "rings", Owner("my_space"))
    for name, value in changes.items():
        monkeypatch.setattr(Rings, name, value)
    with pytest.raises(PluginError, match=said):
        search_space.build(f"rings:{space('rings').names[0]}", 3, 32, 3, rng.stream(0, "test"))


# rankings ------------------------------------------------------------------------------------------------------------


def test_the_command_that_ranks_by_real_data_gives_the_real_side_of_a_search(small, tmp_path):
    """Both seeds; a stopped one keeps what is done; a search then trains nothing on real data and says the same."""
    path = tmp_path / "tiny-mine.csv"

    class Stopping(Deadline):
        left_to_do = 9

        def check(self) -> None:
            self.left_to_do -= 1
            if self.left_to_do < 0:
                raise BudgetExhausted("Stopped.")

        def requested(self) -> bool:
            return self.left_to_do < 0

    made = session(tmp_path, SHORT)
    made.stop = Stopping()
    with pytest.raises(BudgetExhausted):
        ask("ranking", made, space="6", reference_epochs=3, out=path)
    if path.exists():
        assert all(row.accuracy is not None for row in ranking.load(path).rows)
    found = ask("ranking", session(tmp_path, SHORT), space="6", reference_epochs=3, out=path)
    whole = ranking.load(path)
    assert (len(whole.scores(0)), len(whole.scores(1)), found["ceiling"]["evaluated"]) == (6, 6, 6)
    assert whole.label.data
    assert "12 of 12 networks" in tell(found)
    stored = nas(session(tmp_path, SHORT), replace(RANDOM, only=True, space="6", reference=str(path)))
    trained = nas(session(tmp_path, SHORT), replace(RANDOM, only=True, space="6", reference="train"))
    assert [e["real"] for e in stored["architectures"]] == [e["real"] for e in trained["architectures"]]
    with pytest.raises(UsageError, match="cannot be added to"):
        ask("ranking", session(tmp_path, SHORT), space="6", reference_epochs=4, out=path)


def test_a_ranking_goes_on_from_its_file_on_another_machine(small, tmp_path):
    path = tmp_path / "tiny.csv"
    ask("ranking", session(tmp_path / "first", SHORT), space="6", out=path)
    whole = ranking.load(path)
    part = [row for row in whole.rows if row.seed == 0 or row.architecture == whole.rows[0].architecture]
    path.write_text(ranking.to_csv(replace(whole, rows=tuple(part))))
    other = session(tmp_path / "second", SHORT)
    found = ask("ranking", other, space="6", out=path)
    trained = other.store.ls()
    assert len(trained) == 12 - len(part) == 5
    assert "12 of 12 networks" in tell(found)
    again = [replace(row, seconds=0.0) for row in ranking.load(path).rows]
    assert again == [replace(row, seconds=0.0) for row in whole.rows]
    third = session(tmp_path / "third", SHORT)
    assert ask("ranking", third, space="6", out=path)["ceiling"] == found["ceiling"]
    assert not third.store.ls()


def test_a_network_that_failed_counts_in_what_a_ranking_says_of_itself(small, tmp_path):
    path = tmp_path / "tiny-mine.csv"
    ask("ranking", session(tmp_path / "first", SHORT), space="6", out=path)
    whole = ranking.load(path)
    gone = replace(whole.rows[1], accuracy=None, validation=None)
    path.write_text(ranking.to_csv(replace(whole, rows=(whole.rows[0], gone, *whole.rows[2:]))))
    found = ask("ranking", session(tmp_path / "second", SHORT), space="6", out=path)
    assert found["arms"][0]["failed"] == 1
    assert found["arms"][0]["done"] == 11
    assert found["ceiling"]["evaluated"] == 6


def test_a_ranking_of_the_package_is_used_where_it_was_measured_as_asked(data, monkeypatch, tmp_path):
    monkeypatch.setattr("fyi_bench.data.load_dataset", lambda name, root, test=True: data)
    label = RealSide.asked(session(tmp_path, {}), None, None).label
    rows = tuple(ranking.Row(p.name, 0, 0.5, 1.0, "a processor", 1, "0" * 16) for p in space720.SPACE[:30])
    old = replace(label, data="", aside=0.0)
    kept = {
        "tiny-old": ranking.Ranking(old, rows),
        "tiny-new": ranking.Ranking(label, rows[:25]),
        "tiny-other": ranking.Ranking(replace(label, precision="bf16"), rows),
    }
    monkeypatch.setattr(ranking, "names", lambda: sorted(kept))
    monkeypatch.setattr(ranking, "load", kept.__getitem__)
    assert fitting_ranking(label)[0] == "tiny-new"
    assert fitting_ranking(replace(label, data="another")) == ("tiny-old", kept["tiny-old"])
    assert fitting_ranking(replace(label, epochs=7)) is None
    assert fitting_ranking(replace(label, precision="bf16"))[0] == "tiny-other"
    kept["tiny-other"] = ranking.Ranking(replace(old, precision="bf16"), rows)
    assert fitting_ranking(replace(label, precision="bf16"))[0] == "tiny-new"  # known data before the same precision
    # where the data set is complete, other train images are the same ones in another order
    assert fitting_ranking(replace(label, data="another"), complete=True)[0] == "tiny-new"
    kept["tiny-shuffled"] = ranking.Ranking(replace(label, data="a" * 16), rows)
    assert fitting_ranking(label, complete=True)[0] == "tiny-new"
    del kept["tiny-new"], kept["tiny-old"], kept["tiny-shuffled"]
    assert fitting_ranking(label)[0] == "tiny-other"


def test_a_ranking_of_the_data_set_in_another_order_is_used_and_the_plan_says_so(small, monkeypatch, tmp_path):
    label = RealSide.asked(session(tmp_path, {}), None, None).label
    rows = tuple(ranking.Row(p.name, 0, 0.5, 1.0, "a processor", 1, "0" * 16) for p in space720.subset(60, 0))
    kept = ranking.Ranking(replace(label, data="a" * 16), rows)
    monkeypatch.setattr(ranking, "names", lambda: ["tiny-shuffled"])
    monkeypatch.setattr(ranking, "load", lambda name: kept)
    found = search_of(session(tmp_path, {}), NasOptions(space="20"))
    assert found.stored == ("tiny-shuffled", kept)
    assert "'tiny-shuffled' in fp32, of other images of the data set" in found.title


def replace_settings(one: Session, **changes) -> Session:
    return Session(replace(one.settings, **changes))


def test_images_of_the_real_side_are_the_same_for_every_seed_and_number_of_networks(small, tmp_path):
    point = space720.SPACE[0]
    plain, seeded, several = (
        RealSide.asked(replace_settings(session(tmp_path, changes), seed=seed), None, None)
        for changes, seed in (({}, 0), ({}, 3), ({"nets": "3"}, 0))
    )
    assert plain.run(point, 5).digest == seeded.run(point, 5).digest == several.run(point, 5).digest
    assert plain.label == several.label


def test_a_space_drawn_by_lot_is_drawn_from_what_a_table_has(data):
    names = space("nasbench201").names[::50]
    for known in (dict.fromkeys(names, 0.5), {f"nasbench201:{name}": 0.5 for name in names}):
        part = part_of("nasbench201:40", data, True, Passes(1, 1), known)
        assert len(part.points) == 40
        assert part.words == []
        assert {point.name for point in part_of("nasbench201:12", data, True, Passes(1, 1), known).points} < {
            point.name for point in part.points
        }
    few = part_of("nasbench201:40", data, True, Passes(1, 1), dict.fromkeys(names[:9], 0.5))
    assert (len(few.points), few.unranked) == (9, 31)


def test_a_table_may_have_spaces_around_names():
    assert ranking.parse("architecture,accuracy\n w32-d1-nonorm-relu-max ,0.5\n", "t").rows[0].architecture == (
        "w32-d1-nonorm-relu-max"
    )


def test_architectures_that_a_ranking_does_not_have_are_counted(data):
    known = {point.name: 0.5 for point in space720.subset(36, 0)[:30]}
    part = part_of("36", data, True, Passes(1, 1), known)
    assert len(part.points) == 30
    assert part.words == ["6 architectures left out that the ranking does not have; all: --reference train"]
    assert part_of("12", data, True, Passes(1, 1), known | {p.name: 0.5 for p in space720.subset(12, 0)}).words == []


def test_a_part_of_all_that_a_ranking_has_is_not_called_cut(data):
    known = {point.name: 0.5 for point in space720.subset(26, 0)}
    part = part_of("auto:10h", data, False, Passes(1, 1), known)
    assert (len(part.points), part.cut) == (26, False)
    assert part.words == ["the 26 architectures that the ranking has; others: --reference train"]
    assert part_of("auto:10h", data, False, Passes(1e9, 1), known).cut


@pytest.mark.parametrize(
    ("images", "test_images", "said"),
    [
        (-7, None, "--reference-images is -7"),
        (None, 2, "--test-images is 2"),
        (2, None, "3 or more: one of each class"),
    ],
)
def test_numbers_of_real_images_that_make_no_sense_are_refused(small, tmp_path, images, test_images, said):
    with pytest.raises(UsageError, match=said):
        RealSide.asked(session(tmp_path, {}), images, test_images)


def test_so_few_architectures_that_nothing_can_be_ranked_are_refused(data):
    with pytest.raises(UsageError, match=r"1 architecture cannot be ranked\.\nAsk for 3 or more"):
        part_of("1", data, True, Passes(1, 1))


def test_a_file_that_is_handed_in_is_checked(tmp_path, capsys):
    shipped = ranking.load("cifar10-quick-bf16")
    label, row = shipped.label, shipped.rows[0]
    good = tmp_path / "cifar10-mine.csv"
    ranking.save(ranking.Ranking(label, shipped.rows[:5]), good)
    assert ranking.main([str(good)]) == 0
    assert "5 networks" in capsys.readouterr().out
    for changed, said in (
        (replace(row, accuracy=0.34123), "no whole number of 2000 test images"),
        (replace(row, seconds=0.0), "is no time"),
        (replace(row, cell="mine"), "is no digest of a run"),
        (replace(row, device=""), "on what device"),
        (replace(row, accuracy=0.5), "in one ranking and 0.5 in another"),
    ):
        bad = tmp_path / "cifar10-bad.csv"
        bad.write_text(ranking.to_csv(ranking.Ranking(label, (changed,))))
        assert ranking.main([str(good), str(bad)]) == 5
        assert said in capsys.readouterr().err
    other = tmp_path / "mine.csv"
    other.write_text(good.read_text())
    with pytest.raises(UsageError, match="Begin its name with that: cifar10"):
        ranking.check(other)
    assert ranking.main([]) == 2


# rank a set ----------------------------------------------------------------------------------------------------------


def test_a_set_is_ranked_against_a_stored_ranking(small, tmp_path, data):
    path, kept = tmp_path / "mine.safetensors", tmp_path / "tiny.csv"
    data.train.select(torch.arange(0, 36, 6)).save(path, preview=False)
    ask("ranking", session(tmp_path, SHORT), space="6", out=kept)
    found = ask("rank", session(tmp_path, SHORT), path=path, space="6", reference=str(kept))
    assert [(arm["name"], arm["evaluated"]) for arm in found["arms"]] == [("mine", 6)]
    assert {"value", "low", "high"} <= found["arms"][0]["spearman_all"].keys()
    assert "regret, points" in tell(found)
    with pytest.raises(DataError, match="There is no stored ranking of tiny"):
        ask("rank", session(tmp_path, SHORT), path=path, space="6")


def test_a_ranking_from_another_device_lends_its_accuracies_and_not_its_times(small, tmp_path, data):
    """Real images then take what the set's networks took here, in proportion to the images that pass."""
    path, kept = tmp_path / "mine.safetensors", tmp_path / "tiny.csv"
    data.train.select(torch.arange(0, 36, 6)).save(path, preview=False)
    ask("ranking", session(tmp_path, SHORT), space="6", out=kept)
    stored = ranking.load(kept)
    other = ranking.Ranking(stored.label, tuple(replace(row, device="another", seconds=1e6) for row in stored.rows))
    ranking.save(other, tmp_path / "other.csv")
    here, there = (
        ask("rank", session(tmp_path, SHORT), path=path, space="6", reference=str(file))
        for file in (kept, tmp_path / "other.csv")
    )
    assert [found["reference"]["reckoned"] for found in (here, there)] == [False, True]
    assert here["reference"]["train_s"] == pytest.approx(sum(stored.times(stored.seeds[0]).values()), abs=0.1)
    assert here["arms"][0]["spearman_all"] == there["arms"][0]["spearman_all"]
    arm, label = there["arms"][0], stored.label
    asked = RealSide.asked(session(tmp_path, SHORT), None, None)
    shown = [label.images * label.epochs, arm["images"] * arm["epochs"]]
    real, proxy = (images + TEST_PASS * asked.tested for images in shown)
    assert there["reference"]["train_s"] == pytest.approx(arm["train_s"] * real / proxy, abs=0.2)


# scores of untrained networks ----------------------------------------------------------------------------------------


def test_the_norm_of_gradients_is_that_of_a_plain_sum():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    x, y = torch.randn(5, 3, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    loss = nn.functional.cross_entropy(network(x), y)
    loss.backward()
    assert gradient_norm(network, x, y) == pytest.approx(float(network[1].weight.grad.norm()), rel=1e-5)


def test_synflow_of_two_layers_is_the_sum_over_paths():
    """Without biases every path counts the product of its absolute weights, once a layer; norms do not matter."""
    first, second = nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False)
    paths = (second.weight.detach().abs().double() @ first.weight.detach().abs().double()).sum()
    for norm in (nn.Identity(), nn.LayerNorm(3)):
        network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False), norm, nn.Linear(3, 2, bias=False))
        network[1].weight.data.copy_(first.weight)
        network[3].weight.data.copy_(second.weight)
        assert synflow(network, (1, 2, 2)) == pytest.approx(2 * float(paths), rel=1e-6)


@pytest.mark.parametrize("name", ["convnet-w32-d2-batch-relu-max", "convnet-w32-d1-layer-sigmoid-nopool", RESNET_LIKE])
def test_every_kind_of_network_has_scores(name):
    shape = (3, 16, 16)
    fresh = search_space.build(name, 3, 16, 4, rng.stream(0, "test"))
    assert 0 < synflow(fresh, shape) < float("inf")
    fresh = search_space.build(name, 3, 16, 4, rng.stream(0, "test"))
    assert 0 < gradient_norm(fresh, torch.randn(8, *shape), torch.arange(8) % 4) < float("inf")


# a search by halving -------------------------------------------------------------------------------------------------


def test_halving_finds_the_best_by_a_perfect_proxy_and_chance_by_none():
    """By simulation: a proxy that ranks as real data loses nothing; one that knows nothing loses what chance does."""
    draw, lost = np.random.default_rng(0), {"perfect": [], "none": [], "chance": []}
    for seed in range(12):
        real = draw.normal(0.6, 0.1, 30)
        perfect = successive_halving(list(real), list(real), [1.0] * 30, seed)
        none = successive_halving(list(draw.normal(size=30)), list(real), [1.0] * 30, seed)
        lost["perfect"].append(perfect["regret"]["mean"])
        lost["none"].append(none["regret"]["mean"])
        count = round(none["trained"])
        lost["chance"] += [real.max() - draw.choice(real, count, replace=False).max() for _ in range(20)]
        assert 30 / FACTOR * 0.8 < perfect["trained"] < 20
        assert perfect["real_s"] == perfect["trained"]
    assert max(lost["perfect"]) == 0
    spread = np.std(lost["none"]) / np.sqrt(12) + np.std(lost["chance"]) / np.sqrt(240)
    assert abs(np.mean(lost["none"]) - np.mean(lost["chance"])) < 3 * spread


def test_halving_with_failures():
    found = successive_halving([None, 0.3, 0.2, 0.9], [0.5, None, 0.4, 0.6], [1, 1, 1, 1], 0)
    assert found["regret"]["mean"] == 0
    assert successive_halving([0.1, 0.2], [None, None], [1, 1], 0)["regret"]["mean"] is None

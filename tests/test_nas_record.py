"""A record of an architecture search, as the search writes it: read by the answer, Table B, the report and the plot."""

from __future__ import annotations

import copy

import pytest
from test_nas import CHEAP, session

import tiny
from commands import ask, tell
from downstream import nas
from fyi_bench.data.real import RealDataset
from fyi_bench.errors import DataError
from fyi_bench.present.figures import Request, figure
from fyi_bench.present.figures.nas import GROWTH, LEAST_SECONDS, cost_drawing, costs_of, nas_figure
from fyi_bench.present.report import report_html
from fyi_bench.present.tables.results import groups_of
from fyi_bench.stats import STATISTICS, paired_rank_difference
from fyi_bench.store.record import write_sealed
from fyi_bench.store.store import Store
from fyi_bench.tasks.nas.faithful import faithful_words
from fyi_bench.tasks.report import section_makers
from sample_records import texts
from search_space import space720


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> dict:
    """A whole search over six architectures on tiny images."""
    real = tiny.real_set(classes=3, per_class=12, size=32)
    data = RealDataset("tiny", real, real, (0.5,) * 3, (0.25,) * 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fyi_bench.data.load_dataset", lambda name, root, test=True: data)
        patch.setattr(nas, "limits_of", lambda name: nas.Limits(18, 30, 1.0))
        patch.setattr(space720, "subset", lambda n, seed=0: tuple(CHEAP[:n]))
        asked = {"method": "dm", "fyi": True, "ipc": 1, "space": 6, "reference_epochs": 3}
        return ask("nas", session(tmp_path_factory.mktemp("nas")), **asked)


@pytest.mark.long
def test_differences_are_flat_for_the_headline_and_by_metric_beside(record):
    assert set(record["difference"]) == {"mean", "low", "high", "pairs"}
    assert set(record["differences"]) == set(STATISTICS)
    assert record["differences"]["spearman_all"] == record["difference"]


def test_each_arm_is_held_against_the_ceiling_on_the_same_architectures(record):
    real, again = ([entry[key] for entry in record["architectures"]] for key in ("real", "real_again"))
    for arm in record["arms"]:
        assert arm["against_ceiling"] == paired_rank_difference(real, arm["accuracy"], again)
        assert arm["tied"] == sum(arm["accuracy"].count(value) > 1 for value in arm["accuracy"])


def test_each_arm_is_held_against_the_draws_of_random_images(record):
    floor = next(arm for arm in record["arms"] if arm["method"] == "random")
    assert floor["against_floor"] == {}
    others = [arm for arm in record["arms"] if arm is not floor]
    assert others
    for arm in others:
        for name in ("spearman_all", "kendall_all", "regret"):
            difference = arm["against_floor"][name]
            assert difference["pairs"] == 6
            assert difference["mean"] == pytest.approx(arm[name]["value"] - floor[name]["value"])


def test_the_answer_says_in_words_whether_the_set_is_a_proxy(record):
    shown = tell(record)
    for words in (
        "dm+fyi: ",
        "fyi − none:",
        "condensing",
        "real data again",
        "3 epochs on 18",
        "synflow",
    ):
        assert words in shown
    assert "factor by factor" in tell(searched(record))


def searched(record: dict) -> dict:
    """The same record as one about the paper's cell: MTT, CIFAR-10, 50 images a class, with clear correlations."""
    found = copy.deepcopy(record) | {"dataset": "cifar10"}
    for arm, value in zip(found["arms"][:2], (0.6, 0.7), strict=True):
        arm |= {
            "method": "mtt",
            "evaluated": 24,
            "ipc": 50,
            "spearman_all": {"value": value, "low": value - 0.1, "high": value + 0.1},
        }
    found["differences"]["spearman_all"] = {"mean": 0.1, "low": 0.02, "high": 0.18, "pairs": 24}
    return found | {"difference": found["differences"]["spearman_all"]}


def test_the_runs_of_a_search_have_the_numbers_of_its_record(record, monkeypatch):
    monkeypatch.setattr(space720, "subset", lambda n, seed=0: tuple(CHEAP[:n]))
    monkeypatch.setattr(nas, "limits_of", lambda name: nas.Limits(18, 30, 1.0))
    groups = {(g.made["method"], g.made["flip"]): g for g in groups_of(Store(record["store"]))}
    for arm in record["arms"]:
        for metric in ("spearman_all", "spearman_top50"):
            ours = groups[arm["method"], arm["flip"]].number(metric)
            assert (ours is None) == (arm[metric]["value"] is None)
            if ours is not None:
                assert {"value": ours.mean, "low": ours.low, "high": ours.high} == arm[metric]
                assert "6 of 720 architectures" in ours.differs
    difference = groups["dm", "fyi"].minus(groups["dm", "none"], "spearman_all")
    assert difference == record["differences"]["spearman_all"]


def test_the_report_shows_words_dots_and_factors(record):
    page = report_html([searched(record)], "t", makers=section_makers())
    for words in (
        "Spearman over 24 architectures: mtt 0.60 [0.50, 0.70], mtt+fyi 0.70 [0.60, 0.80]",
        "Spearman over all, fyi − none: +0.10",
        "real, another seed",
        "misjudges",
        "Images and time",
        "mtt+fyi: ",
    ):
        assert words in page
    assert page.count("accuracy after the proxy") >= 2


def test_few_architectures_tell_nothing_of_differences_and_factors(record):
    page = report_html([record], "t", makers=section_makers())
    assert "6 architectures are too few to tell, 20 are the least" in page
    for words in ("misjudges", "better with fyi", "worse with fyi"):
        assert words not in page


def test_the_plot_is_written_as_png_and_svg(record, tmp_path):
    assert sorted(path.name for path in nas_figure(record, tmp_path)) == [
        "nas-cost.png", "nas-cost.svg", "nas.png", "nas.svg"
    ]  # fmt: skip


def test_what_a_ranking_takes_is_told_of_every_side_with_a_time(record):
    timed = copy.deepcopy(record) | {"reference": record["reference"] | {"train_s": 9.0}}
    for number, arm in enumerate(timed["arms"]):
        arm |= {"train_s": 2.0 * number, "distill_s": None if number == 1 else 0.5 * number}
    found = costs_of(timed)
    assert found[0][0].startswith("real data again")
    assert [seconds for _, seconds, _ in found[:4]] == [9.0, LEAST_SECONDS, 2.0, 5.0]
    assert costs_of(timed | {"reference": timed["reference"] | {"train_s": 0.0}}) == found[1:]
    assert all(f">{name}<" in cost_drawing(timed).svg for name, _, _ in found)


# the verdict ---------------------------------------------------------------------------------------------------------


def entry(value: float | None, low: float | None = None, high: float | None = None) -> dict:
    return {"value": value, "low": low, "high": high}


def gap(mean: float, low: float, high: float) -> dict:
    return {"mean": mean, "low": low, "high": high, "pairs": 18}


def verdict(agreement: dict, below: dict | None, evaluated: int = 36, floor: dict | None = None) -> str:
    """The verdict on an arm with this correlation and these differences to the ceiling and to random images."""
    arm = {"method": "dm", "flip": "fyi", "evaluated": evaluated, "spearman_all": agreement, "regret": entry(0.03)}
    arm |= {
        "spearman_top50": entry(0.3, -0.2, 0.6),
        "top10_recall": entry(0.4),
        "against_ceiling": below and {"spearman_all": below},
        "against_floor": floor and {"spearman_all": floor},
    }
    return "\n".join(
        faithful_words({"arms": [arm], "ceiling": {"evaluated": 18, "spearman_all": entry(0.9, 0.8, 0.95)}})
    )


def test_a_real_ranking_that_does_not_repeat_itself_is_said_first():
    told = faithful_words({"arms": [], "ceiling": {"evaluated": 18, "spearman_all": entry(0.06, -0.54, 0.58)}})
    assert len(told) == 1
    assert told[0].startswith("The real ranking does not repeat itself: Spearman 0.06 [−0.54, 0.58]")
    assert faithful_words({"arms": [], "ceiling": {"evaluated": 0}}) == []


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (gap(0.1, 0.02, 0.2), "+0.10 [+0.02, +0.20], paired; it ranks better than they do."),
        (gap(-0.1, -0.2, -0.02), "−0.10 [−0.20, −0.02], paired; it ranks worse than they do."),
        (gap(0.0, -0.1, 0.1), "+0.00 [−0.10, +0.10], paired; not told apart from them."),
    ],
)
def test_the_paired_difference_to_random_images_is_said(difference, said):
    told = verdict(entry(0.8, 0.6, 0.9), gap(-0.1, -0.3, 0.1), floor=difference)
    assert f"Minus Spearman on as many random real images: {said}" in told


def test_few_architectures_give_no_verdict():
    told = verdict(entry(0.9, 0.8, 0.95), gap(0.0, -0.1, 0.1), 19)
    assert "dm+fyi: 19 architectures are too few to tell; 20 are the least." in told
    assert "better half" not in told


@pytest.mark.parametrize(
    ("agreement", "below", "said"),
    [
        (entry(None), None, "dm+fyi: cannot be told"),
        (entry(0.2, -0.1, 0.5), None, "no evidence that it ranks architectures as real data does: Spearman 0.20"),
        (entry(-0.5, -0.8, -0.2), None, "not a proxy: it ranks architectures against real data"),
        (entry(0.6, 0.4, 0.8), None, "how well real data agrees with itself was not measured"),
        (entry(0.6, 0.4, 0.8), gap(-0.3, -0.5, -0.1), "clearly less faithful than real data"),
        (entry(0.8, 0.6, 0.9), gap(-0.1, -0.3, 0.1), "not told apart from a second run on real data"),
    ],
)
def test_the_verdict_follows_the_intervals(agreement, below, said):
    told = verdict(agreement, below)
    assert said in told
    assert "no evidence that it tells these apart" in told
    assert "3.0 points below the really best one; of the 10 best it finds 4.0" in told


def kept(store: Store, record: dict, number: int, ipc: int, protocol: str = "quick", **changes) -> None:
    """The record in the store as that of a search with other images or another trainer."""
    changed = copy.deepcopy(record) | changes
    changed |= {"digest": f"{number:016d}", "protocol": {"name": protocol, "version": 1}}
    for arm in changed["arms"]:
        arm["ipc"] = arm["ipc"] and ipc
    write_sealed(store.root / "reports" / f"nas-{number:016d}.json", changed)


def test_growth_is_drawn_from_searches_of_the_same_architectures(record, tmp_path):
    store = Store(tmp_path / "runs")
    request = Request(store, lambda name: None)
    record = record | {"protocol": {"name": "quick", "version": 1}}
    kept(store, record, 1, 1)
    with pytest.raises(DataError, match=r"differ in their images or epochs alone.*\n.*nas --method dm"):
        figure("growth", request)
    kept(store, record, 2, 10)
    kept(store, record, 3, 10, "quick+lr=0.1", arms=record["arms"][:1])
    kept(store, record, 4, 50, architectures=record["architectures"][1:])
    kept(store, record, 5, 50, "paper")
    kept(store, record, 6, 10, reference=record["reference"] | {"test_images": 7})
    kept(store, record, 7, 10, reference=record["reference"] | {"protocol": "quick+lr=0.1"})
    kept(store, record, 8, 10, date="2020-01-01T00:00:00+00:00")  # the same search, of an earlier day
    shown = texts(figure("growth", request)[1].read_text())
    first = record["arms"][0]
    assert {first["method"], f"{first['method']} lr=0.1", "dm+fyi", "random", "early-stopping"} <= {*shown}
    assert any("Left out, of other architectures or another real side: 3 records" in text for text in shown)
    told = " ".join(shown)
    assert f"{first['epochs']} on 1, {first['epochs']} on 10" in told
    assert "6 architectures" in told


def test_growth_has_a_dot_for_each_number_of_images_and_a_whisker_for_each_interval(record, tmp_path):
    from fyi_bench.present.figures.nas import growth_drawing

    changed = [copy.deepcopy(record) for _ in range(2)]
    for one, ipc, value in zip(changed, (1, 10), (0.25, 0.75), strict=True):
        one["arms"] = one["arms"][:1]
        one["arms"][0] |= {"ipc": ipc, "spearman_all": {"value": value, "low": value - 0.1, "high": value + 0.1}}
        one["arms"][0]["spearman_top50"] = {"value": value, "low": None, "high": None}
    everywhere, better = growth_drawing(changed).figure.axes
    lines = [[[*map(float, line.get_xdata())], [*map(float, line.get_ydata())]] for line in everywhere.lines]
    assert [[1.0, 10.0], [0.25, 0.75]] in lines
    assert [y for x, y in lines if x[0] == x[1]] == [pytest.approx([0.15, 0.35]), pytest.approx([0.65, 0.85])]
    assert not any(line.get_xdata()[0] == line.get_xdata()[1] for line in better.lines)


def test_growth_with_epochs_is_a_row_of_its_own_at_the_images_with_most_lengths(record):
    from fyi_bench.present.figures.nas import growth_drawing

    def search(ipc: int, epochs: int, value: float, changes: str = "") -> dict:
        one = copy.deepcopy(record) | {"protocol": {"name": f"quick{changes}", "version": 1}}
        one["arms"] = one["arms"][:1]
        one["arms"][0] |= {"ipc": ipc, "epochs": epochs}
        one["arms"][0] |= {panel: {"value": value, "low": None, "high": None} for panel in GROWTH}
        return one

    plain = [search(1, 120, 0.1), search(10, 30, 0.3)]
    longer = [search(10, 90, 0.5, "+epochs=90"), search(10, 3, 0.2, "+epochs=3+min_steps=0")]
    other = [search(1, 90, 0.4, "+epochs=90"), search(10, 30, 0.9, "+lr=0.1")]

    def axis_labels(panels) -> list[str]:
        return [one.get_xlabel() for one in panels]

    axes = growth_drawing([*plain, *longer, *other]).figure.axes
    assert axis_labels(axes) == ["images a class"] * 2 + ["epochs on 10 images a class"] * 2
    lines = [
        [([*map(float, one.get_xdata())], [*map(float, one.get_ydata())]) for one in panel.lines] for panel in axes
    ]
    assert ([3.0, 30.0, 90.0], [0.2, 0.3, 0.5]) in lines[2]
    name = record["arms"][0]["method"]
    assert {text.get_text() for text in axes[1].texts} >= {name, f"{name} lr=0.1", f"{name} epochs=90"}
    # epochs alone are enough for a plot
    assert axis_labels(growth_drawing([plain[1], *longer]).figure.axes) == ["epochs on 10 images a class"] * 2


def test_the_captions_of_a_search_against_a_table_name_the_table(record):
    from fyi_bench.present.figures.nas import growth_caption, nas_caption

    table = record["reference"] | {"kind": "table", "name": "mine.csv", "epochs": 0, "images": 0}
    for told in (nas_caption(record | {"reference": table}), growth_caption([record | {"reference": table}], 0)):
        assert "real side: the table 'mine.csv'" in told
        assert "0 epochs" not in told

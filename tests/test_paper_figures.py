"""The paper's figures: right numbers against plain twins, drawn from what a store has, honest where it has nothing."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from matplotlib.figure import Figure
from plugins import Plugged

import fyi_bench
import search_space
from distill.fyi import FLIPS
from distill.image_set import ImageSet
from distill.spaces import PixelSpace
from fyi_bench import rng
from fyi_bench.data.entry import DATASETS
from fyi_bench.data.real import RealDataset
from fyi_bench.errors import DataError, UnknownNameError, UsageError
from fyi_bench.present.figures import EFFORTS, FIGURES, Effort, Request, figure, figure_needs
from fyi_bench.present.figures.evolution import MAIN, Curve, paint_curves
from fyi_bench.present.figures.grids import class_index
from fyi_bench.present.figures.real_scores import Series, measure
from fyi_bench.present.figures.sets import by_iterations, paired_sets
from fyi_bench.store.excerpt import note_absent
from fyi_bench.store.record import write_sealed
from fyi_bench.store.store import Store
from sample_records import continual_arm, continual_record, texts
from sample_store import add_set, tiny_dataset

TINY = Effort((1, 2, 4), networks=2, resamples=2, draws=1, model="convnet-w8-d1")
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def real_data(name: str = "cifar10", each: int = 6) -> RealDataset:
    """Noise with two classes, 8 x 8."""
    images = torch.randint(0, 256, (2 * each, 3, 8, 8), generator=rng.stream(0, name), dtype=torch.uint8)
    split = ImageSet(images, torch.arange(2).repeat_interleave(each), PixelSpace(), 2)
    return RealDataset(name, split, split, (0.5,) * 3, (0.25,) * 3)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")


def request_of(store: Store, **more) -> Request:
    """A request on noise, with next to no effort."""
    return Request(store, real_data, effort=TINY, **more)


def svg_texts(paths) -> list[str]:
    return texts(paths[1].read_text())


# scores of real images -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", ["fyi", "vertical"])
def test_scores_are_those_of_the_definition(store, flip):
    data, seed = real_data(), 3
    rows = measure(data.train, data.space, Series("DM", "dm", flip=flip), request_of(store, seed=seed))
    expected = {n: [] for n in TINY.counts}
    for resample in range(2):
        order = [
            data.train.indices_of(c)[
                torch.randperm(6, generator=rng.stream(seed, "figure-sample", resample, c))
            ] for c in (0, 1)
        ]  # fmt: skip
        for number in range(2):
            net = search_space.build(TINY.model, 3, 8, 2, rng.stream(seed, "figure-network", number))
            for n in TINY.counts:
                of_classes = []
                for index in order:
                    images = data.train.batch(index[:n], data.space)
                    with torch.no_grad():
                        mean, flipped = (net.embed(x).mean(0) for x in (images, FLIPS.get(flip).transform(images)))
                    of_classes.append(float(((mean - flipped) ** 2).sum()))
                expected[n].append(sum(of_classes) / 2)
    assert [row["n"] for row in rows] == [1, 2, 4]
    for row in rows:
        assert row["values"] == pytest.approx(expected[row["n"]], rel=1e-4)
        assert row["mean"] == pytest.approx(sum(expected[row["n"]]) / 4, rel=1e-4)


def test_a_set_with_all_mirror_images_has_no_score_at_full_size(store):
    half = real_data().train
    images = torch.cat([half.images, half.images.flip(-1)])
    whole = replace(half, images=images, labels=torch.cat([half.labels, half.labels]))
    request = replace(request_of(store), effort=replace(TINY, counts=(1, 12)))
    rows = measure(whole, real_data().space, Series("DM", "dm"), request)
    assert rows[0]["mean"] > 1e-3
    assert rows[1]["mean"] < 1e-9


def test_samples_are_no_larger_than_a_class(store):
    data = real_data(each=3)
    rows = measure(data.train, data.space, Series("DM", "dm"), request_of(store))
    assert [row["n"] for row in rows] == [1, 2]


@pytest.mark.long
@pytest.mark.parametrize(("name", "panels"), [("3", 3), ("10", 2), ("D", 4)])
def test_scores_of_real_images_are_drawn_and_measured_once(store, name, panels):
    said = []
    request = request_of(store, say=said.append)
    first = figure(name, request)
    count, before = len(said), first[1].read_bytes()
    assert count == {"3": 3, "10": 8, "D": 4}[name]
    assert svg_texts(first).count("real images per class") == panels
    second = figure(name, request)
    assert len(said) == count
    assert second[1].read_bytes() == before


@pytest.mark.long
def test_other_seeds_and_efforts_are_measured_anew(store):
    said = []
    for change in ({}, {"seed": 1}, {"effort": replace(TINY, networks=1)}):
        figure("3", replace(request_of(store, say=said.append), **change))
    assert len(said) == 9


def test_a_stop_is_obeyed_between_measurements(store):
    class Deadline:
        def check(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        figure("3", request_of(store, stop=Deadline()))


def test_efforts_belong_to_protocols(store):
    assert replace(request_of(store), effort=None, protocol="paper+epochs=3").measured is EFFORTS["paper"]
    assert replace(request_of(store), effort=None, protocol="quick").measured is EFFORTS["quick"]


# sets out of a store -------------------------------------------------------------------------------------------


def test_pairs_share_everything_but_the_flip(store):
    add_set(store, "dm", "none", seed=0)
    add_set(store, "dm", "fyi", seed=1)
    add_set(store, "dm", "none", seed=1)
    add_set(store, "dm", "none", seed=1, lr_img="0.5")
    found = paired_sets(store, "cifar10", "dm", 1)
    assert set(found) == {"none", "fyi"}
    assert found["none"].inputs["seed"] == 1
    assert found["none"].inputs["config"] == found["fyi"].inputs["config"]
    assert paired_sets(store, "cifar10", "dm", 10) == {}


def test_lengths_of_one_run_are_gathered_with_their_start(store):
    for flip in ("none", "fyi"):
        for iterations in ("7", "3"):
            add_set(store, "dm", flip, iterations=iterations)
    add_set(store, "dm", "none", iterations="5", lr_img="0.5")
    add_set(store, "random", "none")
    found = by_iterations(store, "cifar10", "dm", 1)
    assert {flip: list(runs) for flip, runs in found.items()} == {"fyi": [0, 3, 7], "none": [0, 3, 7]}
    assert found["fyi"][0].inputs["method"] == "random"


def test_classes_are_found_in_any_spelling():
    one = ImageSet(torch.zeros(2, 3, 4, 4), torch.arange(2), PixelSpace(), 2, ("lawn_mower", "Chain saw"))
    assert [class_index(one, w) for w in ("Lawn mower", "chain-saw", 1, "chair", 5)] == [0, 1, 1, None, None]


# grids and curves ----------------------------------------------------------------------------------------------


def test_a_grid_has_a_row_an_arm_and_a_column_a_class(store):
    data = tiny_dataset(names=NAMES)
    for flip in ("none", "fyi"):
        add_set(store, "dsa", flip, 10, data)
    paths = figure("9", request_of(store))
    shown = svg_texts(paths)
    assert {"dsa", "dsa+fyi", "dog", "frog", "horse", "ship", "truck"} <= set(shown)
    assert paths[1].read_text().count("<image ") == 10
    assert "1000 iterations" in " ".join(shown)


def test_a_grid_shows_the_arms_there_are(store):
    data = tiny_dataset("cifar100", 100, each=2, names=["camel", "chair", "lawn_mower", *map(str, range(97))])
    add_set(store, "mtt", "fyi", 1, data)
    paths = figure("1", request_of(store))
    assert "mtt+fyi" in svg_texts(paths)
    assert paths[1].read_text().count("<image ") == 3


def test_a_grid_says_which_sizes_of_set_it_lacks(store):
    add_set(store, "dsa", "fyi", 1, tiny_dataset("mnist-mirrored"))
    text = " ".join(svg_texts(figure("11", request_of(store))))
    assert "mnist-mirrored · 1 image per class" in text
    assert "not run: 2 images per class" in text


def test_a_set_known_by_its_digest_alone_is_not_drawn(store):
    for flip in ("none", "fyi"):
        add_set(store, "dsa", flip, 1, tiny_dataset("mnist-mirrored"))
    gone = next(run for run in store.ls() if run.inputs["flip"] == "none")
    (gone.folder / "set.safetensors").unlink()
    note_absent(gone.folder, ["set.safetensors"])
    shown = svg_texts(figure("11", request_of(store)))
    assert "dsa+fyi" in shown
    assert "dsa" not in shown


def test_losses_are_drawn_with_their_caveat_and_what_is_missing(store):
    data = tiny_dataset("cifar100", 100, each=2)
    for flip in ("none", "fyi"):
        add_set(store, "dsa", flip, 1, data)
    shown = svg_texts(figure("6", request_of(store)))
    text = " ".join(shown)
    assert shown.count("iteration") == 1
    assert "twice as many images" in text
    assert "not run: DSA, cifar100, 10 IPC; DM, cifar100, 1 IPC" in text


@pytest.mark.long
def test_unequalness_on_the_way_is_that_of_each_set(store, monkeypatch):
    from distill.fyi import set_unequalness

    # the figure is about sets of all 100 classes; four are as good, and 25 times as fast
    monkeypatch.setitem(DATASETS._entries, "cifar100", replace(DATASETS.get("cifar100"), num_classes=4))
    data = tiny_dataset("cifar100", 4, size=8, each=2)
    for iterations in ("10", "20"):
        add_set(store, "dsa", "none", 1, data, iterations=iterations)
    said = []
    request = request_of(store, say=said.append)
    figure("5", request)
    figure("5", request)
    assert said == [f"scoring dsa none after {k} iterations …" for k in (10, 20)]
    runs = by_iterations(store, "cifar100", "dsa", 1)["none"]
    from fyi_bench.present.figures.evolution import _score

    for run in runs.values():
        assert _score(run, request) == set_unequalness(run.load(), 0, networks=2)["mean"]
        own = set_unequalness(run.load(), 0, networks=2, distance="dsa")["mean"]
        assert _score(run, replace(request, distance="own")) == own != _score(run, request)
    assert "that each method matches by" in " ".join(svg_texts(figure("5", replace(request, distance="own"))))


def test_a_level_above_the_curves_is_in_the_picture():
    axes = Figure().subplots()
    paint_curves(axes, [Curve({"method": "dsa", "flip": "none"}, [0, 10], [3.0, 1.0])], "distance", level=9.0)
    assert axes.get_ylim()[1] > 9


def test_only_scores_have_a_distance(tmp_path):
    with pytest.raises(UsageError, match="Figures 5 and A have"):
        fyi_bench.figure("6", distance="own", store=tmp_path)
    with pytest.raises(UnknownNameError, match="Unknown distance 'dc'"):
        fyi_bench.figure("5", distance="dc", store=tmp_path)


def test_continual_curves_of_the_protocol_asked_for(store):
    def save(method, steps, protocol, number):
        arms = [continual_arm(method, flip, [[0.4]] * steps, 100 // steps) for flip in ("none", "fyi")]
        found = continual_record(arms, steps=steps, class_orders=[[0]], protocol=protocol)
        write_sealed(store.root / "reports" / f"continual-{number}.json", found)

    save("dsa", 5, "quick", 1)
    save("dm", 10, "quick", 2)
    save("dm", 5, "paper", 3)
    shown = svg_texts(figure("e", request_of(store, protocol="quick")))
    assert [t for t in shown if re.fullmatch(r"\w+, \d+ steps", t)] == ["DSA, 5 steps", "DM, 10 steps"]


# what cannot be drawn ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["2", "4", "C"])
def test_figures_that_cannot_be_made_say_why(store, name):
    with pytest.raises(DataError, match=rf"Figure {name} of the paper .* cannot be made: ") as caught:
        figure(name, request_of(store))
    assert len(str(caught.value).splitlines()) == 2
    assert figure_needs(name, "quick") == []


@pytest.mark.parametrize("name", ["1", "5", "6", "7", "8", "9", "11", "12", "A", "B", "E", "growth"])
def test_without_results_the_first_command_is_named(store, name):
    needs = figure_needs(name, "quick")
    with pytest.raises(DataError) as caught:
        figure(name, request_of(store))
    assert needs[0].command in str(caught.value)
    assert not (store.root / "figures").exists()


def test_every_figure_of_the_paper_is_known(store):
    assert FIGURES.names() == sorted([*map(str, range(1, 13)), *"ABCDE", "growth"])
    with pytest.raises(UnknownNameError, match="Unknown figure '13'"):
        figure("13", request_of(store))


def test_stages_are_lengths_of_the_recipe():
    from distill.recipes import recipe

    whole = recipe("dsa", "cifar100", 1, "paper").values["iterations"]
    of_one = [m for m in figure_needs("5", "paper") if (m.method, m.ipc) == ("dsa", 1)]
    assert [m.options[:2] for m in of_one][:2] == [
        ("--set", f"iterations={round(0.05 * whole)}"),
        ("--set", f"iterations={round(0.25 * whole)}"),
    ]
    assert of_one[-1].options == ("--arch", "none")
    assert len(figure_needs("5", "paper")) == 3 * len(MAIN)


FIGURE = """
from fyi_bench.present.figures import PaperFigure
from fyi_bench.present.figures.style import draw


def make(request):
    return draw("mine", (2, 1), lambda figure: figure.text(0.1, 0.1, request.protocol))


mine = PaperFigure("Mine", make)
"""


def test_a_figure_from_outside_is_one_object(store, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        plugged = Plugged(tmp_path / "site", patch, FIGURES)
        plugged.install("my-figure", {"fyi_bench.figures": {"mine": "my_figure:mine"}}, my_figure=FIGURE)
        assert "mine" in FIGURES.names()
        assert svg_texts(figure("mine", request_of(store, protocol="paper"))) == ["paper"]
        assert figure_needs("mine", "paper") == []
    plugged.look()

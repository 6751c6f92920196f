"""Architecture search: draws, efforts, cells against the plain trainer, the whole command, what fails and stops it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import tiny
from commands import ask, tell
from downstream import accuracy as retraining
from downstream import nas as search
from downstream.protocol import protocol
from downstream.schedules import schedule
from downstream.training import Conditions, accuracy, new_network, train
from fyi_bench.config import Settings
from fyi_bench.data.real import RealDataset
from fyi_bench.errors import BudgetExhausted, DataError, DivergenceError, PlanShown, UnknownNameError, UsageError
from fyi_bench.files import digest_of
from fyi_bench.present.figures.nas import panels_of
from fyi_bench.present.words import arm_title, fitted
from fyi_bench.run.deadline import Deadline
from fyi_bench.run.executor import default_url
from fyi_bench.run.run_type import Worker, ensure, run_type
from fyi_bench.run.types.architecture import real_source, set_run, set_source, train_run
from fyi_bench.session import Session
from fyi_bench.stats import rank_report
from fyi_bench.stats.rankings import misjudged, ranks
from fyi_bench.store.store import Store
from fyi_bench.tasks.base import perform
from fyi_bench.tasks.nas import Nas
from fyi_bench.tasks.nas.options import NasOptions
from fyi_bench.tasks.nas.sets import condensed
from fyi_bench.tasks.nas.words import misjudged_rows
from search_space import space720
from search_space.architectures import candidate
from search_space.ranking import load

CHEAP = [
    p for p in space720.SPACE if p.width == 32 and p.depth < 3 and p.pool != "none" and p.norm in ("none", "group")
]
SHORT = {"epochs": "1", "min_steps": "1", "draws": "1"}
SHORT_DM = {**SHORT, "iterations": "2", "batch_real": "4", "model": "convnet-w8-d2"}


def tiny_dataset(classes: int = 3) -> RealDataset:
    """A few images a class, tested on their mirror images."""
    real = tiny.real_set(classes=classes, per_class=12, size=32)
    return RealDataset("tiny", real, replace(real, images=real.images.flip(3)), (0.5,) * 3, (0.25,) * 3)


def search_little(monkeypatch: pytest.MonkeyPatch, data: RealDataset) -> None:
    """Search on this data set with few images, among the cheapest points of the space."""
    monkeypatch.setattr("fyi_bench.data.load_dataset", lambda name, root, test=True: data)
    monkeypatch.setattr(search, "limits_of", lambda name: search.Limits(18, 30, 0.5))
    monkeypatch.setattr(space720, "subset", lambda n, seed=0: tuple(CHEAP[:n]))


@pytest.fixture
def data() -> RealDataset:
    return tiny_dataset()


@pytest.fixture
def small(monkeypatch, data):
    search_little(monkeypatch, data)


def session(tmp_path, overrides=SHORT_DM) -> Session:
    settings = {"protocol": "quick", "device": "cpu", "workers": 1, "threads": 1, "overrides": overrides}
    return Session(Settings(dataset="tiny", store=tmp_path / "store", **settings))


def nas(session: Session, options: NasOptions) -> dict:
    return perform(Nas(), session, options)


QUESTION = NasOptions(method="dm", flip="fyi", ipc=1, space=6, reference_epochs=3)
RANDOM = replace(QUESTION, method="random", flip="none")


# what is trained, and how much work it is --------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "images"), [("dm", 6), ("idc", 24)])
def test_a_proxy_costs_what_it_shows_and_not_what_it_stores(tmp_path, small, method, images):
    made = condensed(session(tmp_path, SHORT), NasOptions(method=method, ipc=2, space=6))
    found = {arm.method: [source.images for _, source in sources] for arm, sources in made.sources.items()}
    assert {method: found[method], "random": found["random"][:1]} == {method: [images], "random": [6]}


def test_draws_are_balanced_nested_and_keyed():
    whole = tiny.real_set(classes=3, per_class=12)
    drawn = search.balanced(whole, 10, 5, "purpose")
    assert drawn.counts.tolist() == [4, 3, 3]
    assert search.balanced(whole, 9, 5, "purpose").counts.tolist() == [3, 3, 3]
    one, other = ({bytes(image.numpy()) for image in search.balanced(whole, n, 5, "purpose").images} for n in (9, 20))
    assert one < other
    assert digest_of(drawn.labels.tolist() + drawn.images[:, 0, 0, 0].tolist()) == "9315a81874b68ea1"
    assert not torch.equal(drawn.images, search.balanced(whole, 10, 6, "purpose").images)
    assert search.balanced(whole, None, 0, "x") is search.balanced(whole, 36, 0, "x") is whole
    with pytest.raises(UsageError, match="2 images cannot cover 3 classes"):
        search.balanced(whole, 2, 0, "x")


def test_cheap_architectures_come_first():
    ordered = search.cheap_first(space720.SPACE, 3, 32, 10)
    efforts = [search.effort(point, 3, 32, 10) for point in ordered]
    assert efforts == sorted(efforts)
    assert len(set(ordered)) == 720
    assert ordered[-1].name == "w256-d4-group-relu-nopool" or "w256-d4" in ordered[-1].name
    assert all(search.effort(p, 3, 32, 10) >= space720.flops(p) for p in space720.SPACE[::37])


def test_a_few_networks_are_measured_for_all():
    measured = {search.representative(point) for point in space720.SPACE}
    assert len(measured) == 12
    assert all(search.representative(candidate(name)) == name for name in measured)


@pytest.mark.parametrize("name", ["quick", "paper"])
def test_protocols_state_a_budget(name):
    assert search.limits_of(name + "+epochs=3") == search.limits_of(name)
    assert 0 < search.limits_of(name).ceiling <= 1
    assert protocol(name, "nas").lr_from_set is protocol(name, "nas-reference").lr_from_set is False
    assert protocol("paper", "nas").epochs_for(500) == protocol("paper", "nas-reference").epochs_for(50_000) == 200


def worker(tmp_path, data) -> Worker:
    made = Worker(Store(tmp_path / "store"))
    made.keep(("data", "tiny", True), lambda: data)
    return made


def test_a_cell_gives_what_the_trainer_gives(tmp_path, data):
    short = replace(protocol("quick", "nas"), epochs=2, min_steps=0, batch=5)
    source, point = real_source(data, 9, seed=4), CHEAP[1]
    record = ensure(train_run(data, source, point, short, 3, 12), worker(tmp_path, data))
    drawn, tested = search.balanced(data.train, 9, 4, "nas reference"), search.balanced(data.test, 12, 0, "nas test")
    network = new_network(f"convnet-{point.name}", drawn, 3)
    conditions = Conditions(space=data.space)
    twin = train(network, drawn, short.for_network(f"convnet-{point.name}"), 3, conditions)
    assert record["value"] == accuracy(twin.network, tested, conditions)
    assert record["last_loss"] == twin.losses[-1]
    assert (record["parameters"], record["epochs"]) == (space720.parameters(point, 3, 32, 3), 2)


def test_what_can_change_the_number_changes_the_cell(data):
    short, point = protocol("quick", "nas"), CHEAP[0]
    cells = [
        train_run(data, real_source(data, images, seed), chosen, used, net, tested, precision)
        for images, seed, chosen, used, net, tested, precision in (
            (9, 0, point, short, 0, None, "fp32"),
            (10, 0, point, short, 0, None, "fp32"),
            (9, 1, point, short, 0, None, "fp32"),
            (9, 0, CHEAP[1], short, 0, None, "fp32"),
            (9, 0, point, replace(short, lr=0.02), 0, None, "fp32"),
            (9, 0, point, short, 1, None, "fp32"),
            (9, 0, point, short, 0, 12, "fp32"),
            (9, 0, point, short, 0, None, "bf16"),
        )
    ]
    assert len({cell.digest for cell in cells}) == len(cells)
    same = train_run(data, real_source(data, 9, 0), point, replace(short, name="other", nets=9), 0, 36)
    assert same.digest == cells[0].digest


def test_a_network_is_named_by_its_architecture_and_what_it_was_trained_on(data):
    point = CHEAP[0]
    spec = train_run(data, real_source(data, 9, seed=0), point, protocol("quick", "nas"), 1, 12)
    assert run_type(spec).title(spec) == f"{point.name} on real seed 1"
    shown = run_type(spec).parameters(spec)
    assert (shown["width"], shown["norm"], shown["trained_on"], shown["seed"]) == (32, point.norm, "real", 1)


def test_a_set_from_a_file_is_kept_in_the_store(tmp_path, data):
    path = tmp_path / "mine.safetensors"
    data.train.select(torch.arange(0, 36, 6)).save(path, preview=False)
    from distill.image_set import ImageSet

    image_set = ImageSet.load(path)
    cell, here = set_run(image_set, path), worker(tmp_path, data)
    assert ensure(cell, here)["set_digest"] == image_set.digest
    path.unlink()
    trained = train_run(data, set_source(cell, 6), CHEAP[0], protocol("quick", "nas"), 0, 12)
    assert 0 <= ensure(trained, here)["value"] <= 1


def test_other_real_images_than_planned_are_refused(tmp_path, data):
    cell = train_run(data, real_source(data, 9, 0), CHEAP[0], protocol("quick", "nas"), 0, 12)
    other = RealDataset("tiny", data.train.select(torch.arange(20)), data.test, (0.5,) * 3, (0.25,) * 3)
    with pytest.raises(DataError, match="are not those this run was planned with"):
        ensure(cell, worker(tmp_path, other))


# the whole command -------------------------------------------------------------------------------------------------


@pytest.fixture
def record(small, tmp_path):
    return nas(session(tmp_path), QUESTION)


@pytest.mark.long
def test_the_command_ranks_every_arm_against_the_real_side(record, tmp_path):
    assert [(arm["method"], arm["flip"]) for arm in record["arms"]] == [
        ("dm", "none"), ("dm", "fyi"), ("random", "none"), ("herding", "none"), ("early-stopping", "none")
    ]  # fmt: skip
    real = [entry["real"] for entry in record["architectures"]]
    for arm in record["arms"]:
        assert (arm["space"], arm["evaluated"], arm["failed"], arm["images"]) == (6, 6, 0, 3)
        assert {name: arm[name] for name in ("spearman_all", "regret")} == {
            name: rank_report(real, arm["accuracy"])[name] for name in ("spearman_all", "regret")
        }
    assert record["ceiling"]["evaluated"] == 3
    assert record["reference"] | {"train_s": 0, "tied": 0} == {
        "kind": "train", "dataset": "tiny", "protocol": "quick+epochs=3", "epochs": 3, "images": 18,
        "test_images": 30, "failed": 0, "tied": 0, "train_s": 0, "reckoned": False,
    }  # fmt: skip
    assert record["difference"] == record["differences"]["spearman_all"]
    assert record["difference"]["pairs"] == 6
    shown = tell(record)
    assert "real data again (3)" in shown
    assert max(map(len, fitted(shown).splitlines())) <= 80
    assert "misjudges the" not in shown  # six architectures tell nothing of factors
    assert len(misjudged_rows(record["arms"][0])) == sum(len(levels) for levels in levels_of(record))
    # nothing is trained again, and no queue is opened
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fyi_bench.run.executor.Queue.open", lambda *given: pytest.fail("a queue was opened"))
        again = nas(session(tmp_path), QUESTION)
    assert (again["digest"], again["arms"]) == (record["digest"], record["arms"])


def test_the_floor_is_the_mean_of_rankings_by_single_draws(small, tmp_path):
    """Averaged accuracies of several draws would rank better than any set of one arm can."""
    found = nas(session(tmp_path, SHORT | {"draws": "3"}), replace(RANDOM, only=True))
    [arm], real = found["arms"], [entry["real"] for entry in found["architectures"]]
    store, by_draw = Store(tmp_path / "store"), {}
    draws = {run.digest: run.inputs["seed"] for run in store.ls() if run.kind == "distill"}
    assert sorted(draws.values()) == [0, 1, 2]
    for run in store.ls():
        if run.kind == "train" and run.inputs["set"].get("cell") in draws:
            name = run.inputs["protocol"]["eval_model"].removeprefix("convnet-")
            by_draw.setdefault(draws[run.inputs["set"]["cell"]], {})[name] = store.get(run.digest)["value"]
    names = [entry["name"] for entry in found["architectures"]]
    each = [rank_report(real, [by_draw[k][name] for name in names]) for k in range(3)]
    for name in ("spearman_all", "regret"):
        assert arm[name]["draws"] == [one[name]["value"] for one in each]
        assert arm[name]["value"] == pytest.approx(sum(arm[name]["draws"]) / 3)
        assert arm[name]["low"] == pytest.approx(sum(one[name]["low"] for one in each) / 3)
    assert arm["accuracy"] == pytest.approx([sum(by_draw[k][name] for k in range(3)) / 3 for name in names])
    ties = [sum(list(one.values()).count(value) > 1 for value in one.values()) for one in by_draw.values()]
    assert arm["tied"] == round(sum(ties) / 3)  # of a draw, not of the means, which are ranked nowhere
    assert "random: the mean of 3 draws, each ranked by itself" in tell(found)
    assert "the proxy, mean of 3 draws" in [panel.trained_on for panel in panels_of(found)]


@pytest.mark.long
def test_images_set_aside_rank_beside_test_images(small, tmp_path, monkeypatch, data):
    """No network is trained on them by itself; every one is tested on them, and both sides are ranked by them too."""
    from downstream.robust_scores import set_aside

    monkeypatch.setattr(search, "limits_of", lambda name: search.Limits(18, 30, 0.5, 0.25))
    made = session(tmp_path, SHORT)
    found = nas(made, RANDOM)
    rest, aside = set_aside(data.train, 0.25)
    assert (len(rest), len(aside)) == (27, 9)
    runs = [run for run in made.store.ls() if run.kind == "train"]
    assert {run.inputs["validation"] for run in runs} == {0.25}
    point = CHEAP[0]
    [real] = [
        run for run in runs
        if (run.inputs["set"]["kind"], run.inputs["seed"]) == ("real", 0)
        and point.name in run.inputs["protocol"]["eval_model"]
    ]  # fmt: skip
    drawn, rules = search.balanced(rest, 18, 0, "nas reference"), protocol("quick", "nas-reference")
    rules = replace(rules, epochs=3).for_network(f"convnet-{point.name}")
    network = new_network(f"convnet-{point.name}", drawn, 0)
    train(network, drawn, rules, 0, Conditions(space=data.space))
    assert made.store.get(real.digest)["validation"] == accuracy(network, aside, Conditions(space=data.space))
    for arm in found["arms"]:
        real_side = [entry["real_validation"] for entry in found["architectures"]]
        expected = rank_report(real_side, arm["validation"]["accuracy"])
        assert arm["validation"]["spearman_all"] == expected["spearman_all"]
    assert found["scores"]
    for entry in found["scores"]:  # of untrained networks, which are tested on nothing
        assert entry["validation"]["spearman_all"] == rank_report(real_side, entry["scores"])["spearman_all"]
    twice = [entry for entry in found["architectures"] if entry["real_again"] is not None]
    assert found["ceiling"]["evaluated"] == found["ceiling"]["validation"]["evaluated"] == len(twice) == 3
    assert "by validation" in tell(found)


@pytest.mark.parametrize(
    ("name", "images", "real", "expected"),
    [
        ("quick", 100, 45_000, (3000, 1)),  # 30 epochs of 4 batches of 25
        ("quick", 500, 45_000, (5000, 1)),
        ("paper", 500, 45_000, (45_000, 2)),  # 400 steps, 176 of them an epoch
        ("quick", 10, 45_000, (1200, 1)),  # 120 steps of the ten images there are
        ("paper", 10, 45_000, (2000, 1)),
    ],
)
def test_early_stopping_takes_the_steps_of_a_proxy(name, images, real, expected):
    rules = protocol(name, "nas")
    count, stopped = search.at_the_cost_of(images, rules, real)
    assert (count, stopped.epochs_for(count)) == expected
    sizes = []
    for one, of in ((rules, images), (stopped, count)):
        step, batches = schedule(torch.nn.Linear(2, 2), one, 1.0, of), math.ceil(of / one.batch)
        last = step(one.epochs_for(of) - 1, batches - 1).param_groups[0]["lr"]
        sizes.append((step(0, 0).param_groups[0]["lr"], last))
    assert sizes[0] == pytest.approx(sizes[1], abs=1e-3), "the step size falls as the proxy's does"


def levels_of(record) -> list[set]:
    points = [space720.point(entry["name"]) for entry in record["architectures"]]
    return [{getattr(point, factor) for point in points} for factor in space720.LEVELS]


def test_networks_that_fail_are_counted_and_rank_last(small, tmp_path, monkeypatch):
    real_train = retraining.train_and_test

    def train(train_set, test_set, protocol, *rest, **more):
        if protocol.eval_model == search.architecture_name(CHEAP[2]) and len(train_set) == 3:
            raise DivergenceError("the loss is no longer finite.", 0)
        if protocol.eval_model == search.architecture_name(CHEAP[3]):
            raise ArithmeticError("toy")
        return real_train(train_set, test_set, protocol, *rest, **more)

    monkeypatch.setattr(retraining, "train_and_test", train)
    lines: list[str] = []
    made = session(tmp_path)
    made.say = lines.append
    found = nas(made, replace(QUESTION, only=True, flip="none"))
    arm = found["arms"][0]
    by_name = dict(zip([e["name"] for e in found["architectures"]], arm["accuracy"], strict=True))
    assert [name for name, value in by_name.items() if value is None] == [CHEAP[2].name, CHEAP[3].name]
    assert (arm["failed"], arm["failed_real"], found["reference"]["failed"]) == (2, 1, 1)
    assert "difference" not in found
    assert any("runs failed, ranked last" in line for line in lines)
    assert any("ArithmeticError: toy" in line for line in lines)


def test_a_stopped_command_shows_the_answer_so_far_and_goes_on(small, tmp_path):
    lines: list[str] = []
    question = replace(RANDOM, only=True)

    class Stopping(Deadline):
        """Stops after so many questions."""

        questions = 14

        def check(self) -> None:
            self.questions -= 1
            if self.questions < 0:
                raise BudgetExhausted("Stopped.")

    made = session(tmp_path, SHORT)
    made.say, made.stop = lines.append, Stopping()
    with pytest.raises(BudgetExhausted):
        nas(made, question)
    told = "\n".join(lines)
    assert "So far, on the" in told
    assert "· unfinished" in told
    assert nas(session(tmp_path, SHORT), question)["arms"][0]["evaluated"] == 6


@pytest.mark.long
def test_a_measured_ranking_is_saved_and_serves_as_the_real_side(small, tmp_path):
    path = tmp_path / "measured.csv"
    trained = nas(session(tmp_path), replace(QUESTION, save_ranking=path))
    saved = load(path)
    assert (saved.label.dataset, saved.label.protocol, saved.label.images) == ("tiny", "quick+epochs=3 v1", 18)
    assert (len(saved.scores(0)), len(saved.scores(1))) == (6, 3)
    stored = nas(session(tmp_path), replace(QUESTION, reference=str(path)))
    assert [e["real"] for e in stored["architectures"]] == [e["real"] for e in trained["architectures"]]
    assert stored["ceiling"] == trained["ceiling"]
    assert [arm["spearman_all"] for arm in stored["arms"]] == [arm["spearman_all"] for arm in trained["arms"]]
    assert stored["reference"]["kind"] == "stored"
    assert "the stored ranking" in tell(stored)
    assert stored["digest"] != trained["digest"]


@pytest.mark.long
def test_a_ranking_must_fit_the_question(small, tmp_path):
    path = tmp_path / "measured.csv"
    nas(session(tmp_path, SHORT), replace(RANDOM, save_ranking=path))
    path.write_text(path.read_text().replace(",tiny,", ",cifar10,"))
    fresh = session(tmp_path / "fresh")
    with pytest.raises(UsageError, match="cannot be added to"):
        nas(fresh, replace(QUESTION, save_ranking=path))
    assert not list(fresh.store.run_dirs())  # said before anything is trained
    with pytest.raises(DataError, match="is about cifar10, not tiny"):
        nas(session(tmp_path), replace(QUESTION, reference=str(path)))
    path.write_text(path.read_text().replace(",cifar10,", ",tiny,").replace(CHEAP[0].name, "w31-d1-nonorm-relu-max"))
    with pytest.raises(UnknownNameError, match=r"line \d+: width of the search space 'w31'"):
        nas(session(tmp_path), replace(QUESTION, reference=str(path)))


@pytest.mark.parametrize("size", [0, 721])
def test_the_size_of_the_space_is_checked(size, data, tmp_path, monkeypatch):
    monkeypatch.setattr("fyi_bench.data.load_dataset", lambda name, root, test=True: data)
    with pytest.raises(UsageError, match=f"has 1 to 720 points, not {size}"):
        nas(session(tmp_path), replace(QUESTION, space=size))


@pytest.mark.long
def test_enqueuing_leaves_the_work_to_workers(small, tmp_path):
    made, lines = session(tmp_path, SHORT), []
    with pytest.raises(PlanShown):
        nas(made.about(enqueue=True), RANDOM)
    working = made.about(storage=default_url(made.store))
    working.say = lines.append
    assert ask("worker", working)["done"] == 35  # two sets, six scores, and the networks
    assert lines[0].endswith("1 queue(s), 35 run(s) open")
    assert ask("worker", working)["done"] == 0
    assert nas(made, RANDOM)["arms"][0]["evaluated"] == 6
    with pytest.raises(UsageError, match="No storage is named"):
        ask("worker", made)


@pytest.mark.long
def test_files_are_proxies_too(small, tmp_path, data):
    path = tmp_path / "mine.safetensors"
    data.train.select(torch.arange(0, 36, 6)).save(path, preview=False)
    found = nas(session(tmp_path, SHORT), replace(QUESTION, method=None, set_files=(path, path)))
    assert [(arm_title(arm), arm["method"], arm["flip"], arm["ipc"], arm["images"]) for arm in found["arms"]] == [
        ("mine", "unknown", "unknown", 2, 6), ("mine (mine)", "unknown", "unknown", 2, 6),
        ("random", "random", "none", 2, 6), ("herding", "herding", "none", 2, 6),
        ("early-stopping", "early-stopping", "none", None, 6),
    ]  # fmt: skip
    named = nas(session(tmp_path, SHORT), replace(QUESTION, method=None, set_files=(path, path), names=("a", "b")))
    assert [arm_title(arm) for arm in named["arms"]][:2] == ["a", "b"]
    assert named["arms"][1]["spearman_all"] == found["arms"][1]["spearman_all"]
    with pytest.raises(UsageError, match="contradict each other"):
        replace(QUESTION, set_files=(path,))
    with pytest.raises(UsageError, match="1 --name for 2 --set-file"):
        replace(QUESTION, method=None, set_files=(path, path), names=("a",))


# what is misjudged ---------------------------------------------------------------------------------------------------


def test_shifts_of_ranks_are_those_of_a_plain_count():
    real, proxy = [0.9, 0.8, 0.7, None], [0.1, 0.4, 0.3, 0.2]
    assert ranks(real).tolist() == [1, 2, 3, 4]
    found = misjudged({"norm": ["a", "b", "b", "a"], "pool": ["x", "x", "y", "y"]}, real, proxy)
    assert list(found) == ["norm", "pool"]
    assert [(row["level"], row["shift"]) for row in found["norm"]["levels"]] == [("a", 0.25), ("b", -0.25)]
    assert found["pool"]["spread"] == 0.5


@pytest.mark.long
def test_the_plot_has_a_panel_a_proxy(record):
    from fyi_bench.present.figures.nas import factor_of, nas_drawing

    assert [panel.title for panel in panels_of(record)] == [
        "real, another seed", "dm", "dm+fyi", "random", "herding", "early-stopping"
    ]  # fmt: skip
    drawing = nas_drawing(record, "act")
    assert all(f">{word}<" in drawing.svg for word in ("dm+fyi", "relu", "sigmoid", "accuracy after real images"))
    assert drawing.png == nas_drawing(record, "act").png
    assert factor_of(record) in space720.LEVELS
    with pytest.raises(UnknownNameError, match="Did you mean 'norm'"):
        nas_drawing(record, "norms")

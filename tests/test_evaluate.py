"""Evaluating files: the same set from any layout has the same accuracy, cost stands beside, misfits are named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats

import fyi_bench
from commands import tell
from distill.image_set import ImageSet
from fyi_bench.data import load_dataset
from fyi_bench.errors import DataError, DivergenceError, UnknownNameError, UsageError
from fyi_bench.formats.inspection import format_report, inspect_set
from fyi_bench.run.run_type import AT_ONCE
from fyi_bench.run.types.accuracy import Accuracy
from fyi_bench.store.store import Store

TINY = {"eval_model": "convnet-w8", "epochs": "2", "min_steps": "0", "nets": "2"}
AUDIT = {**TINY, "nets": "1", "draws": "2", "epochs": "1"}


@pytest.fixture(scope="module")
def small():
    """Two real images a class of the built-in data, in its normalised space."""
    shapes = load_dataset("shapes10")
    rows = [int(shapes.train.indices_of(c)[k]) for c in range(10) for k in range(2)]
    return shapes.train.select(rows).to_space(shapes.space)


def evaluated(path, store, dataset="shapes10", **more):
    return fyi_bench.evaluate(path, dataset=dataset, store=store, workers=1, threads=1, overrides={**TINY, **more})


def test_three_layouts_one_accuracy(tmp_path, small):
    places = {
        "fyi-bench": small.save(tmp_path / "set.safetensors"),
        "dc": fyi_bench.export(small, tmp_path / "res_DM_shapes10_ConvNet_2ipc.pt", "dc")[0],
        "mtt": fyi_bench.export(small, tmp_path / "run", "mtt")[0].parent,
    }
    found = {}
    for name, path in places.items():  # a store each, so that nothing is read that another layout computed
        found[name] = evaluated(path, tmp_path / f"runs-{name}")["arms"][0]["architectures"][0]["values"]
    assert found["fyi-bench"] == found["dc"] == found["mtt"]
    assert len(found["dc"]) == 2


def test_another_name_is_another_record(tmp_path, small):
    path, made = small.save(tmp_path / "set.safetensors"), {}
    for name in ("mine", "other", None):
        common = {"dataset": "shapes10", "store": tmp_path / "runs", "workers": 1, "threads": 1, "overrides": TINY}
        made[name] = fyi_bench.evaluate(path, **common, **({"name": name} if name else {}))
    kept = sorted((tmp_path / "runs/reports").glob("accuracy-*.json"))
    assert {file.stem.partition("-")[2] for file in kept} == {record["digest"] for record in made.values()}
    assert len({record["arms"][0]["name"] for record in made.values()}) == len(kept) == 3
    assert len({str(record["runs"]) for record in made.values()}) == 1  # of the same runs


def test_other_architectures_of_a_file_and_of_a_method(tmp_path, small):
    """The argument is a set; where no file has that name, a method's name."""
    path, names = small.save(tmp_path / "set.safetensors"), ("convnet-w8", "mlp")
    common = {"store": tmp_path / "runs", "workers": 1, "threads": 1, "overrides": {**TINY, "nets": "1"}}
    across = fyi_bench.cross_arch(path, architectures=names, **common)
    assert (across["task"], across["dataset"]) == ("cross-arch", "shapes10")
    alone = fyi_bench.evaluate(path, architectures=names, **common)
    assert [e["values"] for e in across["arms"][0]["architectures"]] == [
        e["values"] for e in alone["arms"][0]["architectures"]
    ]
    assert "mlp" in tell(across)
    method = fyi_bench.cross_arch("random", dataset="shapes10", ipc=1, only=True, architectures=names[:1], **common)
    assert method["arms"][0]["method"] == "random"
    for wrong in (lambda: fyi_bench.cross_arch("randm", **common), lambda: fyi_bench.unequalness("shape10")):
        with pytest.raises(UnknownNameError, match=r"Did you mean '(random|shapes10)'"):
            wrong()
    with pytest.raises(UsageError, match=r"SET and --method contradict"):
        fyi_bench.cross_arch(path, method="dm", **common)


def test_networks_together_are_those_one_by_one(tmp_path, small, monkeypatch):
    """What a GPU does with the networks of a set, made a CPU's way here."""
    path, more = small.save(tmp_path / "set.safetensors"), {"nets": "3"}
    alone = evaluated(path, tmp_path / "alone", **more)["arms"][0]["architectures"][0]
    sizes, compute = [], Accuracy.compute_together

    def watched(self, runs, worker) -> None:
        sizes.append(len(runs))
        compute(self, runs, worker)

    monkeypatch.setattr(Accuracy, "compute_together", watched)
    monkeypatch.setitem(AT_ONCE, "cpu", 2)
    together = evaluated(path, tmp_path / "together", **more)["arms"][0]["architectures"][0]
    assert sizes == [2, 1]
    assert together["values"] == alone["values"]
    assert together["seconds"][0] == together["seconds"][1] > 0


@pytest.mark.parametrize("trouble", [DivergenceError("one of them", step=0), RuntimeError("CUDA out of memory.")])
def test_networks_are_trained_alone_where_it_does_not_go_together(tmp_path, small, monkeypatch, trouble):
    tried, compute = [], Accuracy.compute_together

    def fails(self, runs, worker) -> None:
        if len(runs) > 1:
            tried.append(len(runs))
            raise trouble
        compute(self, runs, worker)

    store = Store(tmp_path / "runs")
    monkeypatch.setitem(AT_ONCE, "cpu", 2)
    monkeypatch.setattr(Accuracy, "compute_together", fails)
    record = evaluated(small.save(tmp_path / "set.safetensors"), store.root, nets="4")
    assert len(record["arms"][0]["architectures"][0]["values"]) == 4
    assert {run.state for run in store.ls()} == {"done"}
    assert tried == ([2, 2] if isinstance(trouble, DivergenceError) else [2])  # memory is tried once


def test_other_errors_of_networks_together_are_raised(tmp_path, small, monkeypatch):
    def fails(self, runs, worker) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setitem(AT_ONCE, "cpu", 2)
    monkeypatch.setattr(Accuracy, "compute_together", fails)
    with pytest.raises(RuntimeError, match="a defect"):
        evaluated(small.save(tmp_path / "set.safetensors"), tmp_path / "runs")


def test_cost_stands_beside_accuracy(tmp_path, small):
    record = evaluated(small.save(tmp_path / "set.safetensors"), tmp_path / "runs")
    entry = record["arms"][0]["architectures"][0]
    assert len(entry["seconds"]) == 2
    assert min(entry["seconds"]) > 0
    assert entry["peak_memory_mib"] > 50
    assert record["arms"][0]["set_bytes"] == 20 * (3 * 32 * 32 * 4 + 8)
    text = tell(record)
    assert "time a network" in text
    assert "240.2 KiB, 196.7 kbit a class: images 196.6, labels 0.1" in text


SIZED = {
    "evaluate": {"labels": ["hard"], "floor": True},
    "cross-arch": {"architectures": ("convnet-w8",)},
    "probe": {"probe": "mlp", "weights": "random", "floor": True},
    "continual": {"steps": 2, "orders": 1, "against": ("random", "uint8")},
}


@pytest.mark.long
@pytest.mark.parametrize("task", SIZED)
def test_every_arm_says_its_bits_a_class_by_part(tmp_path, small, task):
    logits = dataclasses.replace(small, labels=torch.nn.functional.one_hot(small.labels, 10).float())
    path = logits.save(tmp_path / "set.safetensors")
    asked, more = {"store": tmp_path / "runs", "workers": 1, "threads": 1}, dict(SIZED[task])
    if task == "continual":
        seeds = {
            "seeds": more.pop("orders"),
            "overrides": {"epochs": "1", "min_steps": "0", "eval_model": "convnet-w8"},
        }
        record = fyi_bench.continual(sets=[path], **more, **seeds, **asked)
    else:
        word = fyi_bench.cross_arch if task == "cross-arch" else fyi_bench.evaluate
        record = word(path, **more, **asked, overrides={**AUDIT, "draws": "1"})
    for arm in record["arms"]:
        bits = arm["bits_per_class"]
        assert set(bits) == {"stored", "labels", "decoder", "total"}, arm["method"]
        assert bits["total"] == pytest.approx(sum(bits[part] for part in ("stored", "labels", "decoder")))
        assert bits["total"] * 10 == pytest.approx(8 * arm["set_bytes"])
    first = record["arms"][0]["bits_per_class"]["labels"]
    assert first == (8 * 2 * 8 if task == "evaluate" else 8 * 2 * 10 * 4)  # hard labels of 8 bytes, or logits
    assert set(record.to_pandas()["bits_per_class"].dropna()) == {
        arm["bits_per_class"]["total"] for arm in record["arms"]
    }


def test_classes_of_unequal_size_are_evaluated_and_said(tmp_path, small):
    path = small.select(torch.arange(19)).save(tmp_path / "set.safetensors")
    record = evaluated(path, tmp_path / "runs")
    assert record["arms"][0]["ipc"] is None
    assert "images per class differ" in tell(record)


@pytest.mark.long
def test_misfits_are_named(tmp_path, small):
    path = small.save(tmp_path / "set.safetensors")
    with pytest.raises(DataError, match=r"is of shapes10, not shapes100"):
        evaluated(path, tmp_path / "runs", dataset="shapes100")
    bare = dataclasses.replace(small, provenance={}).save(tmp_path / "bare.safetensors")
    with pytest.raises(UsageError, match=r"10 classes of .*shapes100 has 100.*\n.*--dataset"):
        evaluated(bare, tmp_path / "runs", dataset="shapes100")
    flat = tmp_path / "flat.pt"
    torch.save({"data": [[small.images.flatten(1), small.labels]]}, flat)
    with pytest.raises(DataError, match=r"data: a list of 1, the first a list of 2, the first a tensor \[20, 3072\]"):
        evaluated(flat, tmp_path / "runs")


def test_a_set_is_tested_on_the_data_it_states(tmp_path, small):
    """Without a data set named, and never on another one than it states; what was guessed is said."""
    own, said = small.save(tmp_path / "a" / "set.safetensors"), []
    store = {"store": tmp_path / "runs", "workers": 1, "threads": 1, "overrides": {**TINY, "nets": "1"}}
    assert fyi_bench.evaluate(own, say=said.append, **store)["dataset"] == "shapes10"
    named = fyi_bench.export(small, tmp_path / "res_DM_shapes10_ConvNet_2ipc.pt", "dc")[0]
    record = fyi_bench.evaluate(named, say=said.append, **store)
    assert record["dataset"] == "shapes10"
    assert any("guessed  data set shapes10: the name" in line for line in said)
    with pytest.raises(DataError, match=r"says shapes10, but svhn was stated.*\n.*--yes"):
        fyi_bench.evaluate(named, dataset="svhn", **store)
    bare = dataclasses.replace(small, provenance={}, images=small.images[..., :30, :30].contiguous())
    with pytest.raises(UsageError, match=r"does not say which data set.*\n.*--dataset"):
        fyi_bench.evaluate(bare.save(tmp_path / "b" / "set.safetensors"), **store)


def test_inspection_says_that_previews_show_stored_tiles(small):
    text = format_report(inspect_set(dataclasses.replace(small, factor=2)))
    assert "80 images at use; previews and the values above are of the tiles as stored" in text


@pytest.fixture(scope="module")
def audited(tmp_path_factory, small):
    """A set of soft labels and random images under each kind of label; the store is kept for further questions."""
    folder = tmp_path_factory.mktemp("audit")
    logits = 4 * torch.nn.functional.one_hot(small.labels, 10).float()
    path = dataclasses.replace(small, labels=logits).save(folder / "set.safetensors")
    common = {"dataset": "shapes10", "store": folder / "runs", "workers": 1, "threads": 1, "overrides": AUDIT}
    record = fyi_bench.evaluate(path, labels=["hard", "own", "teacher"], floor=True, **common)
    return record, path, common


@pytest.mark.long
def test_an_audit_tells_images_from_labels(audited):
    """Shares add up network by network, and what stands beside the set is counted as it is."""
    record, _, _ = audited
    arms = {(arm.get("form", "set"), arm["labels"]): arm for arm in record["arms"]}
    assert list(arms)[:3] == [("set", kind) for kind in ("hard", "own", "teacher")]
    assert {form for form, _ in arms} == {"set", "images", "uint8", "jpeg"}
    values = {key: arm["architectures"][0]["values"] for key, arm in arms.items()}
    assert {len(found) for found in values.values()} == {2}
    shares = record["audit"]["convnet-w8"]
    for kind in ("own", "teacher"):
        parts = [shares["image"]["images"]["hard"], shares["label"][kind]["images"], shares["both"][kind]]
        assert sum(part["mean"] for part in parts) == pytest.approx(shares["whole"][kind]["mean"])
        expected = sum(a - b for a, b in zip(values["set", kind], values["images", "hard"], strict=True)) / 2
        assert shares["whole"][kind]["mean"] == pytest.approx(expected)
    assert len(record["teacher"]["values"]) == 1
    text = tell(record)
    assert "labels teacher:" in text
    assert "random real JPEGs, as many bytes" in text


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Three sets of one kind, other images each, in the order in which they are numbered."""
    shapes, folder = load_dataset("shapes10"), tmp_path_factory.mktemp("seeds")
    rows = [[int(shapes.train.indices_of(c)[2 * k + j]) for c in range(10) for j in range(2)] for k in range(3)]
    sets = sorted((shapes.train.select(own).to_space(shapes.space) for own in rows), key=lambda one: one.digest)
    return [one.save(folder / f"seed{k}" / "set.safetensors") for k, one in enumerate(sets)]


@pytest.mark.long
def test_several_sets_of_a_method_are_the_pairs(tmp_path, seeds):
    """Each set has networks and draws of its own; what sets and what networks differ by are told apart."""
    common = {"dataset": "shapes10", "store": tmp_path / "runs", "workers": 1, "threads": 1}
    asked = {"labels": ["hard", "teacher"], **common, "overrides": {**TINY, "draws": "2", "epochs": "1"}}
    record = fyi_bench.evaluate(seeds[::-1], **asked)  # the order in which they are named does not matter
    assert record["seeds"] == [0, 1, 1000, 1001, 2000, 2001]
    arms = {(arm.get("form", "set"), arm["labels"]): arm for arm in record["arms"]}
    assert arms["set", "hard"]["sets"] == [str(path.resolve()) for path in seeds]
    values = {key: np.array(arm["architectures"][0]["values"]).reshape(3, 2) for key, arm in arms.items()}
    own = arms["set", "hard"]["architectures"][0]["spread"]
    assert own["sets"] == 3
    assert own["between_networks"] == pytest.approx(values["set", "hard"].var(1, ddof=1).mean() ** 0.5)
    # plainly: the mean difference of each set is a pair
    each = (values["set", "teacher"] - values["images", "teacher"]).mean(1)
    half = stats.t.ppf(0.975, 2) * each.std(ddof=1) / 3**0.5
    found = record["audit"]["convnet-w8"]["image"]["images"]["teacher"]
    assert (found["mean"], found["pairs"]) == (pytest.approx(each.mean()), 3)
    assert (found["low"], found["high"]) == (pytest.approx(each.mean() - half), pytest.approx(each.mean() + half))
    assert record["audit"]["convnet-w8"]["label"]["teacher"]["images"]["pairs"] == 6
    text = tell(record)
    assert "set, labels teacher, convnet-w8: 3 sets differ by" in text
    assert "the 3 sets" in text
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("set ")] == arms["set", "hard"]["sets"]
    # the first of them alone has the numbers that it has among the others
    alone = fyi_bench.evaluate(seeds[0], **asked)["arms"][0]["architectures"][0]["values"]
    assert alone == values["set", "hard"][0].tolist()


def test_a_seed_that_is_no_number_orders_nothing(tmp_path, seeds):
    sets = [dataclasses.replace(ImageSet.load(path), provenance={"seed": "one"}) for path in seeds[:2]]
    paths = [one.save(tmp_path / f"{k}" / "set.safetensors") for k, one in enumerate(sets)]
    paths.append(seeds[2])
    first, second = (
        evaluated(order, tmp_path / "runs", nets="1", epochs="1", draws="1")["arms"][0]
        for order in (paths, paths[::-1])
    )
    assert first["sets"] == second["sets"]
    assert first["architectures"] == second["architectures"]


def test_sets_that_are_no_repetitions_are_refused(tmp_path, small, seeds):
    other = small.select(torch.arange(10)).save(tmp_path / "set.safetensors")
    with pytest.raises(UsageError, match=r"differ in images, classes, bytes: they are no rep.*\n.*each of them"):
        evaluated([seeds[0], other], tmp_path / "runs")
    halves = [small.select(torch.arange(10 * k, 10 * k + 10)).save(tmp_path / f"{k}.safetensors") for k in range(2)]
    with pytest.raises(UsageError, match=r"differ in classes: they are no repetitions"):
        evaluated(halves, tmp_path / "runs")
    with pytest.raises(UsageError, match=r"named twice"):
        evaluated([seeds[0], seeds[0]], tmp_path / "runs")
    with pytest.raises(UsageError, match=r"--robust is of one set, not of 3"):
        fyi_bench.evaluate(seeds, robust=True, store=tmp_path / "runs")


def test_a_floor_of_as_many_bytes_is_no_larger_than_the_set(audited):
    arms = {(arm.get("form", "set"), arm["labels"]): arm for arm in audited[0]["arms"]}
    whole = arms["set", "own"]["set_bytes"]
    assert whole == 20 * (3 * 32 * 32 * 4 + 4 * 10)
    assert arms["images", "hard"]["images"] == 20
    assert arms["uint8", "hard"]["images"] == 10 * (whole // 10 // (3 * 32 * 32 + 8))
    assert arms["jpeg", "hard"]["images"] > arms["uint8", "hard"]["images"]
    for form in ("uint8", "jpeg"):
        assert arms[form, "hard"]["set_bytes"] <= whole
    bits = arms["set", "own"]["bits_per_class"]
    assert bits == {"stored": 8 * 24576, "labels": 8 * 80, "decoder": 0, "total": 8 * 24656}
    # a teacher's weights have to be kept for its labels
    assert arms["set", "teacher"]["bits_per_class"]["labels"] > bits["labels"]


def test_a_published_teacher_is_the_one_trained_here(audited, tmp_path):
    """The weights of the teacher, given as a file, give the accuracies that it gave; what cannot be it is refused."""
    record, path, common = audited
    store = Store(common["store"])
    run = next(run for run in store.ls() if run.kind == "teacher")
    weights = store.artefact("teacher", run.digest, "network.safetensors")
    given = {**common, "store": tmp_path / "runs", "labels": ["teacher"], "teacher": [weights]}
    again = fyi_bench.evaluate(path, **given)
    assert again["arms"][0]["architectures"][0]["values"] == record["arms"][2]["architectures"][0]["values"]
    wrong = {**AUDIT, "teacher_model": "mlp"}
    with pytest.raises(DataError, match=r"does not hold the weights of this network.*\n.*teacher_model"):
        fyi_bench.evaluate(path, **{**given, "overrides": wrong, "store": tmp_path / "wrong"})
    with pytest.raises(UsageError, match=r"1 files of weights for the teachers mlp, lenet"):
        fyi_bench.evaluate(path, **{**given, "overrides": {**wrong, "teacher_model": "mlp,lenet"}})


def test_stored_labels_are_evaluated_from_a_folder(tmp_path, small):
    """FKD as its makers write it: a crop, a mirror, a mix and logits for every image of every step."""
    path = small.save(tmp_path / "set.safetensors")
    labels = torch.nn.functional.one_hot(small.labels, 10).half() * 8
    for epoch in range(2):
        folder = tmp_path / "FKD" / f"epoch_{epoch}"
        folder.mkdir(parents=True)
        for number, rows in enumerate(torch.arange(20).split(10)):
            boxes, flips = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(10, 1), torch.zeros(10, dtype=torch.bool)
            mix = [torch.arange(10), 0.5, [0, 0, 4, 4]]
            torch.save([boxes, flips, *mix, labels[rows], rows], folder / f"batch_{number}.tar")
    common = {"dataset": "shapes10", "store": tmp_path / "runs", "workers": 1, "threads": 1}
    rules = {**TINY, "batch": "10", "nets": "1"}
    record = fyi_bench.evaluate(path, soft_labels=tmp_path / "FKD", overrides=rules, **common)
    (arm,) = record["arms"]
    assert arm["labels"] == "teacher"
    stored = sum(file.stat().st_size for file in (tmp_path / "FKD").rglob("*.tar"))
    assert arm["bits_per_class"]["labels"] == pytest.approx(8 * (stored + 8 * 20) / 10)
    assert "labels stored with the set" in tell(record)
    with pytest.raises(UsageError, match=r"stored in batches of 10.*\n.*--set batch=10"):
        fyi_bench.evaluate(path, soft_labels=tmp_path / "FKD", overrides={**rules, "batch": "7"}, **common)
    with pytest.raises(UsageError, match=r"random images have none"):
        fyi_bench.evaluate(path, soft_labels=tmp_path / "FKD", labels=["teacher"], overrides=rules, **common)


def test_a_plan_of_a_published_procedure_counts_its_teacher(tmp_path, small):
    """ImageNet's procedure, planned and estimated on images of 32 px; nothing is computed."""
    from commands import run

    path = small.save(tmp_path / "set.safetensors")
    words = ("evaluate", str(path), "--dataset", "shapes10", "--store", str(tmp_path / "runs"), "--dry-run")
    done = run(*words, "--protocol", "rded", "--workers", "1")
    assert "protocol rded" in done.stdout
    assert "4 runs, about" in done.stdout  # a teacher and three networks


@pytest.mark.parametrize(("name", "network"), [("sre2l", "resnet18"), ("rded", "torchvision:resnet18")])
def test_a_set_of_imagenets_size_is_planned_with_a_few_pictures_at_hand(tmp_path, name, network):
    """A subset of ImageNet in a folder of the user's, and a set in SRe2L's layout: nothing is trained for the plan."""
    from commands import run
    from fyi_bench.formats.export import png

    train, wnids = load_dataset("shapes10").train, ("n01440764", "n02102040", "n02979186")
    for label, wnid in enumerate(wnids):
        large = torch.nn.functional.interpolate(train.images[train.indices_of(label)[:3]], (224, 224))
        folders = [f"data/train/{wnid}", f"data/val/{wnid}", f"set/new{label:03d}", f"named/{wnid}"]
        for folder in folders:
            (tmp_path / folder).mkdir(parents=True)
            for k, image in enumerate(large):
                (tmp_path / folder / f"{k}.png").write_bytes(png(image))
    for given, how in (("set", "'new000' is class 0"), ("named", "by the names of the classes")):
        done = run(
            "evaluate", str(tmp_path / given), "--protocol", name, "--arch", network, "--dry-run",
            "--dataset", f"imagefolder:{tmp_path / 'data'}@224", "--store", str(tmp_path / "runs"), "--workers", "1",
        )  # fmt: skip
        assert "4 runs, about" in done.stdout  # a teacher and three networks
        assert how in done.stdout
    assert "imagefolder:data@224" in done.stdout
    assert not [path for path in tmp_path.glob("runs/*") if path.name != "imported"]

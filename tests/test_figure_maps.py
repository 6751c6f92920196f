"""Figures 2 and C on stand-ins with a known answer: where a class is seen, where objects lie, how symmetric that is."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import search_space
from commands import run
from data_files import isolate, write_folder
from distill.image_set import ImageSet
from distill.spaces import NormalizedSpace, PixelSpace
from distill.tensor_file import load_tensors
from downstream.attention import activation_maps, attention, mirror_correlation, new_network, strongest
from downstream.protocol import protocol
from fyi_bench import rng
from fyi_bench.data import load_dataset
from fyi_bench.data.coco import object_places
from fyi_bench.data.real import RealDataset
from fyi_bench.errors import DataError, UnknownNameError, UsageError
from fyi_bench.present.figures import Request, figure, paper_figure
from fyi_bench.run.run_type import Worker, ensure
from fyi_bench.run.types.attention import COUNTS_FILE, attention_run, imagenet_class, pretrained
from fyi_bench.store.store import Store
from sample_records import texts

# class activation maps ---------------------------------------------------------------------------------------------


def network_of(name: str, size: int) -> nn.Module:
    blank = ImageSet(torch.zeros(1, 3, size, size), torch.zeros(1, dtype=torch.int64), PixelSpace(), 5)
    return new_network(name, blank, 0).double().eval()


@pytest.mark.parametrize(
    ("name", "size", "side"),
    [("convnet-w8", 32, 8), ("convnet-w8-d2-batch", 16, 8), ("resnet18", 32, 4), ("torchvision:resnet18", 64, 2)],
)
def test_a_map_holds_the_terms_of_its_logit(name, size, side):
    network, y = network_of(name, size), torch.tensor([0, 4, 2, 2])
    x = torch.randn(4, 3, size, size, generator=rng.stream(0, "x"), dtype=torch.float64)
    maps, logits = activation_maps(network, x, y)
    assert maps.shape == (4, side, side)
    torch.testing.assert_close(maps.mean((1, 2)) + network.classifier.bias[y], logits[torch.arange(4), y])
    torch.testing.assert_close(logits, network(x))


def test_our_convnet_is_a_convnet_that_averages():
    network, plain = network_of("convnet-w8-batch", 32), search_space.build("convnet-w8-batch", 3, 32, 5, rng.stream(1))
    plain = plain.double().eval()
    plain.blocks.load_state_dict(network.blocks.state_dict())
    x = torch.randn(4, 3, 32, 32, generator=rng.stream(0, "x"), dtype=torch.float64)
    expected = plain.pooled_per_block(x)[-1].mean((2, 3))  # average pooling changes no average
    torch.testing.assert_close(network.embed(x), expected)


@pytest.mark.parametrize("name", ["mlp", "lenet"])
def test_a_network_without_such_a_map_is_refused(name):
    with pytest.raises(UsageError, match="does not classify by the average of its last map"):
        activation_maps(network_of(name, 32).float(), torch.rand(2, 3, 32, 32), torch.tensor([0, 1]))


class Brightness(nn.Module):
    """A network whose map is the image: class 0 is bright, class 1 is dark."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.classifier = nn.Conv2d(1, 1, 1, bias=False), nn.Linear(1, 2)
        with torch.no_grad():
            self.trunk.weight.fill_(1.0)
            self.classifier.weight.copy_(torch.tensor([[1.0], [-1.0]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.trunk(x).mean((2, 3)))


def test_what_is_bright_on_the_left_is_counted_on_the_left():
    x = torch.zeros(3, 1, 10, 10)
    x[:, 0, 4:9, 1:3] = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    images = ImageSet(x, torch.zeros(3, dtype=torch.int64), PixelSpace(), 2)
    found = attention(Brightness(), images, 0)
    expected = torch.zeros(10, 10, dtype=torch.int64)
    expected[4:9, 1:3] = 3
    assert torch.equal(found.counts, expected)
    assert found.images == 3
    assert torch.equal(attention(Brightness(), replace(images, images=x.flip(-1)), 0).counts, expected.flip(-1))


def test_the_strongest_are_a_tenth_and_equals_take_no_side():
    maps = torch.rand(5, 4, 4, generator=rng.stream(0, "maps"))
    found = strongest(maps, 20)
    assert all(40 <= count <= 46 for count in found.sum((1, 2)).tolist())  # at the border enlarged values repeat
    assert torch.equal(strongest(maps.flip(-1), 20), found.flip(-1))
    large = nn.functional.interpolate(maps[:, None], (20, 20), mode="bilinear")[:, 0]
    assert all(large[k][found[k]].min() > large[k][~found[k]].max() for k in range(5))
    assert bool(strongest(torch.ones(1, 4, 4), 20).all())


def test_symmetry_of_a_map_is_known():
    one = torch.rand(6, 6, generator=rng.stream(0, "map"))
    assert mirror_correlation(one + one.flip(-1)) == pytest.approx(1)
    assert mirror_correlation(one - one.flip(-1)) == pytest.approx(-1)
    plain = np.corrcoef(one.flatten(), one.flip(-1).flatten())[0, 1]
    assert mirror_correlation(one) == pytest.approx(plain)
    assert math.isnan(mirror_correlation(torch.ones(4, 4)))


# a network trained here ---------------------------------------------------------------------------------------------


def sided(name: str = "cifar10", each: int = 40) -> RealDataset:
    """Noise with a spot: red ones of class 0 on the left, green ones of class 1 on the right, blue ones on either."""
    generator = rng.stream(0, name)
    images = torch.randint(100, 140, (3 * each, 3, 16, 16), generator=generator, dtype=torch.uint8)
    images[:each, 0, 6:10, 1:5] = 255
    images[each : 2 * each, 1, 6:10, 11:15] = 255
    images[2 * each :: 2, 2, 6:10, 1:5] = 255
    images[2 * each + 1 :: 2, 2, 6:10, 11:15] = 255
    split = ImageSet(images, torch.arange(3).repeat_interleave(each), PixelSpace(), 3, ("left", "right", "both"))
    return RealDataset(name, split, split, (0.45,) * 3, (0.2,) * 3)


def rules(task: str):
    changes = {"eval_model": "convnet-w16-d1-batch", "epochs": "12", "batch": "16", "nets": "2"}
    return protocol("quick", task).with_overrides(changes)


def request_of(store: Store, **more) -> Request:
    return Request(store, sided, **{"dataset": "cifar10", "rules": rules, **more})


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A store with figure 2 of a ConvNet trained on `sided`, its paths, its runs."""
    store = Store(tmp_path_factory.mktemp("maps") / "runs")
    request = request_of(store)
    runs = paper_figure("2").runs(request)
    worker = Worker(store)
    worker.data = lambda name, test=True: sided(name)  # type: ignore[method-assign]
    for spec in runs:
        ensure(spec, worker)
    return store, figure("2", request), runs


def test_a_shape_always_on_the_left_gives_a_map_on_the_left(drawn):
    store, _, runs = drawn
    assert [run.inputs["seed"] for run in runs] == [0, 1]
    for spec in runs:
        record = store.record(spec)
        counts = load_tensors(store.artefact(spec.kind, spec.digest, COUNTS_FILE))[0]["counts"].double()
        share = counts[:, :, :8].sum((1, 2)) / counts.sum((1, 2))
        left, right, both = share.tolist()
        assert left > 0.8
        assert right < 0.2
        assert 0.3 < both < 0.7
        rows = record["classes"]
        assert [(row["name"], row["images"]) for row in rows] == [("left", 40), ("right", 40), ("both", 40)]
        assert [row["symmetry"] for row in rows] == [mirror_correlation(each) for each in counts]
        assert rows[2]["symmetry"] > max(rows[0]["symmetry"], rows[1]["symmetry"]) + 0.3
        assert sum(row["right"] for row in rows) >= 110


def test_figure_2_says_what_was_trained_and_how_symmetric_each_map_is(drawn):
    store, paths, runs = drawn
    shown = texts(paths[1].read_text())
    counts = [load_tensors(store.artefact(r.kind, r.digest, COUNTS_FILE))[0]["counts"] for r in runs]
    assert [s for s in shown if re.match("symmetry -?[01]", s)] == [
        f"symmetry {mirror_correlation(each):.2f}" for each in sum(counts)
    ]
    assert {"left", "right", "both"} <= set(shown)
    assert "2 networks trained on the real images, protocol quick+batch=16+epochs=12" in " ".join(shown)


def test_our_network_has_batch_norm_unless_another_is_asked_for(drawn):
    store, _, runs = drawn
    assert {run.inputs["protocol"]["eval_model"] for run in runs} == {"convnet-w16-d1-batch"}
    own = paper_figure("2").runs(request_of(store, rules=lambda task: protocol("quick", task)))
    assert {run.inputs["protocol"]["eval_model"] for run in own} == {"convnet-w32-batch"}


# ImageNet and torchvision's weights ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file like torchvision's, of ResNet-18 with random weights."""
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    network = search_space.build("torchvision:resnet18", 3, 224, 1000, rng.stream(0, "file"))
    named = {
        name.removeprefix("body.").replace("classifier.", "fc."): tensor
        for name, tensor in network.state_dict().items()
        if "num_batches_tracked" not in name  # the published file is older than these
    }
    torch.save(named, path)
    return path, network


@pytest.mark.long
def test_weights_of_torchvision_are_read_and_nothing_else(weights, tmp_path):
    path, network = weights
    x = torch.rand(1, 3, 224, 224)
    assert torch.equal(pretrained(path, 224).eval()(x), network.eval()(x))
    other, tensors = tmp_path / "other.pth", torch.load(path, weights_only=True)
    for content in (
        {"fc.weight": torch.zeros(3)},
        {**tensors, "fc.bias": torch.zeros(10)},
        [1.0],
        {"x": torch.ones(1)},
    ):
        torch.save(content, other)
        with pytest.raises(DataError, match="does not hold the weights of ResNet-18"):
            pretrained(other, 224)
    with pytest.raises(DataError, match="cannot be read"):
        pretrained(tmp_path / "none.pth", 224)


@pytest.mark.parametrize(("name", "place"), [("tench", 0), ("n01494475", 4), ("Granny Smith", 948), ("parachute", 701)])
def test_classes_of_imagenet_are_known_by_name_or_folder(name, place):
    assert imagenet_class(name) == place


@pytest.mark.parametrize("name", ["cat", "0", "n99999999"])
def test_a_class_that_could_be_another_is_refused(name):
    with pytest.raises(DataError, match=r"does not tell which of ImageNet's 1,000 classes"):
        imagenet_class(name)


FISH = {"n01440764": "tench", "n01443537": "goldfish", "n01484850": "great white shark", "n01491361": "tiger shark",
        "n01494475": "hammerhead"}  # fmt: skip


def test_the_classes_of_the_paper_are_found_in_an_imagenet_folder(tmp_path, monkeypatch):
    isolate(tmp_path, monkeypatch)
    write_folder(tmp_path / "imagenet", [*FISH, "n02102040"], per_class=1, side=230, test="val")
    data = load_dataset("imagefish", tmp_path)
    assert data.class_names == tuple(FISH.values())
    assert data.train.shape == (3, 224, 224)


def test_figure_2_of_a_folder_and_a_file_of_weights(weights, tmp_path, monkeypatch):
    isolate(tmp_path, monkeypatch)
    path = weights[0]
    folder = write_folder(tmp_path / "photos", ["n01440764", "hammerhead"], per_class=2, side=48)
    words = ["figure", "2", "--weights", str(path), "--store", str(tmp_path / "r")]
    words += ["--dataset", f"imagefolder:{folder.resolve()}"]
    more = ("--workers", "1", "--quiet", "--protocol", "quick")
    done = run(*words, *more)
    assert "2 runs" in done.stdout
    svg = tmp_path / "r" / "figures" / "figure-2.svg"
    assert str(svg) in done.stdout
    shown = texts(svg.read_text())
    assert {"n01440764", "hammerhead"} <= set(shown)
    assert "ResNet-18, resnet18.pth" in " ".join(shown)
    refused = run(*words, *more, "--set", "epochs=3", check=2)
    assert refused.stderr == "fyi-bench: Figure 2 does not use --set.\nLeave it out.\n"


def test_other_weights_are_another_run_and_a_changed_file_is_noticed(weights, tmp_path):
    path, _ = weights
    data = sided()
    one, two = (attention_run(data, [0], (path, digest), "fp32") for digest in ("a" * 64, "b" * 64))
    assert one.digest != two.digest
    assert one.digest == attention_run(data, [0], (path.with_name("moved.pth"), "a" * 64), "bf16").digest
    worker = Worker(Store(tmp_path / "runs"))
    worker.data = lambda name, test=True: data  # type: ignore[method-assign]
    with pytest.raises(DataError, match="is not the file that was planned with"):
        ensure(one, worker)


def test_the_space_of_the_weights_is_imagenet_s(monkeypatch, weights, tmp_path):
    from downstream import attention as measured
    from fyi_bench.files import sha256_file

    path, seen = weights[0], []
    data = replace(sided(), train=replace(sided().train, class_names=("tench", "goldfish", "hammerhead")))

    def look(network, images, target, conditions):
        seen.append((target, conditions.space))
        return measured.Attention(torch.eye(16, dtype=torch.int64), len(images), 0)

    monkeypatch.setattr(measured, "attention", look)
    worker = Worker(Store(tmp_path / "runs"))
    worker.data = lambda name, test=True: data  # type: ignore[method-assign]
    ensure(attention_run(data, [2], (path, sha256_file(path)), "fp32"), worker)
    assert seen == [(4, NormalizedSpace((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))]


# objects of COCO ----------------------------------------------------------------------------------------------------

LEFT = [[10, 20, 40, 20, 40, 60, 10, 60]]  # a rectangle in an image of 100 x 80
RIGHT = [[60, 20, 90, 20, 90, 60, 60, 60]]


def runs_of(mask: np.ndarray) -> list[int]:
    """Run lengths of a mask, down the columns, outside first."""
    flat = mask.T.reshape(-1).astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    return np.diff(np.concatenate([[0], edges])).tolist()


def written(lengths: list[int]) -> str:
    """COCO's text of run lengths."""
    text = ""
    for k, length in enumerate(lengths):
        value, more = length - (lengths[k - 2] if k > 2 else 0), True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return text


def mask_of(x0: int, x1: int) -> np.ndarray:
    mask = np.zeros((80, 100), bool)
    mask[20:60, x0:x1] = True
    return mask


def coco(path, masks, category: str = "chair", **changes):
    """An annotation file with an image for each list of masks, all of one category."""
    names = ["person", "zebra", "chair", "umbrella"]
    rows = [(image, mask) for image, found in enumerate(masks) for mask in found]
    content = {
        "images": [{"id": k, "height": 80, "width": 100, "file_name": f"{k}.jpg"} for k in range(len(masks))],
        "categories": [{"id": 3 * k + 1, "name": name} for k, name in enumerate(names)],
        "annotations": [
            {"id": n, "image_id": image, "category_id": 3 * names.index(category) + 1, "segmentation": mask}
            for n, (image, mask) in enumerate(rows)
        ],
        **changes,
    }
    path.write_text(json.dumps(content))
    return path


def rle(mask: np.ndarray, text: bool) -> dict:
    lengths = runs_of(mask)
    return {"size": list(mask.shape), "counts": written(lengths) if text else lengths}


@pytest.mark.parametrize(
    "masks",
    [
        [[LEFT], [LEFT]],
        [[rle(mask_of(10, 40), text=False)]] * 2,
        [[rle(mask_of(10, 40), text=True)]] * 2,
        [[LEFT, LEFT, rle(mask_of(15, 20), text=True)], [rle(mask_of(10, 40), text=False)]],
        [[[[10, 20, 25, 20, 25, 60, 10, 60], [25, 20, 40, 20, 40, 60, 25, 60]]], [LEFT]],
    ],
    ids=["polygons", "runs", "text", "several of an image", "parts"],
)
def test_objects_on_the_left_give_a_map_on_the_left(tmp_path, masks):
    [found] = object_places(coco(tmp_path / "a.json", masks), ["chair"], 20).values()
    expected = np.zeros((20, 20), int)
    expected[5:15, 2:8] = 2
    assert np.array_equal(found.counts, expected)
    assert found.images == 2


def test_objects_on_both_sides_are_symmetric(tmp_path):
    path = coco(tmp_path / "a.json", [[LEFT], [RIGHT], [LEFT, RIGHT]])
    [found] = object_places(path, ["chair"], 20).values()
    assert mirror_correlation(torch.from_numpy(found.counts)) == pytest.approx(1)
    [none] = object_places(path, ["zebra"], 20).values()
    assert (none.images, int(none.counts.sum())) == (0, 0)
    with pytest.raises(UnknownNameError, match="Did you mean 'zebra'"):
        object_places(path, ["zebr"], 20)


def test_any_polygon_is_filled_by_the_even_odd_rule(tmp_path):
    from matplotlib.path import Path

    generator = np.random.default_rng(0)
    centres = np.stack(np.meshgrid(np.arange(30) + 0.5, np.arange(30) + 0.5), -1).reshape(-1, 2)
    for corners in (3, 4, 9):
        angles = np.sort(generator.uniform(0, 2 * np.pi, corners))
        shape = np.stack([50 + 45 * np.cos(angles), 40 + 38 * np.sin(angles)], 1) * generator.uniform(
            0.5, 1, (corners, 1)
        )
        path = coco(tmp_path / "a.json", [[[shape.reshape(-1).tolist()]]])
        [found] = object_places(path, ["chair"], 30).values()
        inside = Path(shape * (0.3, 30 / 80)).contains_points(centres).reshape(30, 30)
        assert np.array_equal(found.counts.astype(bool), inside)
        assert inside.any()


@pytest.mark.parametrize(
    "mask",
    [
        [[1, 2, 3]], [[1, 2, "x", 4, 5, 6]], [[float("nan")] * 6], "text", 7, None,
        {"size": [80, 100]}, {"size": [80, 100], "counts": [5]}, {"size": [80, 100], "counts": [8001, -1]},
        {"size": [80, 100], "counts": "\x00"}, {"size": [80, 100], "counts": "o"}, {"size": [0, 0], "counts": []},
        {"size": [80, 100], "counts": "é"}, {"size": "ab", "counts": [1]}, {"size": [80, 100], "counts": [1e300]},
        {"size": [80, 100], "counts": "P" * 50_000 + "0"},
    ],
)  # fmt: skip
def test_a_broken_mask_is_named(tmp_path, mask):
    path = coco(tmp_path / "a.json", [[LEFT], [mask]])
    with pytest.raises(DataError, match=r"The mask of annotation 1 in .*a\.json cannot be read") as caught:
        object_places(path, ["chair"], 20)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"images": 3}', "[" * 100_000, '{"images": [], "annotations": []}',
     *(f'{{"images": [], "annotations": [], "categories": [{{"name": {name}, "id": {number}}}]}}'
       for name, number in ((3, 1), ('"chair"', "{}")))],
)  # fmt: skip
def test_a_file_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "b.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"is no file of COCO's object masks"):
        object_places(path, ["chair"], 20)


def test_figure_c_is_read_once_and_drawn_with_its_symmetry(tmp_path):
    path = coco(tmp_path / "instances.json", [[LEFT], [LEFT, RIGHT], [RIGHT]], "zebra")
    words = ("figure", "c", "--annotations", str(path), "--store", str(tmp_path / "runs"))
    first = run(*words)
    assert f"reading {path}" in first.stdout
    assert "reading" not in run(*words).stdout
    shown = texts((tmp_path / "runs" / "figures" / "figure-C.svg").read_text())
    assert shown.count("symmetry –") == 3
    assert shown.count("symmetry 1.00") == 1
    assert "zebra 3" in " ".join(shown)


# what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("3", "--dataset", "mnist"), "--dataset"),
        (("10", "--set", "epochs=3"), "--set"),
        (("D", "--seeds", "3"), "--seeds"),
        (("c", "--dataset", "cifar10"), "--dataset"),
        (("E", "--dataset", "cifar10", "--run"), "--dataset"),
        (("1", "--seeds", "2"), "--seeds"),
        (("5", "--weights", "x.pth"), "--weights"),
        (("2", "--annotations", "x.json", "--dataset", "cifar10"), "--annotations"),
        (("6", "--precision", "bf16"), "--precision"),
        (("6", "--seed", "1"), "--seed"),
        (("E", "--seed", "1"), "--seed"),
        (("7", "--seed", "1"), "--seed"),
    ],
)
def test_an_option_that_a_figure_does_not_use_is_refused(tmp_path, words, option):
    done = run("figure", *words, "--store", str(tmp_path), check=2)
    assert done.stderr == f"fyi-bench: Figure {words[0].upper()} does not use {option}.\nLeave it out.\n"
    assert not list(tmp_path.iterdir())


def test_options_that_a_figure_s_commands_use_are_taken(tmp_path):
    done = run("figure", "9", "--dry-run", "--seeds", "2", "--data-root", str(tmp_path), check=None)
    assert "does not use" not in done.stderr


def test_figure_3_is_not_measured_under_a_protocol_that_says_nothing_of_it(tmp_path):
    done = run("figure", "3", "--protocol", "legacy-mtt", "--store", str(tmp_path), check=2)
    assert "paper, quick" in done.stderr

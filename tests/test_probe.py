"""Linear probe: the fit against a plain twin, features as the network has them, and a whole run with its neighbours."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fyi_bench
import search_space
import tiny
from commands import run, tell
from distill.image_set import ImageSet
from distill.spaces import NormalizedSpace, space_from
from downstream.probe import features_of, fit, shares_of
from downstream.probe_module import module_of_file
from downstream.training import Conditions
from fyi_bench import rng
from fyi_bench.config import Settings
from fyi_bench.data import load_dataset
from fyi_bench.data.sets.imagenet import IMAGENET_STATISTICS
from fyi_bench.errors import DataError, DivergenceError, UnknownNameError, UsageError
from fyi_bench.run.run_type import Worker
from fyi_bench.run.teachers import frozen_network
from fyi_bench.session import Session
from fyi_bench.store.store import Store
from fyi_bench.tasks.accuracy import Accuracy
from search_space.torchvision_compat import torchvision

CLASSES = 3


def problem(seed: int = 0, count: int = 40, width: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Features that tell the classes apart in part, and their labels."""
    generator = rng.stream(seed, "probe")
    y = torch.arange(count) % CLASSES
    centres = torch.randn(CLASSES, width, generator=generator)
    return centres[y] + 1.5 * torch.randn(count, width, generator=generator) + 3, y


def newton(x: np.ndarray, shares: np.ndarray, l2: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias of the standardised problem, with the full Hessian."""
    x = (x - x.mean(0)) / x.std(0)
    ones = np.hstack([x, np.ones((len(x), 1))])
    d, k = ones.shape[1], shares.shape[1]
    theta, penalty = np.zeros((k, d)), l2 * np.append(np.ones(d - 1), 0)
    for _ in range(50):
        logits = ones @ theta.T
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        slope = (p - shares).T @ ones / len(x) + penalty * theta
        curve = np.zeros((k * d, k * d))
        for a in range(k):
            for b in range(k):
                weights = p[:, a] * ((a == b) - p[:, b]) / len(x)
                curve[a * d : (a + 1) * d, b * d : (b + 1) * d] = (ones * weights[:, None]).T @ ones
        curve += np.diag(np.tile(penalty, k))
        theta -= (np.linalg.pinv(curve) @ slope.ravel()).reshape(k, d)  # biases can move together
    return theta[:, :-1], theta[:, -1]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("l2", [1e-3, 0.1])
def test_the_fit_is_that_of_newtons_method(l2, soft):
    x, y = problem()
    labels = torch.rand(len(y), CLASSES, generator=rng.stream(1, "shares")).double().softmax(1) if soft else y
    found = fit(x, labels, CLASSES, l2)
    shares = labels if soft else F.one_hot(y, CLASSES)
    weight, bias = newton(x.double().numpy(), shares.double().numpy(), l2)
    np.testing.assert_allclose(found.weight.numpy(), weight, atol=2e-4)
    np.testing.assert_allclose((found.bias - found.bias.mean()).numpy(), bias - bias.mean(), atol=2e-4)
    right = F.cross_entropy(found.logits(x), shares.double())
    assert found.loss == pytest.approx(float(right), abs=1e-9)


def test_scale_place_and_dead_features_change_nothing():
    x, y = problem()
    plain = fit(x, y, CLASSES)
    moved = torch.hstack([x * torch.tensor([1, 10, 0.1, 5, 2]) - 4, torch.full((len(x), 2), 7.0)])
    other = fit(moved, y, CLASSES)
    torch.testing.assert_close(other.logits(moved), plain.logits(x), rtol=1e-3, atol=1e-3)
    assert not other.weight[:, 5:].any()


def test_a_class_that_is_absent_is_never_answered():
    x, y = problem()
    found = fit(x, y, CLASSES + 2)
    assert int(found.logits(x).argmax(1).max()) < CLASSES


def test_what_is_not_finite_is_said():
    x, y = problem()
    x[3, 1] = torch.inf
    with pytest.raises(DivergenceError, match="features are not finite"):
        fit(x, y, CLASSES)


def test_labels_of_every_kind():
    rows = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
    assert torch.equal(shares_of(torch.tensor([1, 0]), "logits"), torch.tensor([1, 0]))
    torch.testing.assert_close(shares_of(rows, "logits"), rows.double().softmax(1))
    assert shares_of(rows, "targets").tolist() == shares_of(rows, "logits", hard=True).tolist() == [1, 0]
    shares = rows.softmax(1)
    torch.testing.assert_close(shares_of(shares, "probabilities"), shares.double())


@pytest.mark.parametrize("size", [0, 16])
def test_features_are_what_the_classifier_reads(size):
    images = tiny.real_set()
    network = search_space.build("convnet-w8-d2-batch", 3, size or tiny.SIZE, CLASSES, rng.stream(0, "n"))
    found, labels = features_of(network, images, Conditions(space=tiny.SPACE), size)
    x = tiny.SPACE.encode(images.images.float() / 255)
    x = F.interpolate(x, (size, size), mode="bilinear", align_corners=False) if size else x
    with torch.no_grad():
        logits = network.eval()(x)
    torch.testing.assert_close(network.classifier(found), logits, rtol=1e-4, atol=1e-4)
    assert torch.equal(labels, images.labels)


# whole runs --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    """Two real images a class of the built-in data, with soft labels, in its normalised space."""
    shapes = load_dataset("shapes10")
    rows = [int(shapes.train.indices_of(c)[k]) for c in range(10) for k in range(2)]
    chosen = shapes.train.select(rows).to_space(shapes.space)
    return dataclasses.replace(chosen, labels=F.one_hot(chosen.labels, 10).float() * 2)


@pytest.fixture(scope="module")
def common(tmp_path_factory):
    overrides = {"draws": "2", "epochs": "1"}
    return {"store": tmp_path_factory.mktemp("probe"), "workers": 1, "threads": 1, "overrides": overrides}


@pytest.fixture(scope="module")
def path(small, common):
    return small.save(common["store"] / "set.safetensors")


@pytest.mark.long
def test_a_probe_with_its_neighbours(path, common, small, monkeypatch):
    asked = {"probe": "convnet-w8", "weights": "random", "labels": ["hard", "own"], "floor": True}
    record = fyi_bench.evaluate(path, **asked, **common)
    assert (record["task"], record["dataset"]) == ("probe", "shapes10")
    arms = {(arm.get("form", arm["method"]), arm.get("labels")): arm for arm in record["arms"]}
    hard, own, images, uint8, jpeg, real = arms.values()
    assert [arm["images"] for arm in (hard, own, images)] == [20, 20, 20]
    assert own["set_bytes"] == small.nbytes
    assert uint8["images"] < jpeg["images"] < real["images"] == 5000
    assert max(uint8["set_bytes"], jpeg["set_bytes"]) <= small.nbytes
    assert [len(arm["architectures"][0]["values"]) for arm in (own, images, uint8, jpeg, real)] == [1, 2, 2, 2, 1]
    assert real["architectures"][0]["mean"] > images["architectures"][0]["mean"]
    # by hand, from the images on
    data = load_dataset("shapes10")
    network = search_space.build("convnet-w8", 3, 32, 10, rng.stream(0, "teacher"))
    at = Conditions(space=data.space)
    probe = fit(features_of(network, small, at)[0], small.hard_labels, 10)
    right = probe.logits(features_of(network, data.test, at)[0]).argmax(1) == data.test.labels
    assert hard["architectures"][0]["values"] == [pytest.approx(float(right.double().mean()), abs=0.002)]
    less = record["against"]["images"]["own"]
    expected = own["architectures"][0]["mean"] - images["architectures"][0]["mean"]
    assert (less["mean"], less["pairs"]) == (pytest.approx(expected), 2)
    text = tell(record)
    assert "convnet-w8, random weights, 128 features of 32 px images" in text
    assert "the set, labels hard" in text
    assert max(map(len, text.splitlines()[1:-1])) <= 80
    # asked again nothing is computed
    monkeypatch.setattr("downstream.probe.fit", None)
    assert fyi_bench.evaluate(path, **asked, **common)["arms"] == record["arms"]


@pytest.mark.long
def test_the_network_is_trained_here_where_no_weights_are_given(path, common):
    record = fyi_bench.evaluate(path, probe="convnet-w8", **common)
    kinds = [each.kind for each in Store(common["store"]).ls()]
    assert kinds.count("teacher") == 1
    assert record["probe"]["weights"] == "trained here on all real images"
    assert record["arms"][-1]["architectures"][0]["mean"] > 0.5
    assert f"images ({100 * record['probe']['accuracy']:.1f} %)" in tell(record)
    # the weights it has are those of a file, too
    trained = next(each for each in Store(common["store"]).ls() if each.kind == "teacher")
    weights = Store(common["store"]).artefact("teacher", trained.digest, "network.safetensors")
    again = fyi_bench.evaluate(path, probe="convnet-w8", weights=weights, **common)
    assert [arm["architectures"][0]["values"] for arm in again["arms"]] == [
        arm["architectures"][0]["values"] for arm in record["arms"]
    ]


def planned(path, common, **options):
    session = Session(Settings(store=common["store"], dataset="shapes10", overrides=common["overrides"]))
    return Accuracy().plan(session, Accuracy.Options(path=(path,), **options), {})


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """torchvision's ResNet-18 with some weights, and the file that it would publish for them."""
    with torch.random.fork_rng():
        network = torchvision.models.resnet18(weights=None).eval()
    file = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(network.state_dict(), file)
    return network, file


@pytest.mark.long
def test_published_weights_give_the_features_of_their_network(path, common, published):
    """torchvision's file has another head, and its network sees images as ImageNet's are normalised."""
    theirs, file = published
    plan = planned(path, common, probe="torchvision:resnet18@40", weights=file)
    inputs = next(spec for spec in plan.runs if spec.kind == "features").inputs
    assert inputs["space"] == NormalizedSpace(*IMAGENET_STATISTICS).describe()
    assert inputs["size"] == 40
    images = load_dataset("shapes10").test.select(torch.arange(4))
    worker = Worker(Store(common["store"]))
    network = frozen_network(inputs["network"], str(file), images, worker, inputs["size"], head=False)
    found, _ = features_of(network, images, Conditions(space=space_from(inputs["space"])), 40)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET_STATISTICS)
    x = F.interpolate((images.images / 255 - mean) / std, (40, 40), mode="bilinear", align_corners=False)
    theirs.fc = torch.nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(found, theirs(x), rtol=1e-3, atol=1e-3)
    with pytest.raises(DataError, match=r"does not hold the weights of this network.*\n.*--probe NAME"):
        frozen_network({**inputs["network"], "model": "torchvision:vgg11"}, str(file), images, worker, 40, head=False)


def test_a_plan_counts_features_and_probes(path, common):
    plan = planned(path, common, probe="mlp", weights=Path("random"), floor=True)
    kinds = [run.kind for run in plan.runs]
    # three forms of two draws; features of these, the set, the train and the test images; a probe of all but the last
    assert {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)} == {"floor": 6, "features": 9, "probe": 8}
    done = run("evaluate", str(path), "--probe", "convnet-w8", "--store", str(common["store"] / "no"), "--dry-run")
    assert "linear probe of set.safetensors · shapes10 · convnet-w8" in done.stdout
    assert not (common["store"] / "no").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weights": "random"}, UsageError, r"--weights is of the network of a linear probe.*\n.*--probe NAME"),
        ({"probe": "mlp", "robust": True}, UsageError, "--probe trains no network"),
        ({"probe": "mlp", "labels": ("teacher",)}, UsageError, "--probe trains no network"),
        ({"probe": "convnett", "weights": "random"}, UnknownNameError, "convnett.*convnet"),
        ({"probe": "mlp@64"}, UsageError, r"trained here on images of 32 px, not of 64.*\n.*--weights random"),
        ({"probe": "mlp", "weights": "absent.pth"}, DataError, r"absent.pth cannot be read.*\n.*--weights"),
    ],
)
def test_what_cannot_be_is_refused(path, common, options, error, message):
    options = {key: Path(value) if key == "weights" else value for key, value in options.items()}
    with pytest.raises(error, match=message):
        planned(path, common, **options)


@pytest.mark.slow
def test_real_images_seen_by_a_network_trained_here(tmp_path):
    """On CIFAR-10 more real images make a better probe, and all of them one near the network itself."""
    try:
        data = load_dataset("cifar10")
    except DataError as error:
        pytest.skip(str(error).splitlines()[0])
    rows = torch.cat([data.train.indices_of(c)[:50] for c in range(10)])
    path = data.train.select(rows).save(tmp_path / "set.safetensors")
    overrides = {"draws": "2", "epochs": "2"}
    record = fyi_bench.evaluate(
        path, dataset="cifar10", protocol="quick", probe="convnet-w32", store=tmp_path / "runs", workers=1, threads=1,
        overrides=overrides,
    )  # fmt: skip
    own, random, full = (arm["architectures"][0]["mean"] for arm in record["arms"])
    assert random == pytest.approx(own, abs=0.05)
    assert full > random + 0.03
    assert full > record["probe"]["accuracy"] - 0.05
    assert own > 0.4


# a user's own network ------------------------------------------------------------------------------------------------

OWN = """
from dataclasses import dataclass

import torch
from torch import nn

from sizes import WIDTH


@dataclass
class Facts:
    stride: "int" = 4


class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, WIDTH, 3, stride=Facts().stride)

    def forward(self, images):
        assert float(images.min()) >= 0 and float(images.max()) <= 1
        return self.conv(images).relu().flatten(1)


class Maps(Mine):
    def forward(self, images):
        return self.conv(images)


def make():
    torch.randn(3)
    return Mine()


def maps():
    return Maps()


def raises():
    raise ValueError("no weights here")


def number():
    return 3


class Picky(Mine):
    def forward(self, images):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
"""


@pytest.fixture
def own(tmp_path):
    """A Python file with several networks, and one beside it that it imports."""
    (tmp_path / "sizes.py").write_text("WIDTH = 6\n")
    (tmp_path / "mine.py").write_text(OWN)
    return tmp_path / "mine.py"


@pytest.mark.long
def test_a_function_of_a_users_file_gives_the_network(path, common, own):
    record = fyi_bench.evaluate(path, probe=f"{own}:make@16", **common)
    told = record["probe"]
    assert (told["network"], told["weights"], told["features"], told["size"]) == (
        "mine.py:make", "a module of the user's", 6 * 4 * 4, 16
    )  # fmt: skip
    assert "mine.py:make, a module of the user's, 96 features of 16 px images" in tell(record)
    # by hand: pixels in [0, 1], the weights that the function draws
    module = module_of_file(own, "make").module
    data = load_dataset("shapes10")

    def seen(images):
        pixels = F.interpolate(images.pixels(), (16, 16), mode="bilinear", align_corners=False, antialias=True)
        with torch.no_grad():
            return module(pixels)

    small = ImageSet.load(path)
    probe = fit(seen(small), shares_of(small.labels, small.label_kind), 10)
    right = probe.logits(seen(data.test)).argmax(1) == data.test.labels
    assert record["arms"][0]["architectures"][0]["values"] == [pytest.approx(float(right.double().mean()), abs=0.002)]
    # a changed file is another network
    before = [run.digest for run in planned(path, common, probe=f"{own}:make").runs]
    assert [run.digest for run in planned(path, common, probe=f"{own}:make").runs] == before
    own.write_text(OWN.replace(".relu()", ""))
    assert not set(before) & {
        run.digest for run in planned(path, common, probe=f"{own}:make").runs if run.kind != "floor"
    }


def test_a_module_is_given_in_python(path, common):
    class Means(torch.nn.Module):
        def __init__(self, scale: float = 1.0):
            super().__init__()
            self.scale = scale

        def embed(self, images):
            return self.scale * images.mean((2, 3))

    record = fyi_bench.evaluate(path, probe=Means(), **common)
    assert (record["probe"]["network"], record["probe"]["features"]) == ("Means", 3)
    spec = next(run for run in planned(path, common, probe=Means()).runs if run.kind == "features")
    other = next(run for run in planned(path, common, probe=Means(2.0)).runs if run.kind == "features")
    assert spec.digest != other.digest
    # in another process nobody knows it
    monkey = {key: spec.inputs["network"][key] for key in ("state", "code")} | {"seed": 99}
    with pytest.raises(DataError, match=r"known to its own process alone.*\n.*workers=1"):
        frozen_network(monkey, "", load_dataset("shapes10").test, Worker(Store(common["store"])))


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nothing", UsageError, r"mine.py has no 'nothing'.\nIt has Facts, Mine, Maps, make, maps"),
        ("raises", UsageError, r"raises ValueError \(no weights here\) when it is called without arguments"),
        ("number", UsageError, r"mine.py:number is a int, not a torch.nn.Module"),
        ("WIDTH", UsageError, r"mine.py:WIDTH is a int, not a torch.nn.Module"),
        ("maps", UsageError, r"returns \[2, 6, 8, 8\] for images \[2, 3, 32, 32\], not features \[2, d\].\n.*flatten"),
        ("Picky", UsageError, r"mine.py:Picky raises RuntimeError \(mat1 and mat2.*, given images \[2, 3, 32, 32\]"),
    ],
)
def test_what_is_no_network_of_a_users_is_told_in_two_lines(path, common, own, name, error, message):
    with pytest.raises(error, match=message) as caught:
        planned(path, common, probe=f"{own}:{name}")
    assert len(str(caught.value).splitlines()) == 2


def test_files_that_give_no_network_are_told(path, common, own, tmp_path):
    with pytest.raises(DataError, match=r"There is no file .*absent.py.\n.*--probe FILE.py:NAME"):
        planned(path, common, probe=f"{tmp_path}/absent.py:make")
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    with pytest.raises(UsageError, match=r"broken.py raises ModuleNotFoundError .* when it is run"):
        planned(path, common, probe=f"{tmp_path}/broken.py:make")
    with pytest.raises(UsageError, match="has its weights already"):
        planned(path, common, probe=f"{own}:make", weights=Path("random"))
    (tmp_path / "drawn.py").write_text(OWN.replace("Mine()\n\n\ndef maps", "_odd()\n\n\ndef maps") + ODD)
    backbone = next(
        run for run in planned(path, common, probe=f"{tmp_path}/drawn.py:make").runs if run.kind == "features"
    )
    with pytest.raises(DataError, match=r"drawn.py:make gives another network than it was planned with.\n"):
        frozen_network(
            backbone.inputs["network"], backbone.notes["weights"], load_dataset("shapes10").test,
            Worker(Store(common["store"])),
        )  # fmt: skip


ODD = """

def _odd():
    import os

    made = Mine()
    made.conv.bias.data[0] = int.from_bytes(os.urandom(3), "big")
    return made
"""

"""What is guessed about a file, why, and what the caller may state instead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.spaces import NormalizedSpace, PixelSpace, WhitenedSpace
from fyi_bench.errors import DataError, FyiBenchError, UnknownNameError, UsageError
from fyi_bench.formats import FORMATS, Format, Raw, export_set, load_set
from fyi_bench.formats.inspection import inspect_set
from fyi_bench.formats.looks import look
from fyi_bench.formats.origin import guessed
from golden import golden
from importer_files import (
    CIFAR10,
    CIFAR100,
    dc_file,
    labels,
    mtt_folder,
    normalised,
    picture_folder,
    pictures,
    whitened,
)


def saved(folder: Path, images, targets=None, name: str = "cifar10.pt") -> Path:
    torch.save({"images": images, "labels": labels(len(images)) if targets is None else targets}, folder / name)
    return folder / name


def says(texts: list[str], *words: str) -> bool:
    return any(all(word in text for word in words) for text in texts)


def plain_neighbours(images: torch.Tensor) -> float:
    """Correlation of neighbours, channel means taken out, by NumPy."""
    found = []
    for a, b in ((images[..., :-1], images[..., 1:]), (images[..., :-1, :], images[..., 1:, :])):
        a, b = (x.double().numpy().transpose(1, 0, 2, 3).reshape(images.shape[1], -1) for x in (a, b))
        a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
        found.append(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    return float(np.mean(found))


def test_looks_are_what_numpy_says():
    images = normalised()
    looks = look(images)
    array = images.double().numpy()
    assert looks.neighbour == pytest.approx(plain_neighbours(images), abs=1e-9)
    assert looks.mean == pytest.approx(array.mean((0, 2, 3)).tolist())
    assert looks.std == pytest.approx(array.std((0, 2, 3)).tolist())
    assert looks.below == pytest.approx((array < -0.02).mean())
    assert looks.above == pytest.approx((array > 1.02).mean())


@pytest.mark.parametrize(
    ("images", "kind"),
    [
        (pictures(), "pixel"),
        (pictures() * 1.1 - 0.05, "pixel"),
        (pictures() * 0.1, "pixel"),
        (normalised(), "normalized"),
        (normalised() + 0.3 * torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0)), "normalized"),
        (normalised() * 0.3, "normalized"),
        (whitened(), "whitened"),
    ],
)
def test_space_by_content(tmp_path, images, kind):
    found = load_set(saved(tmp_path, images))
    assert found.image_set.space.kind == kind
    assert says(found.guesses, "space ", "standard deviation")


def test_space_of_published_numbers():
    """Images of the reference code: CIFAR-10 whitened by it, synthetic ones in its normalised space, IDC's pixels."""
    assert look(torch.from_numpy(golden("case08_zca")["test_zca"])).whitened == 1
    assert look(torch.from_numpy(golden("case08_zca")["train_zca_first4"])).whitened == 1
    assert look(torch.from_numpy(golden("case07_idc")["stored_data"])).like_pixels
    for case in ("case02a_dc_matching_w32", "case03_dm", "case05_mtt", "case09_cafe_datadam"):
        looks = look(torch.from_numpy(golden(case)["syn_images"]))
        assert (looks.whitened, looks.like_pixels) == (0, False)


def test_where_numbers_do_not_decide_the_published_setting_does(tmp_path):
    noisy = 0.7 * torch.randn(100, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ten = load_set(mtt_folder(tmp_path / "CIFAR10", noisy, labels(100)))
    assert isinstance(ten.image_set.space, WhitenedSpace)
    assert says(ten.guesses, "space zca", "published setting uses ZCA")
    assert says(ten.warnings, "not certain")
    one = load_set(mtt_folder(tmp_path / "SVHN", noisy[:20], labels(20)))
    assert one.image_set.space.kind == "normalized"


def test_dc_files_are_normalised_and_doubt_is_told(tmp_path):
    path = tmp_path / "res_DM_CIFAR10_ConvNet_2ipc.pt"
    torch.save({"data": [[whitened(), labels()]]}, path)
    found = load_set(path)
    assert found.image_set.space == CIFAR10
    assert says(found.warnings, "looks whitened", "space='zca'")
    torch.save({"data": [[pictures(), labels()]]}, path)
    found = load_set(path)
    assert found.image_set.space == PixelSpace()
    assert says(found.warnings, "but it looks pixel")


def test_values_that_fill_minus_one_to_one(tmp_path):
    found = load_set(saved(tmp_path, pictures() * 2 - 1))
    assert found.image_set.space == NormalizedSpace((0.5,) * 3, (0.5,) * 3)
    assert says(found.guesses, "fill [-1, 1]")


def test_stated_spaces_count(tmp_path):
    path = saved(tmp_path, normalised())
    assert load_set(path, space="normalized", dataset="cifar10").image_set.space == CIFAR10
    assert load_set(path, mean=CIFAR100.mean, std=CIFAR100.std).image_set.space == CIFAR100
    assert load_set(path, space=CIFAR100).image_set.space == CIFAR100
    assert load_set(path, space="zca").image_set.space.kind == "whitened"
    odd = load_set(saved(tmp_path, pictures(), name="b.pt"), space="normalized", dataset="cifar10")
    assert odd.image_set.space == CIFAR10
    assert says(odd.warnings, "lie in [0, 1] like pixels")


@pytest.mark.parametrize(
    ("options", "kind", "expected"),
    [
        ({"space": "pixel"}, DataError, "no pixels in"),
        ({"space": "pixels"}, UnknownNameError, "Did you mean 'pixel'"),
        ({"space": "normalised"}, UnknownNameError, "Did you mean 'normalized'"),
        ({"mean": [0.5] * 3}, UsageError, "belong together"),
        ({"mean": [0.5], "std": [0.5]}, DataError, "3 channels; mean has 1 values"),
        ({"mean": [0.5] * 3, "std": [0.0] * 3}, DataError, "positive std"),
        ({"mean": [0.5] * 3, "std": [0.5] * 3, "space": "pixel"}, UsageError, "two spaces"),
        ({"zca": "cifar10", "space": "normalized"}, UsageError, "two spaces"),
        ({"ipc": 0}, UsageError, "ipc=0"),
        ({"ipc": 3}, DataError, "ipc=3 was stated, but the classes have 2"),
        ({"dataset": "cifar1000"}, UnknownNameError, "Did you mean 'cifar100'"),
        ({"dataset": "mnist"}, DataError, "it has 3 channels, mnist has 1"),
        ({"dataset": "tinyimagenet"}, DataError, "32x32 pixels, tinyimagenet has 64x64"),
        ({"factor": 0}, UsageError, "factor=0"),
        ({"factor": 17}, UsageError, "1 to 16 tiles"),
        ({"lr": -1.0}, DataError, "step size is -1"),
        ({"experiment": 2}, UsageError, "hold one set"),
        ({"step": 1}, UsageError, "hold one set"),
        ({"format": "mttt"}, UnknownNameError, "Did you mean 'mtt'"),
        ({"format": "mtt"}, DataError, "is not one of the files images_"),
        ({"format": "kip"}, DataError, r"not a \.npz file"),
        ({"format": "parquet"}, DataError, r"not a \.parquet file"),
        ({"format": "image-folder"}, DataError, "not a folder"),
        ({"format": "haba"}, DataError, "not a folder with images_"),
        ({"format": "idc"}, DataError, "with a list"),
        ({"format": "dc"}, DataError, "not a file with the key 'data'"),
        ({"format": "dm-continual"}, DataError, "not a continual file"),
        ({"format": "fyi-bench"}, DataError, r"not a \.safetensors file"),
        ({"format": "frepo"}, DataError, "x_proto"),
        ({"format": "dd-ranking"}, DataError, r"images\.pt"),
        ({"format": "dc-bench"}, DataError, "_images"),
    ],
)
def test_wrong_or_impossible_statements(tmp_path, options, kind, expected):
    path = saved(tmp_path, normalised())
    with pytest.raises(FyiBenchError, match=expected) as error:
        load_set(path, **options)
    assert isinstance(error.value, kind)
    assert len(str(error.value).splitlines()) == 2


def test_uint8_cannot_be_stated_as_anything_but_pixels(tmp_path):
    path = saved(tmp_path, (pictures() * 255).to(torch.uint8))
    with pytest.raises(DataError, match="uint8, so they are pixels"):
        load_set(path, mean=CIFAR10.mean, std=CIFAR10.std)
    with pytest.raises(DataError, match="no whitened images"):
        load_set(saved(tmp_path, pictures(), name="b.pt"), space="zca")


def test_factor_and_step_size_may_be_stated(tmp_path):
    found = load_set(saved(tmp_path, normalised()), factor=2, lr=0.05, ipc=2).image_set
    assert (found.factor, found.lr, found.ipc) == (2, 0.05, 2)


def test_facts_of_our_own_sets_are_not_overridden(tmp_path):
    path = load_set(dc_file(tmp_path)).image_set.save(tmp_path / "set.safetensors", preview=False)
    assert len(load_set(path, ipc=2, factor=1, space="normalized").image_set) == 20
    for options in (
        {"ipc": 5},
        {"factor": 2},
        {"lr": 0.1},
        {"space": "pixel"},
        {"dataset": "mnist"},
        {"labels": "hard"},
    ):
        with pytest.raises(DataError, match=f"{next(iter(options))}|own facts"):
            load_set(path, **options)


@pytest.mark.parametrize(
    ("names", "shape", "classes", "expected"),
    [
        (("CIFAR10", "run", "images_best.pt"), (3, 32, 32), 10, "cifar10"),
        (("CIFAR100", "run"), (3, 32, 32), 100, "cifar100"),
        (("cifar10_100ipc",), (3, 32, 32), 10, "cifar10"),
        (("res_DC_FashionMNIST_ConvNet_1ipc.pt",), (1, 28, 28), 10, "fashionmnist"),
        (("res_DC_MNIST_ConvNet_1ipc.pt",), (1, 28, 28), 10, "mnist"),
        (("res_DM_tinyimagenet_ConvNetD4_1ipc.pt",), (3, 64, 64), 200, "tinyimagenet"),
        (("tiny-imagenet-200", "x.pt"), (3, 64, 64), 200, "tinyimagenet"),
        (("imagewoof", "x.pt"), (3, 128, 128), 10, "imagewoof"),
        (("x.pt",), (3, 32, 32), 100, "cifar100"),
        (("x.pt",), (3, 64, 64), 200, "tinyimagenet"),
        (("x.pt",), (3, 48, 48), 7, ""),
        (("x.pt",), (3, 32, 32), 10, ""),
    ],
)
def test_data_set_by_name_and_shape(names, shape, classes, expected):
    found = guessed("", [*reversed(names), "nowhere"], shape, classes)
    assert found.name == expected
    assert (found.entry is not None) == (expected != "" or classes == 10)


def test_a_name_that_cannot_be_is_not_believed(tmp_path):
    path = saved(tmp_path, normalised(100, CIFAR10), torch.arange(100), "cifar10_x.pt")
    found = load_set(path)
    assert found.image_set.provenance["dataset"] == "cifar100"
    assert says(found.warnings, "says cifar10", "labels up to 99", "not believed")


def test_equal_shapes_are_told_where_constants_differ(tmp_path):
    folder = tmp_path / "a" / "b" / "c" / "d" / "e"
    folder.mkdir(parents=True)
    found = load_set(saved(folder, normalised(), name="x.pt"))
    assert found.image_set.space == CIFAR10
    assert says(found.warnings, "it may be svhn")
    assert found.image_set.class_names == ()
    sure = load_set(folder / "x.pt", dataset="svhn")
    assert sure.image_set.space.mean == pytest.approx((0.4377, 0.4438, 0.4728))
    assert not sure.warnings
    with pytest.raises(DataError, match=r"(?s)not known with which constants.*dataset"):
        load_set(saved(folder, normalised(6)[..., :24, :24], torch.arange(6), name="y.pt"))


def test_whitened_images_with_their_data_come_back_as_pixels(tmp_path, monkeypatch):
    from distill.zca import fit
    from fyi_bench.data import load_dataset
    from fyi_bench.data.whitening import zca_space

    monkeypatch.setenv("FYI_BENCH_CACHE", str(tmp_path / "cache"))
    for split in ("train", "test"):
        picture_folder(tmp_path / "data" / split, ["cat", "dog"], each=10)
    name = f"imagefolder:{tmp_path / 'data'}"
    real = load_dataset(name)
    space = fit(zca_space(real), real.train)
    images = space.encode(pictures(size=8))
    folder = mtt_folder(tmp_path / "run", images, labels(20, 2))
    found = load_set(folder, zca=name)
    assert found.image_set.space == space
    assert torch.allclose(found.image_set.pixels(), pictures(size=8), atol=1e-4)
    assert load_set(folder, zca=space).image_set.space == space
    with pytest.raises(DataError, match="cannot be whitened"):
        load_set(mtt_folder(tmp_path / "other", whitened(), labels()), zca=name)


def test_whitened_images_without_their_data_are_kept_with_a_warning(tmp_path, monkeypatch):
    monkeypatch.setenv("FYI_BENCH_DATA", str(tmp_path))
    found = load_set(mtt_folder(tmp_path / "CIFAR10", whitened(), labels()))
    assert found.image_set.space == WhitenedSpace("ZCA with eps 0.1", "cifar10")
    assert says(found.warnings, "without its train images")
    with pytest.raises(DataError, match="matrix that is not known here"):
        found.image_set.pixels()


def test_guesses_and_warnings_go_into_the_file(tmp_path):
    found = load_set(dc_file(tmp_path))
    story = found.image_set.provenance["imported"]
    assert story["guesses"] == found.guesses
    assert story["format"] == "dc"
    assert list(story["files"]) == ["res_DSA_CIFAR10_ConvNet_2ipc.pt"]
    assert len(story["files"]["res_DSA_CIFAR10_ConvNet_2ipc.pt"]) == 64


@pytest.fixture
def _formats_as_before():
    before, owners = dict(FORMATS._entries), dict(FORMATS._owners)
    yield
    FORMATS._entries.clear()
    FORMATS._entries.update(before)
    FORMATS._owners.clear()
    FORMATS._owners.update(owners)


@pytest.mark.usefixtures("_formats_as_before")
def test_a_format_is_added_by_one_registration(tmp_path):
    np.savetxt(tmp_path / "x.numbers", pictures(4, size=4).reshape(4, -1).numpy())
    with pytest.raises(DataError, match="no kind that is known"):
        load_set(tmp_path / "x.numbers")

    @FORMATS.register("numbers-of-a-test")
    class Numbers(Format):
        """numbers in a text file"""

        suffix, spaces = ".numbers", ("pixel",)

        def looks(self, files):
            return "numbers as text" if files.name.endswith(".numbers") else ""

        def read(self, files, options):
            values = np.loadtxt(files.used(files.path)).reshape(-1, 3, 4, 4)
            return Raw(values, np.arange(len(values)), space="pixel", space_reason="the test says so", num_classes=5)

        def write(self, image_set, path):
            np.savetxt(path, image_set.images.flatten(1).numpy())
            return [path]

    found = load_set(tmp_path / "x.numbers")
    assert found.format == "numbers-of-a-test"
    assert torch.allclose(found.image_set.images, pictures(4, size=4), atol=1e-6)
    assert found.image_set.num_classes == 5
    assert inspect_set(tmp_path / "x.numbers")["format"] == "numbers-of-a-test"
    exported = export_set(replace(found.image_set, lr=0.1), tmp_path / "y.numbers", "numbers-of-a-test")
    assert exported.notes == ["the learned step size is not in the files"]
    assert (tmp_path / "y.numbers").read_bytes() == (tmp_path / "x.numbers").read_bytes()
    with pytest.raises(ValueError, match="registered twice"):
        FORMATS.register("numbers-of-a-test")(type("Other", (Format,), {}))
    assert FORMATS.get("numbers-of-a-test") is Numbers


@pytest.mark.usefixtures("_formats_as_before")
def test_a_format_may_read_or_write_alone(tmp_path):
    @FORMATS.register("written-only")
    class WrittenOnly(Format):
        """a text that nothing reads"""

        suffix = ".txt"

        def write(self, image_set, path):
            path.write_text(str(len(image_set)))
            return [path]

    path = dc_file(tmp_path)
    export_set(load_set(path).image_set, tmp_path / "n.txt", "written-only")
    assert (tmp_path / "n.txt").read_text() == "20"
    with pytest.raises(UnknownNameError, match="Unknown format 'written-only'"):
        load_set(path, format="written-only")
    with pytest.raises(UnknownNameError, match="Unknown export format 'haba'"):
        export_set(load_set(path).image_set, tmp_path / "x", "haba")


def test_a_misspelt_fact_is_answered_with_a_suggestion(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'dataset'"):
        load_set(dc_file(tmp_path), dataste="cifar10")

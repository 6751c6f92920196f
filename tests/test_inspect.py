"""The report about a set: facts, statistics, likeness of images, and what does not fit."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.image_set import ImageSet
from distill.spaces import PixelSpace, WhitenedSpace
from fyi_bench.errors import DataError
from fyi_bench.formats import load_set
from fyi_bench.formats.alike import find_duplicates
from fyi_bench.formats.inspection import format_report, inspect_set
from importer_files import CIFAR10, dc_file, labels, normalised, picture_folder, pictures, whitened


def a_set(images: torch.Tensor | None = None, space=CIFAR10, **facts) -> ImageSet:
    images = normalised() if images is None else images
    return ImageSet(images, facts.pop("labels", labels(len(images))), space, 10, **facts)


def test_report_of_a_foreign_file(tmp_path):
    path = dc_file(tmp_path)
    report = inspect_set(path)
    assert report["file"] == {"path": str(path), "bytes": path.stat().st_size, "files": 1}
    assert report["format"] == "dc"
    assert (report["images"], report["shape"], report["dtype"], report["ipc"]) == (20, [3, 32, 32], "float32", 2)
    assert report["classes"]["present"] == report["classes"]["number"] == 10
    assert report["labels"] == {"kind": "hard", "shape": [20]}
    assert report["space"] == CIFAR10.describe()
    assert report["bytes"] == 20 * 3 * 32 * 32 * 4 + 20 * 8
    assert report["digest"] == load_set(path).image_set.digest
    assert report["guesses"] == load_set(path).guesses
    assert report["not_finite"] == 0
    assert report["unequalness"] is None
    assert json.loads(json.dumps(report)) == report


def test_statistics_of_pixels_are_those_of_numpy():
    report = inspect_set(a_set())
    pixels = CIFAR10.decode(normalised()).double().numpy()
    assert report["pixels"]["mean"] == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-6)
    assert report["pixels"]["std"] == pytest.approx(pixels.std((0, 2, 3)).tolist(), abs=1e-6)
    assert report["looks"]["mean"] == pytest.approx(normalised().double().numpy().mean((0, 2, 3)).tolist(), abs=1e-6)
    far = inspect_set(a_set(normalised() * 2))
    values = CIFAR10.decode(normalised() * 2).numpy()
    assert far["pixels"]["outside"] == pytest.approx(((values < 0) | (values > 1)).mean())
    assert any("outside [0, 1]" in text for text in far["warnings"])


def test_what_does_not_fit_is_told():
    def warned(image_set: ImageSet, words: str) -> bool:
        return any(words in text for text in inspect_set(image_set)["warnings"])

    assert warned(a_set(whitened()), "look like whitened images")
    assert warned(a_set(whitened(), PixelSpace()), "look like whitened images")
    assert warned(a_set(pictures()), "in [0, 1] like pixels, but the space is 'normalized'")
    assert warned(a_set(normalised(), PixelSpace()), "the space is 'pixel', but it does not look so")
    broken = normalised().clone()
    broken[3, 0, 0, 0] = float("nan")
    assert warned(a_set(broken), "NaN")
    assert inspect_set(a_set(broken))["not_finite"] == 1
    assert not inspect_set(a_set())["warnings"]
    assert not inspect_set(a_set((pictures() * 255).to(torch.uint8), PixelSpace()))["warnings"]


def test_a_set_whose_matrix_is_not_here_is_still_described():
    report = inspect_set(a_set(whitened(), WhitenedSpace("ZCA", "cifar10")))
    assert report["pixels"] is None
    assert any("matrix that is not on this machine" in text for text in report["warnings"])
    assert "whitened (recipe ZCA, dataset cifar10)" in format_report(report)


def plain_pairs(images: torch.Tensor, near: float) -> tuple[set, set, set]:
    """Equal, mirrored and nearly equal pairs, by comparing every two images."""
    arrays = [image.double().numpy() for image in images]
    exact, mirrored, close = set(), set(), set()
    for i, j in itertools.combinations(range(len(arrays)), 2):
        if np.array_equal(arrays[i], arrays[j]):
            exact.add((i, j))
        elif np.corrcoef(arrays[i].ravel(), arrays[j].ravel())[0, 1] >= near:
            close.add((i, j))
        if np.array_equal(arrays[i][..., ::-1], arrays[j]):
            mirrored.add((i, j))
    return exact, mirrored, close


@pytest.mark.parametrize("size", [8, 32])
def test_duplicates_are_those_of_a_plain_comparison(size):
    generator = torch.Generator().manual_seed(0)
    images = pictures(30, size=size).clone()
    images[7] = images[2]
    images[9] = images[4].flip(-1)
    images[11] = images[5] + 0.02 * torch.randn(3, size, size, generator=generator)
    images[13] = images[6] * 0.5 + 0.2
    exact, mirrored, close = plain_pairs(images, 0.99)
    found = find_duplicates(a_set(images, PixelSpace(), labels=labels(30)))

    def shown(kind: str) -> set:
        return {(i, j) for i, j, _ in found[kind]["examples"]}

    assert exact == {(2, 7)}
    assert mirrored == {(4, 9)}
    assert {(5, 11), (6, 13)} <= close
    assert (shown("exact"), shown("mirrored"), shown("near")) == (exact, mirrored, close)
    assert found["near"]["pairs"] == len(close)
    assert found["exact"]["across_classes"] == 1
    assert found["complete"]


def test_many_equal_images_are_counted_once_each():
    images = pictures(1).expand(150, -1, -1, -1).contiguous()
    found = find_duplicates(a_set(images, PixelSpace(), labels=torch.zeros(150, dtype=torch.int64)))
    assert found["exact"]["pairs"] == 149
    assert found["near"]["pairs"] == 0
    noisy = images + 1e-4 * torch.randn(150, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    close = find_duplicates(a_set(noisy, PixelSpace(), labels=torch.zeros(150, dtype=torch.int64)))
    assert close["near"]["pairs"] == 150 * 149 // 2


def test_images_of_one_colour_are_no_duplicates_of_others():
    images = torch.zeros(10, 3, 8, 8)
    images[1:] += torch.arange(1, 10).view(-1, 1, 1, 1) / 10
    found = find_duplicates(a_set(images, PixelSpace()))
    assert [found[kind]["pairs"] for kind in ("exact", "mirrored", "near")] == [0, 0, 0]


def test_unequalness_is_that_of_the_score(tmp_path):
    from distill.fyi import set_unequalness

    report = inspect_set(dc_file(tmp_path), unequalness=True, networks=2, seed=3)
    score = set_unequalness(load_set(dc_file(tmp_path)).image_set, 3, networks=2)
    assert report["unequalness"]["mean"] == score["mean"]
    assert report["unequalness"]["networks"] == 2
    assert json.loads(json.dumps(report)) == report
    assert "over 2 networks" in format_report(report)
    both = torch.cat([pictures(10), pictures(10).flip(-1)])
    symmetric = a_set(both, PixelSpace(), labels=torch.arange(10).repeat(2))
    assert inspect_set(symmetric, unequalness=True, networks=1)["unequalness"]["mean"] < 1e-6 * score["mean"]


def test_tiles_are_counted_and_scored_as_networks_see_them():
    tiled = a_set(pictures(), PixelSpace(), factor=2)
    report = inspect_set(tiled, unequalness=True, networks=1)
    assert report["decoded_images"] == 80
    assert report["unequalness"]["mean"] > 0
    assert "2x2 an image: 80 images at use" in format_report(report)


def test_lines_for_people(tmp_path):
    text = format_report(inspect_set(dc_file(tmp_path)))
    lines = dict(line.split(None, 1) for line in text.splitlines() if not line.startswith(("guessed", "warning")))
    assert lines["format"] == "dc"
    assert lines["images"] == "20 of 32x32, 3 channels, float32, 2 a class"
    assert lines["classes"].startswith("10 (airplane, automobile")
    assert lines["space"].startswith("normalized (mean [0.4914, 0.4822, 0.4465]")
    assert lines["alike"] == "no two images are equal, mirrored or nearly equal"
    assert "guessed      data set cifar10" in text
    odd = replace(a_set(), lr=0.02, labels=torch.randn(20, 10, generator=torch.Generator().manual_seed(0)))
    shown = format_report(inspect_set(odd, duplicates=False))
    assert "step size    0.02 (learned)" in shown
    assert "soft (logits) [20, 10]" in shown
    assert "alike" not in shown


def test_a_folder_and_unequal_classes(tmp_path):
    picture_folder(tmp_path, ["cat", "dog"], each=3)
    (tmp_path / "dog" / "0.png").unlink()
    (tmp_path / "emu").mkdir()
    report = inspect_set(tmp_path)
    assert report["file"]["files"] == 5
    text = format_report(report)
    assert "2 to 3 a class" in text
    assert "2 (cat, dog)" in text
    assert "no classes: emu" in text


def test_broken_files_are_named(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"x\.pt is not whole"):
        inspect_set(tmp_path / "x.pt")

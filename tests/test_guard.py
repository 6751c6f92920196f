"""Labels that do not fit the images are noticed, right ones are not; tiles are seen by their seams."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import fyi_bench
from distill.image_set import ImageSet
from distill.spaces import PixelSpace
from distill.zca import fit
from fyi_bench.data import load_dataset
from fyi_bench.data.real import RealDataset
from fyi_bench.data.whitening import zca_space
from fyi_bench.errors import DataError
from fyi_bench.formats import load_set
from fyi_bench.formats.guard import label_agreement
from fyi_bench.formats.tiles import seams, tiles_of


@pytest.fixture(scope="module")
def shapes():
    return load_dataset("shapes10")


def drawn(data, each: int, seed: int = 0) -> ImageSet:
    """Random test images, `each` of every class, which the guard has not seen."""
    generator = torch.Generator().manual_seed(seed)
    rows = [data.test.indices_of(label) for label in range(data.num_classes)]
    return data.test.select(torch.cat([r[torch.randperm(len(r), generator=generator)[:each]] for r in rows]))


def permuted(image_set: ImageSet) -> ImageSet:
    """Every class under the number of the next."""
    return replace(image_set, labels=(image_set.labels + 1) % image_set.num_classes)


@pytest.mark.parametrize("each", [5, 20])
def test_permuted_labels_are_told_from_right_ones(shapes, each):
    right = drawn(shapes, each)
    assert not label_agreement(right, shapes.train).doubtful
    wrong = label_agreement(permuted(right), shapes.train)
    assert wrong.doubtful
    assert f"of {10 * each} images" in wrong.doubt
    assert "chance 10%" in wrong.doubt
    soft = replace(permuted(right), labels=6.0 * F.one_hot(permuted(right).labels, 10))
    assert label_agreement(soft, shapes.train).odds == pytest.approx(wrong.odds)
    normalised = permuted(right).to_space(shapes.space)
    assert label_agreement(normalised, shapes.train).odds == pytest.approx(wrong.odds, rel=0.01)


def test_one_image_a_class_rarely_rings_a_false_alarm(shapes):
    found = [label_agreement(drawn(shapes, 1, seed), shapes.train).doubtful for seed in range(20)]
    assert sum(found) == 0


def test_images_that_look_like_nothing_are_not_judged(shapes):
    """Noise, one colour, mirrored contrast and overdriven images rank by artefacts, whatever their labels are."""
    right = drawn(shapes, 20)
    pixels, generator = right.pixels(), torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.rand(200, 3, 4, 4, generator=generator), size=32, mode="bilinear")
    odd = {
        "noise": torch.randn(pixels.shape, generator=generator),
        "one colour": torch.full_like(pixels, 0.5),
        "blobs of the same colours": smooth * 4 - 1.5,
        "overdriven": (pixels - 0.5) * 30,
    }
    for name, images in odd.items():
        found = label_agreement(ImageSet(images, right.labels, PixelSpace(), 10), shapes.train)
        assert not found.doubtful, name
        assert found.typical < 0.5, name
    assert label_agreement(right, shapes.train).typical > 0.9


def test_whitened_sets_are_judged_by_their_pixels(shapes, tmp_path, monkeypatch):
    monkeypatch.setenv("FYI_BENCH_CACHE", str(tmp_path))
    small = {
        split: F.avg_pool2d(images.pixels(), 4) for split, images in (("train", shapes.train), ("test", shapes.test))
    }
    train = replace(shapes.train, images=(small["train"] * 255).to(torch.uint8))
    test = replace(shapes.test, images=(small["test"] * 255).to(torch.uint8))
    real = RealDataset("shapes8", train, test, shapes.mean, shapes.std)
    white = drawn(real, 10).to_space(fit(zca_space(real), train))
    assert not label_agreement(white, train).doubtful
    assert label_agreement(permuted(white), train).doubtful
    noise = torch.randn(white.images.shape, generator=torch.Generator().manual_seed(0))
    for strength in (0.5, 5):  # as distillation leaves it, and far beyond
        assert not label_agreement(replace(white, images=white.images + strength * noise), train).doubtful


def test_evaluate_stops_at_permuted_labels_and_goes_on_when_told_to(tmp_path, shapes):
    wrong = permuted(drawn(shapes, 10))
    torch.save([wrong.images, wrong.labels], tmp_path / "shapes10_set.pt")
    settings = {"store": tmp_path / "runs", "workers": 1, "threads": 1}
    settings["overrides"] = {"eval_model": "convnet-w8", "epochs": "1", "min_steps": "0", "nets": "1"}
    with pytest.raises(DataError, match=r"labels look permuted.* of 100 images .*\n.*--yes"):
        fyi_bench.evaluate(tmp_path / "shapes10_set.pt", **settings)
    said = []
    fyi_bench.evaluate(tmp_path / "shapes10_set.pt", yes=True, say=said.append, **settings)
    assert any("labels look permuted" in line for line in said)
    order = tmp_path / "order.txt"
    order.write_text("\n".join([*shapes.class_names[-1:], *shapes.class_names[:-1]]))
    assert fyi_bench.evaluate(tmp_path / "shapes10_set.pt", classes=order, **settings)["arms"]


def test_inspect_and_import_tell_it_too(tmp_path, shapes):
    wrong, said = permuted(drawn(shapes, 10)), []
    torch.save([wrong.images, wrong.labels], tmp_path / "shapes10_set.pt")
    report = fyi_bench.inspect(tmp_path / "shapes10_set.pt", duplicates=False)
    assert report["agreement"]["odds"] < -2
    assert [text for text in report["warnings"] if text.startswith("labels look permuted: the own class")]
    fyi_bench.import_set([tmp_path / "shapes10_set.pt"], say=said.append)
    assert [line for line in said if "labels look permuted" in line]
    right = drawn(shapes, 10)
    torch.save([right.images, right.labels], tmp_path / "shapes10_set.pt")
    report = fyi_bench.inspect(tmp_path / "shapes10_set.pt", duplicates=False)
    assert report["agreement"]["odds"] > 0
    assert not [text for text in report["warnings"] if "permuted" in text]


def tiled(images: torch.Tensor, factor: int) -> torch.Tensor:
    """Sets of factor² images shrunk and put side by side."""
    small = F.interpolate(images.float(), size=images.shape[-1] // factor, mode="area").to(torch.uint8)
    rows = small.unflatten(0, (-1, factor, factor)).permute(0, 3, 1, 4, 2, 5)
    return rows.flatten(2, 3).flatten(3, 4).contiguous()


def test_tiles_are_seen(tmp_path, shapes):
    images = drawn(shapes, 16).images
    assert seams(images) == 1
    assert seams(tiled(images, 2)) == 2
    assert seams(tiled(images, 4)) == 4
    torch.save([tiled(images, 2), torch.arange(10).repeat_interleave(4)], tmp_path / "shapes10_data_20000.pt")
    found = load_set(tmp_path / "shapes10_data_20000.pt")
    assert found.image_set.factor == 2
    assert any("seams of 2x2 tiles" in text and "factor=1" in text for text in found.guesses)
    assert load_set(tmp_path / "shapes10_data_20000.pt", factor=1).image_set.factor == 1
    (tmp_path / "exp_factor2_ipc4").mkdir()
    torch.save([images[:40], torch.arange(10).repeat_interleave(4)], tmp_path / "exp_factor2_ipc4" / "shapes10.pt")
    assert load_set(tmp_path / "exp_factor2_ipc4" / "shapes10.pt").image_set.factor == 2
    assert tiles_of(tiled(images, 2), None, ["rded_ipc10"], "")[0] == 1


def test_nothing_is_said_where_pixels_are_not_known(shapes):
    from distill.spaces import WhitenedSpace

    blind = ImageSet(torch.randn(10, 3, 32, 32), torch.arange(10), WhitenedSpace("ZCA", ""), 10)
    assert label_agreement(blind, shapes.train) is None
    assert (
        label_agreement(replace(blind, space=PixelSpace(), images=torch.rand(10, 3, 32, 32)), shapes.train) is not None
    )

"""Labels that do not fit the images are noticed, right ones are not; tiles are seen by their seams."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import fyi_bench
from distill.image_set import ImageSet
from distill.spaces import PixelSpace
from fyi_bench.data import load_dataset
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
    assert f"of {10 * each} images" in wrong.text
    assert "chance 10%" in wrong.text
    soft = replace(permuted(right), labels=6.0 * F.one_hot(permuted(right).labels, 10))
    assert label_agreement(soft, shapes.train).odds == pytest.approx(wrong.odds)
    normalised = permuted(right).to_space(shapes.space)
    assert label_agreement(normalised, shapes.train).odds == pytest.approx(wrong.odds, rel=0.01)


def test_one_image_a_class_rarely_rings_a_false_alarm(shapes):
    found = [label_agreement(drawn(shapes, 1, seed), shapes.train).doubtful for seed in range(20)]
    assert sum(found) == 0


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

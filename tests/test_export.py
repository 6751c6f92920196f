"""What is exported comes back: exactly from tensors, within half a level from 8-bit pictures."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distill.image_set import ImageSet
from distill.spaces import NormalizedSpace, PixelSpace, WhitenedSpace
from fyi_bench.errors import DataError, UnknownNameError, UsageError
from fyi_bench.formats import load_set
from fyi_bench.formats.base import FORMATS, formats_that
from fyi_bench.formats.export import export_set, to_torch_dataset
from importer_files import CIFAR10, CIFAR100, labels, normalised, pictures, whitened

HALF_LEVEL = 0.5 / 255 + 1e-6
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def a_set(images: torch.Tensor | None = None, space=CIFAR10, **facts) -> ImageSet:
    images = normalised() if images is None else images
    facts = {"labels": labels(len(images)), "class_names": NAMES, "provenance": {"dataset": "cifar10"}} | facts
    return ImageSet(images=images, space=space, num_classes=10, **facts)


def place(folder: Path, name: str) -> Path:
    return folder / (name + FORMATS.get(name).suffix)


def back(folder: Path, image_set: ImageSet, name: str, space=None, **options) -> ImageSet:
    """The set after it was written and read again."""
    export_set(image_set, place(folder, name), name, space)
    options = {"dataset": "cifar10"} | options if name != "fyi-bench" else {}
    return load_set(place(folder, name), format=name, **options).image_set


def test_every_exporter_has_an_importer_and_a_title():
    writers = formats_that("write")
    assert set(writers) == {"fyi-bench", "hub", "dc", "idc", "mtt", "dd-ranking", "image-folder", "parquet"}
    assert all(writers[name].__doc__ for name in writers)
    assert set(writers) <= set(formats_that("read"))


@pytest.mark.parametrize("name", ["fyi-bench", "dc", "mtt", "dd-ranking"])
def test_normalised_sets_come_back_exactly_from_tensors(tmp_path, name):
    found = back(tmp_path, a_set(), name)
    assert torch.equal(found.images, normalised())
    assert torch.equal(found.labels, labels())
    assert found.space == CIFAR10
    assert found.class_names == NAMES


def test_pixel_sets_come_back_exactly_from_idc(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiled = a_set(pictures() * 1.02 - 0.01, PixelSpace(), factor=2, decode_type="multi")
    export_set(tiled, tmp_path / "data.pt", "idc")
    found = load_set(tmp_path, dataset="cifar10")
    assert found.format == "idc"
    assert torch.equal(found.image_set.images, tiled.images)
    assert (found.image_set.factor, found.image_set.decode_type) == (2, "multi")


@pytest.mark.parametrize("name", ["image-folder", "parquet"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_come_back_within_half_a_level(tmp_path, name, channels):
    inside = a_set(pictures(20, channels), PixelSpace(), provenance={})
    exported = export_set(inside, place(tmp_path, name), name)
    assert any("rounded to 8 bits" in note for note in exported.notes)
    found = load_set(place(tmp_path, name)).image_set
    assert float((found.pixels() - inside.images).abs().max()) <= HALF_LEVEL
    assert torch.equal(found.labels, inside.labels)
    assert found.class_names == NAMES
    levels = (pictures(20, channels) * 255).to(torch.uint8)
    again = tmp_path / "again"
    exported = export_set(replace(inside, images=levels), place(again, name), name)
    assert exported.notes == []
    assert torch.equal(load_set(place(again, name)).image_set.images, levels)


def test_clipped_pixels_are_told(tmp_path):
    notes = export_set(a_set(normalised() * 2), tmp_path / "x.parquet", "parquet").notes
    assert any("lie outside [0, 1] and were clipped" in note for note in notes)
    found = load_set(tmp_path / "x.parquet").image_set
    expected = CIFAR10.decode(normalised() * 2).clamp(0, 1)
    assert float((found.pixels() - expected).abs().max()) <= HALF_LEVEL


@pytest.mark.parametrize("name", ["dc", "mtt", "dd-ranking"])
def test_pixels_are_normalised_for_readers_that_expect_it(tmp_path, name):
    path = place(tmp_path, name)
    exported = export_set(a_set(pictures(), PixelSpace()), path, name)
    assert any("converted to the space 'normalized'" in note for note in exported.notes)
    found = load_set(path, dataset="cifar10").image_set
    assert torch.equal(found.images, CIFAR10.encode(pictures()))
    assert float((found.pixels() - pictures()).abs().max()) < 1e-6


def test_cifar100_gets_the_constants_of_the_readers_code(tmp_path):
    images = CIFAR100.encode(pictures(100))
    real = ImageSet(images, torch.arange(100), CIFAR100, 100)
    for name, constants in (("dc", CIFAR100), ("mtt", CIFAR10)):
        path = place(tmp_path, name)
        export_set(real, path, name)
        found = load_set(path, dataset="cifar100").image_set
        assert found.space == constants
        assert float((found.pixels() - pictures(100)).abs().max()) < 1e-6
    export_set(real, tmp_path / "as it is", "mtt", space=CIFAR100)
    assert torch.equal(torch.load(tmp_path / "as it is" / "images_best.pt", weights_only=True), images)


def test_whitened_sets_keep_their_space_where_readers_know_it(tmp_path):
    odd = a_set(whitened(), WhitenedSpace("ZCA", "cifar10"))
    exported = export_set(odd, tmp_path / "mtt", "mtt")
    assert any("ZCA switch" in note for note in exported.notes)
    assert torch.equal(load_set(tmp_path / "mtt", space="zca").image_set.images, whitened())
    assert back(tmp_path, odd, "fyi-bench").digest == odd.digest
    for name in ("dc", "parquet", "image-folder", "idc"):
        with pytest.raises(DataError, match="matrix that is not known here"):
            export_set(odd, place(tmp_path, name), name)


def test_unknown_constants_are_asked_for(tmp_path):
    mine = ImageSet(pictures(4, size=20), torch.arange(4), PixelSpace(), 4)
    with pytest.raises(UsageError, match=r"not known with which constants\.\nGive the space"):
        export_set(mine, tmp_path / "x.pt", "dc")
    export_set(mine, tmp_path / "x.pt", "dc", space=NormalizedSpace((0.5,) * 3, (0.25,) * 3))
    found = load_set(tmp_path / "x.pt", mean=(0.5,) * 3, std=(0.25,) * 3).image_set
    assert torch.allclose(found.pixels(), mine.images, atol=1e-6)
    own = replace(mine, space=NormalizedSpace((0.4,) * 3, (0.3,) * 3))
    export_set(own, tmp_path / "y.pt", "dc")
    assert torch.equal(torch.load(tmp_path / "y.pt", weights_only=True)["data"][0][0], own.images)


def test_soft_labels_and_step_size(tmp_path):
    logits = torch.randn(20, 10, generator=torch.Generator().manual_seed(0))
    soft = a_set(labels=logits, lr=0.021)
    kept = back(tmp_path, soft, "mtt")
    assert torch.equal(kept.labels, logits.argmax(1)) is False
    found = load_set(tmp_path / "mtt", dataset="cifar10")
    assert found.format == "datm"
    assert torch.equal(found.image_set.labels, logits)
    assert found.image_set.lr == pytest.approx(0.021)
    exported = export_set(soft, tmp_path / "x.pt", "dc")
    assert any("largest entry" in note for note in exported.notes)
    assert any("step size" in note for note in exported.notes)
    assert torch.equal(load_set(tmp_path / "x.pt", dataset="cifar10").image_set.labels, logits.argmax(1))


def test_tiles_are_enlarged_where_the_format_knows_none(tmp_path):
    from distill.decode import decoded

    tiled = a_set(pictures(), PixelSpace(), factor=2)
    exported = export_set(tiled, tmp_path / "x.parquet", "parquet")
    assert any("enlarged to 80 images" in note for note in exported.notes)
    found = load_set(tmp_path / "x.parquet").image_set
    assert float((found.pixels() - decoded(tiled).images.clamp(0, 1)).abs().max()) <= HALF_LEVEL
    assert back(tmp_path, tiled, "fyi-bench").digest == tiled.digest


@pytest.mark.parametrize(
    "names",
    [
        ("b", "a", "c"),
        ("T-shirt/top", "a/../b", "c:d"),
        ("same?", "same*", "x"),
        (),
        ("10", "2", "1"),
        (".", "..", "/"),
    ],
)
def test_class_order_survives_folders(tmp_path, names):
    levels = (pictures(6, size=8) * 255).to(torch.uint8)
    for i, present in enumerate(itertools.chain([[0, 1, 2]], [[0, 2]])):
        chosen = ImageSet(levels, labels(6, 3), PixelSpace(), 3, names).of_classes(present)
        export_set(chosen, tmp_path / f"{i}", "image-folder")
        found = load_set(tmp_path / f"{i}").image_set
        assert torch.equal(found.images, chosen.images)
        assert torch.equal(found.labels, chosen.labels)
        assert sorted(p.name for p in tmp_path.iterdir()) == [str(k) for k in range(i + 1)]


def test_parquet_is_what_the_hub_writes(tmp_path):
    import json

    import pyarrow.parquet as parquet

    export_set(a_set(pictures(), PixelSpace()), tmp_path / "x.parquet", "parquet")
    schema = parquet.read_schema(tmp_path / "x.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"names": list(NAMES), "_type": "ClassLabel"}
    assert [field.name for field in schema.field("image").type] == ["bytes", "path"]


def test_equal_sets_give_equal_files(tmp_path):
    for name in ("dc", "mtt", "parquet"):
        written = [export_set(a_set(), place(tmp_path / f"run{k}", name), name).paths for k in range(2)]
        for one, two in zip(*written, strict=True):
            assert one.read_bytes() == two.read_bytes()


def test_paths_that_do_not_fit(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "full" / "cat").mkdir(parents=True)
    with pytest.raises(UsageError, match="is a file"):
        export_set(a_set(), tmp_path / "file", "mtt")
    with pytest.raises(UsageError, match="is a folder"):
        export_set(a_set(), tmp_path, "dc")
    with pytest.raises(UsageError, match="is not empty"):
        export_set(a_set(), tmp_path / "full", "image-folder")
    with pytest.raises(UnknownNameError, match="Did you mean 'parquet'"):
        export_set(a_set(), tmp_path / "x", "parkett")
    with pytest.raises(DataError, match="holds no images"):
        export_set(a_set().select(torch.tensor([], dtype=torch.int64)), tmp_path / "x.pt", "dc")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


def test_torch_dataset_is_what_avalanche_takes():
    data = to_torch_dataset(a_set())
    assert len(data) == 20
    image, label = data[3]
    assert torch.equal(image, normalised()[3])
    assert (label, type(label), type(data.targets[0])) == (1, int, int)
    levels = a_set((pictures() * 255).to(torch.uint8), PixelSpace())
    assert torch.allclose(to_torch_dataset(levels, CIFAR10)[0][0], CIFAR10.encode(levels.pixels())[0])
    assert len(to_torch_dataset(a_set(pictures(), PixelSpace(), factor=2))) == 80
    batch = next(iter(torch.utils.data.DataLoader(data, batch_size=4)))
    assert [tuple(t.shape) for t in batch] == [(4, 3, 32, 32), (4,)]

"""The ZCA space: its matrix against a plain twin, the way back, and what becomes of it on other machines."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny
from distill import zca
from distill.fyi import set_unequalness
from distill.image_set import ImageSet
from distill.spaces import PixelSpace, space_from
from distill.zca import ZCASpace, fit, moments, whitening_matrix
from downstream.protocol import protocol
from downstream.training import Conditions, accuracy, new_network, train
from fyi_bench import rng
from fyi_bench.data.real import RealDataset
from fyi_bench.data.whitening import ready, zca_space
from fyi_bench.errors import DataError, UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of its own, and no memory of other tests."""
    monkeypatch.setenv("FYI_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(zca, "_known", {})
    return tmp_path / "cache"


def forget(monkeypatch) -> None:
    """What a new process knows: only the files."""
    monkeypatch.setattr(zca, "_known", {})


def pictures(count: int = 60, shape: tuple[int, ...] = (3, 4, 4)) -> torch.Tensor:
    noise = torch.randint(0, 120, (count, *shape), generator=rng.stream(0, "pictures"))
    return (noise + torch.linspace(0, 100, count).long().view(-1, 1, 1, 1)).to(torch.uint8)


def dataset(per_class: int = 12) -> RealDataset:
    train = tiny.real_set(per_class=per_class)
    return RealDataset("tiny", train, tiny.real_set(per_class=4), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def plain_whitening(images: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Textbook: centred rows, singular vectors of the covariance with N - 1."""
    x = images.reshape(len(images), -1) / 255.0
    centred = x - x.mean(0)
    u, s, _ = np.linalg.svd(centred.T @ centred / (len(x) - 1))
    return x.mean(0), u @ np.diag(1 / np.sqrt(s + eps)) @ u.T


@pytest.mark.parametrize("count", [20, 60])
def test_matrix_is_that_of_the_plain_twin(count):
    images = pictures(count)
    mean, matrix = whitening_matrix(images, eps=0.1)
    expected_mean, expected = plain_whitening(images.numpy().astype(np.float64), 0.1)
    assert np.abs(mean.numpy() - expected_mean).max() < 1e-14
    assert np.abs(matrix.numpy() - expected).max() < 1e-11


def test_covariance_is_exact_whatever_the_order_of_images():
    images = pictures(5000, (1, 3, 3))
    shuffled = images[torch.randperm(len(images), generator=rng.stream(1))]
    for ours, theirs in zip(moments(images), moments(shuffled), strict=True):
        assert torch.equal(ours, theirs)
    expected = np.cov(images.flatten(1).double().numpy().T / 255)
    assert np.abs(moments(images)[1].numpy() - expected).max() < 1e-15


def test_float_pixels_are_taken_as_they_are():
    images = pictures()
    for ours, theirs in zip(moments(images), moments(images.double() / 255), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-14)


def test_way_back_is_exact():
    data = dataset()
    space = fit(zca_space(data), data.train)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        x = data.train.batch(slice(0, 9), PixelSpace(), dtype)
        assert space.encode(x).dtype == dtype
        assert (space.decode(space.encode(x)) - x).abs().max() < tolerance
    assert torch.equal(space.encode(x).unflatten(0, (3, 3)), space.encode(x.unflatten(0, (3, 3))))


def test_whitened_images_have_shrunken_unit_covariance():
    images = pictures(200, (1, 3, 3))
    mean, matrix = whitening_matrix(images)
    encoded = zca.Whitening(mean, matrix).apply(images.double() / 255)
    before = torch.linalg.eigvalsh(moments(images)[1])
    after = torch.linalg.eigvalsh(torch.cov(encoded.flatten(1).T))
    assert torch.allclose(after, (before / (before + 0.1)).sort().values, atol=1e-12)


def test_one_fit_serves_later_processes_to_the_bit(monkeypatch):
    data = dataset()
    space = fit(zca_space(data), data.train)
    x = data.train.batch(slice(0, 4), PixelSpace())
    first = space.encode(x)
    forget(monkeypatch)
    again = space_from(space.describe())
    assert again == space
    assert hash(again) == hash(space)
    assert torch.equal(again.encode(x), first)


def test_without_its_matrix_a_space_says_how_to_get_it(monkeypatch):
    space = zca_space(dataset())
    x = torch.zeros(1, 3, 8, 8)
    for way in (space.encode, space.decode):
        with pytest.raises(DataError, match=r"ZCA matrix of tiny.*\n.*python -m fyi_bench.data.whitening tiny"):
            way(x)


def test_images_of_another_size_are_refused():
    data = dataset()
    space = fit(zca_space(data), data.train)
    with pytest.raises(DataError, match=r"\[3, 4, 4\].*\[3, 8, 8\]"):
        space.encode(torch.zeros(1, 3, 4, 4))


def test_key_is_the_data_and_not_its_name():
    space = zca_space(dataset())
    assert ZCASpace("renamed", space.data, space.shape).digest == space.digest
    assert zca_space(dataset(per_class=11)).digest != space.digest
    assert ZCASpace("tiny", space.data, space.shape, eps=0.2).digest != space.digest


def test_damaged_file_is_told_and_fitted_again(monkeypatch, caplog):
    data = dataset()
    space = fit(zca_space(data), data.train)
    expected = space.whitening().matrix
    content = bytearray(space.path.read_bytes())
    content[-5] ^= 1
    space.path.write_bytes(content)
    forget(monkeypatch)
    with pytest.raises(DataError, match="damaged"):
        space.whitening()
    assert torch.equal(ready(space, lambda name: data).whitening().matrix, expected)
    assert "fitted again" in caplog.text


def test_unwritable_cache_costs_a_warning_only(cache, caplog):
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file where the folder should be")
    data = dataset()
    space = fit(zca_space(data), data.train)
    assert space.encode(torch.zeros(1, 3, 8, 8)).shape == (1, 3, 8, 8)
    assert "not kept" in caplog.text


def test_too_large_images_are_refused():
    big = ImageSet(torch.zeros(2, 3, 128, 128, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), PixelSpace(), 1)
    with pytest.raises(UsageError, match="zca=false"):
        fit(ZCASpace("big", "0", big.shape), big)


def test_only_pixels_can_be_fitted():
    normal = tiny.real_set().to_space(tiny.SPACE)
    with pytest.raises(DataError, match="fitted to pixels"):
        fit(ZCASpace("tiny", "0", normal.shape), normal)


def test_ready_fits_what_is_missing_and_refuses_other_data():
    data, asked = dataset(), []

    def load(name: str) -> RealDataset:
        asked.append(name)
        return data

    assert ready(tiny.SPACE, load) is tiny.SPACE
    space = ready(zca_space(data), load)
    assert space.fitted
    ready(space, load)
    assert asked == ["tiny"]
    with pytest.raises(DataError, match="not the ones"):
        ready(zca_space(dataset(per_class=11)), load)


def test_set_in_zca_space_is_stored_shown_scored_and_trained_on(tmp_path, monkeypatch):
    data = dataset()
    space = ready(zca_space(data), lambda name: data)
    path = data.train.to_space(space).save(tmp_path / "set.safetensors")
    assert (tmp_path / "preview.png").stat().st_size > 0
    forget(monkeypatch)
    loaded = ImageSet.load(path)
    assert loaded.space == space
    assert (loaded.pixels() - data.train.pixels()).abs().max() < 1e-5
    assert set_unequalness(loaded, 0, networks=1, width=8)["mean"] > 0
    settings = protocol("quick", "accuracy").with_overrides({"epochs": "60", "lr": "0.05", "eval_augment": "none"})
    trained = train(new_network(tiny.MODEL, loaded, 0), loaded, settings, 0)
    # real images are pixels: the set's own space turns them into what the network was trained on
    assert accuracy(trained.network, data.train, Conditions(space=loaded.space)) > 0.9
    logits = [trained.network(x.batch(slice(None), space)) for x in (loaded, data.train)]
    assert torch.allclose(*logits, atol=1e-3)

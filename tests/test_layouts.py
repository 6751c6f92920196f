"""What every layout must pass: read as written or refused in two lines, no code run, no label changed in silence."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from layouts import SAMPLES, SHUFFLED, written

from distill.image_set import ImageSet
from fyi_bench.errors import DataError, FyiBenchError
from fyi_bench.formats import load_set
from fyi_bench.formats.base import formats_that
from fyi_bench.formats.table import LAYOUTS
from importer_files import labels, pictures, trap_bytes

FORMATS = sorted(SAMPLES)
OWN = {"hub", "fyi-bench"}


def read(name: str, place: Path) -> ImageSet:
    """By the layout of its name, of CIFAR-10; our own carry their facts."""
    return load_set(place, format=name, **({} if name in OWN else {"dataset": "cifar10"})).image_set


def files_of(place: Path) -> list[Path]:
    """The files of a sample."""
    folder = place if place.is_dir() else place.parent
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read_or_refused(name: str, place: Path) -> ImageSet | None:
    """The set, or None where the files are refused in two lines."""
    try:
        return read(name, place)
    except FyiBenchError as error:
        lines = str(error).splitlines()
    assert 1 <= len(lines) <= 2
    return None


def refused(name: str, place: Path) -> str:
    """The message; it has two lines at most, and names the place."""
    with pytest.raises(FyiBenchError) as caught:
        read(name, place)
    text = str(caught.value)
    assert len(text.splitlines()) <= 2, text
    return text


def test_every_layout_has_a_sample_and_a_row():
    built_in = {name for name, entry in formats_that("read").items() if type(entry).__module__.startswith("fyi_bench.")}
    assert set(SAMPLES) == built_in == {name for name, facts in LAYOUTS.items() if not facts.layout}


@pytest.mark.parametrize("name", FORMATS)
def test_a_sample_is_read_as_it_was_written(tmp_path, name):
    place, sample = written(name, tmp_path / "a"), SAMPLES[name]
    found = read(name, place)
    wanted = labels() if sample.ordered else SHUFFLED
    order = wanted.argsort(stable=True) if name == "image-folder" else torch.arange(len(wanted))  # class by class
    assert found.hard_labels.tolist() == wanted[order].tolist()
    assert (found.labels.ndim == 1) == sample.exact
    assert found.class_names[0] == "airplane"
    if sample.close is not None:
        away = (found.decoded().pixels() - pictures()[order]).abs().max()
        assert float(away) <= sample.close + 1e-6
    # guessed without a word, it is the same set
    if name not in ("idm", "dream"):
        guessed = load_set(place)
        assert guessed.format == name
        assert guessed.image_set.digest == found.digest
    # and packed
    with zipfile.ZipFile(tmp_path / "cifar10.zip", "w") as archive:
        root = place if place.is_dir() else place.parent
        for path in files_of(place):
            archive.write(path, f"cifar10/{path.relative_to(root)}")
    assert read(name, tmp_path / "cifar10.zip").digest == found.digest


@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_file_is_named_or_changes_nothing(tmp_path, name):
    place = written(name, tmp_path / "a")
    whole = read(name, place)
    for path in files_of(place):
        content = path.read_bytes()
        for share in (0, 1, 7, 15):
            path.write_bytes(content[: len(content) * share // 16])
            unread = path.suffix in (".md", ".json", ".txt")
            found = read_or_refused(name, place)
            if found is not None:
                assert found.digest == whole.digest, (path.name, share)
                assert unread or path.suffix == ".parquet", (path.name, share)  # of `hub`, whose exact set is beside
        path.write_bytes(content)


@pytest.mark.parametrize("name", FORMATS)
def test_no_file_of_a_layout_runs_code(tmp_path, name):
    place, sentinel = written(name, tmp_path / "a"), tmp_path / "ran"
    for path in files_of(place):
        content = path.read_bytes()
        for protocol in (0, 2, 4):
            path.write_bytes(trap_bytes(sentinel, protocol))
            read_or_refused(name, place)
            assert not sentinel.exists(), path.name
        path.write_bytes(content)


@pytest.mark.parametrize("name", [name for name in FORMATS if SAMPLES[name].pair])
def test_images_and_labels_that_do_not_go_together_are_refused(tmp_path, name):
    wanted = labels() if SAMPLES[name].ordered else SHUFFLED
    if name not in ("haba", "dm-continual"):  # one has no labels, the other is cut into steps by them
        refused(name, written(name, tmp_path / "few", pictures(19), wanted))
        refused(name, written(name, tmp_path / "many", pictures(21), wanted))
    refused(name, written(name, tmp_path / "wide", pictures()[:, :, :, :31], wanted))
    broken = pictures().clone()
    broken[3, 0, 0, 0] = torch.nan
    refused(name, written(name, tmp_path / "nan", broken, wanted))


@pytest.mark.parametrize("name", FORMATS)
def test_classes_of_unequal_size_keep_their_labels(tmp_path, name):
    if name in ("haba", "speed"):
        pytest.skip("stores its classes in equal number")
    wanted = torch.tensor([0, 0, 0, 7, 3, 3, 9, 9, 9, 9])
    if not SAMPLES[name].ordered:
        wanted = wanted[torch.randperm(10, generator=torch.Generator().manual_seed(2))]
    found = read(name, written(name, tmp_path / "a", pictures(10), wanted))
    got = found.decoded()
    order = wanted.argsort(stable=True) if name == "image-folder" else torch.arange(10)
    if name == "dm-continual":
        order = (wanted >= 5).long().argsort(stable=True)
    assert got.hard_labels.tolist() == wanted[order].tolist()
    if SAMPLES[name].close is not None:
        assert float((got.pixels() - pictures(10)[order]).abs().max()) <= SAMPLES[name].close + 1e-6


@pytest.mark.parametrize("name", FORMATS)
def test_a_folder_that_is_not_there_or_empty_is_refused(tmp_path, name):
    place = written(name, tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    assert str(place) in refused(name, place)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        read(name, tmp_path / "empty")

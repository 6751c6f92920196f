"""A format and a data set from outside work in every command; broken ones beside them harm none."""

from __future__ import annotations

import json

import pytest
import torch
from plugins import Plugged

from commands import arguments, run
from fyi_bench.data import DATASETS, load_dataset
from fyi_bench.formats import FORMATS, load_set

FORMAT = '''
import numpy as np
from fyi_bench.formats import Format, Raw


class Bag(Format):
    """Bags: one .bag file, pixels and labels"""

    suffix, spaces = ".bag", ("pixel",)

    def looks(self, files):
        return "a .bag file" if files.name.endswith(".bag") else ""

    def read(self, files, options):
        rows = np.loadtxt(files.used(files.path))
        return Raw(rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0], space="pixel", space_reason="bags are pixels")

    def write(self, image_set, path):
        np.savetxt(path, np.concatenate([image_set.labels[:, None], image_set.images.flatten(1)], axis=1))
        return [path]
'''

DATASET = """
from dataclasses import dataclass

import torch

from fyi_bench.data import DataFiles, DatasetEntry, Decoded


@dataclass(frozen=True)
class Dots(DataFiles):
    layout = "dots"

    def lie_in(self, folder):
        return (folder / "dots.txt").is_file()

    def files(self, split):
        return [self.folder / "dots.txt"]

    def read(self, split):
        grey = int(self.files(split)[0].read_text())
        images = torch.full((4, 1, 8, 8), grey, dtype=torch.uint8)
        images[:, 0, 0, 0] = torch.arange(4)
        return Decoded(images, torch.tensor([0, 1, 0, 1]), 2, ("a", "b"))


entry = DatasetEntry("dots", (Dots(("dots",)),), num_classes=2, size=8, channels=1)
"""


@pytest.fixture
def plugged(tmp_path, monkeypatch):
    monkeypatch.setenv("FYI_BENCH_CACHE", str(tmp_path / "cache"))
    with monkeypatch.context() as patch:
        found = Plugged(tmp_path, patch, FORMATS, DATASETS)
        broken = {"fyi_bench.formats": {"torn": "nowhere:Torn"}, "fyi_bench.datasets": {"torn": "nowhere:torn"}}
        found.install("broken-dist", broken)
        yield found
    found.look()


def test_a_format_from_outside_is_inspected_imported_exported_and_evaluated(plugged, tmp_path):
    plugged.install("bags", {"fyi_bench.formats": {"bag": "bags:Bag"}}, bags=FORMAT)
    shapes = load_dataset("shapes10")
    rows = [int(shapes.train.indices_of(c)[0]) for c in range(10)]
    ours = shapes.train.select(torch.tensor(rows)).save(tmp_path / "shapes10.safetensors")
    run("export", str(ours), "--format", "bag", "--out", str(tmp_path / "shapes10.bag"))
    told = run("inspect", str(tmp_path / "shapes10.bag")).stdout
    assert "format bag: a .bag file" in told
    assert "10 of 32x32, 3 channels" in told
    run("import", str(tmp_path / "shapes10.bag"), "--format", "bag", "--out", str(tmp_path / "back.safetensors"))
    back = load_set(tmp_path / "back.safetensors").image_set
    assert torch.allclose(back.pixels(), shapes.train.select(torch.tensor(rows)).pixels(), atol=1e-6)
    record = tmp_path / "record.json"
    words = ("evaluate", str(tmp_path / "shapes10.bag"), "--json", str(record))
    run(*arguments(*words, store=tmp_path / "store", model=None, iterations=None, batch_real=None))
    assert json.loads(record.read_text())["arms"][0]["architectures"][0]["values"]


def test_a_broken_format_is_named_when_it_is_asked_for(plugged, tmp_path):
    (tmp_path / "x.bag").write_text("1 2 3")
    assert "no kind that is known" in run("inspect", str(tmp_path / "x.bag"), check=5).stderr
    asked = run("inspect", str(tmp_path / "x.bag"), "--format", "torn", check=5).stderr
    assert "The format 'torn' of the distribution broken-dist 1.0 cannot be loaded" in asked


def test_a_data_set_from_outside_is_found_listed_verified_and_cached(plugged, tmp_path):
    plugged.install("dots", {"fyi_bench.datasets": {"dots": "dots_data:entry"}}, dots_data=DATASET)
    (tmp_path / "root" / "dots").mkdir(parents=True)
    (tmp_path / "root" / "dots" / "dots.txt").write_text("7")
    root = ("--data-root", str(tmp_path / "root"))
    assert "dots" in run("ls", "datasets").stdout
    lines = run("data", "list", *root).stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("dots"))
    assert str(tmp_path / "root" / "dots") in "".join(lines[at : at + 2])  # beside it, or below it on a narrow page
    assert "4 images, 2 a class" in run("data", "verify", "dots", *root).stdout
    first = load_dataset("dots", tmp_path / "root")
    assert (first.num_classes, first.class_names, first.size) == (2, ("a", "b"), 8)
    assert load_dataset("dots", tmp_path / "root").sums["train"]  # from the cache this time
    (tmp_path / "root" / "dots" / "dots.txt").write_text("9")
    assert load_dataset("dots", tmp_path / "root").train_digest != first.train_digest


def test_constants_that_nobody_published_are_measured_and_harm_no_other_guess(plugged, tmp_path):
    twin = DATASET + 'twin = DatasetEntry("twin", num_classes=10, size=32)\n'
    plugged.install(
        "dots", {"fyi_bench.datasets": {"dots": "dots_data:entry", "twin": "dots_data:twin"}}, dots_data=twin
    )
    (tmp_path / "root" / "dots").mkdir(parents=True)
    (tmp_path / "root" / "dots" / "dots.txt").write_text("7")
    rows = [torch.linspace(-4, 3, 2 * 64).reshape(2, 1, 8, 8), torch.tensor([0, 1])]
    torch.save({"data": [rows]}, tmp_path / "x.pt")
    found = load_set(tmp_path / "x.pt", dataset="dots", space="normalized", data_root=tmp_path / "root")
    assert found.image_set.space == load_dataset("dots", tmp_path / "root").space
    assert "channel constants: of the train images of dots" in found.guesses
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(10, 3, 32, 32, generator=generator).cumsum(-1), torch.arange(10)]
    torch.save({"data": [rows]}, tmp_path / "y.pt")
    found = load_set(tmp_path / "y.pt", space="normalized")
    assert any("the constants are cifar10's, but it may be" in w and "twin" in w for w in found.warnings)

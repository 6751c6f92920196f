"""Every layout that is written is read back; one set in many layouts is one set; the table of layouts is true."""

from __future__ import annotations

import ast
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_formats_hub import rows, save_to_disk

import fyi_bench
from distill.image_set import ImageSet
from downstream.protocol import protocol_names
from fyi_bench.cli import main
from fyi_bench.data import load_dataset
from fyi_bench.formats import export_set, load_set
from fyi_bench.formats.base import FORMATS, formats_that
from fyi_bench.formats.table import LAYOUTS, with_table

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def chosen() -> ImageSet:
    """Two test images of each class of shapes10, as 8-bit pixels."""
    test = load_dataset("shapes10").test
    picked = test.select(torch.cat([test.indices_of(label)[:2] for label in range(10)]))
    return replace(picked, provenance={"dataset": "shapes10", "method": "random"})


def variants(chosen: ImageSet) -> dict[str, ImageSet]:
    """Sets that differ in what a layout must be able to say, or say that it cannot."""
    hot = F.one_hot(chosen.labels, 10).float()
    whole = load_dataset("shapes10")
    return {
        "pixels": chosen,
        "normalised": chosen.to_space(whole.space),
        "soft": replace(chosen, labels=5 * hot + torch.linspace(0, 1, 10)),
        "step size": replace(chosen, lr=0.02),
        "unequal": chosen.select(torch.arange(3, 20)),
    }


@pytest.mark.parametrize("name", sorted(formats_that("write")))
@pytest.mark.parametrize("kind", ["pixels", "normalised", "soft", "step size", "unequal"])
def test_what_is_written_is_read_back(tmp_path, chosen, name, kind):
    original = variants(chosen)[kind]
    place = tmp_path / "shapes10" / f"set{FORMATS.get(name).suffix}"
    place.parent.mkdir()
    exported = export_set(original, place, name)
    found = load_set(place, format=name, **({} if name == "fyi-bench" else {"dataset": "shapes10"})).image_set
    assert float((found.pixels() - original.pixels()).abs().max()) <= 0.5 / 255 + 1e-5
    assert torch.equal(found.hard_labels, original.hard_labels)
    assert found.class_names == original.class_names
    told = " ".join(exported.notes)
    if kind == "soft":
        kept = found.labels.ndim == 2
        assert kept == FORMATS.get(name).soft or (not kept and "soft labels were replaced" in told) or kept
        if kept:
            assert torch.allclose(found.labels.softmax(1), original.labels.softmax(1), atol=1e-6)
    if kind == "step size":
        assert found.lr == pytest.approx(0.02) if found.lr else "learned step size is not in the files" in told
    if kind == "pixels" and found.images.dtype == original.images.dtype:
        assert found.digest == original.digest


def in_many_layouts(chosen: ImageSet, folder: Path) -> dict[str, Path]:
    """The set as nine users would have it."""
    folder.mkdir()
    places = {
        "own": folder / "shapes10.safetensors",
        "parquet": folder / "shapes10.parquet",
        "image-folder": folder / "shapes10",
        "arrow": folder / "shapes10_arrow",
        "zip": folder / "shapes10.zip",
        "list": folder / "shapes10.pt",
        "npz": folder / "shapes10.npz",
        "dictionary": folder / "shapes10_dictionary.pt",
        "channels last": folder / "shapes10_nhwc.npz",
    }
    export_set(chosen, places["own"], "fyi-bench")
    export_set(chosen, places["parquet"], "parquet")
    export_set(chosen, places["image-folder"], "image-folder")
    floats = chosen.images.float() / 255
    save_to_disk(places["arrow"], rows(chosen.labels.tolist(), names=list(chosen.class_names), images=floats))
    with zipfile.ZipFile(places["zip"], "w") as archive:
        for path in sorted(places["image-folder"].rglob("*.png")):
            archive.write(path, path.relative_to(folder))
    torch.save([chosen.images, chosen.labels], places["list"])
    np.savez(places["npz"], images=chosen.images.numpy(), labels=chosen.labels.numpy())
    torch.save({"x_syn": chosen.images, "y_syn": chosen.labels}, places["dictionary"])
    np.savez(places["channels last"], x=chosen.images.permute(0, 2, 3, 1).numpy(), y=chosen.labels.numpy().astype("i4"))
    return places


def test_one_set_in_many_layouts_has_one_digest_and_accuracy(tmp_path, chosen):
    places = in_many_layouts(chosen, tmp_path / "sets")
    digests = {name: load_set(path, dataset="shapes10").image_set.digest for name, path in places.items()}
    assert digests == dict.fromkeys(places, chosen.digest)
    settings = {"workers": 1, "threads": 1, "dataset": "shapes10", "yes": True}
    settings["overrides"] = {"eval_model": "convnet-w8", "epochs": "1", "min_steps": "0", "nets": "1"}
    values = {}
    for name in ("own", "parquet", "image-folder", "arrow", "zip", "npz"):
        record = fyi_bench.evaluate(places[name], store=tmp_path / "runs", **settings)  # one run, as one digest says
        values[name] = record["arms"][0]["architectures"][0]["values"]
    assert len({str(value) for value in values.values()}) == 1
    assert values["own"][0] > 0


COMMANDS = {
    "evaluate": ("evaluate", "SET"),
    "robust": ("evaluate", "SET", "--robust"),
    "cross-arch": ("cross-arch", "SET", "--arch", "convnet"),
    "nas": ("nas", "--set-file", "SET", "--space", "6"),
    "card": ("card", "SET"),
    "continual": ("continual", "--set-file", "SET", "--steps", "5"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_was_guessed_is_said_by_every_command_that_uses_a_set(tmp_path, chosen, capsys, name):
    torch.save([chosen.images, chosen.labels], tmp_path / "shapes10.pt")
    words = [str(tmp_path / "shapes10.pt") if word == "SET" else word for word in COMMANDS[name]]
    assert main([*words, "--dry-run", "--workers", "1", "--store", str(tmp_path / "store")]) == 0
    said = capsys.readouterr().out
    assert "guessed  format tensors" in said
    assert "guessed  data set shapes10" in said


def test_the_table_of_layouts_is_true():
    page = (ROOT / "docs" / "formats.md").read_text()
    assert with_table(page) == page, "run python -m fyi_bench.formats.table"
    built_in = {name for name, entry in FORMATS.usable()[0].items() if entry().__module__.startswith("fyi_bench.")}
    assert built_in == {name for name, facts in LAYOUTS.items() if not facts.layout}
    for name, facts in LAYOUTS.items():
        file, _, function = facts.test.partition("::")
        there = [node.name for node in ast.walk(ast.parse((ROOT / "tests" / file).read_text()))
                 if isinstance(node, ast.FunctionDef)]  # fmt: skip
        assert function in there, (name, facts.test)
        assert set(facts.protocols) <= set(protocol_names()), name

"""The notebooks run as they stand, from the first cell to the last, and hold no stale output."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from commands import ROOT

PAGES = sorted((ROOT / "docs").glob("*.ipynb"))


def test_there_are_two_and_they_are_kept_without_output():
    nbformat = pytest.importorskip("nbformat")
    assert [page.stem for page in PAGES] == ["first-steps", "own-method"]
    for page in PAGES:
        book = nbformat.read(page, as_version=4)
        nbformat.validate(book)
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in book.cells)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_notebook_runs(page: Path, tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    book = nbformat.read(page, as_version=4)
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    told = [output for cell in cells for output in cell.outputs]
    assert not any(output.output_type == "error" for output in told)
    text = "".join(str(output.get("text") or output.get("data", {}).get("text/plain", "")) for output in told)
    # work is one output that is redrawn, beside what is printed and the last value; no library's warnings are shown
    assert max(len(cell.outputs) for cell in cells) <= 3
    assert not any(output.output_type == "stream" and output.name == "stderr" for output in told)
    (work,) = (output for cell in cells for output in cell.outputs[:1] if cell.source.startswith("record = "))
    assert work.output_type == "display_data"
    assert "<progress" in work.data["text/html"]
    assert work.data["text/plain"].startswith("runs ")
    shown = {cell.source: cell.outputs[-1].data for cell in cells if cell.outputs and "data" in cell.outputs[-1]}
    (made,) = (data for source, data in shown.items() if "fyi_bench.load(" in source)
    assert made["text/plain"].startswith("ImageSet(")
    assert "data:image/png" in made["text/html"]
    (drawn,) = (data for source, data in shown.items() if ".plot(" in source)
    assert len(drawn["image/png"]) > 1000
    (record,) = (data for source, data in shown.items() if source.startswith("record = "))
    assert "<table" in record["text/html"]
    if page.stem == "first-steps":
        assert (tmp_path / "card.html").is_file()
        assert "not measured" in text
    else:
        assert "means+fyi" in text

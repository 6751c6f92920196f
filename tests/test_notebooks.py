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
    told = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not any(output.output_type == "error" for output in told)
    text = "".join(str(output.get("text") or output.get("data", {}).get("text/plain", "")) for output in told)
    if page.stem == "first-steps":
        assert (tmp_path / "card.html").is_file()
        assert "not measured" in text
    else:
        assert "means fyi" in text

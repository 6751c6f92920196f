"""The examples of docs/continual.md run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from downstream.continual.streams import _lent
from fyi_bench import rng

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "continual.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "20 condensed images of 10 classes"), (1, "20"), (2, "4 (2, 3, 32, 32) [0, 1, 2, 3]")],
    ids=["Avalanche", "AGEM", "without Avalanche"],
)
def test_example(number, said, capsys):
    with _lent(rng.stream(0, "page")):
        exec(compile(EXAMPLES[number], f"example {number}", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.rstrip().endswith(said)


def test_there_are_no_further_examples():
    assert len(EXAMPLES) == 3

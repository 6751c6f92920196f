"""The table of docs/methods.md from rows of `fyi-bench runs`."""

from __future__ import annotations

import pytest

from benchmarks.methods import BEGIN, END, KEPT, arms_of, as_csv, read_rows, table, with_tables

HEAD = "task,name,method,flip,ipc,measure,value,values,seeds,bits_per_class,protocol"
ROWS = [
    "distill,,dm,none,1,accuracy,0.2,0.20 0.22 0.24 0.26,2,98304,quick",
    "distill,,dm,fyi,1,accuracy,0.3,0.30 0.32 0.36 0.38,2,98304,quick",
    "distill,,dm,fyi − none,1,accuracy difference,0.1,,2,,quick",
    "distill,,dsa,none,1,accuracy,0.3,0.30 0.30 0.30 0.30,2,98304,quick",
    "distill,,random,none,1,accuracy,0.1,0.10 0.12,2,,quick",
    "distill,,random,none,1,accuracy,0.1,0.10 0.12 0.14 0.16,4,,quick",
    "distill,mine,dm,none,1,accuracy,0.9,0.9 0.9,2,98304,quick",
    "distill,,dm,none,1,accuracy,0.9,0.9 0.9 0.9,3,98304,paper",
]


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "rows.csv").write_text("\n".join([HEAD, *ROWS]), encoding="utf-8")
    return read_rows([tmp_path / "rows.csv"])


@pytest.fixture
def arms(rows):
    return arms_of(rows)


def test_the_file_keeps_an_arm_once_and_takes_more_sets_of_it(rows, arms, tmp_path):
    kept, more = tmp_path / "kept.csv", tmp_path / "more.csv"
    kept.write_text(as_csv(rows), encoding="utf-8")
    assert kept.read_text().splitlines()[0] == ",".join(KEPT)
    assert arms_of(read_rows([kept])) == arms
    more.write_text(f"{HEAD}\ndistill,,dsa,none,1,accuracy,0.4,0.40 0.40 0.40,3,98304,quick\n", encoding="utf-8")
    grown = arms_of(read_rows([kept, more]))
    assert grown.pop(("dsa", "none", 1)).sets == 3
    assert grown == {key: arm for key, arm in arms.items() if key != ("dsa", "none", 1)}


def test_a_row_says_both_arms_their_pairs_of_sets_and_what_random_images_give(arms):
    dsa, dm, floor = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table(arms, 1)[2:]]
    assert dm[:3] == ["`dm`", "23.0 ± 2.2", "34.0 ± 3.2"]
    # the sets' means 21, 25 and 31, 37: their differences are 10 and 12, t of one degree of freedom is 12.7
    assert dm[3] == "+11.0 [−1.7, +23.7]"
    assert dm[4].startswith("+10.0 [")
    assert dm[6:] == ["2 × 2", "± 2.6 / ± 4.1", "± 1.4 / ± 1.4", "12.3"]
    assert dsa[:4] == ["`dsa`", "30.0 ± 0.0", "–", "–"]
    assert floor[:6] == ["`random`", "13.0 ± 2.2", "–", "–", "–", "–"]
    assert floor[6] == "4 × 1"


def test_the_page_keeps_everything_around_its_marks(arms):
    page = with_tables(f"before\n{BEGIN}\nold\n{END}\nafter\n", arms)
    assert page.startswith(f"before\n{BEGIN}\n\n**1 image a class**\n")
    assert page.endswith(f"|\n\n{END}\nafter\n")
    assert "old" not in page
    with pytest.raises(ValueError, match="has no"):
        with_tables("no marks", arms)

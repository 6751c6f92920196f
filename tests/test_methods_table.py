"""The table of docs/methods.md from rows of `fyi-bench runs`."""

from __future__ import annotations

import pytest

from benchmarks.methods import BEGIN, END, KEPT, arms_of, as_csv, read_rows, table, with_tables

HEAD = "task,name,method,flip,ipc,measure,value,values,seeds,bits_per_class,protocol,device,digest"
ROWS = [
    "distill,,dm,none,1,accuracy,0.2,0.20 0.22 0.24 0.26,2,98304,quick,cpu,a",
    "distill,,dm,fyi,1,accuracy,0.3,0.30 0.32 0.36 0.38,2,98304,quick,cpu,a",
    "distill,,dm,fyi − none,1,accuracy difference,0.1,,2,,quick,cpu,a",
    "distill,,random,none,1,accuracy,0.1,0.10 0.11 0.12 0.13 0.14,5,,quick,cpu,a",
    "distill,,dsa,none,1,accuracy,0.3,0.30 0.30 0.30 0.30,2,98304,quick,cpu,b",
    "distill,,random,none,1,accuracy,0.1,0.10 0.11 0.12 0.13 0.14,5,,quick,cpu,b",
    "distill,,kip,none,1,accuracy,0.3,0.30 0.30 0.30 0.30,2,98304,quick,cpu,c",
    "distill,,random,none,1,accuracy,0.2,0.20 0.21 0.22 0.23 0.24,5,,quick,cpu,c",
    "distill,mine,dm,none,1,accuracy,0.9,0.9 0.9,2,98304,quick,cpu,d",
    "distill,,dm,none,1,accuracy,0.9,0.9 0.9 0.9,3,98304,paper,cpu,e",
    "distill,,dm,none,1,accuracy,0.4,0.40 0.42,2,98304,quick,cuda,f",
    "distill,,random,none,1,accuracy,0.2,0.20 0.21 0.22 0.23 0.24,5,,quick,cuda,f",
]


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "rows.csv").write_text("\n".join([HEAD, *ROWS]), encoding="utf-8")
    return read_rows([tmp_path / "rows.csv"])


@pytest.fixture
def arms(rows):
    return arms_of(rows, "cpu")


def test_the_file_keeps_an_arm_once_and_takes_more_sets_of_it(rows, arms, tmp_path):
    kept, more = tmp_path / "kept.csv", tmp_path / "more.csv"
    kept.write_text(as_csv(rows), encoding="utf-8")
    assert kept.read_text().splitlines()[0] == ",".join(KEPT)
    assert arms_of(read_rows([kept]), "cpu") == arms
    more.write_text(f"{HEAD}\ndistill,,dsa,none,1,accuracy,0.4,0.40 0.40 0.40,3,98304,quick,cpu,g\n", encoding="utf-8")
    grown = arms_of(read_rows([kept, more]), "cpu")
    assert grown.pop(("dsa", "none", 1)).sets == 3
    assert grown == {key: arm for key, arm in arms.items() if key != ("dsa", "none", 1)}


def test_more_rows_of_a_method_with_its_own_protocol_leave_the_floor_of_most(rows, arms, tmp_path):
    kept, more = tmp_path / "kept.csv", tmp_path / "more.csv"
    kept.write_text(as_csv(rows), encoding="utf-8")
    more.write_text("\n".join([HEAD, *(row for row in ROWS if row.endswith(",c"))]), encoding="utf-8")
    assert arms_of(read_rows([kept, more]), "cpu") == arms


def test_a_row_says_both_arms_their_pairs_of_sets_and_what_random_images_give(arms):
    found = {cells[0]: cells[1:] for cells in _cells(table(arms, 1))}
    dsa, dm, floor = found["`dsa`"], found["`dm`"], found["`random`"]
    assert list(found)[-1] == "`random`"
    assert dm[:2] == ["23.0 ± 2.2", "34.0 ± 3.2"]
    # the sets' means 21, 25 and 31, 37: their differences are 10 and 12, t of one degree of freedom is 12.7
    assert dm[2] == "+11.0 [−1.7, +23.7]"
    assert dm[3].startswith("+11.0 [")
    assert dm[5:] == ["2 × 2", "± 2.6 / ± 4.1", "± 1.4 / ± 1.4", "12.3"]
    assert dsa[:3] == ["30.0 ± 0.0", "–", "–"]
    assert floor[:5] == ["12.0 ± 1.4", "–", "–", "–", "–"]
    assert floor[5] == "5 × 1"


def test_a_method_is_compared_with_random_images_under_its_own_protocol(arms):
    found = {cells[0]: cells[4].split()[0] for cells in _cells(table(arms, 1))}
    assert (found["`dsa`"], found["`kip`"]) == ("+18.0", "+8.0")


def test_each_device_has_a_table_and_the_page_keeps_everything_around_its_marks(rows):
    page = with_tables(f"before\n{BEGIN}\nold\n{END}\nafter\n", rows)
    assert page.startswith(f"before\n{BEGIN}\n\n**1 image a class, on a CPU**\n")
    assert page.endswith(f"|\n\n{END}\nafter\n")
    assert "old" not in page
    gpu = _cells(page[page.index("on a GPU**") :].splitlines()[2 : 4 + 2])
    assert [cells[:2] for cells in gpu] == [["`dm`", "41.0 ± 1.0"], ["`random`", "22.0 ± 1.4"]]


def _cells(lines):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:] if line]

"""Short runs of the attacks: mutated files, and file operations that fail at their first call."""

from __future__ import annotations

import faults
import fuzz
import pytest


def test_mutated_files_are_read_or_refused():
    found = fuzz.fuzz(range(150), seed=3, keep=False)
    assert set(found) <= {"read", "refused"}
    assert found.total() >= 150


@pytest.mark.slow
def test_many_mutated_files_are_read_or_refused():
    assert set(fuzz.fuzz(range(20_000), seed=4)) <= {"read", "refused"}


@pytest.mark.slow
def test_commands_survive_failing_file_operations(tmp_path):
    rows, every = faults.inject(40, seed=1, folder=tmp_path)
    assert every > len(rows) == 40
    assert faults.finds(rows) == []

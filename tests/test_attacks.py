"""Short runs of the attacks: mutated files, and file operations that fail at their first call."""

from __future__ import annotations

import errno

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
def test_a_command_survives_failing_file_operations():
    found = faults.inject(most=2, errors=(errno.ENOSPC,))
    assert set(found) <= {"went on", "ended in words"}

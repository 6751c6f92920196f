"""Hostile files, and short runs of the attacks: mutations, failing file operations, promises without protection."""

from __future__ import annotations

import io
import os
import resource
import signal
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import attacks
import faults
import fuzz
import protections
import pytest

import tests.kill as kill
from fyi_bench.cli import main

MOST_BYTES, MOST_S, MOST_WAIT_S = 2**30, 10, 120
DOCS = Path(__file__).resolve().parent.parent / "docs" / "trust.md"


def bounded(words: list[str], place: Path) -> tuple[int, str]:
    """Exit code and stderr of a command in a process of its own that gets 1 GiB more than it has, and 10 s."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.chdir(place)
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES,) * 2)
            spent = resource.getrusage(resource.RUSAGE_SELF)
            resource.setrlimit(resource.RLIMIT_CPU, (int(spent.ru_utime + spent.ru_stime) + MOST_S,) * 2)
            signal.alarm(MOST_WAIT_S)
            with open("said.txt", "w") as said, redirect_stderr(said), redirect_stdout(io.StringIO()):
                code = main(words)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), (place / "said.txt").read_text(errors="replace")


@pytest.mark.long
@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_a_hostile_file_is_refused_in_words_and_bounds(tmp_path, name):
    place = tmp_path / "place"
    (place / "in").mkdir(parents=True)
    words = attacks.write(name, place / "in")
    code, said = bounded(words, place)
    assert code == 5, said
    assert 1 <= len(said.strip().splitlines()) <= 3, said
    assert "\x1b" not in said
    assert not list(tmp_path.rglob(attacks.MARK))
    assert "private key" not in said


def test_files_that_were_finds_are_read_or_refused():
    assert set(fuzz.corpus()) <= {"read", "refused"}
    assert fuzz.corpus().total() == len(list(fuzz.CORPUS.glob("*/*.bin"))) > 0


def test_mutated_files_are_read_or_refused():
    found = fuzz.fuzz(range(200), seed=3, keep=False)
    assert set(found) <= {"read", "refused"}
    assert found.total() >= 200


@pytest.mark.slow
def test_many_mutated_files_are_read_or_refused():
    assert set(fuzz.fuzz(range(20_000), seed=4)) <= {"read", "refused"}


@dataclass(frozen=True)
class Deaf:
    """stdout or stderr, closed or taking nothing."""

    numbers: tuple[int, ...]
    place: str = ""

    def arm(self, counts: object) -> None:
        for number in self.numbers:
            os.close(number)
            if self.place:
                assert os.open(self.place, os.O_WRONLY) == number


@pytest.mark.slow
def test_commands_end_in_words_where_nobody_hears_them():
    with kill.working_folder() as folder:
        made = kill.make_ready(folder)
        for name in kill.COMMANDS:
            one = kill.Round(name, folder / "place", made)
            whole = one.undisturbed().results
            for deaf in (Deaf((1,)), Deaf((2,)), Deaf((1, 2)), Deaf((1,), "/dev/full"), Deaf((2,), "/dev/full")):
                one.prepare()
                assert one.attempt(deaf)[0] in (0, 5), (name, deaf)
                assert "Traceback" not in one.said(), (name, deaf)
                assert one.attempt(kill.NEVER)[0] == 0, (name, deaf)
                left = one.results()
                assert all(kill.same(left, whole, key) for key in left.keys() | whole.keys()), (name, deaf)


@pytest.mark.slow
def test_commands_survive_failing_file_operations(tmp_path):
    rows, every = faults.inject(40, seed=1, folder=tmp_path)
    assert every > len(rows) == 40
    assert faults.finds(rows) == []


def test_the_lines_that_hold_promises_are_where_the_table_says():
    """A line that moved or changed is to be taken out where it is now."""
    for each in protections.PROTECTIONS:
        for file, line, without in each.edits:
            text = (protections.ROOT / file).read_text()
            assert text.count(line) == 1, each
            compile(text.replace(line, without), file, "exec")  # what is left is still a program
    assert {each.promise for each in protections.PROTECTIONS} == set(range(1, 12))
    assert "\n".join(protections.table()) in DOCS.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("each", protections.PROTECTIONS, ids=lambda each: each.what)
def test_without_its_protection_a_promise_is_broken(each):
    assert protections.taken_out(each) == "red"

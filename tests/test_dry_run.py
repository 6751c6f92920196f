"""Each command as a dry run: it fetches, measures, compiles, trains nothing; options that nobody reads are refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from commands import run
from distill.image_set import ImageSet
from fyi_bench.catalogue import find_task, parameters_of
from fyi_bench.config import Settings
from fyi_bench.data import load_dataset

# who copies an object or fills in what was left open, and reads nothing for an answer by it
_BOOKKEEPING = ("resolved", "replace", "_replace", "__init__", "__post_init__", "__eq__", "__hash__", "__repr__")

# question -> the words that ask it, SET being a file
QUESTIONS = {
    "a method": "distill --method dm --flip fyi --ipc 1",
    "a method on architectures": "cross-arch --method random --ipc 1 --arch mlp",
    "a set on architectures": "cross-arch SET --arch mlp",
    "steps of a method": "continual --method random --ipc 1 --steps 2",
    "steps of unlike sizes": "continual --method random --ipc 1 --step-sizes 4 6",
    "steps of a set": "continual --set-file SET --steps 2",
    "steps of a set against others": "continual --set-file SET --steps 2 --against joint",
    "a set": "evaluate SET",
    "a set, robustly": "evaluate SET --robust",
    "a set under a teacher's labels": "evaluate SET --labels teacher",
    "a set by a probe": "evaluate SET --probe convnet-w8 --weights random",
    "a set under its labels": "evaluate SET --labels hard",
    "a search by a method": "nas --method random --ipc 1 --space 3",
    "a search by a set": "nas --set-file SET --space 3",
    "a ranking": "ranking --space 3",
    "experts": "experts --method mtt",
    "a card": "card SET",
    "a demonstration": "demo",
    "a table": "table 1",
}
# read after the plan: by whoever computes, or in the answer; or only where they are given
LATER = {
    "": {"store", "budget", "devices", "enqueue", "log"},
    "table": {"device", "workers", "threads"},  # where there are data: how long the holes would take
    "card": {"html", "markdown"},
    "continual": {"ipc"},
    "nas": {"ipc"},
}


@contextmanager
def watched(kind: type) -> Iterator[set[str]]:
    """The names of those fields of a dataclass of options that anybody reads meanwhile."""
    read: set[str] = set()

    def look(self, name):
        if sys._getframe(1).f_code.co_name not in _BOOKKEEPING:
            read.add(name)
        return object.__getattribute__(self, name)

    with pytest.MonkeyPatch().context() as patch:
        patch.setattr(kind, "__getattribute__", look, raising=False)
        yield read


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a set of one real image a class of the built-in data."""
    folder, shapes = tmp_path_factory.mktemp("options"), load_dataset("shapes10")
    rows = torch.cat([shapes.train.indices_of(c)[:1] for c in range(10)])
    chosen: ImageSet = shapes.train.select(rows).to_space(shapes.space)
    chosen.save(folder / "set.safetensors", preview=False)
    return folder


def asked(question: str, folder: Path) -> list[str]:
    return [str(folder / "set.safetensors") if word == "SET" else word for word in QUESTIONS[question].split()]


@pytest.fixture
def idle(monkeypatch):
    """Whoever fetches, measures, compiles or trains fails meanwhile."""

    def forbidden(*given, **named):
        raise AssertionError("a dry run does not do that")

    for place in (
        "socket.create_connection",
        "socket.socket.connect",
        "fyi_bench.run.estimate.measure",
        "search_space.native._compile",
        "torch.Tensor.backward",
        "torch.autograd.grad",
        "torch.optim.Optimizer.__init__",
    ):
        monkeypatch.setattr(place, forbidden)


@pytest.mark.long
@pytest.mark.parametrize("question", [name for name, words in QUESTIONS.items() if not words.startswith("table")])
def test_a_dry_run_does_nothing_but_planning(question, made, idle):
    words = [*asked(question, made), "--dataset", "shapes10", "--store", str(made / "none"), "--dry-run"]
    assert "(not measured)" in run(*words).stdout
    assert not [path for path in made.glob("none/*") if path.name != "imported"]


def test_a_dry_run_fetches_nothing_from_the_hub(idle, tmp_path):
    pytest.importorskip("huggingface_hub")
    done = run("evaluate", "hf:nobody/no-such-set", "--dry-run", check=5, HF_HOME=str(tmp_path))
    assert "a dry run fetches nothing" in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("question", QUESTIONS)
def test_an_option_that_nobody_reads_is_refused(question, made):
    words = [*asked(question, made), "--store", str(made / "store")]
    words += [] if words[0] == "table" else ["--dataset", "shapes10", "--dry-run"]
    task = find_task(words[0]).load()
    with watched(Settings) as common, watched(task.Options) as own:
        run(*words)
    later = LATER.get(words[0], set()) | (LATER[""] if words[0] != "table" else {"store"})
    for each in parameters_of(task):
        if each.name not in common | own | later:
            given = [] if each.type is bool else ["1"]
            assert each.flag in run(*words, each.flag, *given, check=2).stderr


def test_what_is_common_to_others_is_refused_with_a_remedy():
    assert "evaluate has no use for --seeds.\nName a file for each set; for more networks: --set nets=N." in run(
        "evaluate", "SET", "--seeds", "3", check=2
    ).stderr  # fmt: skip
    for words in (["report", "--dataset", "x"], ["ls", "methods", "--store=x"], ["experts", "--seed", "1"]):
        assert "has no use for" in run(*words, check=2).stderr
    for flag in ("workers", "storage", "dataset"):
        assert f"Figure 3 does not use --{flag}" in run("figure", "3", f"--{flag}", "1", check=2).stderr
    assert "--factor is about a file" in run("unequalness", "shapes10", "--factor", "2", check=2).stderr
    assert "Give --unequalness too" in run("inspect", "SET", "--seed", "2", check=2).stderr


def test_the_environment_is_no_option_that_was_given(tmp_path):
    run("table", "B", "--store", str(tmp_path), FYI_BENCH_STORAGE="sqlite:///nowhere.sqlite3")

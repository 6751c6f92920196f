"""The words of the Python API: what they take, how they read it, and what an editor knows of them."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

import pytest
from plugins import Plugged

import fyi_bench
from commands import ROOT, run
from fyi_bench import api, catalogue
from fyi_bench.cli import gather
from fyi_bench.config import Settings, option
from fyi_bench.errors import UsageError
from fyi_bench.parameters import bind, of_dataclass
from fyi_bench.tasks.base import TASKS
from fyi_bench.tasks.report import section_makers

WORDS = ("distill", "continual", "nas", "evaluate", "cross_arch", "experts", "table", "figure", "demo", "report",
         "import_set", "export", "inspect", "unequalness", "load", "CondensedBuffer", "make_report")  # fmt: skip


@dataclass(frozen=True)
class Toy:
    """Options of every kind."""

    path: Path = option(MISSING, "A file.", argument="SET")
    names: tuple[str, ...] = option((), "Some.", flag="--arch")
    factor: int | None = option(None, "A number.")
    rate: float = option(0.5, "A number.")
    fyi: bool = option(False, "A switch.")
    others: tuple[Path, ...] = option((), "Files.", flag="--set-file")


PARAMETERS = [*of_dataclass(Toy, first_positional=True), *of_dataclass(Settings, common=True)]


def read(*values: Any, **named: Any) -> dict[str, Any]:
    return bind("toy", PARAMETERS, values, named)


@pytest.mark.parametrize("word", WORDS)
def test_every_word_is_there_and_says_what_it_takes(word):
    function = getattr(fyi_bench, word)
    assert word in dir(fyi_bench)
    assert callable(function)
    assert (function.__doc__ or "").strip()
    assert inspect.signature(function).parameters


def test_texts_are_read_as_on_the_command_line():
    given = read("a.pt", names="mlp,vgg11", factor="2", rate="1e-3", fyi="yes", budget="9m", overrides=["a=1,b=2"])
    assert given == {
        "path": Path("a.pt"), "names": ("mlp", "vgg11"), "factor": 2, "rate": 1e-3, "fyi": True, "budget": 540.0,
        "overrides": {"a": "1", "b": "2"},
    }  # fmt: skip


def test_values_of_python_stay_what_they_are():
    given = read(
        Path("a.pt"), names=["mlp"], factor=2, rate=1, fyi=True, budget=540, overrides={"a": 1.5}, store="here"
    )
    assert given["names"] == ("mlp",)
    assert given["overrides"] == {"a": "1.5"}
    assert given["store"] == Path("here")
    assert (given["factor"], given["rate"], given["budget"]) == (2, 1.0, 540)


def test_what_was_left_out_is_not_given(monkeypatch):
    monkeypatch.delenv("FYI_BENCH_STORE", raising=False)
    assert read("a.pt") == {"path": Path("a.pt")}
    monkeypatch.setenv("FYI_BENCH_STORE", "elsewhere")
    assert read("a.pt")["store"] == Path("elsewhere")
    assert read("a.pt", store="here")["store"] == Path("here")


def test_a_comma_in_a_key_value_or_in_the_name_of_a_file_is_no_separator(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a,b.pt").touch()
    assert read("x", others=["a,b.pt", "c,d.pt"])["others"] == (Path("a,b.pt"), Path("c"), Path("d.pt"))
    assert read("x", overrides=["lrs=0.1,0.2", "a=1,b=2"])["overrides"] == {"lrs": "0.1,0.2", "a": "1", "b": "2"}


WRONG = [
    ((), {}, "needs 'path': A file."),
    (("a", "b"), {}, "takes 1 value(s) without a name, not 2"),
    (("a",), {"facter": 2}, "Unknown keyword of toy 'facter'. Did you mean 'factor'?"),
    (("a",), {"arch": "mlp"}, "In Python it is 'names'"),
    (("a",), {"path": "b"}, "'path' twice"),
    (("a",), {"factor": "two"}, "--factor takes a whole number, not 'two'"),
    (("a",), {"factor": 2.5}, "--factor takes a whole number, not 2.5"),
    (("a",), {"fyi": "perhaps"}, "--fyi takes yes or no"),
    (("a",), {"others": 3}, "--set-file takes a text, not 3"),
    (("a",), {"overrides": ["lr"]}, "is not key=value"),
    (("a",), {"budget": "soon"}, "no length of time"),
]


@pytest.mark.parametrize(("values", "named", "text"), WRONG, ids=[text[:25] for _, _, text in WRONG])
def test_a_wrong_call_is_one_clear_message(values, named, text):
    with pytest.raises(UsageError) as error:
        read(*values, **named)
    assert text in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


GATHERED = {
    "--arch a b SET": "--arch a --arch b -- SET",
    "--arch a --arch b SET": "--arch a --arch b -- SET",
    "--arch a,b SET": "--arch a,b -- SET",
    "--arch a SET --factor 2": "--factor 2 --arch a -- SET",
    "--arch a b --fyi SET": "--fyi --arch a --arch b -- SET",
    "SET --arch a b": "--arch a --arch b -- SET",
    "--arch a SET --set x=1 y=2": "--arch a --set x=1 --set y=2 -- SET",
    "--set x=1 SET --arch a": "--set x=1 --arch a -- SET",
    "--arch=a b SET": "--arch a --arch b -- SET",
    "--factor -1 --arch a -- -SET": "--factor -1 --arch a -- -SET",
    "--devices cuda:0 cuda:1 SET": "--devices cuda:0 --devices cuda:1 -- SET",
}


@pytest.mark.parametrize("words", GATHERED)
def test_one_rule_for_options_that_take_several_values(words):
    assert gather(words.split(), PARAMETERS) == GATHERED[words].split()


def test_an_option_without_its_values_is_named():
    with pytest.raises(UsageError, match="--arch needs a value"):
        gather(["SET", "--arch", "--fyi"], PARAMETERS)


def test_the_stub_is_current():
    assert api.STUB.read_text(encoding="utf-8") == api.stub(), "write it again: python -m fyi_bench.api"


def test_a_type_checker_knows_the_words(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "use.py").write_text(
        "import fyi_bench\n"
        "fyi_bench.distill('dm', fyi=True, ipc=1, dataset='shapes10', budget='9m')['arms']\n"
        "fyi_bench.distill('dm', ipcs=1)\n"
    )
    files = ["fyi_bench/__init__.py", "fyi_bench/api.pyi", str(tmp_path / "use.py")]
    words = ["-m", "mypy", "--config-file=", "--follow-imports=skip", "--cache-dir", str(tmp_path), *files]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT, check=False)
    assert 'Unexpected keyword argument "ipcs" for "distill"; did you mean "ipc"?' in done.stdout
    assert "Found 1 error" in done.stdout


def test_a_tasks_name_and_summary_are_read_in_its_source():
    for entry in catalogue.built_in_tasks().values():
        task = entry.load()
        assert entry.summary == task.summary
        assert 1 <= len(task.examples) <= 3
        assert all(example.startswith(f"fyi-bench {entry.name}") for example in task.examples)


PLUG_IN = '''
from dataclasses import dataclass
from fyi_bench.config import option
from fyi_bench.tasks.base import TASKS, Task

@dataclass(frozen=True)
class Options:
    """Whom."""
    whom: str = option("you", "Whom to greet.")
    times: tuple[int, ...] = option((), "How often.")

class Hello(Task):
    """Greet."""
    summary = "Greet somebody."
    Options = Options
    settings = ("seed",)
    examples = ("fyi-bench hello --whom me",)
    keeps = False

    def answer(self, session, options, plan, found):
        return {"task": "hello", "text": f"hello {options.whom} {options.times} {session.settings.seed}"}

    def words(self, record):
        return record["text"]
'''


@pytest.fixture
def plugged(tmp_path, monkeypatch):
    """A plug-in with a task, and with one that cannot be imported."""
    points = {"hello": "greeting:Hello", "broken": "greeting_that_is_missing:Broken"}
    folder = Plugged(tmp_path, monkeypatch, TASKS)
    folder.install("greeting", {"fyi_bench.tasks": points}, greeting=PLUG_IN)
    catalogue.tasks.cache_clear()
    yield
    vars(api).pop("hello", None)
    monkeypatch.undo()
    folder.look()
    catalogue.tasks.cache_clear()


@pytest.mark.usefixtures("plugged")
def test_a_plug_in_is_a_command_and_a_word():
    assert "hello" in run("--help").stdout
    text = run("hello", "--help").stdout
    assert "Greet somebody." in text
    assert "fyi-bench hello --whom me" in text
    assert "--budget" not in text
    assert run("hello", "--whom", "me", "--times", "1", "2", "--seed", "7").stdout == "hello me (1, 2) 7\n"
    assert fyi_bench.hello("me", times=3) == {"task": "hello", "text": "hello me (3,) 0"}
    assert "hello" in dir(fyi_bench)


@pytest.mark.usefixtures("plugged")
def test_a_broken_plug_in_is_named_and_harms_no_other_command():
    assert "broken" in run("--help").stdout
    assert "greeting" in run("broken", check=5).stderr
    assert "dm" in run("ls", "methods").stdout
    assert "distill" in section_makers()

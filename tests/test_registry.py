"""Registries: plug-ins are loaded one by one, a broken one harms nobody, a clash and a wrong thing are named."""

from __future__ import annotations

import sys

import pytest
import torch
from plugins import BASIC, Plugged

import search_space
from commands import run
from distill.augment_ops import OPERATIONS
from distill.fyi import FLIPS
from distill.methods import METHODS
from distill.recipes import recipe
from downstream.protocol import protocol
from fyi_bench import rng
from fyi_bench.data import load_dataset
from fyi_bench.errors import DataError, UnknownNameError, UsageError
from fyi_bench.registry import PluginError, Registry, pick
from fyi_bench.run.numerics import check_numerics, numerics, using
from fyi_bench.run.types.accuracy import accuracy_run
from fyi_bench.run.types.distill import distill_run
from search_space import ARCHITECTURES

OF_HERE = "from tests.test_registry import Thing"
GROUP = "fyi_bench.things"


class Thing:
    """What the registry of these tests holds."""

    name: str


def made(**how) -> Registry:
    return Registry("thing", group=GROUP, **how)


@pytest.fixture
def plugged(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        found = Plugged(tmp_path, patch, METHODS, ARCHITECTURES, FLIPS, OPERATIONS)
        yield found
    found.look()


# one registry -------------------------------------------------------------------------------------------------------


def test_a_plugin_is_listed_without_being_imported_and_loaded_when_it_is_asked_for(plugged):
    plugged.install("nice", {GROUP: {"one": "nice_one:f", "two": "nice_two:f"}}, nice_one="def f(): return 1",
                    nice_two="def f(): return 2")  # fmt: skip
    things = made()
    things.register("own", lambda: 0)
    assert (things.names(), "one" in things, len(list(things))) == (["one", "own", "two"], True, 3)
    assert not {"nice_one", "nice_two"} & set(sys.modules)
    assert things.get("one")() == 1
    assert "nice_two" not in sys.modules
    assert things.from_outside() == {"one", "two", "own"}  # this test is outside too
    assert str(things.owner("one")) == "the distribution nice 1.0"


def test_an_unknown_name_is_answered_with_all_that_can_be_had(plugged):
    plugged.install("nice", {GROUP: {"flower": "nowhere:f"}})
    with pytest.raises(UnknownNameError, match="Did you mean 'flower'"):
        made().get("flowr")
    with pytest.raises(UnknownNameError, match=r"Unknown colour 'gren'. Did you mean 'green'"):
        pick("colour", "gren", {"green": 1, "red": 2})


def test_a_name_is_found_in_any_case_and_stays_as_it_is_registered(plugged):
    plugged.install("nice", {GROUP: {"Blue_Flower": "nice_one:f", "tree": "nice_one:f", "TREE": "nice_one:f"}},
                    nice_one="def f(): return 1")  # fmt: skip
    things = made()
    things.register("own-thing", lambda: 0)
    assert [things.spelled(name) for name in ("Own_Thing", "OWNTHING", "blue-flower", "weed")] == [
        "own-thing", "own-thing", "Blue_Flower", "weed",
    ]  # fmt: skip
    assert things.get("blueflower")() == 1
    assert things.get("OwnThing")() == 0
    assert "OwnThing" in things
    assert things.owner("blueflower") == things.owner("Blue_Flower")
    assert (things.spelled("TREE"), things.spelled("tree")) == ("TREE", "tree")
    with pytest.raises(UsageError, match="'Tree' may be 'TREE' or 'tree'"):
        things.get("Tree")


@pytest.mark.parametrize(
    ("value", "module", "says"),
    [
        ("nowhere:f", "", "ModuleNotFoundError: No module named 'nowhere'"),
        ("bad:f", "import does_not_exist", "No module named 'does_not_exist'"),
        ("bad:f", "raise ValueError('first line\\nsecond')", "ValueError: first line"),
        ("bad:g", "def f(): ...", "AttributeError: .*'g'"),
    ],
)
def test_a_broken_plugin_is_named_in_two_lines_and_harms_no_other(plugged, value, module, says):
    plugged.install("nice", {GROUP: {"good": "good:f"}}, good="def f(): ...")
    plugged.install("broken-dist", {GROUP: {"bad": value}}, bad=module)
    things = made()
    begins = r"^The thing 'bad' of the distribution broken-dist 1\.0 cannot be loaded: "
    with pytest.raises(PluginError, match=f"{begins}.*{says}") as at:
        things.get("bad")
    assert str(at.value).splitlines()[1] == (
        f"Its entry point is 'bad = {value}': mend it, or uninstall the distribution broken-dist 1.0."
    )
    assert len(str(at.value).splitlines()) == 2
    found, complaints = things.usable()
    assert (list(found), complaints) == (["good"], [str(at.value)])


def test_a_clash_names_both_owners_and_harms_no_other(plugged):
    plugged.install("first", {GROUP: {"same": "f1:f", "fine": "f1:f"}}, f1="def f(): ...")
    plugged.install("second", {GROUP: {"same": "f2:f"}}, f2="def f(): ...")
    plugged.install("third", {"fyi_bench.flips": {"fyi": "f3:f"}}, f3="def f(): ...")
    things = made()
    with pytest.raises(PluginError, match=r"'same' is offered by the distribution first 1.0 and by .* second 1.0"):
        things.get("same")
    assert list(things.usable()[0]) == ["fine"]
    with pytest.raises(PluginError, match=r"'fyi' is offered by fyi-bench itself and by the .* third 1\.0"):
        FLIPS.get("fyi")
    assert FLIPS.get("random").name == "random"
    with pytest.raises(ValueError, match="registered twice: by fyi-bench itself and by the module tests"):
        FLIPS.register("random", FLIPS.get("vertical"))


@pytest.mark.parametrize(
    ("module", "how", "says"),
    [
        ("def f(): ...", {"base": Thing}, "is <function f.*, not a Thing"),
        ("class f: ...", {"base": Thing}, "is <class 'wrong.f'>, not a Thing"),
        ("f = 3", {}, "is 3, not a function"),
        (f"{OF_HERE}\nclass f(Thing): name = 'other'", {"base": Thing}, "calls itself 'other'"),
    ],
)
def test_what_is_no_such_thing_is_said(plugged, module, how, says):
    plugged.install("wrong-dist", {GROUP: {"it": "wrong:f"}}, wrong=module)
    with pytest.raises(PluginError, match=f"^The thing 'it' of the distribution wrong-dist 1.0 {says}"):
        made(**how).get("it")


def test_a_class_is_called_as_it_is_registered(plugged):
    plugged.install("nice", {GROUP: {"it": "nice:It"}}, nice=f"{OF_HERE}\nclass It(Thing): ...")
    assert made(base="tests.test_registry:Thing").get("it").name == "it"


def test_a_module_may_register_what_is_in_it(plugged):
    code = "from distill.fyi import FLIPS, ConcatenatedFlip\nFLIPS.register('mine', ConcatenatedFlip('mine', abs))"
    plugged.install("nice", {"fyi_bench.flips": {"mine": "nice"}}, nice=code)
    assert FLIPS.get("mine").multiplier == 2
    assert FLIPS.get("mine").name == "mine"


# numerics of what a run uses ----------------------------------------------------------------------------------------


def test_built_in_entries_have_the_numbers_of_their_family():
    assert {ARCHITECTURES.numerics(name) for name in ARCHITECTURES} == {search_space.NUMERICS_VERSION}
    assert {FLIPS.numerics(name) for name in FLIPS} == {numerics()["flip"]}
    assert METHODS.numerics("dsa") == METHODS.get("dsa").numerics


def test_numerics_of_a_plugin_are_what_it_states_or_its_code(plugged):
    base = "from distill.methods.dm import DM\n"
    plugged.install("nice", {"fyi_bench.methods": {"a": "a:M", "b": "b:M", "c": "c:M", "d": "d:M"}},
                    a="from distill.method import Method\nclass M(Method): numerics = 7",
                    b="from distill.method import Method\nclass M(Method): ...",
                    c=base + "class M(DM): ...", d=base + "class M(DM): numerics = 'x'")  # fmt: skip
    found = {name: METHODS.numerics(name) for name in "abcd"}
    assert found["a"] == 7
    assert found["b"].startswith("source ")
    version = METHODS.numerics("dm")
    assert found["c"].startswith("source ")
    assert found["c"].endswith(f" on {version}")
    assert found["d"] == f"x on {version}"
    (plugged.folder / "b.py").write_text("from distill.method import Method\nclass M(Method): changed = True")
    plugged.look()
    assert METHODS.numerics("b") not in ("", found["b"])
    assert METHODS.numerics("c") == found["c"]


def test_code_that_lies_in_no_file_has_to_state_its_numerics(monkeypatch):
    things = made()
    monkeypatch.setitem(things._entries, "typed", lambda: 0)
    monkeypatch.setitem(things._owners, "typed", things.owner("x").__class__("nowhere_at_all"))
    with pytest.raises(PluginError, match=r"no file whose change could be seen.*\nGive it .*: numerics = 1"):
        things.numerics("typed")


def test_a_rewritten_architecture_of_a_plugin_is_trained_anew(plugged):
    plugged.install("nets", {"fyi_bench.architectures": {"mynet": "mynet:Net"}}, mynet=BASIC)
    data, rules = load_dataset("shapes10"), protocol("quick", "accuracy")
    cell = lambda model: accuracy_run(data, {"cell": "0"}, 10, rules, 0, model)  # noqa: E731
    built_in, first = cell("convnet3"), cell("mynet")
    assert isinstance(search_space.build("mynet", 3, 8, 4, rng.stream(0, "n"))(torch.zeros(1, 3, 8, 8)), torch.Tensor)
    assert first.inputs["numerics"] == {
        **built_in.inputs["numerics"], "architecture mynet": ARCHITECTURES.numerics("mynet")
    }  # fmt: skip
    assert cell("mynet").digest == first.digest
    (plugged.folder / "mynet.py").write_text(BASIC.replace("relu()", "tanh()"))
    plugged.look()
    assert cell("mynet").digest != first.digest
    assert cell("convnet3").digest == built_in.digest


def test_a_run_names_every_plugin_its_settings_use(plugged):
    flip = "from distill.fyi import ConcatenatedFlip\nf = ConcatenatedFlip('upside', lambda x: x.flip(-2))\n"
    blur = "from distill.augment_ops import Operation\nop = Operation(1, lambda x, values, strength: x)\n"
    points = {"flips": {"upside": "more:f"}, "augmentations": {"blur": "more:op"}, "architectures": {"mynet": "my:Net"}}
    plugged.install("more", {f"fyi_bench.{group}": p for group, p in points.items()}, more=flip + blur, my=BASIC)
    changes = {"model": "mynet", "augment": "color_blur"}
    made = recipe("dm", "shapes10", 1, "quick").with_overrides(changes)
    cell = distill_run(load_dataset("shapes10"), "dm", "upside", 1, 0, made)
    extra = {"architecture mynet", "augmentation blur", "flip upside"}
    assert set(cell.inputs["numerics"]) == {"method", "engine", "augment", "flip", "network", *extra}
    check_numerics(cell.inputs["numerics"])
    with pytest.raises(DataError, match=r"version source 0 of .* 'flip upside', here is source .*\n.*plug-ins"):
        check_numerics({"flip upside": "source 0"})
    with pytest.raises(DataError, match="'flip lost', here is none"):
        check_numerics({"flip lost": 1})
    assert using("flip", settings=["fyi", "convnet3", 3]) == {"flip": numerics()["flip"]}


# commands -----------------------------------------------------------------------------------------------------------

ONE_FILE = '''
from distill.method import Method


class Mine(Method):
    """Pulls synthetic images to the mean of the real ones."""

    numerics = 1
    recipe = {
        "source": "an idea",
        "common": {
            "model": "convnet", "iterations": 1000, "lr_img": 0.5, "momentum_img": 0.0, "init": "noise",
            "augment": "none", "dispatcher": "dsa",
        },
        "quick": {"common": {"iterations": 5}},
    }

    def loss(self, ctx):
        return (ctx.synthetic().mean(1) - ctx.real(16).mean(1)).square().sum()
'''


def test_a_method_is_one_file_found_through_its_entry_point(plugged, tmp_path):
    plugged.install("my-method", {"fyi_bench.methods": {"mymethod": "mymethod:Mine"}}, mymethod=ONE_FILE)
    assert "mymethod  Pulls synthetic images to the mean" in run("ls", "methods").stdout
    assert "an idea" in next(line for line in run("ls", "recipes").stdout.splitlines() if "mymethod" in line)
    done = run(
        "distill", "--method", "mymethod", "--fyi", "--dataset", "shapes10", "--protocol", "quick", "--ipc", "1",
        "--store", str(tmp_path / "store"), "--workers", "1", "--set", "eval_model=convnet-w8-d2", "--set", "epochs=1",
        "--set", "min_steps=0", "--set", "nets=1", "--yes",
    )  # fmt: skip
    assert "mymethod" in done.stdout
    assert "Known: cafe, cafe-dsa" in run("distill", "--method", "mymethd", check=2).stderr
    assert "Did you mean 'mymethod'" in run("distill", "--method", "mymethd", check=2).stderr


def test_commands_work_beside_broken_and_clashing_plugins(plugged):
    plugged.install("broken-dist", {"fyi_bench.methods": {"bad": "nowhere:Bad", "dm": "mine:DM"},
                                    "fyi_bench.architectures": {"badnet": "nowhere:Net"}})  # fmt: skip
    methods = run("ls", "methods").stdout
    assert all(name in methods for name in ("cafe", "dsa", "random"))
    assert "The method 'bad' of the distribution broken-dist 1.0 cannot be loaded" in methods
    assert "The method 'dm' is offered by fyi-bench itself and by the distribution broken-dist 1.0" in methods
    assert "The architecture 'badnet' of the distribution" in run("ls", "archs").stdout
    rows = [line for line in run("ls", "recipes").stdout.splitlines() if "broken" in line]
    assert len(rows) >= 2
    run("distill", "--method", "dsa", "--dataset", "shapes10", "--dry-run", "--protocol", "quick")
    assert "cannot be loaded" in run("distill", "--method", "bad", "--dry-run", check=5).stderr

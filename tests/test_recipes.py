"""Hyper-parameters as data: published values, marks of what is inferred, overrides, files from outside."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.method import Method, MethodConfig
from distill.methods import METHODS
from distill.recipes import declared, list_recipes, recipe
from distill.recipes.declared import read_toml
from fyi_bench.errors import DataError, UnknownNameError, UsageError
from fyi_bench.registry import Owner

SIX = "color_crop_cutout_flip_scale_rotate"
FIVE = "color_crop_cutout_scale_rotate"
RUNNABLE = [
    "dc",
    "dsa",
    "dcc",
    "dsac",
    "dm",
    "mtt",
    "ftd",
    "speed",
    "rtp",
    "haba",
    "idc",
    "dream",
    "m3d",
    "idm",
    "dd",
    "frepo",
    "kip",
    "cafe",
    "cafe-dsa",
    "datadam",
    "random",
    "herding",
    "kcenter",
    "kmeans",
]
WITHOUT_CODE = ["datm", "tesla"]
DATASETS = [
    "cifar10",
    "cifar100",
    "mnist",
    "fashionmnist",
    "svhn",
    "tinyimagenet",
    "imagenette",
    "imagewoof",
    "imagefruit",
    "imagemeow",
    "imagesquawk",
    "imageyellow",
    "shapes10",
    "shapes100",
]

# method, data set, images a class -> some published values, written down again by hand
PUBLISHED = [
    ("dc", "cifar10", 1, {"model": "convnet3", "iterations": 1000, "lr_img": 0.1, "init": "noise", "outer_loop": 1}),
    ("dc", "cifar10", 10, {"outer_loop": 10, "inner_loop": 50, "batch_real": 256, "augment": "none", "zca": False}),
    ("dc", "cifar10", 50, {"outer_loop": 50, "inner_loop": 10}),
    ("dc", "cifar100", 50, {"outer_loop": 10, "inner_loop": 10}),
    ("dc", "cifar100", 20, {"outer_loop": 20, "inner_loop": 25}),
    ("dsa", "cifar100", 10, {"outer_loop": 10, "inner_loop": 50, "init": "real", "augment": SIX}),
    ("dsa", "mnist", 10, {"augment": FIVE, "lr_net": 0.01, "momentum_net": 0.0}),
    ("dsa", "svhn", 10, {"augment": FIVE}),
    ("dcc", "cifar10", 1, {"outer_loop": 10, "inner_loop": 5, "init": "real", "augment": "none", "outer_warmup": 250}),
    ("dsac", "cifar100", 50, {"outer_loop": 50, "inner_loop": 10, "augment": SIX, "inner_warmup": 10}),
    ("dm", "cifar10", 10, {"iterations": 20000, "lr_img": 1.0, "batch_real": 256, "augment": SIX, "init": "real"}),
    ("dm", "cifar10", 200, {"lr_img": 10.0}),
    ("dm", "tinyimagenet", 50, {"model": "convnet4"}),
    ("mtt", "cifar10", 1, {"syn_steps": 50, "max_start_epoch": 2, "lr_img": 100.0, "lr_lr": 1e-7, "zca": True}),
    ("mtt", "cifar10", 10, {"syn_steps": 30, "lr_teacher": 0.001, "lr_img": 100.0, "batch_syn": 0, "zca": True}),
    ("mtt", "cifar10", 50, {"max_start_epoch": 40, "lr_img": 1000.0, "zca": False}),
    ("mtt", "cifar100", 1, {"expert_epochs": 3, "zca": True}),
    ("mtt", "cifar100", 50, {"syn_steps": 80, "batch_syn": 125, "experts": 100, "expert_train_epochs": 50}),
    ("mtt", "tinyimagenet", 10, {"batch_syn": 200, "lr_img": 10000.0, "lr_lr": 1e-4, "model": "convnet4"}),
    ("mtt", "imagefruit", 1, {"model": "convnet5", "lr_lr": 1e-6, "syn_steps": 20}),
    ("speed", "cifar10", 1, {"images_per_class": 17, "tokens": 16, "l1_weight": 3e-6, "syn_steps": 60, "zca": True}),
    ("speed", "cifar100", 50, {"top_k": 166, "token_dim": 192, "decoder_depth": 3, "batch_syn": 256}),
    ("speed", "tinyimagenet", 10, {"images_per_class": 78, "tokens": 128, "patch": 8, "syn_steps": 20, "zca": False}),
    ("haba", "cifar10", 10, {"n_style": 5, "lr_style": 100.0, "syn_steps": 30, "lr_teacher": 0.001, "zca": True}),
    ("rtp", "cifar10", 1, {"inner_steps": 150, "bases": 16, "batch_addresses": 32, "lr_img": 0.1, "clip_norm": 2.0}),
    ("ftd", "cifar10", 1, {"gsam_alpha": 0.3, "gsam_rho": 0.01, "gsam_adaptive": True, "ema_decay": 0.9999}),
    ("ftd", "cifar100", 50, {"gsam_alpha": 1.0, "batch_syn": 1000, "ema_decay": 0.999}),
    ("speed", "imagenette", 1, {"l1_weight": 7e-7, "images_per_class": 15}),
    ("speed", "imagewoof", 1, {"l1_weight": 3e-7, "images_per_class": 15, "syn_steps": 60}),
    ("speed", "imageyellow", 10, {"l1_weight": 3e-8, "images_per_class": 111, "syn_steps": 40}),
    ("ftd", "imagewoof", 10, {"batch_syn": 64, "lr_img": 10000.0, "lr_teacher": 0.01, "model": "convnet5"}),
    ("idc", "cifar10", 1, {"lr_img": 0.0005, "metric": "mse", "n_data": 2000, "factor": 2, "batch_real": 64}),
    ("idc", "cifar10", 50, {"lr_img": 0.025, "iterations": 2000, "inner_loop": 100, "wd_net": 0.0005}),
    ("idc", "mnist", 50, {"lr_img": 0.0005, "metric": "l1", "n_data": 500, "aug_match": "color_crop"}),
    ("idc", "svhn", 1, {"lr_img": 0.0005, "metric": "mse", "n_data": 500, "net_mix": "cut", "model": "convnet3"}),
    ("idc", "fashionmnist", 10, {"lr_img": 7.65625e-5, "metric": "l1", "n_data": 500, "net_mix": "cut"}),
    ("idc", "fashionmnist", 1, {"aug_match": "color_crop_cutout", "aug_net": "color_crop", "mix_p": 0.5}),
    ("cafe", "cifar10", 10, {"lambda_1": 0.04, "lambda_2": 0.03, "lr_img_schedule": (1200, 1600, 1800)}),
    ("cafe-dsa", "cifar10", 10, {"iterations": 2000, "init": "noise", "weights": (0.1, 0.1, 1.0, 1.0)}),
    ("datadam", "cifar10", 10, {"iterations": 8000, "lr_img": 1.0, "power": 4.0, "task_balance": 0.01}),
    ("datadam", "cifar10", 100, {"lr_img": 10.0}),
    ("tesla", "cifar10", 1, {"syn_steps": 50, "max_start_epoch": 5, "gradient": "tesla"}),
    ("dream", "tinyimagenet", 50, {"lr_img": 2e-5, "batch_real": 64, "match": "grad", "init": "kmeans"}),
    ("idm", "cifar100", 10, {"ce_weight": 0.1, "model_train_steps": 50, "batch_real": 256}),
    ("haba", "cifar10", 10, {"n_style": 5, "lr_teacher": 0.001, "momentum_img": 0.95}),
    ("datm", "cifar100", 10, {"max_start_epoch": 50, "lr_y": 10.0, "threshold": 1.0}),
]


@pytest.mark.parametrize(("method", "dataset", "ipc", "values"), PUBLISHED)
def test_published_values_are_there_and_not_marked_as_inferred(method, dataset, ipc, values):
    found = recipe(method, dataset, ipc)
    assert {key: found.values[key] for key in values} == values
    assert not found.inferred & set(values)


@pytest.mark.parametrize("method", [*RUNNABLE, *WITHOUT_CODE])
@pytest.mark.parametrize("dataset", [*DATASETS, "someones-own"])
def test_every_value_has_a_source_and_the_type_of_its_key(method, dataset):
    keys = declared(method).keys
    for ipc in (1, 2, 10, 50, 200):
        for protocol in ("paper", "quick", "legacy-fyi-code"):
            found = recipe(method, dataset, ipc, protocol)
            assert set(found.sources) == set(found.values)
            assert all(found.sources.values())
            assert found.inferred <= set(found.values)
            for key, value in found.values.items():
                assert keys[key].parse(value) == value
                assert type(keys[key].parse(value)) is type(value), key
                assert ("inferred" in found.sources[key]) == (key in found.inferred)


@pytest.mark.parametrize("method", RUNNABLE)
def test_a_method_has_the_same_keys_for_all_data_sets(method):
    wanted = set(recipe(method, "cifar10", 10).values)
    for dataset in [*DATASETS, "someones-own"]:
        assert set(recipe(method, dataset, 3).values) == wanted


@pytest.mark.parametrize("protocol", ["paper", "quick", "legacy-best-on-test"])
def test_every_method_gets_its_configuration_from_its_recipe(protocol):
    for method in METHODS:
        for dataset in ("cifar10", "tinyimagenet", "shapes10"):
            values = recipe(method, dataset, 10, protocol).values
            config = METHODS.get(method).Config.from_values(values)
            assert config.iterations == values["iterations"]


def test_images_a_class_without_values_take_the_nearest_below_and_say_so():
    found = recipe("dsa", "mnist", 2)
    assert (found.values["outer_loop"], found.values["inner_loop"]) == (1, 1)
    assert found.inferred == {"outer_loop", "inner_loop"}
    assert "2 images per class are not published: the value at 1" in found.sources["outer_loop"]
    assert recipe("dc", "cifar100", 45).values["outer_loop"] == 40
    assert recipe("dc", "cifar100", 60).values["outer_loop"] == 10


def test_below_the_smallest_published_number_the_smallest_serves():
    found = recipe("tesla", "cifar100", 10)
    assert found.values["batch_syn"] == 125
    assert "batch_syn" in found.inferred


def test_a_published_formula_is_not_an_inference():
    found = recipe("idc", "cifar10", 20)
    assert found.values["lr_img"] == 0.01
    assert "lr_img" not in found.inferred


def test_borrowed_values_are_all_marked():
    for dataset, lender in (("shapes10", "cifar10"), ("shapes100", "cifar100")):
        borrowed, own = recipe("mtt", dataset, 50), recipe("mtt", lender, 50)
        assert borrowed.values == own.values
        assert borrowed.inferred == set(borrowed.values)
        assert borrowed.digest == own.digest
    unknown = recipe("dm", "someones-own", 10)
    assert unknown.values["model"] == "convnet"
    assert unknown.inferred == set(unknown.values)


def test_members_of_a_family_and_coresets_are_not_borrowed():
    assert recipe("ftd", "imagemeow", 1).values == recipe("ftd", "imagenette", 1).values
    assert "lr_img" not in recipe("ftd", "imagemeow", 1).inferred
    assert recipe("random", "someones-own", 7).inferred == frozenset()


def test_digits_are_not_mirrored_but_clothes_are():
    for method in ("dsa", "dm", "mtt", "ftd", "cafe-dsa", "datadam"):
        for digits in ("mnist", "mnist-mirrored", "svhn"):
            assert recipe(method, digits, 10).values["augment"] == FIVE
        assert recipe(method, "fashionmnist", 10).values["augment"] == SIX
        assert "augment" in recipe(method, "fashionmnist", 10).inferred


def test_quick_changes_some_values_and_names_their_source():
    paper, quick = recipe("dm", "cifar10", 10), recipe("dm", "cifar10", 10, "quick")
    changed = {key for key in paper.values if paper.values[key] != quick.values[key]}
    assert "iterations" in changed
    assert all(quick.sources[key].startswith("quick protocol") for key in changed)
    assert quick.values["iterations"] < paper.values["iterations"]
    assert quick.digest != paper.digest


def test_quick_of_an_extended_method_starts_from_the_base():
    assert (
        recipe("dsa", "cifar10", 10, "quick").values["batch_real"]
        == (recipe("dc", "cifar10", 10, "quick").values["batch_real"])
    )
    assert recipe("dsa", "cifar10", 10, "quick").values["init"] == "real"


def test_legacy_protocols_distil_as_published():
    assert recipe("mtt", "cifar10", 10, "legacy-best-on-test").digest == recipe("mtt", "cifar10", 10).digest


@pytest.mark.parametrize("method", RUNNABLE)
@pytest.mark.parametrize("dataset", ["cifar10", "mnist", "tinyimagenet", "imagenette"])
def test_the_code_of_fyi_distils_in_its_own_way(method, dataset):
    paper, code = (recipe(method, dataset, 10, protocol) for protocol in ("paper", "legacy-fyi-code"))
    changed = {key: code.values[key] for key in code.values if code.values[key] != paper.values[key]}
    wanted = {"dispatcher": "dsa-flip-first"} if paper.values["dispatcher"] == "dsa" else {}
    if method in ("mtt", "ftd"):
        wanted |= {"iterations": 10_000} | ({"gradient": "tesla"} if paper.values["gradient"] != "tesla" else {})
        assert ("iterations" in code.inferred) == (method == "ftd")
    assert changed == wanted
    assert all(code.sources[key].startswith("cvlab-yonsei/FYI") for key in changed)


def test_overrides_are_parsed_to_the_type_of_the_key():
    changes = {"lr_img": "1", "iterations": "1e3", "zca": "true", "init": "noise"}
    found = recipe("mtt", "cifar10", 50).with_overrides(changes)
    assert found.values["lr_img"] == 1.0
    assert isinstance(found.values["lr_img"], float)
    assert found.values["iterations"] == 1000
    assert isinstance(found.values["iterations"], int)
    assert found.values["zca"] is True
    assert {found.sources[key] for key in changes} == {"set by the user"}
    assert found.label == "paper+init=noise+iterations=1000+lr_img=1+zca=true"
    assert recipe("cafe", "cifar10", 1).with_overrides({"lr_img_schedule": "5,7"}).values["lr_img_schedule"] == (5, 7)


def test_an_override_to_the_value_that_stands_changes_neither_digest_nor_label():
    found = recipe("dm", "cifar100", 10)
    same = found.with_overrides({"lr_img": "1.0"})
    assert (same.digest, same.label, same.sources["lr_img"]) == (found.digest, "paper", "set by the user")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lr_imgs": "1"}, "Did you mean 'lr_img'"),
        ({"syn_steps": "3"}, "key of the dm recipe"),
        ({"iterations": "ten"}, "a whole number"),
        ({"iterations": "2.5"}, "a whole number"),
        ({"iterations": "-1"}, "0 or more"),
        ({"lr_img": "nan"}, "a number"),
        ({"lr_img": "inf"}, "a number"),
        ({"zca": "maybe"}, "true or false"),
        ({"init": " "}, "a word"),
        ({"zca": "true"}, "does nothing with zca"),
    ],
)
def test_wrong_overrides_say_what_is_wrong(changes, says):
    with pytest.raises(UsageError, match=says):
        recipe("dm", "cifar10", 10).with_overrides(changes)


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'mtt'"):
        recipe("mtd", "cifar10", 1)
    with pytest.raises(UnknownNameError, match="Did you mean 'quick'"):
        recipe("dm", "cifar10", 1, "quik")
    with pytest.raises(UsageError, match="1 or more"):
        recipe("dm", "cifar10", 0)


def test_rows_of_ls_recipes():
    rows = list_recipes(method="mtt", dataset="cifar10")
    assert [(row["dataset"], row["ipc"], row["status"]) for row in rows] == [
        ("cifar10", 1, "published"),
        ("cifar10", 10, "published"),
        ("cifar10", 50, "published"),
    ]
    assert "lr_img=100 syn_steps=50 max_start_epoch=2" in rows[0]["main"]
    every = list_recipes()
    assert {row["method"] for row in every} == set(RUNNABLE)
    assert {row["ipc"] for row in every if (row["method"], row["dataset"]) == ("ftd", "imagenette")} == {1, 10}
    assert json.loads(json.dumps(every))


@given(st.sampled_from(RUNNABLE), st.sampled_from(DATASETS), st.integers(1, 3000))
def test_any_number_of_images_has_a_recipe_and_the_digest_follows_the_values(method, dataset, ipc):
    found, again = recipe(method, dataset, ipc), recipe(method, dataset, ipc)
    assert found.digest == again.digest
    other = found.with_overrides({"iterations": found.values["iterations"] + 1})
    assert other.digest != found.digest


# methods from outside ----------------------------------------------------------------------------------------------

MINE = {
    "extends": "dm",
    "source": "my paper",
    "common": {"strength": 2.0, "lr_img": 0.5},
    "quick": {"common": {"iterations": 7, "ipc": {"10": {"strength": 1.0}}}},
}


@dataclass(frozen=True)
class MineConfig(MethodConfig):
    strength: float
    marks: tuple[int, ...] = ()


@pytest.fixture
def mine(monkeypatch):
    """Registers a method 'mine' with this recipe."""

    def register(recipe=None, **attributes):
        monkeypatch.setitem(METHODS._owners, "mine", Owner("plugin", "my-plugin 1.0"))
        made = type("Mine", (Method,), {"__module__": __name__, "recipe": recipe, "Config": MineConfig, **attributes})
        monkeypatch.setitem(METHODS._entries, "mine", made)
        return made

    return register


def test_a_method_from_outside_declares_its_recipe_in_its_class(mine):
    mine(MINE)
    found = recipe("mine", "cifar10", 10)
    assert (found.values["strength"], found.sources["strength"]) == (2.0, "my paper")
    assert (found.values["lr_img"], found.values["batch_real"]) == (0.5, 256)
    assert found.with_overrides({"strength": "3"}).values["strength"] == 3.0
    with pytest.raises(UsageError, match="'much' is not a value for strength"):
        found.with_overrides({"strength": "much"})


def test_its_quick_values_add_to_those_of_the_others(mine):
    before = [recipe(method, "cifar10", 10, "quick") for method in RUNNABLE]
    mine(MINE)
    quick = recipe("mine", "cifar10", 10, "quick").values
    assert (quick["iterations"], quick["strength"]) == (7, 1.0)
    assert (quick["batch_real"], quick["lr_img"]) == (64, 10.0)  # of dm's quick
    assert [recipe(method, "cifar10", 10, "quick") for method in RUNNABLE] == before


def test_it_may_describe_its_keys_and_leave_out_the_source(mine):
    mine({
        "common": {**recipe("dm", "mnist", 1).values, "strength": 2, "secret": 5},
        "keys": {"secret": {"type": "int", "least": 3, "meaning": "hidden number"}},
    })  # fmt: skip
    found = recipe("mine", "mnist", 1)
    assert (found.values["strength"], found.sources["strength"]) == (2.0, MINE_IS_COMMON)
    with pytest.raises(UsageError, match=r"3 or more, not 2.\nIt is the hidden number"):
        found.with_overrides({"secret": 2})


MINE_IS_COMMON = "the distribution my-plugin 1.0 [inferred: no values for this data set: the method's common ones]"


def test_a_recipe_may_lie_beside_the_file_of_the_method(mine, tmp_path, monkeypatch):
    monkeypatch.setattr("inspect.getfile", lambda made: str(tmp_path / "my_method.py"))
    mine()
    with pytest.raises(DataError, match=r"declares no recipe.\nGive its class `recipe = .*my_method.toml"):
        recipe("mine", "cifar10", 10)
    (tmp_path / "my_method.toml").write_text('extends = "dm"\n[common]\nstrength = 2.5\n')
    assert recipe("mine", "cifar10", 10).values["strength"] == 2.5


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"common": {"itertions": 3}}, "'itertions' is not a key"),
        ({"common": {"sources": {"zca": "y"}}}, "no value"),
        ({"source": "", "common": {"iterations": 3}}, "without a source"),
        ({"commn": 3}, "a table of values is wanted, not 3"),
        ({"keys": {"mine": {"type": "number"}}}, "'mine' is described wrongly: Unknown type 'number'"),
        ({"keys": {"mine": {"kind": "int"}}}, "'mine' is described wrongly: .*'kind'"),
        ({"extends": "nobody"}, "extends 'nobody'"),
        ({"common": {"iterations": "many"}}, "'many' is not a value for iterations"),
        ({"extends": {}}, "extends has to be a text, not {}"),
        ({"source": 3}, "source has to be a text"),
        ({"keys": 3}, "keys has to be a table"),
        ({"keys": {"mine": {"type": 3}}}, "'mine' is described wrongly: type and meaning are texts"),
        ({"keys": {"mine": {"type": "str", "least": 0}}}, "'mine' is described wrongly: least is a number"),
        ({"common": {"sources": 3}}, "sources has to be a table of texts"),
        ({"common": {"inferred": {"zca": 3}}}, "inferred has to be a table of texts"),
        ({"common": {"inferred": {"zca": "why"}}}, "'zca' inferred, and no table before it has a value"),
        ({"common": {"ipc": {"many": {}}}}, "ipc has to be tables by images a class"),
        ({"common": {"ipc": {"1": 3}}}, "a table of values is wanted, not 3"),
        ({"common": {"per_ipc": 3}}, "per_ipc has to be a table"),
        ({"keys": {"word": {"type": "str"}}, "common": {"per_ipc": {"word": "a"}}}, "'word' is no number"),
        ({"common": {"notes": "said"}}, "notes has to be a list of texts"),
        ({"common": {"published": ["1"]}}, "published has to be a list of whole numbers"),
        ({"cifar10": {"like": []}}, "like has to be a text"),
        ({"common": {"any_dataset": 1}}, "any_dataset has to be true or false"),
        ({"quick": 3}, "quick has to be a table, not 3"),
        ({"extends": "mine"}, "extends 'mine', which has no recipe or extends itself"),
        ({"extends": "dm", "quick": {"common": {"strength": 3}}}, "'quick' sets 'strength', which the mine recipe"),
    ],
)
def test_a_mistake_in_a_recipe_is_named_and_harms_no_other(mine, wrong, says):
    mine(wrong)
    with pytest.raises((DataError, UsageError), match=says):
        recipe("mine", "cifar10", 10, "quick")
    assert recipe("dm", "cifar10", 10).values["iterations"] == 20000
    if "quick" not in wrong:
        rows = {row["method"]: row for row in list_recipes(dataset="cifar10")}
        assert (rows["mine"]["status"], rows["dm"]["status"]) == ("broken", "published")


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda path: path.write_bytes(b"a = " + b"[" * 60_000), "nested too deeply"),
        (lambda path: path.write_bytes(b"a = " + b"9" * 100_000), "not TOML: Exceeds the limit"),
        (lambda path: path.write_bytes(b"\xff\x00"), "no text in UTF-8"),
        (lambda path: path.write_bytes(b"a = 1\na = 2"), "not TOML: Cannot overwrite"),
        (os.mkfifo, "no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
        (lambda path: (path.touch(), os.truncate(path, 2**31)), "larger than"),
        (lambda path: path.mkdir(), "no regular file|Is a directory"),
    ],
    ids=["nested", "digits", "bytes", "twice", "pipe", "zeros", "huge", "folder"],
)
def test_a_recipe_file_that_is_none_is_named(tmp_path, write, says):
    write(tmp_path / "mine.toml")
    with pytest.raises(DataError, match=says) as caught:
        read_toml(tmp_path / "mine.toml")
    assert len(str(caught.value)) < 400


def test_methods_without_code_are_data_and_not_offered():
    with pytest.raises(UnknownNameError) as caught:
        recipe("datn", "cifar10", 1)
    assert not set(WITHOUT_CODE) & set(caught.value.known)
    assert recipe("datm", "cifar10", 1).values["syn_steps"] == 80


def test_recipes_need_no_torch():
    code = "import sys; from distill.recipes import list_recipes; list_recipes(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_is_inferred_with_a_flip_is_said_of_that_flip_alone():
    def said(method: str, flip: str) -> str:
        return " ".join(recipe(method, "cifar10", 1).remarks(flip))

    start = "init inferred with FYI: the FYI paper does not say how DC with FYI starts"
    assert start in said("dc", "fyi")
    assert start not in said("dc", "none")
    for heir in ("dsa", "dcc", "dsac"):  # their own starts are published, or others
        assert start not in said(heir, "fyi")
    assert start not in " ".join(recipe("dc", "cifar10", 1).with_overrides({"init": "real"}).remarks("fyi"))
    for method in METHODS.names():
        assert "with FYI" not in said(method, "none").replace("the published code's use_flip: with FYI", "")
    for flip in ("random", "vertical", "rotate", "scale"):
        assert "there is no code of it" in said("dsa", flip)
        assert "there is no code of it" not in said("dsa", "fyi")

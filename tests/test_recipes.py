"""Hyper-parameters as data: published values, marks of what is inferred, overrides, files from outside."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill import recipes
from distill.recipes import list_recipes, recipe, recipe_methods, tables
from fyi_bench.errors import DataError, UnknownNameError, UsageError

SIX = "color_crop_cutout_flip_scale_rotate"
FIVE = "color_crop_cutout_scale_rotate"
RUNNABLE = [
    "dc",
    "dsa",
    "dm",
    "mtt",
    "ftd",
    "idc",
    "cafe",
    "cafe-dsa",
    "datadam",
    "random",
    "herding",
    "kcenter",
    "kmeans",
]
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
    ("ftd", "cifar10", 1, {"gsam_alpha": 0.3, "gsam_rho": 0.01, "gsam_adaptive": True, "ema_decay": 0.9999}),
    ("ftd", "cifar100", 50, {"gsam_alpha": 1.0, "batch_syn": 1000, "ema_decay": 0.999}),
    ("ftd", "imagewoof", 10, {"batch_syn": 64, "lr_img": 10000.0, "lr_teacher": 0.01, "model": "convnet5"}),
    ("idc", "cifar10", 1, {"lr_img": 0.0005, "metric": "mse", "n_data": 2000, "factor": 2, "batch_real": 64}),
    ("idc", "cifar10", 50, {"lr_img": 0.025, "iterations": 2000, "inner_loop": 100, "wd_net": 0.0005}),
    ("idc", "mnist", 50, {"lr_img": 0.0005, "metric": "l1", "n_data": 500, "aug_match": "color_crop"}),
    ("cafe", "cifar10", 10, {"lambda_1": 0.04, "lambda_2": 0.03, "lr_img_schedule": (1200, 1600, 1800)}),
    ("cafe-dsa", "cifar10", 10, {"iterations": 2000, "init": "noise", "weights": (0.1, 0.1, 1.0, 1.0)}),
    ("datadam", "cifar10", 10, {"iterations": 8000, "lr_img": 1.0, "power": 4.0, "task_balance": 0.01}),
    ("datadam", "cifar10", 100, {"lr_img": 10.0}),
    ("tesla", "cifar10", 1, {"syn_steps": 50, "max_start_epoch": 5, "gradient": "tesla"}),
    ("dream", "tinyimagenet", 50, {"lr_img_base": 1e-6, "batch_real": 64}),
    ("idm", "cifar100", 10, {"ce_weight": 0.1, "model_train_steps": 50, "batch_real": 256}),
    ("haba", "cifar10", 10, {"n_style": 5, "lr_teacher": 0.001, "momentum_img": 0.95}),
    ("datm", "cifar100", 10, {"max_start_epoch": 50, "lr_y": 10.0, "threshold": 1.0}),
]


@pytest.mark.parametrize(("method", "dataset", "ipc", "values"), PUBLISHED)
def test_published_values_are_there_and_not_marked_as_inferred(method, dataset, ipc, values):
    found = recipe(method, dataset, ipc)
    assert {key: found.values[key] for key in values} == values
    assert not found.inferred & set(values)


@pytest.mark.parametrize("method", recipe_methods())
@pytest.mark.parametrize("dataset", [*DATASETS, "someones-own"])
def test_every_value_has_a_source_and_the_type_of_its_key(method, dataset):
    keys = recipes.library().keys
    for ipc in (1, 2, 10, 50, 200):
        for protocol in ("paper", "quick"):
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
    from distill.method import METHODS

    for method in set(METHODS.names()) & set(recipe_methods()):
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
    for method in ("dsa", "dm"):
        assert recipe(method, "mnist", 10).values["augment"] == FIVE
        assert recipe(method, "svhn", 10).values["augment"] == FIVE
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
    assert {row["method"] for row in every} == set(recipe_methods())
    assert {row["ipc"] for row in every if (row["method"], row["dataset"]) == ("ftd", "imagenette")} == {1, 10}
    assert json.loads(json.dumps(every))


@given(st.sampled_from(RUNNABLE), st.sampled_from(DATASETS), st.integers(1, 3000))
def test_any_number_of_images_has_a_recipe_and_the_digest_follows_the_values(method, dataset, ipc):
    found, again = recipe(method, dataset, ipc), recipe(method, dataset, ipc)
    assert found.digest == again.digest
    other = found.with_overrides({"iterations": found.values["iterations"] + 1})
    assert other.digest != found.digest


@pytest.fixture
def outside(tmp_path):
    yield tmp_path / "mine.toml"
    tables._added.clear()
    tables.library.cache_clear()


def test_a_method_from_outside_brings_its_file_and_its_keys(outside):
    outside.write_text(
        'method = "mine"\nextends = "dm"\nsource = "my paper"\n[common]\nstrength = 2.0\n'
        '[keys.strength]\ntype = "float"\nmeaning = "how strong"\n'
    )
    recipes.add_recipe_file(outside)
    found = recipe("mine", "cifar10", 10)
    assert (found.values["strength"], found.sources["strength"]) == (2.0, "my paper")
    assert found.values["batch_real"] == 256
    assert found.with_overrides({"strength": "3"}).values["strength"] == 3.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("method = ", "is not TOML"),
        ('method = "mine"\n[common]\niterations = 3\n', "without a source"),
        ('method = "mine"\nsource = "x"\n[common]\nitertions = 3\n', "'itertions' is not a key"),
        ('method = "mine"\nsource = "x"\n[common]\n[common.sources]\nzca = "y"\n', "no value"),
    ],
)
def test_a_broken_file_is_named_and_left_out(outside, text, says):
    outside.write_text(text)
    with pytest.raises(DataError, match=says):
        recipes.add_recipe_file(outside)
    assert recipe("dm", "cifar10", 10).values["iterations"] == 20000


def test_a_base_that_does_not_exist_is_named(outside):
    outside.write_text('method = "mine"\nextends = "nobody"\nsource = "x"\n[common]\niterations = 3\n')
    recipes.add_recipe_file(outside)
    with pytest.raises(DataError, match="extends 'nobody'"):
        recipe("mine", "cifar10", 10)


def test_recipes_need_no_torch():
    code = "import sys; from distill.recipes import list_recipes; list_recipes(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

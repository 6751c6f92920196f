"""The trainer: schedules as published, determinism, soft labels, divergence, and golden case 11."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import tiny
from distill.image_set import ImageSet
from distill.spaces import PixelSpace
from downstream.accuracy import train_and_test
from downstream.protocol import protocol, protocol_data, protocol_names
from downstream.schedules import schedule
from downstream.training import LOSSES, SCHEDULES, Conditions, accuracy, correct, new_network, train, train_together
from fyi_bench.config import Settings
from fyi_bench.errors import DivergenceError, UnknownNameError, UsageError
from fyi_bench.session import Session
from golden import golden


def settings(**changes):
    base = dataclasses.replace(protocol("quick", "accuracy"), eval_model=tiny.MODEL, epochs=3, min_steps=0, batch=5)
    return dataclasses.replace(base, **changes)


@pytest.fixture(scope="module")
def small_set():
    return tiny.real_set().to_space(tiny.SPACE)


def weights(trained):
    return torch.cat([p.detach().flatten() for p in trained.network.parameters()])


def test_same_seed_same_weights_and_together_equals_one_by_one(small_set):
    networks = [new_network(tiny.MODEL, small_set, seed) for seed in (3, 4)]
    many = train_together(networks, small_set, settings(), [3, 4])
    one = train(new_network(tiny.MODEL, small_set, 4), small_set, settings(), 4)
    assert torch.equal(weights(many[1]), weights(one))
    assert not torch.equal(weights(many[0]), weights(many[1]))


def test_learns_the_tiny_classes(small_set):
    trained = train(new_network(tiny.MODEL, small_set, 0), small_set, settings(epochs=30), 0)
    assert accuracy(trained.network, tiny.real_set(), Conditions(space=tiny.SPACE)) > 0.9
    assert trained.losses[-1] < trained.losses[0]


def test_uint8_and_float_sets_train_alike(small_set):
    raw = tiny.real_set()
    a = train(new_network(tiny.MODEL, raw, 0), raw, settings(), 0, Conditions(space=tiny.SPACE))
    b = train(new_network(tiny.MODEL, small_set, 0), small_set, settings(), 0)
    assert torch.equal(weights(a), weights(b))


def test_hard_labels_as_confident_logits_train_nearly_alike(small_set):
    logits = torch.nn.functional.one_hot(small_set.labels, tiny.CLASSES).float() * 100
    soft = dataclasses.replace(small_set, labels=logits)
    a = train(new_network(tiny.MODEL, soft, 0), soft, settings(), 0)
    b = train(new_network(tiny.MODEL, small_set, 0), small_set, settings(), 0)
    torch.testing.assert_close(weights(a), weights(b), rtol=1e-4, atol=1e-5)


def test_published_schedule_drops_once_and_forgets_momentum():
    network = torch.nn.Linear(2, 2)
    p = dataclasses.replace(protocol("paper", "accuracy"), epochs=10)
    assert p.epochs_for(100) == 11
    step = SCHEDULES["drop-restart"](network, p, 0.01, 100)
    used = [step(epoch, 0) for epoch in range(p.epochs_for(100))]
    assert [o.param_groups[0]["lr"] for o in used] == pytest.approx([0.01] * 7 + [0.001] * 4)
    assert used[6] is not used[7]


def test_milestones_and_cosine():
    network = torch.nn.Linear(2, 2)
    p = dataclasses.replace(settings(), epochs=6, milestones=(0.5, 0.8334), drop=0.2)
    step = SCHEDULES["milestones"](network, p, 1.0, 5)
    assert [step(e, 0).param_groups[0]["lr"] for e in range(6)] == pytest.approx([1, 1, 1, 0.2, 0.2, 0.04])
    step = SCHEDULES["cosine"](network, dataclasses.replace(p, epochs=4), 1.0, 5)
    assert [step(e, 0).param_groups[0]["lr"] for e in range(4)] == pytest.approx([1, 0.8536, 0.5, 0.1464], abs=1e-4)


@pytest.mark.parametrize("name", ["drop-restart", "milestones", "cosine", "cosine-epochs", "half-cosine"])
def test_schedule_of_many_short_epochs_fits_into_few_long_passes(name):
    """Early stopping: 12 batches in two passes see the step sizes of 12 epochs of one batch."""
    rules = dataclasses.replace(protocol("paper", "nas"), schedule=name, batch=5, epochs=12, milestones=(0.5, 0.75))
    network = torch.nn.Linear(2, 2)
    proxy, few = schedule(network, rules, 0.01, 5), schedule(network, dataclasses.replace(rules, passes=2), 0.01, 30)
    expected = [proxy(epoch, 0).param_groups[0]["lr"] for epoch in range(12)]
    found = [few(step // 6, step % 6).param_groups[0]["lr"] for step in range(12)]
    assert len(set(expected)) > 1
    assert found == pytest.approx(expected)


def test_least_number_of_steps():
    p = settings(epochs=2, min_steps=20, batch=5)
    assert (p.epochs_for(3), p.epochs_for(10), p.epochs_for(100)) == (20, 10, 2)


def test_diverged_training_says_so(small_set):
    with pytest.raises(DivergenceError, match=r"diverged in epoch \d+.*\n.*--set lr="):
        train(new_network(tiny.MODEL, small_set, 0), small_set, settings(lr=1e25, epochs=8), 0)


@pytest.mark.parametrize("soft", [False, True])
def test_training_whose_loss_grows_beyond_all_measure_has_diverged(small_set, monkeypatch, soft):
    """Loss and weights stay finite: two million times the loss of the start is no result all the same."""
    if soft:  # what is a large loss is a matter of how large the answers are to be
        labels = 30 * torch.nn.functional.one_hot(small_set.labels, small_set.num_classes).float()
        small_set = dataclasses.replace(small_set, labels=labels, label_kind="targets")
    network = new_network(tiny.MODEL, small_set, 0)
    train(network, small_set, settings(lr=1e-4), 0)
    scale = 2e6 * (900 / small_set.num_classes if soft else 1)
    for kind, loss in LOSSES.items():
        monkeypatch.setitem(LOSSES, kind, lambda answers, labels, loss=loss: loss(answers, labels) * 0 + scale)
    with pytest.raises(DivergenceError, match=r"the loss is [26]e\+\d+"):
        train(network, small_set, settings(), 0)


def test_learned_step_size_is_used_only_where_the_protocol_says(small_set):
    learned = dataclasses.replace(small_set, lr=0.02)
    plain = train(new_network(tiny.MODEL, small_set, 0), small_set, settings(lr=0.02), 0)
    used = train(new_network(tiny.MODEL, learned, 0), learned, settings(), 0)
    ignored = train(new_network(tiny.MODEL, learned, 0), learned, settings(lr_from_set=False), 0)
    assert torch.equal(weights(plain), weights(used))
    assert not torch.equal(weights(ignored), weights(used))


def test_correct_is_image_by_image(small_set):
    network = new_network(tiny.MODEL, small_set, 0)
    found = correct(network, tiny.real_set(), Conditions(space=tiny.SPACE))
    network.eval()
    expected = [
        int(network(small_set.images[i : i + 1]).argmax()) == int(small_set.labels[i]) for i in range(len(found))
    ]
    assert found.tolist() == expected


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="Did you mean 'quick'"):
        protocol("quik", "accuracy")
    with pytest.raises(UsageError, match="Did you mean 'epochs'"):
        protocol("quick", "accuracy").with_overrides({"epoch": "3"})
    with pytest.raises(UsageError, match="is not a value for epochs"):
        protocol("quick", "accuracy").with_overrides({"epochs": "many"})


def test_changed_protocol_is_named():
    assert protocol("paper", "accuracy").with_overrides({"epochs": "300"}).name == "paper+epochs=300"
    assert protocol("paper", "accuracy").with_overrides({"epochs": "1000"}).name == "paper"


@pytest.mark.parametrize("name", protocol_names())
def test_every_protocol_loads_for_its_tasks(name):
    for task in protocol_data(name)["task"]:
        assert protocol(name, task).schedule in SCHEDULES


def test_dc_is_evaluated_as_published():
    p = protocol("paper", "accuracy", "dc")
    assert (p.epochs, p.eval_augment, p.nets, p.sets) == (300, "none", 20, 5)


@pytest.mark.parametrize("name", protocol_names())
@pytest.mark.parametrize("dataset", ["mnist", "mnist-mirrored", "svhn"])
def test_digits_are_never_mirrored(name, dataset):
    for task in protocol_data(name)["task"]:
        for method in (None, "dc", "dsa", "dm", "mtt", "ftd", "idc", "cafe", "cafe-dsa", "datadam"):
            found, usual = (protocol(name, task, method, data) for data in (dataset, "cifar10"))
            assert "flip" not in found.eval_augment
            assert found.version == 2
            if method not in ("dc", "idc") and name not in ("idc", "legacy-idc"):
                unmirrored = "_".join(part for part in usual.eval_augment.split("_") if part != "flip")
                network = found.eval_model if name == "legacy-dd" else usual.eval_model  # LeNet for digits there
                assert found == dataclasses.replace(usual, eval_augment=unmirrored, version=2, eval_model=network)


@pytest.mark.parametrize("dataset", [None, "cifar10", "cifar100", "fashionmnist", "tinyimagenet", "imagenette"])
def test_other_data_sets_have_the_common_protocol(dataset):
    lenet = {"version": 2, "eval_model": "lenet"}
    own = {("idc", "fashionmnist"): {"version": 2}, ("legacy-dd", "fashionmnist"): lenet}
    for name in protocol_names():
        for task in protocol_data(name)["task"]:
            for method in (None, "dc", "idc", "dm"):
                found, usual = protocol(name, task, method, dataset), protocol(name, task, method)
                assert usual.version == 1
                assert found == dataclasses.replace(usual, **own.get((name, dataset), {}))


def test_protocols_of_dc_and_idc_on_digits():
    dc, idc, svhn = (
        protocol("paper", "accuracy", m, d) for m, d in [("dc", "mnist"), ("idc", "mnist"), ("idc", "svhn")]
    )
    assert (dc.epochs, dc.eval_augment, dc.eval_dispatcher, dc.nets) == (1000, "crop_scale_rotate", "dc", 20)
    assert protocol("legacy-fyi-code", "accuracy", "dc", "mnist").keyed() == dc.keyed()
    assert (idc.cutmix, idc.eval_augment, idc.batch) == (0.0, "color_crop_scale_rotate", 64)
    assert (svhn.cutmix, svhn.eval_augment, svhn.batch) == (0.5, "color_crop_scale_rotate", 64)
    assert protocol("paper", "accuracy", "dc", "svhn").epochs == 300
    for name in ("idc", "legacy-idc"):
        assert protocol(name, "accuracy", "idc", "mnist", {"size": 28}).cutmix == 0
        assert protocol(name, "accuracy", "idc", "fashionmnist", {"size": 28}).cutmix == 0.5
    assert protocol("paper", "accuracy", "dream", "mnist").keyed() == idc.keyed()
    assert protocol("paper", "accuracy", "dcc", "mnist").keyed() == dc.keyed()
    assert protocol("paper", "accuracy", "idm", "tinyimagenet").eval_model == "convnet3"
    assert protocol("paper", "accuracy", "idc", "fashionmnist") == protocol("paper", "accuracy", "idc")


def test_the_retraining_of_dc_on_digits_is_repeatable_and_augments(small_set):
    small = dataclasses.replace(protocol("paper", "accuracy", "dc", "mnist"), eval_model=tiny.MODEL, epochs=2, batch=5)
    plain = dataclasses.replace(small, eval_augment="none")
    found = [train(new_network(tiny.MODEL, small_set, 0), small_set, p, 1).losses for p in (small, small, plain)]
    assert found[0] == found[1] != found[2]


def test_a_question_about_digits_has_their_protocol(tmp_path):
    session = Session(Settings(dataset="svhn", protocol="quick", store=tmp_path))
    assert {session.protocol(task).version for task in ("accuracy", "continual", "nas", "robust")} == {2}


@pytest.mark.slow
def test_case_11_statistics_of_the_published_retraining(data_root):
    """ConvNet on 100 real images for 300 epochs: final accuracy and last training loss as recorded."""
    from fyi_bench.data import load_dataset

    data, cifar = golden("case11_evaluate_synset"), load_dataset("cifar10", data_root)
    train_set = ImageSet(
        torch.from_numpy(data["images_u8"]), torch.from_numpy(data["labels"]), cifar.train.space, 10
    ).to_space(cifar.space)
    p = dataclasses.replace(protocol("paper", "accuracy", "dsa"), epochs=300)
    trained = train(new_network("convnet", train_set, 0), train_set, p, 0)
    test_set = cifar.test.select(torch.arange(2000))  # rows are class-balanced block by block
    recorded = [float(data[f"final_test_acc_seed{s}"]) for s in (0, 1)]
    assert abs(accuracy(trained.network, test_set, Conditions(space=cifar.space)) - sum(recorded) / 2) < 0.04
    expected = sum(data[f"train_loss_seed{s}"][-20:].mean() for s in (0, 1)) / 2
    assert 0.5 < (sum(trained.losses[-20:]) / 20) / expected < 2


def test_networks_that_are_no_convnets_may_have_a_step_size_of_their_own():
    quick = protocol("quick", "accuracy")
    assert (quick.for_network("convnet-w32").lr, quick.for_network("vgg11").lr) == (0.05, 0.01)
    assert quick.for_network("vgg11").keyed().keys() == protocol("paper", "accuracy").keyed().keys()
    asked = quick.with_overrides({"lr": "0.02"})
    assert (asked.name, asked.for_network("convnet").lr, asked.for_network("vgg11").lr) == ("quick+lr=0.02", 0.02, 0.02)
    paper = protocol("paper", "accuracy")
    assert paper.for_network("vgg11").lr == paper.lr == 0.01


@pytest.mark.parametrize("key", ["nets", "sets", "orders", "batch", "epochs"])
def test_a_count_below_one_is_refused(key):
    with pytest.raises(UsageError, match=f"^{key} must be 1 or more, not 0"):
        protocol("quick", "accuracy").with_overrides({key: "0"})
    with pytest.raises(UsageError, match=r"^passes must be 0"):
        protocol("quick", "accuracy").with_overrides({"passes": "-1"})


@pytest.mark.parametrize("source", [None, tiny.SPACE])
def test_many_images_change_space_in_parts_to_the_same_bits(source, monkeypatch):
    images = tiny.real_set() if source is None else tiny.real_set().to_space(source)
    target = tiny.SPACE if source is None else PixelSpace()
    whole = images.to_space(target).images
    monkeypatch.setattr("distill.spaces._AT_ONCE_ON_CPU", 7)
    assert len(images) > 7
    assert torch.equal(images.to_space(target).images, whole)


def test_a_set_too_large_to_keep_in_its_space_trains_to_the_same_bits(monkeypatch):
    real = tiny.real_set()
    there = Conditions(space=tiny.SPACE)
    kept = train(new_network(tiny.MODEL, real, 0), real, settings(), 0, there)
    monkeypatch.setattr("downstream.training.KEEP_AS_FLOAT_BYTES", 0)
    by_batch = train(new_network(tiny.MODEL, real, 0), real, settings(), 0, there)
    assert torch.equal(weights(by_batch), weights(kept))


def standardised(images: torch.Tensor) -> torch.Tensor:
    return (images - images.mean()) / images.std()


def test_a_standardised_batch_is_that_of_a_set_made_so_before(small_set):
    rules = settings(batch=len(small_set), eval_augment="color_cutout_flip", epochs=4)
    before = dataclasses.replace(small_set, images=standardised(3 * small_set.images + 1))
    expected = train(new_network(tiny.MODEL, before, 0), before, rules, 0)
    changed = dataclasses.replace(small_set, images=3 * small_set.images + 1)
    found = train(new_network(tiny.MODEL, changed, 0), changed, dataclasses.replace(rules, standardise=True), 0)
    torch.testing.assert_close(weights(found), weights(expected), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(weights(train(new_network(tiny.MODEL, changed, 0), changed, rules, 0)), weights(found))


def test_test_images_are_standardised_batch_by_batch_too(small_set, monkeypatch):
    monkeypatch.setattr("downstream.training.EVAL_BATCH", 4)
    rules = dataclasses.replace(settings(), standardise=True)
    test_set = dataclasses.replace(small_set, images=small_set.images.square())
    network = train(new_network(tiny.MODEL, small_set, 0), small_set, rules, 0).network.eval()
    batches = [standardised(part) for part in test_set.images.split(4)]
    right = torch.cat([network(x) for x in batches]).argmax(dim=1) == test_set.labels
    assert correct(network, test_set, Conditions().by(rules)).tolist() == right.tolist()
    (result,) = train_and_test(small_set, test_set, rules, [0])
    assert result.accuracy == pytest.approx(float(right.double().mean()))
    assert correct(network, test_set).tolist() != right.tolist()


def test_haba_is_measured_on_standardised_batches_and_continual_learning_is_not():
    assert protocol("legacy-haba", "accuracy").standardise
    assert not protocol("paper", "accuracy").standardise
    assert "standardise" not in protocol("paper", "accuracy").keyed()
    with pytest.raises(UsageError, match="not trained class by class"):
        protocol("quick", "continual").with_overrides({"standardise": "true"})

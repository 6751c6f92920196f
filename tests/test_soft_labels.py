"""Training on a teacher's labels: each option against a plain twin, stored labels as read, and the named protocols."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math

import pytest
import torch
import torch.nn.functional as F

import search_space.architectures
import tiny
from distill.cutmix import draw_cutmix
from downstream.protocol import Protocol, protocol, protocol_names
from downstream.schedules import SCHEDULES
from downstream.teaching import Teaching, divergence, loss_of
from downstream.training import Conditions, new_network, train
from downstream.views import draw_boxes, draw_strips, enlarged
from fyi_bench import rng
from fyi_bench.errors import UnknownNameError, UsageError

SIZE, BATCH = tiny.SIZE, 5
# without norms no gradient is rounding alone, whose sign AdamW would follow
MODEL = "convnet-w8-d2-nonorm"


@pytest.fixture(scope="module")
def small():
    return tiny.real_set(per_class=4).to_space(tiny.SPACE)


@pytest.fixture(scope="module")
def teacher(small):
    plain = rules(epochs=10, labels="own", loss="cross-entropy", optimiser="sgd", lr=0.05)
    return train(new_network(MODEL, small, 9), small, plain, 9).network


def rules(**changes) -> Protocol:
    base = dataclasses.replace(
        protocol("quick", "accuracy"), name="soft", eval_model=MODEL, epochs=3, min_steps=0, batch=BATCH, lr=0.003,
        eval_augment="none", weight_decay=0.01, optimiser="adamw", schedule="half-cosine", labels="teacher", loss="kl",
        temperature=20.0, decay="matrices",
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


class Plain:
    """The published loop in words: per epoch and batch crop, mirror, mix, ask the teacher, AdamW, running average."""

    def __init__(self, network, teacher, p: Protocol):
        self.network, self.teacher, self.p = copy.deepcopy(network).train(), teacher, p
        named = list(self.network.named_parameters())
        groups = [
            {"params": [w for name, w in named if name.endswith("weight") and w.ndim > 1], "weight_decay": 0.01},
            {"params": [w for name, w in named if not (name.endswith("weight") and w.ndim > 1)], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=p.lr, betas=(0.9, 0.999))
        self.average = [w.detach().clone() for _, w in named]

    def epoch(self, epoch: int, batches) -> None:
        for x in batches:
            for group in self.optimiser.param_groups:
                group["lr"] = self.p.lr * 0.5 * (1 + math.cos(math.pi * epoch / self.p.epochs / 2))
            with torch.no_grad():
                wanted = F.softmax(self.teacher(x) / self.p.temperature, dim=1)
            answers = F.log_softmax(self.network(x) / self.p.temperature, dim=1)
            self.step(torch.nn.KLDivLoss(reduction="batchmean")(answers, wanted))

    def step(self, loss) -> None:
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        with torch.no_grad():
            for mean, now in zip(self.average, self.network.parameters(), strict=True):
                mean.copy_(0.9 * mean + 0.1 * now)


def plain_crop(image, box):
    top, left, height, width = box.tolist()
    piece = image[None, :, top : top + height, left : left + width]
    return F.interpolate(piece, image.shape[-2:], mode="bilinear", align_corners=False)[0]


def order(seed: int, epoch: int, count: int):
    return torch.randperm(count, generator=rng.stream(seed, "shuffle", epoch)).split(BATCH)


def test_a_teachers_labels_with_crops_mixes_and_average_are_the_published_loop(small, teacher):
    p = rules(resized_crop=(0.2, 1.0), cutmix=1.0, ema=0.9)
    network = new_network(MODEL, small, 3)
    plain = Plain(network, teacher, p)
    trained = train(network, small, p, 3, Conditions(teaching=Teaching((teacher,))))
    for epoch in range(p.epochs):
        batches = []
        for number, index in enumerate(order(3, epoch, len(small))):
            boxes = draw_boxes(rng.stream(3, "resized crop", epoch, number), len(index), SIZE, (0.2, 1.0))
            x = torch.stack([plain_crop(image, box) for image, box in zip(small.images[index], boxes, strict=True)])
            mix = draw_cutmix(rng.stream(3, "cutmix", epoch, number), len(index), (SIZE, SIZE), 1.0, 1.0)
            top, bottom, left, right = mix.boxes[0].tolist()
            x[:, :, top:bottom, left:right] = x.clone()[mix.permutation][:, :, top:bottom, left:right]
            batches.append(x)
        plain.epoch(epoch, batches)
    expected = torch.cat([mean.flatten() for mean in plain.average])
    torch.testing.assert_close(weights(trained.network), expected, rtol=2e-4, atol=2e-5)
    assert not torch.allclose(weights(plain.network), expected, atol=1e-4)


@dataclasses.dataclass(frozen=True)
class Stored:
    """Labels of every step, in memory."""

    steps: list
    epochs: int
    batch_size: int
    images: int
    classes: int = tiny.CLASSES

    @property
    def batches(self) -> int:
        return math.ceil(self.images / self.batch_size)

    def batch(self, epoch, number):
        return self.steps[epoch * self.batches + number]


def stored_labels(small, teacher, epochs=2) -> tuple[Stored, list[torch.Tensor]]:
    """Labels as `fyi_bench.formats.fkd` gives them, made of draws of our own, and the images that they are for."""
    from fyi_bench.formats.fkd import FKDBatch, Mix

    steps, seen = [], []
    for epoch in range(epochs):
        for number, index in enumerate(order(1, epoch, len(small))):
            g = rng.stream(5, "stored", epoch, number)
            boxes = draw_boxes(g, len(index), SIZE, (0.3, 1.0))
            flips = torch.rand(len(index), generator=g) < 0.5
            mix = Mix(torch.randperm(len(index), generator=g), 0.7, (1, 2, 5, 8) if number else None)
            x = torch.stack([plain_crop(image, box) for image, box in zip(small.images[index], boxes, strict=True)])
            x = mix(torch.where(flips.view(-1, 1, 1, 1), x.flip(-1), x))
            with torch.no_grad():
                logits = teacher(x)
            steps.append(FKDBatch(index, boxes / SIZE, flips, mix, logits))
            seen.append(x)
    return Stored(steps, epochs, BATCH, len(small)), seen


def test_stored_labels_are_those_of_a_teacher_asked_for_the_same_images(small, teacher):
    p = rules(epochs=2)
    stored, seen = stored_labels(small, teacher)
    network = new_network(MODEL, small, 3)
    plain = Plain(network, teacher, p)
    trained = train(network, small, p, 3, Conditions(teaching=Teaching(stored=stored)))
    for epoch in range(2):
        plain.epoch(epoch, seen[epoch * stored.batches : (epoch + 1) * stored.batches])
    torch.testing.assert_close(weights(trained.network), weights(plain.network), rtol=2e-4, atol=2e-5)


def test_stored_labels_of_something_else_are_refused(small, teacher):
    stored, _ = stored_labels(small, teacher, epochs=1)
    where = Conditions(teaching=Teaching(stored=stored))
    for changes, message in (
        ({"epochs": 2}, r"trains for 2 epochs, and labels of 1 are\s+stored.*\n.*--set epochs=1"),
        ({"epochs": 1, "batch": 4}, r"in batches of 5, and soft has 4.\n.*--set batch=5"),
    ):
        with pytest.raises(UsageError, match=message):
            train(new_network(MODEL, small, 0), small, rules(**changes), 0, where)
    with pytest.raises(UsageError, match=r"of 12 images and 3 classes, the set has 11"):
        train(new_network(MODEL, small, 0), small.select(torch.arange(11)), rules(epochs=1), 0, where)
    with pytest.raises(UsageError, match=r"trains on a teacher's labels, and there is no teacher"):
        train(new_network(MODEL, small, 0), small, rules(), 0)


def test_several_teachers_squared_loss_and_classes(small, teacher):
    """One step of EDC's and G-VBSM's loss: mean logits of the teachers, and the classes of the images."""
    other = train(new_network(MODEL, small, 8), small, rules(labels="own", loss="cross-entropy"), 8).network
    given = {"loss": "mse", "hard_weight": 0.025, "epochs": 1, "schedule": "constant", "mixup": 0.8}
    p = rules(**given, batch=len(small), optimiser="sgd")  # the first step of AdamW tells the sign of a gradient alone
    network = new_network(MODEL, small, 3)
    plain = Plain(network, teacher, p)
    decays = [{key: group[key] for key in ("params", "weight_decay")} for group in plain.optimiser.param_groups]
    plain.optimiser = torch.optim.SGD(decays, lr=p.lr, momentum=p.momentum)
    trained = train(network, small, p, 3, Conditions(teaching=Teaching((teacher, other))))
    from distill.cutmix import draw_mixup

    index = torch.randperm(len(small), generator=rng.stream(3, "shuffle", 0))
    partners, share = draw_mixup(rng.stream(3, "mixup", 0, 0), len(small), 0.8)
    x = small.images[index]
    x = float(share) * x + (1 - float(share)) * x[partners]
    with torch.no_grad():
        wanted = (teacher(x) + other(x)) / 2
    answers = plain.network(x)
    plain.step(((answers - wanted) ** 2).mean() + 0.025 * F.cross_entropy(answers, small.labels[index]))
    torch.testing.assert_close(weights(trained.network), weights(plain.network), rtol=2e-4, atol=2e-5)


def test_labels_hard_and_own_of_a_soft_set(small, teacher):
    logits = teacher(small.images).detach()
    soft = dataclasses.replace(small, labels=logits)
    hard = dataclasses.replace(small, labels=logits.argmax(1))
    p = rules(labels="hard", epochs=1)
    a, b = (train(new_network(MODEL, small, 0), one, p, 0).network for one in (soft, hard))
    assert torch.equal(weights(a), weights(b))
    own = loss_of(rules(labels="own"), "logits")(logits + 1.5, logits.flip(0))
    assert float(own) == pytest.approx(float(divergence(logits, logits.flip(0), 20.0)), rel=1e-4)
    spread = loss_of(rules(labels="own"), "probabilities")(logits, logits.flip(0).softmax(1))
    assert float(spread) == pytest.approx(float(own), rel=1e-4)


def test_boxes_are_torchvisions_distribution_and_enlarging_is_interpolation():
    boxes = draw_boxes(rng.stream(0, "boxes"), 4000, 32, (0.08, 1.0))
    top, left, height, width = boxes.unbind(1)
    assert int(boxes.min()) >= 0
    assert int((top + height).max()) <= 32
    assert int((left + width).max()) <= 32
    share = (height * width).double() / 1024
    assert float(share.min()) > 0.07
    assert float(share.mean()) == pytest.approx(0.5, abs=0.03)  # a little below 0.54: large ones fit less often
    ratio = width.double() / height
    assert 0.6 < float(ratio.min()) < float(ratio.max()) < 1.6
    x = torch.rand(6, 3, 32, 32, generator=rng.stream(0, "x"), dtype=torch.float64)
    expected = torch.stack([plain_crop(image, box) for image, box in zip(x, boxes[:6], strict=True)])
    torch.testing.assert_close(enlarged(x, boxes[:6]), expected, rtol=1e-10, atol=1e-12)
    whole = torch.tensor([[0, 0, 32, 32]]).expand(6, 4)
    torch.testing.assert_close(enlarged(x, whole), x)


def test_strips_are_whole_and_in_any_order():
    places = draw_strips(rng.stream(0, "strips"), 50, 9, 2)
    assert {tuple(row) for row in places.tolist()} == {tuple(range(9)), (4, 5, 6, 7, 8, 0, 1, 2, 3)}


def test_step_sizes_epoch_by_epoch():
    network = torch.nn.Linear(2, 2)
    for name, expected in (("cosine-epochs", [1, 0.8536, 0.5, 0.1464]), ("half-cosine", [1, 0.9619, 0.8536, 0.6913])):
        step = SCHEDULES[name](network, rules(epochs=4, lr=1.0), 1.0, 5)
        groups = [step(e, 3).param_groups for e in range(4)]
        assert len(groups[0]) == 2
        step_sizes = []
        for e in range(4):
            step_sizes.append([group["lr"] for group in step(e, 3).param_groups])
        assert [pair[0] for pair in step_sizes] == [pair[1] for pair in step_sizes] == pytest.approx(expected, abs=1e-4)


def test_choices_are_checked():
    with pytest.raises(UnknownNameError, match=r"optimiser 'adamm'.*\n?.*adam"):
        protocol("quick", "accuracy").with_overrides({"optimiser": "adamm"})


def test_images_in_another_space_are_shown_to_the_teacher_in_its_own(small, teacher):
    from distill.spaces import PixelSpace

    pixels = small.to_space(PixelSpace())
    p = rules(epochs=1)
    same = train(new_network(MODEL, small, 0), small, p, 0, Conditions(teaching=Teaching((teacher,))))
    where = Conditions(space=PixelSpace(), teaching=Teaching((teacher,), space=tiny.SPACE))
    asked = train(new_network(MODEL, small, 0), pixels, p, 0, where)
    assert not torch.equal(weights(same.network), weights(asked.network))
    x = small.images[:3]
    answer = Teaching((teacher,), space=tiny.SPACE).logits(tiny.SPACE.decode(x), PixelSpace(), lambda net, y: net(y))
    torch.testing.assert_close(answer, teacher(x), rtol=1e-4, atol=1e-5)


def test_digests_of_what_was_there_before_stay():
    """What is at its old value is in no digest."""
    for name in ("paper", "quick", "legacy-mtt"):
        new = {"labels", "loss", "optimiser", "ema", "resized_crop", "teacher_model", "temperature"}
        assert not new & protocol(name, "accuracy").keyed().keys()
    assert Protocol.rebuilt("soft", 1, "accuracy", rules().keyed()).keyed() == rules().keyed()


SOFT = ("sre2l", "rded", "edc", "g-vbsm", *(name for name in protocol_names() if name.startswith("ddranking-")))


@pytest.mark.parametrize("name", [*SOFT, "minimax", "ncfm", "idc", "datm"])
def test_each_published_procedure_is_complete_and_states_its_source(name):
    from downstream.protocol import CHOICES, FOLDER

    assert "ource:" in (FOLDER / f"{name}.toml").read_text() or name == "datm"
    for size, ipc in itertools.product((32, 64, 224), (1, 10, 50)):
        p = protocol(name, "accuracy", facts={"size": size, "classes": 100, "ipc": ipc})
        assert p.schedule in SCHEDULES
        assert all(getattr(p, key) in known for key, known in CHOICES.items())
        assert len(p.resized_crop) in (0, 2)
        assert not (p.cutmix and p.mixup)
        for model in (p.eval_model, *filter(None, p.teacher_model.split(","))):
            assert search_space.architectures.find(model)
        if p.labels == "teacher":
            teacher = protocol(name, "teacher")
            assert (teacher.labels, teacher.loss, teacher.name) == ("own", "cross-entropy", name)


def test_facts_of_the_published_procedures():
    """A few values, as the makers' files have them."""
    small = {"size": 32, "classes": 10, "ipc": 10}
    large = {"size": 224, "classes": 1000, "ipc": 10}
    p = protocol("sre2l", "accuracy", facts=large)
    assert (p.epochs, p.batch, p.temperature, p.cutmix, p.mixup) == (300, 1024, 20, 1, 0)
    p = protocol("sre2l", "accuracy", facts=small)
    assert (p.epochs, p.batch, p.temperature, p.cutmix, p.mixup, p.eval_augment) == (400, 128, 30, 0, 0.8, "crop_flip")
    p = protocol("rded", "accuracy", facts=small)
    assert (p.batch, p.patches, p.resized_crop, p.eval_model) == (50, 1, (1.0, 1.0), "convnetbn")
    assert protocol("rded", "accuracy", facts={**large, "ipc": 1}).batch == 20
    assert protocol("rded", "accuracy", facts={**small, "size": 64, "classes": 200}).batch == 100
    sizes = {1: 3000, 10: 2000, 50: 1500, 100: 1000}
    facts = {n: {"size": 224, "classes": 10, "ipc": n} for n in sizes}
    assert {n: protocol("minimax", "accuracy", facts=facts[n]).epochs for n in sizes} == sizes
    assert protocol("minimax", "accuracy", facts={**large, "classes": 100}).epochs == 1300
    p = protocol("edc", "accuracy", facts=large)
    assert (p.loss, p.hard_weight, p.ema, p.optimiser) == ("mse", 0.025, 0.99, "adamw")
    assert len(p.teacher_model.split(",")) == 5
    p = protocol("ddranking-d4m", "accuracy", facts={**small, "classes": 100})
    assert (p.epochs, p.temperature, p.batch, p.eval_model) == (500, 30, 100, "convnet")
    assert protocol("ddranking-dc", "accuracy").eval_augment == "none"
    assert protocol("ncfm", "accuracy").milestones == (0.2, 0.4, 0.6, 0.8)


def test_networks_of_the_published_procedures_take_their_sizes():
    """Parameters of ResNetAP-10 as its makers' code has them: ImageNet's form, and CIFAR's with half the width."""
    assert search_space.architectures.cost("resnet10ap", 3, 224, 10).parameters == 4_910_922
    assert search_space.architectures.cost("resnet10ap", 3, 32, 10).parameters == 1_228_970
    assert search_space.architectures.cost("small:resnet50", 3, 64, 200).parameters == 23_910_152

"""CAFE and DataDAM against plain loops over classes, and CAFE's dynamic loops and schedule."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

import tiny
from distill.contracts import Context
from distill.engine import distill
from distill.fyi import FLIPS
from distill.image_set import ImageSet
from distill.method import Method
from distill.methods import METHODS
from distill.methods.cafe import WATCHED, Watch, layer_weights, squeezed
from distill.problem import Problem
from distill.recipes import recipe
from fyi_bench.errors import UsageError

METHODS_HERE = ["cafe", "cafe-dsa", "datadam"]


def context(name: str, flip: str = "none", problem: Problem | None = None, **changes) -> tuple[Method, Context]:
    problem = problem or tiny.problem(dtype=torch.float64)
    method = METHODS.get(name)(tiny.config(name, **changes), problem)
    images = method.initial_images().requires_grad_(True)
    labels = torch.arange(problem.num_classes).repeat_interleave(problem.ipc)
    ctx = Context(problem, method, FLIPS.get(flip), images, labels)
    method.begin(ctx)
    return method, ctx


def uneven(smallest: int) -> ImageSet:
    """The tiny real set with so many images of its second class."""
    real = tiny.real_set()
    return real.select(torch.cat([real.indices_of(c)[: smallest if c == 1 else None] for c in range(tiny.CLASSES)]))


def class_batches(method: Method, ctx: Context, flip: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(real, synthetic) of each class as the network sees them: expanded, then augmented by one draw a class."""
    problem = ctx.problem
    draw = method.augmentation.draw_classes(ctx.stream("augment"), problem.num_classes, problem.shape[-1])
    batches = []
    for c, real in enumerate(ctx.real(method.config.batch_real)):
        real = real[: len(problem.rows[c])]  # a small class repeats its images to fill the row
        mine = ctx.images[c * problem.ipc : (c + 1) * problem.ipc]
        mine = torch.cat([mine, mine.flip(-1)]) if flip == "fyi" else mine
        batches.append(tuple(method.augmentation.apply(x, draw.select([c])) for x in (real, mine)))
    return batches


def plain_cafe(method: Method, ctx: Context, flip: str) -> torch.Tensor:
    batches, net, c = class_batches(method, ctx, flip), method.network, method.config
    total, flat_real, flat_mean, owner, logits = 0.0, [], [], [], []
    for label, (real, mine) in enumerate(batches):
        found = [
            [*(b.activated for b in blocks), blocks[-1].pooled] for blocks in map(net.features_per_block, (real, mine))
        ]
        weights = [c.weights[-3], c.weights[-2], c.weights[-1]]  # two blocks, then the pooled map
        for weight, r, s in zip(weights, *found, strict=True):
            total = total + weight * ((r.mean(0) - s.mean(0)) ** 2).sum()
        total = total + ((found[0][-1].mean(0) - found[1][-1].mean(0)) ** 2).sum()
        flat_real.append(found[0][-1].flatten(1))
        flat_mean.append(found[1][-1].mean(0).flatten())
        owner += [label] * len(real)
        logits.append(net(real))
    labels = torch.tensor(owner)
    inner = F.cross_entropy(torch.cat(flat_real) @ torch.stack(flat_mean).T, labels, reduction="sum")
    return total + c.inner_weight * inner + F.cross_entropy(torch.cat(logits), labels)


def plain_datadam(method: Method, ctx: Context, flip: str) -> torch.Tensor:
    total, c = 0.0, method.config
    for real, mine in class_batches(method, ctx, flip):
        maps = []
        for x in (real, mine):
            blocks = method.network.features_per_block(x)
            attention = [(b.activated**c.power).sum(1).flatten(1) for b in blocks[:-1]]
            maps.append(
                [*((a / a.norm(dim=1, keepdim=True)).mean(0) for a in attention), method.network.embed(x).mean(0)]
            )
        for layer, (r, s) in enumerate(zip(*maps, strict=True)):
            weight = c.task_balance if layer == len(maps[0]) - 1 else 1
            total = total + 100 * weight * ((r - s) ** 2).sum()
    return total


PLAIN = {"cafe": plain_cafe, "cafe-dsa": plain_cafe, "datadam": plain_datadam}


@pytest.mark.long
@pytest.mark.parametrize("name", METHODS_HERE)
@pytest.mark.parametrize("flip", ["none", "fyi"])
@pytest.mark.parametrize("smallest", [tiny.PER_CLASS, 4])
def test_loss_and_gradient_are_those_of_the_loop_over_classes(name, flip, smallest):
    problem = tiny.problem(real=uneven(smallest), dtype=torch.float64)
    for number in range(4):  # other operations of the augmentation
        method, ctx = context(name, flip, problem, init="real")
        ctx.iteration = number
        expected = PLAIN[name](method, ctx, flip)
        (gradient,) = torch.autograd.grad(expected, ctx.images)
        loss = method.backward(ctx)
        assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-10)
        torch.testing.assert_close(ctx.images.grad, gradient, rtol=1e-8, atol=1e-10)
        assert all(p.grad is None for p in method.network.parameters())


@pytest.mark.parametrize("name", METHODS_HERE)
def test_groups_of_real_classes_do_not_change_the_numbers(name):
    losses = []
    for step in (1, 3):
        method, ctx = context(name)
        method.chunks = lambda count, step=step: [slice(c, c + step) for c in range(0, 3, step)]
        losses.append(float(method.loss(ctx).detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_batch_norms_see_each_image_of_a_small_class_once():
    method, ctx = context("dm", problem=tiny.problem(real=uneven(4), dtype=torch.float64), model="convnet-w8-d2-batch")
    real, sizes = ctx.real(method.config.batch_real), [6, 4, 6]
    seen = torch.cat([images[:size] for images, size in zip(real, sizes, strict=True)])
    draw = method.augmentation.draw_classes(ctx.stream("augment"), 3, tiny.SIZE)
    features = method.network.embed(method.augmentation.apply(seen, draw, sizes))
    means = torch.stack([part.mean(0) for part in features.split(sizes)])
    torch.testing.assert_close(method._mean_real_features(real, draw), means, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", METHODS_HERE)
def test_batch_norm_networks_see_all_classes_at_once(name):
    """Grouping would change the statistics: with any group size the loss is the same."""
    losses = []
    for step in (1, 3):
        method, ctx = context(name, model="convnet-w8-d2-batch")
        method.chunks = lambda count, step=step: [slice(c, c + step) for c in range(0, 3, step)]
        losses.append(float(method.loss(ctx).detach()))
    assert losses[0] == losses[1]
    assert bool(
        torch.isfinite(distill(tiny.problem(), name, tiny.config(name, 2, model=method.config.model)).images).all()
    )


@pytest.mark.parametrize("name", METHODS_HERE)
def test_half_precision_of_the_real_branch_stays_close(name):
    losses = []
    for precision in ("fp32", "bf16"):
        method, ctx = context(name, problem=tiny.problem(precision=precision))
        losses.append(float(method.loss(ctx).detach()))
    assert losses[1] != losses[0]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.parametrize("name", METHODS_HERE)
def test_networks_without_blocks_are_refused(name):
    with pytest.raises(UsageError, match="blocks of a ConvNet, which 'vgg11' is not"):
        context(name, problem=tiny.problem(real=tiny.real_set(size=32)), model="vgg11")


def test_one_block_has_an_embedding_only():
    method, ctx = context("datadam", model="convnet-w8-d1")
    means = [method.network.embed(torch.cat(pair)) for pair in class_batches(method, ctx, "none")]
    size = method.config.batch_real
    expected = sum(((m[:size].mean(0) - m[size:].mean(0)) ** 2).sum() for m in means).detach()
    assert float(method.loss(ctx).detach()) == pytest.approx(float(100 * method.config.task_balance * expected))


def test_weights_line_up_with_the_deepest_block():
    published = (0.1, 0.2, 1.0, 2.0)
    assert layer_weights(published, 4) == [0.1, 0.2, 1.0, 2.0]
    assert layer_weights(published, 6) == [0.1, 0.1, 0.1, 0.2, 1.0, 2.0]
    assert layer_weights(published, 2) == [1.0, 2.0]


def test_schedule_halves_as_published_and_is_squeezed_into_shorter_runs():
    published = (1200, 1600, 1800)
    assert squeezed(published, 2000) == [1200, 1600, 1800]
    assert squeezed(published, 60) == pytest.approx([36, 48, 54])
    assert squeezed((36, 48, 54), 30) == pytest.approx([18, 24, 27])
    assert squeezed((), 10) == []
    values = recipe("cafe", "cifar10", 10).values
    method = METHODS.get("cafe")(METHODS.get("cafe").Config.from_values(values), tiny.problem())
    rates = {it: method.learning_rate(it) for it in (0, 1199, 1200, 1600, 1800, 1999)}
    assert rates == {0: 0.1, 1199: 0.1, 1200: 0.05, 1600: 0.025, 1800: 0.0125, 1999: 0.0125}


def test_a_watch_knows_the_spread_of_the_last_ten():
    watch = Watch()
    values = [0.1 * k for k in range(12)]
    spreads = [watch.spread(v) for v in values]
    assert spreads[: WATCHED - 1] == [float("inf")] * (WATCHED - 1)
    assert spreads[WATCHED - 1 :] == pytest.approx([0.9, 0.9, 0.9])
    other = Watch()
    assert [other.full_spread(v) for v in values[:10]] == pytest.approx([0.0] * 9 + [0.9])


class Loops:
    """Runs one iteration of CAFE with made-up accuracies and counts what happens."""

    def __init__(self, monkeypatch, settled, moved, **caps):
        self.method, self.ctx = context("cafe", **{"max_matches": 40, "max_epochs": 40, **caps})
        self.epochs, self.asked = [0], 0
        sources = {"settled": settled, "moved": moved}

        def accuracy(ctx, kind, *keys):
            self.asked += 1
            return next(sources[kind])

        def epoch(ctx, number):
            assert number == self.epochs[-1]
            self.epochs[-1] += 1

        monkeypatch.setattr(self.method, "_accuracy", accuracy)
        monkeypatch.setattr(self.method, "train_epoch", epoch)
        self.matches = 1
        while self.method.advance(self.ctx):
            self.matches, self.ctx.match = self.matches + 1, self.ctx.match + 1
            self.epochs.append(0)
        self.epochs.pop()


def test_matching_ends_when_ten_accuracies_lie_close(monkeypatch):
    rising = itertools.chain((0.1 * k for k in range(5)), itertools.repeat(0.4))
    apart = itertools.cycle([0.0, 1.0])
    loops = Loops(monkeypatch, rising, apart)
    assert loops.matches == 14  # 0.0 … 0.4 and nine more of 0.4: the last ten are equal
    assert set(loops.epochs) == {WATCHED}  # the first ten accuracies are apart already


def test_training_goes_on_until_the_accuracy_has_moved(monkeypatch):
    after_25 = itertools.chain([0.5] * 24, [0.6], itertools.cycle([0.0, 1.0]))
    loops = Loops(monkeypatch, itertools.repeat(0.5), after_25)
    assert loops.matches == WATCHED
    assert loops.epochs[0] == 25
    assert loops.epochs[1:] == [WATCHED] * (WATCHED - 2)


def test_caps_end_loops_that_would_not_end_by_themselves(monkeypatch):
    loops = Loops(monkeypatch, itertools.cycle([0.0, 1.0]), itertools.repeat(0.5), max_matches=12, max_epochs=15)
    assert (loops.matches, loops.epochs) == (12, [15] * 11)


def test_accuracies_that_cannot_decide_are_not_measured(monkeypatch):
    loops = Loops(monkeypatch, iter(()), iter(()), max_matches=WATCHED, max_epochs=WATCHED)
    assert (loops.matches, loops.epochs, loops.asked) == (WATCHED, [WATCHED] * (WATCHED - 1), 0)


def test_accuracy_is_that_of_fresh_real_images():
    method, ctx = context("cafe", problem=tiny.problem(real=tiny.real_set(per_class=150)))
    value = method._accuracy(ctx, "settled")
    real = ctx.problem.real_batch(128, "watch", "settled", 0, 0)
    right = [(method.network(x).argmax(1) == c).double().mean() for c, x in enumerate(real)]
    assert value == pytest.approx(float(sum(right) / 3))


def test_the_published_loops_run_to_their_end_on_real_learning():
    """With the watch switched on: an iteration makes at least ten matches, and the images stay finite."""
    changes = {"max_matches": 11, "max_epochs": 11, "lambda_1": 0.04, "lambda_2": 0.03}
    found = distill(tiny.problem(), "cafe-dsa", tiny.config("cafe-dsa", 1, **changes), "fyi")
    assert bool(torch.isfinite(found.images).all())
    assert found.provenance["iterations"] == 1

"""MTT and FTD: the gradient by the adjoint, the student's batches, the learned step size, the averaged images."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

import search_space
import tiny
from distill import trajectory
from distill.contracts import Context
from distill.engine import distill
from distill.fyi import FLIPS
from distill.methods import METHODS
from distill.trajectory import (
    GRADIENTS,
    Descent,
    FlatNetwork,
    StudentBatch,
    trajectory_distance,
    unrolled,
    unrolled_loss,
    walk_back,
)
from fyi_bench import rng
from fyi_bench.errors import UnknownNameError, UsageError

MODELS = ["convnet-w8-d2", "convnet-w8-d2-batch", "convnet-w8-d2-layer-swish-max", "convnet-w8-d2-nonorm-sigmoid"]


def context(method: str = "mtt", flip: str = "none", ipc: int = 2, dtype=torch.float64, **changes) -> Context:
    """A method on its first iteration, begun."""
    problem = tiny.problem(ipc=ipc, dtype=dtype)
    made = METHODS.get(method)(tiny.config(method, ipc=ipc, **changes), problem)
    images = made.initial_images().requires_grad_(True)
    lr = made.extra_parameters()["lr"][0].requires_grad_(True)
    labels = torch.arange(problem.num_classes).repeat_interleave(ipc)
    ctx = Context(problem, made, FLIPS.get(flip), images, labels, {"lr": lr})
    made.begin(ctx)
    return ctx


def student(model: str, steps: int = 4, n: int = 40, b: int = 37):
    """Everything `GRADIENTS` want: batches longer than a part, views that double and shift the images."""
    network = FlatNetwork(search_space.build(model, 3, 8, 3, rng.stream(0, "net")).double())
    images = torch.randn(n, 3, 8, 8, dtype=torch.float64, generator=rng.stream(0, "images"))
    labels = torch.arange(n) % 3
    start = network.values()
    target = start + 0.05 * torch.randn(len(start), dtype=torch.float64, generator=rng.stream(0, "target"))

    def batch(k: int) -> StudentBatch:
        index = torch.randperm(n, generator=rng.stream(0, "order", k))[:b]
        return StudentBatch(
            index, lambda x: (torch.cat([x * 1.1, x.flip(-1).sigmoid()]), torch.cat([labels[index]] * 2)), multiplier=2
        )

    return network, [batch(k) for k in range(steps)], images, torch.tensor(0.3, dtype=torch.float64), start, target


def norm_ratio(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("most", [50, 128, 200, 1000])  # images: in parts, and the graphs of 1, 2 and all steps kept
@pytest.mark.parametrize("model", MODELS)
def test_adjoint_is_the_unrolled_gradient(model, most, monkeypatch):
    monkeypatch.setattr(trajectory, "CPU_PART_SECOND", most)
    given = student(model)
    found, expected = GRADIENTS.get("adjoint")(*given), GRADIENTS.get("unroll")(*given)
    assert norm_ratio(found.loss, expected.loss) < 1e-12
    assert norm_ratio(found.by_images, expected.by_images) < 1e-11
    assert norm_ratio(found.by_lr, expected.by_lr) < 1e-11
    assert norm_ratio(found.weights, expected.weights) < 1e-13


@pytest.mark.parametrize("most", [50, 200])
@pytest.mark.parametrize(("momentum", "averaged", "sizes"), [(0.9, False, 1), (0.9, True, 1), (0.0, False, 4)])
def test_walks_with_momentum_or_step_sizes_of_their_own_are_the_unrolled_ones(
    momentum, averaged, sizes, most, monkeypatch
):
    monkeypatch.setattr(trajectory, "CPU_PART_SECOND", most)
    network, batches, images, _, start, _ = student(MODELS[0])
    batches[2] = batches[0]  # seen twice, as in a second pass
    lr = torch.linspace(0.2, 0.4, sizes, dtype=torch.float64).squeeze(0).requires_grad_(True)
    images.requires_grad_(True)
    x, y = images.detach().flip(0) + 0.1, torch.arange(len(images)) % 3
    found = walk_back(
        network, batches, images, Descent(lr, momentum, averaged), start, lambda w: network.gradient(w, x, y)
    )
    weights, velocity = start.clone().requires_grad_(True), torch.zeros_like(start)
    for k, batch in enumerate(batches):
        loss = network.loss(weights, *batch.shown(images[batch.index]))
        step = torch.autograd.grad(loss, weights, create_graph=True)[0]
        velocity = momentum * velocity + ((1 - momentum) * step if averaged else step)
        weights = weights - (lr[k] if sizes > 1 else lr) * velocity
    expected = network.loss(weights, x, y)
    by_images, by_lr = torch.autograd.grad(expected, [images, lr])
    assert norm_ratio(found.loss, expected) < 1e-12
    assert norm_ratio(found.by_images, by_images) < 1e-11
    assert norm_ratio(found.by_lr, by_lr) < 1e-11
    assert norm_ratio(found.weights, unrolled(network, batches, images, Descent(lr, momentum, averaged), start)) < 1e-13


def test_unrolled_gradient_is_the_finite_difference():
    network, batches, images, lr, start, target = student("convnet-w8-d2-layer-swish")
    found = GRADIENTS.get("unroll")(network, batches, images, lr, start, target)
    way = torch.randn(images.shape, dtype=torch.float64, generator=rng.stream(0, "way"))

    def loss(move: float, step: float) -> float:
        return unrolled_loss(network, batches, images + move * way, lr + step, start, target)[0].item()

    h = 1e-5
    assert (loss(h, 0) - loss(-h, 0)) / (2 * h) == pytest.approx(float((found.by_images * way).sum()), rel=1e-5)
    assert (loss(0, h) - loss(0, -h)) / (2 * h) == pytest.approx(float(found.by_lr), rel=1e-5)


def test_truncated_gradient_is_exact_for_one_step_only():
    for steps, same in ((1, True), (4, False)):
        given = student("convnet-w8-d2", steps)
        exact, truncated = GRADIENTS.get("adjoint")(*given), GRADIENTS.get("tesla")(*given)
        assert torch.equal(exact.loss, truncated.loss)
        assert (norm_ratio(truncated.by_images, exact.by_images) < 1e-12) == same
        assert (norm_ratio(truncated.by_lr, exact.by_lr) < 1e-12) == same


class Held:
    """Bytes of saved activations that are alive, and the most there ever were."""

    def __init__(self):
        self.now = self.most = 0

    def pack(self, tensor: torch.Tensor):
        return _Token(self, tensor)

    @staticmethod
    def unpack(token):
        return token.tensor


class _Token:
    def __init__(self, held: Held, tensor: torch.Tensor):
        self.held, self.tensor = held, tensor.detach()  # with its graph, a saved output would hold itself
        held.now += tensor.nbytes
        held.most = max(held.most, held.now)

    def __del__(self):
        self.held.now -= self.tensor.nbytes


def most_held(gradient: str, steps: int) -> int:
    held, given = Held(), student("convnet-w8-d2", steps)
    with torch.autograd.graph.saved_tensors_hooks(held.pack, held.unpack):
        GRADIENTS.get(gradient)(*given)
    return held.most


def test_adjoint_holds_one_step_whatever_their_number():
    assert most_held("adjoint", 9) == most_held("adjoint", 3)
    assert most_held("unroll", 9) > 2.5 * most_held("unroll", 3)


@pytest.mark.parametrize("flip", list(FLIPS))
@pytest.mark.parametrize("method", ["mtt", "ftd"])
def test_method_takes_the_gradient_of_its_loss(method, flip):
    ctx = context(method, flip, ipc=3)
    expected = torch.autograd.grad(ctx.method.loss(ctx), [ctx.images, ctx.extras["lr"]])
    loss = ctx.method.backward(ctx)
    assert loss.item() == pytest.approx(ctx.method.loss(ctx).item(), rel=1e-12)
    assert norm_ratio(ctx.images.grad, expected[0]) < 1e-10
    assert norm_ratio(ctx.extras["lr"].grad, expected[1]) < 1e-10


def test_loss_is_the_relative_distance_to_a_later_epoch_of_an_expert():
    ctx = context(syn_steps=1, lr_teacher=0.0)
    assert ctx.method.backward(ctx).item() == pytest.approx(1.0)
    experts = tiny.experts(tiny.problem(ipc=2, dtype=torch.float64))
    pairs = [
        (k, t)
        for k, t in itertools.product(range(2), range(2))
        if torch.equal(experts[k].at(t), ctx.method.start) and torch.equal(experts[k].at(t + 1), ctx.method.target)
    ]
    assert len(pairs) == 1
    start, target = ctx.method.start, ctx.method.target
    assert trajectory_distance(target, start, target) == 0
    assert trajectory_distance((start + target) / 2, start, target).item() == pytest.approx(0.25)


def test_every_expert_is_used_once_a_round_and_all_start_epochs_occur():
    ctx = context(max_start_epoch=3, expert_train_epochs=4)
    used, starts = [], set()
    experts = ctx.method._experts
    rows = {e.at(t).numpy().tobytes(): (k, t) for k, e in enumerate(experts) for t in range(e.epochs + 1)}
    for iteration in range(40):
        ctx.iteration = iteration
        ctx.method.begin(ctx)
        number, epoch = rows[ctx.method.start.numpy().tobytes()]
        used.append(number)
        starts.add(epoch)
    assert all(sorted(used[k : k + 2]) == [0, 1] for k in range(0, 40, 2))
    assert used[:20] != [0, 1] * 10
    assert starts == {0, 1, 2}


@pytest.mark.parametrize(("flip", "expected"), [("none", [1, 5, 5, 1, 5, 5]), ("fyi", [1, 2, 2, 2, 2, 2])])
def test_batches_are_pieces_of_permutations_taken_from_the_end(flip, expected):
    ctx = context(flip=flip, ipc=3, batch_syn=5, syn_steps=6)
    ctx.labels, ctx.images = torch.arange(11), torch.zeros(11, 3, 8, 8, dtype=torch.float64)
    batches = ctx.method._batches(ctx)
    assert [len(b.index) for b in batches] == expected
    one_round = torch.cat([b.index for b in batches[: 3 if flip == "none" else 6]])
    assert sorted(one_round.tolist()) == list(range(11))


@pytest.mark.parametrize(
    ("batch_syn", "flip", "expected"),
    [(0, "none", 6), (0, "fyi", 3), (3, "none", 3), (2, "fyi", 1), (100, "fyi", 3), (1, "fyi", 1), (0, "random", 6)],
)
def test_doubling_halves_the_batch_so_that_arms_cost_the_same(batch_syn, flip, expected):
    ctx = context(flip=flip, batch_syn=batch_syn)
    batch = ctx.method._batches(ctx)[0]
    assert len(batch.index) == expected
    x, y = batch.shown(ctx.images[batch.index])
    assert len(x) == len(y) == expected * ctx.flip.multiplier
    labels = ctx.labels[batch.index]
    assert torch.equal(y, labels if ctx.flip.multiplier == 1 else torch.cat([labels, labels]))


def test_mirrored_copies_come_before_augmentation_and_draw_for_themselves():
    plain = context(flip="fyi", augment="none")
    x, _ = plain.method._batches(plain)[0].shown(plain.images[:3])
    assert torch.equal(x[3:], x[:3].flip(-1))
    drawn = context(flip="fyi", augment="rotate")
    batch = drawn.method._batches(drawn)[0]
    x, _ = batch.shown(drawn.images[:2])
    assert not torch.allclose(x[2:], x[:2].flip(-1))
    assert torch.equal(x, batch.shown(drawn.images[:2])[0])


def test_step_size_is_learned_and_stored():
    still = distill(tiny.problem(), "mtt", tiny.config("mtt", 3, lr_lr=0.0, lr_teacher=0.02))
    assert still.lr == pytest.approx(0.02)
    moved = distill(tiny.problem(), "mtt", tiny.config("mtt", 3, lr_lr=1e-4, lr_teacher=0.02))
    assert moved.lr != pytest.approx(0.02)


@pytest.mark.long
@pytest.mark.parametrize("method", ["mtt", "ftd"])
@pytest.mark.parametrize("flip", ["none", "fyi"])
def test_student_comes_nearer_to_the_experts(method, flip):
    changes = {"lr_img": 30.0, "lr_lr": 1e-4, "lr_teacher": 0.05, "syn_steps": 5, "augment": "none"}
    curve = distill(tiny.problem(), method, tiny.config(method, 24, **changes), flip).provenance["loss_curve"]
    assert sum(curve[-8:]) < 0.9 * sum(curve[:8])


def test_result_of_ftd_is_the_average_over_all_steps():
    images = {n: run_ftd(n, 0.0) for n in (0, 1, 2)}
    expected = 0.25 * images[0] + 0.25 * images[1] + 0.5 * images[2]
    assert torch.allclose(run_ftd(2, 0.5), expected, atol=1e-6)
    assert torch.equal(run_ftd(2, 1.0), images[0])
    assert not torch.equal(images[1], images[2])
    learned = distill(tiny.problem(), "mtt", tiny.config("mtt", 2))
    assert torch.equal(images[2], learned.images)


def run_ftd(iterations: int, decay: float) -> torch.Tensor:
    return distill(tiny.problem(), "ftd", tiny.config("ftd", iterations, ema_decay=decay)).images


def test_what_is_wrong_is_said_before_work():
    with pytest.raises(UnknownNameError, match="Did you mean 'adjoint'"):
        tiny.config("mtt", gradient="adjont")
    with pytest.raises(UsageError, match="expert_train_epochs=5"):
        tiny.config("mtt", max_start_epoch=5, expert_epochs=1, expert_train_epochs=4)
    bare = replace(tiny.problem(), experts=None)
    with pytest.raises(UsageError, match="expert trajectories"):
        distill(bare, "mtt", tiny.config("mtt"))
    with pytest.raises(UsageError, match="of 5 epochs or more"):
        distill(tiny.problem(), "mtt", tiny.config("mtt", max_start_epoch=5, expert_train_epochs=5))

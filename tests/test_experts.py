"""Expert trajectories: training against a plain twin, snapshots, resuming, files, and their cells."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import search_space
import tiny
from distill.augment import Augmentation
from distill.expert_file import Trajectory
from distill.experts import ExpertConfig, train_expert
from distill.gsam import GSAM
from distill.tensor_file import save_tensors
from distill.trajectory import CPU_PART_FIRST, CPU_PART_SECOND, FlatNetwork
from fyi_bench import rng
from fyi_bench.errors import BudgetExhausted, DataError, DivergenceError, UnknownNameError, UsageError

CONFIG = ExpertConfig(
    model=tiny.MODEL, epochs=3, lr=0.05, momentum=0.0, wd=0.0, batch=10, augment="color_crop_flip_scale",
    dispatcher="dsa", storage="fp32",
)  # fmt: skip
STEPS = 3 * 4  # 36 images in batches of 10, the last one short
KINDS = {
    "published": CONFIG,
    "momentum": replace(CONFIG, momentum=0.9, wd=5e-4),
    "gsam": replace(CONFIG, gsam=GSAM(rho=0.1, alpha=0.4, adaptive=True)),
    "sam": replace(CONFIG, gsam=GSAM(rho=0.1, alpha=0.0, adaptive=False), momentum=0.5),
}


def problem(**changes):
    return replace(tiny.problem(), experts=None, **changes)


def plain_twin(problem, config: ExpertConfig) -> torch.Tensor:
    """The same training with a module, its backward pass and PyTorch's optimiser; snapshots [epochs + 1, P]."""
    channels, size, _ = problem.shape
    net = search_space.build(config.model, channels, size, problem.num_classes, problem.stream("expert network"))
    net = net.to(problem.dtype)
    optimiser = torch.optim.SGD(net.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.wd)
    augmentation = Augmentation(config.augment, dispatcher=config.dispatcher)
    images = torch.cat([problem.images_at(rows) for rows in problem.rows])
    labels = torch.cat([torch.full((len(rows),), c) for c, rows in enumerate(problem.rows)])

    def gradients(x, y) -> list[torch.Tensor]:
        return list(torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters())))

    def flat(tensors) -> torch.Tensor:
        return torch.cat([t.detach().flatten() for t in tensors])

    found = [flat(net.parameters())]
    for epoch in range(config.epochs):
        order = torch.randperm(len(images), generator=problem.stream("expert order", epoch))
        for number, index in enumerate(order.split(config.batch)):
            generator = problem.stream("expert augment", epoch, number)
            x = augmentation.apply(images[index], augmentation.draw(generator, len(index), size))
            if config.gsam is None:
                steps = gradients(x, labels[index])
            else:
                steps = plain_gsam(config.gsam, net, lambda: gradients(x, labels[index]))  # noqa: B023
            for parameter, step in zip(net.parameters(), steps, strict=True):
                parameter.grad = step
            optimiser.step()
        found.append(flat(net.parameters()))
    return torch.stack(found)


@torch.no_grad()
def plain_gsam(gsam: GSAM, net, gradients) -> list[torch.Tensor]:
    """Perturb, differentiate again, put back; take the part of the first gradient along the second one out."""

    def dot(a, b):
        return sum((u * v).sum() for u, v in zip(a, b, strict=True))

    with torch.enable_grad():
        first = gradients()
    weights = [p.clone() for p in net.parameters()]
    scaled = [w.abs() * g if gsam.adaptive else g for w, g in zip(weights, first, strict=True)]
    factor = gsam.rho / (dot(scaled, scaled).sqrt() + 1e-12)
    for p, w, g in zip(net.parameters(), weights, first, strict=True):
        p.add_(factor * (w**2 * g if gsam.adaptive else g))
    with torch.enable_grad():
        second = gradients()
    for p, w in zip(net.parameters(), weights, strict=True):
        p.copy_(w)
    along = dot(first, second) / dot(second, second)
    return [s - gsam.alpha * (f - along * s) for f, s in zip(first, second, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_the_plain_twin(kind):
    of = problem(dtype=torch.float64)
    found = train_expert(of, KINDS[kind]).trajectory
    expected = plain_twin(of, KINDS[kind])
    for epoch in range(4):
        assert torch.allclose(found.at(epoch), expected[epoch], rtol=0, atol=1e-11)


def test_snapshots_are_copies_and_losses_fall():
    expert = train_expert(problem(), replace(CONFIG, epochs=12, augment="none"))
    rows = [expert.trajectory.at(e) for e in range(13)]
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(rows))
    first = problem().stream("expert network")
    net = search_space.build(tiny.MODEL, 3, tiny.SIZE, tiny.CLASSES, first)
    assert torch.equal(rows[0], torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert len(expert.losses) == 12
    assert expert.losses[-1] < 0.8 * expert.losses[0]


def test_number_decides_all_draws():
    one, again, other = (train_expert(problem(seed=s), CONFIG).trajectory.at(3) for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_only_the_wanted_classes_are_seen():
    real = tiny.real_set()
    spoiled = tiny.real_set()
    spoiled.images[spoiled.labels == 1] = 7
    found = [train_expert(problem(real=r, classes=(2, 0)), CONFIG).trajectory.at(3) for r in (real, spoiled)]
    assert torch.equal(*found)
    assert len(found[0]) == FlatNetwork(search_space.build(tiny.MODEL, 3, 8, 2, rng.stream(0))).size


class Keeper:
    """Checkpoints in memory."""

    kept = None

    def save(self, step, tensors, meta):
        self.kept = (step, {k: v.clone() for k, v in tensors.items()}, meta)

    def load(self, take):
        if self.kept is not None:
            take(self.kept[0], self.kept[1])
        return self.kept


class StopAfter:
    def __init__(self, steps: int):
        self.left = steps

    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0

    def check(self) -> None:
        raise BudgetExhausted("enough")


@pytest.mark.parametrize("kind", ["published", "momentum", "gsam"])
@pytest.mark.parametrize("cut", [0, 1, 4, 7, 11])
def test_cut_anywhere_it_goes_on_to_the_same_bits(kind, cut):
    whole = train_expert(problem(), KINDS[kind])
    keeper = Keeper()
    with pytest.raises(BudgetExhausted):
        train_expert(problem(), KINDS[kind], checkpointer=keeper, stop=StopAfter(cut))
    assert keeper.kept[0] == cut
    told = []
    resumed = train_expert(
        problem(), KINDS[kind], checkpointer=keeper, report=lambda done, total, loss: told.append((done, total))
    )
    assert all(torch.equal(whole.trajectory.at(e), resumed.trajectory.at(e)) for e in range(4))
    assert resumed.losses == whole.losses
    assert told[-1] == (STEPS, STEPS)


def test_divergence_is_told_with_what_to_do():
    with pytest.raises(DivergenceError, match=r"Expert 0 diverged.*\n.*expert_lr"):
        train_expert(problem(), replace(CONFIG, lr=1e30))


def test_bf16_is_near_fp32():
    exact = train_expert(problem(), CONFIG).trajectory
    coarse = train_expert(problem(precision="bf16"), CONFIG).trajectory
    moved = (exact.at(3) - exact.at(0)).norm()
    assert 0 < (exact.at(3) - coarse.at(3)).norm() < 0.1 * moved


@pytest.mark.parametrize("model", ["convnet-w8-d2", "convnet-w8-d2-batch", "convnet-w8-d2-layer-swish"])
def test_gradient_in_parts_is_that_of_the_whole_batch(model):
    network = FlatNetwork(search_space.build(model, 3, 8, 3, rng.stream(0, "net")).double())
    n = 2 * CPU_PART_FIRST + 5
    x = torch.randn(n, 3, 8, 8, dtype=torch.float64, generator=rng.stream(0, "x"))
    y = torch.arange(n) % 3
    loss, found = network.gradient(network.values(), x, y)
    weights = network.values().requires_grad_(True)
    expected = network.loss(weights, x, y)
    assert torch.allclose(loss, expected, rtol=1e-13)
    assert torch.allclose(found, torch.autograd.grad(expected, weights)[0], rtol=0, atol=1e-14)


def test_second_derivatives_in_parts_are_those_of_the_whole_batch():
    network = FlatNetwork(search_space.build("convnet-w8-d2", 3, 8, 3, rng.stream(0, "net")).double())
    n = 2 * CPU_PART_SECOND + 5
    x = torch.randn(n, 3, 8, 8, dtype=torch.float64, generator=rng.stream(0, "x")).requires_grad_(True)
    y, direction = torch.arange(n) % 3, torch.randn(network.size, dtype=torch.float64, generator=rng.stream(0, "d"))
    weights = network.values().requires_grad_(True)
    gradient = torch.autograd.grad(network.loss(weights, x, y), weights, create_graph=True)[0]
    along = gradient @ direction
    found = network.gradient_along(network.values(), x, y, direction, curvature=True)
    for ours, expected in zip(found, (along.detach(), *torch.autograd.grad(along, [x, weights])), strict=True):
        assert torch.allclose(ours, expected, rtol=0, atol=1e-12)


# files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("storage", "tolerance"), [("fp32", 0.0), ("fp16", 1e-3), ("bf16", 8e-3)])
def test_file_gives_back_single_rows(tmp_path, storage, tolerance):
    exact = train_expert(problem(), CONFIG).trajectory
    made = train_expert(problem(), replace(CONFIG, storage=storage)).trajectory
    opened = Trajectory.open(made.save(tmp_path / "trajectory.safetensors"))
    assert opened.epochs == 3
    for epoch in range(4):
        assert torch.equal(opened.at(epoch), made.at(epoch))
        assert opened.at(epoch).dtype == torch.float32
        assert ((opened.at(epoch) - exact.at(epoch)).abs() <= tolerance * exact.at(epoch).abs() + 1e-7).all()


def test_half_precision_halves_the_file(tmp_path):
    sizes = [
        train_expert(problem(), replace(CONFIG, storage=s)).trajectory.save(tmp_path / s).stat().st_size
        for s in ("fp32", "fp16")
    ]
    assert sizes[1] < 0.6 * sizes[0]


def test_storage_is_one_of_three():
    with pytest.raises(UsageError, match="fp16"):
        replace(CONFIG, storage="fp8")


def test_damaged_row_is_told_when_it_is_read(tmp_path):
    path = train_expert(problem(), CONFIG).trajectory.save(tmp_path / "trajectory.safetensors")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    opened = Trajectory.open(path)
    assert opened.at(2).isfinite().all()
    with pytest.raises(DataError, match="after epoch 3"):
        opened.at(3)


def test_other_files_are_refused(tmp_path):
    path = save_tensors(tmp_path / "set.safetensors", {"weights": torch.zeros(2, 3)}, {"content": "else"})
    with pytest.raises(DataError, match="not an expert trajectory"):
        Trajectory.open(path)
    with pytest.raises(DataError, match="There is no file"):
        Trajectory.open(tmp_path / "nothing")
    with pytest.raises(UnknownNameError, match="convnet"):
        train_expert(problem(), replace(CONFIG, model="convnett"))


def test_config_survives_json():
    for config in KINDS.values():
        assert ExpertConfig.rebuild(config.describe()) == config

"""IDM against its published program's numbers (golden case 20) and against a plain loop; the queue of networks."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

import search_space
import tiny
from distill.augment import Augmentation
from distill.contracts import Context
from distill.decode import decode
from distill.engine import distill
from distill.fyi import FLIPS
from distill.image_set import ImageSet
from distill.methods import METHODS, config_of
from distill.methods.idm import shrunken_side_by_side
from distill.network_pool import NetworkPool
from distill.problem import Problem
from distill.recipes import recipe
from distill.spaces import NormalizedSpace, PixelSpace
from golden import golden, hash_fill, normalised, relative_error
from search_space.convnet import ConvNet, ConvNetConfig

CASE = "case20_idm"
SPACE = NormalizedSpace((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
EXACT, ROUNDED = 1e-10, 1e-6


def recorded(factor: int = 2, ce_weight: float = 0.5, flip: str = "none", **changes):
    """The method on the recorded images, its queue holding the recorded network alone."""
    data = golden(CASE)
    pictures = ImageSet(
        torch.from_numpy(data["real_images_u8"]), torch.from_numpy(data["real_labels"]), PixelSpace(), 3
    )
    problem = Problem(pictures, SPACE, ipc=2, dtype=torch.float64)
    values = dict(recipe("idm", "cifar10", 10).values)
    values |= {"factor": factor, "augment": "none", "batch_real": 8, "ce_weight": ce_weight, "net_num": 1, **changes}
    method = METHODS.get("idm")(config_of("idm", values), problem)
    network = hash_fill(ConvNet(ConvNetConfig(width=32, classes=3)).double(), int(data["hash_fill_salt"]))
    c = method.config
    sgd = partial(torch.optim.SGD, lr=c.lr_net, momentum=c.momentum_net, weight_decay=c.wd_net)
    method.pool = NetworkPool(network, sgd, 1)
    method.pool.fill(0, lambda: network)
    method.slot, method.network = 0, network.eval().requires_grad_(False)
    method.meters[0] = torch.tensor([float(data["meter_value"]), 100.0])
    leaf = torch.from_numpy(data["stored_images"]).double().requires_grad_(True)
    return method, Context(problem, method, FLIPS.get(flip), leaf, torch.from_numpy(data["stored_labels"]))


CASES = {
    "partition_ce": (2, 0.5, "none"),
    "partition_noce": (2, 0.0, "none"),
    "whole_ce": (1, 0.1, "none"),
    "whole_noce": (1, 0.0, "none"),
    "fyi_partition_ce": (2, 0.5, "fyi"),
}


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_of_the_published_program(name):
    data, (method, ctx) = golden(CASE), recorded(*CASES[name])
    rows, codes, values, chosen, used, accuracy = method.inputs(ctx)
    synthetic = method.synthetic(ctx, used, chosen)
    found = method.distances(ctx.problem.images_at(rows), method.drawn(codes, values), synthetic, accuracy)
    losses = torch.cat([distance for _, distance in found])
    assert relative_error(losses, data[f"{name}__loss_per_class"]) < EXACT
    _, gradient = method.gradient(ctx, rows, codes, values, chosen, used, accuracy)
    assert float(gradient.norm()) == pytest.approx(float(data.get(f"{name}__grad_norm", gradient.norm())), rel=1e-8)
    if (expected := data.get(f"{name}__grad_stored")) is not None:
        assert relative_error(gradient, expected) < (EXACT if expected.dtype == "float64" else ROUNDED)


def test_accuracy_is_in_percent():
    data = golden(CASE)
    method, _ = recorded()
    logits, labels = torch.from_numpy(data["meter_logits"]), torch.from_numpy(data["meter_labels"])
    right = (logits.argmax(2) == labels).sum()
    method.meters[0] = torch.tensor([float(right), labels.numel()])
    assert float(method.accuracy(0)) == float(data["meter_value"])


def test_steps_of_the_published_loop():
    """Two rounds over the classes, one optimiser step each with one momentum for all images."""
    data, (method, ctx) = golden(CASE), recorded()
    losses, changes = [], []
    for ctx.iteration in range(2):
        losses.append(float(method.backward(ctx)))
        method.step(ctx, None)
        changes.append(ctx.images.detach() - torch.from_numpy(data["stored_images"]).double())
    assert losses == pytest.approx(data["steps__loss_per_turn"].reshape(2, 3).sum(1).tolist(), rel=EXACT)
    assert relative_error(changes[0], data["steps__change_after_1"]) < ROUNDED
    assert relative_error(changes[1], data["steps__change_after_2"]) < EXACT


def test_a_network_of_the_queue_learns_as_published():
    data, (method, ctx) = golden(CASE), recorded(batch_train=24, model_train_steps=2, fetch_net_num=1)
    before = torch.cat([p.detach().flatten() for p in method.pool.network.parameters()])
    method.meters.zero_()
    method.advance(ctx)
    moved = torch.cat([p.detach().flatten() for p in method.pool.network.parameters()]) - before
    assert float(moved.norm()) == pytest.approx(float(data["train__update_norm"]), rel=1e-8)
    assert relative_error(moved[::97], data["train__update_every97th"]) < EXACT
    assert float(method.accuracy(0)) == pytest.approx(float(data["train__meter_value"]))


def test_images_are_the_published_partition():
    """Decoded images are those quadrants, column by column there and row by row here."""
    data = golden(CASE)
    stored = torch.from_numpy(data["stored_images"]).double()
    found = decode(stored[None, :2], 2)[0].unflatten(0, (2, 2, 2)).transpose(0, 1).flatten(0, 2)
    assert relative_error(found, data["decode_class0"]) < ROUNDED


def test_initial_images_are_put_together_as_published(monkeypatch):
    data = golden(CASE)
    first = normalised(data["real_images_u8"])[:8]
    picks = torch.from_numpy(data["init_pick"])
    problem, _ = recorded()[0].problem, None
    monkeypatch.setattr(Problem, "real_batch", lambda self, count, purpose, call: first[picks[call]].unsqueeze(0))
    assert relative_error(shrunken_side_by_side(problem, 2), data["init__packed"]) < EXACT


# --- a plain loop ---------------------------------------------------------------------------------------------------


def plain_idm(problem: Problem, c, flip: str) -> tuple[torch.Tensor, list[float]]:
    """Networks in a list, each with an optimiser and two counts; a step after every class."""
    size, augmentation = problem.shape[-1], Augmentation(c.augment, dispatcher=c.dispatcher)
    stored = METHODS.get("idm")(c, problem).initial_images().clone().requires_grad_(True)
    optimiser, queue, losses, made = torch.optim.SGD([stored], lr=c.lr_img, momentum=c.momentum_img), {}, [], 0

    def push():
        nonlocal made
        net = search_space.build(c.model, 3, size, 3, problem.stream("network", "queue", made)).to(problem.dtype)
        sgd = torch.optim.SGD(net.parameters(), lr=c.lr_net, momentum=c.momentum_net, weight_decay=c.wd_net)
        queue[made % c.net_num] = [net, sgd, 0, 0]
        made += 1

    for _ in range(c.net_start):
        push()
    for iteration in range(c.iterations):
        if iteration and iteration % c.meter_reset == 0:
            for entry in queue.values():
                entry[2:] = [0, 0]
        if iteration % c.net_generate_interval == 0:
            push()
        net, _, right, seen = queue[int(torch.randint(len(queue), (), generator=problem.stream("queue", iteration, 0)))]
        net.eval()
        real = problem.real_batch(c.batch_real, "real", iteration, 0)
        draw = augmentation.draw_classes(problem.stream("augment", iteration, 0), 3, size)
        total = 0.0
        for k in range(3):
            mine = FLIPS.get(flip).expand(decode(stored[2 * k : 2 * k + 2].unsqueeze(0), c.factor)[0])
            mine = augmentation.apply(mine, draw.select([k]))
            target = net.embed(augmentation.apply(real[k], draw.select([k]))).mean(0).detach()
            entropy = F.cross_entropy(net(mine), torch.full((len(mine),), k))
            loss = (net.embed(mine).mean(0) - target).square().sum()
            loss = loss + c.ce_weight * (100 * right / max(seen, 1)) * entropy
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += float(loss.detach())
        losses.append(total / 3)
        fetched = torch.randperm(len(queue), generator=problem.stream("fetched", iteration, 0))[: c.fetch_net_num]
        for turn, slot in enumerate(fetched.tolist()):
            net, sgd = queue[slot][:2]
            net.train()
            for step in range(c.model_train_steps):
                rows, labels = next(problem.shuffled(c.batch_train, "queue batch", turn, step, iteration))
                logits = net(problem.images_at(rows))
                sgd.zero_grad()
                F.cross_entropy(logits, labels).backward()
                sgd.step()
                queue[slot][2] += int((logits.argmax(1) == labels).sum())
                queue[slot][3] += len(labels)
    return stored.detach(), losses


@pytest.mark.parametrize("flip", ["none", "fyi"])
def test_the_method_is_the_plain_loop(flip):
    problem = tiny.problem(dtype=torch.float64)
    c = tiny.config("idm", 7, lr_net=0.05, net_num=3)
    images, losses = plain_idm(problem, c, flip)
    found = distill(problem, "idm", c, flip)
    assert found.provenance["loss_curve"] == pytest.approx(losses, rel=1e-9)
    torch.testing.assert_close(found.images, images.float(), rtol=0, atol=1e-5)
    assert (found.factor, found.space) == (2, tiny.SPACE)

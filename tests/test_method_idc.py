"""IDC against a plain loop over classes with torch's own optimiser, and its promises around it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import search_space
import tiny
from distill.augment import Augmentation
from distill.contracts import Context
from distill.cutmix import cutmix
from distill.decode import decode
from distill.engine import distill
from distill.fyi import FLIPS
from distill.methods import METHODS
from distill.methods.idc import IDC, IDCConfig
from distill.problem import Problem
from distill.recipes import recipe
from distill.spaces import NormalizedSpace, PixelSpace
from fyi_bench.errors import UnknownNameError, UsageError

STATISTICS = NormalizedSpace((0.4, 0.45, 0.5), (0.2, 0.25, 0.3))


def pixels(ipc: int = 2, **changes) -> Problem:
    return tiny.problem(ipc, space=PixelSpace(), **{"statistics": STATISTICS, **changes})


def config(iterations: int = 2, **changes) -> IDCConfig:
    return tiny.config("idc", iterations, **{"n_data": 10, "lr_img": 0.05, **changes})


def context(method: IDC, flip: str = "none") -> Context:
    images = method.initial_images().requires_grad_(True)
    count = method.problem.num_classes
    ctx = Context(method.problem, method, FLIPS.get(flip), images, torch.arange(count).repeat_interleave(2))
    method.begin(ctx)
    return ctx


# --- the plain twin: every class by itself, one optimiser over all images, stepped after each class -----------------


def plain_idc(problem: Problem, c: IDCConfig, flip: str) -> tuple[torch.Tensor, list[float]]:
    """Images and mean loss of each iteration, by the published order of things and the project's keyed draws."""
    match, other = (Augmentation(a, dispatcher="idc") for a in (c.aug_match, c.aug_net))
    stored = METHODS.get("idc")(c, problem).initial_images().clone().requires_grad_(True)
    optimiser = torch.optim.SGD([stored], lr=c.lr_img, momentum=c.momentum_img)
    losses = []
    for iteration in range(c.iterations):
        stream = problem.stream("network", iteration)
        net = search_space.build(c.model, 3, problem.shape[1], problem.num_classes, stream).to(problem.dtype).train()
        sgd = torch.optim.SGD(net.parameters(), lr=c.lr_net, momentum=c.momentum_net, weight_decay=c.wd_net)
        stored.data.clamp_(0, 1)
        total = 0.0
        for turn in range(c.inner_loop):
            key = (iteration, turn)
            real = problem.real_batch(c.batch_real, "real", *key)
            draw = match.draw_classes(problem.stream("augment", *key), problem.num_classes, problem.shape[-1])
            used = torch.rand(
                (problem.num_classes, problem.ipc * c.factor**2), generator=problem.stream("used", *key),
                dtype=torch.float64,
            ).argsort(1)[:, : c.batch_syn_max // (FLIPS.get(flip).multiplier if c.halve_syn_max else 1)]  # fmt: skip
            for k in range(problem.num_classes):
                mine = decode(stored[k * problem.ipc : (k + 1) * problem.ipc].unsqueeze(0), c.factor)[0]
                if used.shape[1] < len(mine):
                    mine = mine[used[k]]
                mine = FLIPS.get(flip).expand(mine)
                joint = match.apply(STATISTICS.encode(torch.cat([real[k], mine])), draw.select([k]))
                loss = plain_class_loss(net, joint[: len(real[k])], joint[len(real[k]) :], k)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += float(loss.detach())
            if turn + 1 < c.inner_loop:
                plain_training(net, sgd, problem, c, other, key)
        losses.append(total / c.inner_loop / problem.num_classes)
    return stored.detach(), losses


def plain_class_loss(net, real: torch.Tensor, mine: torch.Tensor, label: int) -> torch.Tensor:
    parameters = list(net.parameters())
    wanted, found = (
        torch.autograd.grad(F.cross_entropy(net(x), torch.full((len(x),), label)), parameters, create_graph=True)
        for x in (real, mine)
    )
    return sum(((f - w.detach()) ** 2).sum() for f, w in zip(found, wanted, strict=True) if f.ndim == 4)


def plain_training(net, sgd, problem: Problem, c: IDCConfig, augmentation: Augmentation, key: tuple[int, int]) -> None:
    rows = torch.cat(problem.rows)
    order = rows[torch.randperm(len(rows), generator=problem.stream("network order", *key))]
    done, number = 0, 0
    while done < c.n_data:
        batch = order[number * c.batch_train : (number + 1) * c.batch_train]
        x, y = STATISTICS.encode(problem.images_at(batch)), problem.real.labels[batch]
        draw = augmentation.draw(problem.stream("network augment", number, *key), len(x), x.shape[-1])
        x = augmentation.apply(x, draw)
        x, own, pasted, share = cutmix(x, y, problem.stream("cutmix", number, *key), c.mix_p, c.beta)
        sgd.zero_grad()
        logits = net(x)
        (F.cross_entropy(logits, own) * share + F.cross_entropy(logits, pasted) * (1 - share)).backward()
        sgd.step()
        done, number = done + len(batch), number + 1


@pytest.mark.long
@pytest.mark.parametrize("flip", ["none", "fyi"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"inner_loop": 3, "momentum_img": 0.9},
        {"batch_syn_max": 4},
        {"batch_syn_max": 4, "halve_syn_max": True},
        {"momentum_img": 0.0, "factor": 1},
    ],
    ids=["quick", "long", "capped", "halved", "plain"],
)
def test_all_classes_at_once_is_the_loop_over_classes(flip, changes):
    problem, c = pixels(dtype=torch.float64), config(iterations=3, **changes)
    images, losses = plain_idc(problem, c, flip)
    found = distill(problem, "idc", c, flip)
    torch.testing.assert_close(found.images, images.float(), rtol=0, atol=1e-6)
    assert found.provenance["loss_curve"] == pytest.approx(losses, rel=1e-9)


def test_momentum_of_other_classes_is_what_moves_an_image_out_of_its_turn():
    """Without the drift the result is another one: the published trap is really part of the numbers."""
    problem, c = pixels(dtype=torch.float64), config(iterations=3, inner_loop=3)
    images, _ = plain_idc(problem, c, "none")
    method = METHODS.get("idc")(c, problem)
    method._drift = lambda ctx, before_turn: setattr(method, "momentum", torch.zeros_like(ctx.images))
    ctx = context(method)
    for ctx.match in range(3):
        method.backward(ctx)
        method.step(ctx, None)
        method.advance(ctx)
    assert float((ctx.images.detach() - images).abs().max()) > 1e-3


# --- parts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("match", ["grad", "feat"])
@pytest.mark.parametrize("metric", ["mse", "l1", "l1_mean", "cos"])
def test_backward_is_the_gradient_of_the_loss(match, metric):
    method = METHODS.get("idc")(config(match=match, metric=metric), pixels(dtype=torch.float64))
    ctx = context(method, "fyi")
    loss = method.loss(ctx)
    (expected,) = torch.autograd.grad(loss, ctx.images)
    assert float(method.backward(ctx)) == pytest.approx(float(loss.detach()), rel=1e-12)
    torch.testing.assert_close(ctx.images.grad, expected, rtol=1e-10, atol=1e-12)
    assert float(expected.abs().sum()) > 0


def test_groups_of_classes_do_not_change_the_numbers():
    found = []
    for step in (1, 3):
        method = METHODS.get("idc")(config(), pixels(dtype=torch.float64))
        method._groups = method.chunks = lambda count, step=step: [slice(c, c + step) for c in range(0, 3, step)]
        ctx = context(method)
        found.append((float(method.backward(ctx)), ctx.images.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("match", ["grad", "feat"])
def test_batch_norm_networks_take_each_class_through_alone(match):
    """Images of other classes must not touch a class's statistics: its distance does not change with them."""
    distances = []
    for other in (0, 90):
        real = tiny.real_set()
        real.images[real.labels == 2] += other
        method = METHODS.get("idc")(config(model="convnet-w8-d2-batch", match=match), pixels(real=real))
        ctx = context(method)
        rows, codes, values, chosen, used = method.inputs(ctx)
        real = ctx.problem.images_at(rows)
        found = method.distances(real, method.drawn(codes, values), method.synthetic(ctx, used, chosen))
        distances.append(torch.cat([of_classes for _, of_classes in found]).detach())
    assert torch.equal(distances[0][:2], distances[1][:2])
    assert not torch.equal(distances[0][2], distances[1][2])


@pytest.mark.parametrize(("halved", "with_flip"), [(True, 2), (False, 5)])
def test_images_used_are_capped_and_with_the_flip_halved_or_not(halved, with_flip):
    shown = {}
    for flip, own in (("none", 5), ("fyi", with_flip)):
        method = METHODS.get("idc")(config(batch_syn_max=5, halve_syn_max=halved), pixels())
        ctx = context(method, flip)
        *_, chosen, which = method.inputs(ctx)
        shown[flip] = method.synthetic(ctx, which, chosen).detach()
        assert shown[flip].shape[1] == own * FLIPS.get(flip).multiplier
        everything = decode(ctx.per_class, 2)
        for c in range(3):
            rows = [next(k for k in range(8) if torch.equal(everything[c, k], x)) for x in shown[flip][c, :own]]
            assert len(set(rows)) == own
    assert torch.equal(shown["fyi"][:, :with_flip], shown["none"][:, :with_flip])
    assert torch.equal(shown["fyi"][:, with_flip:], shown["fyi"][:, :with_flip].flip(-1))
    assert method.passes(2)[2] == 2 * 3 * with_flip * 2


def test_halving_is_in_the_digest_of_a_run_where_it_is_felt():
    """And a run that was planned before it was an option has halved."""
    felt = {(1, 2): False, (10, 2): False, (50, 1): False, (16, 2): False, (17, 2): True, (50, 2): True}
    for (ipc, multiplier), there in felt.items():
        found = METHODS.get("idc").Config.from_values(recipe("idc", "cifar10", ipc).values)
        assert not found.halve_syn_max
        assert ("halve_syn_max" in METHODS.get("idc").values_of(found, ipc, multiplier)) == there
    before = dict(recipe("idc", "cifar10", 50).values)
    del before["halve_syn_max"]
    assert METHODS.get("idc").Config.from_values(before).halve_syn_max
    assert any("halve_syn_max" in note for note in recipe("idc", "cifar10", 50).fyi_notes)


def test_images_are_clipped_before_an_iteration_and_not_after_it():
    c = config(iterations=1, lr_img=5.0)
    stored = distill(pixels(), "idc", c, "none").images
    assert float(stored.min()) < 0 or float(stored.max()) > 1
    method = METHODS.get("idc")(c, pixels())
    ctx = context(method)
    with torch.no_grad():
        ctx.images.mul_(3).sub_(1)
    method.begin(ctx)
    assert 0 <= float(ctx.images.detach().min()) <= float(ctx.images.detach().max()) <= 1


def test_normalisation_is_the_given_one_or_measured():
    assert pixels().normalisation == STATISTICS
    measured = pixels(statistics=None, classes=(0, 2)).normalisation
    real = tiny.real_set()
    chosen = real.images[real.labels != 1].double() / 255
    assert measured.mean == pytest.approx(chosen.mean((0, 2, 3)).tolist(), abs=1e-7)
    assert measured.std == pytest.approx(chosen.transpose(0, 1).flatten(1).std(1, correction=0).tolist(), abs=1e-6)
    images = [distill(pixels(statistics=s), "idc", config(), "none").images for s in (STATISTICS, None)]
    assert not torch.equal(*images)


def test_the_set_carries_its_tiles_and_their_type():
    for kind in ("single", "multi", "bound"):
        found = distill(pixels(), "idc", config(factor=3, decode_type=kind), "fyi")
        assert (found.factor, found.decode_type, found.space.kind) == (3, kind, "pixel")


def test_vanilla_trains_without_cutmix():
    mixed, plain, never = (
        distill(pixels(), "idc", config(**changes), "none").digest
        for changes in ({"mix_p": 1.0}, {"net_mix": "vanilla", "mix_p": 1.0}, {"mix_p": 0.0})
    )
    assert mixed != plain == never


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"match": "grads"}, UnknownNameError, "Did you mean 'grad'"),
        ({"net_mix": "cutmix"}, UnknownNameError, "Did you mean 'cut'"),
        ({"metric": "l2"}, UnknownNameError, "Unknown IDC metric 'l2'"),
        ({"match": "feat", "model": "vgg11"}, UsageError, "blocks of a ConvNet"),
        ({"factor": 9}, UsageError, "cannot hold 9 x 9"),
    ],
)
def test_wrong_settings_are_refused(changes, error, says):
    with pytest.raises(error, match=says):
        distill(pixels(real=tiny.real_set(size=32 if "model" in changes else 8)), "idc", config(**changes), "none")


def test_half_precision_of_first_derivatives_stays_close():
    curves = [distill(pixels(precision=p), "idc", config(), "fyi").provenance["loss_curve"] for p in ("fp32", "bf16")]
    assert curves[1] != curves[0]
    assert curves[1] == pytest.approx(curves[0], rel=0.1)


def test_another_space_is_refused():
    with pytest.raises(UsageError, match="pixels from 0 to 1"):
        distill(tiny.problem(), "idc", config(), "none")


def test_recipes_follow_the_published_rule_for_the_step_size():
    found = {ipc: recipe("idc", "cifar100", ipc).values["lr_img"] for ipc in (1, 10, 50)}
    assert found == {1: 0.0005, 10: 0.005, 50: 0.025}
    assert IDC.statistics_family == "mtt"  # CIFAR-10's statistics for CIFAR-100 too

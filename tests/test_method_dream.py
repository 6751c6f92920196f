"""DREAM against numbers of its published program (golden case 22): representatives, matching, initial images."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import tiny
from distill.contracts import Context
from distill.decode import pack
from distill.engine import distill
from distill.fyi import FLIPS
from distill.image_set import ImageSet
from distill.methods import METHODS, config_of
from distill.methods.dream import both_ways
from distill.problem import Problem
from distill.recipes import recipe
from distill.representatives import clusters, nearest_to_any, nearest_to_each
from distill.spaces import NormalizedSpace, PixelSpace
from fyi_bench.errors import UsageError
from golden import golden, hash_fill, relative_error
from search_space.convnet import ConvNet, ConvNetConfig

CASE = "case22_dream"
CIFAR10 = NormalizedSpace((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
STATISTICS = NormalizedSpace((0.4, 0.45, 0.5), (0.2, 0.25, 0.3))
EXACT, ROUNDED = 1e-10, 1e-6


def recorded(metric: str = "mse", factor: int = 2, flip: str = "none", match: str = "grad"):
    """The method on the recorded network: the class in question stands at its label, the others hold its images too."""
    data = golden(CASE)
    label, real = int(data["class_label"]), torch.from_numpy(data["real_images_u8"])
    labels = torch.arange(3).repeat_interleave(len(real))
    pictures = ImageSet(real.repeat(3, 1, 1, 1), labels, PixelSpace(), 3)
    problem = Problem(pictures, PixelSpace(), ipc=2, dtype=torch.float64, statistics=CIFAR10)
    values = dict(recipe("dream", "cifar10", 10).values)
    values |= {"factor": factor, "metric": metric, "match": match, "aug_match": "none", "batch_real": 8}
    method = METHODS.get("dream")(config_of("dream", values), problem)
    network = ConvNet(ConvNetConfig(width=32, classes=3)).double()
    method.network = hash_fill(network, int(data["hash_fill_salt"])).train().requires_grad_(False)
    leaf = torch.from_numpy(data["stored_data"]).double().repeat(3, 1, 1, 1).requires_grad_(True)
    ctx = Context(problem, method, FLIPS.get(flip), leaf, torch.arange(3).repeat_interleave(2))
    return method, ctx, label


def features() -> torch.Tensor:
    method, ctx, label = recorded()
    return method._embedded(ctx.problem.rows[label])


def centres(count: int) -> torch.Tensor:
    start = torch.from_numpy(golden(CASE)["start_rows"])[:count]
    return clusters(features(), features()[start])


def test_images_are_embedded_as_pixels():
    data, found = golden(CASE), features()
    assert relative_error(found[0], data["embedding__first_image"]) < EXACT
    assert relative_error(found.norm(dim=1), data["embedding__norms"]) < EXACT


def test_the_nearest_to_each_centre():
    data = golden(CASE)
    assert relative_error(centres(8), data["query__centroids"]) < EXACT
    assert nearest_to_each(features(), centres(8), 8).tolist() == data["query__indices"].tolist()


def test_several_of_each_cluster_and_those_nearest_to_any():
    data = golden(CASE)
    assert relative_error(centres(4), data["query_match_sub2__centroids"]) < ROUNDED
    assert nearest_to_each(features(), centres(4), 8).tolist() == data["query_match_sub2__indices"].tolist()
    assert nearest_to_any(features(), centres(8), 8).tolist() == data["query_tiny__indices"].tolist()


def test_an_empty_cluster_becomes_the_zero_vector():
    points = torch.tensor([[1.0, 0.0], [1.2, 0.0], [5.0, 5.0]])
    found = clusters(points, torch.tensor([[1.0, 0.0], [5.0, 5.0], [90.0, 90.0]]))
    assert torch.allclose(found, torch.tensor([[1.1, 0.0], [5.0, 5.0], [0.0, 0.0]]))


@pytest.mark.parametrize(
    "name",
    [
        "grad_mse_f2", "grad_l1_f2", "grad_mse_f1", "bimatch_mse_f2", "bimatch_l1_f2", "fyi_grad_mse_f2",
        "fyi_bimatch_mse_f2",
    ],
)  # fmt: skip
def test_loss_and_gradient_of_the_published_program(name):
    data, (match, metric, factor) = golden(CASE), name.removeprefix("fyi_").split("_")
    flip, match = "fyi" if name.startswith("fyi") else "none", {"grad": "grad", "bimatch": "bi_match"}[match]
    method, ctx, label = recorded(metric, int(factor[1:]), flip, match)
    index = torch.from_numpy(data["query__indices"])
    method._chosen = torch.stack([rows[index] for rows in ctx.problem.rows])
    ctx.match = 1  # between two clusterings
    rows, codes, values, chosen, used = method.inputs(ctx)
    assert torch.equal(rows, method._chosen)
    found = method.distances(
        ctx.problem.images_at(rows), method.drawn(codes, values), method.synthetic(ctx, used, chosen)
    )
    loss = torch.cat([distance for _, distance in found])[label]
    assert float(loss.detach()) == pytest.approx(float(data[f"{name}__loss"]), rel=EXACT)
    gradient = torch.autograd.grad(loss, ctx.images)[0][2 * label : 2 * label + 2]
    expected = data[f"{name}__grad_stored"]
    assert relative_error(gradient, expected) < (EXACT if expected.dtype == "float64" else ROUNDED)


def test_initial_images_are_packed_in_the_order_of_the_query():
    data = golden(CASE)
    pixels = torch.from_numpy(data["real_images_u8"]).double() / 255
    found = pack(pixels[torch.from_numpy(data["query__indices"])].unsqueeze(0), 2)[0]
    assert relative_error(found, data["init_mix_f2__stored"]) < EXACT


# --- the method around it -------------------------------------------------------------------------------------------


def made(**changes):
    problem = tiny.problem(space=PixelSpace(), statistics=STATISTICS, dtype=torch.float64)
    method = METHODS.get("dream")(tiny.config("dream", **changes), problem)
    images = method.initial_images().requires_grad_(True)
    return method, Context(problem, method, FLIPS.get("none"), images, torch.arange(3).repeat_interleave(2))


def plain_clusters(method, rows, count, generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and centres, image by image, Lloyd's rounds written out."""
    with torch.no_grad():
        points = torch.stack([method.network.embed(method.problem.images_at(r.view(1)))[0] for r in rows])
    middle = points[torch.randint(len(rows), (count,), generator=generator)]
    for _ in range(100):
        owner = torch.tensor([int((middle - p).square().sum(1).argmin()) for p in points])
        moved = torch.stack([
            points[owner == k].mean(0) if bool((owner == k).any()) else torch.zeros_like(middle[0])
            for k in range(count)
        ])  # fmt: skip
        shift, middle = float((moved - middle).square().sum()), moved
        if shift <= 1e-4:
            break
    return points, middle


def test_real_rows_are_the_representatives_of_the_current_network_for_some_rounds():
    method, ctx = made(interval=2, batch_real=4)
    method.begin(ctx)
    seen = []
    for ctx.match in range(4):
        seen.append(method.inputs(ctx)[0])
        if ctx.match == 0:
            for c, rows in enumerate(ctx.problem.rows):
                generator = ctx.problem.stream("representatives", c, 0, 0)
                points, centres = plain_clusters(method, rows, 4, generator)
                taken = points[[rows.tolist().index(row) for row in seen[0][c].tolist()]]
                # of two images in one cluster both are nearest, so distances are compared
                for image, centre in zip(taken, centres, strict=True):
                    nearest = (points - centre).norm(dim=1).amin()
                    assert float((image - centre).norm()) == pytest.approx(float(nearest), abs=1e-9)
        method.advance(ctx)
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[2], seen[3])
    assert not torch.equal(seen[0], seen[2])


def test_images_start_from_representatives_of_the_first_network():
    method, ctx = made()
    first = method._representatives(8, 1, "init")
    expected = pack(ctx.problem.images_at(first), 2).flatten(0, 1)
    assert torch.equal(ctx.images.detach(), expected)
    assert not torch.equal(made(init="mix")[1].images, ctx.images)


def test_of_dream_plus_that_network_has_seen_the_real_images_before():
    method, ctx = made(net_pretrain_epochs=1)
    method.begin(ctx)
    assert not method.network.training
    expected = pack(ctx.problem.images_at(method._representatives(8, 1, "init")), 2).flatten(0, 1)
    assert torch.equal(ctx.images.detach(), expected)
    assert not torch.equal(ctx.images, made()[1].images)


def test_the_first_network_is_in_eval_mode_until_it_has_learned():
    method, ctx = made()
    method.begin(ctx)
    assert not method.network.training
    method.advance(ctx)
    assert method.network.training


def test_features_and_gradients_go_both_ways():
    method, ctx = made(match="bi_match")
    method.begin(ctx)
    images, labels = ctx.synthetic(), torch.arange(3)
    *found, features = both_ways(method.network, images, labels, True)
    assert features.shape == (3, method.network.classifier.in_features, 1, 1)
    torch.testing.assert_close(features[1, :, 0, 0], method.network.embed(images[1]).mean(0))
    loss = F.cross_entropy(method.network.requires_grad_(True)(images[1]), torch.full((images.shape[1],), 1))
    wanted = [g for g in torch.autograd.grad(loss, list(method.network.parameters())) if g.ndim > 1]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one[1], other)


@pytest.mark.long
@pytest.mark.parametrize(
    "changes",
    [
        {"match": "bi_match", "net_pretrain_epochs": 1},
        {"representatives_per_cluster": 2},
        {"query": "any"},
        {"query_images": 7},
        {"query_images": 7, "query": "any", "batch_real": 12},
    ],
)
def test_options_of_dream_plus_change_what_is_learned(changes):
    problem = tiny.problem(space=PixelSpace(), statistics=STATISTICS)
    plain, other, again = (
        distill(problem, "dream", tiny.config("dream", 2, **c), "fyi").digest for c in ({}, changes, changes)
    )
    assert plain != other == again


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"query": "all"}, "Unknown query"),
        ({"representatives_per_cluster": 4}, "divides batch_real"),
        ({"match": "bi_match", "metric": "cos"}, "metrics mse and l1"),
    ],
)
def test_wrong_options_are_refused(changes, says):
    with pytest.raises(UsageError, match=says):
        made(**changes)

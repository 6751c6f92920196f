"""SPEED against the published program's numbers (golden case 29), in float64, and by its plain twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import search_space
import tiny
from distill.decoders.epitomes import Epitomes, parameter_shapes, sparse
from distill.fyi import FLIPS
from distill.recipes import recipe
from distill.trajectory import Descent, FlatNetwork, StudentBatch, near, walk_back
from fyi_bench import rng
from golden import golden, hash_fill, hash_uniform, relative_error

CASE = "case29_speed"


def hash_filled(shapes: dict[str, tuple[int, ...]], salt: int) -> dict[str, torch.Tensor]:
    """The decoder's layers by the hash rule of golden/README.md."""
    found = {}
    for number, (name, shape) in enumerate(shapes.items()):
        r = torch.from_numpy(2 * hash_uniform(int(np.prod(shape)), number, salt) - 1).view(shape)
        norm, weight = "norm" in name, name.endswith("weight")
        found[name] = (
            (1 + 0.2 * r if weight else 0.1 * r) if norm else r * (6 / shape[1]) ** 0.5 if weight else 0.05 * r
        )
    return found


def decoder(kind: str) -> tuple[Epitomes, torch.Tensor, dict[str, np.ndarray]]:
    data = golden(CASE)
    tokens = torch.from_numpy(data[f"{kind}__saet"][0]).double()
    shapes = parameter_shapes(tokens.shape[1], {"small": 1, "deep": 2}[kind], 48)
    assert sum(int(np.prod(s)) for s in shapes.values()) == int(data[f"{kind}__parameters"])
    layers = hash_filled(shapes, int(data["hash_fill_salt"]))
    made = Epitomes((3, 32, 32), {"tokens": tokens, **layers}, {"patch": 4, "top_k": 48})
    return made, torch.from_numpy(data[f"{kind}__scm"]).double(), data


def test_images_are_the_published_decoders():
    small, codes, data = decoder("small")
    assert relative_error(small.decode(codes)[:, 0], data["small__images"]) < 1e-6
    assert relative_error(small.decode(codes)[0, 0], data["small__image0"]) < 1e-10
    deep, more, _ = decoder("deep")
    assert relative_error(deep.decode(more)[:, 0], data["deep__images"]) < 1e-10


def test_the_set_keeps_the_published_codes_and_counts_them():
    small, codes, data = decoder("small")
    kept = sparse(codes, 48)
    assert (np.packbits((kept != 0).numpy().flatten()) == data["sparse__mask_packed"]).all()
    assert relative_error(small.decode(kept)[:, 0], data["sparse__images"]) < 1e-6
    packed = small.pack(kept)
    assert torch.equal(small.unpack(packed), kept)
    assert sum(t.nbytes for t in packed.values()) == kept.ne(0).sum() * (8 + 2)


@pytest.mark.parametrize("flip", ["none", "fyi"])
def test_gradients_are_the_published_ones(flip):
    made, codes, data = decoder("small")
    tag, salt = ("fyi_unroll" if flip == "fyi" else "unroll"), int(data["hash_fill_salt"])
    networks = [
        FlatNetwork(hash_fill(search_space.build("convnet-w32", 3, 32, 3, rng.stream(0, "shell")).double(), salt + k))
        for k in (0, 1)
    ]
    start, other = (network.values() for network in networks)
    end, labels, size = near(start, 0.9 * start + 0.1 * other), torch.from_numpy(data["labels"]), int(data["batch_syn"])
    pieces = [piece for order in data["order"] for piece in reversed(torch.from_numpy(order).split(size))]

    def batch(index: torch.Tensor) -> StudentBatch:
        return StudentBatch(index, lambda x: FLIPS.get(flip).expand(x, labels[index]))

    leaves = {"codes": codes, **made.tensors}
    leaves = {name: tensor.clone().requires_grad_(True) for name, tensor in leaves.items()}
    tensors = {name: leaves[name] for name in made.tensors}
    shown = Epitomes(made.shape, tensors, made.options).decode(leaves["codes"])[:, 0]
    penalty = float(data["l1_weight"]) * leaves["codes"].abs().sum()
    lr = torch.tensor(float(data["syn_lr"]), dtype=torch.float64)
    found = walk_back(
        networks[0],
        [batch(i) for i in pieces[:3]],
        shown,
        Descent(lr, float(data["momentum"]), averaged=True),
        start,
        end,
    )
    torch.autograd.backward([shown, penalty], [found.by_images, torch.ones_like(penalty)])
    assert relative_error(found.loss, data[f"{tag}__grand_loss"]) < 1e-10
    assert relative_error(penalty, data[f"{tag}__l1_penalty"]) < 1e-10
    assert relative_error(leaves["tokens"].grad, data[f"{tag}__grad_saet"][0]) < 1e-10
    loose = 1e-10 if data[f"{tag}__grad_scm"].dtype == np.float64 else 1e-6
    assert relative_error(leaves["codes"].grad, data[f"{tag}__grad_scm"]) < loose
    assert relative_error(found.by_lr, data[f"{tag}__grad_syn_lr"]) < 1e-10
    norms = torch.stack([leaves[name].grad.norm() for name in parameter_shapes(32, 1, 48)])
    assert relative_error(norms, data[f"{tag}__grad_freenet_norms"]) < 1e-10
    assert relative_error(leaves["patch.weight"].grad, data[f"{tag}__grad_freenet_pred_weight"]) < 1e-10
    assert relative_error((found.weights - start).norm(), data[f"{tag}__weights_moved_norm"]) < 1e-10


def test_recipes_store_no_more_than_the_images_they_stand_for():
    data = golden(CASE)
    names = {"CIFAR10": "cifar10", "CIFAR100": "cifar100", "Tiny": "tinyimagenet", "ImageNet": "imagenette"}
    sizes = {"cifar10": (10, 32), "cifar100": (100, 32), "tinyimagenet": (200, 64), "imagenette": (10, 128)}
    for name, row in zip(data["storage__set"], data["storage__rows"].tolist(), strict=True):
        dataset, ipc = names[str(name)], int(row[0])
        values = recipe("speed", dataset, ipc).values
        keys = ("images_per_class", "tokens", "token_dim", "decoder_heads", "decoder_depth", "top_k")
        assert [values[key] for key in keys] == [int(number) for number in row[1:7]]
        classes, side = sizes[dataset]
        shapes = parameter_shapes(values["token_dim"], values["decoder_depth"], 3 * values["patch"] ** 2)
        numbers = sum(int(np.prod(shape)) for shape in shapes.values()) + values["tokens"] * values["token_dim"]
        codes = classes * values["images_per_class"] * values["decoder_heads"] * values["top_k"]
        assert numbers + 1.5 * codes == row[11] <= row[12] == ipc * classes * 3 * side**2


def test_stored_bytes_are_decoder_tokens_and_kept_codes():
    from distill.engine import distill

    made = distill(tiny.problem(), "speed", tiny.config("speed", 1))
    c = tiny.config("speed")
    shapes = parameter_shapes(c.token_dim, c.decoder_depth, 3 * c.patch**2)
    shared = 4 * (sum(int(np.prod(shape)) for shape in shapes.values()) + c.tokens * c.token_dim)
    rows = tiny.CLASSES * c.images_per_class
    assert made.nbytes == shared + rows * c.decoder_heads * c.top_k * 6 + rows * 8
    assert int((made.images != 0).sum()) == rows * c.decoder_heads * c.top_k

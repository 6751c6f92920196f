"""HaBa against the published program's numbers (golden case 24), in float64, and what its sets hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import search_space
import tiny
from distill.decode import decoded
from distill.decoders.hallucinators import Hallucinators
from distill.engine import distill
from distill.fyi import FLIPS
from distill.methods import METHODS
from distill.methods.haba import HALLUCINATORS, club_loss
from distill.trajectory import FlatNetwork, StudentBatch, adjoint
from fyi_bench import rng
from golden import golden, hash_fill, relative_error

CASE = "case24_haba"
# ours -> theirs
NAMES = {
    "forth.weight": "enc_weight", "forth.bias": "enc_bias", "scale": "scale", "shift": "shift",
    "back.weight": "dec_weight", "back.bias": "dec_bias",
}  # fmt: skip


def hallucinators(data: dict[str, np.ndarray], styles: list[str]) -> dict[str, torch.Tensor]:
    def of(theirs: str) -> torch.Tensor:
        found = torch.stack([torch.from_numpy(data[f"{style}__{theirs}"]).double() for style in styles])
        return found.flatten(1, 2) if theirs in ("scale", "shift") else found

    return {ours: of(theirs) for ours, theirs in NAMES.items()}


def filled(model: str, salt: int) -> torch.nn.Module:
    return hash_fill(search_space.build(model, 3, 32, 3, rng.stream(0, "shell")).double(), salt)


def test_images_are_the_published_ones():
    data = golden(CASE)
    bases = torch.from_numpy(data["base_images"]).double()
    made = Hallucinators((3, 32, 32), hallucinators(data, ["style0", "style1", "style2"]))
    images = made.decode(bases)
    assert relative_error(images[:2, 0], data["forward_style0__images"]) < 1e-10
    assert relative_error(images.mean((2, 3, 4)).T, data["forward_all__mean_per_image"]) < 1e-10
    one = Hallucinators((3, 32, 32), hallucinators(data, ["style_single"]))
    grey = one.decode(torch.from_numpy(data["single_channel_base"]).double())[:, 0]
    assert relative_error(grey, data["forward_single_channel__images"]) < 1e-6
    assert sum(t[0].numel() for t in made.tensors.values()) == int(data["style_parameters"])


@pytest.mark.parametrize("tag", ["published", "no_contrast", "fyi"])
def test_gradients_are_the_published_ones(tag):
    data = golden(CASE)
    flip, salt = FLIPS.get("fyi" if tag == "fyi" else "none"), int(data["hash_fill_salt"])
    shell, extractor = FlatNetwork(filled("convnet-w32", salt)), filled("convnet-w128", salt + 2).requires_grad_(False)
    start = shell.values()
    target = 0.9 * start + 0.1 * FlatNetwork(filled("convnet-w32", salt + 1)).values()
    bases = torch.from_numpy(data["base_images"]).double().requires_grad_(True)
    tensors = {name: t.requires_grad_(True) for name, t in hallucinators(data, ["style0", "style1", "style2"]).items()}
    shown = Hallucinators((3, 32, 32), tensors).decode(bases).flatten(0, 1)
    labels = torch.from_numpy(data["base_labels"]).repeat_interleave(3)
    order, pair = torch.from_numpy(data["order"]), data["pair"]
    rows = [index * 3 + int(style) for index, style in zip(order, data["step_style"], strict=False)]
    batches = [
        StudentBatch(index, lambda x, index=index: flip.expand(x, labels[index]), multiplier=flip.multiplier)
        for index in rows
    ]
    lr = torch.tensor(float(data["syn_lr"]), dtype=torch.float64)
    found = adjoint(shell, batches, shown.detach(), lr, start, target)
    views = [extractor.embed(shown[order[3] * 3 + int(style)]).flatten(1) for style in pair]
    alike = (0.0 if tag == "no_contrast" else 0.1) * club_loss(*views)
    torch.autograd.backward([shown, alike], [found.by_images, torch.ones_like(alike)])
    assert relative_error(found.loss, data[f"{tag}__param_loss"]) < 1e-10
    if tag != "no_contrast":
        assert relative_error(alike, data[f"{tag}__club_loss"]) < 1e-10
    tight = 1e-10 if data[f"{tag}__grad_bases"].dtype == np.float64 else 1e-6
    assert relative_error(bases.grad, data[f"{tag}__grad_bases"]) < tight
    assert relative_error(found.by_lr, data[f"{tag}__grad_lr"]) < 1e-10
    theirs = [str(name) for name in data["style_parameter_names"]]
    ours = {name.replace(".", "_"): key for key, name in NAMES.items()}
    norms = torch.stack([tensors[ours[name.replace(".", "_")]].grad.flatten(1).norm(dim=1) for name in theirs], dim=1)
    assert relative_error(norms, data[f"{tag}__grad_style_norms"]) < 1e-10
    if tag == "published":
        for key, name in NAMES.items():
            wanted = data[f"published__grad_style0_{name}"]
            own = tensors[key].grad[0].reshape(wanted.shape)
            assert relative_error(own, wanted) < (1e-10 if wanted.dtype == np.float64 else 1e-6)


def test_the_extractor_learns_by_the_published_loss():
    data = golden(CASE)
    extractor = filled("convnet-w128", int(data["hash_fill_salt"]) + 2)
    bases = torch.from_numpy(data["base_images"]).double()
    made = Hallucinators((3, 32, 32), hallucinators(data, ["style0", "style1", "style2"]))
    index = torch.from_numpy(data["order"][4])
    views = torch.cat([made.images(bases[index], int(style)) for style in data["pair"]])
    changes = {"club_weight": 0.1, "contrast_weight": 0.1, "cls_weight": 1.0, "likeli_weight": 0.1}
    method = METHODS.get("haba")(tiny.config("haba", **changes), tiny.problem(dtype=torch.float64))
    method.__dict__["_extractor"] = extractor
    loss = method.extractor_loss(extractor.embed(views).flatten(1), torch.from_numpy(data["base_labels"])[index])
    assert relative_error(loss, data["extractor_step__sim_loss"]) < 1e-10
    norms = torch.stack([g.norm() for g in torch.autograd.grad(loss, list(extractor.parameters()))])
    assert relative_error(norms, data["extractor_step__grad_norms"]) < 1e-10


def test_a_set_holds_bases_and_hallucinators_and_shows_one_of_them_at_a_time():
    made = distill(tiny.problem(), "haba", tiny.config("haba", 1))
    side = tiny.SIZE
    each = 2 * (3 * 3 * 9) + 2 * 3 + 2 * 3 * (side - 2) ** 2
    assert made.nbytes == 6 * (3 * side**2 * 4 + 8) + 3 * each * 4
    assert (made.ipc, decoded(made).variants, len(decoded(made))) == (2, 3, 18)
    assert made.lr is not None


@pytest.mark.parametrize("flip", ["none", "fyi"])
def test_bases_of_one_channel_become_colour_images(flip):
    grey, full = (distill(tiny.problem(), "haba", tiny.config("haba", 2, grey_bases=on), flip) for on in (True, False))
    assert tuple(grey.images.shape[1:]) == (1, tiny.SIZE, tiny.SIZE)
    assert grey.validate().shape == full.shape == (3, tiny.SIZE, tiny.SIZE)
    shown = decoded(grey)
    assert tuple(shown.images.shape) == (6 * 3, 3, tiny.SIZE, tiny.SIZE)
    weights = 3 * 2 * 3 * 9  # of what a hallucinator's first layer does without
    assert full.nbytes - grey.nbytes == 4 * (6 * 2 * tiny.SIZE**2 + weights)


@pytest.mark.parametrize("inputs", [1, 3])
def test_hallucinators_near_identity_give_a_base_back(inputs):
    """But for the border, which the first convolution takes; default ones give something else."""
    bases = torch.randn(4, inputs, 8, 8, generator=rng.stream(0, "bases"), dtype=torch.float64)
    near, default = (
        Hallucinators((3, 8, 8), HALLUCINATORS[name]((3, 8, 8), inputs, 5, rng.stream(0, "h"))).decode(bases)
        for name in ("near-identity", "default")
    )
    inside, wanted = near[..., 2:-2, 2:-2], bases.expand(-1, 3, -1, -1).unsqueeze(1)[..., 2:-2, 2:-2]
    assert float((inside - wanted).std()) < 0.2 * float(wanted.std())
    assert float((default[..., 2:-2, 2:-2] - wanted).std()) > 0.5 * float(wanted.std())
    assert len({float(image.sum()) for image in near[0]}) == 5

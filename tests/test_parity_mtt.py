"""Trajectory matching against the published programs' numbers (golden case 5), in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import search_space
from distill.fyi import FLIPS
from distill.trajectory import GRADIENTS, FlatNetwork, Match, StudentBatch
from fyi_bench import rng
from golden import golden, relative_error

CASE = "case05_mtt"


def weights_of(data: dict[str, np.ndarray], prefix: str) -> torch.Tensor:
    keys = sorted(k for k in data if k.startswith(prefix) and k[len(prefix) : len(prefix) + 2].isdigit())
    return torch.cat([torch.from_numpy(data[k]).double().flatten() for k in keys])


def batches(data: dict[str, np.ndarray], rows: str, flip: str) -> list[StudentBatch]:
    labels = torch.from_numpy(data["syn_labels"])

    def batch(row: np.ndarray) -> StudentBatch:
        index = torch.from_numpy(row[row >= 0])
        chosen = FLIPS.get(flip)
        return StudentBatch(index, lambda picked: chosen.expand(picked, labels[index]), multiplier=chosen.multiplier)

    return [batch(row) for row in data[rows]]


def match(gradient: str, name: str, sizes: str) -> tuple[Match, dict[str, np.ndarray]]:
    data = golden(CASE)
    flip = "fyi" if "fyi" in name else "none"
    rows = {"full": "index_sequence_fullbatch", "mini2": "index_sequence_minibatch2"}[sizes]
    width = next(v for k, v in data.items() if k.startswith("start00")).shape[0]
    network = FlatNetwork(search_space.build(f"convnet-w{width}", 3, 32, 10, rng.stream(0, "shell")).double())
    found = GRADIENTS.get(gradient)(
        network,
        batches(data, rows, flip),
        torch.from_numpy(data["syn_images"]).double(),
        torch.tensor(float(data["syn_lr"]), dtype=torch.float64),
        weights_of(data, "start"),
        weights_of(data, "target"),
    )
    return found, {k.split("__")[1]: v for k, v in data.items() if k.startswith(f"{name}_{sizes}__")}


@pytest.mark.long
@pytest.mark.parametrize("sizes", ["full", "mini2"])
@pytest.mark.parametrize(
    ("gradient", "name"),
    [
        ("unroll", "mtt"), ("unroll", "mtt_fyi"), ("adjoint", "mtt"), ("adjoint", "mtt_fyi"),
        ("tesla", "tesla"), ("tesla", "tesla_fyi"),
    ],
)  # fmt: skip
def test_published_programs(gradient: str, name: str, sizes: str) -> None:
    found, expected = match(gradient, name, sizes)
    images = 1e-7 if expected["grad_images"].dtype == np.float64 else 1e-6
    assert relative_error(found.loss, expected["loss"]) < 1e-7
    assert relative_error(found.by_lr, expected["grad_lr"]) < 1e-7
    assert relative_error(found.by_images, expected["grad_images"]) < images
    assert relative_error(found.weights[:32], expected["final_params_first32"]) < 1e-7
    assert relative_error(found.weights.norm(), expected["final_params_norm"]) < 1e-7


@pytest.mark.long
@pytest.mark.parametrize("sizes", ["full", "mini2"])
def test_truncated_gradient_is_another_gradient_of_the_same_loss(sizes: str) -> None:
    exact, _ = match("adjoint", "mtt", sizes)
    truncated, _ = match("tesla", "tesla", sizes)
    assert torch.allclose(exact.loss, truncated.loss, rtol=1e-12)
    difference = (exact.by_images - truncated.by_images).norm() / exact.by_images.norm()
    assert difference > 1e-3

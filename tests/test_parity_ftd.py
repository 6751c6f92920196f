"""FTD's expert steps (GSAM) and its image average against the published programs' numbers (golden case 6)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import search_space
from distill.experts import sgd_step
from distill.gsam import GSAM
from distill.methods.ftd import update_average
from distill.trajectory import FlatNetwork
from fyi_bench import rng
from golden import golden, load_parameters, normalised, relative_error

CASE = "case06_ftd_gsam"
LR = 0.01
# name -> (GSAM, momentum, weight decay)
RUNS = {
    "default_rho2_alpha04_adaptive": (GSAM(2.0, 0.4, True), 0.0, 0.0),
    "rho001_alpha1_adaptive": (GSAM(0.01, 1.0, True), 0.0, 0.0),
    "sam_rho005_alpha0": (GSAM(0.05, 0.0, False), 0.0, 0.0),
    "gsam_rho005_alpha04_mom09_l2": (GSAM(0.05, 0.4, False), 0.9, 5e-4),
}


def walk(name: str, steps: int) -> tuple[torch.Tensor, list[float]]:
    """(change of the weights, loss before each step) after steps on the one batch of the case."""
    data = golden(CASE)
    gsam, momentum, wd = RUNS[name]
    width = next(v for k, v in data.items() if k.startswith("param00")).shape[0]
    shell = search_space.build(f"convnet-w{width}", 3, 32, 10, rng.stream(0, "shell")).double()
    network = FlatNetwork(load_parameters(shell, data))
    x, y = normalised(data["images_u8"]), torch.from_numpy(data["labels"])
    weights, losses = network.values(), []
    first, buffer = weights, torch.zeros_like(weights)
    for _ in range(steps):
        loss, direction = gsam.step(lambda w: network.gradient(w, x, y), weights)
        weights, buffer = sgd_step(weights, buffer, direction, LR, momentum, wd)
        losses.append(float(loss))
    return weights - first, losses


@pytest.mark.parametrize("name", RUNS)
def test_one_step(name: str) -> None:
    data, (update, losses) = golden(CASE), walk(name, 1)
    assert relative_error(update, data[f"{name}__update1"]) < 1e-6  # stored in float32
    assert relative_error(update[:64], data[f"{name}__update1_first64"]) < 1e-8
    assert relative_error(update[::97], data[f"{name}__update1_every97th"]) < 1e-8
    assert relative_error(update.norm(), data[f"{name}__update1_norm"]) < 1e-8
    assert abs(float(update.sum()) - data[f"{name}__update1_sum"]) < 1e-8 * float(update.abs().sum())
    assert relative_error(np.array(losses), data[f"{name}__loss_per_step1"]) < 1e-10


@pytest.mark.long
@pytest.mark.parametrize("name", RUNS)
def test_three_steps(name: str) -> None:
    data, (update, losses) = golden(CASE), walk(name, 3)
    assert relative_error(update[:64], data[f"{name}__update3_first64"]) < 1e-8
    assert relative_error(update[::97], data[f"{name}__update3_every97th"]) < 1e-8
    assert relative_error(update.norm(), data[f"{name}__update3_norm"]) < 1e-8
    assert abs(float(update.sum()) - data[f"{name}__update3_sum"]) < 1e-8 * float(update.abs().sum())
    assert relative_error(np.array(losses), data[f"{name}__loss_per_step3"]) < 1e-10


def test_average_of_images() -> None:
    data = golden(CASE)
    inputs = torch.from_numpy(data["ema_inputs"])
    average = inputs[0].clone()
    for images, expected in zip(inputs[1:], data["ema_after_each_update"], strict=True):
        update_average(average, images, float(data["ema_decay"]))
        assert relative_error(average, expected) < 1e-12

"""Closed-form cosine distances against plain twins that leave the derivatives to autograd."""

from __future__ import annotations

import pytest
import torch

from distill.matching import GRADIENT_METRICS, TENSOR_METRICS, gradient_distance
from fyi_bench.rng import stream

SHAPES = [(8, 3, 3, 3), (8,), (4, 8, 3, 3), (4,), (5, 12), (5,)]
CLASSES, EPS = 3, 1e-6


def gradients(key: str, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """One tensor [C, …] a parameter; a row of zeros and rows shorter than eps among them."""
    source = stream(0, "matching", key)
    made = [scale * torch.randn(CLASSES, *shape, generator=source, dtype=torch.float64) for shape in SHAPES]
    for tensor in made:
        tensor[0, 1] = 0
        tensor[1] *= 1e-5
    return [tensor.to(dtype) for tensor in made]


def twin_of_a_tensor(s: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    s, r = s.unsqueeze(-1).flatten(2), r.unsqueeze(-1).flatten(2)
    return (1 - (s * r).sum(2) / (s.norm(dim=2) * r.norm(dim=2) + EPS)).sum(1)


def twin(synthetic: list[torch.Tensor], real: list[torch.Tensor]) -> torch.Tensor:
    return sum(twin_of_a_tensor(s, r) for s, r in zip(synthetic, real, strict=True) if s.ndim > 2)


def derivatives(distance, synthetic: list[torch.Tensor], real: list[torch.Tensor]) -> list[torch.Tensor]:
    """Value, and the derivative of its weighted sum by every tensor that asks for one."""
    value = distance(synthetic, real)
    leaves = [t for t in (*synthetic, *real) if t.requires_grad]
    weights = torch.arange(1, CLASSES + 1, dtype=value.dtype)
    return [value.detach(), *torch.autograd.grad((value * weights).sum(), leaves, allow_unused=True)]


def assert_equal(ours, theirs, **tolerance) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            torch.testing.assert_close(mine, other, **tolerance)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-9, 1e4])
@pytest.mark.parametrize("leaves", ["synthetic", "both"])
def test_layerwise_cosine_equals_its_plain_twin(scale, leaves):
    synthetic, real = ([t.requires_grad_() for t in gradients(key, scale)] for key in ("synthetic", "real"))
    real = real if leaves == "both" else [t.detach() for t in real]
    ours = derivatives(GRADIENT_METRICS.get("ours"), synthetic, real)
    assert_equal(ours, derivatives(twin, synthetic, real), rtol=1e-10, atol=1e-13)
    assert ours[0].min() > 0


@pytest.mark.parametrize("zero", ["synthetic", "real", "both"])
def test_rows_of_zeros_count_one_and_have_finite_derivatives(zero):
    given = {key: gradients(key) for key in ("synthetic", "real")}
    for key in given if zero == "both" else [zero]:
        given[key] = [torch.zeros_like(t) for t in given[key]]
    synthetic = [t.requires_grad_() for t in given["synthetic"]]
    ours = derivatives(GRADIENT_METRICS.get("ours"), synthetic, given["real"])
    assert_equal(ours, derivatives(twin, synthetic, given["real"]), rtol=1e-10, atol=1e-13)
    assert torch.equal(ours[0], torch.full((CLASSES,), 8.0 + 4 + 5, dtype=torch.float64))
    assert all(torch.isfinite(t).all() for t in ours if t is not None)


def test_float32_follows_float64():
    results = []
    for dtype in (torch.float32, torch.float64):
        synthetic, real = (gradients(key, dtype=dtype) for key in ("synthetic", "real"))
        results.append(derivatives(GRADIENT_METRICS.get("ours"), [t.requires_grad_() for t in synthetic], real))
    for narrow, wide in zip(*results, strict=True):
        assert (narrow is None) == (wide is None)
        assert wide is None or (narrow - wide).norm() < 1e-5 * wide.norm()


@pytest.mark.parametrize("index", range(len(SHAPES)))
def test_row_cosine_of_one_tensor_equals_its_plain_twin(index):
    """IDC's metric takes vectors too: an entry is then a row."""
    synthetic, real = ([gradients(key)[index].requires_grad_(key == "s")] for key in ("s", "r"))
    ours, theirs = (
        derivatives(lambda s, r, measure=measure: measure(s[0], r[0]), synthetic, real)
        for measure in (TENSOR_METRICS.get("cos"), twin_of_a_tensor)
    )
    assert_equal(ours, theirs, rtol=1e-10, atol=1e-13)


def test_derivative_numerically():
    synthetic, real = (gradients(key)[2].requires_grad_() for key in ("synthetic", "real"))
    synthetic.data[0, 1], synthetic.data[1] = 1.0, 0.5  # a difference quotient needs rows that are not nearly zero
    real.data[0, 1], real.data[1] = 1.0, -0.5
    assert torch.autograd.gradcheck(lambda s, r: gradient_distance([s[0]], [r[0]]), (synthetic, real))
    assert torch.autograd.gradcheck(lambda s, r: GRADIENT_METRICS.get("ours")([s], [r]), (synthetic, real))


@pytest.mark.parametrize("leaves", ["synthetic", "both"])
def test_second_derivatives_equal_those_of_the_plain_twin(leaves):
    """Of rows that are not zero: there, the norm has no second derivative."""
    synthetic, real = (gradients(key)[2][2:].requires_grad_(leaves in (key, "both")) for key in ("synthetic", "real"))
    asked = [t for t in (synthetic, real) if t.requires_grad]
    results = []
    for distance in (GRADIENT_METRICS.get("ours"), twin):
        first = torch.autograd.grad(distance([synthetic], [real]).square().sum(), asked, create_graph=True)
        results.append(torch.autograd.grad(sum(t.square().sum() for t in first), asked))
    assert_equal(*results, rtol=1e-9, atol=1e-12)
    assert results[0][0].abs().max() > 0

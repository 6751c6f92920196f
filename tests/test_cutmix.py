"""CutMix: boxes, shares and pastes against plain twins; draws keyed by their generator."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from distill import cutmix as module
from distill.cutmix import cut_box, cutmix, draw_cutmix, kept_share, paste
from fyi_bench import rng


def batch(n: int = 6, size: tuple[int, int] = (8, 10)) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 3, *size, generator=rng.stream(0, "images"), dtype=torch.float64)
    return x, torch.arange(n)


def plain_paste(x: torch.Tensor, permutation: list[int], box: tuple[int, ...]) -> torch.Tensor:
    out = x.clone()
    for k, source in enumerate(permutation):
        for i in range(box[0], box[1]):
            for j in range(box[2], box[3]):
                out[k, :, i, j] = x[source, :, i, j]
    return out


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(4, 40), st.integers(4, 40), st.floats(0, 1), st.floats(0, 0.999), st.floats(0, 0.999))
def test_box_lies_inside_and_share_is_the_rest(height: int, width: int, lam: float, row: float, column: float) -> None:
    size, centre = (height, width), (int(row * height), int(column * width))
    top, bottom, left, right = cut_box(size, lam, centre)
    assert 0 <= top <= bottom <= height
    assert 0 <= left <= right <= width
    mask = torch.zeros(size)
    mask[top:bottom, left:right] = 1
    assert kept_share(size, (top, bottom, left, right)) == pytest.approx(1 - float(mask.mean()), abs=1e-6)
    assert bottom - top <= height * math.sqrt(1 - lam)
    assert right - left <= width * math.sqrt(1 - lam)


def test_box_of_a_quarter_in_the_middle() -> None:
    assert cut_box((32, 32), 0.75, (16, 16)) == (8, 24, 8, 24)
    assert kept_share((32, 32), (8, 24, 8, 24)) == 0.75
    assert cut_box((32, 32), 0.75, (0, 31)) == (0, 8, 23, 32)


def test_paste_is_the_plain_loop_and_leaves_its_input() -> None:
    x, _ = batch()
    before, permutation = x.clone(), [3, 1, 0, 5, 2, 4]
    out = paste(x, torch.tensor(permutation), (2, 7, 0, 4))
    assert torch.equal(out, plain_paste(x, permutation, (2, 7, 0, 4)))
    assert torch.equal(x, before)


def test_gradient_reaches_both_sources() -> None:
    x = torch.ones(2, 1, 4, 4, requires_grad=True)
    out = paste(x, torch.tensor([1, 0]), (0, 2, 0, 4))
    weight = torch.tensor([1.0, 10.0]).view(2, 1, 1, 1)
    (out * weight).sum().backward()
    assert x.grad[:, 0, 0, 0].tolist() == [10.0, 1.0]
    assert x.grad[:, 0, 3, 0].tolist() == [1.0, 10.0]


def test_batch_and_labels() -> None:
    x, y = batch()
    before = x.clone()
    mixed, own, pasted, share = cutmix(x, y, rng.stream(1), probability=1.0, beta=1.0)
    assert torch.equal(x, before)
    assert torch.equal(own, y)
    assert 0 < share < 1
    changed = torch.tensor([float((a != b).float().mean()) for a, b in zip(mixed, x, strict=True)])
    expected = torch.where(pasted == own, 0.0, 1 - share)
    torch.testing.assert_close(changed, expected, rtol=0, atol=1e-6)
    for k, source in enumerate(pasted.tolist()):
        assert bool(((mixed[k] == x[k]) | (mixed[k] == x[source])).all())


def test_probability_zero_returns_the_batch() -> None:
    x, y = batch()
    for step in range(20):
        mixed, own, pasted, share = cutmix(x, y, rng.stream(2, step), probability=0.0, beta=1.0)
        assert mixed is x
        assert own is y
        assert pasted is y
        assert share == 1


@pytest.mark.parametrize("probability", [0.3, 0.5])
def test_probability(probability: float) -> None:
    draws = [draw_cutmix(rng.stream(3, k), 4, (32, 32), probability, 1.0) for k in range(800)]
    share = sum(d.permutation.tolist() != [0, 1, 2, 3] or d.ratios.item() < 1 for d in draws) / len(draws)
    assert share == pytest.approx(probability, abs=0.06)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_share_follows_the_beta_distribution(beta: float) -> None:
    u = torch.rand(1500, generator=rng.stream(4), dtype=torch.float64).tolist()
    assert kstest([module._beta_quantile(v, beta) for v in u], "beta", args=(beta, beta)).pvalue > 1e-3


def test_one_call_for_many_networks() -> None:
    """Groups are the batches of single calls, one after the other."""
    n, size = 5, (8, 8)
    x = torch.randn(3 * n, 3, *size, generator=rng.stream(5))
    together = draw_cutmix([rng.stream(6, k) for k in range(3)], n, size, 0.7, 1.0)
    mixed = paste(x, together.permutation, together.boxes)
    for k, part in enumerate(x.split(n)):
        alone = draw_cutmix(rng.stream(6, k), n, size, 0.7, 1.0)
        assert torch.equal(mixed[k * n : (k + 1) * n], paste(part, alone.permutation, alone.boxes))
        assert together.ratios[k] == alone.ratios[0]


def test_keyed_and_local() -> None:
    x, y = batch()
    before = torch.get_rng_state()
    first, second = (cutmix(x, y, rng.stream(7), 1.0, 1.0) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert first[3] == second[3]
    assert torch.equal(torch.get_rng_state(), before)


def test_fingerprint() -> None:
    """Numbers of version 1: when they change on purpose, raise `NUMERICS` in distill/cutmix.py."""
    assert module.NUMERICS == 1
    draw = draw_cutmix(rng.stream(8), 4, (32, 32), 1.0, 1.0)
    assert (draw.permutation.tolist(), draw.boxes.tolist()) == ([1, 2, 0, 3], [[0, 19, 16, 32]])

"""Augmentation and CutMix against numbers of the reference implementations (golden cases 4 and 7)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from distill import augment_ops
from distill.augment import Augmentation, Draw
from distill.augment_ops import OPERATIONS, AugmentStrength
from distill.cutmix import cut_box, kept_share, paste
from distill.spaces import NormalizedSpace
from golden import golden, load_parameters, normalised
from search_space.convnet import ConvNet, ConvNetConfig

CASE = "case04_dsa_augment"
TOLERANCE = 2e-5
EXACT = {"crop", "cutout", "flip"}
SINGLE = {
    "brightness": augment_ops.brightness,
    "saturation": augment_ops.saturation,
    "contrast": augment_ops.contrast,
    **{name: OPERATIONS.get(name).apply for name in ("crop", "cutout", "flip", "scale", "rotate")},
}


def images(count: int | None = None) -> torch.Tensor:
    """Normalised in float32, as the reference did: crop, cutout and flip are compared to the bit."""
    space = NormalizedSpace((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    return space.encode(torch.from_numpy(golden(CASE)["images_u8"][:count]).float() / 255)


def numbered(prefix: str) -> list[str]:
    names = sorted({key.rpartition("__")[0] for key in golden(CASE) if key.startswith(prefix)})
    assert names, f"no arrays {prefix}*"
    return names


def assert_close(value: torch.Tensor, expected: np.ndarray, exact: bool = False) -> None:
    assert value.dtype == torch.float32
    assert value.shape == expected.shape
    assert np.abs(value.numpy() - expected).max() <= (0 if exact else TOLERANCE)


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("mode", ["independent", "siamese"])
def test_operation(name: str, mode: str) -> None:
    """Recorded draws through each pure operation; crop, cutout and flip to the bit."""
    data = golden(CASE)
    draws = torch.from_numpy(data[f"op_{name}_{mode}__draws"].T)
    values = draws[:1] if mode == "siamese" else draws
    out = SINGLE[name](images(), values, AugmentStrength())
    assert_close(out, data[f"op_{name}_{mode}__out"], exact=name in EXACT)


def recorded_draw(augmentation: Augmentation, draws: np.ndarray) -> Draw:
    """draws [n_draws, samples]: for each stage the choice (where there is one) and the operation's numbers."""
    rows, steps = iter(draws), []
    for stage in augmentation.stages:
        name = stage[int(next(rows)[0])] if len(stage) > 1 else stage[0]
        numbers = np.stack([next(rows) for _ in range(OPERATIONS.get(name).columns)], axis=1)
        steps.append((name, numbers))
    assert all(np.isnan(row).all() for row in rows), "numbers are left over"
    return Draw.from_values(*steps)


def is_exact(draw: Draw) -> bool:
    return all(name in EXACT for names in draw.names for name in names)


@pytest.mark.parametrize(("code", "dispatcher"), [("dc", "dsa"), ("fyi", "dsa-flip-first")])
def test_siamese_call(code: str, dispatcher: str) -> None:
    data = golden(CASE)
    augmentation = Augmentation("_".join(data["strategy_order"]), dispatcher)
    tables, outs = data[f"full_{code}_siamese__draws_element0"], data[f"full_{code}_siamese__out"]
    assert len(tables) == len(outs) > 0
    for table, expected in zip(tables, outs, strict=True):
        draw = recorded_draw(augmentation, table[:, None])
        assert draw.siamese
        assert_close(augmentation.apply(images(len(expected)), draw), expected, is_exact(draw))


@pytest.mark.parametrize(
    ("code", "dispatcher"), [("dc", "dsa"), ("mtt", "dsa"), ("fyimtt", "dsa-flip-first")], ids=lambda v: v
)
def test_independent_call(code: str, dispatcher: str) -> None:
    data = golden(CASE)
    augmentation = Augmentation("_".join(data["strategy_order"]), dispatcher)
    for name in numbered(f"full_{code}_independent_"):
        expected = data[f"{name}__out"]
        draw = recorded_draw(augmentation, data[f"{name}__draws"])
        assert_close(augmentation.apply(images(len(expected)), draw), expected, is_exact(draw))


def test_idc_batch_call() -> None:
    """IDC draws the index of the one operation even where only one is left, so it is read here for itself."""
    data = golden(CASE)
    always = {("flip",), ("color",), ("cutout",)}
    for name in numbered("idc_batch_"):
        augmentation = Augmentation(name.removeprefix("idc_batch_").rpartition("_")[0], "idc")
        numbers, steps = iter(data[f"{name}__draws"]), []
        for stage in augmentation.stages:
            chosen = stage[0] if stage in always else stage[int(next(numbers))]
            steps.append((chosen, [next(numbers) for _ in range(OPERATIONS.get(chosen).columns)]))
        assert next(numbers, None) is None
        expected = data[f"{name}__out"]
        assert_close(augmentation.apply(images(len(expected)), Draw.from_values(*steps)), expected)


@pytest.mark.parametrize("number", [0, 1])
def test_cutmix(number: int) -> None:
    """Box, share, pixels and loss of recorded share and permutation; the centre follows from the box."""
    data = golden("case07_idc")
    case = {key.rpartition("__")[2]: value for key, value in data.items() if key.startswith(f"cutmix{number}__")}
    x = normalised(data["real_images_u8"][:4])
    size, lam = tuple(x.shape[-2:]), float(case["lam"])
    top, left, bottom, right = case["bbox"].tolist()
    boxes = {cut_box(size, lam, (row, column)) for row in range(size[0]) for column in range(size[1])}
    box = (top, bottom, left, right)
    assert box in boxes
    assert kept_share(size, box) == pytest.approx(float(case["ratio"]), abs=1e-15)
    before, permutation = x.clone(), torch.from_numpy(case["rand_index"])
    mixed = paste(x, permutation, box)
    assert torch.equal(x, before)
    assert np.abs(mixed[:, :, ::3, ::3].numpy() - case["out_pixels"]).max() < 1e-6
    assert np.abs(mixed.mean((2, 3)).numpy() - case["out_mean_per_image_channel"]).max() < 1e-12
    config = ConvNetConfig(channels=3, size=size[0], classes=10, width=32, depth=3)
    network = load_parameters(ConvNet(config).double(), data)
    labels, ratio = torch.from_numpy(case["target"]), kept_share(size, box)
    with torch.no_grad():
        logits = network(mixed)
        loss = F.cross_entropy(logits, labels) * ratio + F.cross_entropy(logits, labels[permutation]) * (1 - ratio)
    assert float(loss) == pytest.approx(float(case["loss"]), rel=1e-8)

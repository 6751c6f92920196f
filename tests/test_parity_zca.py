"""ZCA against kornia's whitening as MTT calls it (golden case 8), in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.zca import Whitening, whitening_matrix
from golden import golden, golden_json, relative_error

CASE = "case08_zca"
ROWS = [0, 1024, 3071]  # of the matrix, which is too large to be stored whole


def pixels(data: dict[str, np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(data["test_images_u8"]).double() / 255


def test_stored_rows_give_the_stored_whitened_pixels() -> None:
    data = golden(CASE)
    rows = torch.from_numpy(data["T_rows"])
    matrix = torch.eye(rows.shape[1], dtype=torch.float64)
    matrix[ROWS], matrix[:, ROWS] = rows, rows.T
    found = Whitening(torch.from_numpy(data["mean_vector"]), matrix).apply(pixels(data)).flatten(1)[:, ROWS]
    assert relative_error(found, data["test_zca"].reshape(len(found), -1)[:, ROWS]) < 1e-12


@pytest.mark.slow
def test_fit_to_the_same_images(data_root) -> None:
    from fyi_bench.data import load_dataset

    data = golden(CASE)
    train = load_dataset("cifar10", data_root, test=False, download=False).train
    images = train.images[golden_json("case08_files")["fit_rows"]]
    whitening = Whitening(*whitening_matrix(images))
    assert relative_error(whitening.mean, data["mean_vector"]) < 1e-12
    assert relative_error(whitening.matrix[ROWS], data["T_rows"]) < 1e-7
    assert relative_error(whitening.matrix.diagonal(), data["T_diag"]) < 1e-7
    assert relative_error(whitening.inverse.diagonal(), data["Tinv_diag"]) < 1e-7
    encoded = whitening.apply(pixels(data))
    assert np.abs(encoded.numpy() - data["test_zca"]).max() < 1e-7
    assert np.abs(whitening.undo(encoded).numpy() - data["test_inverse"]).max() < 1e-6  # stored in float32


@pytest.mark.slow
def test_fit_to_as_many_other_images_agrees_statistically(data_root) -> None:
    """The stored fit is of 200 images a class; another 200 of the same distribution whiten nearly alike.

    The trace is ruled by eps and the many small eigenvalues, so a wrong eps, denominator or scale moves it by far more.
    """
    from fyi_bench.data import load_dataset

    data = golden(CASE)
    train = load_dataset("cifar10", data_root, test=False, download=False).train
    rows = torch.cat([train.indices_of(c)[:200] for c in range(10)])
    whitening = Whitening(*whitening_matrix(train.images[rows]))
    assert float(whitening.matrix.trace()) == pytest.approx(float(data["T_trace"]), rel=1e-3)
    assert float(whitening.matrix.norm()) == pytest.approx(float(data["T_frobenius"]), rel=1e-3)
    assert float(whitening.inverse.norm()) == pytest.approx(float(data["Tinv_frobenius"]), rel=0.05)
    assert relative_error(whitening.matrix.diagonal(), data["T_diag"]) < 0.05

"""Golden numbers of the reference implementations, for the parity tests.

The folder is the one named by FYI_GOLDEN, or ../shared/golden beside the repository; a test that
asks for a case which is not there is skipped with the reason. Salts come from the folder's
meta.json, so that a second set of golden numbers can be tested with the same code.
"""

from __future__ import annotations

import functools
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

_MASK = np.uint64(0xFFFFFFFF)
_BUFFER_OFFSET = 1000  # BatchNorm buffers are numbered from here, parameters from 0
_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def golden_folder() -> Path:
    """The folder of golden files, whether or not it exists."""
    default = Path(__file__).resolve().parents[2] / "shared" / "golden"
    return Path(os.environ.get("FYI_GOLDEN", default))


def golden(case: str) -> dict[str, np.ndarray]:
    """All arrays of one case, for example golden("case01_networks"); skips the test where it is absent."""
    return _load_npz(_present(f"{case}.npz"))


def golden_json(name: str) -> Any:
    """The content of a golden JSON file, for example golden_json("case12_class_orders")."""
    return json.loads(_present(f"{name}.json").read_text())


def salt(case: str) -> int:
    """The hash-fill salt of a case."""
    return int(golden_json("meta")["hash_fill_salt"][case])


def _present(name: str) -> Path:
    path = golden_folder() / name
    if not path.is_file():
        pytest.skip(f"golden file {path} is absent (set FYI_GOLDEN to the folder that has it)")
    return path


@functools.cache
def _load_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def hash_uniform(count: int, number: int, salt: int) -> np.ndarray:
    """float64 [count] in [0, 1): the integer hash of golden/README.md for parameter `number`."""
    key = np.uint64((number * 0x9E3779B9 + salt) % 2**32)
    h = (np.arange(count, dtype=np.uint64) * np.uint64(2654435761) + key) & _MASK
    for shift, factor in ((15, 2246822519), (13, 3266489917)):
        h ^= h >> np.uint64(shift)
        h = (h * np.uint64(factor)) & _MASK
    h ^= h >> np.uint64(16)
    return h / 2.0**32


@torch.no_grad()
def hash_fill(module: nn.Module, salt: int) -> nn.Module:
    """Fill parameters (and BatchNorm buffers) in place by the hash rule; float64 values cast to the module's dtype."""
    for number, (owner, name, parameter) in enumerate(_owned_parameters(module)):
        r = 2 * hash_uniform(parameter.numel(), number, salt) - 1
        values = _parameter_values(owner, name, parameter, r)
        parameter.copy_(torch.from_numpy(values).reshape(parameter.shape))
    number = _BUFFER_OFFSET
    for owner in module.modules():
        if isinstance(owner, nn.BatchNorm2d):
            u_mean, u_var = (hash_uniform(owner.num_features, number + k, salt) for k in (0, 1))
            owner.running_mean.copy_(torch.from_numpy(0.1 * (2 * u_mean - 1)))
            owner.running_var.copy_(torch.from_numpy(1 + 0.5 * u_var))
            number += 2
    return module


def _owned_parameters(module: nn.Module):
    for path, parameter in module.named_parameters():
        owner, _, name = path.rpartition(".")
        yield module.get_submodule(owner), name, parameter


def _parameter_values(owner: nn.Module, name: str, parameter: torch.Tensor, r: np.ndarray) -> np.ndarray:
    if isinstance(owner, nn.Conv2d | nn.Linear):
        fan_in = parameter.numel() // parameter.shape[0]
        return r * math.sqrt(6 / fan_in) if name == "weight" else 0.05 * r
    return 1 + 0.2 * r if name == "weight" else 0.1 * r


@torch.no_grad()
def load_parameters(module: nn.Module, data: dict[str, np.ndarray], prefix: str = "param") -> nn.Module:
    """Copy the arrays `<prefix>NN__…` into the module in their numbered order.

    The order is that of `named_parameters`, or, where the stored names say so (case 7), all
    convolutions, then all norms, then the classifier.
    """
    keys = sorted(key for key in data if key.startswith(prefix) and key[len(prefix) : len(prefix) + 2].isdigit())
    owned = list(_owned_parameters(module))
    if any("layers_conv" in key for key in keys):
        kinds = (nn.Conv2d, nn.GroupNorm, nn.Linear)
        owned = [entry for kind in kinds for entry in owned if isinstance(entry[0], kind)]
    assert len(keys) == len(owned), f"{len(keys)} stored parameters for {len(owned)} of the module"
    for key, (_, _, parameter) in zip(keys, owned, strict=True):
        assert data[key].shape == tuple(parameter.shape), f"{key}: {data[key].shape} for {tuple(parameter.shape)}"
        parameter.copy_(torch.from_numpy(data[key]))
    return module


def normalised(images_u8: np.ndarray, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """uint8 RGB [N, 3, H, W] -> (u8/255 - mean)/std with the CIFAR-10 statistics of golden/README.md."""
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (_MEAN, _STD))
    return ((torch.from_numpy(images_u8).double() / 255 - mean) / std).to(dtype)


def relative_error(value: torch.Tensor | np.ndarray | float, expected: np.ndarray) -> float:
    """max |a - b| / max |b|, the measure in which golden tolerances are stated."""
    value = value.detach().cpu().double().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    assert value.shape == expected.shape, f"shape {value.shape}, expected {expected.shape}"
    return float(np.abs(value - expected).max() / np.abs(expected).max())

"""What several layouts need: finding pairs of tensors, choosing an experiment, the method's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fyi_bench.errors import DataError
from fyi_bench.formats.base import LAST, Options, Raw
from fyi_bench.formats.pixels import to_tensor
from fyi_bench.formats.source import FOLDER, Source
from fyi_bench.formats.torch_file import NumpyArray

_METHODS = r"dsa|datadam|cafe|dc|dm|idm|herding|random|kmeans|kcenter|mtt|tesla|ftd|datm|idc|dream|haba|kip|frepo"


def is_array(value: Any) -> bool:
    """Whether it is a tensor or array of numbers."""
    return isinstance(value, torch.Tensor | np.ndarray | NumpyArray)


def dims(value: Any) -> int:
    """Number of dimensions of a tensor or array, -1 for anything else."""
    return np.ndim(value.value) if isinstance(value, NumpyArray) else value.ndim if is_array(value) else -1


def classes_of(labels: Any, options: Options) -> set[int]:
    """The classes that labels [N] or rows [N, C] name."""
    labels = to_tensor(labels, "labels", options.max_bytes)
    return set((labels if labels.ndim == 1 else labels.argmax(dim=1)).unique().tolist())


def is_pair(value: Any) -> bool:
    """Whether it is [images, labels]: a tensor of 4 or 5 dimensions and one of 1 or 2."""
    return isinstance(value, list | tuple) and len(value) == 2 and dims(value[0]) in (4, 5) and dims(value[1]) in (1, 2)


def one_file(source: Source, pattern: str) -> str:
    """The name of the file that was named, or of the only one in the folder, if it matches the pattern; else ''."""
    names = source.names if source.kind == FOLDER else [source.name]
    matching = [name for name in names if re.fullmatch(pattern, name)]
    return matching[0] if len(matching) == 1 else ""


def method_in(text: str) -> str:
    """The method named in a file's or folder's name, as a word of its own, or ''."""
    found = re.search(rf"(?<![a-z])({_METHODS})(?![a-z0-9])", text.lower())
    return found.group(1) if found else ""


def choose_experiment(pairs: Sequence[Any], options: Options, raw: Raw) -> Any:
    """The experiment that was asked for; DataError where the file has fewer. Several are told."""
    count, asked = len(pairs), options.experiment
    if not -count <= asked < count:
        raise DataError(f"The file has {count} experiments, so experiment={asked} is not there.\nSay 0 to {count - 1}.")
    raw.facts |= {"experiments": count, "experiment": asked % count}
    if count > 1 and asked == LAST:
        raw.guesses.append(f"experiment {count - 1}, the last of {count}, as is usual (experiment=N for another)")
    return pairs[asked]


def need(condition: bool, source: Source, what: str, hint: str = "Name another format, or none.") -> None:
    """DataError saying that the source is not of the format that was named."""
    if not condition:
        raise DataError(f"{source.path} is not {what}.\n{hint}")


def scalar(value: Any) -> float | None:
    """A number from a tensor or array of one element, or None."""
    if is_array(value):
        array = np.asarray(value.value if isinstance(value, NumpyArray) else value)
        return float(array.reshape(-1)[0]) if array.size == 1 else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

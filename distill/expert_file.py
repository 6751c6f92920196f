"""Expert trajectories on the disk: the weights of one network in training, epoch by epoch, read row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from distill.tensor_file import metadata_of, open_tensors, save_tensors, sha256_of
from fyi_bench.errors import DataError

SCHEMA, CONTENT = 1, "trajectory"

_REMEDY = "Remove the folder it is in and run the command again: the expert is trained anew."


class Trajectory:
    """Weights of one expert, [epochs + 1, P]: at the start and after each epoch.

    From a file single rows are read, each checked against its own sha256, so that a hundred experts need no memory.
    """

    def __init__(self, weights: torch.Tensor):
        self.epochs, self._weights = weights.shape[0] - 1, weights

    @staticmethod
    def open(path: str | Path) -> Trajectory:
        """A trajectory in a file. Raises DataError where it is none, or of a newer version."""
        return _Stored(Path(path))

    def at(self, epoch: int) -> torch.Tensor:
        """Weights [P] after so many epochs, float32 on the CPU (float64 where they were trained in it)."""
        return _full_precision(self._weights[epoch])

    def save(self, path: str | Path, facts: dict[str, Any] | None = None) -> Path:
        """Write the trajectory with its checksums and some JSON facts."""
        sums = [sha256_of(row) for row in self._weights]
        header = {"schema": SCHEMA, "content": CONTENT, "row_sha256": sums, "facts": facts or {}}
        return save_tensors(path, {"weights": self._weights}, header)


class _Stored(Trajectory):
    """Rows read from the file when they are asked for."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with open_tensors(path) as file:
                own, (rows, _) = metadata_of(path, file), file.get_slice("weights").get_shape()
            if own["content"] != CONTENT or own["schema"] > SCHEMA:
                raise ValueError(f"content {own['content']}, schema {own['schema']}")
            self._sums = own["row_sha256"]
            if len(self._sums) != rows:
                raise ValueError("it is cut short")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is not an expert trajectory of this version ({error}).\n{_REMEDY}") from error
        self.epochs = rows - 1

    def at(self, epoch: int) -> torch.Tensor:
        with open_tensors(self.path) as file:
            row = file.get_slice("weights")[range(self.epochs + 1)[epoch]]
        if sha256_of(row) != self._sums[epoch]:
            raise DataError(f"{self.path} is damaged: the weights after epoch {epoch} do not match.\n{_REMEDY}")
        return _full_precision(row)


def _full_precision(weights: torch.Tensor) -> torch.Tensor:
    return weights if weights.dtype == torch.float64 else weights.float()

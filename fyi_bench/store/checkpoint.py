"""Checkpoints of one run: the two newest are kept, and a damaged one is never gone on from.

A checkpoint is a step count, named tensors and a small JSON table. It holds no generator state, because every draw
is keyed by its step.
"""

from __future__ import annotations

import errno
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import DataError, StoreError
from fyi_bench.files import legal_json, remove

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]
    Take = Callable[[int, Tensors], None]

KEPT = 2
_NAME = re.compile(r"ckpt-(\d+)\.safetensors")
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class Checkpoints:
    """The files `ckpt-<step>.safetensors` of a folder.

    key: digest of the run; a checkpoint of another run is refused. say(text): told when a damaged one is passed over.
    """

    def __init__(self, folder: Path, key: str, say: Callable[[str], None] = lambda text: None):
        self.folder, self.key, self._say = folder, key, say
        self._damaged: set[int] = set()

    def steps(self) -> list[int]:
        """Steps of the files that are there, oldest first."""
        return checkpoint_steps(self.folder)

    def save(self, step: int, tensors: Tensors, meta: dict[str, Any]) -> Path:
        """Write one checkpoint whole or not at all, then remove all but it and the newest good one before it.

        Raises StoreError with the bytes needed where the disk is full; the older checkpoints are then still there.
        """
        from distill.tensor_file import save_tensors

        path = self.path(step)
        try:
            save_tensors(path, tensors, {"cell": self.key, "step": step, "meta": legal_json(meta)})
        except StoreError as error:
            raise self._without_room(error, tensors) from error
        self._damaged.discard(step)
        self._prune(step)
        return path

    def load(self, take: Take = lambda step, tensors: None) -> tuple[int, Tensors, dict[str, Any]] | None:
        """(step, tensors on the CPU, meta) of the newest checkpoint that is whole, or None.

        take(step, tensors): told each, and raises ValueError where it is no state of the run; then an older one counts.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                tensors, meta = self.read(step)
                self._give(step, tensors, take)
                return step, tensors, meta
            except DataError as error:
                self._damaged.add(step)
                older = [s for s in steps if s < step]
                rest = f"going on from the one at step {older[-1]}" if older else "starting from the beginning"
                self._say(f"{str(error).splitlines()[0]} A checkpoint was lost: {rest}.")
        return None

    def _give(self, step: int, tensors: Tensors, take: Take) -> None:
        try:
            take(step, tensors)
        except ValueError as error:
            raise DataError(f"{self.path(step)} is damaged: {error}.\n{_REMEDY}") from error

    def read(self, step: int) -> tuple[Tensors, dict[str, Any]]:
        """(tensors, meta) of one checkpoint. Raises DataError where any byte of it is not what was written.

        meta: `user`, what the run keeps beside its tensors, and `wall_s`, seconds of work so far.
        """
        from distill.tensor_file import load_tensors

        path = self.path(step)
        try:
            tensors, metadata = load_tensors(path)
            meta, told = metadata["meta"], (metadata["cell"], metadata["step"])
            if not (isinstance(meta["user"], dict) and 0 <= float(meta["wall_s"]) < math.inf):
                raise ValueError("it says neither what was kept nor how long it took")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{path} is damaged: its header makes no sense ({error}).\n{_REMEDY}") from error
        if told != (self.key, step):
            raise DataError(f"{path} belongs to another run or step.\n{_REMEDY}")
        return tensors, {**meta, "wall_s": float(meta["wall_s"])}

    def path(self, step: int) -> Path:
        """Where the checkpoint of this step is."""
        return self.folder / f"ckpt-{step}.safetensors"

    def clear(self) -> None:
        """Remove all of them."""
        for step in self.steps():
            remove(self.path(step))

    def _prune(self, newest: int) -> None:
        others = [step for step in self.steps() if step != newest and step not in self._damaged]
        kept = {newest, *others[len(others) - (KEPT - 1) :]}
        for step in self.steps():
            if step not in kept:
                remove(self.path(step))

    def _without_room(self, error: StoreError, tensors: Tensors) -> StoreError:
        cause = error.__cause__
        if not isinstance(cause, OSError) or cause.errno not in _NO_ROOM:
            return error
        needed = sum(value.numel() * value.element_size() for value in tensors.values()) / 2**20
        free = shutil.disk_usage(self.folder).free / 2**20
        steps = self.steps()
        kept = f"The checkpoint at step {steps[-1]} is kept" if steps else "No checkpoint was saved before"
        return StoreError(
            f"{str(error).splitlines()[0]} It needs {needed:.2f} MiB; {free:.1f} MiB are free there.\n"
            f"{kept}: make room and run the same command, or choose another --store."
        )


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, oldest first."""
    return sorted(int(match[1]) for entry in folder.glob("ckpt-*") if (match := _NAME.fullmatch(entry.name)))


_REMEDY = "Remove it; the run goes on from an older checkpoint or starts again."

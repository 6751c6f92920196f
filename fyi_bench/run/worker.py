"""Cells: the units of work of every command, and how a worker computes one.

A cell is a kind and the inputs that can change its numbers; its digest names its folder in the store. Commands
build cells in the parent process; workers, here or on other machines, compute those whose record is missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import DivergenceError
from fyi_bench.registry import Registry
from fyi_bench.store.store import RunDir, RunSpec, Store, cell_digest

if TYPE_CHECKING:
    from distill.image_set import ImageSet
    from fyi_bench.data import RealDataset

AT_ONCE = {"cuda": 5}  # device -> how many cells of TOGETHER are computed at once; one elsewhere
SET_FILE = "set.safetensors"
LAST_GOOD_FILE = "last-good.safetensors"

# kind -> function(cell, run folder, worker) that computes the cell and finishes the run
CELLS: Registry[Callable[[RunSpec, RunDir, Worker], None]] = Registry(
    "cell kind", package="fyi_bench.run.types", group="fyi_bench.cells"
)
# kind -> function(cells, run folders, worker) that computes cells which differ in nothing but their seed
TOGETHER: Registry[Callable[[Sequence[RunSpec], Sequence[RunDir], Worker], None]] = Registry(
    "cell kind", package="fyi_bench.run.types", group="fyi_bench.cells_together"
)


@dataclass
class Worker:
    """What computing a cell needs beside the cell: where data and results are, the device, when to stop.

    progress(digest, done, total, loss) is called while a cell is computed; say(line) for rare news.
    one_by_one: whether cells that could be computed at once are not, for lack of memory.
    """

    store: Store
    data_root: Path | None = None
    device: str = "cpu"
    stop: Any = None
    progress: Callable[[str, int, int, float], None] = lambda digest, done, total, loss: None
    say: Callable[[str], None] = lambda line: None
    one_by_one: bool = False
    _cache: dict[Any, Any] = field(default_factory=dict)

    def data(self, name: str, test: bool = True) -> RealDataset:
        """The real data set, kept between cells. Without `test` no test image is read or can be."""
        from fyi_bench.data import load_dataset

        if test:
            # the train images would be in memory twice: the set without test images goes
            self._cache.pop(("data", name, False), None)
        return self.keep(("data", name, test), lambda: load_dataset(name, self.data_root, test=test))

    def image_set(self, reference: dict[str, str]) -> ImageSet:
        """The set a cell refers to: {'cell': digest} of a finished run, or {'file': path, 'digest': of its content}.

        A run that is not a `distill` one is named by `kind`, a set in it that is not its only one by `name`.
        """
        from distill.image_set import ImageSet
        from fyi_bench.data.whitening import ready
        from fyi_bench.errors import DataError

        if "cell" in reference:
            place = reference.get("kind", "distill"), reference["cell"], reference.get("name", SET_FILE)
            path = self.store.artefact(*place)
        else:
            path = reference["file"]
        image_set = self.keep(("set", str(path)), lambda: ImageSet.load(path))
        ready(image_set.space, lambda name: self.data(name, test=False))
        if "digest" in reference and image_set.digest != reference["digest"]:
            raise DataError(f"{path} is not the set that was planned with.\nRun the command again.")
        return image_set

    def keep(self, key: Any, make: Callable[[], Any]) -> Any:
        """A value made once per worker."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]


def ensure(cell: RunSpec, worker: Worker, wait: bool = True) -> dict[str, Any]:
    """The cell's record: read if it exists, else computed here; another process at it is waited for.

    wait False: store.Busy is raised then.
    """
    with worker.store.run(cell, budget=worker.stop, on_wait=worker.say, wait=wait) as run:
        if not run.done:
            CELLS.get(cell.kind)(cell, run, worker)
        return run.record


def groups(cells: Sequence[RunSpec], device: str) -> list[list[RunSpec]]:
    """The cells in the order of their first, each with those that the device computes at the same time."""
    size, found = AT_ONCE.get(device, 1), {}
    for cell in cells:
        inputs = {name: value for name, value in cell.inputs.items() if name != "seed"}
        alike = cell_digest(cell.kind, inputs) if size > 1 and cell.kind in TOGETHER else cell.digest
        found.setdefault(alike, []).append(cell)
    return [group[first : first + size] for group in found.values() for first in range(0, len(group), size)]


def ensure_together(cells: Sequence[RunSpec], worker: Worker, wait: bool = True) -> None:
    """`ensure` of a group of `groups`.

    Each is computed alone after all where one network diverges, so that it is known which, and where memory ends.
    """
    if len(cells) > 1 and not worker.one_by_one:
        with contextlib.ExitStack() as stack, contextlib.suppress(DivergenceError):
            # in one order everywhere, or two processes could wait for each other
            runs = {
                cell.digest: stack.enter_context(worker.store.run(cell, worker.stop, worker.say, wait))
                for cell in sorted(cells, key=lambda cell: cell.digest)
            }
            left = [cell for cell in cells if not runs[cell.digest].done]
            _compute_together(left, [runs[cell.digest] for cell in left], worker)
    for cell in cells:
        ensure(cell, worker, wait)


def _compute_together(cells: Sequence[RunSpec], runs: Sequence[RunDir], worker: Worker) -> None:
    try:
        if cells:
            TOGETHER.get(cells[0].kind)(cells, runs, worker)
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        worker.say("Several networks at once need more memory than there is; they are trained one after another.")
        worker.one_by_one = True

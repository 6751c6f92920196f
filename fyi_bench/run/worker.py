"""What computing a run needs beside the run, and the computing of one: read if finished, else done here, alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import DataError, DivergenceError
from fyi_bench.run.run_type import run_type
from fyi_bench.store.spec import RunSpec, run_digest
from fyi_bench.store.store import Store

if TYPE_CHECKING:
    from distill.image_set import ImageSet
    from fyi_bench.data import RealDataset
    from fyi_bench.run.deadline import Deadline

AT_ONCE = {"cuda": 5}  # device -> how many alike runs are computed at once; one elsewhere
SET_FILE = "set.safetensors"
LAST_GOOD_FILE = "last-good.safetensors"


@dataclass
class Worker:
    """Where data and results are, the device, when to stop, and what was read already.

    progress(digest, done, total, loss) is called while a run is computed; say(line) for rare news.
    one_by_one: whether runs that could be computed at once are not, for lack of memory.
    """

    store: Store
    data_root: Path | None = None
    device: str = "cpu"
    stop: Deadline | None = None
    progress: Callable[[str, int, int, float], None] = lambda digest, done, total, loss: None
    say: Callable[[str], None] = lambda line: None
    one_by_one: bool = False
    _cache: dict[Any, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise what the deadline raises when it is time to stop."""
        if self.stop is not None:
            self.stop.check()

    def data(self, name: str, test: bool = True) -> RealDataset:
        """The real data set, kept between runs. Without `test` no test image is read or can be."""
        from fyi_bench.data import load_dataset

        if test:
            # the train images would be in memory twice: the set without test images goes
            self._cache.pop(("data", name, False), None)
        return self.keep(("data", name, test), lambda: load_dataset(name, self.data_root, test=test))

    def image_set(self, reference: dict[str, str]) -> ImageSet:
        """The set a run refers to: {'cell': digest} of a finished run, or {'file': path, 'digest': of its content}.

        A run that is not a `distill` one is named by `kind`, a set in it that is not its only one by `name`.
        """
        from distill.image_set import ImageSet
        from fyi_bench.data.whitening import ready

        if "cell" in reference:
            name = reference.get("name", SET_FILE)
            path = str(self.store.artefact(reference.get("kind", "distill"), reference["cell"], name))
        else:
            path = reference["file"]
        image_set = self.keep(("set", path), lambda: ImageSet.load(path))
        ready(image_set.space, lambda name: self.data(name, test=False))
        if "digest" in reference and image_set.digest != reference["digest"]:
            raise DataError(f"{path} is not the set that was planned with.\nRun the command again.")
        return image_set

    def keep(self, key: Any, make: Callable[[], Any]) -> Any:
        """A value made once per worker."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]


def ensure(spec: RunSpec, worker: Worker) -> dict[str, Any]:
    """The run's record: read if it exists, else computed here; another process at it is waited for."""
    with worker.store.run(spec, worker.stop, worker.say) as run:
        if not run.done:
            run_type(spec).compute(run, worker)
        return run.record


def alike(spec: RunSpec, worker: Worker) -> tuple[str, int]:
    """(key, count): runs of one key differ in their seed alone, and so many of them are computed at once here."""
    size = 1 if worker.one_by_one or not run_type(spec).together else AT_ONCE.get(worker.device, 1)
    return run_digest(spec.kind, {key: value for key, value in spec.inputs.items() if key != "seed"}), size


def together(specs: Sequence[RunSpec], worker: Worker) -> None:
    """Try to compute alike runs at once.

    What is left unfinished is for `ensure`, run by run: where one network diverges, so that it is known which, and
    where memory ends.
    """
    with contextlib.ExitStack() as stack, contextlib.suppress(DivergenceError):
        # in one order everywhere, or two processes could wait for each other
        ordered = sorted(specs, key=lambda spec: spec.digest)
        opened = {spec: stack.enter_context(worker.store.run(spec, worker.stop, worker.say)) for spec in ordered}
        left = [opened[spec] for spec in specs if not opened[spec].done]
        try:
            if left:
                run_type(left[0].spec).compute_together(left, worker)
        except RuntimeError as error:
            if "out of memory" not in str(error):
                raise
            worker.say("Several networks at once need more memory than there is; they are trained one after another.")
            worker.one_by_one = True

"""Run types: how a run of each type is computed, what it needs first and what it costs; and the worker that computes.

A worker is what computing a run needs beside the run: where data and results are, the device, when to stop. `ensure`
computes one: read if finished, else done here, alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fyi_bench.errors import DataError, DivergenceError, StoreError
from fyi_bench.registry import Registry
from fyi_bench.store.run_dir import RunDir
from fyi_bench.store.spec import RunSpec, run_digest
from fyi_bench.store.store import Store

if TYPE_CHECKING:
    from distill.image_set import ImageSet
    from fyi_bench.data import RealDataset
    from fyi_bench.run.deadline import Deadline

AT_ONCE = {"cuda": 5}  # device -> how many alike runs are computed at once; one elsewhere
SET_FILE = "set.safetensors"
LAST_GOOD_FILE = "last-good.safetensors"
DATA_SOURCE = "data_source"  # note of a run: what finds its real data, where the name alone does not
MEASURED = "data_space"  # input of a run: mean and std, where they follow from the images that were found
Need = tuple[str, str]  # type and digest of a run


def source_note(data: RealDataset) -> dict[str, str]:
    """What the notes of a run say of where its real data is, where the name alone does not find it."""
    return {DATA_SOURCE: data.source} if data.source else {}


def measured_space(data: RealDataset) -> dict[str, Any]:
    """What the inputs of a run say of the space networks are trained in, where it is no published constant."""
    return {MEASURED: data.space.describe()} if data.measured else {}


@dataclass(frozen=True)
class Passes:
    """Images that go through a network: forward only, with first derivatives, with second derivatives.

    precision: of forward passes and first derivatives. steps: of an optimiser, which take time beside their images.
    """

    model: str
    shape: tuple[int, int, int]
    classes: int
    forward: float = 0.0
    first: float = 0.0
    second: float = 0.0
    precision: str = "fp32"
    steps: int = 0


class Follower:
    """Hears of one run while it is computed: a log, say. This one does not listen.

    pictures: whether it looks at sets on their way.
    """

    pictures: ClassVar[bool] = False

    def progress(self, done: int, total: int, loss: float) -> None:
        """So many steps of all are done; loss: of the last one, NaN where there is none."""

    def picture(self, done: int, total: int, look: Callable[[], ImageSet]) -> None:
        """Likewise, where a set is condensed; `look()` gives it as it is now."""

    def ended(self, record: Mapping[str, Any]) -> None:
        """The run is over; its record."""


@dataclass
class Worker:
    """Where data and results are, the device, when to stop, and what was read already.

    shown(digest, done, total, loss) is told of every progress; say(line) of rare news. followers: of the runs under
    way, by digest. one_by_one: whether runs that could be computed at once are not, for lack of memory.
    """

    store: Store
    data_root: Path | None = None
    device: str = "cpu"
    stop: Deadline | None = None
    shown: Callable[[str, int, int, float], None] = lambda digest, done, total, loss: None
    say: Callable[[str], None] = lambda line: None
    one_by_one: bool = False
    followers: dict[str, Sequence[Follower]] = field(default_factory=dict)
    _cache: dict[Any, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise what the deadline raises when it is time to stop."""
        if self.stop is not None:
            self.stop.check()

    def progress(self, digest: str, done: int, total: int, loss: float) -> None:
        """Say how far a run is; run types call it after every step that may be worth telling."""
        self.shown(digest, done, total, loss)
        for follower in self.followers.get(digest, ()):
            follower.progress(done, total, loss)

    def watch(self, digest: str, total: int) -> Callable[[int, Callable[[], ImageSet]], None] | None:
        """What the engine shows a set on its way to; None where nobody looks."""
        watching = [follower for follower in self.followers.get(digest, ()) if follower.pictures]

        def watch(done: int, look: Callable[[], ImageSet]) -> None:
            for follower in watching:
                follower.picture(done, total, look)

        return watch if watching else None

    def data(self, name: str, test: bool = True) -> RealDataset:
        """The real data set, kept between runs. Without `test` no test image is read or can be."""
        from fyi_bench.data import load_dataset

        if test:
            # the train images would be in memory twice: the set without test images goes
            self._cache.pop(("data", name, False), None)
        return self.keep(("data", name, test), lambda: load_dataset(name, self.data_root, test=test))

    def real(self, spec: RunSpec, test: bool = True) -> RealDataset:
        """The real data set of a run, from where it was planned. Raises DataError where its images are others now."""
        data, inputs = self.data(spec.notes.get(DATA_SOURCE, spec.inputs["dataset"]), test), spec.inputs
        planned = {"data": inputs.get("set", {}).get("data"), **inputs}  # a network trained on real images names them
        here = {"data": "train_digest", "train_data": "train_digest", "test_data": "test_digest"}
        changed = [key for key, name in here.items() if planned.get(key) and planned[key] != getattr(data, name)]
        if changed or inputs.get(MEASURED, data.space.describe()) != data.space.describe():
            which = "test" if changed == ["test_data"] else "train"
            raise DataError(
                f"The {which} images of {data.name} in {data.where} are not those this run was planned with.\n"
                "Run the command again; on several machines give each the same --data-root or path."
            )
        return data

    def image_set(self, reference: dict[str, str]) -> ImageSet:
        """The set a run refers to: {'cell': digest} of a finished run, or {'file': path, 'digest': of its content}.

        A run that is not a `distill` one is named by `kind`, a set in it that is not its only one by `name`.
        """
        from distill.image_set import ImageSet
        from fyi_bench.data.whitening import ready

        def path() -> str:
            if "cell" not in reference:
                return reference["file"]
            kind, name = reference.get("kind", "distill"), reference.get("name", SET_FILE)
            return str(self.store.artefact(kind, reference["cell"], name))

        key = tuple(sorted((name, value) for name, value in reference.items() if name != "digest"))
        image_set = self.keep(("set", key), lambda: ImageSet.load(path()))
        ready(image_set.space, lambda name: self.data(name, test=False))
        if "digest" in reference and image_set.digest != reference["digest"]:
            raise DataError(f"{path()} is not the set that was planned with.\nRun the command again.")
        return image_set

    def keep(self, key: Any, make: Callable[[], Any]) -> Any:
        """A value made once per worker."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]


@dataclass(frozen=True)
class Metric:
    """The one number of a run that logs and dashboards plot. key: where it stands in the record, last in a list."""

    name: str
    key: str
    less_is_better: bool = True

    def of(self, record: Mapping[str, Any]) -> Any:
        """The number in a record; None where there is none."""
        found = record.get(self.key)
        return found[-1] if isinstance(found, list) and found else found


ACCURACY = Metric("accuracy", "value", less_is_better=False)
LOSS, LOSSES, SECONDS = Metric("loss", "loss_last"), Metric("loss", "losses"), Metric("seconds", "wall_s")


class RunType:
    """What a run spec of this type means. One object serves all runs; it holds nothing.

    name: the word in `RunSpec.kind`, and the folder in the store. together: whether runs that differ in nothing but
    their seed may be computed at once (`compute_together`), where the device gains by it. metric: what logs and
    dashboards plot of it; SECONDS where a run has no number of its own. loading_s: what a worker takes, about, to load
    a library that these runs alone need.
    """

    name: ClassVar[str]
    together: ClassVar[bool] = False
    metric: ClassVar[Metric] = ACCURACY
    loading_s: ClassVar[float] = 0.0

    def compute(self, run: RunDir, worker: Worker) -> None:
        """Compute `run.spec` and end with `run.finish(record)`."""
        self.compute_together([run], worker)

    def compute_together(self, runs: Sequence[RunDir], worker: Worker) -> None:
        """Compute runs that differ in their seed alone, and finish each."""
        raise NotImplementedError(self.name)

    def needs(self, spec: RunSpec) -> list[Need]:
        """Runs that must be finished before this one, as its inputs name them."""
        return []

    def passes(self, spec: RunSpec, data: RealDataset) -> list[Passes]:
        """Image passes the run takes, for the estimate of time; none where no network runs."""
        return []

    def metric_of(self, spec: RunSpec) -> Metric:
        """What logs and dashboards plot of this run."""
        return self.metric

    def title(self, spec: RunSpec) -> str:
        """Short name of the run for people: 'distill dsa fyi step 2/10 seed 0'."""
        i = spec.inputs
        words = [self.name, i.get("method"), i.get("flip") if i.get("flip") not in (None, "none") else None]
        words.append(f"step {i['step'] + 1}/{i['steps']}" if "step" in i else None)
        words.append(f"seed {i['seed']}" if "seed" in i else None)
        return " ".join(str(word) for word in words if word)

    def side(self, spec: RunSpec) -> str:
        """Which side of a comparison it is of: 'dm+fyi', 'real', a file's name; '' where a run it needs tells."""
        method, flip, file = spec.inputs.get("method"), spec.inputs.get("flip"), spec.notes.get("file")
        if method:
            return method if flip in (None, "none") else f"{method}+{flip}"
        return Path(file).stem if file else ""

    def parameters(self, spec: RunSpec) -> dict[str, Any]:
        """What a dashboard of the queue shows as parameters of the run."""
        shown = {key: spec.inputs.get(key) for key in ("method", "flip", "ipc", "step", "seed")}
        return {"type": self.name, **{key: value for key, value in shown.items() if isinstance(value, str | int)}}


# name of a type -> what it is; a file in `fyi_bench/run/types` registers by being there
RUN_TYPES: Registry[type[RunType]] = Registry("run type", package="fyi_bench.run.types", group="fyi_bench.run_types")


def run_type(spec: RunSpec) -> RunType:
    """The type of a run. Raises UnknownNameError where it is not installed here."""
    return RUN_TYPES.get(spec.kind)()


def ensure(spec: RunSpec, worker: Worker) -> dict[str, Any]:
    """The run's record: read if it exists, else computed here; another process at it is waited for."""
    with worker.store.run(spec, worker.stop, worker.say) as run:
        if not run.done:
            run_type(spec).compute(run, worker)
        record = run.record
    if record is None:  # of a plug-in, say
        raise StoreError(f"The run type '{spec.kind}' ended without run.finish(record).\nMend it, and run again.")
    return record


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

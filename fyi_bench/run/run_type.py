"""Run types: how a run of each type is computed, what it needs first, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from fyi_bench.registry import Registry

if TYPE_CHECKING:
    from fyi_bench.data import RealDataset
    from fyi_bench.run.estimate import Passes
    from fyi_bench.run.worker import Worker
    from fyi_bench.store.run_dir import RunDir
    from fyi_bench.store.spec import RunSpec

Need = tuple[str, str]  # type and digest of a run


class RunType:
    """What a run spec of this type means. One object serves all runs; it holds nothing.

    name: the word in `RunSpec.kind`, and the folder in the store. together: whether runs that differ in nothing but
    their seed may be computed at once (`compute_together`), where the device gains by it.
    """

    name: ClassVar[str]
    together: ClassVar[bool] = False

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

    def title(self, spec: RunSpec) -> str:
        """Short name of the run for people: 'distill dsa fyi step 2/10 seed 0'."""
        i = spec.inputs
        words = [self.name, i.get("method"), i.get("flip") if i.get("flip") not in (None, "none") else None]
        words.append(f"step {i['step'] + 1}/{i['steps']}" if "step" in i else None)
        words.append(f"seed {i['seed']}" if "seed" in i else None)
        return " ".join(str(word) for word in words if word)

    def parameters(self, spec: RunSpec) -> dict[str, Any]:
        """What a dashboard of the queue shows as parameters of the run."""
        shown = {key: spec.inputs.get(key) for key in ("method", "flip", "ipc", "step", "seed")}
        return {"type": self.name, **{key: value for key, value in shown.items() if isinstance(value, str | int)}}


# name of a type -> what it is; a file in `fyi_bench/run/types` registers by being there
RUN_TYPES: Registry[type[RunType]] = Registry("run type", package="fyi_bench.run.types", group="fyi_bench.run_types")


def run_type(spec: RunSpec) -> RunType:
    """The type of a run. Raises UnknownNameError where it is not installed here."""
    return RUN_TYPES.get(spec.kind)()

"""Run type `trail`: a distillation with the set kept on its way, for protocols that pick the best of checkpoints.

The engine is stopped after each iteration that is asked for, which leaves a checkpoint there; a run of that many
iterations then goes on from it and ends at once. So what is kept is the set that a shorter run would have given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import DivergenceError, StoreError
from fyi_bench.run.run_type import RUN_TYPES, Worker
from fyi_bench.run.types.distill import Distill, problem_of
from fyi_bench.store.run_dir import RunDir
from fyi_bench.store.spec import RunSpec

if TYPE_CHECKING:
    from distill.image_set import ImageSet


def trail_run(made: RunSpec, at: Sequence[int], raw: bool = False) -> RunSpec:
    """The spec of the sets of a `distill` spec after the iterations `at`.

    raw: also the images themselves, where the method's result is something else (FTD's running average).
    """
    return RunSpec("trail", {**made.inputs, "at": sorted(at), "raw": raw}, made.notes)


def set_name(iteration: int) -> str:
    """File of the set after so many iterations."""
    return f"set-{iteration}.safetensors"


def raw_name(iteration: int) -> str:
    """File of the images themselves after so many iterations."""
    return f"raw-{iteration}.safetensors"


class _Reached(Exception):
    """No error: the iteration asked for is done, and its checkpoint is on the disk."""


class _Keeper:
    """The run's checkpoints, and which one the engine saved or went on from last: its step and its tensors."""

    def __init__(self, run: RunDir):
        self.run, self.step, self.tensors = run, 0, dict[str, Any]()

    def save(self, step: int, tensors: dict[str, Any], meta: dict[str, Any]) -> None:
        self.run.save(step, tensors, meta)
        self.step, self.tensors = step, tensors

    def load(self, take: Callable[[int, dict[str, Any]], None]) -> tuple[int, dict[str, Any], dict[str, Any]] | None:
        found = self.run.load(take)
        self.step, self.tensors = found[:2] if found else (0, {})
        return found


class _Until:
    """Stops the engine when so many iterations are done, or when the worker is to stop."""

    def __init__(self, iteration: int, keeper: _Keeper, outer: Any):
        self.iteration, self.keeper, self.done, self.outer = iteration, keeper, 0, outer

    @property
    def reached(self) -> bool:
        return max(self.done, self.keeper.step) >= self.iteration

    def requested(self) -> bool:
        return self.reached or (self.outer is not None and self.outer.requested())

    def check(self) -> None:
        if self.reached:
            raise _Reached
        self.outer.check()


def _advance(engine: Callable, keeper: _Keeper, worker: Worker, iteration: int, whole: int) -> None:
    """Take the run to this iteration and leave its checkpoint there."""
    keeper.step, spec = 0, keeper.run.spec
    until = _Until(iteration, keeper, worker.stop)

    def follow(done: int, loss: float) -> None:
        until.done = done
        worker.progress(spec.digest, done, spec.inputs["at"][-1], loss)

    try:
        engine(whole, until, follow)
    except _Reached:
        return
    except DivergenceError as error:
        keeper.run.mark_diverged({"message": str(error), "step": error.step})
        raise


def found_facts(run: RunDir, at: Sequence[int]) -> dict[str, Any]:
    """What the record says: digest and losses of each set."""
    from distill.image_set import ImageSet

    sets = {iteration: ImageSet.load(run.path(set_name(iteration))) for iteration in at}
    return {
        "set_digests": {str(iteration): one.digest for iteration, one in sets.items()},
        "set_bytes": sets[at[-1]].nbytes,
        "set_parts": sets[at[-1]].parts,
        **{key: sets[at[-1]].provenance[key] for key in ("iterations", "loss_first", "loss_last")},
    }


@RUN_TYPES.register("trail")
class Trail(Distill):
    """Run a distillation to each iteration in turn and keep the set that is there."""

    name = "trail"

    def compute(self, run: RunDir, worker: Worker) -> None:
        """Run to each iteration in turn and keep the set that is there."""
        from distill.engine import distill
        from distill.methods import config_of

        spec = run.spec
        inputs, problem = spec.inputs, problem_of(spec, worker)
        whole, keeper = inputs["config"]["iterations"], _Keeper(run)

        def engine(iterations: int, stop: Any = None, report: Callable[[int, float], None] | None = None) -> ImageSet:
            config = config_of(inputs["method"], {**inputs["config"], "iterations": iterations})
            facts = {"dataset": inputs["dataset"], "recipe": inputs["config"], "numerics": inputs["numerics"]}
            return distill(
                problem, inputs["method"], config, inputs["flip"], checkpointer=keeper, stop=stop, report=report,
                watch=worker.watch(spec.digest, inputs["at"][-1]), provenance={**facts, "cell": spec.digest},
            )  # fmt: skip

        for iteration in inputs["at"]:
            names = [set_name(iteration), *([raw_name(iteration)] if inputs["raw"] else [])]
            if all(run.path(name).exists() for name in names):
                continue
            _advance(engine, keeper, worker, iteration, max(whole, iteration + 1))
            found = engine(iteration)
            if keeper.step != iteration:  # `_advance` left it there
                raise StoreError(
                    f"The checkpoint {iteration} in {run.folder} was damaged.\nRun the same command again."
                )
            found.save(run.path(set_name(iteration)), preview=False)
            if inputs["raw"]:
                replace(found, images=keeper.tensors["images"]).save(run.path(raw_name(iteration)), preview=False)
        facts = found_facts(run, inputs["at"])
        run.finish(facts)

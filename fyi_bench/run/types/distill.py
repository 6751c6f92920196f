"""Run type `distill`: condense some classes of a data set with one method, with or without FYI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import DivergenceError
from fyi_bench.run.numerics import using
from fyi_bench.run.run_type import (
    LAST_GOOD_FILE,
    LOSS,
    RUN_TYPES,
    SECONDS,
    SET_FILE,
    Metric,
    Need,
    Passes,
    RunType,
    Worker,
    source_note,
)
from fyi_bench.run.types.expert import expert_digests, trajectories
from fyi_bench.store.run_dir import RunDir
from fyi_bench.store.spec import RunSpec

if TYPE_CHECKING:
    from distill.method import Method
    from distill.problem import Problem
    from distill.recipes import Recipe
    from distill.spaces import Space
    from fyi_bench.data import RealDataset

REAL_BATCHES = ("batch_real", "batch_target")  # keys of recipes: real images a class
LARGEST_WATCH = 128  # what a method asks for beside them at most (CAFE)


def distill_run(
    data: RealDataset,
    method: str,
    flip: str,
    ipc: int,
    seed: int,
    recipe: Recipe,
    classes: Sequence[int] | None = None,
    precision: str = "fp32",
) -> RunSpec:
    """The spec of one condensed set; `recipe` has the user's overrides already applied."""
    from distill.fyi import FLIPS
    from distill.methods import METHODS

    method, flip = METHODS.spelled(method), FLIPS.spelled(flip)
    chosen = METHODS.get(method)
    config = chosen.Config.from_values(recipe.values)
    values = chosen.values_of(config, ipc, FLIPS.get(flip).multiplier)
    families = ["engine", "augment", "flip", "network", *chosen.components]
    sizes = data.train.counts if classes is None else data.train.counts[list(classes)]
    drawn = [values[key] for key in REAL_BATCHES if key in values]
    if len(sizes.unique()) > 1 and (drawn or method in METHODS.from_outside()):
        # classes that are too small for some of its batches make them unlike
        most = max(LARGEST_WATCH, *drawn, ipc * values.get("factor", 1) ** 2)
        families += ["batches"] if int(sizes.min()) < most else []
    inputs = {
        "dataset": data.name,
        "data": data.train_digest,
        "classes": list(classes if classes is not None else range(data.num_classes)),
        "method": method,
        "flip": flip,
        "ipc": ipc,
        "seed": seed,
        "precision": precision,
        "space": working_space(chosen, config, data).describe(),
        **inner_statistics(chosen, data),
        "config": values,
        "numerics": {
            "method": METHODS.numerics(method),
            **using(*families, settings=[flip, *values.values()]),
        },
    }
    inputs |= expert_digests(inputs)
    notes = {"recipe_sources": recipe.sources, "recipe_inferred": sorted(recipe.inferred)}
    notes |= source_note(data)
    return RunSpec("distill", inputs, notes)


def working_space(method: type[Method], config: Any, data: RealDataset) -> Space:
    """The space a method works in on this data set, with the channel statistics of its published code."""
    from distill.spaces import NormalizedSpace, PixelSpace
    from fyi_bench.data.real import statistics
    from fyi_bench.data.whitening import zca_space

    normalized = NormalizedSpace(*statistics(data, method.statistics_family))
    kind = "zca" if getattr(config, "zca", False) else method.space_kind
    return {"normalized": normalized, "pixel": PixelSpace(), "zca": zca_space(data, method.zca_space, normalized)}[kind]


def inner_statistics(method: type[Method], data: RealDataset) -> dict[str, Any]:
    """`statistics` of a spec whose method works on pixels and normalises inside; nothing for the others."""
    from distill.spaces import NormalizedSpace
    from fyi_bench.data.real import statistics

    if method.space_kind != "pixel":
        return {}
    return {"statistics": NormalizedSpace(*statistics(data, method.statistics_family)).describe()}


def problem_of(spec: RunSpec, worker: Worker) -> Problem:
    """The problem a distill spec states; only train images are read."""
    import torch

    from distill.problem import Problem
    from distill.spaces import NormalizedSpace, space_from
    from fyi_bench.data.whitening import ready

    inputs, data = spec.inputs, worker.real(spec, test=False)
    experts = trajectories(spec, worker) if inputs.get("experts") else None
    return Problem(
        real=data.train,
        space=ready(space_from(inputs["space"]), lambda name: data),
        ipc=inputs["ipc"],
        seed=inputs["seed"],
        classes=tuple(inputs["classes"]),
        device=torch.device(worker.device),
        precision=inputs["precision"],
        data_digest=inputs["data"],
        statistics=NormalizedSpace.rebuild(inputs["statistics"]) if "statistics" in inputs else None,
        experts=(lambda: experts) if experts else None,
    )


@RUN_TYPES.register("distill")
class Distill(RunType):
    """Condense some classes of a data set with one method, with or without FYI."""

    name = "distill"

    def compute(self, run: RunDir, worker: Worker) -> None:
        """Run the engine, store the set with its preview, and record its facts."""
        from distill.engine import distill
        from distill.methods import config_of

        spec = run.spec
        inputs = spec.inputs
        total, problem = inputs["config"]["iterations"], problem_of(spec, worker)
        try:
            result = distill(
                problem,
                inputs["method"],
                config_of(inputs["method"], inputs["config"]),
                inputs["flip"],
                checkpointer=run,
                stop=worker.stop,
                report=lambda done, loss: worker.progress(spec.digest, done, total, loss),
                watch=worker.watch(spec.digest, total),
                provenance={
                    "dataset": inputs["dataset"],
                    "recipe": inputs["config"],
                    "numerics": inputs["numerics"],
                    "cell": spec.digest,
                },
            )
        except DivergenceError as error:
            path = error.last_good.save(run.path(LAST_GOOD_FILE))
            run.mark_diverged({"message": str(error), "step": error.step, "last_good": str(path)})
            raise DivergenceError(f"{error}\nThe last good images are in {path}.", error.step, str(path)) from error
        result.save(run.path(SET_FILE))
        facts = result.provenance
        run.finish(
            {
                "set": SET_FILE,
                "set_digest": result.digest,
                "set_bytes": result.nbytes,
                "set_parts": result.parts,
                **{key: facts[key] for key in ("iterations", "loss_first", "loss_last")},
            }
        )

    def metric_of(self, spec: RunSpec) -> Metric:
        """The loss at the end; images that are picked have none."""
        return LOSS if spec.inputs["config"]["iterations"] else SECONDS

    def needs(self, spec: RunSpec) -> list[Need]:
        """The experts it is matched to."""
        return [("expert", digest) for digest in spec.inputs.get("experts", [])]

    def passes(self, spec: RunSpec, data: RealDataset) -> list[Passes]:
        """What the method says an iteration needs."""
        from distill.fyi import FLIPS
        from distill.methods import METHODS, config_of
        from distill.problem import Problem

        inputs = spec.inputs
        problem = Problem(data.train, data.space, inputs["ipc"], inputs["seed"], tuple(inputs["classes"]))
        method = METHODS.get(inputs["method"])(config_of(inputs["method"], inputs["config"]), problem)
        counts = [n * inputs["config"]["iterations"] for n in method.passes(FLIPS.get(inputs["flip"]).multiplier)]
        return [Passes(inputs["config"]["model"], problem.shape, problem.num_classes, *counts)]

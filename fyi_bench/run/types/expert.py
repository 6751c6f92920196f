"""Run type `expert`: one trajectory of a network in training on real images, shared by all sets matched to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import StoreError
from fyi_bench.run.numerics import using
from fyi_bench.run.run_type import DATA_SOURCE, LOSSES, RUN_TYPES, Passes, RunType, Worker, ensure
from fyi_bench.store.run_dir import RunDir
from fyi_bench.store.spec import RunSpec

if TYPE_CHECKING:
    from distill.expert_file import Trajectory
    from distill.experts import ExpertConfig
    from fyi_bench.data import RealDataset

TRAJECTORY_FILE = "trajectory.safetensors"


def expert_runs(inputs: Mapping[str, Any], notes: Mapping[str, Any], count: int | None = None) -> list[RunSpec]:
    """The experts that a distill spec of these inputs and notes is matched to; none for methods without experts.

    They do not depend on method, flip, images a class or seed of the distillation: number k of the same data,
    classes, space and training is the same expert for all. count: how many (default: as the recipe says).
    """
    config = _expert_config(inputs)
    if config is None:
        return []
    shared = {key: inputs[key] for key in ("dataset", "data", "classes", "space", "precision")}
    expert = config.describe()
    shared |= {"expert": expert, "numerics": using("expert", "augment", "network", settings=expert.values())}
    where = {DATA_SOURCE: notes[DATA_SOURCE]} if DATA_SOURCE in notes else {}
    return [RunSpec("expert", {**shared, "seed": k}, where) for k in range(count or inputs["config"]["experts"])]


def prerequisites(runs: Iterable[RunSpec]) -> list[RunSpec]:
    """Every expert that some of the runs need, each once: to be computed before them, by all workers."""
    needed = {e.digest: e for spec in runs if spec.kind == "distill" for e in expert_runs(spec.inputs, spec.notes)}
    return list(needed.values())


def expert_digests(inputs: Mapping[str, Any]) -> dict[str, list[str]]:
    """What a distill spec adds to its inputs: {'experts': digests}, or nothing."""
    digests = [spec.digest for spec in expert_runs(inputs, {})]
    return {"experts": digests} if digests else {}


def trajectories(made: RunSpec, worker: Worker) -> Sequence[Trajectory]:
    """The experts of a distill run, opened; those that are missing are trained here first."""
    from distill.expert_file import Trajectory

    runs = expert_runs(made.inputs, made.notes)
    if [spec.digest for spec in runs] != made.inputs.get("experts", []):
        raise StoreError(
            "The experts of this run are not those this version trains.\n"
            "Run the command again with the version that planned it, or let this one plan it anew."
        )
    for spec in runs:
        ensure(spec, worker)
    # no whole checksum: each row is checked when it is read
    files = [worker.store.artefact("expert", spec.digest, TRAJECTORY_FILE, whole=False) for spec in runs]
    return [Trajectory.open(file) for file in files]


def _expert_config(inputs: Mapping[str, Any]) -> ExpertConfig | None:
    from distill.methods import config_of

    return getattr(config_of(inputs["method"], inputs["config"]), "expert_config", None)


@RUN_TYPES.register("expert")
class Expert(RunType):
    """Train one network on real images and keep its trajectory."""

    name = "expert"
    metric = LOSSES

    def compute(self, run: RunDir, worker: Worker) -> None:
        """Train the expert and store its trajectory."""
        import torch

        spec = run.spec
        from distill.experts import ExpertConfig, train_expert
        from distill.problem import Problem
        from distill.spaces import space_from
        from fyi_bench.data.whitening import ready

        inputs = spec.inputs
        data = worker.real(spec, test=False)
        problem = Problem(
            real=data.train,
            space=ready(space_from(inputs["space"]), lambda name: data),
            ipc=1,
            seed=inputs["seed"],
            classes=tuple(inputs["classes"]),
            device=torch.device(worker.device),
            precision=inputs["precision"],
            data_digest=inputs["data"],
        )
        expert = train_expert(
            problem,
            ExpertConfig.rebuild(inputs["expert"]),
            checkpointer=run,
            stop=worker.stop,
            report=lambda done, total, loss: worker.progress(spec.digest, done, total, loss),
        )
        expert.trajectory.save(run.path(TRAJECTORY_FILE), {"cell": spec.digest})
        run.finish({"trajectory": TRAJECTORY_FILE, "losses": expert.losses})

    def passes(self, spec: RunSpec, data: RealDataset) -> list[Passes]:
        """Training passes over the real images of the run's classes, twice as many with GSAM."""
        inputs = spec.inputs
        expert, classes = inputs["expert"], inputs["classes"]
        images = int(data.train.counts[list(classes)].sum())
        trained = images * expert["epochs"] * (2 if expert["gsam"] else 1)
        return [Passes(expert["model"], data.train.shape, len(classes), first=float(trained))]

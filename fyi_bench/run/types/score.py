"""Run type `score`: one architecture, scored without training it (`downstream.zero_cost`)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fyi_bench.run.numerics import using
from fyi_bench.run.run_type import RUN_TYPES, SECONDS, Passes, RunType, Worker, measured_space, source_note
from fyi_bench.store.run_dir import RunDir
from fyi_bench.store.spec import RunSpec

if TYPE_CHECKING:
    from downstream.nas import Architecture
    from fyi_bench.data import RealDataset


def score_run(data: RealDataset, point: Architecture, seed: int, validation: float = 0.0) -> RunSpec:
    """The spec of one architecture's scores. seed: of its weights and of the real images, none of those set aside."""
    inputs = {
        "dataset": data.name,
        "train_data": data.train_digest,
        "architecture": point.architecture,
        "seed": seed,
        "numerics": using("zero-cost", "network", settings=[point.architecture]),
        **measured_space(data),
        **({"validation": validation} if validation else {}),
    }
    return RunSpec("score", inputs, source_note(data))


@RUN_TYPES.register("score")
class Score(RunType):
    """Count and score one untrained network."""

    name = "score"
    metric = SECONDS

    def compute(self, run: RunDir, worker: Worker) -> None:
        """Every score, and the seconds it took; in fp32, SynFlow in float64."""
        import search_space
        from downstream.nas import balanced
        from downstream.robust_scores import set_aside
        from downstream.zero_cost import BATCH, gradient_norm, synflow
        from fyi_bench import rng
        from search_space.architectures import work

        inputs, data = run.spec.inputs, worker.real(run.spec, test=False)
        share, seed = inputs.get("validation", 0.0), inputs["seed"]
        name, shape, classes = inputs["architecture"], data.train.shape, data.num_classes

        def drawn() -> Any:
            rest = set_aside(data.train, share)[0] if share else data.train
            return balanced(rest, max(BATCH, classes), seed, "zero-cost").to_space(data.space)

        images = worker.keep(("zero-cost", data.train_digest, share, seed), drawn)

        def network() -> Any:
            return search_space.build(name, shape[0], shape[1], classes, rng.stream(seed, "evaluation")).to(
                worker.device
            )

        began, counted = time.monotonic(), work(name, *shape[:2], classes)
        scores: dict[str, float] = {"parameters": counted.parameters, "flops": counted.flops}
        seconds: dict[str, float] = {}
        ways = {
            "gradient-norm": lambda fresh: gradient_norm(
                fresh, images.images.to(worker.device), images.hard_labels.to(worker.device)
            ),
            "synflow": lambda fresh: synflow(fresh, shape),
        }
        for way, of in ways.items():
            fresh, start = network(), time.monotonic()
            scores[way], seconds[way] = of(fresh), round(time.monotonic() - start, 4)
        run.finish({"scores": scores, "seconds": seconds, "wall_s": round(time.monotonic() - began, 3)})

    def title(self, spec: RunSpec) -> str:
        """'scores of convnet-w64-d3-instance-relu-avg'."""
        return f"scores of {spec.inputs['architecture']}"

    def passes(self, spec: RunSpec, data: RealDataset) -> list[Passes]:
        """One batch; double precision and the network that is built count as much again."""
        from downstream.nas import effort, representative
        from downstream.zero_cost import BATCH
        from search_space.architectures import candidate

        point, sizes = candidate(spec.inputs["architecture"]), (*data.train.shape[:2], data.num_classes)
        measured = representative(point)
        share = effort(point, *sizes) / effort(candidate(measured), *sizes)
        return [Passes(measured, data.train.shape, data.num_classes, first=2 * share * BATCH)]

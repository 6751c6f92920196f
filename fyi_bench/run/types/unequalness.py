"""Run type `unequalness`: how far a set is from its own mirror image (FYI eq. 5), over random networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fyi_bench.run.numerics import using
from fyi_bench.run.run_type import RUN_TYPES, Metric, Need, Passes, RunType, Worker
from fyi_bench.run.types.accuracy import set_needs
from fyi_bench.store.run_dir import RunDir
from fyi_bench.store.spec import RunSpec

if TYPE_CHECKING:
    from fyi_bench.data import RealDataset

NETWORKS = 20
DISTANCE = "dm"
MODEL = "convnet"


def unequalness_run(image_set: dict[str, str], images: int, seed: int) -> RunSpec:
    """The spec of one set's score; `image_set` refers to a set as `Worker.image_set` understands it."""
    inputs = {
        "set": {k: v for k, v in image_set.items() if k != "file"},
        "networks": NETWORKS,
        "distance": DISTANCE,
        "seed": seed,
        "numerics": using("flip", "decode", "network"),
    }
    return RunSpec("unequalness", inputs, {"file": image_set.get("file"), "images": images})


@RUN_TYPES.register("unequalness")
class Unequalness(RunType):
    """Score how far a set is from its own mirror image."""

    name = "unequalness"
    metric = Metric("unequalness", "mean")

    def compute(self, run: RunDir, worker: Worker) -> None:
        """Score the set and record it."""
        from distill.decode import decoded
        from distill.fyi import set_unequalness

        spec = run.spec
        reference = {**spec.inputs["set"], **({"file": spec.notes["file"]} if spec.notes.get("file") else {})}
        run.finish(
            set_unequalness(
                decoded(worker.image_set(reference)),
                spec.inputs["seed"],
                networks=spec.inputs["networks"],
                distance=spec.inputs["distance"],
                device=worker.device,
            )
        )

    def needs(self, spec: RunSpec) -> list[Need]:
        """The set."""
        return set_needs(spec.inputs["set"])

    def passes(self, spec: RunSpec, data: RealDataset) -> list[Passes]:
        """The set and its copies through every network."""
        forward = 2 * spec.inputs["networks"] * spec.notes["images"]
        return [Passes(MODEL, data.train.shape, data.num_classes, forward=forward)]

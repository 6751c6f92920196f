"""Run type `unequalness`: how far a set is from its own mirror image (FYI eq. 5), over random networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fyi_bench.run.estimate import COSTS, Passes
from fyi_bench.run.numerics import using
from fyi_bench.run.worker import CELLS, Worker
from fyi_bench.store.store import RunDir, RunSpec

if TYPE_CHECKING:
    from fyi_bench.data import RealDataset

NETWORKS = 20
DISTANCE = "dm"
MODEL = "convnet"


def unequalness_cell(image_set: dict[str, str], images: int, seed: int) -> RunSpec:
    """The cell of one set's score; `image_set` refers to a set as `Worker.image_set` understands it."""
    inputs = {
        "set": {k: v for k, v in image_set.items() if k != "file"},
        "networks": NETWORKS,
        "distance": DISTANCE,
        "seed": seed,
        "numerics": using("flip", "decode", "network"),
    }
    return RunSpec("unequalness", inputs, {"file": image_set.get("file"), "images": images})


@CELLS.register("unequalness")
def compute(cell: RunSpec, run: RunDir, worker: Worker) -> None:
    """Score the set and record it."""
    from distill.decode import decoded
    from distill.fyi import set_unequalness

    reference = {**cell.inputs["set"], **({"file": cell.notes["file"]} if cell.notes.get("file") else {})}
    run.finish(
        set_unequalness(
            decoded(worker.image_set(reference)),
            cell.inputs["seed"],
            networks=cell.inputs["networks"],
            distance=cell.inputs["distance"],
            device=worker.device,
        )
    )


@COSTS.register("unequalness")
def passes(cell: RunSpec, data: RealDataset) -> list[Passes]:
    """The set and its copies through every network."""
    forward = 2 * cell.inputs["networks"] * cell.notes["images"]
    return [Passes(MODEL, data.train.shape, data.num_classes, forward=forward)]

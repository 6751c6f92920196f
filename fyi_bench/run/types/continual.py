"""Run type `continual`: train one network on the memory after a step of a class order, test it on the classes seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fyi_bench.run.estimate import COSTS, Passes
from fyi_bench.run.numerics import using
from fyi_bench.run.types.accuracy import TRAINING, protocol_of, training_passes
from fyi_bench.run.worker import CELLS, Worker
from fyi_bench.store.store import RunDir, RunSpec

if TYPE_CHECKING:
    from downstream.protocol import Protocol
    from fyi_bench.data import RealDataset


def continual_cell(
    data: RealDataset,
    sets: Sequence[RunSpec],
    order_seed: int,
    steps: int,
    step: int,
    seed: int,
    protocol: Protocol,
    precision: str = "fp32",
) -> RunSpec:
    """The cell of one network after `step` (0-based); `sets` are the distill cells of steps 0 .. step."""
    inputs = {
        "dataset": data.name,
        "train_data": data.train_digest,
        "test_data": data.test_digest,
        "sets": [cell.digest for cell in sets],
        "order_seed": order_seed,
        "steps": steps,
        "step": step,
        "protocol": protocol.keyed(),
        "seed": seed,
        "precision": precision,
        "numerics": using("continual", *TRAINING[1:], settings=protocol.keyed().values()),
    }
    images = sum(len(cell.inputs["classes"]) * cell.inputs["ipc"] for cell in sets)
    notes = {"protocol": protocol.name, "protocol_version": protocol.version, "images": images}
    return RunSpec("continual", inputs, notes)


@CELLS.register("continual")
def compute(cell: RunSpec, run: RunDir, worker: Worker) -> None:
    """Run one step of the protocol in Avalanche and record the accuracy on all classes seen."""
    from downstream.continual import Rehearsal, class_order, scenario

    inputs = cell.inputs
    data = worker.data(inputs["dataset"])
    order = class_order(inputs["order_seed"], data.num_classes)
    key = ("scenario", inputs["dataset"], inputs["order_seed"], inputs["steps"])
    benchmark = worker.keep(key, lambda: scenario(data.train, data.test, data.space, order, inputs["steps"]))
    protocol = protocol_of(cell)
    total = protocol.epochs_for(cell.notes["images"])
    result = Rehearsal(
        benchmark=benchmark,
        sets=[worker.image_set({"cell": digest}).to_space(data.space) for digest in inputs["sets"]],
        protocol=protocol,
        device=worker.device,
        precision=inputs["precision"],
        stop=worker.stop,
        report=lambda epochs, loss: worker.progress(cell.digest, epochs, total, loss),
    ).after_step(inputs["step"], inputs["seed"])
    run.finish({"value": result.accuracy, "classes_seen": result.classes_seen, "images": result.images})


@COSTS.register("continual")
def passes(cell: RunSpec, data: RealDataset) -> list[Passes]:
    """Training passes over the memory, one pass over the test images of the classes seen."""
    seen = (cell.inputs["step"] + 1) / cell.inputs["steps"]
    return [training_passes(cell, data, round(len(data.test) * seen))]

"""Run type `continual`: train one network on the memory after a step of a class order, test it on the classes seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fyi_bench.run.numerics import using
from fyi_bench.run.run_type import RUN_TYPES, Need, Passes, RunType, Worker, source_note
from fyi_bench.run.types.accuracy import TRAINING, protocol_of, training_passes
from fyi_bench.store.run_dir import RunDir
from fyi_bench.store.spec import RunSpec

if TYPE_CHECKING:
    from downstream.protocol import Protocol
    from fyi_bench.data import RealDataset


def continual_run(
    data: RealDataset,
    sets: Sequence[RunSpec],
    order_seed: int,
    steps: int,
    step: int,
    seed: int,
    protocol: Protocol,
    precision: str = "fp32",
) -> RunSpec:
    """The run of one network after `step` (0-based); `sets` are the distill runs of steps 0 .. step."""
    inputs = {
        "dataset": data.name,
        "train_data": data.train_digest,
        "test_data": data.test_digest,
        "sets": [spec.digest for spec in sets],
        "order_seed": order_seed,
        "steps": steps,
        "step": step,
        "protocol": protocol.keyed(),
        "seed": seed,
        "precision": precision,
        "numerics": using("continual", *TRAINING[1:], settings=protocol.keyed().values()),
    }
    images = sum(len(spec.inputs["classes"]) * spec.inputs["ipc"] for spec in sets)
    notes = {"protocol": protocol.name, "protocol_version": protocol.version, "images": images}
    notes |= source_note(data)
    return RunSpec("continual", inputs, notes)


@RUN_TYPES.register("continual")
class Continual(RunType):
    """Train one network on the memory after a step, test it on the classes seen."""

    name = "continual"

    def compute(self, run: RunDir, worker: Worker) -> None:
        """Run one step of the protocol in Avalanche and record the accuracy on all classes seen."""
        from downstream.continual import Rehearsal, class_order, scenario
        from downstream.training import Conditions

        spec = run.spec
        inputs = spec.inputs
        data = worker.real(spec)
        order = class_order(inputs["order_seed"], data.num_classes)
        key = ("scenario", inputs["train_data"], inputs["test_data"], inputs["order_seed"], inputs["steps"])
        benchmark = worker.keep(key, lambda: scenario(data.train, data.test, data.space, order, inputs["steps"]))
        protocol = protocol_of(spec)
        total = protocol.epochs_for(spec.notes["images"])
        result = Rehearsal(
            benchmark=benchmark,
            sets=[worker.image_set({"cell": digest}).to_space(data.space) for digest in inputs["sets"]],
            protocol=protocol,
            conditions=Conditions(worker.device, inputs["precision"], stop=worker.stop),
            report=lambda _, epochs, loss: worker.progress(spec.digest, epochs, total, loss),
        ).after_step(inputs["step"], inputs["seed"])
        run.finish({"value": result.accuracy, "classes_seen": result.classes_seen, "images": result.images})

    def needs(self, spec: RunSpec) -> list[Need]:
        """The sets of the steps so far."""
        return [("distill", digest) for digest in spec.inputs["sets"]]

    def passes(self, spec: RunSpec, data: RealDataset) -> list[Passes]:
        """Training passes over the memory, one pass over the test images of the classes seen."""
        seen = (spec.inputs["step"] + 1) / spec.inputs["steps"]
        return [training_passes(spec, data, round(len(data.test) * seen))]

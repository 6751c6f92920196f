"""Run type `stream`: one network through all steps of a class order, by a strategy of Avalanche that sees real data."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from fyi_bench.run.numerics import using
from fyi_bench.run.run_type import RUN_TYPES, Need, Passes, RunType, Worker, source_note
from fyi_bench.run.types.accuracy import protocol_of
from fyi_bench.run.types.continual import Memory, Order, added, kept, memory_sets, steps_of, stored_parts
from fyi_bench.store.run_dir import RunDir
from fyi_bench.store.spec import RunSpec

if TYPE_CHECKING:
    from downstream.protocol import Protocol
    from fyi_bench.data import RealDataset

# images of a batch beside those of the current step, as many as of it
_WITH_MEMORY = ("er", "der++", "replay")


def stream_run(
    data: RealDataset, strategy: str, memory: Memory, order: Order, seed: int, protocol: Protocol,
    precision: str = "fp32", ipc: int = 0,
) -> RunSpec:  # fmt: skip
    """The run of one network through a class order. ipc: images a class in a memory of the strategy's own choice."""
    inputs = {
        "dataset": data.name,
        "train_data": data.train_digest,
        "test_data": data.test_digest,
        "strategy": strategy,
        "memory": ipc,
        **memory.inputs,
        **order.inputs,
        "protocol": protocol.keyed(),
        "seed": seed,
        "precision": precision,
        "numerics": using("continual", "stream", "network", *memory.components, settings=protocol.keyed().values()),
    }
    notes = {"protocol": protocol.name, "protocol_version": protocol.version, **memory.notes, **source_note(data)}
    return RunSpec("stream", inputs, notes)


@RUN_TYPES.register("stream")
class StreamRun(RunType):
    """Train one network on the data of each step in turn, test it after each on the classes seen."""

    name = "stream"
    loading_s = 6.0  # Avalanche

    def compute(self, run: RunDir, worker: Worker) -> None:
        """Run the strategy; one that is stopped begins anew."""
        from downstream.continual.streams import Stream
        from downstream.training import Conditions

        spec = run.spec
        inputs = spec.inputs
        data = worker.real(spec)
        steps = steps_of(inputs, data.num_classes)
        has_sets = bool(inputs["sets"] or inputs.get("files"))
        sets, _ = kept(memory_sets(spec, worker, steps, data), inputs) if has_sets else ([], 0)
        space = sets[0].space if sets else data.space
        scores = Stream(
            name=inputs["strategy"],
            steps=steps,
            train=data.train,
            test=data.test,
            space=space,
            protocol=protocol_of(spec),
            memory=inputs["memory"],
            sets=sets,
            conditions=Conditions(worker.device, inputs["precision"], space, stop=worker.stop),
            report=lambda done: worker.progress(spec.digest, done, len(steps), float("nan")),
        ).run(inputs["seed"])
        rows, held = [], []
        for number, one in enumerate(scores):
            found = asdict(one)
            images, parts = _held(inputs, steps.seen(number), sets[: number + 1], data, steps.outputs)
            parts = stored_parts(spec, worker, steps, number) or parts
            rows.append({"value": found.pop("accuracy"), **found, "images": images, "bytes": sum(parts.values())})
            held.append(parts)
        run.finish({"value": sum(row["value"] for row in rows) / len(rows), "rows": rows, "set_parts": held})

    def side(self, spec: RunSpec) -> str:
        """The strategy."""
        return spec.inputs["strategy"]

    def needs(self, spec: RunSpec) -> list[Need]:
        """The sets that are replayed."""
        return [("distill", digest) for digest in spec.inputs["sets"]]

    def passes(self, spec: RunSpec, data: RealDataset) -> list[Passes]:
        """Every train image once an epoch, with as many from memory; tests of all classes seen after each step."""
        protocol, steps = protocol_of(spec), steps_of(spec.inputs, data.num_classes)
        each = 2 if spec.inputs["strategy"] in _WITH_MEMORY else 1
        tested = sum(len(steps.seen(step)) for step in range(len(steps))) / data.num_classes * len(data.test)
        trained = protocol.epochs * len(data.train) * each
        return [Passes(protocol.eval_model, data.train.shape, data.num_classes, forward=round(tested), first=trained)]


def _held(inputs: dict, seen: list[int], sets: list, data: RealDataset, outputs: int) -> tuple[int, dict[str, int]]:
    """Images in memory after a step, and their bytes by part: a byte a value of real ones, the answers DER++ keeps."""
    import math

    from downstream.continual.memory import kept_as

    if sets:
        return sum(one.items for one in sets), added([kept_as(one, inputs.get("storage", ""))[1] for one in sets])
    images = inputs["memory"] * len(seen)
    answers = 4 * outputs if inputs["strategy"] == "der++" else 0
    return images, {"stored": images * math.prod(data.train.shape), "labels": images * answers, "decoder": 0}

"""Run type `teacher`: a network trained on all real images, whose labels others are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fyi_bench.run.numerics import using
from fyi_bench.run.run_type import RUN_TYPES, Passes, RunType, Worker, measured_space, source_note
from fyi_bench.run.teachers import Teachers, keep_network
from fyi_bench.run.types.accuracy import TRAINING, train_one, training_passes
from fyi_bench.store.run_dir import RunDir
from fyi_bench.store.spec import RunSpec

if TYPE_CHECKING:
    from downstream.protocol import Protocol
    from fyi_bench.data import RealDataset


def teacher_run(data: RealDataset, protocol: Protocol, model: str, seed: int, precision: str) -> RunSpec:
    """The spec of one network on all train images of the data."""
    keyed = protocol.for_network(model).keyed()
    inputs = {
        "dataset": data.name,
        "data": data.train_digest,
        "test_data": data.test_digest,
        "protocol": keyed,
        "seed": seed,
        "precision": precision,
        "numerics": using(*TRAINING, settings=keyed.values()),
        **measured_space(data),
    }
    notes = {"protocol": protocol.name, "protocol_version": protocol.version, "images": len(data.train)}
    return RunSpec("teacher", inputs, {**notes, **source_note(data)})


def teachers_for(data: RealDataset, protocol: Protocol, models: Sequence[str], seed: int, precision: str) -> Teachers:
    """Networks of these architectures, trained here by a protocol's rules."""
    return Teachers.of_runs([
        teacher_run(data, protocol, model, seed, precision) for model in models
    ])  # fmt: skip


@RUN_TYPES.register("teacher")
class TeacherRun(RunType):
    """Train a network on all real images, test it, and keep it."""

    name = "teacher"

    def compute(self, run: RunDir, worker: Worker) -> None:
        """Train, test, keep, record."""
        from downstream.training import accuracy

        data = worker.real(run.spec)
        network, conditions, losses = train_one(run.spec, data.train, data.space, worker)
        value = accuracy(network, data.test, conditions)
        run.finish({"value": value, "last_loss": losses[-1], "network_bytes": keep_network(run, network)})

    def passes(self, spec: RunSpec, data: RealDataset) -> list[Passes]:
        """Training passes over the real images, one over the test images."""
        return [training_passes(spec, data, len(data.test))]

"""Cell `accuracy`: train one network on a set by a protocol and test it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fyi_bench.cells import CELLS, Worker, using
from fyi_bench.store import Cell, RunFolder

if TYPE_CHECKING:
    from downstream.protocol import Protocol
    from fyi_bench.data import RealDataset


def accuracy_cell(
    data: RealDataset,
    image_set: dict[str, str],
    protocol: Protocol,
    seed: int,
    model: str | None = None,
    precision: str = "fp32",
) -> Cell:
    """The cell of one network's accuracy; `image_set` refers to a set as `Worker.image_set` understands it."""
    inputs = {
        "dataset": data.name,
        "test_data": data.test_digest,
        "set": {k: v for k, v in image_set.items() if k != "file"},
        "protocol": {**protocol.keyed(), "eval_model": model or protocol.eval_model},
        "seed": seed,
        "precision": precision,
        "numerics": using("accuracy", "trainer", "augment", "network"),
    }
    notes = {"protocol": protocol.name, "protocol_version": protocol.version, "file": image_set.get("file")}
    return Cell("accuracy", inputs, notes)


def protocol_of(cell: Cell) -> Protocol:
    """The protocol a cell was planned with."""
    from downstream.protocol import Protocol

    keyed = dict(cell.inputs["protocol"])
    keyed["milestones"] = tuple(keyed["milestones"])
    notes = cell.notes
    return Protocol(
        name=notes["protocol"], version=notes["protocol_version"], task=cell.kind, nets=1, sets=1, orders=1, **keyed
    )


@CELLS.register("accuracy")
def compute(cell: Cell, run: RunFolder, worker: Worker) -> None:
    """Train, test once, record."""
    from downstream.accuracy import train_and_test

    reference = {**cell.inputs["set"], **({"file": cell.notes["file"]} if cell.notes.get("file") else {})}
    protocol = protocol_of(cell)
    result = train_and_test(
        worker.image_set(reference),
        worker.data(cell.inputs["dataset"]).test,
        protocol,
        cell.inputs["seed"],
        device=worker.device,
        precision=cell.inputs["precision"],
        stop=worker.stop,
        report=lambda epochs, loss: worker.progress(cell.digest, epochs, protocol.epochs_run, loss),
    )
    run.finish({"value": result.accuracy, "last_loss": result.last_loss})

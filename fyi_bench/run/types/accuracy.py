"""Run type `accuracy`: train one network on a set by a protocol and test it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fyi_bench.errors import UsageError
from fyi_bench.run.numerics import using
from fyi_bench.run.run_type import RUN_TYPES, Need, Passes, RunType, Worker, measured_space, source_note
from fyi_bench.run.teachers import Teachers, teacher_needs, teacher_passes, teaching_of
from fyi_bench.store.run_dir import RunDir
from fyi_bench.store.spec import RunSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from distill.image_set import ImageSet
    from distill.spaces import Space
    from downstream.protocol import Protocol
    from downstream.training import Conditions
    from fyi_bench.data import RealDataset


# families of components in every number that comes from training a network on a set and testing it
FULL = "full"  # all real train images, instead of a set
TRAINING = ("accuracy", "trainer", "augment", "cutmix", "decode", "network")


def accuracy_run(
    data: RealDataset,
    image_set: dict[str, str],
    images: int,
    protocol: Protocol,
    seed: int,
    model: str | None = None,
    precision: str = "fp32",
    warm: dict[str, str] | None = None,
    teachers: Teachers | None = None,
) -> RunSpec:
    """The run of one network's accuracy on a set: as `Worker.image_set` understands it, or `full_data`.

    images: how many images the set has, for the estimate of time only. warm: a set to train on first. teachers: who
    labels what it is trained on, by a protocol that asks for that.
    """
    from downstream.regression import is_kernel

    if protocol.labels == "teacher" and teachers is None:
        raise UsageError(
            f"The protocol {protocol.name} trains on a teacher's labels, which this command does not have.\n"
            f"Evaluate a set that is a file: fyi-bench evaluate SET --protocol {protocol.name.partition('+')[0]}."
        )
    teachers = teachers if protocol.labels == "teacher" else None
    keyed = protocol.for_network(model or protocol.eval_model).keyed()
    inputs = {
        "dataset": data.name,
        "test_data": data.test_digest,
        "set": {k: v for k, v in image_set.items() if k != "file"},
        "protocol": keyed,
        "seed": seed,
        "precision": precision,
        "numerics": using(*TRAINING, settings=keyed.values()),
        **measured_space(data),
    }
    if is_kernel(keyed["eval_model"]):
        inputs["numerics"] |= using("kernel")
    inputs |= {} if warm is None else {"warm": warm}
    inputs |= {} if teachers is None else teachers.inputs
    notes = {
        "protocol": protocol.name,
        "protocol_version": protocol.version,
        "file": image_set.get("file"),
        "images": images,
        **({"data_note": data.note} if data.note else {}),
        **source_note(data),
        **({} if teachers is None else {**teachers.notes, "teacher_models": list(teachers.models)}),
    }
    return RunSpec("accuracy", inputs, notes)


def full_data(data: RealDataset) -> dict[str, str]:
    """All real train images, as `accuracy_run` takes them in the place of a set."""
    return {"kind": FULL, "data": data.train_digest}


def protocol_of(spec: RunSpec) -> Protocol:
    """The protocol a run was planned with."""
    from downstream.protocol import Protocol

    notes = spec.notes
    return Protocol.rebuilt(notes["protocol"], notes["protocol_version"], spec.kind, spec.inputs["protocol"])


def training_passes(spec: RunSpec, data: RealDataset, tested: int) -> Passes:
    """Passes of training one network by the run's protocol and testing it on `tested` images."""
    from downstream.regression import is_kernel

    protocol = protocol_of(spec)
    if is_kernel(protocol.eval_model):  # no network: less than the least one
        return Passes("mlp", data.train.shape, data.num_classes, forward=tested)
    images = spec.notes["images"]
    epochs = protocol.epochs_for(images) * (2 if "warm" in spec.inputs else 1)
    return Passes(
        protocol.eval_model, data.train.shape, data.num_classes, forward=tested * protocol.tests,
        first=images * epochs, steps=math.ceil(images / protocol.batch) * epochs,
    )  # fmt: skip


def train_one(
    spec: RunSpec, train_set: ImageSet, space: Space, worker: Worker, build: Callable[..., nn.Module] | None = None
) -> tuple[nn.Module, Conditions, list[float]]:
    """A network trained as the run says, on the worker's device, with what it is tested under and its epochs' losses.

    build: (model, images, seed) to the network, where `downstream.training.new_network` is not the one.
    """
    from downstream.training import Conditions, new_network, train

    protocol, seed = protocol_of(spec), spec.inputs["seed"]
    total = protocol.epochs_for(train_set.items)
    network = (build or new_network)(protocol.eval_model, train_set, seed).to(worker.device)
    conditions = Conditions(worker.device, spec.inputs["precision"], space, worker.stop).by(protocol)
    trained = train(
        network, train_set, protocol, seed, conditions,
        lambda _, epochs, loss: worker.progress(spec.digest, epochs, total, loss),
    )  # fmt: skip
    return network, conditions, trained.losses


def set_needs(*references: Mapping[str, str] | None) -> list[Need]:
    """The runs that hold the sets of these references; a set that is a file needs none."""
    return [(one.get("kind", "distill"), one["cell"]) for one in references if one is not None and "cell" in one]


@RUN_TYPES.register("accuracy")
class Accuracy(RunType):
    """Train one network on a set by a protocol and test it."""

    name = "accuracy"
    together = True

    def compute_together(self, runs: Sequence[RunDir], worker: Worker) -> None:
        """Train networks of several seeds side by side, test each, record."""
        from downstream.accuracy import train_and_test
        from downstream.training import Conditions, training_space

        one = runs[0].spec
        reference = {**one.inputs["set"], **({"file": one.notes["file"]} if one.notes.get("file") else {})}
        protocol = protocol_of(one)
        total = protocol.epochs_for(one.notes["images"])
        data = worker.real(one)
        image_set = data.train if reference.get("kind") == FULL else worker.image_set(reference)
        results = train_and_test(
            image_set,
            data.test,
            protocol,
            [run.spec.inputs["seed"] for run in runs],
            Conditions(
                worker.device,
                one.inputs["precision"],
                training_space(image_set, data.space),
                worker.stop,
                teaching_of(one, data, worker),
            ),
            lambda number, epochs, loss: worker.progress(runs[number].spec.digest, epochs, total, loss),
            warm_set=worker.image_set(one.inputs["warm"]) if "warm" in one.inputs else None,
        )
        share = {"wall_s": round(runs[0].wall_s() / len(runs), 3)} if len(runs) > 1 else {}
        for run, result in zip(runs, results, strict=True):
            tests = {"tests": result.tests} if protocol.tests > 1 else {}
            run.finish({"value": result.accuracy, "last_loss": result.last_loss, **tests, **share})

    def side(self, spec: RunSpec) -> str:
        """'real' for all real images; of a set, what made it or its file."""
        return "real" if spec.inputs["set"].get("kind") == FULL else super().side(spec)

    def needs(self, spec: RunSpec) -> list[Need]:
        """The sets trained on, and the networks that label them."""
        return [*set_needs(spec.inputs["set"], spec.inputs.get("warm")), *teacher_needs(spec)]

    def passes(self, spec: RunSpec, data: RealDataset) -> list[Passes]:
        """Training passes over the set, likewise of the networks that label it, one pass over the test images."""
        training = training_passes(spec, data, len(data.test))
        return [training, *teacher_passes(spec, data, training.first)]

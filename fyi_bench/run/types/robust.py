"""Run type `robust`: one network of one side of the robust scores, tested on images set aside or on test images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fyi_bench.run.numerics import using
from fyi_bench.run.run_type import RUN_TYPES, Need, Passes, RunType, Worker, source_note
from fyi_bench.run.teachers import frozen_network, keep_network
from fyi_bench.run.types.accuracy import TRAINING, set_needs, train_one, training_passes
from fyi_bench.store.run_dir import RunDir
from fyi_bench.store.spec import RunSpec

if TYPE_CHECKING:
    from distill.image_set import ImageSet
    from downstream.protocol import Protocol
    from downstream.robust_scores import Rules, Treatment
    from fyi_bench.data import RealDataset

VALIDATION, TEST = "validation", "test"


@dataclass(frozen=True)
class Subject:
    """The set in question. reference: as `Worker.image_set` takes it; file: where it is; counts: images a class.

    own_space: whether networks are to be trained in the set's space, because it is not the data set's.
    """

    reference: Mapping[str, str]
    file: str
    counts: tuple[int, ...]
    soft: bool
    own_space: bool


def robust_run(
    data: RealDataset,
    subject: Subject,
    arm: Treatment,
    protocol: Protocol,
    rules: Rules,
    seed: int,
    tested: str,
    precision: str,
    teacher: str = "",
) -> RunSpec:
    """The spec of one network. protocol: with the step size of the search; tested: 'validation' or 'test'.

    teacher: digest of the spec whose network gives random images their labels, where the set's are soft.
    """
    labels = "hard" if arm.labels == "hard" or not subject.soft else "own"
    what: dict[str, Any] = {"subject": arm.subject, "labels": labels}
    if arm.subject == "real":
        images = rules.real_images
    else:
        images = sum(subject.counts)
        what |= {"space": dict(subject.reference)} if subject.own_space else {}
        what |= {"set": dict(subject.reference)} if arm.subject == "set" else {"counts": list(subject.counts)}
    if arm.subject == "random" and labels == "own":
        what["teacher"] = teacher
    inputs = {
        "dataset": data.name,
        "data": data.train_digest,
        **({"test_data": data.test_digest} if tested == TEST else {}),
        **what,
        "real_images": rules.real_images,
        "validation": rules.validation,
        "tested": tested,
        "protocol": protocol.keyed(),
        "seed": seed,
        "precision": precision,
        "numerics": using("robust", *TRAINING, settings=protocol.keyed().values()),
    }
    notes = {
        "protocol": protocol.name,
        "protocol_version": protocol.version,
        "images": images or len(data.train),
        "file": subject.file,
        **source_note(data),
    }
    return RunSpec("robust", inputs, notes)


def _split(inputs: Mapping[str, Any], data: RealDataset, worker: Worker) -> tuple[ImageSet, ImageSet]:
    from downstream.robust_scores import set_aside

    key = ("set aside", inputs["data"], inputs["validation"])
    return worker.keep(key, lambda: set_aside(data.train, inputs["validation"]))


def _own(spec: RunSpec, worker: Worker) -> ImageSet:
    reference = spec.inputs.get("set") or spec.inputs["space"]
    return worker.image_set({**reference, **({} if "cell" in reference else {"file": spec.notes["file"]})})


def _train_set(spec: RunSpec, rest: ImageSet, data: RealDataset, worker: Worker) -> ImageSet:
    from downstream.nas import balanced
    from downstream.robust_scores import random_like, taught

    inputs = spec.inputs
    if inputs["subject"] == "real":
        return balanced(rest, inputs["real_images"] or None, 0, "robust real")
    if inputs["subject"] == "set":
        own = _own(spec, worker)
        return replace(own, labels=own.hard_labels) if inputs["labels"] == "hard" else own
    drawn = random_like(rest, inputs["counts"], inputs["seed"])
    if inputs["labels"] == "hard":
        return drawn
    teacher = frozen_network({"cell": inputs["teacher"], "kind": "robust"}, "", data.train, worker)
    return taught(drawn, teacher, data.space)


@RUN_TYPES.register("robust")
class Robust(RunType):
    """Train one network of the robust scores and test it."""

    name = "robust"

    def compute(self, run: RunDir, worker: Worker) -> None:
        """Train, test once, record; a network of real images is kept, as a teacher."""
        from downstream.training import accuracy

        spec = run.spec
        inputs = spec.inputs
        data = worker.real(spec, test=inputs["tested"] == TEST)
        rest, held = _split(inputs, data, worker)
        space = data.space if "space" not in inputs else _own(spec, worker).space
        train_set = _train_set(spec, rest, data, worker)
        network, conditions, losses = train_one(spec, train_set, space, worker)
        judged = data.test if inputs["tested"] == TEST else held
        value = accuracy(network, judged, conditions)
        if inputs["subject"] == "real" and inputs["tested"] == TEST:
            keep_network(run, network)
        run.finish({"value": value, "last_loss": losses[-1], "images": len(train_set)})

    def side(self, spec: RunSpec) -> str:
        """'real' or 'random'; of a set, what made it or its file."""
        return super().side(spec) if spec.inputs["subject"] == "set" else spec.inputs["subject"]

    def needs(self, spec: RunSpec) -> list[Need]:
        """The set, where it is a run's, and the network that gives labels."""
        teacher = [("robust", spec.inputs["teacher"])] if spec.inputs.get("teacher") else []
        return [*set_needs(spec.inputs.get("set"), spec.inputs.get("space")), *teacher]

    def passes(self, spec: RunSpec, data: RealDataset) -> list[Passes]:
        """Training passes, and one over the images it is tested on."""
        held = round(spec.inputs["validation"] * len(data.train))
        tested = len(data.test) if spec.inputs["tested"] == TEST else held
        return [training_passes(spec, data, tested)]

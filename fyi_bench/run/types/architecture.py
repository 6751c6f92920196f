"""Run type `train`: one architecture of the space, trained on a condensed set or on real data, and tested.

RunSpec `set`: a condensed set that came as a file, kept in the store so that workers anywhere find it by its digest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.run.numerics import using
from fyi_bench.run.run_type import (
    RUN_TYPES,
    SECONDS,
    SET_FILE,
    Need,
    Passes,
    RunType,
    Worker,
    measured_space,
    source_note,
)
from fyi_bench.run.types.accuracy import TRAINING, protocol_of, set_needs
from fyi_bench.store.run_dir import RunDir
from fyi_bench.store.spec import RunSpec

if TYPE_CHECKING:
    from distill.image_set import ImageSet
    from downstream.nas import Architecture
    from downstream.protocol import Protocol
    from fyi_bench.data import RealDataset

REAL, EARLY = "real", "early"  # real images of the reference, and of training that is stopped early
TEST_DRAW = 0  # seed of the draw of test images: one for all, as nothing is chosen by them


@dataclass(frozen=True)
class Material:
    """What networks are trained on. reference: goes into the spec; images: how many; needs: the run that holds it."""

    reference: Mapping[str, Any]
    images: int
    needs: tuple[str, str] | None = None


def set_source(spec: RunSpec, images: int) -> Material:
    """The set that a `distill` or `set` spec makes."""
    return Material({"kind": spec.kind, "cell": spec.digest}, images, (spec.kind, spec.digest))


def real_source(data: RealDataset, images: int | None, seed: int, validation: float = 0.0) -> Material:
    """Real train images without the share set aside: all, or so many of them drawn by the seed, class-balanced."""
    there = len(data.train) - images_aside(data, validation)
    count = there if images is None else min(images, there)
    drawn = {"seed": seed} if count < there else {}
    return Material(
        {"kind": REAL, "data": data.train_digest, "images": count, **drawn, **_aside(validation)}, count
    )  # fmt: skip


def early_source(real: Material, ipc: int | None, classes: int) -> Material:
    """Real images for training that is stopped early, at the cost of a set of so many images of each class."""
    return replace(real, reference={**real.reference, "kind": EARLY, "ipc": ipc, "classes": classes})


def images_aside(data: RealDataset, validation: float) -> int:
    """How many train images a share for validation is (`downstream.robust_scores.set_aside`)."""
    counts = (int(count) for count in data.train.counts if count)
    return sum(max(1, round(validation * count)) for count in counts) if validation else 0


def _aside(validation: float) -> dict[str, float]:
    """The share set aside, as an input; runs without one have none."""
    return {"validation": validation} if validation else {}


def set_run(image_set: ImageSet, path: Path) -> RunSpec:
    """The spec that keeps a file's set in the store."""
    return RunSpec("set", {"set": image_set.digest}, {"file": str(path.resolve())})


def train_run(
    data: RealDataset,
    source: Material,
    point: Architecture,
    protocol: Protocol,
    seed: int,
    test_images: int | None,
    precision: str = "fp32",
    validation: float = 0.0,
) -> RunSpec:
    """The spec of one network. seed: of its initial weights, its batches and its augmentation.

    validation: share of the train images that it is tested on too, on as many of them as of the test images at most.
    """
    from search_space.architectures import work

    sizes = data.train.shape[0], data.train.shape[1], data.num_classes
    tested = len(data.test) if test_images is None else min(test_images, len(data.test))
    inputs = {
        "dataset": data.name,
        "test_data": data.test_digest,
        "test_images": tested,
        "set": dict(source.reference),
        "protocol": {**protocol.keyed(), "eval_model": point.architecture},
        "seed": seed,
        "precision": precision,
        "numerics": using("nas", *TRAINING, settings=[protocol.eval_augment, point.architecture]),
        **measured_space(data),
        **_aside(validation),
        **({"train_data": data.train_digest} if validation else {}),
    }
    found = work(point.architecture, *sizes)
    notes = {
        "protocol": protocol.name,
        "protocol_version": protocol.version,
        "images": source.images,
        "validated": min(tested, images_aside(data, validation)),
        "parameters": found.parameters,
        "flops": found.flops,
        **({"data_note": data.note} if data.note else {}),
        **source_note(data),
    }
    return RunSpec("train", inputs, notes)


def point_of(spec: RunSpec) -> Architecture:
    """The architecture of a `train` spec."""
    from search_space.architectures import candidate

    return candidate(spec.inputs["protocol"]["eval_model"])


def _trained_on(spec: RunSpec) -> str:
    """'real', 'early', or the digest of the set."""
    reference = spec.inputs["set"]
    return reference["kind"] if reference["kind"] in (REAL, EARLY) else reference["cell"]


def _train_set(spec: RunSpec, worker: Worker) -> ImageSet:
    from distill.decode import decoded
    from downstream.nas import balanced

    reference = spec.inputs["set"]
    if reference["kind"] not in (REAL, EARLY):
        key = ("decoded", reference["kind"], reference["cell"])
        return worker.keep(key, lambda: decoded(worker.image_set(reference)))
    data = worker.real(spec)
    seed, share = reference.get("seed", 0), reference.get("validation", 0.0)
    rest = _split(data, share, worker)[0] if share else data.train
    return worker.keep(
        (REAL, data.train_digest, reference["images"], reference.get("seed"), share),
        lambda: balanced(rest, reference["images"], seed, "nas reference"),
    )


def _split(data: RealDataset, share: float, worker: Worker) -> tuple[ImageSet, ImageSet]:
    """The train images without those set aside, and these."""
    from downstream.robust_scores import set_aside

    return worker.keep(("nas aside", data.train_digest, share), lambda: set_aside(data.train, share))


def _validation_set(spec: RunSpec, worker: Worker) -> ImageSet | None:
    from downstream.nas import balanced

    data, share, count = worker.real(spec), spec.inputs.get("validation"), spec.inputs["test_images"]
    if not share:
        return None
    aside, key = _split(data, share, worker)[1], ("nas validation", data.train_digest, share, count)
    return worker.keep(key, lambda: balanced(aside, count, TEST_DRAW, "nas test"))


def _test_set(spec: RunSpec, worker: Worker) -> ImageSet:
    from downstream.nas import balanced

    data, count = worker.real(spec), spec.inputs["test_images"]
    return worker.keep(("nas test", data.test_digest, count), lambda: balanced(data.test, count, TEST_DRAW, "nas test"))


@RUN_TYPES.register("train")
class Train(RunType):
    """Train one architecture of the search space on a set or on real images, and test it."""

    name = "train"

    def compute(self, run: RunDir, worker: Worker) -> None:
        """Train, test once, record; `wall_s` is training and testing, without reading data."""
        from downstream.accuracy import train_and_test
        from downstream.training import Conditions, training_space

        spec = run.spec
        inputs, protocol = spec.inputs, protocol_of(spec)
        data, train_set, test_set = worker.real(spec), _train_set(spec, worker), _test_set(spec, worker)
        total, validation_set = protocol.epochs_for(train_set.items), _validation_set(spec, worker)
        began = time.monotonic()
        [result] = train_and_test(
            train_set,
            test_set,
            protocol,
            [inputs["seed"]],
            Conditions(worker.device, inputs["precision"], training_space(train_set, data.space), worker.stop),
            lambda _, epochs, loss: worker.progress(spec.digest, epochs, total, loss),
            **({} if validation_set is None else {"validation_set": validation_set}),
        )
        run.finish(
            {
                "value": result.accuracy,
                **({} if result.validation is None else {"validation": result.validation}),
                "last_loss": result.last_loss,
                "epochs": total,
                "parameters": spec.notes["parameters"],
                "flops": spec.notes["flops"],
                "wall_s": round(time.monotonic() - began, 3),
            }
        )

    def title(self, spec: RunSpec) -> str:
        """'w64-d3-instance-relu-avg on real seed 0'."""
        return f"{point_of(spec).name} on {_trained_on(spec)} seed {spec.inputs['seed']}"

    def side(self, spec: RunSpec) -> str:
        """'real' or 'early'; of a set, what made it."""
        kind = spec.inputs["set"]["kind"]
        return kind if kind in (REAL, EARLY) else ""

    def parameters(self, spec: RunSpec) -> dict[str, Any]:
        """The factors of the architecture, and what it was trained on, so that a dashboard's plots tell something."""
        return {**super().parameters(spec), **point_of(spec).factors, "trained_on": _trained_on(spec)}

    def needs(self, spec: RunSpec) -> list[Need]:
        """The set trained on; real images need nothing."""
        return set_needs(spec.inputs["set"])

    def passes(self, spec: RunSpec, data: RealDataset) -> list[Passes]:
        """Training and testing, as passes of a measured network in proportion to the effort of this one."""
        from downstream.nas import effort, representative
        from search_space.architectures import candidate

        point, sizes = point_of(spec), (data.train.shape[0], data.train.shape[1], data.num_classes)
        measured = representative(point)
        share = effort(point, *sizes) / effort(candidate(measured), *sizes)
        trained = spec.notes["images"] * protocol_of(spec).epochs_for(spec.notes["images"])
        return [
            Passes(
                measured,
                data.train.shape,
                data.num_classes,
                forward=share * (spec.inputs["test_images"] + spec.notes.get("validated", 0)),
                first=share * trained,
                precision=spec.inputs["precision"],
            )
        ]


@RUN_TYPES.register("set")
class KeptSet(RunType):
    """Keep a condensed set that came as a file in the store."""

    name = "set"
    metric = SECONDS

    def compute(self, run: RunDir, worker: Worker) -> None:
        """Copy the set into the run folder."""
        spec = run.spec
        image_set = worker.image_set({"file": spec.notes["file"], "digest": spec.inputs["set"]})
        image_set.save(run.path(SET_FILE))
        size = {"set_bytes": image_set.nbytes, "set_parts": image_set.parts}
        run.finish({"set": SET_FILE, "set_digest": image_set.digest, **size})

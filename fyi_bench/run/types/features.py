"""Run type `features`: what a frozen network makes of images, kept, so that probes on it take seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fyi_bench.run.numerics import using
from fyi_bench.run.run_type import RUN_TYPES, SECONDS, Need, Passes, RunType, Worker, source_note
from fyi_bench.run.teachers import frozen_network
from fyi_bench.run.types.accuracy import set_needs
from fyi_bench.store.run_dir import RunDir
from fyi_bench.store.spec import RunSpec

if TYPE_CHECKING:
    from distill.image_set import ImageSet
    from fyi_bench.data import RealDataset

FEATURES_FILE = "features.safetensors"
TRAIN, TEST = "train", "test"  # real images, in the place of a set


@dataclass(frozen=True)
class Backbone:
    """A frozen network. reference: as `run.teachers.frozen_network` takes it; model: its architecture.

    space: what it sees images in, described. size: side of these images. file: of its weights, or of its code with the
    name in it, where there is one. like: an architecture that takes about as long.
    """

    reference: Mapping[str, Any]
    model: str
    space: Mapping[str, Any]
    size: int
    file: str = ""
    like: str = ""


def features_run(data: RealDataset, images: Mapping[str, str] | str, count: int, backbone: Backbone) -> RunSpec:
    """The spec of the features of a set (as `Worker.image_set` takes it), or of all 'train' or 'test' images.

    count: how many images there are, for the estimate of time alone.
    """
    if isinstance(images, str):
        digest = data.train_digest if images == TRAIN else data.test_digest
        what: dict[str, Any] = {"dataset": data.name, "data" if images == TRAIN else "test_data": digest}
        notes: dict[str, Any] = source_note(data)
    else:
        what = {"set": {key: value for key, value in images.items() if key != "file"}}
        notes = {"file": images.get("file")}
    inputs = {
        **what,
        "network": dict(backbone.reference),
        "space": dict(backbone.space),
        "size": backbone.size,
        "numerics": using("probe", "decode", "network", settings=[backbone.model]),
    }
    return RunSpec(
        "features",
        inputs,
        {**notes, "weights": backbone.file, "model": backbone.like or backbone.model, "images": count},
    )


@RUN_TYPES.register("features")
class Features(RunType):
    """Send images through a frozen network and keep what its classifier would read, with their labels."""

    name = "features"
    metric = SECONDS

    def compute(self, run: RunDir, worker: Worker) -> None:
        """Find the images and the network, keep the features."""
        from distill.spaces import space_from
        from distill.tensor_file import save_tensors
        from downstream.probe import features_of
        from downstream.training import Conditions

        spec = run.spec
        images = _images(spec, worker)
        inputs, shown = spec.inputs, images.decoded()
        network = frozen_network(inputs["network"], spec.notes["weights"], shown, worker, inputs["size"], head=False)
        conditions = Conditions(worker.device, space=space_from(inputs["space"]), stop=worker.stop)
        found, labels = features_of(network, images, conditions, inputs["size"])
        facts = {"label_kind": images.label_kind, "num_classes": images.num_classes}
        save_tensors(run.path(FEATURES_FILE), {"features": found, "labels": labels}, facts)
        run.finish({"features": found.shape[1], "images": len(found)})

    def needs(self, spec: RunSpec) -> list[Need]:
        """The set, and the network where it is trained here."""
        network = spec.inputs["network"]
        return [*set_needs(spec.inputs.get("set")), *([("teacher", network["cell"])] if "cell" in network else [])]

    def passes(self, spec: RunSpec, data: RealDataset) -> list[Passes]:
        """The images once through the network."""
        size = spec.inputs["size"]
        shape = (data.channels, size, size)
        return [Passes(spec.notes["model"], shape, data.num_classes, forward=spec.notes["images"])]


def _images(spec: RunSpec, worker: Worker) -> ImageSet:
    inputs = spec.inputs
    if "set" in inputs:
        reference = inputs["set"]
        return worker.image_set({**reference, **({} if "cell" in reference else {"file": spec.notes["file"]})})
    data = worker.real(spec, test="test_data" in inputs)
    return data.test if "test_data" in inputs else data.train

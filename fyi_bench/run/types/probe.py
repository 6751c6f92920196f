"""Run type `probe`: logistic regression on kept features of a set, tested on those of test images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fyi_bench.run.numerics import using
from fyi_bench.run.run_type import RUN_TYPES, Need, Passes, RunType, Worker
from fyi_bench.run.types.features import FEATURES_FILE
from fyi_bench.store.run_dir import RunDir
from fyi_bench.store.spec import RunSpec

if TYPE_CHECKING:
    from torch import Tensor

    from fyi_bench.data import RealDataset

_PASSES = 100  # over the features, of L-BFGS, about


def probe_run(train: RunSpec, test: RunSpec, labels: str) -> RunSpec:
    """The spec of one probe on `features` runs. labels: 'own' or 'hard', of the images it is fitted to."""
    from downstream.probe import L2

    inputs = {"train": train.digest, "test": test.digest, "labels": labels, "l2": L2, "numerics": using("probe")}
    return RunSpec("probe", inputs, {"images": train.notes["images"]})


@RUN_TYPES.register("probe")
class ProbeRun(RunType):
    """Fit a probe and test it."""

    name = "probe"

    def compute(self, run: RunDir, worker: Worker) -> None:
        """Read the features, fit, test once, record."""
        from downstream.probe import fit, shares_of

        inputs = run.spec.inputs
        (x, y, kind, classes), (seen, wanted, *_) = (_kept(inputs[key], worker) for key in ("train", "test"))
        probe = fit(x, shares_of(y, kind, inputs["labels"] == "hard"), classes, inputs["l2"])
        value = float((probe.logits(seen).argmax(1) == wanted).double().mean())
        run.finish({"value": value, "last_loss": probe.loss, "steps": probe.steps})

    def needs(self, spec: RunSpec) -> list[Need]:
        """The features that the probe is fitted to, and those it is tested on."""
        return [("features", spec.inputs["train"]), ("features", spec.inputs["test"])]

    def passes(self, spec: RunSpec, data: RealDataset) -> list[Passes]:
        """No network runs: as much as a small one's passes over the images, as far as is known."""
        return [Passes("mlp", data.train.shape, data.num_classes, forward=_PASSES * spec.notes["images"])]


def _kept(digest: str, worker: Worker) -> tuple[Tensor, Tensor, str, int]:
    """Features, labels, what soft labels are, classes."""
    from distill.tensor_file import load_tensors

    tensors, facts = worker.keep(
        ("features", digest), lambda: load_tensors(worker.store.artefact("features", digest, FEATURES_FILE))
    )
    return tensors["features"], tensors["labels"], facts["label_kind"], facts["num_classes"]

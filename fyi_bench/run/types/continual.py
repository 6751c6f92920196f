"""Run type `continual`: train one network on the memory after a step of a class order, test it on the classes seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fyi_bench.run.numerics import using
from fyi_bench.run.run_type import RUN_TYPES, Need, Passes, RunType, Worker, source_note
from fyi_bench.run.types.accuracy import TRAINING, protocol_of, training_passes
from fyi_bench.store.run_dir import RunDir
from fyi_bench.store.spec import RunSpec

if TYPE_CHECKING:
    from distill.image_set import ImageSet
    from distill.spaces import Space
    from downstream.continual.steps import Steps
    from downstream.protocol import Protocol
    from fyi_bench.data import RealDataset

REAL = "real"  # a memory of all real images of the classes seen


@dataclass(frozen=True)
class Order:
    """A class order and its steps. seed: of the order and its sets. named: whether the order is not the seed's own."""

    seed: int
    steps: Steps
    named: bool = False

    @property
    def inputs(self) -> dict[str, Any]:
        """What a run is keyed by. What is as in the published protocol is left out."""
        steps = self.steps
        return {
            "order_seed": self.seed,
            "steps": len(steps),
            **({"order": list(steps.order)} if self.named else {}),
            **({"sizes": list(steps.sizes)} if len(set(steps.sizes)) > 1 else {}),
            **({"scenario": steps.kind} if steps.kind != "class" else {}),
        }


def steps_of(inputs: Mapping[str, Any], classes: int) -> Steps:
    """The steps that a run's inputs state."""
    from downstream.continual.steps import Steps, class_order

    order = inputs.get("order") or class_order(inputs["order_seed"], classes)
    sizes = inputs.get("sizes") or [classes // inputs["steps"]] * inputs["steps"]
    return Steps(tuple(order), tuple(sizes), inputs.get("scenario", "class"))


@dataclass(frozen=True)
class Memory:
    """What a memory is made of after a step.

    sets: the distill runs of steps 0 .. step. files: references to sets that are files, of which each step takes the
    images of its classes. source: 'real' for all real images. storage: how images are kept, see
    `downstream.continual.memory.STORAGE`. cut: images a class, the first ones, where later classes took the others'
    place. images: in all, for the estimate of time. decoded: whether sets are kept in a form that images are made of.
    """

    images: int
    sets: Sequence[RunSpec] = ()
    files: Sequence[Mapping[str, str]] = ()
    source: str = ""
    storage: str = ""
    cut: int | None = None
    decoded: bool = False

    @property
    def inputs(self) -> dict[str, Any]:
        """What a run is keyed by; what is as in the published protocol is left out."""
        rest = {"source": self.source, "storage": self.storage, "cut": self.cut}
        files = {"files": [one["digest"] for one in self.files]} if self.files else {}
        return {
            "sets": [spec.digest for spec in self.sets], **files,
            **{key: value for key, value in rest.items() if value},
        }  # fmt: skip

    @property
    def components(self) -> list[str]:
        """The component that makes images of what is kept, where there is one."""
        return ["decoder"] if self.decoded else []

    @property
    def notes(self) -> dict[str, Any]:
        """What a worker needs to know beside it."""
        return {"images": self.images, **({"files": [one["file"] for one in self.files]} if self.files else {})}


def continual_run(
    data: RealDataset, memory: Memory, order: Order, step: int, seed: int, protocol: Protocol, precision: str = "fp32"
) -> RunSpec:
    """The run of one network after `step` (0-based) of a class order."""
    inputs = {
        "dataset": data.name,
        "train_data": data.train_digest,
        "test_data": data.test_digest,
        **memory.inputs,
        **order.inputs,
        "step": step,
        "protocol": protocol.keyed(),
        "seed": seed,
        "precision": precision,
        "numerics": using("continual", *TRAINING[1:], *memory.components, settings=protocol.keyed().values()),
    }
    notes = {"protocol": protocol.name, "protocol_version": protocol.version, **memory.notes, **source_note(data)}
    return RunSpec("continual", inputs, notes)


def memory_sets(spec: RunSpec, worker: Worker, steps: Steps, data: RealDataset) -> list[ImageSet]:
    """The set of each step so far, as it comes back from its storage; all in one space."""
    from distill.image_set import concatenate

    inputs = spec.inputs
    last = inputs.get("step", len(steps) - 1)
    if inputs.get("source") == REAL:
        return [data.train.of_classes(classes) for classes in steps.classes[: last + 1]]
    if "files" not in inputs:
        return [worker.image_set({"cell": digest}).to_space(data.space) for digest in inputs["sets"]]
    given = [
        worker.image_set({"digest": digest, "file": path})
        for digest, path in zip(inputs["files"], spec.notes["files"], strict=True)
    ]
    space = given_space(given[0], data)
    whole = concatenate([one.to_space(space) for one in given])
    return [whole.of_classes(classes) for classes in steps.classes[: last + 1]]


def given_space(image_set: ImageSet, data: RealDataset) -> Space:
    """Where networks are trained and tested on a set that is a file: whitened sets in their own space."""
    return image_set.space if image_set.space.kind == "zca" else data.space


def kept(sets: Sequence[ImageSet], inputs: Mapping[str, Any]) -> tuple[list[ImageSet], dict[str, int]]:
    """The sets as the memory holds them, and their bytes by part."""
    import torch

    from downstream.continual.memory import kept_as

    cut = inputs.get("cut")
    if cut:
        index = [torch.cat([one.indices_of(c)[: cut * one.variants] for c in one.classes]) for one in sets]
        sets = [one.select(rows) for one, rows in zip(sets, index, strict=True)]
    back = [kept_as(one, inputs.get("storage", "")) for one in sets]
    return [one for one, _ in back], added([parts for _, parts in back])


def stored_parts(spec: RunSpec, worker: Worker, steps: Steps, step: int) -> dict[str, int] | None:
    """Bytes by part of a memory after a step in the form that its sets are stored in; None where it holds images."""
    from downstream.continual.memory import memory_parts

    inputs = spec.inputs
    if "decoder" not in inputs["numerics"] or inputs.get("cut") or inputs.get("storage"):
        return None
    if "files" not in inputs:
        return added([memory_parts(worker.image_set({"cell": digest})) for digest in inputs["sets"][: step + 1]])
    seen, held = set(steps.seen(step)), []
    for digest, path in zip(inputs["files"], spec.notes["files"], strict=True):
        given = worker.image_set({"digest": digest, "file": path})
        held += [given.of_classes(classes)] if (classes := [c for c in given.classes if c in seen]) else []
    return added([memory_parts(one) for one in held])


def added(parts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The bytes of several sets by part, as `ImageSet.parts` names them."""
    return {name: sum(one[name] for one in parts) for name in ("stored", "labels", "decoder")}


@RUN_TYPES.register("continual")
class Continual(RunType):
    """Train one network on the memory after a step, test it on the classes seen."""

    name = "continual"
    loading_s = 6.0  # Avalanche

    def compute(self, run: RunDir, worker: Worker) -> None:
        """Run one step of the protocol in Avalanche and record what the network knows of all classes seen."""
        from downstream.continual.rehearsal import Rehearsal, scenario
        from downstream.training import Conditions

        spec = run.spec
        inputs = spec.inputs
        data = worker.real(spec)
        steps = steps_of(inputs, data.num_classes)
        sets, parts = kept(memory_sets(spec, worker, steps, data), inputs)
        parts = stored_parts(spec, worker, steps, inputs["step"]) or parts
        space = data.space if inputs.get("source") == REAL else sets[0].space
        test = worker.keep(
            ("float test", inputs["test_data"], str(space.describe())), lambda: data.test.to_space(space)
        )
        key = ("scenario", inputs["train_data"], inputs["test_data"], str(space.describe()), steps)
        benchmark = worker.keep(key, lambda: scenario(data.train, test, space, steps))
        protocol = protocol_of(spec)
        total = protocol.epochs_for(spec.notes["images"])
        result = Rehearsal(
            benchmark=benchmark,
            steps=steps,
            sets=sets,
            test_labels=data.test.hard_labels,
            protocol=protocol,
            conditions=Conditions(worker.device, inputs["precision"], space, stop=worker.stop),
            report=lambda _, epochs, loss: worker.progress(spec.digest, epochs, total, loss),
        ).after_step(inputs["step"], inputs["seed"])
        found = asdict(result)
        images = sum(one.items for one in sets)
        size = {"bytes": sum(parts.values()), "set_parts": parts}
        run.finish({"value": found.pop("accuracy"), **found, "images": images, **size})

    def side(self, spec: RunSpec) -> str:
        """'real' for real images; of sets, what made them."""
        return "real" if spec.inputs.get("source") == REAL else super().side(spec)

    def needs(self, spec: RunSpec) -> list[Need]:
        """The sets of the steps so far."""
        return [("distill", digest) for digest in spec.inputs["sets"]]

    def passes(self, spec: RunSpec, data: RealDataset) -> list[Passes]:
        """Training passes over the memory, one pass over the test images of the classes seen."""
        steps = steps_of(spec.inputs, data.num_classes)
        seen = len(steps.seen(spec.inputs["step"])) / data.num_classes
        return [training_passes(spec, data, round(len(data.test) * seen))]

"""Run type `attention`: where in its images a network sees a class, counted over real train images.

The network is ResNet-18 with the weights that torchvision publishes, from a file of the user, or one that is trained
here on the real images by a protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import DataError
from fyi_bench.run.numerics import using
from fyi_bench.run.run_type import RUN_TYPES, SECONDS, Passes, RunType, Worker, measured_space, source_note
from fyi_bench.run.teachers import weights_into
from fyi_bench.run.types.accuracy import TRAINING, train_one, training_passes
from fyi_bench.store.run_dir import RunDir
from fyi_bench.store.spec import RunSpec

if TYPE_CHECKING:
    from torch import nn

    from distill.spaces import Space
    from downstream.protocol import Protocol
    from fyi_bench.data import RealDataset

PRETRAINED, IMAGENET_CLASSES = "torchvision:resnet18", 1000
COUNTS_FILE = "counts.safetensors"


def attention_run(
    data: RealDataset, classes: Sequence[int], network: tuple[Protocol, int] | tuple[Path, str], precision: str
) -> RunSpec:
    """The spec of one network's attention to the train images of these classes.

    network: (protocol, seed) of one to train, or (file, its sha256) of weights.
    """
    inputs: dict[str, Any] = {"dataset": data.name, "data": data.train_digest, "classes": list(classes)}
    if isinstance(network[0], Path):
        notes: dict[str, Any] = {"file": str(network[0].resolve())}
        inputs |= {"weights": network[1], "numerics": using("attention", "network")}
    else:
        protocol, seed = network
        keyed = protocol.keyed()
        notes = {"protocol": protocol.name, "protocol_version": protocol.version, "images": len(data.train)}
        inputs |= {"protocol": keyed, "seed": seed, "precision": precision, **measured_space(data)}
        inputs["numerics"] = using("attention", *TRAINING, settings=keyed.values())
    return RunSpec("attention", inputs, {**notes, **source_note(data)})


def imagenet_class(name: str) -> int:
    """The place of a class among the outputs of a network for ImageNet. Raises DataError where the name does not say.

    name: as torchvision spells it ("tench"), or the folder of one that is known here ("n01440764").
    """
    from fyi_bench.data.sets.imagenet import CLASS_NAMES
    from search_space.torchvision_compat import torchvision

    known = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    name = CLASS_NAMES.get(name, name)
    if known.count(name) != 1:
        raise DataError(
            f"'{name}' does not tell which of ImageNet's 1,000 classes it is.\n"
            "Name the folders of train/ as torchvision names the classes, such as 'tench'."
        )
    return known.index(name)


def pretrained(path: Path, size: int) -> nn.Module:
    """ResNet-18 for ImageNet, for images of this side, with the weights of a file. DataError for any other file."""
    import search_space
    from fyi_bench import rng

    network = search_space.build(PRETRAINED, 3, size, IMAGENET_CLASSES, rng.stream(0, "weights"))
    remedy = "Give --weights the file that torchvision publishes for ResNet18_Weights.IMAGENET1K_V1."
    return weights_into(network, path, True, remedy, "ResNet-18 for ImageNet's 1,000 classes")


@RUN_TYPES.register("attention")
class AttentionRun(RunType):
    """Find where a network sees the classes of real images."""

    name = "attention"
    metric = SECONDS

    def compute(self, run: RunDir, worker: Worker) -> None:
        """Load or train the network, count its strongest places, record."""
        import torch

        from distill.tensor_file import save_tensors
        from downstream.attention import attention, mirror_correlation
        from downstream.training import Conditions

        spec = run.spec
        classes, data = spec.inputs["classes"], worker.real(spec, test=False)
        network, space, losses = self._network(spec, data, worker)
        conditions = Conditions(worker.device, space=space, stop=worker.stop)
        names = [data.class_names[label] if data.class_names else str(label) for label in classes]
        targets = classes if "protocol" in spec.inputs else [imagenet_class(name) for name in names]
        found = []
        for label, target in zip(classes, targets, strict=True):
            found.append(attention(network, data.train.of_classes([label]), target, conditions))
        save_tensors(run.path(COUNTS_FILE), {"counts": torch.stack([each.counts for each in found])}, {})
        rows = [
            {"name": name, "images": each.images, "right": each.right, "symmetry": mirror_correlation(each.counts)}
            for name, each in zip(names, found, strict=True)
        ]
        run.finish({"classes": rows, **({"last_loss": losses[-1]} if losses else {})})

    def _network(self, spec: RunSpec, data: RealDataset, worker: Worker) -> tuple[nn.Module, Space, list[float]]:
        """The network, the space it sees images in, and the losses of its training here."""
        from distill.spaces import NormalizedSpace
        from downstream.attention import new_network
        from fyi_bench.data.sets.imagenet import IMAGENET_STATISTICS
        from fyi_bench.files import sha256_file

        if "weights" in spec.inputs:
            path = Path(spec.notes["file"])
            if sha256_file(path) != spec.inputs["weights"]:
                raise DataError(f"{path} is not the file that was planned with.\nRun the command again.")
            network = pretrained(path, data.size)
            return network, NormalizedSpace(*IMAGENET_STATISTICS), []
        network, _, losses = train_one(spec, data.train, data.space, worker, build=new_network)
        return network, data.space, losses

    def passes(self, spec: RunSpec, data: RealDataset) -> list[Passes]:
        """Training, where the network is trained here, and a pass over the images of the classes."""
        seen = float(data.train.counts[spec.inputs["classes"]].sum())
        if "weights" in spec.inputs:
            return [Passes(PRETRAINED, data.train.shape, IMAGENET_CLASSES, forward=seen)]
        return [training_passes(spec, data, round(seen))]

"""What is timed: cases, the data they run on, and which of them belong to a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.methods import METHODS
from fyi_bench.config import PRECISIONS

if TYPE_CHECKING:
    from distill.image_set import ImageSet
    from distill.spaces import NormalizedSpace

CLASSES = {"cifar10": 10, "cifar100": 100}
# generated sets of the same shape, for machines without the real one
STAND_INS = {"cifar10": "shapes10", "cifar100": "shapes100"}
KEPT_PER_CLASS = 512  # real images a class: twice the largest batch
CONVNET = "convnet3"
PEAK = "peak"  # the job that measures the machine instead of ours

# images a class of each job's cases, by data set
_IPCS: dict[str, dict[str, tuple[int, ...]]] = {
    "dc": {"cifar10": (1, 10, 50), "cifar100": (1,)},
    "dsa": {"cifar10": (1, 10, 50), "cifar100": (1, 10)},
    "dm": {"cifar10": (1, 10, 50), "cifar100": (1, 10)},
    "idc": {"cifar10": (1, 10), "cifar100": (1,)},
    "mtt": {"cifar10": (1, 10), "cifar100": (1,)},
    "mtt-unroll": {"cifar10": (1, 10)},
    "expert": {"cifar10": (1,)},
    "retrain": {"cifar10": (1, 10, 50), "cifar100": (1, 10)},
    "retrain-vgg11": {"cifar10": (10,)},
    "retrain-resnet18": {"cifar10": (10,)},
    "nas": {"cifar10": (5,)},
}
# a GPU does a whole search of FYI's Table B, of six networks: there steps are recorded first, which must pay
_GPU_IPCS: dict[str, dict[str, tuple[int, ...]]] = {"nas": {"cifar10": (50,)}}
_GPU_CHANGES: dict[str, dict[str, Any]] = {"nas": {"epochs": 300}}
_CPU_CLASSES = {job: {"cifar10": 2, "cifar100": 5} for job in ("dc", "dsa", "dm", "idc")}
_MODELS = {"retrain-vgg11": "vgg11", "retrain-resnet18": "resnet18"}  # those that are not the ConvNet
# enough to see where each kind of work stands, in a few minutes
_QUICK = {"dsa": 1, "dm": 10, "mtt": 1, "expert": 1, "retrain": 10}  # job -> images a class of CIFAR-10
# networks that need nothing of each other, each a run of its own in a command
_SIDE_BY_SIDE = ("retrain", "retrain-vgg11", "retrain-resnet18", "nas")
_FP32_ONLY = ("mtt", "mtt-unroll")  # their work is second derivatives throughout


@dataclass(frozen=True)
class Case:
    """One job at one size.

    job: a name of `workloads.WORKLOADS`. classes: how many are condensed or trained on; cost is a sum over them, so a
    few tell the rest. changes: values of the recipe that differ from the published ones. size: side of the images in
    pixels.
    """

    job: str
    dataset: str = "cifar10"
    ipc: int = 1
    classes: int = 10
    model: str = CONVNET
    size: int = 32
    changes: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """JSON-able form; `Case(**description)` is its inverse."""
        return asdict(self)

    @property
    def precisions(self) -> tuple[str, ...]:
        """In which our side of the job can differ; the twin is always fp32."""
        return PRECISIONS[:1] if self.job in _FP32_ONLY else PRECISIONS

    def workers(self, device: str, threads: int) -> tuple[int, ...]:
        """How many processes share our side, one row each: many networks go side by side where a command does so."""
        return (1, threads) if self.job in _SIDE_BY_SIDE and device == "cpu" and threads > 1 else (1,)

    @property
    def title(self) -> str:
        """Job, data set and images a class."""
        return f"{self.job} {self.dataset} ipc {self.ipc}"


def cases(device: str, quick: bool = False) -> list[Case]:
    """The cases of a whole run on a device, or of a short one, in the order of the table."""
    gpu = device == "cuda"
    ipcs = _IPCS | _GPU_IPCS if gpu else _IPCS
    few: dict[str, dict[str, int]] = {} if gpu else _CPU_CLASSES
    return [
        Case(job, dataset, ipc, few.get(job, CLASSES)[dataset], _MODELS.get(job, CONVNET), changes=_changes(job, gpu))
        for dataset in CLASSES
        for job, sizes in ipcs.items()
        for ipc in sizes.get(dataset, ())
        if not quick or (dataset == "cifar10" and _QUICK.get(job) == ipc)
    ]


def _changes(job: str, gpu: bool) -> Mapping[str, Any]:
    """What a job does otherwise than its recipe: on a CPU, what its method says of being timed."""
    method = job.removesuffix("-unroll")
    return _GPU_CHANGES.get(job, {}) if gpu else METHODS.get(method).timed_with if method in METHODS else {}


def real_images(case: Case, data_root: Path | None) -> tuple[ImageSet, NormalizedSpace, str]:
    """(train images of the case's classes, the space networks see them in, name of the set they come from).

    At most KEPT_PER_CLASS a class; a generated set of the same shape where the real one is not at hand.
    """
    import torch

    from fyi_bench.data import load_dataset
    from fyi_bench.errors import DataError

    try:
        data = load_dataset(case.dataset, data_root, test=False, download=False)
    except DataError:
        data = load_dataset(STAND_INS[case.dataset], data_root, test=False)
    chosen = torch.cat([data.train.indices_of(c)[:KEPT_PER_CLASS] for c in range(case.classes)])
    images = data.train.select(chosen)
    if images.shape[1] != case.size:  # by the nearest pixel: what the images cost is that of real ones
        pixel = torch.arange(case.size) * images.shape[1] // case.size
        images = replace(images, images=images.images[:, :, pixel][:, :, :, pixel].contiguous())
    return images, data.space, data.name

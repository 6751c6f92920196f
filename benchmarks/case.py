"""What is timed: cases, the data they run on, and which of them belong to a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill.image_set import ImageSet
    from distill.spaces import NormalizedSpace

# generated sets of the same shape, for machines without the real one
STAND_INS = {"cifar10": "shapes10", "cifar100": "shapes100"}
KEPT_PER_CLASS = 512  # real images a class: twice the largest batch
ENDLESS = 100_000  # iterations, epochs: a side runs until it is told to stop


@dataclass(frozen=True)
class Case:
    """One job at one size.

    job: a name of `jobs.JOBS`. classes: how many are condensed or trained on; cost is a sum over them, so a few tell
    the rest. changes: values of the recipe that differ from the published ones. size: side of the images in pixels.
    """

    job: str
    dataset: str = "cifar10"
    ipc: int = 1
    classes: int = 10
    model: str = "convnet3"
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
        return f"{self.job} {self.dataset} ipc {self.ipc}"


# on a CPU matching is timed without the inner epochs of DC and DSA (they are the job `retrain`), and trajectories are
# short: the plain twin keeps every step's graph
_CPU_CHANGES: dict[str, dict[str, Any]] = {
    "dc": {"outer_loop": 1},
    "dsa": {"outer_loop": 1},
    "idc": {"inner_loop": 2},
    "mtt": {"syn_steps": 4},
    "mtt-unroll": {"syn_steps": 4},
}
# a GPU does a whole search of FYI's Table B, of six networks: there steps are recorded first, which must pay
_GPU_CHANGES: dict[str, dict[str, Any]] = {"nas": {"epochs": 300}}
_GPU_IPCS: dict[str, tuple[int, ...]] = {"nas": (50,)}
_MODELS = {"retrain-vgg11": "vgg11", "retrain-resnet18": "resnet18"}  # those that are not the ConvNet
# (job, data set, images a class, classes on a CPU, classes on a GPU)
_TABLE: tuple[tuple[str, str, tuple[int, ...], int, int], ...] = (
    ("dc", "cifar10", (1, 10, 50), 2, 10),
    ("dsa", "cifar10", (1, 10, 50), 2, 10),
    ("dm", "cifar10", (1, 10, 50), 2, 10),
    ("idc", "cifar10", (1, 10), 2, 10),
    ("mtt", "cifar10", (1, 10), 10, 10),
    ("mtt-unroll", "cifar10", (1, 10), 10, 10),
    ("expert", "cifar10", (1,), 10, 10),
    ("retrain", "cifar10", (1, 10, 50), 10, 10),
    ("retrain-vgg11", "cifar10", (10,), 10, 10),
    ("retrain-resnet18", "cifar10", (10,), 10, 10),
    ("nas", "cifar10", (5,), 10, 10),
    ("dc", "cifar100", (1,), 5, 100),
    ("dsa", "cifar100", (1, 10), 5, 100),
    ("dm", "cifar100", (1, 10), 5, 100),
    ("idc", "cifar100", (1,), 5, 100),
    ("mtt", "cifar100", (1,), 100, 100),
    ("retrain", "cifar100", (1, 10), 100, 100),
)
# enough to see where each kind of work stands, in a few minutes
_QUICK = {
    ("dsa", "cifar10", 1),
    ("dm", "cifar10", 10),
    ("mtt", "cifar10", 1),
    ("expert", "cifar10", 1),
    ("retrain", "cifar10", 10),
}
DATASETS = tuple(STAND_INS)
PRECISIONS = ("fp32", "bf16")
_SIDE_BY_SIDE = (
    "retrain",
    *_MODELS,
    "nas",
)  # networks that need nothing of each other, each a cell of its own in a command
_FP32_ONLY = ("mtt", "mtt-unroll")  # their work is second derivatives throughout
PEAK = "peak"  # the job that measures the machine instead of ours


def cases(device: str, quick: bool = False) -> list[Case]:
    """The cases of a whole run on a device, or of a short one, in the order of the table."""
    found = []
    for job, dataset, ipcs, few, many in _TABLE:
        gpu = device == "cuda"
        changes = (_GPU_CHANGES if gpu else _CPU_CHANGES).get(job, {})
        classes, model = many if gpu else few, _MODELS.get(job, Case.model)
        ipcs = _GPU_IPCS.get(job, ipcs) if gpu else ipcs
        found += [Case(job, dataset, ipc, classes, model, changes=changes) for ipc in ipcs]
    return [c for c in found if not quick or (c.job, c.dataset, c.ipc) in _QUICK]


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
    return resized(data.train.select(chosen), case.size), data.space, data.name


def resized(images: ImageSet, size: int) -> ImageSet:
    """The uint8 images enlarged or shrunk to this side by the nearest pixel: what they cost is that of real ones."""
    import torch

    if images.shape[1] == size:
        return images
    pixel = torch.arange(size) * images.shape[1] // size
    return replace(images, images=images.images[:, :, pixel][:, :, :, pixel].contiguous())

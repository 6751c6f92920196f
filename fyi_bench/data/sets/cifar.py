"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 32x32 colour, 50,000 train and 10,000 test images."""

from __future__ import annotations

from fyi_bench.data.archives import CifarLayout, downloader
from fyi_bench.data.entry import DatasetEntry, Statistics, register
from fyi_bench.data.parquet import ParquetLayout

# These stds are the means of the stds of single images, as published code has them; the std of all pixels is larger.
CIFAR10_STATISTICS: Statistics = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_BOTH_SPLITS = ({"train": True}, {"train": False})

register(
    DatasetEntry(
        name="cifar10",
        layouts=(
            ParquetLayout(("cifar10",)),
            CifarLayout(
                "CIFAR10",
                "cifar-10-batches-py",
                {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
                "batches.meta",
            ),
        ),
        statistics={"dc": CIFAR10_STATISTICS},
        num_classes=10,
        size=32,
        train=50_000,
        test=10_000,
        class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        download=downloader("CIFAR10", "cifar-10-python.tar.gz", *_BOTH_SPLITS),
    )
)
register(
    DatasetEntry(
        name="cifar100",
        layouts=(
            ParquetLayout(("cifar100",)),
            CifarLayout("CIFAR100", "cifar-100-python", {"train": ("train",), "test": ("test",)}, "meta"),
        ),
        statistics={"dc": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)), "mtt": CIFAR10_STATISTICS},
        num_classes=100,
        size=32,
        train=50_000,
        test=10_000,
        download=downloader("CIFAR100", "cifar-100-python.tar.gz", *_BOTH_SPLITS),
    )
)

"""MNIST (LeCun 1998), Fashion-MNIST (Xiao 2017), SVHN (Netzer 2011).

`mnist-mirrored` is the extended MNIST of FYI's Figs. 11 and 12: all images and their mirror images. The paper speaks of
the train images; that the test images are both ways round too is inferred.
"""

from __future__ import annotations

from fyi_bench.data.archives import MatLayout, downloader
from fyi_bench.data.entry import DatasetEntry, register
from fyi_bench.data.idx import IdxLayout
from fyi_bench.data.mirrored import MirroredLayout
from fyi_bench.data.parquet import ParquetLayout

_DIGITS = tuple(str(digit) for digit in range(10))
_CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_BOTH_SPLITS = ({"train": True}, {"train": False})

_MNIST_LAYOUTS = (ParquetLayout(("mnist",), 1), IdxLayout(("mnist", "MNIST/raw", "MNIST")))
_MNIST_STATISTICS = {"dc": ((0.1307,), (0.3081,))}
_get_mnist = downloader("MNIST", "MNIST/raw/train-images-idx3-ubyte.gz", *_BOTH_SPLITS)

register(
    DatasetEntry(
        name="mnist",
        layouts=_MNIST_LAYOUTS,
        statistics=_MNIST_STATISTICS,
        num_classes=10,
        size=28,
        channels=1,
        train=60_000,
        test=10_000,
        class_names=_DIGITS,
        download=_get_mnist,
    )
)
register(
    DatasetEntry(
        name="mnist-mirrored",
        layouts=tuple(map(MirroredLayout, _MNIST_LAYOUTS)),
        statistics=_MNIST_STATISTICS,
        num_classes=10,
        size=28,
        channels=1,
        train=120_000,
        test=20_000,
        class_names=_DIGITS,
        download=_get_mnist,
    )
)
register(
    DatasetEntry(
        name="fashionmnist",
        layouts=(
            ParquetLayout(("fashionmnist", "fashion_mnist"), 1),
            IdxLayout(("fashionmnist", "FashionMNIST/raw", "fashion-mnist", "FashionMNIST")),
        ),
        statistics={"dc": ((0.2861,), (0.3530,))},
        num_classes=10,
        size=28,
        channels=1,
        train=60_000,
        test=10_000,
        class_names=_CLOTHES,
        download=downloader("FashionMNIST", "FashionMNIST/raw/train-images-idx3-ubyte.gz", *_BOTH_SPLITS),
    )
)
register(
    DatasetEntry(
        name="svhn",
        layouts=(ParquetLayout(("svhn",)), MatLayout(("svhn", "SVHN"))),
        statistics={"dc": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))},
        num_classes=10,
        size=32,
        train=73_257,
        test=26_032,
        class_names=_DIGITS,
        download=downloader("SVHN", "train_32x32.mat", {"split": "train"}, {"split": "test"}),
    )
)

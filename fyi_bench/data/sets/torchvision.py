"""Sets that torchvision downloads: CIFAR (Krizhevsky 2009), MNIST (LeCun 1998), Fashion-MNIST (Xiao 2017), SVHN.

`mnist-mirrored` is the extended MNIST of FYI's Figs. 11 and 12: all images and their mirror images. The paper speaks of
the train images; that the test images are both ways round too is inferred.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fyi_bench.data.archives import CifarBatches, IdxFiles, MatFiles, downloader
from fyi_bench.data.entry import DATASETS, DatasetEntry, Statistics
from fyi_bench.data.parquet import ParquetFiles

# These stds are the means of the stds of single images, as published code has them; the std of all pixels is larger.
_CIFAR10: Statistics = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_CIFAR100: Statistics = ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762))
_SVHN: Statistics = ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))
_ANIMALS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_THINGS = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
    "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
    "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
    "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
    "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
_DIGITS = tuple(str(digit) for digit in range(10))
_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_COLOUR: dict[str, Any] = {"num_classes": 10, "size": 32, "train": 50_000, "test": 10_000}
_GREY: dict[str, Any] = {"num_classes": 10, "size": 28, "channels": 1, "train": 60_000, "test": 10_000}

_MNIST = DatasetEntry(
    "mnist",
    (ParquetFiles(("mnist",), 1), IdxFiles(("mnist", "MNIST/raw", "MNIST"))),
    {"dc": ((0.1307,), (0.3081,))},
    class_names=_DIGITS,
    download=downloader("MNIST", "MNIST/raw/train-images-idx3-ubyte.gz"),
    **_GREY,
)
_FASHION = ("fashionmnist", "FashionMNIST/raw", "fashion-mnist", "FashionMNIST")

for _entry in (
    DatasetEntry(
        "cifar10",
        (
            ParquetFiles(("cifar10",)),
            CifarBatches(("cifar-10-batches-py",), "CIFAR10", _BATCHES, ("test_batch",), "batches.meta"),
        ),
        {
            "dc": _CIFAR10,
            "dd": (_CIFAR10[0], (0.247, 0.243, 0.261)),
            "frepo": (_CIFAR10[0], (0.247, 0.2435, 0.2616)),
        },
        class_names=_ANIMALS,
        download=downloader("CIFAR10", "cifar-10-python.tar.gz"),
        **_COLOUR,
    ),
    DatasetEntry(
        "cifar100",
        (ParquetFiles(("cifar100",)), CifarBatches(("cifar-100-python",), "CIFAR100")),
        {
            "dc": _CIFAR100,
            "mtt": _CIFAR10,
            "rtp": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
        },
        class_names=tuple(_THINGS.split()),
        download=downloader("CIFAR100", "cifar-100-python.tar.gz"),
        **{**_COLOUR, "num_classes": 100},
    ),
    _MNIST,
    replace(_MNIST, name="mnist-mirrored", mirrored=True, train=120_000, test=20_000),
    DatasetEntry(
        "fashionmnist",
        (ParquetFiles(("fashionmnist", "fashion_mnist"), 1), IdxFiles(_FASHION)),
        {"dc": ((0.2861,), (0.3530,))},
        class_names=_CLOTHES,
        download=downloader("FashionMNIST", "FashionMNIST/raw/train-images-idx3-ubyte.gz"),
        **_GREY,
    ),
    DatasetEntry(
        "svhn",
        (ParquetFiles(("svhn",)), MatFiles(("svhn", "SVHN"))),
        {"dc": _SVHN},
        class_names=_DIGITS,
        download=downloader("SVHN", "train_32x32.mat", ({"split": "train"}, {"split": "test"})),
        **{**_COLOUR, "train": 73_257, "test": 26_032},
    ),
):
    DATASETS.register(_entry.name, _entry)

"""Sets that are folders of pictures: Tiny-ImageNet, the six 10-class subsets of ImageNet, and any folder of yours."""

from __future__ import annotations

from fyi_bench.data.entry import DATASETS, DatasetEntry, Statistics
from fyi_bench.data.parquet import ParquetFiles
from fyi_bench.data.pictures import PictureFolder, Resize, folder_at

IMAGENET_STATISTICS: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SUBSET_SIZE = 128  # both sides are brought to it and nothing is cut off, as published
# The classes of the FYI paper's Fig. 2, the middle of each image at the size ResNet-18 was trained on.
FISH_SIZE = 224
FISH = "n01440764 tench, n01443537 goldfish, n01484850 great white shark, n01491361 tiger shark, n01494475 hammerhead"
# Classes (folder, name) and their order as the MTT paper's code has them.
SUBSETS = {
    "imagenette": (
        "n01440764 tench, n02102040 English springer, n02979186 cassette player, n03000684 chain saw, "
        "n03028079 church, n03394916 French horn, n03417042 garbage truck, n03425413 gas pump, n03445777 golf ball, "
        "n03888257 parachute"
    ),
    "imagewoof": (
        "n02096294 Australian terrier, n02093754 Border terrier, n02111889 Samoyed, n02088364 beagle, "
        "n02086240 Shih-Tzu, n02089973 English foxhound, n02087394 Rhodesian ridgeback, n02115641 dingo, "
        "n02099601 golden retriever, n02105641 Old English sheepdog"
    ),
    "imagemeow": (
        "n02123045 tabby, n02123159 tiger cat, n02123394 Persian cat, n02123597 Siamese cat, n02124075 Egyptian cat, "
        "n02129165 lion, n02129604 tiger, n02128925 jaguar, n02128757 snow leopard, n02127052 lynx"
    ),
    "imagesquawk": (
        "n01806143 peacock, n02007558 flamingo, n01818515 macaw, n02051845 pelican, n02056570 king penguin, "
        "n01614925 bald eagle, n01843383 toucan, n01518878 ostrich, n01860187 black swan, "
        "n01819313 sulphur-crested cockatoo"
    ),
    "imagefruit": (
        "n07753275 pineapple, n07753592 banana, n07745940 strawberry, n07747607 orange, n07749582 lemon, "
        "n07768694 pomegranate, n07753113 fig, n07720875 bell pepper, n07718472 cucumber, n07742313 Granny Smith"
    ),
    "imageyellow": (
        "n02206856 bee, n12057211 yellow lady's slipper, n07753592 banana, n07749582 lemon, n12144580 corn, "
        "n04146614 school bus, n03530642 honeycomb, n02129165 lion, n01773157 black and gold garden spider, "
        "n01531178 goldfinch"
    ),
}


def _classes(listed: str) -> tuple[tuple[str, str], ...]:
    return tuple((words[:9], words[10:]) for words in listed.split(", "))


# folder -> name, of every class above
CLASS_NAMES = dict(_classes(", ".join([FISH, *SUBSETS.values()])))


def _subset(name: str, listed: str, size: int, resize: Resize) -> DatasetEntry:
    classes = _classes(listed)
    folders = (name, "imagenet", "ILSVRC2012", "imagenet-subsets-128")
    return DatasetEntry(
        name,
        (PictureFolder(folders, test_names=("val",), classes=classes, resize=resize),),
        {"dc": IMAGENET_STATISTICS},
        num_classes=len(classes),
        size=size,
        obtain="ImageNet is not downloaded for you: train/<wnid>/ and val/<wnid>/ are read there.",
    )


def _named_folder(argument: str) -> DatasetEntry:
    found = folder_at(argument)
    size = f"@{found.resize}" if found.resize else ""
    # named by its last name alone, so that equal pictures elsewhere are the same data
    named, source = (f"imagefolder:{place}{size}" for place in (found.folder.name, found.folder))
    return DatasetEntry(named, fixed=found, source=source)


for _entry in (
    DatasetEntry(
        "tinyimagenet",
        (
            ParquetFiles(("tinyimagenet", "tiny-imagenet")),
            PictureFolder(
                ("tiny-imagenet-200", "tinyimagenet", "tiny-imagenet"),
                test_names=("val",),  # its test/ has no labels
                annotations="val/val_annotations.txt",
                words="words.txt",
            ),
        ),
        {"dc": IMAGENET_STATISTICS, "frepo": ((0.4759, 0.4481, 0.3926), (0.2763, 0.2687, 0.2813))},
        num_classes=200,
        size=64,
        train=100_000,
        test=10_000,
        obtain="Tiny-ImageNet is not downloaded for you: unpack tiny-imagenet-200 there.",
        packed="tiny-imagenet*.*",
    ),
    *(_subset(name, listed, SUBSET_SIZE, (SUBSET_SIZE, SUBSET_SIZE)) for name, listed in SUBSETS.items()),
    _subset("imagefish", FISH, FISH_SIZE, FISH_SIZE),
    DatasetEntry(
        "imagefolder",
        at=_named_folder,
        obtain="PATH holds train/<class>/*.png and test/<class>/*.png (or val/); PATH@64 resizes and crops to 64x64.",
    ),
):
    DATASETS.register(_entry.name, _entry)

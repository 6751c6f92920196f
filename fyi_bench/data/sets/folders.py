"""Sets that are folders of pictures: Tiny-ImageNet, the six 10-class subsets of ImageNet, and any folder of yours."""

from __future__ import annotations

from fyi_bench.data.entry import DatasetEntry, Statistics, register
from fyi_bench.data.folder import FolderLayout, FolderSource, folder_at
from fyi_bench.data.parquet import ParquetLayout

IMAGENET_STATISTICS: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

register(
    DatasetEntry(
        name="tinyimagenet",
        layouts=(
            ParquetLayout(("tinyimagenet", "tiny-imagenet")),
            FolderLayout(
                ("tiny-imagenet-200", "tinyimagenet", "tiny-imagenet"),
                test_names=("val",),  # its test/ has no labels
                annotations="val/val_annotations.txt",
                words="words.txt",
            ),
        ),
        statistics={"dc": IMAGENET_STATISTICS},
        num_classes=200,
        size=64,
        train=100_000,
        test=10_000,
        obtain="Tiny-ImageNet is not downloaded for you: unpack tiny-imagenet-200 there.",
        packed="tiny-imagenet*.*",
    )
)

# Classes and their order as the MTT paper's code has them: (folder, name).
SUBSETS: dict[str, tuple[tuple[str, str], ...]] = {
    "imagenette": (
        ("n01440764", "tench"),
        ("n02102040", "English springer"),
        ("n02979186", "cassette player"),
        ("n03000684", "chain saw"),
        ("n03028079", "church"),
        ("n03394916", "French horn"),
        ("n03417042", "garbage truck"),
        ("n03425413", "gas pump"),
        ("n03445777", "golf ball"),
        ("n03888257", "parachute"),
    ),
    "imagewoof": (
        ("n02096294", "Australian terrier"),
        ("n02093754", "Border terrier"),
        ("n02111889", "Samoyed"),
        ("n02088364", "beagle"),
        ("n02086240", "Shih-Tzu"),
        ("n02089973", "English foxhound"),
        ("n02087394", "Rhodesian ridgeback"),
        ("n02115641", "dingo"),
        ("n02099601", "golden retriever"),
        ("n02105641", "Old English sheepdog"),
    ),
    "imagemeow": (
        ("n02123045", "tabby"),
        ("n02123159", "tiger cat"),
        ("n02123394", "Persian cat"),
        ("n02123597", "Siamese cat"),
        ("n02124075", "Egyptian cat"),
        ("n02129165", "lion"),
        ("n02129604", "tiger"),
        ("n02128925", "jaguar"),
        ("n02128757", "snow leopard"),
        ("n02127052", "lynx"),
    ),
    "imagesquawk": (
        ("n01806143", "peacock"),
        ("n02007558", "flamingo"),
        ("n01818515", "macaw"),
        ("n02051845", "pelican"),
        ("n02056570", "king penguin"),
        ("n01614925", "bald eagle"),
        ("n01843383", "toucan"),
        ("n01518878", "ostrich"),
        ("n01860187", "black swan"),
        ("n01819313", "sulphur-crested cockatoo"),
    ),
    "imagefruit": (
        ("n07753275", "pineapple"),
        ("n07753592", "banana"),
        ("n07745940", "strawberry"),
        ("n07747607", "orange"),
        ("n07749582", "lemon"),
        ("n07768694", "pomegranate"),
        ("n07753113", "fig"),
        ("n07720875", "bell pepper"),
        ("n07718472", "cucumber"),
        ("n07742313", "Granny Smith"),
    ),
    "imageyellow": (
        ("n02206856", "bee"),
        ("n12057211", "yellow lady's slipper"),
        ("n07753592", "banana"),
        ("n07749582", "lemon"),
        ("n12144580", "corn"),
        ("n04146614", "school bus"),
        ("n03530642", "honeycomb"),
        ("n02129165", "lion"),
        ("n01773157", "black and gold garden spider"),
        ("n01531178", "goldfinch"),
    ),
}
SUBSET_SIZE = 128  # the shorter side is resized to it and the middle kept, as published

for _name, _classes in SUBSETS.items():
    register(
        DatasetEntry(
            name=_name,
            layouts=(
                FolderLayout(
                    (_name, "imagenet", "ILSVRC2012", "imagenet-subsets-128"),
                    test_names=("val",),
                    classes=_classes,
                    resize=SUBSET_SIZE,
                ),
            ),
            statistics={"dc": IMAGENET_STATISTICS},
            num_classes=len(_classes),
            size=SUBSET_SIZE,
            obtain="ImageNet is not downloaded for you: train/<wnid>/ and val/<wnid>/ are read there.",
        )
    )


def _named_folder(argument: str) -> DatasetEntry:
    layout, folder = folder_at(argument)
    size = f"@{layout.resize}" if layout.resize else ""
    return DatasetEntry(name=f"imagefolder:{folder.name}{size}", fixed=FolderSource(folder, layout))


register(
    DatasetEntry(
        name="imagefolder",
        at=_named_folder,
        obtain="PATH holds train/<class>/*.png and test/<class>/*.png (or val/); PATH@64 resizes to 64x64.",
    )
)

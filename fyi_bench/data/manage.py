"""What `data list`, `data verify` and `data get` show."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fyi_bench.data.entry import DATASETS, DataFiles, DatasetEntry, Split, find_entry
from fyi_bench.data.load import find_files, load_dataset, locate, place, search_roots
from fyi_bench.data.pictures import PictureFolder
from fyi_bench.data.real import RealDataset, image_digests, pixel_statistics
from fyi_bench.errors import DataError

# ImageNet's constants are used for its subsets too, so only a gross difference (other data, other scale) is a problem.
_MEAN_TOLERANCE = 0.1
SPLITS: tuple[Split, ...] = ("train", "test")
_AS_LOADED = ("name", "where", "note", "size", "class_names", "train_digest", "test_digest", "digest", "mean", "std")


@dataclass(frozen=True)
class DatasetRow:
    """One line of `data list`.

    Numbers are those of the files that are here, as far as they tell without decoding, else the published ones.
    """

    name: str
    classes: int | None
    size: int | None
    channels: int
    train: int | None
    test: int | None
    found: str  # folder, "built in", or empty
    state: str  # "complete", "partial", "can be downloaded", or what to do


def list_datasets(root: str | Path | None = None) -> list[DatasetRow]:
    """Every usable data set and whether it is here. Opens no image file and downloads nothing."""
    roots, (entries, _) = search_roots(root), DATASETS.usable()
    rows = []
    for name, entry in entries.items():
        files = entry.fixed or find_files(entry, roots)
        wanted = " or ".join(layout.looks_like for layout in entry.layouts)
        state = "can be downloaded" if entry.download else entry.obtain or f"{wanted} is looked for"
        classes, counts = entry.num_classes, {"train": entry.train, "test": entry.test}
        if files is not None:
            state, classes, counts = _here(entry, files)
        facts = (classes, entry.size, entry.channels, counts["train"], counts["test"])
        rows.append(DatasetRow(name, *facts, place(files) if files else "", state))
    return rows


def _here(entry: DatasetEntry, files: DataFiles) -> tuple[str, int | None, dict[str, int | None]]:
    """State, classes and images of a data set that is here, counted in its files."""
    counts: dict[str, int | None] = {"train": entry.train, "test": entry.test}
    classes, missing = entry.num_classes, []
    try:
        if isinstance(files, PictureFolder):
            classes = len(files.class_folders)
            if entry.num_classes and classes < entry.num_classes:
                missing.append(f"{classes} of {entry.num_classes} classes")
        for split in SPLITS:
            published, counted = counts[split], files.count(split)
            counts[split] = published if counted is None else counted
            if published and counted is not None and counted != published:
                missing.append(f"{counted:,} of {published:,} {split} images")
    except DataError as error:
        if not files.complete:
            return "partial", classes, counts
        return f"broken: {str(error).splitlines()[0].rstrip('.')}", classes, counts
    if missing:
        return f"partial: {'; '.join(missing)}", classes, counts
    return "complete" if files.complete else "partial", classes, counts


@dataclass(frozen=True)
class VerifyReport:
    """Result of `data verify`. `problems` is empty when nothing is wrong; `shared` is told, not counted as wrong.

    train_counts, test_counts: images per class, in the order of `class_names`. pixel_mean, pixel_std: measured on all
    train pixels in [0, 1]; mean, std: the constants images are normalised with. (CIFAR-10's published stds are
    means over single images and so smaller than the measured ones.) shared: test images that are, pixel by pixel,
    also in the train set.
    """

    name: str
    where: str
    note: str
    size: int
    class_names: tuple[str, ...]
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    train_digest: str
    test_digest: str
    digest: str
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shared: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{self.name} in {self.where}" + (f" ({self.note})" if self.note else ""),
            f"{len(self.train_counts)} classes, {self.size}x{self.size} pixels",
            f"train      {_spread(self.train_counts)}, digest {self.train_digest}",
            f"test       {_spread(self.test_counts)}, digest {self.test_digest}",
            f"measured   mean {_decimals(self.pixel_mean)}, std {_decimals(self.pixel_std)} of the train pixels",
            f"constants  mean {_decimals(self.mean)}, std {_decimals(self.std)} used to normalise",
            f"shared     {self.shared} test images are also train images, pixel by pixel",
            f"digest     {self.digest}",
        ]
        return "\n".join([*lines, *(f"problem    {problem}" for problem in self.problems or ("none",))])


def verify(name: str, root: str | Path | None = None) -> VerifyReport:
    """Load both splits (decoded where they are not cached) and measure them. DataError for absent or broken data."""
    data = load_dataset(name, root, download=False)
    pixel_mean, pixel_std = pixel_statistics(data.train.images)
    known = set(image_digests(data.train.images))
    return VerifyReport(
        **{fact: getattr(data, fact) for fact in _AS_LOADED},
        train_counts=tuple(data.train.counts.tolist()),
        test_counts=tuple(data.test.counts.tolist()),
        pixel_mean=pixel_mean,
        pixel_std=pixel_std,
        shared=sum(image in known for image in image_digests(data.test.images)),
        problems=tuple(_problems(data, pixel_mean)),
    )


def get(name: str, root: str | Path | None = None) -> str:
    """Make sure the data set is here whole, downloading it into `root` where it is not; its folder, or "built in".

    `root` is made if need be. Raises DataError where there is no download or it fails.
    """
    entry = find_entry(name)
    if entry.fixed is None and root is not None:
        Path(root).expanduser().mkdir(parents=True, exist_ok=True)
    files = entry.fixed or find_files(entry, search_roots(root))
    if files is not None and not files.complete and entry.download is not None:
        entry.download(search_roots(root)[-1])
        files = None
    return place(files or locate(entry, root))


def _spread(counts: tuple[int, ...]) -> str:
    few, many = min(counts), max(counts)
    each = f"{few:,}" if few == many else f"{few:,} to {many:,}"
    return f"{sum(counts):,} images, {each} a class"


def _decimals(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4f}" for value in values)


def _problems(data: RealDataset, pixel_mean: tuple[float, ...]) -> list[str]:
    found = []
    distance = max(abs(a - b) for a, b in zip(pixel_mean, data.mean))
    if distance > _MEAN_TOLERANCE:
        found.append(f"the mean of the train pixels is {distance:.3f} away from the constants of {data.name}")
    if min(data.std) <= 0:
        found.append("a channel has no contrast")
    return found

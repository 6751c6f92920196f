"""Published numbers as data: the tables of the FYI paper, and what its baselines report elsewhere (table `ext`).

published.csv holds them as printed, accuracies in percent (column `unit`), with the source of each row. This loader
gives accuracies and their deviations as fractions in [0, 1], like every accuracy of the project, and the project's
names beside the printed labels. The numbers of the FYI paper's Table 4 are printed as a picture and are not here.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from fyi_bench.errors import UnknownNameError, UsageError

FILE = Path(__file__).with_name("published.csv")
FULL = "full"
REPLICATED = "replicated_accuracy"  # metric: what others than the authors measured with the authors' code

# field -> printed label -> the project's name, where it is not simply the label in lower case
_NAMES = {
    "dataset": {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "Tiny-ImageNet": "tinyimagenet"},
    "method": {"CAFE+DSA": "cafe-dsa", "full_dataset": FULL, "real": FULL},
    "arch": {"ConvNetD3": "convnet3", "ConvNetD4": "convnet4", "ConvNetD5": "convnet5", "720-ConvNet grid": "space720"},
    "metric": {
        "top1_acc": "accuracy",
        "top1_acc_replicated": REPLICATED,
        "spearman_top50pct": "spearman_top50",
        "images_no": "images",
    },
    "table": {},
    "flip": {},
}
_RANDOM_FLIP = "+Flip"  # Table A: images mirrored at random, without concatenation
_UNITS = {"percent": ("fraction", Decimal(100))}


@dataclass(frozen=True)
class Published:
    """One published number.

    value, std: in `unit` ('fraction' for accuracies, 'correlation', 'minutes', 'images'); std is None where none is
    given; the papers' deviations are population ones (ddof 0) over networks and sets pooled.
    ipc: images a class, None for the whole data set. flip: none, fyi, or random (mirrored without concatenation).
    method 'full' is training on, or ranking by, the whole data set. *_label: as printed.
    """

    table: str
    dataset: str
    ipc: int | None
    method: str
    flip: str
    arch: str
    metric: str
    unit: str
    value: float
    std: float | None
    source: str
    note: str
    dataset_label: str
    method_label: str
    arch_label: str
    metric_label: str


def published(table: str | None = None, **wanted: str | int | bool) -> list[Published]:
    """Published numbers of a table that match everything wanted, in the order of the papers; empty if there are none.

    wanted: dataset, method, arch, metric, flip (the project's names or the printed labels, in any case), ipc (a number,
    or 'full' for the whole data set), fyi. fyi=False means the plain method, without the random flips of Table A (for
    those: flip='random'). Raises UnknownNameError, with the nearest name, for a name that occurs in no table.
    """
    if "fyi" in wanted:
        wanted["flip"] = "fyi" if wanted.pop("fyi") else "none"
    wanted |= {} if table is None else {"table": table}
    asked = {field: _images(value) if field == "ipc" else _known(field, str(value)) for field, value in wanted.items()}
    return [row for row in _rows() if all(getattr(row, field) == value for field, value in asked.items())]


@functools.cache
def _rows() -> tuple[Published, ...]:
    with open(FILE, newline="", encoding="utf-8") as handle:
        return tuple(_read(row) for row in csv.DictReader(handle))


def _read(row: dict[str, str]) -> Published:
    unit, scale = _UNITS.get(row["unit"], (row["unit"], Decimal(1)))
    method, random_flip, _ = row["method"].partition(_RANDOM_FLIP)
    labels = {"dataset": row["dataset"], "method": method, "arch": row["arch"], "metric": row["metric"]}
    return Published(
        table=row["table"],
        ipc=_images(row["ipc"]),
        flip="random" if random_flip else "fyi" if row["fyi"] == "1" else "none",
        unit=unit,
        value=float(Decimal(row["value"]) / scale),
        std=float(Decimal(row["std"]) / scale) if row["std"] else None,
        source=row["source"],
        note=row["note"],
        **{field: _NAMES[field].get(label, label.lower()) for field, label in labels.items()},
        **{f"{field}_label": row[field] for field in labels},
    )


def _known(field: str, given: str) -> str:
    """The name in the tables that a user's name or label stands for."""
    if field not in _NAMES:
        raise UnknownNameError("field of published numbers", field, [*_NAMES, "ipc", "fyi"])
    known = {getattr(row, field) for row in _rows()}
    names = {label.lower(): name for label, name in _NAMES[field].items()} | {name.lower(): name for name in known}
    if given.lower() not in names:
        raise UnknownNameError(f"{field} of published numbers", given, known)
    return names[given.lower()]


def _images(ipc: int | str) -> int | None:
    if str(ipc).lower() == FULL:
        return None
    try:
        return int(ipc)
    except ValueError:
        raise UsageError(f"'{ipc}' is no number of images per class.\nGive a number, or '{FULL}'.") from None

"""Published numbers as data: the tables of the FYI paper, and what its baselines report elsewhere (table `ext`).

published.csv holds them as printed, accuracies in percent (column `unit`), with the source of each row. This loader
gives accuracies and their deviations as fractions in [0, 1], like every accuracy of the project, and the project's
names beside the printed labels. The numbers of the FYI paper's Table 4 are printed as a picture and are not here.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from fyi_bench.errors import UnknownNameError, UsageError

FILE = Path(__file__).with_name("published.csv")
FULL = "full"

# printed label -> the project's name, where it is not simply the label in lower case
_DATASETS = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "Tiny-ImageNet": "tinyimagenet"}
_METHODS = {"CAFE+DSA": "cafe-dsa", "full_dataset": FULL, "real": FULL}
_ARCHITECTURES = {
    "ConvNetD3": "convnet3",
    "ConvNetD4": "convnet4",
    "ConvNetD5": "convnet5",
    "720-ConvNet grid": "space720",
}
_METRICS = {"top1_acc": "accuracy", "spearman_top50pct": "spearman_top50", "images_no": "images"}
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

    @property
    def fyi(self) -> bool:
        """Whether the number is one with FYI."""
        return self.flip == "fyi"


def published(
    table: str | None = None,
    dataset: str | None = None,
    ipc: int | str | None = None,
    method: str | None = None,
    fyi: bool | None = None,
    arch: str | None = None,
    metric: str | None = None,
    flip: str | None = None,
) -> list[Published]:
    """Published numbers that match everything given, in the order of the papers' tables; empty if there are none.

    Names are the project's or the printed labels, in any case. ipc: a number, or 'full' for the whole data set.
    fyi=False means the plain method, without the random flips of Table A (for those: flip='random').
    Raises UnknownNameError, with the nearest name, for a name that occurs in no table.
    """
    wanted = {
        "table": _known("table", table),
        "dataset": _known("dataset", dataset, _DATASETS),
        "method": _known("method", method, _METHODS),
        "arch": _known("arch", arch, _ARCHITECTURES),
        "metric": _known("metric", metric, _METRICS),
        "flip": _known("flip", flip),
    }
    tests: list[Callable[[Published], bool]] = [
        lambda row, field=field, name=name: getattr(row, field) == name
        for field, name in wanted.items()
        if name is not None
    ]
    if ipc is not None:
        number = _images(ipc)
        tests.append(lambda row: row.ipc == number)
    if fyi is not None:
        tests.append(lambda row: row.flip == ("fyi" if fyi else "none"))
    return [row for row in _rows() if all(test(row) for test in tests)]


@functools.cache
def _rows() -> tuple[Published, ...]:
    with open(FILE, newline="", encoding="utf-8") as handle:
        return tuple(_read(row) for row in csv.DictReader(handle))


def _read(row: dict[str, str]) -> Published:
    unit, scale = _UNITS.get(row["unit"], (row["unit"], Decimal(1)))
    method, random_flip, _ = row["method"].partition(_RANDOM_FLIP)
    return Published(
        table=row["table"],
        dataset=_name(row["dataset"], _DATASETS),
        ipc=_images(row["ipc"]),
        method=_name(method, _METHODS),
        flip="random" if random_flip else "fyi" if row["fyi"] == "1" else "none",
        arch=_name(row["arch"], _ARCHITECTURES),
        metric=_name(row["metric"], _METRICS),
        unit=unit,
        value=float(Decimal(row["value"]) / scale),
        std=float(Decimal(row["std"]) / scale) if row["std"] else None,
        source=row["source"],
        note=row["note"],
        dataset_label=row["dataset"],
        method_label=row["method"],
        arch_label=row["arch"],
        metric_label=row["metric"],
    )


def _name(label: str, names: dict[str, str]) -> str:
    return names.get(label, label.lower())


def _known(field: str, given: str | None, names: dict[str, str] | None = None) -> str | None:
    """The name in the tables that a user's name or label stands for; None stays None."""
    if given is None:
        return None
    by_lower = {label.lower(): name for label, name in (names or {}).items()}
    known = {getattr(row, field) for row in _rows()}
    by_lower |= {name.lower(): name for name in known}
    if given.lower() not in by_lower:
        raise UnknownNameError(f"{field} of published numbers", given, known)
    return by_lower[given.lower()]


def _images(ipc: int | str) -> int | None:
    if str(ipc).lower() == FULL:
        return None
    try:
        return int(ipc)
    except ValueError:
        raise UsageError(f"'{ipc}' is no number of images per class.\nGive a number, or '{FULL}'.") from None

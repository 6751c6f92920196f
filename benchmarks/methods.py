"""The table of docs/methods.md: every method with and without FYI, beside five draws of random real images.

    fyi-bench runs --store STORE --where measure=accuracy task=distill --format csv > rows.csv
    python -m benchmarks.methods rows.csv

adds the rows to docs/methods.csv, and makes the table of all that is there. The file holds every network's accuracy,
so that intervals are over sets, which are what is drawn; nothing in it tells of the places of a machine.
"""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fyi_bench.files import between, write_text
from fyi_bench.present.tables.forms import markdown_table
from fyi_bench.present.words import HOLE, bounds, percent, signed_points
from fyi_bench.stats.intervals import mean_std, paired_difference, spread, unpaired_difference

DOCS = Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- methods: begin -->", "<!-- methods: end -->"
HEAD = ("method", "without FYI", "with FYI", "fyi − none", "without − random", "with − random", "sets × networks",
        "sets differ by", "networks on one set by", "kB a class")  # fmt: skip
FLOOR = "random"
KEPT = ("method", "flip", "ipc", "architecture", "protocol", "version", "device", "precision", "seeds", "values",
        "floor", "bits_per_class", "date", "digest")  # fmt: skip
# what the page says of all its numbers; rows that were measured otherwise are no part of it
OF_ALL = {"dataset": "cifar10", "architecture": "convnet-w64", "protocol": "quick", "version": "1", "precision": "fp32",
          "measure": "accuracy"}  # fmt: skip
DEVICES = {"cpu": "on a CPU", "cuda": "on a GPU"}
DRAWS = 5  # of random real images beside any method
Row = Mapping[str, str]


@dataclass(frozen=True)
class Arm:
    """Accuracies of networks, those on one set side by side. values: [sets · networks]; bits: of a class, as stored.

    floor: networks on random real images, trained as these were, [DRAWS · networks]; of random images themselves none.
    """

    values: tuple[float, ...]
    sets: int
    bits: float | None
    floor: tuple[float, ...] = ()

    @property
    def groups(self) -> list[int]:
        """The set of each value."""
        return _groups(self.values, self.sets)


Arms = Mapping[tuple[str, str, int], Arm]  # by method, flip, images a class


def read_rows(paths: Iterable[Path]) -> list[Row]:
    """The rows of these files about sets of methods: one an arm and device, of two that of more sets, else the later.

    A row keeps the floor of the command it comes from: a method with a protocol of its own has a floor of its own.
    """
    found: dict[tuple[str, ...], Row] = {}
    draws: list[Row] = []
    for path in paths:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if _belongs(row)]
        floors = {row["digest"]: row["values"] for row in rows if row["method"] == FLOOR}
        draws += [row for row in rows if row["method"] == FLOOR]
        for row in rows:
            key = row["method"], row["flip"], row["ipc"], row.get("device") or ""
            if row["method"] == FLOOR:
                continue
            if not row.get("floor"):
                row["floor"] = floors.get(row["digest"], "")
            if key not in found or int(found[key]["seeds"]) <= int(row["seeds"]):
                found[key] = row
    # of several floors that of most methods: few have a protocol of their own
    beside = Counter((row["ipc"], row.get("device") or "", row["floor"]) for row in found.values())
    for draw in sorted(draws, key=lambda draw: beside[draw["ipc"], draw.get("device") or "", draw["values"]]):
        found[FLOOR, draw["flip"], draw["ipc"], draw.get("device") or ""] = draw
    return [found[key] for key in sorted(found)]


def _belongs(row: Row) -> bool:
    alike = all(row.get(name) in (None, "", value) for name, value in OF_ALL.items())
    return alike and bool(row["seeds"]) and not row.get("name")


def arms_of(rows: Iterable[Row], device: str) -> dict[tuple[str, str, int], Arm]:
    """Arms by (method, flip, images a class), of networks trained on this device."""
    rows = [row for row in rows if (row.get("device") or "cpu") == device]
    usual = {row["ipc"]: row["values"] for row in rows if row["method"] == FLOOR}
    return {
        (row["method"], row["flip"], int(row["ipc"])): Arm(
            _numbers(row["values"]),
            int(row["seeds"]),
            float(row["bits_per_class"] or 0),
            () if row["method"] == FLOOR else _numbers(row.get("floor") or usual[row["ipc"]]),
        )
        for row in rows
    }


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split()))


def _groups(values: Sequence[float], sets: int) -> list[int]:
    return [place // (len(values) // sets) for place in range(len(values))]


def as_csv(rows: Iterable[Row]) -> str:
    """The rows as docs/methods.csv holds them."""
    text = io.StringIO()
    table = csv.DictWriter(text, KEPT, extrasaction="ignore", restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def table(arms: Arms, ipc: int) -> list[str]:
    """Lines of Markdown: a row a method, best without FYI first, the floor last."""
    methods = {method for method, _, number in arms if number == ipc}
    order = sorted(methods, key=lambda method: (method == FLOOR, -_mean(arms[method, "none", ipc]), method))
    return markdown_table(HEAD, [_cells(arms, one, ipc) for one in order])


def _cells(arms: Arms, method: str, ipc: int) -> list[str]:
    plain, flipped = arms[method, "none", ipc], arms.get((method, "fyi", ipc))
    pair = [arm for arm in (plain, flipped) if arm]
    gain = paired_difference(flipped.values, plain.values, groups=plain.groups) if flipped else None
    spreads = [spread(arm.values, arm.groups) for arm in pair]
    return [
        f"`{method}`",
        _accuracy(plain),
        _accuracy(flipped),
        f"{signed_points(gain['mean'])}{bounds(gain, signed_points)}" if gain else HOLE,
        *(HOLE if arm is None or not arm.floor else _above(arm) for arm in (plain, flipped)),
        f"{plain.sets} × {len(plain.values) // plain.sets}",
        *(" / ".join(f"± {percent(one[key])}" for one in spreads) for key in ("between_sets", "between_networks")),
        f"{plain.bits / 8e3:.1f}" if plain.bits else HOLE,
    ]


def _mean(arm: Arm) -> float:
    return mean_std(arm.values)[0]


def _accuracy(arm: Arm | None) -> str:
    return HOLE if arm is None else " ± ".join(percent(value) for value in mean_std(arm.values))


def _above(arm: Arm) -> str:
    found = unpaired_difference(arm.values, arm.floor, groups=(arm.groups, _groups(arm.floor, DRAWS)))
    return f"{signed_points(found['mean'])}{bounds(found, signed_points)}"


def lines(rows: Iterable[Row]) -> list[str]:
    """A table for each number of images a class and device."""
    rows, found = list(rows), []
    for ipc, device in sorted({(int(row["ipc"]), row.get("device") or "cpu") for row in rows}):
        found += ["", f"**{ipc} image{'s' * (ipc > 1)} a class, {DEVICES[device]}**", ""]
        found += table(arms_of(rows, device), ipc)
    return [*found, ""]


def with_tables(page: str, rows: Iterable[Row]) -> str:
    """The page with the tables between its marks. Raises ValueError where it has no marks."""
    return between(page, (BEGIN, END), "\n".join(lines(rows)))


if __name__ == "__main__":
    kept, page = DOCS / "methods.csv", DOCS / "methods.md"
    rows = read_rows([*([kept] if kept.exists() else []), *map(Path, sys.argv[1:])])
    write_text(kept, as_csv(rows))
    write_text(page, with_tables(page.read_text(encoding="utf-8"), rows))

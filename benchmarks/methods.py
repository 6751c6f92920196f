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
from collections.abc import Iterable, Mapping
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
        "bits_per_class", "date", "digest")  # fmt: skip
# what the page says of all its numbers; rows that were measured otherwise are no part of it
OF_ALL = {"dataset": "cifar10", "architecture": "convnet-w64", "protocol": "quick", "version": "1", "device": "cpu",
          "precision": "fp32", "measure": "accuracy"}  # fmt: skip
Row = Mapping[str, str]


@dataclass(frozen=True)
class Arm:
    """Accuracies of networks, those on one set side by side. values: [sets · networks]; bits: of a class, as stored."""

    values: tuple[float, ...]
    sets: int
    bits: float | None

    @property
    def groups(self) -> list[int]:
        """The set of each value."""
        return [place // (len(self.values) // self.sets) for place in range(len(self.values))]


Arms = Mapping[tuple[str, str, int], Arm]


def read_rows(paths: Iterable[Path]) -> list[Row]:
    """The rows of these files about sets of methods: one an arm, of two that of more sets, else the later one."""
    found: dict[tuple[str, ...], Row] = {}
    for path in paths:
        with path.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                alike = all(row.get(name) in (None, "", value) for name, value in OF_ALL.items())
                if not alike or not row["seeds"] or row.get("name"):
                    continue
                key = row["method"], row["flip"], row["ipc"]
                if key not in found or int(found[key]["seeds"]) <= int(row["seeds"]):
                    found[key] = row
    return [found[key] for key in sorted(found)]


def arms_of(rows: Iterable[Row]) -> dict[tuple[str, str, int], Arm]:
    """Arms by (method, flip, images a class)."""
    return {
        (row["method"], row["flip"], int(row["ipc"])): Arm(
            tuple(map(float, row["values"].split())), int(row["seeds"]), float(row["bits_per_class"] or 0)
        )
        for row in rows
    }


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
    plain, flipped, floor = arms[method, "none", ipc], arms.get((method, "fyi", ipc)), arms[FLOOR, "none", ipc]
    pair = [arm for arm in (plain, flipped) if arm]
    gain = paired_difference(flipped.values, plain.values, groups=plain.groups) if flipped else None
    spreads = [spread(arm.values, arm.groups) for arm in pair]
    return [
        f"`{method}`",
        _accuracy(plain),
        _accuracy(flipped),
        f"{signed_points(gain['mean'])}{bounds(gain, signed_points)}" if gain else HOLE,
        *(HOLE if arm in (None, floor) else _above(arm, floor) for arm in (plain, flipped)),
        f"{plain.sets} × {len(plain.values) // plain.sets}",
        *(" / ".join(f"± {percent(one[key])}" for one in spreads) for key in ("between_sets", "between_networks")),
        f"{plain.bits / 8e3:.1f}" if plain.bits else HOLE,
    ]


def _mean(arm: Arm) -> float:
    return mean_std(arm.values)[0]


def _accuracy(arm: Arm | None) -> str:
    return HOLE if arm is None else " ± ".join(percent(value) for value in mean_std(arm.values))


def _above(arm: Arm, floor: Arm) -> str:
    found = unpaired_difference(arm.values, floor.values, groups=(arm.groups, floor.groups))
    return f"{signed_points(found['mean'])}{bounds(found, signed_points)}"


def lines(arms: Arms) -> list[str]:
    """A table for each number of images a class."""
    found = []
    for ipc in sorted({ipc for _, _, ipc in arms}):
        found += ["", f"**{ipc} image{'s' * (ipc > 1)} a class**", "", *table(arms, ipc)]
    return [*found, ""]


def with_tables(page: str, arms: Arms) -> str:
    """The page with the tables between its marks. Raises ValueError where it has no marks."""
    return between(page, (BEGIN, END), "\n".join(lines(arms)))


if __name__ == "__main__":
    kept, page = DOCS / "methods.csv", DOCS / "methods.md"
    rows = read_rows([*([kept] if kept.exists() else []), *map(Path, sys.argv[1:])])
    write_text(kept, as_csv(rows))
    write_text(page, with_tables(page.read_text(encoding="utf-8"), arms_of(rows)))

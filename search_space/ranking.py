"""Rankings of the space by real data, as files: measured once, and used by anyone without training 720 networks.

A ranking is a CSV in `search_space/rankings`, or anywhere else, with one row an architecture and seed. All rows of a
file have one label: data set, protocol, epochs, train and test images, precision; numbers that were measured in
different ways do not meet. Rows from several machines and months are merged into one file.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from fyi_bench.errors import DataError, UnknownNameError, UsageError
from fyi_bench.files import write_text
from search_space import space720

FOLDER = "rankings"


@dataclass(frozen=True)
class Label:
    """How the accuracies of a ranking were measured: equal in all rows of a file.

    protocol: its name, version and what was changed (`quick v1`, `paper+lr=0.02 v1`). images, test_images: how many.
    trainer: numerics version of the trainer.
    """

    dataset: str
    protocol: str
    epochs: int
    images: int
    test_images: int
    precision: str
    trainer: int


@dataclass(frozen=True)
class Row:
    """One trained network. accuracy: test accuracy in [0, 1] after the last epoch, None for one that diverged.

    seconds: of training and testing it on `device` with `threads` threads. cell: digest of the run it came from.
    """

    architecture: str
    seed: int
    accuracy: float | None
    seconds: float
    device: str
    threads: int
    cell: str


@dataclass(frozen=True)
class Ranking:
    """Rows of one label, in the order of the space and of their seeds."""

    label: Label
    rows: tuple[Row, ...]

    @property
    def seeds(self) -> list[int]:
        """Seeds by how many architectures have them, most first."""
        counts: dict[int, int] = {}
        for row in self.rows:
            counts[row.seed] = counts.get(row.seed, 0) + 1
        return sorted(counts, key=lambda seed: (-counts[seed], seed))

    @property
    def seconds(self) -> float:
        """Time of all rows together."""
        return sum(row.seconds for row in self.rows)

    def scores(self, seed: int) -> dict[str, float | None]:
        """Architecture -> accuracy of the networks with this seed (None: diverged)."""
        return {row.architecture: row.accuracy for row in self.rows if row.seed == seed}


COLUMNS = tuple(f.name for f in fields(Row)[:1]) + tuple(f.name for f in fields(Label)) + tuple(
    f.name for f in fields(Row)[1:]
)  # fmt: skip


def names() -> list[str]:
    """Names of the rankings that come with the package."""
    folder = resources.files("search_space") / FOLDER
    return sorted(entry.name.removesuffix(".csv") for entry in folder.iterdir() if entry.name.endswith(".csv"))


def load(name: str | Path) -> Ranking:
    """The ranking of this name, or of the file at this path.

    Raises UnknownNameError for a name that is neither, DataError naming file, line and what is wrong in it.
    """
    path = Path(name)
    if path.suffix == ".csv" or path.is_file():
        try:
            return parse(path.read_text(encoding="utf-8-sig"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"The ranking {path} cannot be read: {reason}.\n{_hint()}") from error
    if str(name) not in names():
        raise UnknownNameError("ranking", str(name), [*names(), "a .csv file"])
    text = (resources.files("search_space") / FOLDER / f"{name}.csv").read_text(encoding="utf-8")
    return parse(text, f"{name}.csv")


def parse(text: str, where: str) -> Ranking:
    """The ranking a CSV text holds; `where` names it in errors."""
    reader = csv.DictReader(io.StringIO(text))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise DataError(f"{where} is no ranking: its first line must be\n{','.join(COLUMNS)}")
    label, rows = None, []
    for number, record in enumerate(reader, start=2):
        here = f"{where}, line {number}"
        found, row = _read(record, here)
        if label is not None and found != label:
            raise DataError(f"{here}: {_difference(label, found)}.\nOne file holds one way of measuring: split it.")
        label = found
        rows.append(row)
    if label is None:
        raise DataError(f"{where} holds no rows.\n{_hint()}")
    return Ranking(label, _sorted(rows, where))


def merged(rankings: Sequence[Ranking]) -> Ranking:
    """One ranking of the rows of several. The same architecture and seed may come twice with equal accuracy.

    Raises UsageError where labels differ, DataError where accuracies contradict each other.
    """
    first = rankings[0]
    rows: dict[tuple[str, int], Row] = {}
    for ranking in rankings:
        if ranking.label != first.label:
            raise UsageError(
                f"These rankings were measured differently: {_difference(first.label, ranking.label)}.\n"
                "Keep them in files of their own."
            )
        for row in ranking.rows:
            known = rows.setdefault((row.architecture, row.seed), row)
            if known.accuracy != row.accuracy:
                raise DataError(
                    f"{row.architecture} with seed {row.seed} has the accuracy {known.accuracy} in one ranking and"
                    f" {row.accuracy} in another.\nBits differ between machines: use another seed there."
                )
    return Ranking(first.label, _sorted(rows.values(), "these rankings"))


def save(ranking: Ranking, path: str | Path) -> Path:
    """Write the ranking, merged with what the file holds already."""
    path = Path(path)
    if path.exists():
        ranking = merged([load(path), ranking])
    return write_text(path, to_csv(ranking))


def to_csv(ranking: Ranking) -> str:
    """The ranking as CSV text: the same rows give the same bytes."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in ranking.rows:
        values = {**asdict(ranking.label), **asdict(row)}
        values["accuracy"] = "" if row.accuracy is None else repr(row.accuracy)
        values["seconds"] = f"{row.seconds:.1f}"
        writer.writerow(values)
    return out.getvalue()


def _sorted(rows: Iterable[Row], where: str) -> tuple[Row, ...]:
    ordered = sorted(rows, key=lambda row: (space720.index(row.architecture), row.seed))
    for one, other in itertools.pairwise(ordered):
        if (one.architecture, one.seed) == (other.architecture, other.seed):
            raise DataError(f"{where}: {one.architecture} with seed {one.seed} comes twice.\nRemove one of the rows.")
    return tuple(ordered)


def _read(record: dict[str, str], here: str) -> tuple[Label, Row]:
    if None in record or None in record.values():
        raise DataError(f"{here} has not {len(COLUMNS)} columns.\n{_hint()}")
    try:
        label = Label(**{f.name: _TYPES[f.type](record[f.name]) for f in fields(Label)})
        row = Row(**{f.name: _TYPES[f.type](record[f.name]) for f in fields(Row)})
    except ValueError as error:
        raise DataError(f"{here}: {error}.\n{_hint()}") from None
    if row.accuracy is not None and not 0 <= row.accuracy <= 1:
        raise DataError(
            f"{here}: the accuracy {row.accuracy} is no fraction.\nWrite 0.5 for 50 %, nothing for a failure."
        )
    try:
        return label, replace(row, architecture=space720.point(row.architecture).name)
    except UsageError as error:
        raise type(error)(*_located(error, here)) from None


def _located(error: UsageError, here: str) -> tuple:
    """Arguments that make the same kind of error again, saying where."""
    if isinstance(error, UnknownNameError):
        return f"{here}: {error.kind}", error.name, error.known
    return (f"{here}: {error}",)


def _number_or_nothing(text: str) -> float | None:
    if text == "":
        return None
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"'{text}' is not a number; leave a failure empty")
    return value


# the text of a dataclass field's type -> what reads it
_TYPES: dict[Any, Callable[[str], Any]] = {"str": str, "int": int, "float": float, "float | None": _number_or_nothing}


def _difference(ours: Label, theirs: Label) -> str:
    a, b = asdict(ours), asdict(theirs)
    return ", ".join(f"{key} is {a[key]} and {b[key]}" for key in a if a[key] != b[key])


def _hint() -> str:
    return f"A ranking is a CSV with the columns {', '.join(COLUMNS)}; `fyi-bench nas --save-ranking` writes one."

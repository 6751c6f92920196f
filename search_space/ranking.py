"""Rankings of a search space by real data, as files: measured once, and used by anyone without training 720 networks.

A ranking is a CSV in `search_space/rankings`, or anywhere else, with one row an architecture and seed. All rows of a
file have one label: data set, protocol, epochs, train and test images, precision; numbers that were measured in
different ways do not meet. Rows from several machines and months are merged into one file. Where a ranking is asked
for, a plain table of accuracies (`architecture,accuracy`, with or without `seed`) will do too: that of a published
benchmark, say.

`python -m search_space.ranking FILE.csv …` checks files before they are handed in.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fyi_bench.errors import DataError, FyiBenchError, UnknownNameError, UsageError
from fyi_bench.files import read_small, write_text
from search_space.architectures import candidate
from search_space.ranking_rules import AS_WRITTEN, CONVNETS, HANDED_IN, READ, ROUNDING, TIME, hold

FOLDER = "rankings"
LEAST_SECONDS = 0.1  # of a network that was trained: times have one digit
MOST_ROWS = 500_000  # of a file: more than the largest tabular benchmark has networks


@dataclass(frozen=True)
class Label:
    """How the accuracies of a ranking were measured: equal in all rows of a file.

    protocol: its name, version and what was changed (`quick v1`, `paper+lr=0.02 v1`). images, test_images: how many.
    trainer: numerics version of the trainer. data: digest of all train images, aside: share of them that no network is
    trained on; files from before these columns have neither.
    """

    dataset: str
    protocol: str
    epochs: int
    images: int
    test_images: int
    precision: str
    trainer: int
    data: str = ""
    aside: float = 0.0


@dataclass(frozen=True)
class Row:
    """One trained network. accuracy: test accuracy in [0, 1] after the last epoch, None for one that diverged.

    seconds: of training and testing it on `device` with `threads` threads. cell: digest of the run it came from.
    validation: accuracy on train images set aside.
    """

    architecture: str
    seed: int
    accuracy: float | None
    seconds: float
    device: str
    threads: int
    cell: str
    validation: float | None = None


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

    @property
    def is_table(self) -> bool:
        """Whether it is a plain table of accuracies, which does not say how they were measured."""
        return self.label == TABLE

    def scores(self, seed: int) -> dict[str, float | None]:
        """Architecture -> accuracy of the networks with this seed (None: diverged)."""
        return {row.architecture: row.accuracy for row in self.rows if row.seed == seed}

    def by_validation(self, seed: int) -> dict[str, float | None]:
        """Architecture -> accuracy on the images set aside of the networks with this seed, where it was measured."""
        return {
            row.architecture: row.validation for row in self.rows if row.seed == seed and row.validation is not None
        }

    def times(self, seed: int) -> dict[str, float]:
        """Architecture -> seconds of the networks with this seed."""
        return {row.architecture: row.seconds for row in self.rows if row.seed == seed}


TABLE = Label("", "table", 0, 0, 0, "", 0)  # of a plain table of accuracies
_OPTIONAL = ("data", "aside", "validation")
_LABEL, _ROW = ([f.name for f in fields(kind) if f.name not in _OPTIONAL] for kind in (Label, Row))
COLUMNS = (*_ROW[:1], *_LABEL, *_ROW[1:])  # every file has these
ALL_COLUMNS = (*COLUMNS, *_OPTIONAL)
_PLAIN = ("architecture", "accuracy")


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
            return parse(io.TextIOWrapper(io.BytesIO(read_small(path)), "utf-8-sig").read(), str(path))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"The ranking {path} cannot be read: {reason}.\n{_hint()}") from error
    if str(name) not in names():
        raise UnknownNameError("ranking", str(name), [*names(), "a .csv file"])
    text = (resources.files("search_space") / FOLDER / f"{name}.csv").read_text(encoding="utf-8")
    return parse(text, f"{name}.csv")


def parse(text: str, where: str) -> Ranking:
    """The ranking a CSV text holds; `where` names it in errors."""
    reader = csv.DictReader(io.StringIO(text))
    columns = tuple(reader.fieldnames or ())
    if set(_PLAIN) <= set(columns) and "dataset" not in columns:
        return _table(reader, where)
    if columns not in (COLUMNS, ALL_COLUMNS):
        wanted = ",".join(COLUMNS)
        raise DataError(f"{where} is no ranking: its first line must be\n{wanted}, or {','.join(_PLAIN)} for a table.")
    label, rows = None, []
    for number, record in _numbered(reader, where):
        here = f"{where}, line {number}"
        found, row = _read(record, here)
        if label is not None and found != label:
            raise DataError(f"{here}: {_difference(label, found)}.\nOne file holds one way of measuring: split it.")
        label = found
        rows.append(row)
    if label is None:
        raise DataError(f"{where} holds no rows.\n{_hint()}")
    return Ranking(label, _sorted(rows, where))


def _table(reader: csv.DictReader, where: str) -> Ranking:
    """A plain table of accuracies, fractions or, where one is above 1, all of them percent."""
    rows = []
    for number, record in _numbered(reader, where):
        here = f"{where}, line {number}"
        try:
            accuracy, seed = _number_or_nothing(record["accuracy"] or ""), int(record.get("seed") or 0)
            seconds = float(record.get("seconds") or 0)
        except ValueError as error:
            raise DataError(f"{here}: {error}.\nA table has the columns architecture and accuracy.") from None
        if accuracy is not None and not 0 <= accuracy <= 100:
            raise DataError(f"{here}: the accuracy {accuracy} is neither a fraction nor percent.\nMend the table.")
        rows.append(Row(record["architecture"].strip(), seed, accuracy, seconds, "", 0, ""))
        hold((TIME,), rows[-1], here)
    if not rows:
        raise DataError(f"{where} holds no rows.\nA table has the columns architecture and accuracy.")
    percent = any(row.accuracy is not None and row.accuracy > 1 for row in rows)
    scale = 100 if percent else 1
    found = [replace(row, accuracy=None if row.accuracy is None else row.accuracy / scale) for row in rows]
    return Ranking(TABLE, _sorted(found, where))


def _numbered(reader: csv.DictReader, where: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows with the number of their lines. DataError where there are more than any ranking has."""
    for number, record in enumerate(reader, start=2):
        if number > MOST_ROWS + 1:
            raise DataError(f"{where} has more than {MOST_ROWS:,} rows.\nSplit it.")
        yield number, record


def merged(rankings: Sequence[Ranking]) -> Ranking:
    """One ranking of the rows of several. The same architecture and seed may come twice with equal accuracies.

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
            of, ours, theirs = "accuracy", known.accuracy, row.accuracy
            if ours == theirs and known.validation is not None and row.validation is not None:
                if math.isclose(known.validation, row.validation, abs_tol=ROUNDING):
                    continue
                of, ours, theirs = "validation accuracy", known.validation, row.validation
            if ours != theirs:
                raise DataError(
                    f"{row.architecture} with seed {row.seed} has the {of} {ours} in one ranking and {theirs} in"
                    " another.\nBits differ between machines: use another seed there."
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
    new = ranking.label.data or ranking.label.aside or any(row.validation is not None for row in ranking.rows)
    columns = ALL_COLUMNS if new else COLUMNS
    writer = csv.DictWriter(out, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in ranking.rows:
        values = {**asdict(ranking.label), **asdict(row)}
        for key in ("accuracy", "validation"):
            values[key] = "" if values[key] is None else repr(values[key])
        values["seconds"] = f"{max(row.seconds, LEAST_SECONDS if row.seconds else 0.0):.1f}"
        writer.writerow(values)
    return out.getvalue()


def _sorted(rows: Iterable[Row], where: str) -> tuple[Row, ...]:
    ordered = sorted(rows, key=lambda row: (_place(row.architecture), row.seed))
    for one, other in itertools.pairwise(ordered):
        if (one.architecture, one.seed) == (other.architecture, other.seed):
            raise DataError(f"{where}: {one.architecture} with seed {one.seed} comes twice.\nRemove one of the rows.")
    return tuple(ordered)


def _place(name: str) -> tuple[int, str]:
    """The 720 ConvNets in their order, others after them by name."""
    point = CONVNETS.get(name)
    return (len(CONVNETS), name) if point is None else (point, "")


def _read(record: dict[str, str], here: str) -> tuple[Label, Row]:
    if None in record or None in record.values():
        columns = COLUMNS if _OPTIONAL[0] not in record else ALL_COLUMNS
        raise DataError(f"{here} has not {len(columns)} columns.\n{_hint()}")
    try:
        label = Label(**{f.name: _TYPES[f.type](record[f.name]) for f in fields(Label) if f.name in record})
        row = Row(**{f.name: _TYPES[f.type](record[f.name]) for f in fields(Row) if f.name in record})
    except ValueError as error:
        raise DataError(f"{here}: {error}.\n{_hint()}") from None
    for accuracy in (row.accuracy, row.validation):
        if accuracy is not None and not 0 <= accuracy <= 1:
            raise DataError(
                f"{here}: the accuracy {accuracy} is no fraction.\nWrite 0.5 for 50 %, nothing for a failure."
            )
    hold(READ, label, here)
    hold((TIME,), row, here)
    try:
        return label, replace(row, architecture=candidate(row.architecture).name)
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
    a, b = ({key: "not said" if value == "" else value for key, value in asdict(one).items()} for one in (ours, theirs))
    return ", ".join(f"{key} is {a[key]} and {b[key]}" for key in a if a[key] != b[key])


def _hint() -> str:
    return f"A ranking is a CSV with the columns {', '.join(COLUMNS)}; `fyi-bench ranking` writes one."


# checking a file that is handed in ------------------------------------------------------------------------------------


def check(path: str | Path) -> list[str]:
    """What a file holds, a line each. Raises DataError or UsageError, saying where, for one that is not as it must be.

    Beside what every reader asks for: the rules of `HANDED_IN` hold of each row, no run comes twice, and where a
    ranking of the package was measured in the same way no network contradicts it.
    """
    found, where = load(path), Path(path).name
    label = found.label
    if found.is_table:
        raise DataError(f"{where} is a table of accuracies and does not say how they were measured.\n{_hint()}")
    if not label.dataset or not where.startswith(f"{label.dataset}-"):
        raise UsageError(f"{where} is about '{label.dataset}'.\nBegin its name with that: {label.dataset}-….csv")
    runs: dict[str, str] = {}
    for row in found.rows:
        network = f"{row.architecture} with seed {row.seed}"
        hold(HANDED_IN, SimpleNamespace(**vars(label), **vars(row)), f"{where}, {network}")
        if runs.setdefault(row.cell, network) != network:
            raise DataError(f"{where}: {runs[row.cell]} and {network} have one cell, {row.cell}.\n{AS_WRITTEN}")
    for name in names():
        known = load(name)
        if known.label == label:
            merged([known, found])
            _same_runs(known, found, name)
    counts = ", ".join(f"{len(found.scores(seed))} with seed {seed}" for seed in found.seeds)
    failed = sum(row.accuracy is None for row in found.rows)
    devices = ", ".join(sorted({row.device for row in found.rows if row.device}))
    aside = f", {100 * label.aside:g} % of the train images set aside" if label.aside else ""
    return [
        f"{where}: {label.dataset} · protocol {label.protocol} · {label.precision}",
        f"{label.epochs} epoch(s) on {label.images:,} images, tested on {label.test_images:,}{aside}",
        f"{len(found.rows)} networks: {counts}; {failed} failed",
        f"{found.seconds / 3600:.1f} hours of one worker on {devices}",
    ]


def _same_runs(known: Ranking, found: Ranking, name: str) -> None:
    """DataError where a network comes from another run than in the ranking of this name."""
    cells = {(row.architecture, row.seed): row.cell for row in known.rows}
    for row in found.rows:
        cell = cells.get((row.architecture, row.seed), row.cell)
        if cell != row.cell:
            raise DataError(
                f"{row.architecture} with seed {row.seed} has the cell {row.cell}, and {cell} in {name}.\n{AS_WRITTEN}"
            )


def main(paths: Sequence[str]) -> int:
    """Check files; 0 where all are as they must be, 5 where one is not, 2 without any."""
    if not paths:
        print("python -m search_space.ranking FILE.csv …")
        return 2
    wrong = 0
    for path in paths:
        try:
            print("\n".join(check(path)))
        except FyiBenchError as error:
            print(error, file=sys.stderr)
            wrong = 5
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What a store has measured, as rows: one for each arm of a comparison and what was measured of it.

Rows come from the records of commands, and from runs whose numbers no command has told (a store that was merged in
parts, say). Fractions stay fractions; only words for people turn them into percent.
"""

from __future__ import annotations

import csv
import io
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from downstream.protocol import procedure
from fyi_bench.errors import UnknownNameError, UsageError
from fyi_bench.present.words import (
    HOLE,
    MINUS,
    arm_title,
    bits_words,
    bounds,
    count_words,
    is_number,
    mean_and_std,
    percent,
    short,
    signed_points,
    text_table,
    wrapped,
)
from fyi_bench.store.commands import command_records

if TYPE_CHECKING:
    from pandas import DataFrame

    from fyi_bench.store.store import Store

Row = dict[str, Any]
COLUMNS = (
    "task", "dataset", "name", "method", "flip", "ipc", "architecture", "classes_seen", "measure", "value",
    "std", "low", "high", "values", "pairs", "protocol", "version", "device", "precision", "seeds", "date", "wall_s",
    "digest", "set", "bits_per_class", "command",
)  # fmt: skip
_OF_THE_ARM = ("task", "dataset", "name", "method", "flip", "ipc", "protocol", "version", "device", "precision",
               "seeds", "date", "wall_s", "digest", "set", "command")  # fmt: skip
# entries of an arm -> what their numbers are called; others are called as the record does
_MEASURES = {"architectures": "accuracy", "average": "average accuracy"}
_UNMEASURED = ("misjudged", "spread", "bits_per_class")
DIFFERENCE = " difference"  # behind what a paired difference is of
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "!=": operator.ne, "<=": operator.le, ">=": operator.ge, "=": operator.eq, "<": operator.lt, ">": operator.gt,
}  # fmt: skip


def arms_of(store: Store) -> list[Row]:
    """A row for each number of every arm in the store, columns as `COLUMNS`; what is not known is None."""
    rows = [row for record in command_records(store) for row in rows_of_record(record)]
    told = {_numbers(row) for row in rows}
    rows += [row for row in _rows_of_runs(store) if _numbers(row) not in told]
    return sorted(rows, key=lambda row: [str(row[key]) for key in ("dataset", "task", "ipc", "date", "digest")])


def frame_of(rows: Sequence[Row]) -> DataFrame:
    """The rows as a pandas DataFrame with all of `COLUMNS`, also where there are no rows."""
    import pandas

    whole = ("ipc", "classes_seen", "pairs", "version", "seeds")
    return pandas.DataFrame(list(rows), columns=list(COLUMNS)).astype(dict.fromkeys(whole, "Int64"))


def rows_of_frame(frame: DataFrame) -> list[Row]:
    """The rows again, None where nothing is known."""
    import pandas

    lists = frame.astype(object).to_dict("records")
    return [
        {str(key): value if isinstance(value, list) or not pandas.isna(value) else None for key, value in row.items()}
        for row in lists
    ]


def rows_of_record(record: Mapping[str, Any]) -> list[Row]:
    """The rows of one record of a command, its paired difference last."""
    protocol = record.get("protocol")
    named = protocol if isinstance(protocol, Mapping) else {"name": protocol}
    common = {key: record.get(key) for key in _OF_THE_ARM} | {
        "protocol": named.get("name"), "version": named.get("version"), "seeds": len(record.get("seeds", [])),
    }  # fmt: skip
    rows = []
    for arm in record["arms"]:
        own = {key: arm.get(key) for key in ("name", "method", "flip", "ipc", "set")}
        own["bits_per_class"] = (arm.get("bits_per_class") or {}).get("total")
        sets = arm.get("sets")  # a floor has draws of its own: their number, or where they lie
        own["seeds"] = sets if isinstance(sets, int) else len(sets) if sets else common["seeds"]
        rows += [_row({**common, **own, **found}) for found in _measured(arm)]
    flipped = [arm for arm in record["arms"] if arm["flip"] not in ("none", "unknown")]
    for arm in flipped[:1] if isinstance(record.get("difference"), Mapping) else []:
        own = {key: arm.get(key) for key in ("name", "method", "ipc")} | {"flip": f"{arm['flip']} {MINUS} none"}
        rows += [_row({**common, **own, **found}) for found in _differences(record, arm)]
    return rows


def _differences(record: Mapping[str, Any], arm: Mapping[str, Any]) -> Iterator[Row]:
    """The paired differences of a record, each called after what it is a difference of."""
    if isinstance(record.get("differences"), Mapping):  # of a search: one a statistic
        for name, entry in record["differences"].items():
            yield from _entries(name + DIFFERENCE, entry)
        return
    first = next(iter(arm.get("architectures", [])), None)
    of = "accuracy" if first else "average accuracy" if "average" in arm or "accuracy" in arm else ""
    for row in _entries((of + DIFFERENCE).strip(), record["difference"]):
        yield {**row, "architecture": first["name"] if first else None}
    for step, entry in zip(arm.get("accuracy", []), record.get("difference_by_step", [])):
        for row in _entries("accuracy" + DIFFERENCE, entry):
            yield {**row, "classes_seen": step["classes_seen"]}


def _row(known: Mapping[str, Any]) -> Row:
    return {key: known.get(key) for key in COLUMNS}


def _measured(arm: Mapping[str, Any]) -> Iterator[Row]:
    for key, entry in arm.items():
        if key not in _UNMEASURED:
            yield from _entries(_MEASURES.get(key, key), entry)


def _entries(measure: str, entry: Any) -> Iterator[Row]:
    """Every entry that says a number: itself, those of a list, those it names."""
    if isinstance(entry, list):
        for one in entry:
            if isinstance(one, Mapping) and ("mean" in one or "value" in one):
                yield from _entries(measure, one)
    elif isinstance(entry, Mapping):
        value = entry.get("value", entry.get("mean"))
        if is_number(value):
            more = {key: entry.get(key) for key in ("std", "low", "high", "values", "pairs", "classes_seen")}
            yield {"measure": measure, "value": value, "architecture": entry.get("name"), **more}
        elif not {"value", "mean"} & entry.keys():
            for key, one in entry.items():
                if isinstance(one, Mapping) and key not in _UNMEASURED:
                    yield from _entries(f"{measure} {key}", one)


def _rows_of_runs(store: Store) -> Iterator[Row]:
    from fyi_bench.present.tables.groups import Search
    from fyi_bench.present.tables.results import groups_of
    from fyi_bench.stats import STATISTICS

    for group in groups_of(store):
        search = isinstance(group, Search)
        for measure in STATISTICS if search else ("accuracy",):
            ours = group.number(measure)
            if ours is None:
                continue
            made = {key: group.made[key] for key in ("dataset", "method", "flip", "ipc")}
            yield _row({
                "task": "nas" if search else "accuracy", **made, "architecture": None if search else group.arch,
                "measure": measure, "value": ours.mean, "std": None if search else ours.std, "low": ours.low,
                "high": ours.high, "values": None if search else list(ours.values.values()), "protocol": ours.protocol,
                "version": ours.version, "precision": group.precision, "digest": group.setup,
                "seeds": len({of_set for of_set, _ in ours.values}),
            })  # fmt: skip


def _numbers(row: Row) -> tuple[Any, ...]:
    """What tells a number from others, whoever tells it."""
    places = (row[key] for key in ("dataset", "method", "flip", "ipc", "architecture", "measure", "precision"))
    return (*places, procedure(row["protocol"] or ""), *sorted(row["values"] or [row["value"]]))


# picking -----------------------------------------------------------------------------------------------------------


def select(rows: Sequence[Row], where: Sequence[str], columns: Sequence[str]) -> list[Row]:
    """The rows for which every condition holds: 'method=dm', 'ipc>=10', 'flip!=none'; letters in any case.

    Raises UsageError for what is no condition, with a suggestion for a column that is none of `columns`.
    """
    for text in where:
        found = re.fullmatch(r"\s*([\w-]+)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*", text)
        if found is None:
            raise UsageError(f"'{text}' is no condition.\nWrite for instance --where method=dm ipc>=10.")
        column, sign, wanted = found[1].lower().replace("-", "_"), found[2], found[3]
        if column not in columns:
            raise UnknownNameError("column", column, columns)
        rows = [row for row in rows if _holds(row[column], sign, wanted)]
    return list(rows)


def _holds(value: Any, sign: str, wanted: str) -> bool:
    if value is None or value == "":
        return (wanted.lower() in ("", "none")) == (sign in ("=", "<=", ">="))
    try:
        pair: tuple[Any, Any] = (float(value), float(wanted))
    except (TypeError, ValueError):
        if isinstance(value, int | float) and sign not in ("=", "!="):
            raise UsageError(f"'{wanted}' is no number, and {sign} asks for one.") from None
        pair = (str(value).lower(), wanted.lower())
    return _OPERATORS[sign](*pair)


# telling -----------------------------------------------------------------------------------------------------------


def told(rows: Sequence[Row], form: str) -> str:
    """The rows as `table`, `csv`, `latex`, `markdown` or `json`."""
    return FORMS[form](rows)


def value_words(row: Row) -> str:
    """'48.9 ± 0.6', '0.61 [0.50, 0.70]', '+1.2 [−0.3, +2.7]': in percent where it is an accuracy."""
    of_accuracy = any(word in row["measure"] for word in ("accuracy", "regret"))
    if row["measure"].endswith(DIFFERENCE.strip()):
        signed: Callable[[Any], str] = signed_points if of_accuracy else lambda v: f"{v:+.2g}".replace("-", MINUS)
        return signed(row["value"]) + bounds(row, signed)
    say: Callable[[Any], str] = percent if of_accuracy else lambda value: short(value, 3).replace("-", MINUS)
    if is_number(row["low"]) and is_number(row["high"]):
        return say(row["value"]) + bounds(row, say)
    if of_accuracy and row["values"]:
        return mean_and_std({**row, "mean": row["value"]})
    return say(row["value"]) + (f" ± {short(row['std'], 2)}" if row["std"] else "")


def blocks(rows: Sequence[Row]) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, header, lines) of a small table for each command and setting: what was measured down, arms across."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        images = "" if row["ipc"] is None else f"{count_words(row['ipc'], 'image')} a class"
        key = (row["dataset"], row["task"], images, _protocol(row), row["precision"], (row["date"] or "")[:10])
        found.setdefault((*map(str, key), str(row["command"] and row["digest"])), []).append(row)
    titles = [" · ".join(text for text in key[:-1] if text) for key in found]
    told = [  # two commands that differ in nothing but a seed, say
        f"{title} · record {key[-1][:8]}" if titles.count(title) > 1 else title for title, key in zip(titles, found)
    ]
    return [(title, *_across(own)) for title, own in zip(told, found.values())]


def _across(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    arms = list(dict.fromkeys(map(arm_of, rows)))
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        seen = "" if row["classes_seen"] is None else f"{row['classes_seen']} classes"
        measure = row["measure"].removesuffix(DIFFERENCE)
        what = ", ".join(filter(None, (row["architecture"], seen))) or measure
        if measure not in ("accuracy", what):
            what += f", {measure}"
        lines.setdefault(what, {}).setdefault(arm_of(row), value_words(row))
    if bits := {arm_of(row): bits_words(row["bits_per_class"]) for row in rows if row["bits_per_class"]}:
        lines["bits a class"] = bits
    return ["", *arms], [[what, *(own.get(arm, "") for arm in arms)] for what, own in lines.items()]


def arm_of(row: Row) -> str:
    """'dm+fyi'; 'dm: fyi − none' for a difference."""
    if row["flip"] and MINUS in row["flip"]:
        return f"{row['name'] or row['method']}: {row['flip']}"
    return arm_title({"method": row["method"] or "unknown", "flip": row["flip"] or "unknown", "name": row["name"]})


def _protocol(row: Row) -> str:
    return f"{row['protocol']} v{row['version']}" if row["version"] else str(row["protocol"] or HOLE)


def _text(value: Any) -> str:
    return HOLE if value is None or value == "" else str(value)


def _table(rows: Sequence[Row]) -> str:
    if not rows:
        return "There is no such number in the store."
    parts = ["\n".join([*wrapped([title]), "", *text_table(header, lines)]) for title, header, lines in blocks(rows)]
    return "\n\n".join([*parts, "Accuracies, regret and their differences in %."])


def _csv(rows: Sequence[Row]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "values": " ".join(map(repr, row["values"] or []))} for row in rows)
    return file.getvalue().rstrip("\n")


def _json(rows: Sequence[Row]) -> str:
    return json.dumps(rows, indent=1, ensure_ascii=False)


def _grid(rows: Sequence[Row]) -> tuple[str, list[str], list[list[str]]]:
    """A comparison as papers print it: a line an arm, a column for whatever else differs; what is shared in words.

    Two numbers of one place (of two recipes, say) stand on lines of their own, told apart by the digest.
    """
    keys: dict[str, Callable[[Row], str]] = {
        "data set": lambda row: _text(row["dataset"]), "images a class": lambda row: _text(row["ipc"]),
        "architecture": lambda row: _text(row["architecture"]), "classes seen": lambda row: _text(row["classes_seen"]),
        "measure": lambda row: row["measure"].removesuffix(DIFFERENCE), "protocol": _protocol,
        "precision": lambda row: _text(row["precision"]),
    }  # fmt: skip
    places = [tuple(of(row) for of in keys.values()) for row in rows]
    varying = [c for c in range(len(keys)) if len({place[c] for place in places}) > 1] or [list(keys).index("measure")]
    shared = [f"{title} {places[0][c]}" for c, title in enumerate(keys)
              if c not in varying and places and places[0][c] != HOLE]  # fmt: skip
    shared += ["accuracies in %"] if any("accuracy" in row["measure"] for row in rows) else []
    columns = list(dict.fromkeys(tuple(place[c] for c in varying) for place in places))
    lines: dict[str, dict[tuple[str, ...], str]] = {}
    bits: dict[str, str] = {}
    for row, place in zip(rows, places):
        column, title = tuple(place[c] for c in varying), arm_of(row)
        if column in lines.get(title, {}):
            title = f"{title} ({str(row['digest'])[:8]})"
        lines.setdefault(title, {})[column] = value_words(row)
        if row["bits_per_class"]:
            bits[title] = bits_words(row["bits_per_class"])
    header = ["", *(", ".join(text for text in column if text != HOLE) for column in columns)]
    told = [[title, *(found.get(c, HOLE) for c in columns)] for title, found in lines.items()]
    if bits:
        header.append("bits a class")
        told = [[*line, bits.get(line[0], HOLE)] for line in told]
    return "; ".join(shared), header, told


def _latex(rows: Sequence[Row]) -> str:
    from fyi_bench.present.tables.forms import tex

    shared, header, lines = _grid(rows)
    return "\n".join([
        r"% needs \usepackage{booktabs}", r"\begin{table}", r"\centering", rf"\caption{{{tex(shared)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", " & ".join(map(tex, header)) + r" \\",
        r"\midrule", *(" & ".join(map(tex, line)) + r" \\" for line in lines), r"\bottomrule", r"\end{tabular}",
        r"\end{table}",
    ])  # fmt: skip


def _markdown(rows: Sequence[Row]) -> str:
    from fyi_bench.present.tables.forms import markdown_table

    shared, header, lines = _grid(rows)
    return "\n".join([*([shared, ""] if shared else []), *markdown_table(header, lines)])


FORMS: dict[str, Callable[[Sequence[Row]], str]] = {
    "table": _table, "csv": _csv, "latex": _latex, "markdown": _markdown, "json": _json,
}  # fmt: skip

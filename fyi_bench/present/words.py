"""How numbers and names are written for people: the same words in the terminal, the figures, the tables, the report."""

from __future__ import annotations

import math
import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, TypeGuard

from fyi_bench.duration import format_duration

HOLE = "–"  # stands where there is no number
MINUS = "−"
LONGEST_LABEL = 20
WIDTH = 80  # letters of a line where no terminal says another
_NARROWEST = 16  # letters of a column that gives way to others
_GAP = "   "  # between the columns of a table
CHOSEN_ON_TEST = (
    "Each accuracy is the best of several checkpoints, picked by test accuracy as published: it is too high."
)


def arm_title(arm: Mapping[str, Any]) -> str:
    """'dsa', 'dsa+fyi', 'random': the arm of a record, or what a user called it."""
    if arm.get("name"):
        return arm["name"]
    return arm["method"] if arm["flip"] in ("none", "unknown") else f"{arm['method']}+{arm['flip']}"


def flip_title(flip: str) -> str:
    """'fyi', 'random flip': the latter so that nobody takes it for the method `random`, which often stands beside."""
    return "random flip" if flip == "random" else flip


def arm_label(arm: Mapping[str, Any]) -> str:
    """The title to stand beside a line; of a long one the middle is left out, as arms often differ at the end."""
    title = arm_title(arm)
    half = LONGEST_LABEL // 2
    return title if len(title) <= LONGEST_LABEL else f"{title[: half - 1]}…{title[-half:]}"


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as percent without the sign of percent, '48.9'; a hole for None and for what is not finite."""
    return HOLE if not is_number(value) else f"{100 * value:.{digits}f}".replace("-", MINUS)


def mean_and_std(entry: Mapping[str, Any]) -> str:
    """'48.9 ± 0.6' in percent of an entry with values, mean and std; without the deviation for a single value."""
    if len(entry["values"]) < 2:
        return percent(entry["mean"])
    return f"{percent(entry['mean'])} ± {percent(entry['std'])}"


def spread_words(spread: Mapping[str, Any]) -> str:
    """'5 sets differ by ± 1.7, networks on one set by ± 0.6', in percentage points; '' for a single set."""
    if not is_number(spread.get("between_sets")):
        return ""
    sets, networks = f"± {percent(spread['between_sets'])}", spread["between_networks"]
    if not is_number(networks):
        return f"{spread['sets']} sets, one network on each, differ by {sets}"
    return f"{spread['sets']} sets differ by {sets}, networks on one set by ± {percent(networks)}"


def numbered(marks: Iterable[str]) -> dict[str, int]:
    """What is to be said of single numbers -> the mark that stands beside them; what comes twice has one."""
    return {mark: number for number, mark in enumerate(dict.fromkeys(marks), 1)}


def marked(number: str, said: Iterable[str], marks: Mapping[str, int]) -> str:
    """'28.2 [1,2]': a number with the marks of what is to be said of it."""
    own = ",".join(map(str, sorted(marks[one] for one in said)))
    return number + (f" [{own}]" if own else "")


def signed_points(value: float | None, digits: int = 1) -> str:
    """A difference of fractions in percentage points with its sign, '+1.2' or '−0.3'."""
    return HOLE if not is_number(value) else f"{100 * value:+.{digits}f}".replace("-", MINUS)


def correlation(value: float | None) -> str:
    """'0.61', or a hole where it is not defined."""
    return f"{value:.2f}".replace("-", MINUS) if is_number(value) else HOLE


def difference_words(difference: Mapping[str, Any], flip: str) -> str:
    """One line on the paired difference of the arms with and without the flip, and what it allows to say."""
    pairs = difference["pairs"]
    what = f"{flip_title(flip)} {MINUS} none: {signed_points(difference['mean'])} points"
    of = count_words(pairs, "pair")
    if not has_interval(difference):
        return f"{what}, {of}: too few for an interval, so this is no evidence either way"
    return f"{what}, {interval_words(difference)}, {of}: {verdict(difference, flip)}"


def difference_of_record(record: Mapping[str, Any], flip: str) -> str:
    """`difference_words` of a record: on which architecture where there are several, and what the pairs leave open.

    Networks trained on one and the same pair of sets say nothing about how sets vary, however many they are.
    """
    names = list(dict.fromkeys(e["name"] for arm in record["arms"] for e in arm.get("architectures", [])))
    words = difference_words(record["difference"], flip)
    if len(record["seeds"]) == 1 and has_interval(record["difference"]):
        words += " (one seed: sets of other seeds may differ)"
    return f"{names[0]}, {words}" if len(names) > 1 else words


def interval_words(difference: Mapping[str, Any]) -> str:
    """'95 % interval [−0.3, +2.7]' in percentage points."""
    return f"95 % interval [{signed_points(difference['low'])}, {signed_points(difference['high'])}]"


def bounds(entry: Mapping[str, Any], say: Callable[[Any], str]) -> str:
    """' [−0.3, +2.7]', or nothing where there is no interval."""
    known = is_number(entry.get("low")) and is_number(entry.get("high"))
    return f" [{say(entry['low'])}, {say(entry['high'])}]" if known else ""


def verdict(difference: Mapping[str, Any], flip: str) -> str:
    """What an interval allows to say, and no more."""
    if difference["low"] > 0:
        return f"better with {flip_title(flip)}"
    if difference["high"] < 0:
        return f"worse with {flip_title(flip)}"
    return f"it contains 0, so these runs do not tell whether {flip_title(flip)} helps"


def has_interval(difference: Mapping[str, Any] | None) -> bool:
    """Whether there are pairs enough for an interval to mean something."""
    if difference is None or difference["pairs"] < 2:
        return False
    return is_number(difference.get("low")) and is_number(difference.get("high"))


def count_words(count: int, thing: str) -> str:
    """'1 pair', '5 pairs'."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def is_number(value: Any) -> TypeGuard[float]:
    """Whether the value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def unequalness_of(arm: Mapping[str, Any]) -> float | None:
    """Mean unequalness of an arm, whichever way its task records it."""
    found = arm.get("unequalness")
    value = found.get("mean") if isinstance(found, Mapping) else found
    return value if is_number(value) else None


def short(value: Any, digits: int = 4) -> str:
    """A number in as few figures as it needs; text (such as 'nan') as it is; a hole for None."""
    if value is None:
        return HOLE
    return f"{value:.{digits}g}".replace("e-", f"e{MINUS}") if is_number(value) else str(value)


def seconds_words(seconds: float | None) -> str:
    """'8.3 s', '4 min 12 s', '2 h 05 min', '2 d 3 h': a time that was measured."""
    if not is_number(seconds):
        return HOLE
    return f"{seconds:.1f} s" if seconds < 59.95 else format_duration(seconds)


def bytes_words(count: float | None) -> str:
    """'480 B', '120.0 KiB', '1.5 MiB'."""
    if not is_number(count):
        return HOLE
    for unit, size in (("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def bits_words(bits: float) -> str:
    """'983.7 kbit', '12.3 Mbit'."""
    return f"{bits / 1e6:,.1f} Mbit" if bits >= 1e6 else f"{bits / 1e3:,.1f} kbit"


def size_words(entry: Mapping[str, Any], parts: bool = True) -> str:
    """Bytes and bits a class of an arm's set, as far as they are known: '240.2 KiB, 196.7 kbit a class: images 196.6,
    labels 0.1', without `parts` '240.2 KiB with labels, 196.7 kbit a class'.
    """
    size, bits = bytes_words(entry["set_bytes"]), entry.get("bits_per_class")
    if not bits:
        return f"{size} with labels"
    each = bits_in_parts(bits) if parts else ""
    total = f"{bits_words(bits['total'])} a class"
    return f"{size}, {total}: {each}" if each else f"{size} with labels, {total}"


def bits_in_parts(bits: Mapping[str, float]) -> str:
    """'images 196.6, labels 0.1', in kbit: those parts of `bits_per_class` that are known and not 0."""
    shown = {"stored": "images", "labels": "labels", "decoder": "decoder"}
    return ", ".join(f"{name} {bits[part] / 1e3:,.1f}" for part, name in shown.items() if bits.get(part))


def protocol_words(protocol: Mapping[str, Any] | str) -> str:
    """'quick, version 1'; a protocol given as a bare name stays one."""
    return protocol if isinstance(protocol, str) else f"{protocol['name']}, version {protocol['version']}"


def page_width() -> int:
    """Letters of a line: of the terminal, and 80 where there is none."""
    return shutil.get_terminal_size((WIDTH, 24)).columns


def wrapped(lines: Iterable[str], width: int | None = None) -> list[str]:
    """Sentences on lines that fit the page, what goes on set in. A word that is longer stays whole."""
    shape: Any = {"subsequent_indent": "  ", "break_long_words": False, "break_on_hyphens": False}
    return [part for line in lines for part in textwrap.wrap(line, width or page_width(), **shape) or [""]]


def fitted(text: str) -> str:
    """The text with its sentences broken to fit the page; lines to be copied (places, commands) stay whole."""
    copied = re.compile(r"(set|size|record|repeat|plot|report|table) {2,}|  +fyi-bench ")
    lines = (
        [line] if copied.match(line) or len(line) <= page_width() else wrapped([line]) for line in text.split("\n")
    )
    return "\n".join(part for parts in lines for part in parts)


def columns(rows: Sequence[Sequence[object]]) -> list[str]:
    """Rows as left-aligned text columns that fit the page: the widest are broken between words, paths never."""
    texts = [[str(entry) for entry in row] for row in rows]
    if not texts:
        return []
    widths = [max(1, *map(len, column)) for column in zip(*texts, strict=True)]
    room = page_width() - 2 * (len(widths) - 1)
    while sum(widths) > room and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in texts:
        parts = [
            textwrap.wrap(entry, width, break_long_words=False, break_on_hyphens=False) or [""]
            for entry, width in zip(row, widths, strict=True)
        ]
        for line in zip_longest(*parts, fillvalue=""):
            lines.append("  ".join(part.ljust(width) for part, width in zip(line, widths, strict=True)).rstrip())
    return lines


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
    """Lines of an aligned table: first column to the left, the others to the right, a rule under the header.

    width: in letters, by default that of the page. Titles are broken where that helps, and names in the first column
    that take more than half of it; columns that find no room stand in a further table below, with the first again.
    """
    width = width or page_width()
    columns = list(zip(header, *rows))
    full = [max(map(len, column)) for column in columns]
    least = [max(map(len, [*column[0].split(), *column[1:]]), default=0) for column in columns]
    least[0] = min(full[0], max([width // 2, *(len(word) for entry in columns[0] for word in entry.split())]))
    parts = [[0]]
    for place in range(1, len(columns)):
        if len(parts[-1]) > 1 and sum(least[c] + len(_GAP) for c in [*parts[-1], place]) - len(_GAP) > width:
            parts.append([0])
        parts[-1].append(place)
    lines: list[str] = []
    for part in parts:
        spare = width - sum(least[c] + len(_GAP) for c in part) + len(_GAP)
        room = {}
        for c in part:  # first come, first served
            room[c] = least[c] + max(0, min(full[c] - least[c], spare))
            spare -= room[c] - least[c]
        lines += [*([""] if lines else []), *_rendered([columns[c] for c in part], list(room.values()))]
    return lines


def _rendered(columns: Sequence[Sequence[str]], widths: Sequence[int]) -> list[str]:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for place, (column, wide) in enumerate(zip(columns, widths)):
        table.add_column(Text(column[0]), justify="right" if place else "left", width=wide, vertical="bottom")
    for row in list(zip(*columns))[1:]:
        table.add_row(*map(Text, row))
    wide = sum(widths) + len(_GAP) * (len(widths) - 1)
    # text alone: codes of a terminal would count as letters, and a notebook would show an empty output for each table
    console = Console(width=wide, color_system=None, legacy_windows=False, force_jupyter=False)
    with console.capture() as caught:
        console.print(table)
    return [line.rstrip() for line in caught.get().splitlines()]

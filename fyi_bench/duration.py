"""Lengths of time as people write them."""

from __future__ import annotations

import re

from fyi_bench.errors import UsageError

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([dhms])")


def parse_duration(text: str) -> float:
    """Seconds of "9m", "90s", "1h30m", "1.5h", "2d" or plain seconds "600".

    Raises UsageError for anything else, and for nothing at all.
    """
    compact = text.strip().lower().replace(" ", "")
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", compact):
        compact += "s"
    parts = _PART.findall(compact)
    units = [unit for _, unit in parts]
    in_order = sorted(set(units), key=list(_UNITS).index) == units
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != compact or not in_order or seconds <= 0:
        raise UsageError(f"'{text}' is no length of time.\nWrite it as 9m, 90s, 1h30m or plain seconds.")
    return seconds


def format_duration(seconds: float) -> str:
    """Short text for people: "45 s", "9 min 05 s", "1 h 30 min", "2 d 3 h"."""
    whole = max(0, round(seconds))
    minutes, s = divmod(whole, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    shapes = ((days, f"{days} d {h} h"), (hours, f"{h} h {m:02d} min"), (minutes, f"{m} min {s:02d} s"))
    return next((text for big, text in shapes if big), f"{s} s")

"""The words ConvNets are named with: `w128-d3-instance-relu-avg`.

Each word sets one factor, so a name may give any of them in any order. "No norm" and "no pooling" have
words of their own (nonorm, nopool), which is what makes the order free. Nothing here imports torch.
"""

from __future__ import annotations

import re
from typing import Any

from fyi_bench.errors import UnknownNameError, UsageError

# raised when the numbers a network produces change (initialisation, structure, rounding): results are keyed by it
NUMERICS_VERSION = 2

FACTORS = ("width", "depth", "norm", "act", "pool")

_NUMBERS = {"w": "width", "d": "depth"}
_WORDS: dict[str, dict[str, str]] = {
    "norm": {"nonorm": "none", "batch": "batch", "layer": "layer", "instance": "instance", "group": "group"},
    "act": {"sigmoid": "sigmoid", "relu": "relu", "leakyrelu": "leakyrelu", "swish": "swish"},
    "pool": {"nopool": "none", "max": "max", "avg": "avg"},
}
_MEANING = {word: (factor, level) for factor, words in _WORDS.items() for word, level in words.items()}
_SPELLING = {meaning: word for word, meaning in _MEANING.items()}
_EXAMPLES = ("w128", "d3", *_MEANING)


def spell(**levels: Any) -> str:
    """Factor levels -> name in the order of FACTORS: spell(width=32, pool="none") == "w32-nopool"."""
    letters = {factor: letter for letter, factor in _NUMBERS.items()}
    words = []
    for factor in FACTORS:
        if factor in letters and factor in levels:
            words.append(f"{letters[factor]}{levels[factor]}")
        elif factor in levels:
            words.append(_SPELLING[factor, levels[factor]])
    return "-".join(words)


def read(words: str, given: dict[str, Any] | None = None) -> dict[str, Any]:
    """Name -> factor levels; `given` are levels that the words may not set again.

    Raises UnknownNameError for an unknown word, UsageError for a factor that is set twice.
    """
    levels = dict(given or {})
    for word in words.split("-"):
        factor, level = _meaning(word)
        if factor in levels:
            raise UsageError(f"'{words}' sets the {factor} to {level!r}, but it is already {levels[factor]!r}.")
        levels[factor] = level
    return levels


def _meaning(word: str) -> tuple[str, Any]:
    number = re.fullmatch(r"([wd])([1-9]\d*)", word)
    if number:
        return _NUMBERS[number[1]], int(number[2])
    if word not in _MEANING:
        raise UnknownNameError("part of a ConvNet name", word, _EXAMPLES)
    return _MEANING[word]

"""Which design factor a proxy misjudges: how far it shifts the ranks of the architectures that share a level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

from fyi_bench.stats import mean_interval, scores

Factors = Mapping[str, Sequence[Any]]


def ranks(values: Sequence[float | None]) -> np.ndarray:
    """float64 [n], 1 for the best; ties share the average rank, failed ones share the last places."""
    return scipy_stats.rankdata(-scores(values))


def misjudged(
    factors: Factors, real: Sequence[float | None], proxy: Sequence[float | None]
) -> dict[str, dict[str, Any]]:
    """{factor: {spread, levels: [{level, architectures, shift, low, high}]}}, the most misjudged factor first,
    and in it the level that is ranked too low the most.

    factors: the level of each architecture. shift: mean over a level of proxy rank minus real rank, as a share of the
    number of architectures, with a 95 % interval: above 0, the proxy ranks that level too low. spread: the largest
    shift minus the smallest. Shifts of a factor average to 0 over the architectures.
    """
    shift = (ranks(proxy) - ranks(real)) / max(1, len(real))
    found = {}
    for factor, levels in factors.items():
        members = {level: [k for k, own in enumerate(levels) if own == level] for level in dict.fromkeys(levels)}
        rows = [{"level": level, "architectures": len(own), **_shift(shift[own])} for level, own in members.items()]
        rows.sort(key=lambda row: -row["shift"])
        means = [row["shift"] for row in rows]
        found[factor] = {"spread": max(means) - min(means) if means else 0.0, "levels": rows}
    return dict(sorted(found.items(), key=lambda item: -item[1]["spread"]))


def _shift(values: np.ndarray) -> dict[str, Any]:
    found = mean_interval(values)
    return {"shift": found["mean"], "low": found["low"], "high": found["high"]}

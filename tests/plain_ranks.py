"""Plain twins of the rank statistics, for one ranking at a time, and the bootstrap of any statistic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import special
from scipy import stats as scipy_stats

from fyi_bench.stats.intervals import RESAMPLES, bootstrap_interval, resampled_indices
from fyi_bench.stats.rank_kernel import RankKernel, subset_size
from fyi_bench.stats.rankings import scores

Values = Sequence[float | None] | np.ndarray


def spearman(x: Values, y: Values) -> float:
    """scipy's rank correlation; NaN for fewer than 3 or a constant side."""
    return _correlation(scipy_stats.spearmanr, x, y)


def kendall(x: Values, y: Values) -> float:
    """scipy's tau-b; NaN for fewer than 3 or a constant side."""
    return _correlation(scipy_stats.kendalltau, x, y)


def top_subset(real: Values, fraction: float) -> np.ndarray:
    """Indices, ascending, of the ceil(fraction * n) best by the real scores and all tied with the last of them."""
    values = scores(real)
    if not len(values):
        return np.empty(0, dtype=np.int64)
    size = int(subset_size(len(values), fraction))
    return np.flatnonzero(values >= np.sort(values)[::-1][size - 1])


def top_k_recall(real: Values, proxy: Values, k: int) -> float:
    """The kernel's recall of one ranking."""
    kernel = RankKernel(scores(real), scores(proxy))
    return float(kernel.recall(np.ones((1, kernel.n)), k)[0])


def regret(real: Values, proxy: Values, k: int = 1) -> float:
    """The best real score minus the expected best of the proxy's top k, ties at its k-th place broken at random."""
    first, second = scores(real), scores(proxy)
    finite = first[np.isfinite(first)]
    values = np.where(np.isfinite(first), first, finite.min() if len(finite) else math.nan)
    if not len(values) or np.isnan(values).any():
        return math.nan
    k = min(k, len(values))
    threshold = np.sort(second)[::-1][k - 1]
    sure, tied = values[second > threshold], np.sort(values[second == threshold])
    draws, group = k - len(sure), len(tied)
    position = np.arange(group)  # the best of `draws` out of `group` is the one at this position
    chance = special.comb(position, draws - 1) / special.comb(group, draws)
    best = np.maximum(tied, sure.max(initial=-math.inf))
    return float((chance * (values.max() - best)).sum())


def bootstrap(
    statistic: Callable[[np.ndarray], float], n: int, seed: int, resamples: int = RESAMPLES, method: str = "percentile"
) -> dict[str, Any]:
    """{value, low, high} of statistic(indices), one resample after another. method: 'percentile' or 'bca'."""

    def evaluate(rows: Any) -> np.ndarray:
        return np.array([statistic(row) for row in rows], dtype=np.float64)

    value = float(statistic(np.arange(n)))
    draws = evaluate(resampled_indices(n, seed, resamples))
    left_out = (lambda: evaluate([np.delete(np.arange(n), i) for i in range(n)])) if method == "bca" else None
    return bootstrap_interval(value, draws, left_out=left_out)


def _correlation(function: Callable[..., Any], x: Values, y: Values) -> float:
    first, second = (scipy_stats.rankdata(scores(one)) for one in (x, y))
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(function(first, second).statistic)

"""How well a proxy ranks architectures: rank correlations, top-k recall, regret, and their bootstrap intervals.

`real` and `proxy` hold one score an architecture, higher is better. Written rules, the same everywhere:

- Failed architectures (None, NaN, infinite) are ranked last, tied with each other, and counted. Where a number is
  needed (regret), a failed one is worth the lowest real score that exists.
- Ties share the average rank (Spearman) and tau-b is Kendall's. 202 of 720 rounded accuracies were tied when looked at.
- Fewer than 3 architectures, or a constant ranking: the correlation is NaN (None in reports).
- "Top 50 %" means: the ceil(n / 2) best by the *real* scores, with all that are tied with the last of them; the two
  rankings are formed anew inside the subset.
- Intervals resample architectures, so the space counts as a sample of architectures: percentile bootstrap of the
  correlations over all, of recall, of regret and of every difference of two proxies; BCa of the correlations inside
  subsets, where the percentile interval is too wide.
- The real ranking is itself measured with noise: compare with `noise_ceiling`.

Measured coverage of 95 % intervals (normal scores; 30, 60, 100 and 360 architectures; correlations 0, 0.7 and 0.95;
percentile / BCa, at least 400 simulations up to n = 100): spearman_all 93-98 / 92-98, kendall_all 94-98 / 94-99;
top 50, 20 and 10 %: 94-100 / 93-97; top 5 % from n = 60 on: 98-100 / 88-97. Recall 97-100 / 88-94. Regret, a
difference of extremes, has no bootstrap that holds: 83-93 / 62-73; read its interval as sensitivity to the sample.
Differences of two equally good proxies: correlations over all 95-97 / 93-96, inside subsets 97-100 / 89-96.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import special
from scipy import stats as scipy_stats

from fyi_bench.errors import UsageError
from fyi_bench.stats.intervals import LEVEL, RESAMPLES, Values, interval, resampled_indices
from fyi_bench.stats.rank_kernel import RankKernel, subset_size

FAILED = -math.inf
TOP_K = 10
_BLOCK = 500  # resamples at a time: a few MB for 720 architectures


class _Statistic(NamedTuple):
    """of(kernel, weights [B, n]) -> values [B]; method: the bootstrap of its interval."""

    of: Callable[[RankKernel, np.ndarray], np.ndarray]
    method: str


_STATISTICS = {
    "spearman_all": _Statistic(lambda kernel, w: kernel.spearman(w), "percentile"),
    "spearman_top50": _Statistic(lambda kernel, w: kernel.spearman(kernel.top(w, 0.5)), "bca"),
    "spearman_top20": _Statistic(lambda kernel, w: kernel.spearman(kernel.top(w, 0.2)), "bca"),
    "spearman_top10": _Statistic(lambda kernel, w: kernel.spearman(kernel.top(w, 0.1)), "bca"),
    "spearman_top5": _Statistic(lambda kernel, w: kernel.spearman(kernel.top(w, 0.05)), "bca"),
    "kendall_all": _Statistic(lambda kernel, w: kernel.kendall(w), "percentile"),
    "kendall_top50": _Statistic(lambda kernel, w: kernel.kendall(kernel.top(w, 0.5)), "bca"),
    "top10_recall": _Statistic(lambda kernel, w: kernel.recall(w, TOP_K), "percentile"),
    "regret": _Statistic(lambda kernel, w: kernel.regret(w), "percentile"),
}
STATISTICS = tuple(_STATISTICS)  # names in reports
HEADLINE = "spearman_all"  # the one that verdicts and the `difference` of a search are about


def scores(values: Values) -> np.ndarray:
    """float64 [n] scores; failed ones (None, NaN, infinite) are -inf, so that they rank last and tie."""
    array = np.array([math.nan if v is None else v for v in np.ravel(np.asarray(values, dtype=object))], dtype=float)
    return np.where(np.isfinite(array), array, FAILED)


def spearman(x: Values, y: Values) -> float:
    """Spearman's rank correlation (average ranks for ties); NaN for fewer than 3 or a constant side."""
    return _correlation(scipy_stats.spearmanr, x, y)


def kendall(x: Values, y: Values) -> float:
    """Kendall's tau-b; NaN for fewer than 3 or a constant side."""
    return _correlation(scipy_stats.kendalltau, x, y)


def top_subset(real: Values, fraction: float) -> np.ndarray:
    """Indices, ascending, of the ceil(fraction * n) best by the real scores and all tied with the last of them."""
    values = scores(real)
    if not len(values):
        return np.empty(0, dtype=np.int64)
    size = int(subset_size(len(values), fraction))
    return np.flatnonzero(values >= np.sort(values)[::-1][size - 1])


def top_k_recall(real: Values, proxy: Values, k: int) -> float:
    """Share of the k really best that are among the proxy's k best.

    An architecture tied for the last places counts as the fraction of them it can expect, on either side, and the
    overlap adds the smaller of both fractions: 1 for equal rankings, k / n for a constant proxy, and chance is k / n.
    NaN when k is not below n (choosing all is no choice) or the real scores are constant.
    """
    kernel = _kernel(real, proxy)
    return float(kernel.recall(np.ones((1, kernel.n)), _positive(k))[0])


def regret(real: Values, proxy: Values, k: int = 1) -> float:
    """Real score lost by choosing with the proxy: the best there is minus the best of the proxy's top k.

    Ties at the proxy's k-th place are broken at random, and the expectation is returned. In units of `real`.
    """
    first, second = _pair(real, proxy)
    values = worth(first)
    if not len(values) or np.isnan(values).any():
        return math.nan
    k = min(_positive(k), len(values))
    threshold = np.sort(second)[::-1][k - 1]
    sure, tied = values[second > threshold], np.sort(values[second == threshold])
    draws, group = k - len(sure), len(tied)
    position = np.arange(group)  # the best of `draws` out of `group` is the one at this position
    chance = special.comb(position, draws - 1) / special.comb(group, draws)
    best = np.maximum(tied, sure.max(initial=-math.inf))
    return float((chance * (values.max() - best)).sum())


def rank_report(
    real: Values, proxy: Values, seed: int = 0, level: float = LEVEL, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Every rank statistic with its interval: {name: {value, low, high}}, for the names in `STATISTICS`.

    Also `evaluated` (architectures), `failed` (of the proxy) and `failed_real`. None where a value is not defined.
    """
    report: dict[str, Any] = {
        "evaluated": len(scores(real)),
        "failed": int(np.isneginf(scores(proxy)).sum()),
        "failed_real": int(np.isneginf(scores(real)).sum()),
    }
    kernel = _kernel(real, proxy)
    methods = {name: statistic.method for name, statistic in _STATISTICS.items()}
    return report | _intervals(lambda of, w: of(kernel, w), kernel.n, methods, seed, level, resamples)


def paired_rank_difference(
    real: Values,
    proxy_a: Values,
    proxy_b: Values,
    seed: int = 0,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> dict[str, dict[str, Any]]:
    """{name: {mean, low, high, pairs}} of a's statistic minus b's, both against the same real scores.

    Both proxies see the same resampled architectures, so what the architectures share cancels; `pairs` counts them.
    Positive favours a, except for `regret`, where less is better.
    """
    a, b = _kernel(real, proxy_a), _kernel(real, proxy_b)
    methods = dict.fromkeys(STATISTICS, "percentile")
    found = _intervals(lambda of, w: of(a, w) - of(b, w), a.n, methods, seed, level, resamples)
    return {
        name: {"mean": bounds["value"], "low": bounds["low"], "high": bounds["high"], "pairs": a.n}
        for name, bounds in found.items()
    }


def noise_ceiling(
    real_a: Values, real_b: Values, seed: int = 0, level: float = LEVEL, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """The report of a second real run as a proxy for the first, judged exactly like a proxy (subsets by `real_a`).

    It is what another run of the real training reaches. Both runs are noisy: a proxy without noise of its own could
    reach about the square root of these correlations. Equal rankings give 1 everywhere and regret 0.
    """
    return rank_report(real_a, real_b, seed, level, resamples)


def worth(real: np.ndarray) -> np.ndarray:
    """Real scores as numbers: failed ones at the lowest that exists; NaN where all failed."""
    finite = real[np.isfinite(real)]
    return np.where(np.isfinite(real), real, finite.min() if len(finite) else math.nan)


def _intervals(
    evaluate: Callable[[Callable[[RankKernel, np.ndarray], np.ndarray], np.ndarray], np.ndarray],
    n: int,
    methods: dict[str, str],
    seed: int,
    level: float,
    resamples: int,
) -> dict[str, dict[str, Any]]:
    """{name: {value, low, high}} of every statistic; evaluate(statistic, weights [B, n]) gives its values [B]."""
    if n == 0:
        return {name: interval(math.nan, np.empty(0)) for name in STATISTICS}
    indices = resampled_indices(n, seed, resamples)
    blocks = [_counts(indices[start : start + _BLOCK], n) for start in range(0, resamples, _BLOCK)]
    found = {}
    for name, statistic in _STATISTICS.items():
        value = float(evaluate(statistic.of, np.ones((1, n)))[0])
        draws = np.concatenate([evaluate(statistic.of, block) for block in blocks])
        found[name] = interval(
            value, draws, level, methods[name], lambda of=statistic.of: evaluate(of, 1.0 - np.eye(n))
        )
    return found


def _counts(indices: np.ndarray, n: int) -> np.ndarray:
    """How often each item occurs in each resample: int [B, m] -> float64 [B, n]."""
    rows = np.arange(len(indices))[:, None] * n
    return np.bincount((rows + indices).ravel(), minlength=len(indices) * n).reshape(-1, n).astype(np.float64)


def _kernel(real: Values, proxy: Values) -> RankKernel:
    first, second = _pair(real, proxy)
    return RankKernel(first, second, worth(first))


def _pair(x: Values, y: Values) -> tuple[np.ndarray, np.ndarray]:
    first, second = scores(x), scores(y)
    if len(first) != len(second):
        raise UsageError(f"Both rankings must hold the same architectures, not {len(first)} and {len(second)} of them.")
    return first, second


def _positive(k: int) -> int:
    if k < 1:
        raise UsageError(f"The number of architectures to choose must be 1 or more, not {k}.")
    return k


def _correlation(function: Callable[..., Any], x: Values, y: Values) -> float:
    first, second = _pair(x, y)
    if len(first) < 3 or np.ptp(_ranks(first)) == 0 or np.ptp(_ranks(second)) == 0:
        return math.nan
    return float(function(_ranks(first), _ranks(second)).statistic)


def _ranks(values: np.ndarray) -> np.ndarray:
    return scipy_stats.rankdata(values)

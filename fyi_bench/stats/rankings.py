"""How well a proxy ranks architectures: rank correlations, top-k recall, regret, and their bootstrap intervals.

`real` and `proxy` hold one score an architecture, higher is better. Written rules, the same everywhere:

- Failed architectures (None, NaN, infinite) are ranked last, tied with each other, and counted. Where a number is
  needed (regret), a failed one is worth the lowest real score that exists.
- Ties share the average rank (Spearman) and tau-b is Kendall's. 202 of 720 rounded accuracies were tied when looked at.
- Fewer than 3 architectures, or a constant ranking: the correlation is NaN (None in reports).
- "Top 50 %" means: the ceil(n / 2) best by the *real* scores, with all that are tied with the last of them; the two
  rankings are formed anew inside the subset.
- Recall: an architecture tied for the last of the 10 places counts as the fraction of them it can expect, on either
  side, and the overlap adds the smaller of both fractions. It is not defined where 10 are all, or real scores constant.
- Regret: the best real score minus the expected one of the proxy's best, ties broken at random.
- Intervals resample architectures, so the space counts as a sample of architectures: percentile bootstrap of the
  correlations over all, of recall, of regret and of every difference of two proxies; BCa of the correlations inside
  subsets, where the percentile interval is too wide.
- The real ranking is itself measured with noise: the report of a second real run as a proxy for the first is the
  ceiling. Both runs are noisy: a proxy without noise of its own could reach about the square root of its correlations.

Measured coverage of 95 % intervals (normal scores; 30, 60, 100 and 360 architectures; correlations 0, 0.7 and 0.95;
percentile / BCa, at least 400 simulations up to n = 100): spearman_all 93-98 / 92-98, kendall_all 94-98 / 94-99;
top 50, 20 and 10 %: 94-100 / 93-97; top 5 % from n = 60 on: 98-100 / 88-97. Recall 97-100 / 88-94. Regret, a
difference of extremes, has no bootstrap that holds: 83-93 / 62-73; read its interval as sensitivity to the sample.
Differences of two equally good proxies: correlations over all 95-97 / 93-96, inside subsets 97-100 / 89-96.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fyi_bench.errors import UsageError
from fyi_bench.stats.intervals import RESAMPLES, Values, bootstrap_interval, floats, mean_interval, resampled_indices
from fyi_bench.stats.rank_kernel import RankKernel

TOP_K = 10
HEADLINE = "spearman_all"  # what verdicts and the `difference` of a search are about
_BLOCK = 500  # resamples at a time: a few MB for 720 architectures

Statistic = Callable[[RankKernel, np.ndarray], np.ndarray]  # of a kernel and weights [B, n], values [B]
_STATISTICS: dict[str, Statistic] = {
    "spearman_all": lambda kernel, w: kernel.spearman(w),
    "spearman_top50": lambda kernel, w: kernel.spearman(kernel.top(w, 0.5)),
    "spearman_top20": lambda kernel, w: kernel.spearman(kernel.top(w, 0.2)),
    "spearman_top10": lambda kernel, w: kernel.spearman(kernel.top(w, 0.1)),
    "spearman_top5": lambda kernel, w: kernel.spearman(kernel.top(w, 0.05)),
    "kendall_all": lambda kernel, w: kernel.kendall(w),
    "kendall_top50": lambda kernel, w: kernel.kendall(kernel.top(w, 0.5)),
    "top10_recall": lambda kernel, w: kernel.recall(w, TOP_K),
    "regret": lambda kernel, w: kernel.regret(w),
}
STATISTICS = tuple(_STATISTICS)  # names in reports
_BCA = {name for name in STATISTICS if "_top" in name}


def scores(values: Values) -> np.ndarray:
    """float64 [n] scores; failed ones (None, NaN, infinite) are -inf, so that they rank last and tie."""
    array = floats(values)
    return np.where(np.isnan(array), -math.inf, array)


def ranks(values: Values) -> np.ndarray:
    """float64 [n], 1 for the best; ties share the average rank, failed ones share the last places."""
    _, place, count = np.unique(-scores(values), return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def rank_report(real: Values, proxy: Values, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Every rank statistic with its 95 % interval: {name: {value, low, high}}, for the names in `STATISTICS`.

    Also `evaluated` (architectures), `failed` (of the proxy) and `failed_real`. None where a value is not defined.
    """
    kernel = _kernel(real, proxy)
    counts = {
        "evaluated": kernel.n,
        "failed": int(np.isneginf(scores(proxy)).sum()),
        "failed_real": int(np.isneginf(scores(real)).sum()),
    }
    return counts | _intervals(
        lambda of, w: of(kernel, w), kernel.n, _BCA, resampled_indices(kernel.n, seed, resamples)
    )


def paired_rank_difference(
    real: Values, proxy_a: Values, proxy_b: Values, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, dict[str, Any]]:
    """{name: {mean, low, high, pairs}} of a's statistic minus b's, both against the same real scores.

    Both proxies see the same resampled architectures, so what the architectures share cancels; `pairs` counts them.
    Positive favours a, except for `regret`, where less is better.
    """
    return mean_rank_difference(real, [proxy_a], [proxy_b], seed, resamples)


def mean_rank_difference(
    real: Values, draws_a: Sequence[Values], draws_b: Sequence[Values], seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, dict[str, Any]]:
    """`paired_rank_difference` of proxies that were drawn several times: the mean statistic of a's draws minus b's.

    The interval is over architectures, for these draws.
    """
    sides = [[_kernel(real, draw) for draw in draws] for draws in (draws_a, draws_b)]

    def evaluate(of: Statistic, weights: np.ndarray) -> np.ndarray:
        a, b = (np.mean([of(kernel, weights) for kernel in side], axis=0) for side in sides)
        return np.round(a - b, 12)  # a mean of equal shares is not quite the share

    n = sides[0][0].n
    found = _intervals(evaluate, n, set(), resampled_indices(n, seed, resamples))
    return {
        name: {"mean": bounds["value"], "low": bounds["low"], "high": bounds["high"], "pairs": n}
        for name, bounds in found.items()
    }


def misjudged(factors: Mapping[str, Sequence[Any]], real: Values, proxy: Values) -> dict[str, dict[str, Any]]:
    """Which design factor a proxy misjudges: how far it shifts the ranks of the architectures that share a level.

    {factor: {spread, levels: [{level, architectures, shift, low, high}]}}, the most misjudged factor first, and in it
    the level that is ranked too low the most. factors: the level of each architecture. shift: mean over a level of
    proxy rank minus real rank, as a share of the number of architectures, with a 95 % interval: above 0, the proxy
    ranks that level too low. spread: the largest shift minus the smallest. Shifts of a factor average to 0 over the
    architectures.
    """
    shift = (ranks(proxy) - ranks(real)) / max(1, len(real))
    found: dict[str, dict[str, Any]] = {}
    for factor, levels in factors.items():
        members = {level: [k for k, own in enumerate(levels) if own == level] for level in dict.fromkeys(levels)}
        rows: list[dict[str, Any]] = []
        for level, own in members.items():
            mean = mean_interval(shift[own])
            moved = {"shift": mean["mean"], "low": mean["low"], "high": mean["high"]}
            rows.append({"level": level, "architectures": len(own), **moved})
        rows.sort(key=lambda row: -row["shift"])
        found[factor] = {"spread": rows[0]["shift"] - rows[-1]["shift"] if rows else 0.0, "levels": rows}
    return dict(sorted(found.items(), key=lambda item: -item[1]["spread"]))


def _kernel(real: Values, proxy: Values) -> RankKernel:
    first, second = scores(real), scores(proxy)
    if len(first) != len(second):
        raise UsageError(f"Both rankings must hold the same architectures, not {len(first)} and {len(second)} of them.")
    return RankKernel(first, second)


def _intervals(
    evaluate: Callable[[Statistic, np.ndarray], np.ndarray], n: int, bca: set[str], indices: np.ndarray
) -> dict[str, dict[str, Any]]:
    """{name: {value, low, high}} of every statistic; evaluate(statistic, weights [B, n]) gives its values [B].

    bca: names of those with a BCa interval. indices: the resamples.
    """
    if n == 0:
        return {name: bootstrap_interval(math.nan, np.empty(0)) for name in STATISTICS}
    blocks = [_counts(indices[start : start + _BLOCK], n) for start in range(0, len(indices), _BLOCK)]
    found = {}
    for name, of in _STATISTICS.items():
        value = float(evaluate(of, np.ones((1, n)))[0])
        draws = np.concatenate([evaluate(of, block) for block in blocks])
        left_out = (lambda of=of: evaluate(of, 1.0 - np.eye(n))) if name in bca else None
        found[name] = bootstrap_interval(value, draws, left_out=left_out)
    return found


def _counts(indices: np.ndarray, n: int) -> np.ndarray:
    """How often each item occurs in each resample: int [B, m] -> float64 [B, n]."""
    rows = np.arange(len(indices))[:, None] * n
    return np.bincount((rows + indices).ravel(), minlength=len(indices) * n).reshape(-1, n).astype(np.float64)

"""Rank statistics of many bootstrap resamples at once.

A resample is the row of weights saying how often each architecture occurs in it; every statistic of a resample is a
function of the weights and of tables made once, so nothing is sorted per resample. The plain twins in the tests
repeat the architectures and call scipy.
"""

from __future__ import annotations

import math

import numpy as np


def subset_size(n: np.ndarray | int, fraction: float) -> np.ndarray:
    """ceil(fraction * n), at least 1; rounded first, so that 0.1 * 30 is 3."""
    return np.maximum(np.ceil(np.round(fraction * np.asarray(n, dtype=np.float64), 9)), 1)


class RankKernel:
    """Statistics of real and proxy scores [n] under weights [B, n] (whole numbers, 0 for what is left out).

    Scores of failed architectures are -inf. Every method returns float64 [B], NaN where undefined.
    """

    def __init__(self, real: np.ndarray, proxy: np.ndarray):
        self.n = len(real)
        self._real, self._proxy = _Levels(real), _Levels(proxy)
        finite = real[np.isfinite(real)]  # a failed architecture is worth the lowest score that exists
        self._worth = np.where(np.isfinite(real), real, finite.min() if len(finite) else math.nan)
        self._concordance: np.ndarray | None = None

    def spearman(self, weights: np.ndarray) -> np.ndarray:
        """Pearson's correlation of average ranks."""
        count = weights.sum(1, keepdims=True)
        centre = (count + 1) / 2
        x, y = self._real.ranks(weights) - centre, self._proxy.ranks(weights) - centre
        wx, wy = weights * x, weights * y
        return _ratio((wx * y).sum(1), (wx * x).sum(1) * (wy * y).sum(1), count[:, 0])

    def kendall(self, weights: np.ndarray) -> np.ndarray:
        """tau-b: concordant minus discordant pairs over the geometric mean of the pairs untied on either side."""
        count = weights.sum(1)
        if self._concordance is None:
            self._concordance = self._real.signs() * self._proxy.signs()
        pairs = count * (count - 1) / 2
        untied = (pairs - self._real.tied_pairs(weights)) * (pairs - self._proxy.tied_pairs(weights))
        return _ratio(((weights @ self._concordance) * weights).sum(1) / 2, untied, count)

    def top(self, weights: np.ndarray, fraction: float) -> np.ndarray:
        """The weights with everything set to 0 that is not among the top fraction by real score (ties included)."""
        size = subset_size(weights.sum(1, keepdims=True), fraction)
        return weights * self._real.spread(self._real.above(weights) < size)

    def recall(self, weights: np.ndarray, k: int) -> np.ndarray:
        """Overlap of both top k, ties at the last places shared, over k."""
        shares = np.minimum(self._real.shares(weights, k), self._proxy.shares(weights, k))
        undefined = (weights.sum(1) <= k) | ((self._real.counts(weights) > 0).sum(1) < 2)
        return np.where(undefined, math.nan, (weights * shares).sum(1) / k)

    def regret(self, weights: np.ndarray) -> np.ndarray:
        """Best real score minus the mean real score of those the proxy puts first."""
        best = np.where(weights > 0, self._worth, -math.inf).max(1, keepdims=True)
        chosen = weights * self._proxy.shares(weights, 1)
        return (chosen * (best - self._worth)).sum(1)


class _Levels:
    """Scores as levels 0 (lowest) … L - 1, equal scores on one level; tables [B, L] are per level."""

    def __init__(self, values: np.ndarray):
        self._level = np.unique(values, return_inverse=True)[1]
        self._order = np.argsort(self._level, kind="stable")
        self._starts = np.flatnonzero(np.diff(self._level[self._order], prepend=-1))

    def spread(self, table: np.ndarray) -> np.ndarray:
        """[B, L] -> [B, n]: each item gets the entry of its level."""
        return table[:, self._level]

    def counts(self, weights: np.ndarray) -> np.ndarray:
        """Items on each level."""
        return np.add.reduceat(weights[:, self._order], self._starts, axis=1)

    def above(self, weights: np.ndarray) -> np.ndarray:
        """Items on higher levels."""
        counts = self.counts(weights)
        return counts.sum(1, keepdims=True) - counts.cumsum(1)

    def ranks(self, weights: np.ndarray) -> np.ndarray:
        """Average rank of each item, [B, n]; the lowest score has rank 1."""
        counts = self.counts(weights)
        return self.spread(counts.cumsum(1) - (counts - 1) / 2)

    def tied_pairs(self, weights: np.ndarray) -> np.ndarray:
        """Pairs of items on one level, [B]."""
        counts = self.counts(weights)
        return (counts * (counts - 1) / 2).sum(1)

    def shares(self, weights: np.ndarray, k: int) -> np.ndarray:
        """Expected share of each single item in the top k when ties are broken at random, [B, n]."""
        left = k - self.above(weights)
        return self.spread(np.clip(left / np.maximum(self.counts(weights), 1), 0, 1))

    def signs(self) -> np.ndarray:
        """-1, 0 or 1 for every pair of items, [n, n]."""
        return np.sign(self._level[:, None] - self._level[None, :]).astype(np.float64)


def _ratio(numerator: np.ndarray, squared: np.ndarray, count: np.ndarray) -> np.ndarray:
    """numerator / sqrt(squared) within [-1, 1]; NaN for fewer than 3 items or a constant side."""
    defined = (count >= 3) & (squared > 0)
    value = numerator / np.sqrt(np.where(defined, squared, 1.0))
    return np.where(defined, np.clip(value, -1, 1), math.nan)

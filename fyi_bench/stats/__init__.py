"""Statistics of results, one door: means and intervals (intervals.py), rankings of architectures (rankings.py).

Pure functions of their arguments, numpy and scipy only; every random draw is keyed by a seed. What is not defined is
NaN where a number is returned and None where a dict is, so that records stay legal JSON.
"""

from fyi_bench.stats.intervals import mean_interval, mean_std, paired_difference, spread, unpaired_difference
from fyi_bench.stats.rankings import (
    HEADLINE,
    STATISTICS,
    mean_rank_difference,
    misjudged,
    paired_rank_difference,
    rank_report,
)

__all__ = [
    "HEADLINE",
    "STATISTICS",
    "mean_interval",
    "mean_rank_difference",
    "mean_std",
    "misjudged",
    "paired_difference",
    "paired_rank_difference",
    "rank_report",
    "spread",
    "unpaired_difference",
]

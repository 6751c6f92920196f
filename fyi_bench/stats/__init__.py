"""Statistics of results, one door: intervals and the bootstrap (intervals.py), rankings of architectures (rankings.py).

Pure functions of their arguments, numpy and scipy only; every random draw is keyed by a seed. What is not defined is
NaN where a number is returned and None where a dict is, so that records stay legal JSON.
"""

from fyi_bench.stats.intervals import (
    LEVEL,
    RESAMPLES,
    bootstrap,
    mean_interval,
    mean_std,
    paired_difference,
    paired_difference_bootstrap,
    resampled_indices,
)
from fyi_bench.stats.rankings import (
    HEADLINE,
    STATISTICS,
    kendall,
    noise_ceiling,
    paired_rank_difference,
    rank_report,
    regret,
    scores,
    spearman,
    top_k_recall,
    top_subset,
)

__all__ = [
    "HEADLINE",
    "LEVEL",
    "RESAMPLES",
    "STATISTICS",
    "bootstrap",
    "kendall",
    "mean_interval",
    "mean_std",
    "noise_ceiling",
    "paired_difference",
    "paired_difference_bootstrap",
    "paired_rank_difference",
    "rank_report",
    "regret",
    "resampled_indices",
    "scores",
    "spearman",
    "top_k_recall",
    "top_subset",
]

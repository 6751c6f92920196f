"""Rank statistics: against scipy, by hand, the rules for ties and failures, and the fast bootstrap's plain twin."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_ranks import bootstrap, kendall, regret, spearman, top_k_recall, top_subset
from scipy import stats as scipy_stats

from fyi_bench.errors import UsageError
from fyi_bench.rng import numpy_stream
from fyi_bench.stats import STATISTICS, mean_rank_difference, paired_rank_difference, rank_report
from fyi_bench.stats.intervals import resampled_indices
from fyi_bench.stats.rank_kernel import RankKernel
from fyi_bench.stats.rankings import _STATISTICS, scores

FRACTIONS = {"all": 1.0, "top50": 0.5, "top20": 0.2, "top10": 0.1, "top5": 0.05}
tied = st.integers(0, 6).map(float)  # few values, so that ties are frequent
rankings = st.lists(st.tuples(tied, tied), min_size=3, max_size=14)


def pair(n=40, seed=0, noise=1.0, digits=1):
    """Correlated scores, rounded so that some are tied."""
    random = numpy_stream(seed, "pair")
    real = random.normal(size=n)
    return np.round(real, digits), np.round(real + noise * random.normal(size=n), digits)


def fast(name, x, y):
    """One statistic of one ranking, as the reports have it."""
    kernel = RankKernel(scores(x), scores(y))
    return float(_STATISTICS[name](kernel, np.ones((1, kernel.n)))[0])


@given(rankings)
def test_correlations_equal_scipys(pairs):
    x, y = map(np.array, zip(*pairs, strict=True))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert math.isnan(fast("spearman_all", x, y))
        assert math.isnan(fast("kendall_all", x, y))
        return
    assert fast("spearman_all", x, y) == pytest.approx(scipy_stats.spearmanr(x, y).statistic)
    assert fast("kendall_all", x, y) == pytest.approx(scipy_stats.kendalltau(x, y).statistic)
    assert fast("spearman_all", x, y) == pytest.approx(fast("spearman_all", y, x))
    assert fast("spearman_all", np.exp(x), y) == fast("spearman_all", x, y)
    assert fast("spearman_all", -x, y) == pytest.approx(-fast("spearman_all", x, y))


def test_correlations_by_hand():
    assert fast("spearman_all", [1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert fast("kendall_all", [1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)
    assert fast("kendall_all", [1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(2 * 3))


def test_fewer_than_three_or_constant_is_undefined():
    assert math.isnan(fast("spearman_all", [1, 2], [1, 2]))
    assert rank_report([], [])["kendall_all"]["value"] is None
    assert math.isnan(fast("spearman_all", [1, 1, 1], [1, 2, 3]))


def test_failed_architectures_rank_last_and_tie():
    assert scores([0.5, None, math.nan, math.inf, -1]).tolist() == [0.5, -math.inf, -math.inf, -math.inf, -1]
    real = [0.9, 0.8, 0.7, 0.1, 0.2]
    failed, low = [0.9, 0.8, 0.7, None, math.nan], [0.9, 0.8, 0.7, -5, -5]
    assert fast("spearman_all", real, failed) == fast("spearman_all", real, low)
    report = rank_report([*real, None], [0.9, None, 0.7, math.nan, 0.2, 0.1], resamples=20)
    assert (report["evaluated"], report["failed"], report["failed_real"]) == (6, 2, 1)


def test_different_lengths_are_an_error():
    with pytest.raises(UsageError, match="same architectures"):
        rank_report([1, 2, 3], [1, 2])


@pytest.mark.parametrize(
    ("real", "fraction", "taken"),
    [
        ([5, 1, 4, 2], 0.5, [0, 2]),
        ([5, 1, 4, 4], 0.5, [0, 2, 3]),
        ([5, 1, 4], 0.5, [0, 2]),  # ceil(1.5)
        (range(30), 0.1, [27, 28, 29]),  # not 4, though 0.1 * 30 is a little above 3 in binary
        ([1.0, None], 0.01, [0]),
    ],
)
def test_top_subset_takes_the_best_and_all_tied_with_the_last(real, fraction, taken):
    kernel = RankKernel(scores(real), scores(real))
    assert np.flatnonzero(kernel.top(np.ones((1, kernel.n)), fraction)[0]).tolist() == taken
    assert top_subset(real, fraction).tolist() == taken


def test_recall_by_hand():
    real = [10, 9, 8, 7, 6, 5]
    assert top_k_recall(real, [10, 9, 1, 2, 3, 8], 3) == pytest.approx(2 / 3)
    assert top_k_recall(real, real, 3) == 1.0
    assert top_k_recall(real, [1] * 6, 3) == pytest.approx(3 / 6)
    assert top_k_recall(real, [9, 8, 8, 1, 1, 1], 2) == pytest.approx((1 + 0.5) / 2)
    assert math.isnan(top_k_recall(real, real, 6))
    assert math.isnan(top_k_recall([1] * 6, real, 3))


def plain_regret(real, proxy, k):
    """The twin: every order in which ties may be broken."""
    orders = [
        order
        for order in itertools.permutations(range(len(real)))
        if all(proxy[a] >= proxy[b] for a, b in itertools.pairwise(order))
    ]
    return max(real) - float(np.mean([max(real[i] for i in order[:k]) for order in orders]))


@given(st.lists(st.tuples(tied, st.integers(0, 2).map(float)), min_size=1, max_size=6), st.integers(1, 6))
def test_regret_is_the_expectation_over_broken_ties(pairs, k):
    real, proxy = map(list, zip(*pairs, strict=True))
    assert regret(real, proxy, k) == pytest.approx(plain_regret(real, proxy, min(k, len(real))), abs=1e-12)


def test_regret_by_hand_and_with_failures():
    real = [0.9, 0.8, 0.5, None]
    assert regret(real, [1, 2, 3, 0]) == pytest.approx(0.4)
    assert regret(real, [1, 2, 3, 0], k=2) == pytest.approx(0.1)
    assert fast("regret", real, [1, 2, 3, 0]) == pytest.approx(0.4)
    assert regret(real, real) == fast("regret", real, real) == 0.0
    assert fast("regret", real, [0, 0, 0, 1]) == pytest.approx(0.4)  # a failed choice is worth the worst that exists
    assert math.isnan(fast("regret", [None, None], [1, 2]))


def plain(name, real, proxy):
    """The twin of every reported statistic, from the functions for one ranking."""
    if name == "top10_recall":
        return top_k_recall(real, proxy, 10)
    if name == "regret":
        return regret(real, proxy)
    correlation, part = name.split("_")
    rows = top_subset(real, FRACTIONS[part])
    return {"spearman": spearman, "kendall": kendall}[correlation](real[rows], proxy[rows])


@pytest.mark.long
@pytest.mark.parametrize("digits", [0, 1, 6])
@pytest.mark.parametrize("failures", [0, 12])
def test_the_fast_bootstrap_equals_its_plain_twin(digits, failures):
    real, proxy = pair(n=45, seed=digits, digits=digits)
    real[:failures:3] = math.nan
    proxy[:failures:2] = math.nan
    report = rank_report(real, proxy, seed=7, resamples=60)
    worst = np.where(np.isnan(real), np.nanmin(real), real)  # in a resample the worst of all still is the worth
    for name in STATISTICS:
        first = worst if name == "regret" else real
        method = "bca" if "_top" in name else "percentile"
        twin = bootstrap(lambda row: plain(name, first[row], proxy[row]), 45, seed=7, resamples=60, method=method)  # noqa: B023
        assert list(report[name].values()) == pytest.approx(list(twin.values()), abs=1e-12), name


@settings(max_examples=30)
@given(rankings)
def test_the_fast_statistics_equal_scipy_on_tied_resamples(pairs):
    x, y = map(np.array, zip(*pairs, strict=True))
    rows = resampled_indices(len(x), 0, 10)
    weights = np.stack([np.bincount(row, minlength=len(x)) for row in rows]).astype(float)
    kernel = RankKernel(x, y)
    for fast, slow in ((kernel.spearman, spearman), (kernel.kendall, kendall)):
        expected = [slow(x[row], y[row]) for row in rows]
        assert fast(weights) == pytest.approx(np.array(expected), abs=1e-12, nan_ok=True)


def test_a_report_of_few_architectures_says_none():
    report = rank_report([0.1, 0.2, 0.3, 0.4], [0.1, 0.3, 0.2, 0.4], resamples=50)
    assert report["spearman_all"]["value"] == pytest.approx(0.8)
    assert report["spearman_top50"] == {"value": None, "low": None, "high": None}
    assert report["top10_recall"]["value"] is None
    assert rank_report([], [])["spearman_all"]["value"] is None


def test_equal_rankings_reach_the_ceiling_everywhere():
    real, _ = pair(n=120, noise=0.3)
    report = rank_report(real, np.exp(real), resamples=100)
    for name in set(STATISTICS) - {"regret"}:
        assert report[name] == {"value": 1.0, "low": 1.0, "high": 1.0}, name
    assert report["regret"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_the_order_of_architectures_does_not_change_values():
    real, proxy = pair(n=60)
    order = numpy_stream(0, "order").permutation(60)
    one, other = rank_report(real, proxy, resamples=10), rank_report(real[order], proxy[order], resamples=10)
    assert [one[name]["value"] for name in STATISTICS] == pytest.approx([other[name]["value"] for name in STATISTICS])


def test_the_paired_difference_of_two_proxies():
    real, good = pair(n=150, noise=0.5)
    bad = good + 2.0 * numpy_stream(0, "worse").normal(size=150)
    difference = paired_rank_difference(real, good, bad, resamples=300)
    reports = [rank_report(real, proxy, resamples=300) for proxy in (good, bad)]
    for name in STATISTICS:
        assert difference[name]["mean"] == pytest.approx(reports[0][name]["value"] - reports[1][name]["value"])
        assert difference[name]["pairs"] == 150
    assert difference["spearman_all"]["low"] > 0
    same = paired_rank_difference(real, good, good, resamples=50)
    assert same["kendall_top50"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "pairs": 150}


def test_the_difference_to_several_draws_is_that_to_their_mean_in_every_resample():
    real, proxy = pair(n=40)
    draws = [proxy + numpy_stream(seed, "draw").normal(size=40) for seed in range(3)]
    found = mean_rank_difference(real, [proxy], draws, resamples=60)
    assert found == mean_rank_difference(real, [proxy, proxy], draws, resamples=60)
    resamples = resampled_indices(40, 0, 60)
    for name, plain in (("spearman_all", spearman), ("kendall_all", kendall)):

        def difference(rows, plain=plain):
            return plain(real[rows], proxy[rows]) - np.mean([plain(real[rows], draw[rows]) for draw in draws])

        low, high = np.percentile([difference(rows) for rows in resamples], [2.5, 97.5])
        assert found[name] == pytest.approx(
            {"mean": difference(np.arange(40)), "low": low, "high": high, "pairs": 40}, abs=1e-12
        )


def test_pairing_narrows_the_difference():
    real, a = pair(n=150, noise=0.7, digits=6)
    b = a + 0.1 * numpy_stream(1, "close").normal(size=150)
    paired = paired_rank_difference(real, a, b, resamples=300)["spearman_all"]
    alone = rank_report(real, a, resamples=300)["spearman_all"]
    assert paired["high"] - paired["low"] < 0.5 * (alone["high"] - alone["low"])


def test_reports_repeat_themselves():
    real, proxy = pair()
    assert rank_report(real, proxy, seed=1, resamples=50) == rank_report(real, proxy, seed=1, resamples=50)
    assert rank_report(real, proxy, seed=1, resamples=50) != rank_report(real, proxy, seed=2, resamples=50)


def cover(function, true, simulations):
    """Share of simulations (numbered generators) whose interval holds the true value, by name of the statistic."""
    inside = dict.fromkeys(true, 0)
    for number in range(simulations):
        found = function(numpy_stream(number, "coverage"), number)
        for name, value in true.items():
            inside[name] += found[name]["low"] <= value <= found[name]["high"]
    return {name: count / simulations for name, count in inside.items()}


def normal_pair(random, n, correlation):
    real = random.normal(size=n)
    return real, correlation * real + math.sqrt(1 - correlation**2) * random.normal(size=n)


@pytest.mark.long
@pytest.mark.parametrize(
    ("simulations", "resamples", "least"), [(200, 250, 0.90), pytest.param(700, 600, 0.93, marks=pytest.mark.slow)]
)
def test_intervals_cover_95_percent(simulations, resamples, least):
    """Bivariate normal scores of correlation 0.7; inside subsets the value is that of a very large sample."""
    large = normal_pair(numpy_stream(0, "large"), 100_000, 0.7)
    true = {"spearman_all": 6 / math.pi * math.asin(0.35), "kendall_all": 2 / math.pi * math.asin(0.7)}
    for name, fraction in (("spearman_top50", 0.5), ("spearman_top20", 0.2)):
        rows = top_subset(large[0], fraction)
        true[name] = spearman(large[0][rows], large[1][rows])

    def report(random, seed):
        return rank_report(*normal_pair(random, 100, 0.7), seed=seed, resamples=resamples)

    found = cover(report, true, simulations)
    assert all(0.93 <= found[name] <= 0.97 for name in ("spearman_all", "kendall_all")), found
    assert all(least <= share <= 0.98 for share in found.values()), found


@pytest.mark.long
@pytest.mark.parametrize("draws", [1, 5])
def test_the_paired_difference_covers_95_percent(draws):
    """Proxies of equal quality, one of them drawn several times: the true difference is 0."""

    def compare(random, seed):
        real, first = normal_pair(random, 80, 0.8)
        others = [0.8 * real + 0.6 * random.normal(size=80) for _ in range(draws)]
        return mean_rank_difference(real, [first], others, seed=seed, resamples=200)

    found = cover(compare, {"spearman_all": 0, "kendall_all": 0, "kendall_top50": 0}, 400)
    assert all(0.93 <= found[name] <= 0.97 for name in ("spearman_all", "kendall_all")), found
    assert found["kendall_top50"] >= 0.95  # wider than it need be, as documented


def test_the_published_difference_of_fyi_is_not_told_apart_without_pairs():
    """docs/nas.md: Fisher's z with the variance of Bonett and Wright, as if the two rankings were independent."""
    from fyi_bench.present.published import published

    def p_value(metric: str, n: int) -> float:
        rho = {row.flip: row.value for row in published("B") if (row.method, row.metric) == ("mtt", metric)}
        spread = math.sqrt(sum((1 + value**2 / 2) / (n - 3) for value in rho.values()))
        return 2 * scipy_stats.norm.sf(abs(math.atanh(rho["fyi"]) - math.atanh(rho["none"])) / spread)

    assert round(p_value("spearman_all", 720), 2) == 0.35
    assert round(p_value("spearman_top50", 360), 2) == 0.30

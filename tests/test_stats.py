"""Statistics against scipy and by hand: means, paired intervals, the bootstrap, and what intervals cover."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_ranks import bootstrap
from scipy import stats as scipy_stats

from fyi_bench.errors import UsageError
from fyi_bench.rng import numpy_stream
from fyi_bench.stats import mean_interval, mean_std, paired_difference, spread
from fyi_bench.stats.intervals import bootstrap_interval, resampled_indices

finite = st.floats(-1e3, 1e3)


def test_mean_std_is_the_papers_population_deviation():
    assert mean_std([0.1, 0.2, 0.6]) == pytest.approx((0.3, np.std([0.1, 0.2, 0.6])))
    assert mean_std([1, 2, 3], ddof=1) == pytest.approx((2.0, 1.0))
    assert mean_std([0.5]) == (0.5, 0.0)
    assert mean_std([None, math.nan, 0.5]) == (0.5, 0.0)
    assert all(map(math.isnan, mean_std([])))
    assert math.isnan(mean_std([0.5], ddof=1)[1])


def test_spread_tells_sets_from_networks():
    """Sets with a deviation of 0.3, networks of 0.1 on them: what is found comes back on average, and adds up."""
    draws = numpy_stream(0, "spread").normal
    sets, networks = 400, 2
    values = (0.3 * draws(size=(sets, 1)) + 0.1 * draws(size=(sets, networks))).ravel()
    found = spread(list(values), [k // networks for k in range(len(values))])
    assert found["sets"] == sets
    assert found["between_sets"] == pytest.approx(0.3, rel=0.1)
    assert found["between_networks"] == pytest.approx(0.1, rel=0.1)
    by_hand = spread([1.0, 2.0, 4.0, 6.0], "aabb")  # within: variances 1/2 and 2; means 1.5 and 5
    assert by_hand["between_networks"] == pytest.approx(math.sqrt(1.25))
    assert by_hand["between_sets"] == pytest.approx(math.sqrt(3.5**2 / 2 - 1.25 / 2))


def test_spread_says_what_it_cannot_tell():
    assert spread([0.1, 0.3], [0, 1])["between_networks"] is None
    assert spread([0.1, 0.3], [0, 1])["between_sets"] == pytest.approx(np.std([0.1, 0.3], ddof=1))
    assert spread([0.1, 0.3], [7, 7])["between_sets"] is None
    assert spread([0.1, 0.3, 0.1, 0.3], [0, 0, 1, 1])["between_sets"] == 0.0
    assert spread([0.1, None, 0.2, math.nan], [0, 1, 2, 3])["sets"] == 2


def test_mean_interval_is_students():
    values = [0.61, 0.64, 0.58, 0.60]
    expected = scipy_stats.t.interval(0.9, 3, loc=np.mean(values), scale=scipy_stats.sem(values))
    found = mean_interval(values, level=0.9)
    assert (found["low"], found["high"]) == pytest.approx(expected)
    assert (found["mean"], found["n"]) == (pytest.approx(0.6075), 4)


def test_too_few_values_have_no_interval():
    assert mean_interval([0.5]) == {"mean": 0.5, "low": None, "high": None, "n": 1}
    assert mean_interval([None, math.nan]) == {"mean": None, "low": None, "high": None, "n": 0}
    assert paired_difference([0.5], [0.4]) == {"mean": pytest.approx(0.1), "low": None, "high": None, "pairs": 1}
    assert paired_difference([], []) == {"mean": None, "low": None, "high": None, "pairs": 0}


def test_paired_difference_is_the_paired_t_test():
    a, b = [0.52, 0.55, 0.50, 0.57, 0.53], [0.50, 0.54, 0.49, 0.53, 0.50]
    expected = scipy_stats.ttest_rel(a, b).confidence_interval(0.95)
    found = paired_difference(a, b)
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    assert (found["mean"], found["pairs"]) == (pytest.approx(0.022), 5)


def test_pairing_takes_out_what_the_arms_share():
    seeds = np.array([0.30, 0.40, 0.50, 0.60])
    gain = seeds + np.array([0.01, 0.02, 0.01, 0.02])
    paired = paired_difference(gain, seeds)
    unpaired = [mean_interval(values) for values in (gain, seeds)]
    assert paired["low"] > 0
    assert unpaired[0]["low"] < unpaired[1]["high"]


def test_a_pair_with_a_failed_run_is_left_out_and_missing_from_the_count():
    found = paired_difference([0.5, None, 0.7, 0.6], [0.4, 0.4, math.nan, 0.4])
    assert (found["mean"], found["pairs"]) == (pytest.approx(0.15), 2)


def test_networks_of_one_set_are_one_value():
    a = [0.50, 0.52, 0.60, 0.62]
    groups = ["set 0", "set 0", "set 1", "set 1"]
    assert mean_interval(a, groups=groups) == mean_interval([0.51, 0.61])
    b = [0.40, 0.40, 0.50, 0.52]
    assert paired_difference(a, b, groups=groups)["pairs"] == 2
    assert paired_difference(a, b, groups=groups)["mean"] == pytest.approx(0.105)


def test_unequal_numbers_are_an_error():
    with pytest.raises(UsageError, match="equal numbers"):
        paired_difference([1.0, 2.0], [1.0])


def test_wrong_groups_and_levels_are_errors():
    with pytest.raises(UsageError, match="groups"):
        mean_interval([1.0, 2.0], groups=["a"])
    with pytest.raises(UsageError, match="between 0 and 1"):
        mean_interval([1.0, 2.0], level=95)


@given(st.lists(st.tuples(finite, finite), min_size=2, max_size=12))
def test_the_difference_changes_sign_with_the_arms(pairs):
    a, b = map(list, zip(*pairs, strict=True))
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert one["mean"] == -other["mean"]
    assert (one["low"], one["high"]) == pytest.approx((-other["high"], -other["low"]))
    assert one["low"] <= one["mean"] <= one["high"]


def test_a_percentile_interval_is_that_of_the_sorted_draws():
    values = numpy_stream(0, "values").normal(size=15)
    found = bootstrap(lambda row: float(np.median(values[row])), 15, seed=3, resamples=200)
    draws = sorted(np.median(values[row]) for row in resampled_indices(15, 3, 200))
    low, high = np.quantile(draws, [0.025, 0.975])
    assert found == {"value": float(np.median(values)), "low": low, "high": high}


def test_bca_is_close_to_scipys():
    values = numpy_stream(1, "values").exponential(size=40)
    found = bootstrap(lambda row: values[row].mean(), 40, seed=0, resamples=9999, method="bca")
    theirs = scipy_stats.bootstrap((values,), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(0))
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert found["low"] == pytest.approx(theirs.confidence_interval.low, abs=0.03 * width)
    assert found["high"] == pytest.approx(theirs.confidence_interval.high, abs=0.03 * width)


def test_bca_of_a_constant_falls_back():
    found = bootstrap(lambda row: 1.0, 6, seed=0, method="bca")
    assert found == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_undefined_bootstraps_are_none():
    assert bootstrap(lambda row: math.nan, 5, seed=0) == {"value": None, "low": None, "high": None}
    assert bootstrap_interval(1.0, np.empty(0)) == {"value": 1.0, "low": None, "high": None}


def test_resamples_repeat_themselves_and_follow_the_seed():
    assert (resampled_indices(8, 5, 20) == resampled_indices(8, 5, 20)).all()
    assert (resampled_indices(8, 5, 20) != resampled_indices(8, 6, 20)).any()


def test_global_generators_are_left_alone():
    before = np.random.get_state()[1].copy()
    bootstrap(lambda row: float(row.mean()), 10, seed=0, resamples=10)
    assert (np.random.get_state()[1] == before).all()


def test_equal_pairs_have_an_interval_of_one_point():
    found = paired_difference([2.0] * 6, [1.5] * 6)
    assert (found["low"], found["mean"], found["high"]) == (0.5, 0.5, 0.5)


def coverage(draw, interval, simulations):
    """Share of simulations whose interval holds 0."""
    inside = 0
    for number in range(simulations):
        found = interval(draw(numpy_stream(number, "coverage")), number)
        inside += found["low"] <= 0 <= found["high"]
    return inside / simulations


@pytest.mark.parametrize("pairs", [3, 5, 15])
def test_the_paired_interval_covers_95_percent(pairs):
    def draw(random):
        shared = random.normal(size=pairs)
        return shared + random.normal(size=pairs), shared + random.normal(size=pairs)

    assert 0.93 <= coverage(draw, lambda arms, number: paired_difference(*arms), 2000) <= 0.97


def test_results_are_legal_json_and_need_no_torch():
    code = (
        "import sys, json; from fyi_bench import stats;"
        "print(json.dumps([stats.rank_report([1, 2], [2, 1]), stats.paired_difference([1], [2])], allow_nan=False));"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert json.loads(first)[1]["low"] is None
    assert second == "False"

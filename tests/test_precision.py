"""bf16 in the branches that need first derivatives only: the same accuracy in the end, pair by pair.

Both precisions share seed, initial images, draws and networks, so that a difference is the precision's. It is measured
on real CIFAR-10 with whole pipelines: experts, matching, retraining and test in the one precision, then in the other.
"""

from __future__ import annotations

import pytest

import fyi_bench
from fyi_bench.stats.intervals import paired_difference

SETS = 6
POINTS = 2.0  # the 95 % interval of the mean difference must lie within ± so many


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dm", "dsa", "mtt"])
def test_bf16_does_not_change_the_final_accuracy(method, data_root, tmp_path):
    found = {}
    for precision in ("fp32", "bf16"):
        record = fyi_bench.distill(
            method, only=True, dataset="cifar10", ipc=10, protocol="quick", precision=precision, seeds=SETS, workers=2,
            overrides={"nets": 1}, store=tmp_path / "runs", data_root=data_root,
        )  # fmt: skip
        found[precision] = [100 * value for value in record["arms"][0]["architectures"][0]["values"]]
    difference = paired_difference(found["bf16"], found["fp32"])
    print(method, found, difference)  # what docs/speed.md quotes: pytest -s
    assert difference["pairs"] == SETS
    assert max(-difference["low"], difference["high"]) < POINTS
    assert sum(found["fp32"]) / SETS > 25  # sets that have been learned, not noise

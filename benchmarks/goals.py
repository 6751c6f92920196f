"""What was set out to be reached, as data: a benchmark prints it beside what it measured, and nothing depends on it.

On two CPU cores a goal is a ratio: how many times as fast as the plain twin our side is to be, with the default and
with the tuned allocator, in one run. It is met where the median of the rounds reaches it; bf16 in the branches that
need first derivatives only may be used for it where a job has such branches. On one H200 a goal is the time of a
whole published run; it is met where the median time of an iteration times the iterations is no longer.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """Times as fast as the twin with the default allocator, and with the tuned one."""

    default: float
    tuned: float


@dataclass(frozen=True)
class WholeRun:
    """Units of a published run; seconds it is to take, and the least it can take by the machine's arithmetic."""

    units: int
    goal_s: float
    floor_s: float


CPU: dict[str, Ratio] = {
    "dc": Ratio(3.4, 2.5),
    "dsa": Ratio(3.4, 2.5),
    "dm": Ratio(4.0, 2.5),
    "expert": Ratio(3.7, 2.5),
    "retrain": Ratio(3.7, 2.5),
    "mtt": Ratio(2.0, 1.4),
    "mtt-unroll": Ratio(2.0, 1.4),
    # set after they had been measured (docs/speed.md)
    "idc": Ratio(3.0, 2.5),
    "nas": Ratio(3.0, 2.5),
}

# (job, data set, images a class)
H200: dict[tuple[str, str, int], WholeRun] = {
    ("dm", "cifar10", 50): WholeRun(20_000, 60, 16),
    ("dsa", "cifar10", 1): WholeRun(1000, 6, 1.5),
    ("dsa", "cifar10", 10): WholeRun(1000, 180, 57),
    ("dsa", "cifar100", 1): WholeRun(1000, 45, 14.5),
    ("dsa", "cifar100", 10): WholeRun(1000, 1200, 418),
    ("mtt", "cifar10", 1): WholeRun(5000, 180, 65),
    ("mtt", "cifar10", 10): WholeRun(5000, 120, 39),
    # 720 networks, 185 times the arithmetic of the benchmark's six
    ("nas", "cifar10", 50): WholeRun(185, 480, 109),
    # 100 experts of 50 epochs of 196 batches
    ("expert", "cifar10", 1): WholeRun(980_000, 420, 141),
}

HELP_SECONDS = 0.5
FIRST_STEP_SECONDS = 5.0
